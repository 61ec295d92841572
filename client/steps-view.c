/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client.h"

#include <time.h>

/* "nic: stop, gpu: stop": as far as it fits. */
static void list_devices(json_object *step, char ret[256])
{
        json_object *devices = NULL;
        size_t at = 0;

        ret[0] = 0;
        if (!json_object_object_get_ex(step, "devices", &devices) ||
            !json_object_is_type(devices, json_type_object))
                return;
        json_object_object_foreach (devices, id, state) {
                if (at < 256)
                        at += (size_t) snprintf(ret + at, 256 - at, "%s%s: %s", at ? ", " : "", id,
                                                json_object_get_string(state));
        }
}

/* With milliseconds: a blackout has many of them in a second. */
static void format_moment(int64_t usec, char ret[32])
{
        size_t n = strlen(format_time(usec, ret));

        (void) snprintf(ret + n, 32 - n, ".%03d", (int) (usec / 1000 % 1000));
}

void steps_view(json_object *job, bool legend, FILE *f)
{
        static const Column columns[] = {{"TIME"}, {"STEP"}, {"OWNER"}, {"RECORD"}, {"DEVICES", 1}};
        json_object *steps = NULL;
        size_t n;
        Table *table;

        if (!json_object_object_get_ex(job, "steps", &steps) ||
            !json_object_is_type(steps, json_type_array) || json_object_array_length(steps) == 0)
                return;
        n = json_object_array_length(steps);
        table = table_new(columns, ARRAY_SIZE(columns));
        for (size_t i = 0; i < n; i++) {
                json_object *step = json_object_array_get_idx(steps, i);
                char when[32], devices[256];
                const char *cells[] = {when, client_text(step, "step"), client_text(step, "owner"),
                                       client_text(step, "record"), devices};

                format_moment(client_number(step, "usec"), when);
                list_devices(step, devices);
                table_row(table, cells);
        }
        fprintf(f, "\nSteps\n");
        table_print(table, legend, f);
}
