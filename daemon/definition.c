/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "definition.h"

#include <ctype.h>

#include "common/json.h"
#include "common/log.h"
#include "common/sysfs-device.h"

bool definition_supervises(const Definition *definition, const DeviceDefinition *device)
{
        return device->type == DEVICE_TYPE_VFIO && definition->vmm == VMM_TYPE_QMP;
}

const char *definition_place(const Definition *definition)
{
        return definition->vmm == VMM_TYPE_DELEGATE ? definition->bus_name : definition->monitor;
}

Definition *definition_free(Definition *definition)
{
        if (!definition)
                return NULL;
        for (char **arg = definition->argv; arg && *arg; arg++)
                free(*arg);
        free(definition->argv);
        free(definition->devices);
        free(definition->labels);
        free(definition->text);
        free(definition);
        return NULL;
}

static void read_path(JsonReader *reader, json_object *object, const char *key, bool needed, char *ret)
{
        const char *path = json_string(reader, object, key, needed);

        ret[0] = 0;
        if (!path)
                return;
        if (!socket_path_fits(path)) {
                json_fail(reader, "\"%s\": %.60s... is no absolute path of at most %d bytes", key, path,
                          SOCKET_PATH_MAX);
                return;
        }
        memcpy(ret, path, strlen(path) + 1);
}

static void read_server(JsonReader *reader, json_object *object, DeviceDefinition *ret)
{
        static const char *const others[] = {"vmm-device", "sysfs"};

        for (size_t i = 0; i < ARRAY_SIZE(others); i++)
                if (json_string(reader, object, others[i], false))
                        json_fail(reader, "device \"%s\": \"%s\" is for type vfio", ret->id, others[i]);
        read_path(reader, object, "socket", true, ret->socket);
        read_path(reader, object, "broker", false, ret->broker);
}

/* A device of the kernel: its VMM has it, or we open it. */
static void read_kernel(JsonReader *reader, json_object *object, VmmType vmm, DeviceDefinition *ret)
{
        const char *name = json_string(reader, object, "vmm-device", false);
        const char *sysfs = json_string(reader, object, "sysfs", false);

        if (json_string(reader, object, "socket", false) || json_string(reader, object, "broker", false))
                json_fail(reader, "device \"%s\": \"socket\" and \"broker\" are for type vfio-user", ret->id);
        else if (!name == !sysfs)
                json_fail(reader, "device \"%s\" of type vfio needs %s of \"vmm-device\" and \"sysfs\"",
                          ret->id, name ? "only one" : "one");
        else if (name && vmm == VMM_TYPE_NONE)
                json_fail(reader,
                          "device \"%s\": \"vmm-device\" names a device of a VMM, and there is none: use "
                          "\"sysfs\"",
                          ret->id);
        else if (sysfs && vmm == VMM_TYPE_QMP)
                json_fail(reader,
                          "device \"%s\": QEMU drives its devices itself: name it by \"vmm-device\", its "
                          "id in QEMU, not by \"sysfs\"",
                          ret->id);
        else if (name && !device_id_is_valid(name))
                json_fail(reader,
                          "device \"%s\": \"vmm-device\": \"%.60s\" is not 1 to %d of A-Z a-z 0-9 . _ -",
                          ret->id, name, DEVICE_ID_MAX);
        else if (sysfs && !sysfs_device_is_valid(sysfs))
                json_fail(reader,
                          "device \"%s\": \"sysfs\": \"%.80s\" is no /sys/bus/pci/devices/ADDRESS or "
                          "/sys/bus/mdev/devices/UUID",
                          ret->id, sysfs);
        else if (name)
                memcpy(ret->vmm_device, name, strlen(name) + 1);
        else
                memcpy(ret->sysfs, sysfs, strlen(sysfs) + 1);
}

