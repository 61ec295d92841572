/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* org.migmgr1.VM and org.migmgr1.Device */

#include <stdio.h>

#include "bus.h"
#include "common/log.h"

/* ---- VM ------------------------------------------------------------------------------------------------------ */

/* The UUID behind `prefix` in a path, as uuid_label() has it. What is none gives one that makes another path. */
static void read_uuid(const char *path, const char *prefix, char ret[UUID_TEXT_MAX + 1])
{
        size_t n = 0;

        if (strncmp(path, prefix, strlen(prefix)) == 0)
                for (path += strlen(prefix); *path && *path != '/' && n < UUID_TEXT_MAX; path++)
                        ret[n++] = *path == '_' ? '-' : *path;
        ret[n] = 0;
}

/* Each property and each signal of each object comes through here. */
static Vm *find_vm(Bus *bus, const char *path)
{
        char own[BUS_PATH_MAX], uuid[UUID_TEXT_MAX + 1];
        Vm *vm;

        read_uuid(path, BUS_ROOT "/vm/_", uuid);
        vm = manager_find_uuid(bus->manager, uuid);
        if (!vm || !vm->registered)
                return NULL;
        bus_vm_path(vm->definition->uuid, own);
        return streq(own, path) ? vm : NULL;
}

static int vm_find(sd_bus *b, const char *path, const char *interface, void *userdata, void **ret,
                   sd_bus_error *error)
{
        *ret = find_vm(userdata, path);
        return *ret ? 1 : 0;
}

static int get_name(sd_bus *b, const char *path, const char *interface, const char *property,
                    sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
        Vm *vm = userdata;

        return sd_bus_message_append(reply, "s", vm->definition->name);
}

static int get_uuid(sd_bus *b, const char *path, const char *interface, const char *property,
                    sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
        Vm *vm = userdata;

        return sd_bus_message_append(reply, "s", vm->definition->uuid);
}

static int get_vmm(sd_bus *b, const char *path, const char *interface, const char *property,
                   sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
        Vm *vm = userdata;

        return sd_bus_message_append(reply, "s", vmm_type_to_string(vm->definition->vmm));
}

static int get_presence(sd_bus *b, const char *path, const char *interface, const char *property,
                        sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
        Vm *vm = userdata;

        return sd_bus_message_append(reply, "s", presence_to_string(vm->presence));
}

