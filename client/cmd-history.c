/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client.h"

#include <time.h>

/* "90" s, m, h, d or w: so long ago. */
static bool read_ago(const char *text, uint64_t now_usec, uint64_t *ret_usec)
{
        static const struct {
                char unit;
                uint64_t seconds;
        } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 24 * 3600}, {'w', 7 * 24 * 3600}};
        char *end;
        unsigned long long n;

        if (*text < '0' || *text > '9')
                return false;
        n = strtoull(text, &end, 10);
        for (size_t i = 0; i < ARRAY_SIZE(units); i++)
                if (end[0] == units[i].unit && !end[1] && n <= UINT32_MAX) {
                        uint64_t usec = n * units[i].seconds * USEC_PER_SEC;

                        *ret_usec = now_usec > usec ? now_usec - usec : 0;
                        return true;
                }
        return false;
}

bool read_since(const char *text, uint64_t now_usec, uint64_t *ret_usec)
{
        static const char *const formats[] = {"%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S"};

        if (read_ago(text, now_usec, ret_usec))
                return true;
        for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
                struct tm tm = {.tm_isdst = -1};
                const char *end = strptime(text, formats[i], &tm);
                time_t seconds = end && !*end ? mktime(&tm) : -1;

                if (seconds >= 0) {
                        *ret_usec = (uint64_t) seconds * USEC_PER_SEC;
                        return true;
                }
        }
        return false;
}

static void print(const Client *client, json_object *list)
{
        static const Column columns[] = {{"ENDED"},        {"JOB"},    {"VM", 2},
                                         {"OTHER END", 3}, {"RESULT"}, {"BLACKOUT"}};
        Table *table = table_new(columns, ARRAY_SIZE(columns));
        size_t n = json_object_array_length(list);

        for (size_t i = 0; i < n; i++) {
                json_object *job = json_object_array_get_idx(list, i);
                bool out = streq(client_text(job, "half"), "source");
                int64_t blackout = client_number(job, "blackout_usec");
                char other[160], took[32] = "", ended[32];
                const char *cells[] = {format_time(client_number(job, "ended_usec"), ended),
                                       client_text(job, "job"),
                                       client_text(job, "name"),
                                       other,
                                       client_text(job, "result"),
                                       took};

                (void) snprintf(other, sizeof other, "%s %s", out ? "to" : "from", client_text(job, "peer"));
                if (blackout > 0)
                        (void) format_usec((uint64_t) blackout, took);
                table_row(table, cells);
        }
        if (n == 0 && client->options.legend)
                fprintf(stderr, "No such job has ended here, or it was too long ago.\n");
        table_print(table, client->options.legend && n > 0, stdout);
}

/* Those of the options that were given. */
static int append_filter(const Options *o, sd_bus_message *call)
{
        int r = sd_bus_message_open_container(call, 'a', "{sv}");

        if (r >= 0 && o->vm)
                r = sd_bus_message_append(call, "{sv}", "vm", "s", o->vm);
        if (r >= 0 && o->result)
                r = sd_bus_message_append(call, "{sv}", "result", "s", o->result);
        if (r >= 0 && o->since_usec > 0)
                r = sd_bus_message_append(call, "{sv}", "since-usec", "t", o->since_usec);
        return r < 0 ? r : sd_bus_message_close_container(call);
}

int cmd_history(Client *client, char **args, int n)
{
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *call = NULL, *reply = NULL;
        _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
        _cleanup_(json_object_putp) json_object *list = NULL;
        const char *text;
        int r = sd_bus_message_new_method_call(client->bus, &call, MIGMGR_NAME, MIGMGR_ROOT,
                                               MIGMGR_NAME ".Manager", "ListHistory");

        if (r >= 0)
                r = append_filter(&client->options, call);
        if (r >= 0)
                r = sd_bus_call(client->bus, call, 0, &error, &reply);
        if (r >= 0)
                r = sd_bus_message_read(reply, "s", &text);
        if (r < 0)
                return client_failed(&error, r);
        r = client_read_json(text, "history", json_type_array, &list);
        if (r != EXIT_DONE)
                return r;
        if (client->options.json)
                write_json(client, json_object_get(list));
        else
                print(client, list);
        return EXIT_DONE;
}
