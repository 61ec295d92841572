/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "manifest-json.h"

#include "common/log.h"
#include "common/uuid.h"

#define FINDINGS_MAX 4096 /* that another host may send */

/* ---- out ----------------------------------------------------------------------------------------------------- */

/* It quotes what others say, and may have cut it in the middle of a character; the other end refuses what is no UTF-8. */
static void add_text(json_object *o, const char *key, const char *text)
{
        char printable[256];

        json_add_string(o, key, log_printable(text, printable, sizeof printable));
}

static json_object *list_to_json(uint32_t n, const char (*list)[MANIFEST_TEXT_MAX])
{
        json_object *array = json_new_array();

        char printable[MANIFEST_TEXT_MAX];

        for (uint32_t i = 0; i < n && i < MANIFEST_REASONS_MAX; i++)
                json_append(array,
                            json_object_new_string(log_printable(list[i], printable, sizeof printable)));
        return array;
}

static json_object *vmm_to_json(const ManifestVmm *vmm)
{
        json_object *o = json_new_object();

        json_add_string(o, "type", vmm_type_to_string(vmm->type));
        if (vmm->type == VMM_TYPE_NONE)
                return o;
        json_add_number(o, "status", vmm->status);
        add_text(o, "text", vmm->text);
        add_text(o, "version", vmm->version);
        json_add_number(o, "major", vmm->major);
        add_text(o, "machine", vmm->machine);
        add_text(o, "run-state", vmm->run_state);
        json_add_bool(o, "takes-dirty-pages", vmm->takes_dirty_pages);
        json_add_bool(o, "can-hold", vmm->can_hold);
        json_add_bool(o, "viommu", vmm->viommu);
        json_add(o, "blocked", list_to_json(vmm->n_blocked, vmm->blocked));
        json_add(o, "vfio-user", list_to_json(vmm->n_vfio_user, vmm->vfio_user));
        json_add(o, "writable", list_to_json(vmm->n_writable, vmm->writable));
        json_add(o, "silent", list_to_json(vmm->n_silent, vmm->silent));
        return o;
}

static json_object *facts_to_json(const ManifestDevice *device)
{
        json_object *o = json_new_object();

        for (uint32_t i = 0; i < device->n_facts; i++)
                add_text(o, device->facts[i].key, device->facts[i].value);
        return o;
}

static json_object *plugins_to_json(const ManifestDevice *device, uint32_t most)
{
        json_object *array = json_new_array();

        for (uint32_t i = 0; i < device->n_plugins && i < most; i++)
                json_append(array, json_object_new_string(device->plugins[i]));
        return array;
}

static json_object *labels_to_json(const Manifest *manifest)
{
        json_object *o = json_new_object();

        for (uint32_t i = 0; i < manifest->n_labels; i++)
                json_add_string(o, manifest->labels[i].name, manifest->labels[i].value);
        return o;
}

/* How much of a device goes into it. */
typedef struct Extent {
        bool facts; /* and what went wrong with it */
        uint32_t n_plugins;
} Extent;

static const Extent everything = {true, UINT32_MAX};

static json_object *identity_to_json(const ManifestDevice *device, const Extent *extent)
{
        static const ManifestDevice none;
        json_object *o = json_new_object();

        json_add_string(o, "id", device->id);
        add_text(o, "driver", device->driver);
        json_add_string(o, "device", device->device);
        json_add_string(o, "subsystem", device->subsystem);
        json_add_string(o, "isolation", device_isolation_to_string(device->isolation));
        json_add(o, "facts", facts_to_json(extent->facts ? device : &none));
        json_add(o, "plugins", plugins_to_json(device, extent->n_plugins));
        return o;
}

json_object *manifest_identity_to_json(const ManifestDevice *device)
{
        return identity_to_json(device, &everything);
}

static json_object *device_to_json(const ManifestDevice *device, const Extent *extent)
{
        json_object *o = identity_to_json(device, extent);

        json_add_string(o, "type", device_type_to_string(device->type));
        json_add_number(o, "flags", device->migration_flags);
        json_add_string(o, "state", device_state_to_string(device->state));
        json_add_number(o, "status", device->status);
        add_text(o, "text", extent->facts ? device->text : "");
        add_text(o, "sysfs", device->sysfs);
        json_add_number(o, "state-bytes", (int64_t) device->state_bytes);
        return o;
}

