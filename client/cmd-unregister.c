/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client.h"

int cmd_unregister(Client *client, char **args, int n)
{
        _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
        int r = sd_bus_call_method(client->bus, MIGMGR_NAME, MIGMGR_ROOT, MIGMGR_NAME ".Manager",
                                   "UnregisterVM", &error, NULL, "s", args[0]);

        if (r < 0)
                return client_failed(&error, r);
        if (client->options.json) {
                json_object *o = json_new_object();

                json_add_string(o, "unregistered", args[0]);
                write_json(client, o);
        }
        return EXIT_DONE;
}
