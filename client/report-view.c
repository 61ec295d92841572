/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client.h"

static json_object *array_of(json_object *o, const char *key)
{
        json_object *array = NULL;

        (void) json_object_object_get_ex(o, key, &array);
        return json_object_is_type(array, json_type_array) ? array : NULL;
}

static const char *words_of(const char *basis)
{
        static const struct {
                const char *basis, *words;
        } words[] = {{"measured", "as last time"}, {"plugin", "as a plugin thinks"}, {"size", "by its size"}};

        for (size_t i = 0; i < ARRAY_SIZE(words); i++)
                if (streq(words[i].basis, basis))
                        return words[i].words;
        return "not known";
}

static const char *time_of(json_object *o, char ret[32])
{
        return streq(client_text(o, "basis"), "unknown")
                       ? "?"
                       : format_usec((uint64_t) client_number(o, "usec"), ret);
}

static void blackout_view(json_object *blackout, bool legend, FILE *f)
{
        static const Column columns[] = {{"DEVICE", 1}, {"STANDS STILL", 0}, {"BASIS", 0}, {"STATE", 0}};
        Table *table = table_new(columns, ARRAY_SIZE(columns));
        json_object *devices = array_of(blackout, "devices");
        char usec[32], bytes[32];

        for (size_t i = 0; devices && i < json_object_array_length(devices); i++) {
                json_object *o = json_object_array_get_idx(devices, i);
                int64_t n = client_number(o, "bytes");
                const char *cells[] = {client_text(o, "id"), time_of(o, usec),
                                       words_of(client_text(o, "basis")),
                                       n > 0 ? format_bytes((uint64_t) n, bytes) : "?"};

                table_row(table, cells);
        }
        table_print(table, legend, f);
        if (streq(client_text(blackout, "basis"), "unknown"))
                fprintf(f,
                        "\nNobody knows yet how long the VM would stand still: it has not gone from here before.\n");
        else
                fprintf(f, "\nThe VM would stand still for about %s, %s.\n", time_of(blackout, usec),
                        words_of(client_text(blackout, "basis")));
}

/* What they may do there is bounded, whatever they do; how: docs/plugin.md. */
static void plugins_view(json_object *report, FILE *f)
{
        if (client_number(report, "plugins_msec") > 0)
                fprintf(f,
                        "Plugins of this host may add up to %lld ms to that, and more where devices go in turns.\n",
                        (long long) client_number(report, "plugins_msec"));
}

static void guarantees_view(json_object *guarantees, FILE *f)
{
        for (int holds = 1; holds >= 0; holds--) {
                bool any = false;

                for (size_t i = 0; guarantees && i < json_object_array_length(guarantees); i++) {
                        json_object *o = json_object_array_get_idx(guarantees, i);

                        if ((client_number(o, "holds") != 0) != holds)
                                continue;
                        if (!any)
                                fprintf(f, "\n%s\n", holds ? "Guaranteed:" : "Not guaranteed:");
                        any = true;
                        fprintf(f, "  %s%s%s\n", client_text(o, "promise"), holds ? "" : ": ",
                                holds ? "" : client_text(o, "gap"));
                }
        }
}

static void hosts_view(json_object *hosts, bool legend, FILE *f)
{
        static const Column columns[] = {{"HOST", 0}, {"MIGMGRD", 0}, {"KERNEL", 1},
                                         {"VMM", 1},  {"MACHINE", 1}, {"FREE", 0}};
        static const char *const sides[] = {"source", "destination"};
        Table *table = table_new(columns, ARRAY_SIZE(columns));

        for (size_t i = 0; i < ARRAY_SIZE(sides); i++) {
                json_object *o = NULL;
                char bytes[32];
                int64_t n;

                (void) json_object_object_get_ex(hosts, sides[i], &o);
                n = client_number(o, "free_bytes");
                table_row(table,
                          (const char *const[]){sides[i], client_text(o, "migmgrd"), client_text(o, "kernel"),
                                                client_text(o, "vmm"), client_text(o, "machine"),
                                                o && n >= 0 ? format_bytes((uint64_t) n, bytes) : ""});
        }
        table_print(table, legend, f);
}

void report_view(json_object *report, bool legend, FILE *f)
{
        json_object *blackout = NULL, *hosts = NULL;

        (void) json_object_object_get_ex(report, "blackout", &blackout);
        (void) json_object_object_get_ex(report, "hosts", &hosts);
        fputc('\n', f);
        blackout_view(blackout, legend, f);
        plugins_view(report, f);
        guarantees_view(array_of(report, "guarantees"), f);
        fputc('\n', f);
        hosts_view(hosts, legend, f);
}
