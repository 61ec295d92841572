/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client.h"

static void line(const char *label, const char *value)
{
        if (value[0])
                printf("%12s: %s\n", label, value);
}

static void print_job(json_object *job)
{
        json_object *error = NULL;
        char blackout[32];

        line("State", client_text(job, "State"));
        line("Phase", client_text(job, "Phase"));
        line("Owner", client_text(job, "Owner"));
        line("Peer", client_text(job, "Peer"));
        if (client_number(job, "BlackoutUsec"))
                line("Blackout", format_usec((uint64_t) client_number(job, "BlackoutUsec"), blackout));
        (void) json_object_object_get_ex(job, "Error", &error);
        if (json_object_is_type(error, json_type_array))
                line("Trouble", json_object_get_string(json_object_array_get_idx(error, 1)));
}

static void print(json_object *objects, json_object *vm)
{
        json_object *devices = NULL,
                    *job = client_interface(objects, client_text(vm, "Job"), MIGMGR_NAME ".Job");
        char id[37], blackout[32];

        line("VM", client_text(vm, "Name"));
        line("UUID", client_text(vm, "UUID"));
        line("Presence", client_text(vm, "Presence"));
        line("VMM", client_text(vm, "Vmm"));
        if (client_number(vm, "LastBlackoutUsec"))
                line("Last time", format_usec((uint64_t) client_number(vm, "LastBlackoutUsec"), blackout));
        (void) json_object_object_get_ex(vm, "Devices", &devices);
        for (size_t i = 0; devices && i < json_object_array_length(devices); i++) {
                const char *path = json_object_get_string(json_object_array_get_idx(devices, i));
                json_object *device = client_interface(objects, path, MIGMGR_NAME ".Device");

                printf("%12s: %s, %s%s%s\n", i == 0 ? "Devices" : "", client_text(device, "Id"),
                       client_text(device, "State"), client_text(device, "Error")[0] ? ": " : "",
                       client_text(device, "Error"));
        }
        if (!job)
                return;
        client_uuid_of_path(client_text(vm, "Job"), id);
        line("Job", id);
        print_job(job);
}

static json_object *to_json(json_object *objects, json_object *vm)
{
        json_object *o = json_new_object(), *job;

        json_add(o, "vm", json_object_get(vm));
        job = client_interface(objects, client_text(vm, "Job"), MIGMGR_NAME ".Job");
        if (job)
                json_add(o, "job", json_object_get(job));
        return o;
}

int cmd_status(Client *client, char **args, int n)
{
        _cleanup_(json_object_putp) json_object *objects = NULL;
        json_object *vm;
        const char *path;
        int status = client_objects(client, true, &objects);

        if (status != EXIT_DONE)
                return status;
        vm = client_find_vm(objects, args[0], &path);
        if (!vm)
                return EXIT_NOT_FOUND;
        if (client->options.json)
                write_json(client, to_json(objects, vm));
        else
                print(objects, vm);
        return EXIT_DONE;
}