static void read_device(JsonReader *reader, json_object *object, VmmType vmm, DeviceDefinition *ret)
{
        static const char *const keys[] = {"id", "type", "socket", "broker", "vmm-device", "sysfs", NULL};
        const char *id, *type;

        json_only(reader, object, keys);
        id = json_string(reader, object, "id", true);
        type = json_string(reader, object, "type", true);
        if (reader->failed)
                return;
        if (!device_id_is_valid(id)) {
                json_fail(reader, "device id \"%s\" is not 1 to %d of A-Z a-z 0-9 . _ -", id, DEVICE_ID_MAX);
                return;
        }
        memcpy(ret->id, id, strlen(id) + 1);
        ret->type = device_type_from_string(type);
        if ((int) ret->type < 0)
                json_fail(reader, "device \"%s\": unknown type \"%s\"; known: vfio-user, vfio", id, type);
        else if (ret->type == DEVICE_TYPE_VFIO)
                read_kernel(reader, object, vmm, ret);
        else
                read_server(reader, object, ret);
}

/* Whose socket that is, or NULL. */
static const DeviceDefinition *find_path(const Definition *definition, size_t n, const char *path)
{
        for (size_t i = 0; i < n && path[0]; i++)
                if (streq(definition->devices[i].socket, path) || streq(definition->devices[i].broker, path))
                        return &definition->devices[i];
        return NULL;
}

/* What no two devices of a VM can have in common. */
static void compare_devices(JsonReader *reader, const Definition *definition, size_t n)
{
        const DeviceDefinition *device = &definition->devices[n], *socket;

        for (size_t i = 0; i < n && !reader->failed; i++) {
                const DeviceDefinition *other = &definition->devices[i];

                if (streq(other->id, device->id))
                        json_fail(reader, "two devices are called \"%s\"", device->id);
                else if (device->type == DEVICE_TYPE_VFIO && other->type == DEVICE_TYPE_VFIO &&
                         streq(other->sysfs, device->sysfs) && streq(other->vmm_device, device->vmm_device))
                        json_fail(reader, "devices \"%s\" and \"%s\" are the same: \"%s\"", other->id,
                                  device->id, device->sysfs[0] ? device->sysfs : device->vmm_device);
        }
        socket = find_path(definition, n, device->socket);
        if (!socket)
                socket = find_path(definition, n, device->broker);
        if (!reader->failed && socket)
                json_fail(reader, "devices \"%s\" and \"%s\" have the same socket", socket->id, device->id);
        if (!reader->failed && device->type == DEVICE_TYPE_VFIO_USER && streq(device->broker, device->socket))
                json_fail(reader,
                          "device \"%s\": \"broker\" is its server's socket; the VMM needs another one",
                          device->id);
}

static void read_devices(JsonReader *reader, json_object *root, Definition *definition)
{
        json_object *array = json_member(reader, root, "devices", json_type_array, true);
        size_t n = array ? json_object_array_length(array) : 0;

        if (n > MANIFEST_DEVICES_MAX) {
                json_fail(reader, "%zu devices; the most is %d", n, MANIFEST_DEVICES_MAX);
                return;
        }
        definition->devices = calloc(n + 1, sizeof *definition->devices);
        if (!definition->devices)
                out_of_memory();
        for (size_t i = 0; i < n && !reader->failed; i++) {
                read_device(reader, json_object_array_get_idx(array, i), definition->vmm,
                            &definition->devices[i]);
                compare_devices(reader, definition, i);
                definition->n_devices++;
        }
}

/* These the helper adds itself (daemon/helper/requests.c): a VMM that runs at once, or listens elsewhere, would be a
 * second guest. */
static bool is_ours_to_say(const char *arg)
{
        static const char *const ours[] = {"S", "incoming", "qmp", "daemonize", "loadvm"};

        if (*arg != '-')
                return false;
        arg += arg[1] == '-' ? 2 : 1;
        for (size_t i = 0; i < ARRAY_SIZE(ours); i++)
                if (streq(arg, ours[i]))
                        return true;
        return false;
}

