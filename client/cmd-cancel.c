/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client.h"

int cmd_cancel(Client *client, char **args, int n)
{
        char path[64];
        int status;

        if (!client_job_path(args[0], path))
                return EXIT_USAGE;
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
