/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client.h"

void findings_view(json_object *report, bool legend, FILE *f)
{
        /* Nothing is shortened: what is wrong and what to do about it must be readable. */
        static const Column columns[] = {
                {"DEVICE"}, {"PROPERTY"}, {"SOURCE"}, {"DESTINATION"}, {"WHAT TO DO"}};
        Table *table;
        json_object *findings = NULL;

        (void) json_object_object_get_ex(report, "findings", &findings);
        if (!json_object_is_type(findings, json_type_array) || json_object_array_length(findings) == 0)
                return;
        table = table_new(columns, ARRAY_SIZE(columns));

        for (size_t i = 0; i < json_object_array_length(findings); i++) {
                json_object *o = json_object_array_get_idx(findings, i);
                const char *device = client_text(o, "device");
                const char *cells[] = {device[0] ? device : "(VM)", client_text(o, "property"),
                                       client_text(o, "source"), client_text(o, "destination"),
                                       client_text(o, "remedy")};

                table_row(table, cells);
        }
        table_print(table, legend, f);
        if (client_number(report, "more_findings") > 0)
                fprintf(f, "... and %lld more\n", (long long) client_number(report, "more_findings"));
}
