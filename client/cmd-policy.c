/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The verbs about policies. */

#include "client.h"

#include "common/file.h"

#define POLICY_MAX (256 * 1024)

/* Calls a method of the manager that takes and returns texts; `reply` is for the caller. 0, or an exit status. */
static int call(Client *client, const char *method, const char *types, const char *a, const char *b,
                sd_bus_message **reply)
{
        _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
        int r = sd_bus_call_method(client->bus, MIGMGR_NAME, MIGMGR_ROOT, MIGMGR_NAME ".Manager", method,
                                   &error, reply, types, a, b);

        return r < 0 ? client_failed(&error, r) : EXIT_DONE;
}

/* The JSON that a method returns, as that type. 0, or an exit status. */
static int call_json(Client *client, const char *method, const char *types, const char *a, const char *b,
                     json_type type, json_object **ret)
{
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        const char *text;
        int status = call(client, method, types, a, b, &reply), r;

        if (status != EXIT_DONE)
                return status;
        r = sd_bus_message_read(reply, "s", &text);
        if (r < 0)
                return client_failed(&SD_BUS_ERROR_NULL, r);
        return client_read_json(text, method, type, ret);
}

/* ---- list, show ------------------------------------------------------------------------------------------------ */

static void print_list(const Client *client, json_object *list)
{
        static const Column columns[] = {
                {"POLICY", 1}, {"RULES"}, {"FILE", 2}, {"OVERRIDES", 4}, {"WHAT", 3}};
        Table *table = table_new(columns, ARRAY_SIZE(columns));
        size_t n = json_object_array_length(list);

        for (size_t i = 0; i < n; i++) {
                json_object *policy = json_object_array_get_idx(list, i);
                const char *cells[] = {client_text(policy, "name"), client_text(policy, "rules"),
                                       client_text(policy, "path"), client_text(policy, "overrides"),
                                       client_text(policy, "description")};

                table_row(table, cells);
        }
        if (n == 0 && client->options.legend)
                fprintf(stderr, "No policy file is in force here: what migmgrd does by itself holds. "
                                "migctl policy explain VM shows what that is.\n");
        table_print(table, client->options.legend && n > 0, stdout);
}

int cmd_policy_list(Client *client, char **args, int n)
{
        _cleanup_(json_object_putp) json_object *list = NULL;
        int status = call_json(client, "ListPolicies", "", NULL, NULL, json_type_array, &list);

        if (status != EXIT_DONE)
                return status;
        if (client->options.json)
                write_json(client, json_object_get(list));
        else
                print_list(client, list);
        return EXIT_DONE;
}

/* In words the text as it stands in the file: its order, its line breaks. */
int cmd_policy_show(Client *client, char **args, int n)
{
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        const char *path, *text;
        int status = call(client, "ShowPolicy", "s", args[0], NULL, &reply), r;
        json_object *policy;

        if (status != EXIT_DONE)
                return status;
        r = sd_bus_message_read(reply, "ss", &path, &text);
        if (r < 0)
                return client_failed(&SD_BUS_ERROR_NULL, r);
        if (!client->options.json) {
                printf("%s%s", text, *text && text[strlen(text) - 1] == '\n' ? "" : "\n");
                return EXIT_DONE;
        }
        status = client_read_json(text, path, json_type_object, &policy);
        if (status != EXIT_DONE)
                return status;
        write_json(client, policy);
        return EXIT_DONE;
}

/* ---- check, reload --------------------------------------------------------------------------------------------- */

static int report_check(const Client *client, const char *file, bool ok, const char *error)
{
        if (client->options.json) {
                json_object *o = json_new_object();

                json_add_bool(o, "ok", ok);
                json_add_string(o, "error", error);
                write_json(client, o);
        } else if (ok) {
                printf("%s: good\n", file);
        }
        if (!ok)
                fprintf(stderr, "migctl: %s\n", error);
        return ok ? EXIT_DONE : EXIT_USAGE;
}