static json_object *make(const Manifest *manifest, const Extent *extent)
{
        json_object *o = json_new_object(), *devices = json_new_array();

        json_add_string(o, "uuid", manifest->uuid);
        json_add_string(o, "name", manifest->name);
        json_add_string(o, "presence", presence_to_string(manifest->presence));
        json_add_bool(o, "can-start", manifest->can_start);
        add_text(o, "kernel", manifest->kernel);
        add_text(o, "daemon", manifest->daemon);
        json_add_number(o, "free-bytes", manifest->free_bytes);
        json_add(o, "labels", labels_to_json(manifest));
        json_add(o, "vmm", vmm_to_json(&manifest->vmm));
        for (uint32_t i = 0; i < manifest->n_devices; i++)
                json_append(devices, device_to_json(&manifest->devices[i], extent));
        json_add(o, "devices", devices);
        return o;
}

/* At most, without looking: a character may become two. */
static size_t most_bytes(const Manifest *manifest)
{
        size_t n = 2 * sizeof *manifest;

        for (uint32_t i = 0; i < manifest->n_devices; i++)
                n += 2 * (sizeof manifest->devices[i] + manifest->devices[i].n_facts * sizeof(ManifestFact) +
                          manifest->devices[i].n_plugins * (FACT_KEY_MAX + 8)) +
                     512;
        return n;
}

/* A plugin that is named without its facts is one that can't be judged by, and one name is enough to refuse. */
json_object *manifest_to_json(const Manifest *manifest)
{
        static const Extent less[] = {{false, UINT32_MAX}, {false, 1}};
        json_object *o = make(manifest, &everything);

        if (most_bytes(manifest) <= MANIFEST_JSON_MAX)
                return o;
        for (size_t i = 0; i < ARRAY_SIZE(less); i++) {
                if (strlen(json_print(o, JSON_C_TO_STRING_PLAIN)) <= MANIFEST_JSON_MAX)
                        break;
                json_object_put(o);
                o = make(manifest, &less[i]);
        }
        return o;
}

/* ---- in ------------------------------------------------------------------------------------------------------ */

static void take_text(JsonReader *reader, json_object *o, const char *key, char *ret, size_t size)
{
        const char *text = json_string(reader, o, key, true);

        ret[0] = 0;
        if (text)
                (void) log_printable(text, ret, size);
}

static uint32_t take_list(JsonReader *reader, json_object *o, const char *key,
                          char (*list)[MANIFEST_TEXT_MAX])
{
        json_object *array = json_member(reader, o, key, json_type_array, true);
        size_t n = array ? json_object_array_length(array) : 0;

        for (size_t i = 0; i < n && i < MANIFEST_REASONS_MAX; i++) {
                json_object *item = json_object_array_get_idx(array, i);

                if (json_object_is_type(item, json_type_string))
                        (void) log_printable(json_object_get_string(item), list[i], MANIFEST_TEXT_MAX);
                else
                        json_fail(reader, "\"%s\": member %zu is not a string", key, i);
        }
        return (uint32_t) MIN(n, (size_t) MANIFEST_REASONS_MAX);
}

static void take_vmm(JsonReader *reader, json_object *o, ManifestVmm *ret)
{
        const char *type = json_string(reader, o, "type", true);

        if (reader->failed)
                return;
        ret->type = vmm_type_from_string(type);
        if ((int) ret->type < 0)
                json_fail(reader, "unknown VMM type \"%.40s\"", type);
        if (ret->type == VMM_TYPE_NONE || reader->failed)
                return;
        ret->status = (int) json_number_needed(reader, o, "status", -4095, 0);
        ret->major = (uint32_t) json_number_needed(reader, o, "major", 0, 1000);
        take_text(reader, o, "text", ret->text, sizeof ret->text);
        take_text(reader, o, "version", ret->version, sizeof ret->version);
        take_text(reader, o, "machine", ret->machine, sizeof ret->machine);
        take_text(reader, o, "run-state", ret->run_state, sizeof ret->run_state);
        (void) json_member(reader, o, "takes-dirty-pages", json_type_boolean, true);
        ret->takes_dirty_pages = json_flag(reader, o, "takes-dirty-pages", false);
        (void) json_member(reader, o, "can-hold", json_type_boolean, true);
        ret->can_hold = json_flag(reader, o, "can-hold", false);
        (void) json_member(reader, o, "viommu", json_type_boolean, true);
        ret->viommu = json_flag(reader, o, "viommu", false);
        ret->n_blocked = take_list(reader, o, "blocked", ret->blocked);
        ret->n_vfio_user = take_list(reader, o, "vfio-user", ret->vfio_user);
        ret->n_writable = take_list(reader, o, "writable", ret->writable);
        ret->n_silent = take_list(reader, o, "silent", ret->silent);
}

