/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client.h"

/* What speaks against it is all that matters then. */
static void print_report(Client *client, char **args, bool ok, json_object *report)
{
        json_object *plan = NULL;

        if (ok)
                printf("%s can go to %s\n", args[0], args[1]);
        findings_view(report, client->options.legend, stdout);
        if (!ok)
                return;
        (void) json_object_object_get_ex(report, "plan", &plan);
        putchar('\n');
        plan_view(plan, client->options.legend, stdout);
        report_view(report, client->options.legend, stdout);
}

int cmd_check(Client *client, char **args, int n)
{
        _cleanup_(json_object_putp) json_object *report = NULL;
        bool ok;
        int status = client_check(client, args, &ok, &report);

        if (status != EXIT_DONE)
                return status;
        if (client->options.json)
                write_json(client, json_object_get(report));
        else
                print_report(client, args, ok, report);
        return ok ? EXIT_DONE : EXIT_REFUSED;
}