static void read_argv(JsonReader *reader, json_object *incoming, Definition *definition)
{
        static const char *const keys[] = {"argv", NULL};
        json_object *array;
        size_t n;

        json_only(reader, incoming, keys);
        array = json_member(reader, incoming, "argv", json_type_array, true);
        n = array ? json_object_array_length(array) : 0;
        if (n == 0 || n > DEFINITION_ARGV_MAX) {
                json_fail(reader, "\"argv\" has %zu members, not 1 to %d", n, DEFINITION_ARGV_MAX);
                return;
        }
        definition->argv = calloc(n + 1, sizeof *definition->argv);
        for (size_t i = 0; i < n && definition->argv && !reader->failed; i++) {
                json_object *arg = json_object_array_get_idx(array, i);
                const char *text =
                        json_object_is_type(arg, json_type_string) ? json_object_get_string(arg) : NULL;

                if (!text)
                        json_fail(reader, "\"argv\": member %zu is not a string", i);
                else if (strlen(text) != (size_t) json_object_get_string_len(arg))
                        json_fail(reader, "\"argv\": member %zu has a zero byte in it", i);
                else if (i == 0 && text[0] != '/')
                        json_fail(reader,
                                  "\"argv\": the program \"%s\" is no absolute path; there is no shell",
                                  text);
                else if (i > 0 && is_ours_to_say(text))
                        json_fail(reader,
                                  "\"argv\": leave out %s; migmgr adds -S, -incoming defer and -qmp itself",
                                  text);
                else
                        definition->argv[i] = strdup(text);
                if (!reader->failed && !definition->argv[i])
                        out_of_memory();
        }
        if (!definition->argv)
                out_of_memory();
}

#define LETTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_"
#define DIGITS  "0123456789"

/* As D-Bus has it, without the names that the bus gives: two or more parts, none of which begins with a digit. */
static bool is_bus_name(const char *name)
{
        bool dot = false;

        if (strlen(name) > BUS_NAME_MAX)
                return false;
        for (const char *part = name;; dot = true) {
                size_t n = strspn(part, LETTERS "-" DIGITS);

                if (n == 0 || strchr(DIGITS, *part))
                        return false;
                if (part[n] == 0)
                        return dot;
                if (part[n] != '.')
                        return false;
                part += n + 1;
        }
}

static bool is_object_path(const char *path)
{
        if (path[0] != '/' || strlen(path) > BUS_NAME_MAX)
                return false;
        if (path[1] == 0)
                return true;
        for (const char *part = path + 1;;) {
                size_t n = strspn(part, LETTERS DIGITS);

                if (n == 0)
                        return false;
                if (part[n] == 0)
                        return true;
                if (part[n] != '/')
                        return false;
                part += n + 1;
        }
}

static void read_delegate(JsonReader *reader, json_object *vmm, Definition *definition)
{
        static const char *const delegate_keys[] = {"type", "bus-name", "object-path", NULL};
        const char *name, *path;

        json_only(reader, vmm, delegate_keys);
        name = json_string(reader, vmm, "bus-name", true);
        path = json_string(reader, vmm, "object-path", true);
        if (reader->failed)
                return;
        if (!is_bus_name(name))
                json_fail(reader, "\"bus-name\": \"%.60s\" is no name like org.example.vmm1", name);
        else if (!is_object_path(path))
                json_fail(reader, "\"object-path\": \"%.60s\" is no path like /org/example/vmm1", path);
        else {
                memcpy(definition->bus_name, name, strlen(name) + 1);
                memcpy(definition->object_path, path, strlen(path) + 1);
        }
}

static void read_vmm(JsonReader *reader, json_object *root, Definition *definition)
{
        static const char *const none_keys[] = {"type", NULL};
        static const char *const qmp_keys[] = {"type", "monitor", "incoming", NULL};
        json_object *vmm = json_member(reader, root, "vmm", json_type_object, true), *incoming;
        const char *type = json_string(reader, vmm, "type", true);

        if (reader->failed)
                return;
        definition->vmm = vmm_type_from_string(type);
        switch (definition->vmm) {
        case VMM_TYPE_NONE: json_only(reader, vmm, none_keys); return;
        case VMM_TYPE_DELEGATE: read_delegate(reader, vmm, definition); return;
        case VMM_TYPE_QMP: break;
        case VMM_TYPE_MAX:
        case VMM_TYPE_INVALID:
                json_fail(reader, "\"vmm\": unknown type \"%s\"; known: qmp, delegate, none", type);
                return;
        }
        json_only(reader, vmm, qmp_keys);
        read_path(reader, vmm, "monitor", true, definition->monitor);
        incoming = json_member(reader, vmm, "incoming", json_type_object, false);
        if (incoming)
                read_argv(reader, incoming, definition);
}