/* "15b3:101e", or "". */
static void take_ids(JsonReader *reader, json_object *o, const char *key, char ret[10])
{
        json_copy(reader, o, key, true, ret, 10);
        for (size_t i = 0; i < 9 && ret[0]; i++)
                if (i == 4 ? ret[i] != ':' : !ret[i] || !strchr("0123456789abcdef", ret[i])) {
                        json_fail(reader, "\"%s\": \"%s\" is not as \"15b3:101e\"", key, ret);
                        return;
                }
}

static void take_facts(JsonReader *reader, json_object *o, ManifestDevice *ret)
{
        json_object *facts = json_member(reader, o, "facts", json_type_object, true);

        if (!facts)
                return;
        if (json_object_object_length(facts) > MANIFEST_FACTS_MAX)
                json_fail(reader, "\"facts\": more than %d", MANIFEST_FACTS_MAX);
        json_object_object_foreach (facts, key, unused) {
                const char *value = reader->failed ? NULL : json_string(reader, facts, key, true);

                (void) unused;
                if (value && manifest_add_fact(ret, key, value) < 0)
                        json_fail(reader, "\"facts\": \"%.80s\" or its value is none that can be taken", key);
        }
}

static void take_plugins(JsonReader *reader, json_object *o, ManifestDevice *ret)
{
        json_object *array = json_member(reader, o, "plugins", json_type_array, true);
        size_t n = array ? json_object_array_length(array) : 0;

        if (n > MANIFEST_FACTS_MAX)
                json_fail(reader, "\"plugins\": more than %d", MANIFEST_FACTS_MAX);
        for (size_t i = 0; i < n && !reader->failed; i++) {
                json_object *item = json_object_array_get_idx(array, i);

                if (!json_object_is_type(item, json_type_string) ||
                    manifest_add_plugin(ret, json_object_get_string(item)) < 0)
                        json_fail(reader, "\"plugins\": member %zu is no name of one", i);
        }
}

static void take_labels(JsonReader *reader, json_object *o, Manifest *ret)
{
        json_object *labels = json_member(reader, o, "labels", json_type_object, true);

        if (!labels)
                return;
        if (json_object_object_length(labels) > MANIFEST_LABELS_MAX)
                json_fail(reader, "\"labels\": more than %d", MANIFEST_LABELS_MAX);
        json_object_object_foreach (labels, key, unused) {
                const char *value = reader->failed ? NULL : json_string(reader, labels, key, true);
                ManifestLabel *label = &ret->labels[ret->n_labels];

                (void) unused;
                if (!value)
                        return;
                if (!manifest_label_is_valid(key, value)) {
                        json_fail(reader, "\"labels\": \"%.80s\" or its value is too long, or can't be shown",
                                  key);
                        return;
                }
                memcpy(label->name, key, strlen(key) + 1);
                memcpy(label->value, value, strlen(value) + 1);
                ret->n_labels++;
        }
}

static void take_identity(JsonReader *reader, json_object *o, ManifestDevice *ret)
{
        const char *isolation = json_string(reader, o, "isolation", true);

        take_ids(reader, o, "device", ret->device);
        take_ids(reader, o, "subsystem", ret->subsystem);
        ret->state_bytes = (uint64_t) json_number_needed(reader, o, "state-bytes", 0, INT64_MAX);
        ret->isolation = isolation ? device_isolation_from_string(isolation) : DEVICE_ISOLATION_INVALID;
        if ((int) ret->isolation < 0)
                json_fail(reader, "unknown isolation");
        take_facts(reader, o, ret);
        take_plugins(reader, o, ret);
}

