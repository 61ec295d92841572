/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* VMM_ACT_LOOK: what QEMU says of its VM, gathered question by question into the manifest. Opinions are in
 * daemon/core/check.c. */

#include <dirent.h>
#include <stdio.h>

#include "qemu.h"

#define PERIPHERAL  "/machine/peripheral"
#define THREADS_MAX 4096 /* of QEMU, that are looked at */

static void next_fact(Qemu *q);

/* Foreign text, NULL where it says null, is cut and made printable; a list that is full says so by its count. */
static void note(char (*list)[MANIFEST_TEXT_MAX], uint32_t *n, const char *text)
{
        if (!text)
                text = "null";
        if (*n < MANIFEST_REASONS_MAX) {
                size_t i = 0;

                for (; text[i] && i + 1 < MANIFEST_TEXT_MAX; i++)
                        list[*n][i] = text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
                list[*n][i] = 0;
        }
        (*n)++;
}

static void take_version(Qemu *q, json_object *result)
{
        JsonReader reader = {.where = "query-version"};
        json_object *qemu = json_member(&reader, result, "qemu", json_type_object, true);
        int64_t major = json_number(&reader, qemu, "major", 0, 1000, 0);
        int64_t minor = json_number(&reader, qemu, "minor", 0, 1000, 0);
        int64_t micro = json_number(&reader, qemu, "micro", 0, 1000, 0);

        q->vmm.facts.major = (uint32_t) major;
        (void) snprintf(q->vmm.facts.version, sizeof q->vmm.facts.version, "%d.%d.%d", (int) major,
                        (int) minor, (int) micro);
}

static void take_status(Qemu *q, json_object *result)
{
        JsonReader reader = {.where = "query-status"};

        json_copy(&reader, result, "status", true, q->vmm.facts.run_state, sizeof q->vmm.facts.run_state);
}

static void take_machine(Qemu *q, json_object *result)
{
        const char *type =
                json_object_is_type(result, json_type_string) ? json_object_get_string(result) : "";
        size_t n = strlen(type), suffix = strlen("-machine");

        if (n > suffix && streq(type + n - suffix, "-machine"))
                n -= suffix;
        (void) snprintf(q->vmm.facts.machine, sizeof q->vmm.facts.machine, "%.*s", (int) MIN(n, (size_t) 63),
                        type);
}

static void take_blocked(Qemu *q, json_object *result)
{
        ManifestVmm *facts = &q->vmm.facts;
        JsonReader reader = {.where = "query-migrate"};
        json_object *reasons = json_member(&reader, result, "blocked-reasons", json_type_array, false);
        const char *status = json_string(&reader, result, "status", false);

        for (size_t i = 0; reasons && i < json_object_array_length(reasons); i++)
                note(facts->blocked, &facts->n_blocked,
                     json_object_get_string(json_object_array_get_idx(reasons, i)));
        if (status && (streq(status, "active") || streq(status, "setup") || streq(status, "pre-switchover") ||
                       streq(status, "device")))
                note(facts->blocked, &facts->n_blocked, "somebody else is migrating this VM already");
}

static void take_blocks(Qemu *q, json_object *result)
{
        ManifestVmm *facts = &q->vmm.facts;

        for (size_t i = 0;
             json_object_is_type(result, json_type_array) && i < json_object_array_length(result); i++) {
                JsonReader reader = {.where = "query-block"};
                json_object *block = json_object_array_get_idx(result, i);
                json_object *inserted = json_member(&reader, block, "inserted", json_type_object, false);
                const char *name = json_string(&reader, block, "qdev", false);

                if (inserted && !json_flag(&reader, inserted, "ro", false))
                        note(facts->writable, &facts->n_writable,
                             name && name[0] ? name : "a disk without a name");
        }
}

/* A device of the definition: QEMU moves its state, and we see to it that it does so with the others. */
static bool is_supervised(Qemu *q, const char *where, const char *name, const char *type)
{
        QemuDevice *device = streq(where, PERIPHERAL) && !streq(type, "child<vfio-user-pci>")
                                     ? qemu_device(q, name)
                                     : NULL;

        if (device)
                device->exists = true;
        return device;
}

static const char *const viommus[] = {"child<intel-iommu>", "child<amd-iommu>", "child<virtio-iommu-pci>",
                                      "child<virtio-iommu-device>"};

static bool is_viommu(const char *type)
{
        for (size_t i = 0; i < ARRAY_SIZE(viommus); i++)
                if (streq(type, viommus[i]))
                        return true;
        return false;
}

/* Devices whose state QEMU leaves behind without a word, or moves past our barriers. It has no list of them, but names
 * the type of every device. */
static void take_devices(Qemu *q, json_object *result, const char *where)
{
        static const char *const types[] = {"child<vfio-user-pci>", "child<vfio-pci>",
                                            "child<vfio-pci-nohotplug>"};
        ManifestVmm *facts = &q->vmm.facts;

        for (size_t i = 0;
             json_object_is_type(result, json_type_array) && i < json_object_array_length(result); i++) {
                JsonReader reader = {.where = "qom-list"};
                json_object *property = json_object_array_get_idx(result, i);
                const char *name = json_string(&reader, property, "name", true);
                const char *type = json_string(&reader, property, "type", true);
                char text[MANIFEST_TEXT_MAX];

                facts->viommu |= type && is_viommu(type);
                for (size_t k = 0; name && type && k < ARRAY_SIZE(types); k++)
                        if (streq(type, types[k]) && !is_supervised(q, where, name, type)) {
                                (void) snprintf(text, sizeof text, "%s/%.100s (%.*s)", where, name,
                                                (int) strlen(type) - 7, type + 6);
                                note(facts->vfio_user, &facts->n_vfio_user, text);
                        }
        }
}

