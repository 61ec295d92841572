/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client.h"

#include <time.h>

static uint64_t age_of(json_object *job, const struct timespec *now)
{
        int64_t usec = (int64_t) now->tv_sec * (int64_t) USEC_PER_SEC + now->tv_nsec / 1000;

        return (uint64_t) MAX(usec - client_number(job, "created_usec"), INT64_C(0));
}

static void print(const Client *client, json_object *list)
{
        static const Column columns[] = {{"JOB"},   {"VM", 2},  {"OTHER END", 3}, {"STATE"},
                                         {"PHASE"}, {"RESULT"}, {"AGE"}};
        Table *table = table_new(columns, ARRAY_SIZE(columns));
        struct timespec now;
        size_t n = json_object_array_length(list);

        (void) clock_gettime(CLOCK_REALTIME, &now);
        for (size_t i = 0; i < n; i++) {
                json_object *job = json_object_array_get_idx(list, i);
                bool out = streq(client_text(job, "half"), "source");
                char other[160], age[32];
                const char *cells[] = {client_text(job, "job"),
                                       client_text(job, "name"),
                                       other,
                                       client_text(job, "state"),
                                       client_text(job, "phase"),
                                       client_text(job, "result"),
                                       format_age(age_of(job, &now), age)};

                (void) snprintf(other, sizeof other, "%s %s", out ? "to" : "from", client_text(job, "peer"));
                table_row(table, cells);
        }
        if (n == 0 && client->options.legend)
                fprintf(stderr, "No job is known here. A move is begun with: migctl migrate VM DEST\n");
        table_print(table, client->options.legend && n > 0, stdout);
}

int cmd_jobs(Client *client, char **args, int n)
{
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
        _cleanup_(json_object_putp) json_object *list = NULL;
        const char *text;
        int r = sd_bus_call_method(client->bus, MIGMGR_NAME, MIGMGR_ROOT, MIGMGR_NAME ".Manager", "ListJobs",
                                   &error, &reply, "");

        if (r >= 0)
                r = sd_bus_message_read(reply, "s", &text);
        if (r < 0)
                return client_failed(&error, r);
        r = client_read_json(text, "jobs", json_type_array, &list);
        if (r != EXIT_DONE)
                return r;
        if (client->options.json)
                write_json(client, json_object_get(list));
        else
                print(client, list);
        return EXIT_DONE;
}