static void read_name(JsonReader *reader, json_object *root, Definition *definition)
{
        const char *uuid = json_string(reader, root, "uuid", true);

        json_copy(reader, root, "name", true, definition->name, sizeof definition->name);
        if (reader->failed)
                return;
        if (!uuid_is_valid(uuid)) {
                json_fail(reader, "\"uuid\": \"%s\" is no UUID in lower case", uuid);
                return;
        }
        memcpy(definition->uuid, uuid, sizeof definition->uuid);
        if (definition->name[0] == 0)
                json_fail(reader, "\"name\" is empty");
        for (const char *p = definition->name; *p; p++)
                if (!isprint((unsigned char) *p) || *p == '/')
                        json_fail(reader, "\"name\" has a character in it that can't be shown, or a /");
}

static void read_label(JsonReader *reader, const char *name, json_object *value, ManifestLabel *ret)
{
        const char *text;

        if (!json_object_is_type(value, json_type_string)) {
                json_fail(reader, "label \"%.80s\" is not a string", name);
                return;
        }
        text = json_object_get_string(value);
        if (!manifest_label_is_valid(name, text) ||
            strlen(text) != (size_t) json_object_get_string_len(value))
                json_fail(reader,
                          "label \"%.80s\": a name has 1 to %d bytes, a value at most %d, and both only "
                          "characters that can be shown",
                          name, FACT_KEY_MAX, FACT_VALUE_MAX);
        if (reader->failed)
                return;
        memcpy(ret->name, name, strlen(name) + 1);
        memcpy(ret->value, text, strlen(text) + 1);
}

static void read_labels(JsonReader *reader, json_object *root, Definition *definition)
{
        json_object *labels = json_member(reader, root, "labels", json_type_object, false);

        if (!labels)
                return;
        if (json_object_object_length(labels) > MANIFEST_LABELS_MAX)
                json_fail(reader, "more than %d labels", MANIFEST_LABELS_MAX);
        definition->labels =
                calloc((size_t) json_object_object_length(labels) + 1, sizeof *definition->labels);
        if (!definition->labels)
                out_of_memory();
        json_object_object_foreach (labels, key, value) {
                if (reader->failed)
                        return;
                read_label(reader, key, value, &definition->labels[definition->n_labels]);
                definition->n_labels++;
        }
}

int definition_parse(const char *text, size_t size, Definition **ret, char *ret_error)
{
        static const char *const keys[] = {"name", "uuid", "vmm", "devices", "labels", NULL};
        _cleanup_(definition_freep) Definition *definition = calloc(1, sizeof *definition);
        _cleanup_(json_object_putp) json_object *root = NULL;
        JsonReader reader = {.where = "VM definition"};

        if (!definition)
                return -ENOMEM;
        if (size > DEFINITION_TEXT_MAX)
                json_fail(&reader, "longer than %d bytes", DEFINITION_TEXT_MAX);
        else
                root = json_parse(&reader, text, size);
        if (!reader.failed) {
                json_only(&reader, root, keys);
                read_name(&reader, root, definition);
                read_vmm(&reader, root, definition);
                read_devices(&reader, root, definition);
                read_labels(&reader, root, definition);
        }
        if (reader.failed) {
                memcpy(ret_error, reader.text, sizeof reader.text);
                return -EINVAL;
        }
        definition->text = strdup(json_print(root, JSON_C_TO_STRING_PLAIN));
        if (!definition->text)
                return -ENOMEM;
        *ret = TAKE_PTR(definition);
        return 0;
}

bool definition_equal(const Definition *a, const Definition *b)
{
        _cleanup_(json_object_putp) json_object *left = json_parse_loosely(a->text);
        _cleanup_(json_object_putp) json_object *right = json_parse_loosely(b->text);

        return left && right && json_object_equal(left, right);
}
