/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client.h"

int cmd_cancel(Client *client, char **args, int n)
{
        _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
        char path[64] = MIGMGR_ROOT "/job/_";
        size_t at = strlen(path);
        int r;

        for (const char *p = args[0]; *p && at + 1 < sizeof path; p++)
                path[at++] = *p == '-' ? '_' : *p;
        path[at] = 0;
        if (!sd_bus_object_path_is_valid(path)) {
                fprintf(stderr, "migctl: \"%s\" is no job; migctl status VM shows a VM's\n", args[0]);
                return EXIT_USAGE;
        }
        r = sd_bus_call_method(client->bus, MIGMGR_NAME, path, MIGMGR_NAME ".Job", "Cancel", &error, NULL,
                               "");
        if (sd_bus_error_has_name(&error, SD_BUS_ERROR_UNKNOWN_OBJECT)) {
                fprintf(stderr, "migctl: no job %s is known here, or it has ended long ago\n", args[0]);
                return EXIT_NOT_FOUND;
        }
        if (r < 0)
                return client_failed(&error, r);
        if (client->options.json) {
                json_object *o = json_new_object();

                json_add_string(o, "path", path);
                write_json(client, o);
        }
        return EXIT_DONE;
}
