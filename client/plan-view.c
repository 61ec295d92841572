/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client.h"

static void join(json_object *array, size_t n_all, char *ret, size_t size)
{
        size_t n = 0, length = json_object_array_length(array);

        ret[0] = 0;
        if (length == n_all && length > 1) {
                (void) snprintf(ret, size, "all %zu", length);
                return;
        }
        for (size_t i = 0; i < length && n < size; i++)
                n += (size_t) snprintf(ret + n, size - n, "%s%s", i ? ", " : "",
                                       json_object_get_string(json_object_array_get_idx(array, i)));
}

void plan_view(json_object *plan, bool legend, FILE *f)
{
        static const Column columns[] = {{"PHASE"}, {"EACH HAS"}, {"DEVICES", 1}};
        Table *table = table_new(columns, ARRAY_SIZE(columns));
        json_object *phases = NULL, *all = NULL;
        size_t n_all;

        (void) json_object_object_get_ex(plan, "phases", &phases);
        (void) json_object_object_get_ex(plan, "devices", &all);
        n_all = json_object_is_type(all, json_type_array) ? json_object_array_length(all) : 0;
        for (size_t i = 0;
             json_object_is_type(phases, json_type_array) && i < json_object_array_length(phases); i++) {
                json_object *phase = json_object_array_get_idx(phases, i), *devices = NULL;
                char time[32], who[4096] = "";
                const char *cells[] = {client_text(phase, "phase"), time, who};

                (void) snprintf(time, sizeof time, "%g s",
                                (double) client_number(phase, "deadline_usec") / (double) USEC_PER_SEC);

                (void) json_object_object_get_ex(phase, "devices", &devices);
                if (json_object_is_type(devices, json_type_array))
                        join(devices, n_all, who, sizeof who);
                table_row(table, cells);
        }
        table_print(table, legend, f);
        if (client_number(plan, "push"))
                fprintf(f, "\nDevices that QEMU drives are taken through their last states together.\n");
        if (client_number(plan, "grace"))
                fprintf(f, "\nDevices that QEMU drives are quieted together while the VM still runs.\n");
        if (client_number(plan, "logs_dma"))
                fprintf(f, "\nDevices write the VM's memory: what they write meanwhile is %s.\n",
                        client_number(plan, "copies_pages") ? "copied by their agents" : "given to the VMM");
}
