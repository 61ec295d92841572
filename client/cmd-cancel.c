/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client.h"

int cmd_cancel(Client *client, char **args, int n)
{
        char path[64] = MIGMGR_ROOT "/job/_";
        size_t at = strlen(path);
        int status;

        for (const char *p = args[0]; *p && at + 1 < sizeof path; p++)
                path[at++] = *p == '-' ? '_' : *p;
        path[at] = 0;
        if (!sd_bus_object_path_is_valid(path)) {
                fprintf(stderr, "migctl: \"%s\" is no job; migctl jobs lists those that are known\n",
                        args[0]);
                return EXIT_USAGE;
        }
        status = client_cancel(client, path);
        if (status != EXIT_DONE)
                return status;
        if (client->options.json) {
                json_object *o = json_new_object();

                json_add_string(o, "path", path);
                write_json(client, o);
        }
        return EXIT_DONE;
}
