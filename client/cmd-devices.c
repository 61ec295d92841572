/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client.h"

static void join(json_object *array, char *ret, size_t size)
{
        size_t n = 0;

        ret[0] = 0;
        for (size_t i = 0; array && i < json_object_array_length(array) && n < size; i++)
                n += (size_t) snprintf(ret + n, size - n, "%s%s", i ? "," : "",
                                       json_object_get_string(json_object_array_get_idx(array, i)));
}

static void print(const Client *client, json_object *list)
{
        static const Column columns[] = {{"DEVICE", 1}, {"TYPE"},         {"MODE"},
                                         {"STATE"},     {"MIGRATION", 3}, {"TROUBLE", 2}};
        Table *table = table_new(columns, ARRAY_SIZE(columns));

        for (size_t i = 0; i < json_object_array_length(list); i++) {
                json_object *device = json_object_array_get_idx(list, i), *flags = NULL;
                const char *quarantine = client_text(device, "Quarantine");
                char migration[128], trouble[512];
                const char *cells[] = {client_text(device, "Id"),
                                       client_text(device, "Type"),
                                       client_text(device, "Mode"),
                                       client_text(device, "State"),
                                       migration,
                                       trouble};

                (void) json_object_object_get_ex(device, "Migration", &flags);
                join(flags, migration, sizeof migration);
                (void) snprintf(trouble, sizeof trouble, "%s%s", *quarantine ? "quarantine: " : "",
                                *quarantine ? quarantine : client_text(device, "Error"));
                table_row(table, cells);
        }
        table_print(table, client->options.legend, stdout);
        json_object_put(list);
}

int cmd_devices(Client *client, char **args, int n)
{
        _cleanup_(json_object_putp) json_object *objects = NULL;
        json_object *vm, *paths = NULL, *list;
        const char *path;
        int status = client_objects(client, true, &objects);

        if (status != EXIT_DONE)
                return status;
        vm = client_find_vm(objects, args[0], &path);
        if (!vm)
                return EXIT_NOT_FOUND;
        (void) json_object_object_get_ex(vm, "Devices", &paths);
        list = json_new_array();
        for (size_t i = 0; paths && i < json_object_array_length(paths); i++) {
                const char *device_path = json_object_get_string(json_object_array_get_idx(paths, i));
                json_object *device = client_interface(objects, device_path, MIGMGR_NAME ".Device");

                if (device)
                        json_append(list, json_object_get(device));
        }
        if (client->options.json)
                write_json(client, list);
        else
                print(client, list);
        return EXIT_DONE;
}