static int get_devices(sd_bus *b, const char *path, const char *interface, const char *property,
                       sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
        Vm *vm = userdata;
        char device[BUS_PATH_MAX];
        int r = sd_bus_message_open_container(reply, 'a', "o");

        for (uint32_t i = 0; i < vm->definition->n_devices && r >= 0; i++) {
                bus_device_path(vm->definition->uuid, vm->definition->devices[i].id, device);
                r = sd_bus_message_append(reply, "o", device);
        }
        return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int get_job(sd_bus *b, const char *path, const char *interface, const char *property,
                   sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
        Vm *vm = userdata;
        Job *job = vm->job;
        char job_path[BUS_PATH_MAX] = "/";

        if (job && !job->half->check_only)
                bus_job_path(job->id, job_path);
        return sd_bus_message_append(reply, "o", job_path);
}

static int get_last_blackout(sd_bus *b, const char *path, const char *interface, const char *property,
                             sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
        Vm *vm = userdata;

        return sd_bus_message_append(reply, "t", vm->measured.blackout_usec);
}

static const sd_bus_vtable vm_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_PROPERTY("Name", "s", get_name, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("UUID", "s", get_uuid, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Vmm", "s", get_vmm, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Presence", "s", get_presence, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Devices", "ao", get_devices, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Job", "o", get_job, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("LastBlackoutUsec", "t", get_last_blackout, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_VTABLE_END,
};

static int list_vms(sd_bus *b, const char *prefix, void *userdata, char ***ret_nodes, sd_bus_error *error)
{
        Bus *bus = userdata;
        size_t n = 0, i = 0;
        char path[BUS_PATH_MAX], **nodes;

        for (Vm *vm = manager_first_vm(bus->manager); vm; vm = vm->next)
                n += vm->registered;
        nodes = calloc(n + 1, sizeof *nodes);
        if (!nodes)
                return -ENOMEM;
        for (Vm *vm = manager_first_vm(bus->manager); vm; vm = vm->next) {
                if (!vm->registered)
                        continue;
                bus_vm_path(vm->definition->uuid, path);
                nodes[i] = strdup(path);
                if (!nodes[i++])
                        out_of_memory();
        }
        *ret_nodes = nodes;
        return 0;
}

/* ---- Device -------------------------------------------------------------------------------------------------- */

static int hex_digit(char c)
{
        if (c >= '0' && c <= '9')
                return c - '0';
        return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The id that a label stands for: bus_device_path() backwards. What is no such label gives an id that makes another path. */
static void read_label(const char *label, char ret[DEVICE_ID_MAX + 1])
{
        size_t n = 0;

        for (; *label && n < DEVICE_ID_MAX; n++) {
                int high = *label == '_' ? hex_digit(label[1]) : -1;
                int low = high >= 0 ? hex_digit(label[2]) : -1;

                ret[n] = low >= 0 ? (char) (high << 4 | low) : *label;
                label += low >= 0 ? 3 : 1;
        }
        ret[n] = 0;
}

/* The VM of a device's path, and which of its devices. */
static Vm *find_device(Bus *bus, const char *path, uint32_t *ret_index)
{
        const char *label = strrchr(path, '/');
        char own[BUS_PATH_MAX], id[DEVICE_ID_MAX + 1], uuid[UUID_TEXT_MAX + 1];
        int32_t i;
        Vm *vm;

        read_uuid(path, BUS_ROOT "/device/_", uuid);
        vm = manager_find_uuid(bus->manager, uuid);
        if (!vm || !vm->registered)
                return NULL;
        read_label(label ? label + 1 : path, id);
        bus_device_path(vm->definition->uuid, id, own);
        i = streq(own, path) ? vm_find_device(vm, id) : -1;
        if (i < 0)
                return NULL;
        *ret_index = (uint32_t) i;
        return vm;
}

static int device_find(sd_bus *b, const char *path, const char *interface, void *userdata, void **ret,
                       sd_bus_error *error)
{
        uint32_t i;
        Vm *vm = find_device(userdata, path, &i);

        if (!vm)
                return 0;
        *ret = vm->devices[i];
        return 1;
}

static int get_device_id(sd_bus *b, const char *path, const char *interface, const char *property,
                         sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
        return sd_bus_message_append(reply, "s", device_id(userdata));
}

static int get_device_type(sd_bus *b, const char *path, const char *interface, const char *property,
                           sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
        return sd_bus_message_append(reply, "s", device_type_to_string(device_type(userdata)));
}

static int get_device_mode(sd_bus *b, const char *path, const char *interface, const char *property,
                           sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
        return sd_bus_message_append(reply, "s", device_is_supervised(userdata) ? "supervised" : "owned");
}

static int get_device_state(sd_bus *b, const char *path, const char *interface, const char *property,
                            sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
        return sd_bus_message_append(reply, "s", device_state_to_string(device_state(userdata)));
}

static int get_device_migration(sd_bus *b, const char *path, const char *interface, const char *property,
                                sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
        static const char *const names[] = {"stop-copy", "p2p", "pre-copy"};
        uint32_t flags = device_flags(userdata);
        int r = sd_bus_message_open_container(reply, 'a', "s");

        for (uint32_t i = 0; i < ARRAY_SIZE(names) && r >= 0; i++)
                if (flags & (1u << i))
                        r = sd_bus_message_append(reply, "s", names[i]);
        return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int get_device_open(sd_bus *b, const char *path, const char *interface, const char *property,
                           sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
        return sd_bus_message_append(reply, "b", (int) device_is_open(userdata));
}

static int get_device_error(sd_bus *b, const char *path, const char *interface, const char *property,
                            sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
        char text[BUS_TEXT_MAX];

        return sd_bus_message_append(reply, "s", log_printable(device_text(userdata), text, sizeof text));
}

static int get_device_quarantine(sd_bus *b, const char *path, const char *interface, const char *property,
                                 sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
        char text[BUS_TEXT_MAX];

        return sd_bus_message_append(reply, "s",
                                     log_printable(device_quarantine(userdata), text, sizeof text));
}

static const sd_bus_vtable device_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_PROPERTY("Id", "s", get_device_id, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Type", "s", get_device_type, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Mode", "s", get_device_mode, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("State", "s", get_device_state, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Migration", "as", get_device_migration, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Open", "b", get_device_open, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Error", "s", get_device_error, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Quarantine", "s", get_device_quarantine, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_VTABLE_END,
};

static int list_devices(sd_bus *b, const char *prefix, void *userdata, char ***ret_nodes, sd_bus_error *error)
{
        Bus *bus = userdata;
        size_t n = 0, k = 0;
        char path[BUS_PATH_MAX], **nodes;

        for (Vm *vm = manager_first_vm(bus->manager); vm; vm = vm->next)
                n += vm->registered ? vm->definition->n_devices : 0;
        nodes = calloc(n + 1, sizeof *nodes);
        if (!nodes)
                return -ENOMEM;
        for (Vm *vm = manager_first_vm(bus->manager); vm; vm = vm->next)
                for (uint32_t i = 0; vm->registered && i < vm->definition->n_devices; i++) {
                        bus_device_path(vm->definition->uuid, vm->definition->devices[i].id, path);
                        nodes[k] = strdup(path);
                        if (!nodes[k++])
                                out_of_memory();
                }
        *ret_nodes = nodes;
        return 0;
}

/* ---- what has changed ---------------------------------------------------------------------------------------- */

static void each_object(Bus *bus, Vm *vm, int (*emit)(sd_bus *, const char *))
{
        char path[BUS_PATH_MAX];

        if (!bus->heard)
                return;
        bus_vm_path(vm->definition->uuid, path);
        (void) emit(bus->bus, path);
        for (uint32_t i = 0; i < vm->definition->n_devices; i++) {
                bus_device_path(vm->definition->uuid, vm->definition->devices[i].id, path);
                (void) emit(bus->bus, path);
        }
        loop_kick_bus(bus->host->loop);
}

void bus_vm_added(void *userdata, Vm *vm)
{
        each_object(userdata, vm, sd_bus_emit_object_added);
}

void bus_vm_removed(void *userdata, Vm *vm)
{
        each_object(userdata, vm, sd_bus_emit_object_removed);
}

void bus_vm_changed(void *userdata, Vm *vm, int32_t device)
{
        Bus *bus = userdata;
        char path[BUS_PATH_MAX];

        if (!bus->heard)
                return;
        if (device < 0) {
                bus_vm_path(vm->definition->uuid, path);
                (void) sd_bus_emit_properties_changed(bus->bus, path, BUS_NAME ".VM", "Presence", "Job",
                                                      "LastBlackoutUsec", NULL);
        } else {
                bus_device_path(vm->definition->uuid, vm->definition->devices[device].id, path);
                (void) sd_bus_emit_properties_changed(bus->bus, path, BUS_NAME ".Device", "State",
                                                      "Migration", "Open", "Error", "Quarantine", NULL);
        }
        loop_kick_bus(bus->host->loop);
}

int bus_add_vms(Bus *bus)
{
        int r = sd_bus_add_fallback_vtable(bus->bus, NULL, BUS_ROOT "/vm", BUS_NAME ".VM", vm_vtable, vm_find,
                                           bus);

        return r < 0 ? r : sd_bus_add_node_enumerator(bus->bus, NULL, BUS_ROOT "/vm", list_vms, bus);
}

int bus_add_devices(Bus *bus)
{
        int r = sd_bus_add_fallback_vtable(bus->bus, NULL, BUS_ROOT "/device", BUS_NAME ".Device",
                                           device_vtable, device_find, bus);

        return r < 0 ? r : sd_bus_add_node_enumerator(bus->bus, NULL, BUS_ROOT "/device", list_devices, bus);
}