static void take_device(JsonReader *reader, json_object *o, ManifestDevice *ret)
{
        const char *type = json_string(reader, o, "type", true),
                   *state = json_string(reader, o, "state", true);

        json_copy(reader, o, "id", true, ret->id, sizeof ret->id);
        if (!reader->failed && !device_id_is_valid(ret->id))
                json_fail(reader, "\"%s\" is no id of a device", ret->id);
        ret->migration_flags = (uint32_t) json_number_needed(reader, o, "flags", 0, DEVICE_FLAGS_MASK);
        if (ret->migration_flags & ~(uint32_t) DEVICE_FLAGS_MASK)
                json_fail(reader, "\"flags\": %u has bits that no device has", ret->migration_flags);
        ret->status = (int) json_number_needed(reader, o, "status", -4095, 0);
        take_text(reader, o, "text", ret->text, sizeof ret->text);
        take_text(reader, o, "sysfs", ret->sysfs, sizeof ret->sysfs);
        take_text(reader, o, "driver", ret->driver, sizeof ret->driver);
        take_identity(reader, o, ret);
        if (reader->failed)
                return;
        ret->type = device_type_from_string(type);
        ret->state = device_state_from_string(state);
        if ((int) ret->type < 0 || (int) ret->state < 0)
                json_fail(reader, "device \"%.64s\" has an unknown type or state", ret->id);
}

int manifest_from_json(JsonReader *reader, json_object *object, Manifest *ret)
{
        json_object *devices = json_member(reader, object, "devices", json_type_array, true);
        const char *uuid = json_string(reader, object, "uuid", true);
        const char *presence = json_string(reader, object, "presence", true);
        size_t n = devices ? json_object_array_length(devices) : 0;
        int r;

        if (!reader->failed && n > MANIFEST_DEVICES_MAX)
                json_fail(reader, "%zu devices; the most is %d", n, MANIFEST_DEVICES_MAX);
        if (!reader->failed && !uuid_is_valid(uuid))
                json_fail(reader, "\"uuid\" is no UUID");
        if (reader->failed)
                return -EINVAL;
        r = manifest_init(ret, (uint32_t) n);
        if (r < 0)
                return r;
        memcpy(ret->uuid, uuid, sizeof ret->uuid);
        take_text(reader, object, "name", ret->name, sizeof ret->name);
        ret->presence = presence_from_string(presence);
        if ((int) ret->presence < 0)
                json_fail(reader, "unknown presence");
        (void) json_member(reader, object, "can-start", json_type_boolean, true);
        ret->can_start = json_flag(reader, object, "can-start", false);
        take_text(reader, object, "kernel", ret->kernel, sizeof ret->kernel);
        take_text(reader, object, "daemon", ret->daemon, sizeof ret->daemon);
        ret->free_bytes = json_number_needed(reader, object, "free-bytes", -1, INT64_MAX);
        take_labels(reader, object, ret);
        take_vmm(reader, json_member(reader, object, "vmm", json_type_object, true), &ret->vmm);
        for (size_t i = 0; i < n && !reader->failed; i++) {
                take_device(reader, json_object_array_get_idx(devices, i), &ret->devices[i]);
                /* Devices pair by id: the first of that id is this one. */
                if (!reader->failed && manifest_find(ret, ret->devices[i].id) != &ret->devices[i])
                        json_fail(reader, "two devices are called \"%s\"", ret->devices[i].id);
        }
        if (!reader->failed)
                return 0;
        manifest_deinit(ret);
        return -EINVAL;
}

/* ---- findings ------------------------------------------------------------------------------------------------ */

static json_object *finding_to_json(const Finding *finding)
{
        json_object *o = json_new_object();

        json_add_string(o, "weight", finding_weight_to_string(finding->weight));
        json_add_string(o, "device", finding->device);
        json_add_string(o, "property", finding->property);
        add_text(o, "source", finding->source);
        add_text(o, "destination", finding->destination);
        json_add_string(o, "remedy", finding->remedy);
        return o;
}

