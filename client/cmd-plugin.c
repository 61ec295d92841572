/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The verbs about plugins. */

#include "client.h"

static void join_phases(json_object *phases, char *ret, size_t size)
{
        size_t n = 0;

        ret[0] = 0;
        for (size_t i = 0; phases && i < json_object_array_length(phases) && n < size; i++)
                n += (size_t) snprintf(ret + n, size - n, "%s%s", i ? "," : "",
                                       client_text(json_object_array_get_idx(phases, i), "phase"));
}

static void print_list(const Client *client, json_object *list)
{
        static const Column columns[] = {{"PLUGIN", 1}, {"VERSION"},  {"FILE", 2},
                                         {"STATE"},     {"RESTARTS"}, {"ASKED BESIDE CHECK", 4},
                                         {"TROUBLE", 3}};
        Table *table = table_new(columns, ARRAY_SIZE(columns));
        size_t n = json_object_array_length(list);

        for (size_t i = 0; i < n; i++) {
                json_object *plugin = json_object_array_get_idx(list, i), *phases = NULL;
                char joined[256];
                const char *cells[] = {client_text(plugin, "name"),     client_text(plugin, "version"),
                                       client_text(plugin, "file"),     client_text(plugin, "state"),
                                       client_text(plugin, "restarts"), joined,
                                       client_text(plugin, "text")};

                (void) json_object_object_get_ex(plugin, "phases", &phases);
                join_phases(phases, joined, sizeof joined);
                table_row(table, cells);
        }
        if (n == 0 && client->options.legend)
                fprintf(stderr, "There is no plugin here; migmgrd looks for them when it starts\n");
        table_print(table, client->options.legend && n > 0, stdout);
}

int cmd_plugin_list(Client *client, char **args, int n)
{
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
        _cleanup_(json_object_putp) json_object *list = NULL;
        const char *text;
        int r = sd_bus_call_method(client->bus, MIGMGR_NAME, MIGMGR_ROOT, MIGMGR_NAME ".Manager",
                                   "ListPlugins", &error, &reply, "");

        if (r >= 0)
                r = sd_bus_message_read(reply, "s", &text);
        if (r < 0)
                return client_failed(&error, r);
        r = client_read_json(text, "plugins", json_type_array, &list);
        if (r != EXIT_DONE)
                return r;
        if (client->options.json)
                write_json(client, json_object_get(list));
        else
                print_list(client, list);
        return EXIT_DONE;
}
