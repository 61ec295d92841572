/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client.h"

static bool is_notice(json_object *finding)
{
        return streq(client_text(finding, "weight"), "notice");
}

static void print_findings(json_object *findings, bool notices, bool legend, FILE *f)
{
        /* Nothing is shortened: what is wrong and what to do about it must be readable. */
        static const Column columns[] = {
                {"DEVICE"}, {"PROPERTY"}, {"SOURCE"}, {"DESTINATION"}, {"WHAT TO DO"}};
        Table *table = table_new(columns, ARRAY_SIZE(columns));
        uint32_t n = 0;

        for (size_t i = 0; i < json_object_array_length(findings); i++) {
                json_object *o = json_object_array_get_idx(findings, i);
                const char *device = client_text(o, "device");
                const char *cells[] = {device[0] ? device : "(VM)", client_text(o, "property"),
                                       client_text(o, "source"), client_text(o, "destination"),
                                       client_text(o, "remedy")};

                if (is_notice(o) != notices)
                        continue;
                if (notices && n++ == 0)
                        fprintf(f, "\nNot in the way, but to be known:\n");
                table_row(table, cells);
        }
        table_print(table, legend && (n > 0 || !notices), f);
}

static bool has_refusal(json_object *findings)
{
        for (size_t i = 0; i < json_object_array_length(findings); i++)
                if (!is_notice(json_object_array_get_idx(findings, i)))
                        return true;
        return false;
}

void findings_view(json_object *report, bool legend, FILE *f)
{
        json_object *findings = NULL;

        (void) json_object_object_get_ex(report, "findings", &findings);
        if (!json_object_is_type(findings, json_type_array) || json_object_array_length(findings) == 0)
                return;
        if (has_refusal(findings))
                print_findings(findings, false, legend, f);
        print_findings(findings, true, legend, f);
        if (client_number(report, "more_findings") > 0)
                fprintf(f, "... and %lld more\n", (long long) client_number(report, "more_findings"));
}