void findings_to_json(const Findings *findings, json_object *array)
{
        for (FindingWeight weight = 0; weight < FINDING_MAX; weight++)
                for (uint32_t i = 0; i < findings->n; i++)
                        if (findings->items[i].weight == weight)
                                json_append(array, finding_to_json(&findings->items[i]));
}

static FindingWeight weight_of(json_object *finding)
{
        JsonReader reader = {.where = "findings"};
        const char *weight = json_string(&reader, finding, "weight", false);

        return weight ? finding_weight_from_string(weight) : FINDING_INVALID;
}

json_object *findings_json_first_refusal(json_object *array)
{
        for (size_t i = 0; i < json_object_array_length(array); i++)
                if (weight_of(json_object_array_get_idx(array, i)) == FINDING_REFUSAL)
                        return json_object_array_get_idx(array, i);
        return NULL;
}

bool findings_json_refuse_for_p2p(json_object *array)
{
        JsonReader reader = {.where = "findings"};

        for (size_t i = 0; i < json_object_array_length(array); i++) {
                json_object *o = json_object_array_get_idx(array, i);
                const char *property = json_string(&reader, o, "property", false);

                if (weight_of(o) == FINDING_REFUSAL && (!property || !finding_is_of_p2p(property)))
                        return false;
        }
        return findings_json_first_refusal(array);
}

json_object *findings_json_first(json_object *array, size_t most)
{
        json_object *first = json_new_array();

        for (FindingWeight weight = 0; weight < FINDING_MAX; weight++)
                for (size_t i = 0; i < json_object_array_length(array); i++) {
                        json_object *o = json_object_array_get_idx(array, i);

                        if (weight_of(o) == weight && json_object_array_length(first) < most)
                                json_append(first, json_object_get(o));
                }
        return first;
}

/* What is in `seen` from then on. */
static bool was_seen(json_object *seen, json_object *finding)
{
        const char *text = json_print(finding, JSON_C_TO_STRING_PLAIN);

        if (json_object_object_get_ex(seen, text, NULL))
                return true;
        json_add_bool(seen, text, true);
        return false;
}

/* Made printable; NULL: it has not the right form. */
static json_object *take_finding(json_object *in)
{
        static const char *const keys[] = {"weight", "device", "property", "source", "destination", "remedy"};
        JsonReader reader = {.where = "findings"};
        json_object *o = json_new_object();
        char text[FINDING_VALUE_MAX * 2];

        for (size_t k = 0; k < ARRAY_SIZE(keys); k++) {
                const char *value = json_string(&reader, in, keys[k], true);

                json_add_string(o, keys[k], log_printable(value ? value : "", text, sizeof text));
        }
        if (!reader.failed)
                return o;
        json_object_put(o);
        return NULL;
}

/* Those of one weight, of at most `left`, which becomes less. */
static void take_weight(json_object *from, FindingWeight weight, json_object *seen, uint32_t *left,
                        json_object *array)
{
        for (size_t i = 0; i < json_object_array_length(from) && *left > 0; i++) {
                json_object *in = json_object_array_get_idx(from, i);
                json_object *o = weight_of(in) == weight ? take_finding(in) : NULL;

                if (!o || was_seen(seen, o)) {
                        json_object_put(o);
                        continue;
                }
                json_append(array, o);
                --*left;
        }
}

void findings_take(json_object *from, json_object *array)
{
        json_object *seen;
        uint32_t left = FINDINGS_MAX;

        if (!json_object_is_type(from, json_type_array) || json_object_array_length(from) == 0)
                return;
        seen = json_new_object();
        for (size_t i = 0; i < json_object_array_length(array); i++)
                (void) was_seen(seen, json_object_array_get_idx(array, i));
        for (FindingWeight weight = 0; weight < FINDING_MAX; weight++)
                take_weight(from, weight, seen, &left, array);
        json_object_put(seen);
}

void findings_join(json_object *from, json_object *array)
{
        for (size_t i = 0; from && i < json_object_array_length(from); i++)
                json_append(array, json_object_get(json_object_array_get_idx(from, i)));
}