int cmd_policy_check(Client *client, char **args, int n)
{
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        _cleanup_(freep) char *text = NULL;
        const char *error;
        size_t size;
        int status, ok, r = file_read(args[0], POLICY_MAX, &text, &size);

        if (r < 0) {
                fprintf(stderr, "migctl: %s: %s\n", args[0], strerror(-r));
                return r == -ENOENT ? EXIT_NOT_FOUND : EXIT_USAGE;
        }
        if (strlen(text) != size) {
                fprintf(stderr, "migctl: %s: is no JSON\n", args[0]);
                return EXIT_USAGE;
        }
        status = call(client, "CheckPolicy", "ss", args[0], text, &reply);
        if (status != EXIT_DONE)
                return status;
        r = sd_bus_message_read(reply, "bs", &ok, &error);
        return r < 0 ? client_failed(&SD_BUS_ERROR_NULL, r) : report_check(client, args[0], ok, error);
}

int cmd_policy_reload(Client *client, char **args, int n)
{
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        int status = call(client, "ReloadPolicies", "", NULL, NULL, &reply);

        return status != EXIT_DONE || !client->options.json ? status : cmd_policy_list(client, args, n);
}

/* ---- explain --------------------------------------------------------------------------------------------------- */

#define CELL_MAX 512

/* "equal", "in A, B", or the value of a key. */
static void write_value(json_object *said, char *ret, size_t size)
{
        json_object *values = NULL;
        bool is_compat = json_object_object_get_ex(said, "values", &values);
        size_t n = (size_t) snprintf(ret, size, "%s", client_text(said, is_compat ? "how" : "value"));

        for (size_t i = 0; is_compat && i < json_object_array_length(values) && n < size; i++)
                n += (size_t) snprintf(ret + n, size - n, "%s%s", i ? ", " : " ",
                                       json_object_get_string(json_object_array_get_idx(values, i)));
}

static void write_place(json_object *said, bool short_name, char *ret, size_t size)
{
        const char *file = client_text(said, "file"), *slash = strrchr(file, '/');

        if (*file)
                (void) snprintf(ret, size, "%s:%s", short_name && slash ? slash + 1 : file,
                                client_text(said, "line"));
        else
                (void) snprintf(ret, size, "default");
}

static void add_row(Table *table, const char *key, json_object *said)
{
        char value[CELL_MAX], place[CELL_MAX], weaker[CELL_MAX] = "", one[CELL_MAX], where[CELL_MAX];
        const char *cells[] = {key, value, place, weaker};
        json_object *others = NULL;
        size_t used = 0;

        write_value(said, value, sizeof value);
        write_place(said, false, place, sizeof place);
        (void) json_object_object_get_ex(said, "weaker", &others);
        for (size_t i = 0; others && i < json_object_array_length(others) && used < sizeof weaker; i++) {
                write_value(json_object_array_get_idx(others, i), one, sizeof one);
                write_place(json_object_array_get_idx(others, i), true, where, sizeof where);
                used += (size_t) snprintf(weaker + used, sizeof weaker - used, "%s%s (%s)", i ? ", " : "",
                                          one, where);
        }
        table_row(table, cells);
}

static void print_explained(const Client *client, json_object *report)
{
        static const Column columns[] = {{"KEY"}, {"VALUE", 1}, {"SAID BY", 2}, {"AND WEAKER", 3}};
        Table *table = table_new(columns, ARRAY_SIZE(columns));
        json_object *list = NULL;

        (void) json_object_object_get_ex(report, "keys", &list);
        for (size_t i = 0; list && i < json_object_array_length(list); i++) {
                json_object *said = json_object_array_get_idx(list, i);

                add_row(table, client_text(said, "key"), said);
        }
        list = NULL;
        (void) json_object_object_get_ex(report, "compat", &list);
        for (size_t i = 0; list && i < json_object_array_length(list); i++) {
                json_object *said = json_object_array_get_idx(list, i);
                char key[CELL_MAX];

                (void) snprintf(key, sizeof key, "compat.%s", client_text(said, "fact"));
                add_row(table, key, said);
        }
        table_print(table, client->options.legend, stdout);
}

int cmd_policy_explain(Client *client, char **args, int n)
{
        _cleanup_(json_object_putp) json_object *report = NULL;
        int status = call_json(client, "ExplainPolicy", "ss", args[0], n > 1 ? args[1] : "", json_type_object,
                               &report);

        if (status != EXIT_DONE)
                return status;
        if (client->options.json)
                write_json(client, json_object_get(report));
        else
                print_explained(client, report);
        return EXIT_DONE;
}
