/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client.h"

/* A check asks every device and VMM of both hosts. */
#define CHECK_USEC (60 * USEC_PER_SEC)

static int call_check(Client *client, char **args, int *ret_ok, json_object **ret_report)
{
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *call = NULL, *reply = NULL;
        _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
        JsonReader reader = {.where = "report"};
        const char *text;
        int r = sd_bus_message_new_method_call(client->bus, &call, MIGMGR_NAME, MIGMGR_ROOT,
                                               MIGMGR_NAME ".Manager", "Check");

        if (r >= 0)
                r = sd_bus_message_append(call, "ss", args[0], args[1]);
        if (r >= 0)
                r = client_append_move(client, call);
        if (r >= 0)
                r = sd_bus_call(client->bus, call, CHECK_USEC, &error, &reply);
        if (r >= 0)
                r = sd_bus_message_read(reply, "bs", ret_ok, &text);
        if (r < 0)
                return client_failed(&error, r);
        *ret_report = json_parse(&reader, text, strlen(text));
        return *ret_report ? EXIT_DONE : EXIT_FAILED;
}

int cmd_check(Client *client, char **args, int n)
{
        _cleanup_(json_object_putp) json_object *report = NULL;
        json_object *findings = NULL;
        int ok, status = call_check(client, args, &ok, &report);

        if (status != EXIT_DONE)
                return status;
        (void) json_object_object_get_ex(report, "findings", &findings);
        if (client->options.json)
                write_json(client, json_object_get(report));
        else if (ok)
                printf("%s can go to %s\n", args[0], args[1]);
        else
                findings_view(findings, client->options.legend, stdout);
        return ok ? EXIT_DONE : EXIT_REFUSED;
}
