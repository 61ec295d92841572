/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client.h"

int cmd_check(Client *client, char **args, int n)
{
        _cleanup_(json_object_putp) json_object *report = NULL;
        bool ok;
        int status = client_check(client, args, &ok, &report);

        if (status != EXIT_DONE)
                return status;
        if (client->options.json)
                write_json(client, json_object_get(report));
        else {
                if (ok)
                        printf("%s can go to %s\n", args[0], args[1]);
                findings_view(report, client->options.legend, stdout);
                if (client_number(report, "plugins_msec") > 0)
                        printf("Plugins may add up to %lld ms to the blackout\n",
                               (long long) client_number(report, "plugins_msec"));
        }
        return ok ? EXIT_DONE : EXIT_REFUSED;
}
