/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client.h"

static int by_name(const void *a, const void *b)
{
        return strcmp(client_text(*(json_object *const *) a, "name"),
                      client_text(*(json_object *const *) b, "name"));
}

static json_object *vm_to_json(json_object *objects, json_object *vm)
{
        json_object *o = json_new_object(), *devices = NULL, *job;
        char id[37] = "";

        job = client_interface(objects, client_text(vm, "Job"), MIGMGR_NAME ".Job");
        (void) json_object_object_get_ex(vm, "Devices", &devices);
        if (job)
                client_uuid_of_path(client_text(vm, "Job"), id);
        json_add_string(o, "name", client_text(vm, "Name"));
        json_add_string(o, "uuid", client_text(vm, "UUID"));
        json_add_string(o, "presence", client_text(vm, "Presence"));
        json_add_string(o, "vmm", client_text(vm, "Vmm"));
        json_add_number(o, "devices", devices ? (int64_t) json_object_array_length(devices) : 0);
        json_add_string(o, "job", id);
        json_add_string(o, "state", job ? client_text(job, "State") : "");
        json_add_string(o, "phase", job ? client_text(job, "Phase") : "");
        json_add_number(o, "last_blackout_usec", client_number(vm, "LastBlackoutUsec"));
        return o;
}

/* In one word: a job that runs is at a phase, and of any other its state matters more. Both side by side would cost a narrow
 * terminal the names; migctl jobs and migctl status have them. */
static const char *job_word(json_object *vm)
{
        return streq(client_text(vm, "state"), "running") && client_text(vm, "phase")[0]
                       ? client_text(vm, "phase")
                       : client_text(vm, "state");
}

static void print(const Client *client, json_object *list)
{
        static const Column columns[] = {{"NAME", 1},       {"IS"},     {"VMM"}, {"DEVICES"}, {"JOB"},
                                         {"LAST BLACKOUT"}, {"UUID", 2}};
        Table *table = table_new(columns, ARRAY_SIZE(columns));

        for (size_t i = 0; i < json_object_array_length(list); i++) {
                json_object *vm = json_object_array_get_idx(list, i);
                uint64_t usec = (uint64_t) client_number(vm, "last_blackout_usec");
                char blackout[32] = "";
                const char *cells[] = {client_text(vm, "name"),
                                       client_text(vm, "presence"),
                                       client_text(vm, "vmm"),
                                       client_text(vm, "devices"),
                                       job_word(vm),
                                       usec ? format_usec(usec, blackout) : "",
                                       client_text(vm, "uuid")};

                table_row(table, cells);
        }
        table_print(table, client->options.legend && json_object_array_length(list) > 0, stdout);
        json_object_put(list);
}

int cmd_list(Client *client, char **args, int n)
{
        _cleanup_(json_object_putp) json_object *objects = NULL;
        json_object *list;
        int status = client_objects(client, false, &objects);

        if (status != EXIT_DONE)
                return status;
        list = json_new_array();
        json_object_object_foreach (objects, path, interfaces) {
                json_object *vm = NULL;

                (void) path;
                if (json_object_object_get_ex(interfaces, MIGMGR_NAME ".VM", &vm))
                        json_append(list, vm_to_json(objects, vm));
        }
        json_object_array_sort(list, by_name);
        if (client->options.json) {
                write_json(client, list);
                return EXIT_DONE;
        }
        if (json_object_array_length(list) == 0 && client->options.legend)
                fprintf(stderr,
                        "No VM is registered here. One that runs: migctl register FILE; one that is to come: "
                        "migctl register --incoming FILE\n");
        print(client, list);
        return EXIT_DONE;
}
