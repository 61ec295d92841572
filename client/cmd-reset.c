/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client.h"

/* As long as a device may take, to be found again and then to be reset, and some more. */
#define RESET_USEC (60 * USEC_PER_SEC)

/* What is lost can't be had back: somebody must say that he means it. */
static int ask(const Client *client, const char *vm, const char *device)
{
        char answer[16] = "";

        if (client->options.yes)
                return EXIT_DONE;
        if (!isatty(STDIN_FILENO) || !isatty(STDERR_FILENO)) {
                fprintf(stderr, "migctl: a reset loses what the device holds; --yes says that it is meant\n");
                return EXIT_USAGE;
        }
        fprintf(stderr, "%s%s of VM %s will lose what it holds. Reset? [y/N] ",
                device ? "Device " : "Each device", device ? device : "", vm);
        if (!fgets(answer, sizeof answer, stdin) || (answer[0] != 'y' && answer[0] != 'Y')) {
                fprintf(stderr, "migctl: nothing was reset\n");
                return EXIT_FAILED;
        }
        return EXIT_DONE;
}

/* The ids of its devices: the one that is meant, or all. 0, or an exit status. */
static int find_devices(Client *client, char **args, int n, json_object **ret)
{
        _cleanup_(json_object_putp) json_object *objects = NULL;
        json_object *vm, *paths = NULL;
        const char *path;
        int status = client_objects(client, true, &objects);

        if (status != EXIT_DONE)
                return status;
        vm = client_find_vm(objects, args[0], &path);
        if (!vm)
                return EXIT_NOT_FOUND;
        *ret = json_new_array();
        (void) json_object_object_get_ex(vm, "Devices", &paths);
        for (size_t i = 0; paths && i < json_object_array_length(paths); i++) {
                const char *device = json_object_get_string(json_object_array_get_idx(paths, i));
                const char *id = client_text(client_interface(objects, device, MIGMGR_NAME ".Device"), "Id");

                if (n < 2 || streq(id, args[1]))
                        json_append(*ret, json_object_new_string(id));
        }
        if (n < 2 || json_object_array_length(*ret) > 0)
                return EXIT_DONE;
        fprintf(stderr, "migctl: VM %s has no device \"%s\"; migctl devices %s lists those that it has\n",
                args[0], args[1], args[0]);
        json_object_put(*ret);
        *ret = NULL;
        return EXIT_NOT_FOUND;
}

static int reset_one(Client *client, const char *vm, const char *device, json_object *done)
{
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *call = NULL, *reply = NULL;
        _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
        json_object *o;
        const char *state, *method;
        int r = sd_bus_message_new_method_call(client->bus, &call, MIGMGR_NAME, MIGMGR_ROOT,
                                               MIGMGR_NAME ".Manager", "ResetDevice");

        if (r >= 0)
                r = sd_bus_message_append(call, "ss", vm, device);
        if (r >= 0)
                r = sd_bus_call(client->bus, call, RESET_USEC, &error, &reply);
        if (r >= 0)
                r = sd_bus_message_read(reply, "ss", &state, &method);
        if (r < 0)
                return client_failed(&error, r);
        o = json_new_object();
        json_add_string(o, "device", device);
        json_add_string(o, "state", state);
        json_add_string(o, "method", method);
        json_append(done, o);
        if (!client->options.json)
                printf("%s: reset by %s, %s\n", device, method, state);
        return EXIT_DONE;
}

/* One after the other; a device that can't be reset does not keep the others from it. The first failure is the status. */
int cmd_reset(Client *client, char **args, int n)
{
        _cleanup_(json_object_putp) json_object *devices = NULL, *done = json_new_array();
        int status = find_devices(client, args, n, &devices);

        if (status != EXIT_DONE)
                return status;
        status = ask(client, args[0], n > 1 ? args[1] : NULL);
        if (status != EXIT_DONE)
                return status;
        for (size_t i = 0; i < json_object_array_length(devices); i++) {
                const char *device = json_object_get_string(json_object_array_get_idx(devices, i));
                int one = reset_one(client, args[0], device, done);

                if (status == EXIT_DONE)
                        status = one;
        }
        if (client->options.json && status == EXIT_DONE)
                write_json(client, json_object_get(done));
        return status;
}
