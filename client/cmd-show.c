/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client.h"

static void print_time(const char *label, int64_t usec)
{
        char text[32];

        if (usec > 0)
                printf("%12s: %s\n", label, format_time(usec, text));
}

static void print_usec(const char *label, json_object *job, const char *key)
{
        char text[32];

        if (client_number(job, key) > 0)
                printf("%12s: %s\n", label, format_usec((uint64_t) client_number(job, key), text));
}

static void print_head(json_object *job)
{
        json_object *error = NULL;
        char rate[32];

        printf("%12s: %s\n%12s: %s\n%12s: %s, the %s half; the other is %s\n", "Job", client_text(job, "job"),
               "VM", client_text(job, "name"), "This is", "here", client_text(job, "half"),
               client_text(job, "peer"));
        printf("%12s: %s%s%s\n", "State", client_text(job, "state"),
               client_text(job, "result")[0] ? ", " : "", client_text(job, "result"));
        printf("%12s: %s\n%12s: %s\n", "Phase", client_text(job, "phase"), "Owner",
               client_text(job, "owner"));
        if (client_number(job, "bandwidth") > 0)
                printf("%12s: %s/s at most\n", "Bandwidth",
                       format_bytes((uint64_t) client_number(job, "bandwidth"), rate));
        print_time("Begun", client_number(job, "created_usec"));
        print_time("Ended", client_number(job, "ended_usec"));
        print_usec("May stand", job, "max_blackout_usec");
        print_usec("Blackout", job, "blackout_usec");
        print_usec("of devices", job, "device_blackout_usec");
        print_usec("of the VMM", job, "vmm_usec");
        if (json_object_object_get_ex(job, "error", &error) && client_text(error, "text")[0])
                printf("%12s: %s\n", "Trouble", client_text(error, "text"));
}

int cmd_show(Client *client, char **args, int n)
{
        _cleanup_(json_object_putp) json_object *job = NULL;
        json_object *findings = NULL;
        int status = client_get_job(client, args[0], &job);

        if (status != EXIT_DONE)
                return status;
        if (client->options.json) {
                write_json(client, json_object_get(job));
                return EXIT_DONE;
        }
        print_head(job);
        if (json_object_object_get_ex(job, "findings", &findings) && json_object_array_length(findings) > 0)
                putchar('\n');
        findings_view(job, client->options.legend, stdout);
        timeline_view(job, stdout);
        steps_view(job, client->options.legend, stdout);
        return EXIT_DONE;
}