static void take_peripheral(Qemu *q, json_object *result)
{
        take_devices(q, result, PERIPHERAL);
}

static void take_anonymous(Qemu *q, json_object *result)
{
        take_devices(q, result, "/machine/peripheral-anon");
}

static json_object *ask_machine(void)
{
        json_object *object = qemu_argument("path", "/machine");

        json_add_string(object, "property", "type");
        return object;
}

static json_object *ask_peripheral(void)
{
        return qemu_argument("path", PERIPHERAL);
}

static json_object *ask_anonymous(void)
{
        return qemu_argument("path", "/machine/peripheral-anon");
}

static const struct {
        const char *command;
        json_object *(*arguments)(void);
        void (*take)(Qemu *q, json_object *result);
} questions[] = {
        {"query-version", NULL, take_version},       {"query-status", NULL, take_status},
        {"qom-get", ask_machine, take_machine},      {"query-migrate", NULL, take_blocked},
        {"query-block", NULL, take_blocks},          {"qom-list", ask_peripheral, take_peripheral},
        {"qom-list", ask_anonymous, take_anonymous},
};

static void on_fact(Qemu *q, int status, json_object *result, const char *text)
{
        if (status < 0) {
                qemu_done(q, status, "%s: %s", questions[q->fact].command, text);
                return;
        }
        questions[q->fact++].take(q, result);
        next_fact(q);
}

/* ---- its supervised devices -------------------------------------------------------------------------------------- */

static void next_device(Qemu *q);

/* One that says that it maps nothing is believed; a QEMU that has no such property says nothing. */
static void on_isolation(Qemu *q, int status, json_object *result, const char *text)
{
        QemuDevice *device = &q->devices[q->fact_device++];

        if (status < 0 && status != -EREMOTEIO) {
                qemu_done(q, status, "qom-get: %s", text);
                return;
        }
        device->isolation = status < 0 || !json_object_is_type(result, json_type_boolean)
                                    ? DEVICE_ISOLATION_UNKNOWN
                            : json_object_get_boolean(result) ? DEVICE_ISOLATION_FULL
                                                              : DEVICE_ISOLATION_NONE;
        next_device(q);
}

static void ask_device(Qemu *q, const char *property, QemuAnswer answer)
{
        json_object *arguments;
        char path[DEVICE_ID_MAX + 32];

        (void) snprintf(path, sizeof path, PERIPHERAL "/%s", q->devices[q->fact_device].id);
        arguments = qemu_argument("path", path);
        json_add_string(arguments, "property", property);
        qemu_call(q, "qom-get", arguments, -1, answer);
}

static void on_device_fact(Qemu *q, int status, json_object *result, const char *text)
{
        ManifestVmm *facts = &q->vmm.facts;
        const QemuDevice *device = &q->devices[q->fact_device];
        char why[MANIFEST_TEXT_MAX];

        if (status < 0 && status != -EREMOTEIO) {
                qemu_done(q, status, "qom-get: %s", text);
                return;
        }
        (void) snprintf(why, sizeof why, "%s: %s", device->id,
                        status < 0 ? "this QEMU has no migration-events (since 9.1)"
                                   : "migration-events is off");
        if (device->exists && (status < 0 || !json_object_get_boolean(result)))
                note(facts->silent, &facts->n_silent, why);
        ask_device(q, "x-no-mmap", on_isolation);
}

static void next_device(Qemu *q)
{
        if (q->fact_device == q->n_devices) {
                qemu_done(q, 0, "%s", "");
                return;
        }
        qemu_doing(q, "its devices");
        ask_device(q, "migration-events", on_device_fact);
}

/* Its migration thread will have a name if those of its vCPUs have one. */
static bool names_threads(pid_t pid)
{
        char path[64], name[32];
        struct dirent *entry;
        bool found = false;
        DIR *dir;

        (void) snprintf(path, sizeof path, "/proc/%d/task", (int) pid);
        dir = opendir(path);
        for (int n = 0; dir && !found && n < THREADS_MAX && (entry = readdir(dir)); n++) {
                FILE *f;

                (void) snprintf(path, sizeof path, "/proc/%d/task/%.16s/comm", (int) pid, entry->d_name);
                f = fopen(path, "re");
                if (f && fgets(name, sizeof name, f))
                        found = strncmp(name, "CPU ", 4) == 0 || strncmp(name, "ALL CPUs", 8) == 0;
                if (f)
                        (void) fclose(f);
        }
        if (dir)
                (void) closedir(dir);
        return found;
}

static void next_fact(Qemu *q)
{
        if (q->fact == ARRAY_SIZE(questions)) {
                q->vmm.facts.can_hold = q->pidfd >= 0 && names_threads(q->vmm.process.pid);
                next_device(q);
                return;
        }
        qemu_doing(q, questions[q->fact].command);
        qemu_call(q, questions[q->fact].command,
                  questions[q->fact].arguments ? questions[q->fact].arguments() : NULL, -1, on_fact);
}

void qemu_look(Qemu *q)
{
        q->vmm.facts = (ManifestVmm){.type = VMM_TYPE_QMP};
        q->fact = q->fact_device = 0;
        qemu_make_devices(q);
        for (uint32_t i = 0; i < q->n_devices; i++)
                q->devices[i].exists = false;
        q->until_usec = 0; /* a monitor that is not there now is a fact, too */
        qemu_connect(q, false, next_fact);
}
