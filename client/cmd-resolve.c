/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client.h"

/* What is in doubt, what can be done about it on this host, and what not. */
static void print_choices(json_object *job)
{
        json_object *choices = NULL, *error = NULL;
        size_t n =
                json_object_object_get_ex(job, "choices", &choices) ? json_object_array_length(choices) : 0;

        printf("%12s: %s\n%12s: %s, the %s half; the other is %s\n%12s: %s%s%s\n", "VM",
               client_text(job, "name"), "This is", "here", client_text(job, "half"),
               client_text(job, "peer"), "State", client_text(job, "state"),
               client_text(job, "result")[0] ? ", " : "", client_text(job, "result"));
        if (json_object_object_get_ex(job, "error", &error) && client_text(error, "text")[0])
                printf("%12s: %s\n", "Trouble", client_text(error, "text"));
        if (n == 0) {
                printf("\nThere is nothing to decide here.\n");
                return;
        }
        for (size_t i = 0; i < n; i++) {
                json_object *choice = json_object_array_get_idx(choices, i), *allowed = NULL;

                (void) json_object_object_get_ex(choice, "allowed", &allowed);
                printf("\n--%s%s\n    %s\n", client_text(choice, "how"),
                       json_object_get_boolean(allowed) ? "" : ": forbidden", client_text(choice, "text"));
        }
        printf("\nLook at both hosts first: %s says at what.\n", MIGMGR_DOC_DIR "/in-doubt.md");
}

int cmd_resolve(Client *client, char **args, int n)
{
        _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
        _cleanup_(json_object_putp) json_object *job = NULL;
        const Options *o = &client->options;
        char path[64];
        int r, status = client_get_job(client, args[0], &job);

        if (status != EXIT_DONE)
                return status;
        if (!o->run_here && !o->discard_here) {
                if (o->json)
                        write_json(client, json_object_get(job));
                else
                        print_choices(job);
                return EXIT_DONE;
        }
        if (!client_job_path(args[0], path))
                return EXIT_USAGE;
        r = sd_bus_call_method(client->bus, MIGMGR_NAME, path, MIGMGR_NAME ".Job", "Resolve", &error, NULL,
                               "s", o->run_here ? "run-here" : "discard-here");
        if (r < 0)
                return client_failed(&error, r);
        if (o->json) {
                json_object *answer = json_new_object();

                json_add_string(answer, "path", path);
                write_json(client, answer);
        } else {
                printf("Decided. What comes of it: migctl show %s\n", args[0]);
        }
        return EXIT_DONE;
}
