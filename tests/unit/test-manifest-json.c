/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The other host is not trusted. The oracle for what it may send is what we send ourselves: each member of that, at any
 * depth, is taken away or replaced by something of another type, and nothing of the result may be taken. */

#include <stdio.h>
#include <time.h>

#include "daemon/manifest-json.h"
#include "test.h"

#define UUID "01234567-89ab-cdef-0123-456789abcdef"

static void fill(char *text, size_t size, char c)
{
        memset(text, c, size - 1);
        text[size - 1] = 0;
}

static void make_facts(ManifestDevice *d, uint32_t n)
{
        for (uint32_t i = 0; i < n; i++) {
                char key[FACT_KEY_MAX + 1], value[FACT_VALUE_MAX + 1];

                fill(key, sizeof key, 'k');
                fill(value, sizeof value, '\\');
                (void) snprintf(key, sizeof key, "%u", i);
                key[strlen(key)] = '.';
                assert_int_equal(manifest_add_fact(d, key, value), 0);
                assert_int_equal(manifest_add_plugin(d, key), 0);
        }
}

/* Everything as long, as many and as odd as may be. */
static void make(Manifest *m, VmmType vmm, uint32_t n_devices)
{
        assert_int_equal(manifest_init(m, n_devices), 0);
        memcpy(m->uuid, UUID, sizeof UUID);
        fill(m->name, sizeof m->name, 'n');
        m->presence = PRESENCE_HERE;
        m->can_start = true;
        fill(m->kernel, sizeof m->kernel, 'k');
        for (uint32_t i = 0; i < n_devices; i++) {
                ManifestDevice *d = &m->devices[i];

                fill(d->id, sizeof d->id, 'd');
                (void) snprintf(d->id, sizeof d->id, "%u", i);
                d->id[strlen(d->id)] = '-';
                d->migration_flags = i % 8 | (i % 2 ? DEVICE_DMA_LOGGING | DEVICE_HAS_DMA : 0) |
                                     (i % 3 ? DEVICE_SUPERVISED | DEVICE_KERNEL : 0);
                d->state = (DeviceState) (i % DEVICE_STATE_MAX);
                d->status = i % 2 ? -4095 : 0;
                fill(d->text, sizeof d->text, 't');
                fill(d->sysfs, sizeof d->sysfs, 's');
                fill(d->driver, sizeof d->driver, 'v');
                memcpy(d->device, "15b3:101e", sizeof d->device);
                if (i % 2)
                        memcpy(d->subsystem, "0123:cdef", sizeof d->subsystem);
                d->isolation = (DeviceIsolation) (i % DEVICE_ISOLATION_MAX);
                d->state_bytes = i ? INT64_MAX : 0;
                make_facts(d, n_devices > 100 ? 0 : MANIFEST_FACTS_MAX);
        }
        fill(m->daemon, sizeof m->daemon, 'd');
        m->free_bytes = INT64_MAX;
        m->n_labels = MANIFEST_LABELS_MAX;
        for (uint32_t i = 0; i < m->n_labels; i++) {
                fill(m->labels[i].name, sizeof m->labels[i].name, ' ');
                m->labels[i].name[i] = '~';
                fill(m->labels[i].value, sizeof m->labels[i].value, '"');
        }
        m->vmm.type = vmm;
        if (vmm == VMM_TYPE_NONE)
                return;
        m->vmm.status = -1;
        m->vmm.major = 1000;
        m->vmm.takes_dirty_pages = true;
        m->vmm.can_hold = true;
        fill(m->vmm.text, sizeof m->vmm.text, '1');
        fill(m->vmm.version, sizeof m->vmm.version, '2');
        fill(m->vmm.machine, sizeof m->vmm.machine, '3');
        fill(m->vmm.run_state, sizeof m->vmm.run_state, '4');
        m->vmm.n_blocked = MANIFEST_REASONS_MAX;
        m->vmm.n_vfio_user = 1;
        for (size_t i = 0; i < MANIFEST_REASONS_MAX; i++)
                fill(m->vmm.blocked[i], MANIFEST_TEXT_MAX, 'b');
        fill(m->vmm.vfio_user[0], MANIFEST_TEXT_MAX, 'v');
        m->vmm.n_silent = 1;
        fill(m->vmm.silent[0], MANIFEST_TEXT_MAX, 's');
}

static int from_json(json_object *object, Manifest *ret, char *text)
{
        JsonReader reader = {.where = "CHECK"};
        int r = manifest_from_json(&reader, object, ret);

        assert_int_equal(r < 0, reader.failed);
        assert_int_equal(r, reader.failed ? -EINVAL : 0);
        if (text)
                memcpy(text, reader.text, sizeof reader.text);
        return r;
}

/* A copy that shares nothing, by way of the text that travels. */
static json_object *resend(json_object *object)
{
        JsonReader reader = {.where = "copy"};
        const char *text = json_object_to_json_string_ext(object, JSON_C_TO_STRING_PLAIN);
        json_object *copy = json_parse(&reader, text, strlen(text));

        assert_non_null(copy);
        return copy;
}

static void assert_refused(json_object *object, const char *what)
{
        Manifest got = {};
        char text[JSON_TEXT_MAX];

        if (from_json(object, &got, text) == 0)
                print_error("taken: %s\n", what);
        assert_true(text[0] != 0);
        assert_null(got.devices);
}

/* ---- what we send is taken ----------------------------------------------------------------------------------- */

static void assert_same_device(const ManifestDevice *got, const ManifestDevice *sent)
{
        ManifestDevice copy = *got;

        assert_int_equal(got->n_facts, sent->n_facts);
        assert_int_equal(got->n_plugins, sent->n_plugins);
        assert_memory_equal(got->facts, sent->facts, sent->n_facts * sizeof *sent->facts);
        assert_memory_equal(got->plugins, sent->plugins, sent->n_plugins * sizeof *sent->plugins);
        copy.facts = sent->facts;
        copy.plugins = sent->plugins;
        assert_memory_equal(&copy, sent, sizeof copy);
}

static void test_a_manifest_comes_back_as_it_was(void **state)
{
        static const uint32_t sizes[] = {0, 1, 18, 1024};

        for (VmmType vmm = 0; vmm < VMM_TYPE_MAX; vmm++)
                for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
                        json_object *sent, *received;
                        Manifest m, got;

                        make(&m, vmm, sizes[i]);
                        sent = manifest_to_json(&m);
                        received = resend(sent);
                        assert_int_equal(from_json(received, &got, NULL), 0);
                        assert_string_equal(got.uuid, m.uuid);
                        assert_string_equal(got.name, m.name);
                        assert_int_equal(got.presence, m.presence);
                        assert_int_equal(got.can_start, m.can_start);
                        assert_memory_equal(&got.vmm, &m.vmm, sizeof m.vmm);
                        assert_int_equal(got.n_devices, m.n_devices);
                        assert_string_equal(got.kernel, m.kernel);
                        assert_string_equal(got.daemon, m.daemon);
                        assert_true(got.free_bytes == m.free_bytes);
                        assert_int_equal(got.n_labels, m.n_labels);
                        assert_memory_equal(got.labels, m.labels, sizeof m.labels);
                        for (uint32_t k = 0; k < m.n_devices; k++)
                                assert_same_device(&got.devices[k], &m.devices[k]);
                        manifest_deinit(&got);
                        manifest_deinit(&m);
                        json_object_put(received);
                        json_object_put(sent);
                }
}

static void test_foreign_text_is_made_printable_and_cut(void **state)
{
        char longer[2 * MANIFEST_TEXT_MAX];
        json_object *o, *vmm, *device;
        Manifest m, got;

        make(&m, VMM_TYPE_QMP, 1);
        o = manifest_to_json(&m);
        vmm = json_object_object_get(o, "vmm");
        device = json_object_array_get_idx(json_object_object_get(o, "devices"), 0);
        fill(longer, sizeof longer, 'x');
        json_add_string(o, "name", "a\n\x1b[2J\xc3\xa9");
        json_add_string(vmm, "run-state", longer);
        json_add_string(vmm, "text", longer);
        json_add_string(device, "text", "\r");
        json_object_array_put_idx(json_object_object_get(vmm, "blocked"), 0, json_object_new_string(longer));
        assert_int_equal(from_json(o, &got, NULL), 0);
        assert_string_equal(got.name, "a??[2J??");
        assert_int_equal(strlen(got.vmm.run_state), sizeof got.vmm.run_state - 1);
        assert_int_equal(strlen(got.vmm.text), MANIFEST_TEXT_MAX - 1);
        assert_int_equal(strlen(got.vmm.blocked[0]), MANIFEST_TEXT_MAX - 1);
        assert_string_equal(got.devices[0].text, "?");
        manifest_deinit(&got);
        manifest_deinit(&m);
        json_object_put(o);
}

static void test_lists_of_reasons_are_cut_to_their_room(void **state)
{
        json_object *o, *list;
        Manifest m, got;

        make(&m, VMM_TYPE_QMP, 0);
        o = manifest_to_json(&m);
        list = json_object_object_get(json_object_object_get(o, "vmm"), "vfio-user");
        for (int i = 0; i < 1000; i++)
                json_append(list, json_object_new_string("more"));
        assert_int_equal(from_json(o, &got, NULL), 0);
        assert_int_equal(got.vmm.n_vfio_user, MANIFEST_REASONS_MAX);
        assert_string_equal(got.vmm.vfio_user[MANIFEST_REASONS_MAX - 1], "more");
        manifest_deinit(&got);
        manifest_deinit(&m);
        json_object_put(o);
}

/* A thousand devices with all that may be known of them would go into no message. That there are plugins is said all the same. */
static void test_what_is_too_long_goes_without_facts(void **state)
{
        for (uint32_t n_facts = 2; n_facts <= 12; n_facts += 10) {
                json_object *o;
                Manifest m, got;

                make(&m, VMM_TYPE_QMP, 1024);
                for (uint32_t i = 0; i < m.n_devices; i++)
                        make_facts(&m.devices[i], n_facts);
                o = manifest_to_json(&m);
                assert_true(strlen(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN)) <=
                            MANIFEST_JSON_MAX);
                assert_int_equal(from_json(o, &got, NULL), 0);
                assert_int_equal(got.n_devices, 1024);
                assert_int_equal(got.devices[1023].n_facts, 0);
                assert_int_equal(got.devices[1023].n_plugins, n_facts > 2 ? 1 : n_facts);
                assert_string_equal(got.devices[1023].plugins[0], m.devices[1023].plugins[0]);
                assert_string_equal(got.devices[1023].text, "");
                assert_string_equal(got.devices[1023].sysfs, m.devices[1023].sysfs);
                manifest_deinit(&got);
                manifest_deinit(&m);
                json_object_put(o);
        }
}

/* ---- hostile values ------------------------------------------------------------------------------------------- */

static const struct {
        const char *at, *key, *value; /* `at`: "", "vmm" or "device" */
} hostile[] = {
        {"", "uuid", "\"\""},
        {"", "uuid", "\"01234567-89AB-cdef-0123-456789abcdef\""},
        {"", "uuid", "\"" UUID "0\""},
        {"", "presence", "\"somewhere\""},
        {"", "presence", "\"\""},
        {"vmm", "type", "\"xen\""},
        {"vmm", "type", "\"\""},
        {"vmm", "status", "1"},
        {"vmm", "status", "-4096"},
        {"vmm", "status", "-9223372036854775808"},
        {"vmm", "major", "-1"},
        {"vmm", "major", "1001"},
        {"vmm", "major", "18446744073709551615"},
        {"device", "type", "\"vfio-ap\""},
        {"device", "state", "\"sleeping\""},
        {"device", "state", "\"\""},
        {"device", "flags", "-1"},
        {"device", "flags", "8"},
        {"device", "flags", "4096"},
        {"device", "flags", "4294967297"},
        {"device", "status", "1"},
        {"device", "status", "-4096"},
        {"vmm", "viommu", "0"},
        {"", "free-bytes", "-2"},
        {"", "labels", "{\"\":\"v\"}"},
        {"", "labels", "{\"n\":\"\\n\"}"},
        {"", "labels", "{\"n\\u001b\":\"\"}"},
        {"", "labels", "{\"n\":\"a\\u0000b\"}"},
        {"", "labels", "{\"n\":1}"},
        {"device", "device", "\"15b3\""},
        {"device", "device", "\"15b3:101E\""},
        {"device", "device", "\"15b3-101e\""},
        {"device", "device", "\"15b3:101e0\""},
        {"device", "subsystem", "\":15b3101e\""},
        {"device", "isolation", "\"some\""},
        {"device", "state-bytes", "-1"},
        {"device", "facts", "{\"\":\"v\"}"},
        {"device", "facts", "{\"Key\":\"v\"}"},
        {"device", "facts", "{\"k\":\"\\t\"}"},
        {"device", "facts", "{\"k\":\"\\u00e9\"}"},
        {"device", "facts", "{\"k\":null}"},
        {"device", "plugins", "[\"\"]"},
        {"device", "plugins", "[\"a b\"]"},
        {"device", "plugins", "[7]"},
        {"device", "id", "\"a\\u0000b\""},
        {"device", "id", "\"\""},
        {"device", "id", "\"a b\""},
        {"device", "id", "\"a\\n\""},
        {"device", "id", "\"../a\""},
        {"device", "id", "\"\\u00e9\""},
        {"device", "id", "\"12345678901234567890123456789012345678901234567890123456789012345\""},
};

static json_object *place(json_object *root, const char *at)
{
        if (streq(at, "vmm"))
                return json_object_object_get(root, "vmm");
        if (streq(at, "device"))
                return json_object_array_get_idx(json_object_object_get(root, "devices"), 0);
        return root;
}

static void test_values_that_make_no_sense_are_refused(void **state)
{
        for (size_t i = 0; i < ARRAY_SIZE(hostile); i++) {
                Manifest m;
                json_object *o;

                make(&m, VMM_TYPE_QMP, 1);
                o = manifest_to_json(&m);
                json_add(place(o, hostile[i].at), hostile[i].key, json_tokener_parse(hostile[i].value));
                assert_refused(o, hostile[i].value);
                json_object_put(o);
                manifest_deinit(&m);
        }
}

static void test_more_devices_than_a_vm_may_have_are_refused(void **state)
{
        static const size_t counts[] = {1025, 1026, 100000};

        for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
                Manifest m;
                json_object *o, *devices, *one;

                make(&m, VMM_TYPE_NONE, 1);
                o = manifest_to_json(&m);
                devices = json_object_object_get(o, "devices");
                one = json_object_array_get_idx(devices, 0);
                while (json_object_array_length(devices) < counts[i])
                        json_append(devices, json_object_get(one));
                assert_refused(o, "too many devices");
                json_object_put(o);
                manifest_deinit(&m);
        }
}

static void test_more_facts_plugins_or_labels_are_refused(void **state)
{
        static const struct {
                const char *at, *key;
                uint32_t max;
        } lists[] = {{"device", "facts", MANIFEST_FACTS_MAX},
                     {"device", "plugins", MANIFEST_FACTS_MAX},
                     {"", "labels", MANIFEST_LABELS_MAX}};

        for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
                for (uint32_t over = 0; over < 2; over++) {
                        Manifest m, got = {};
                        json_object *o, *list;

                        make(&m, VMM_TYPE_NONE, 1);
                        o = manifest_to_json(&m);
                        list = json_object_object_get(place(o, lists[i].at), lists[i].key);
                        if (over && json_object_is_type(list, json_type_array))
                                json_append(list, json_object_new_string("more"));
                        else if (over)
                                json_add_string(list, "more", "");
                        assert_int_equal(from_json(o, &got, NULL), over ? -EINVAL : 0);
                        manifest_deinit(&got);
                        json_object_put(o);
                        manifest_deinit(&m);
                }
}

/* The destination has one device of that id: with the second, the source would have one more than it paired. */
static void test_two_devices_of_one_id_are_refused(void **state)
{
        for (uint32_t twin = 1; twin < 4; twin++) {
                Manifest m;
                json_object *o;

                make(&m, VMM_TYPE_NONE, 4);
                memcpy(m.devices[twin].id, m.devices[twin / 2].id, sizeof m.devices[twin].id);
                o = manifest_to_json(&m);
                assert_refused(o, "twins");
                json_object_put(o);
                manifest_deinit(&m);
        }
}

static void test_what_is_no_object_is_no_manifest(void **state)
{
        json_object *things[] = {NULL, json_object_new_array(), json_object_new_string("x"),
                                 json_object_new_int(1), json_object_new_object()};

        for (size_t i = 0; i < ARRAY_SIZE(things); i++) {
                assert_refused(things[i], "no object");
                json_object_put(things[i]);
        }
}

/* ---- every member ---------------------------------------------------------------------------------------------- */

/* Something of each type; none of them fits where another type belongs. */
static json_object *make_other(int i)
{
        switch (i) {
        case 0: return json_object_new_string("");
        case 1: return json_object_new_int(0);
        case 2: return json_object_new_boolean(false);
        case 3: return json_object_new_double(0.5);
        case 4: return json_object_new_array();
        case 5: return json_object_new_object();
        default: return NULL; /* null */
        }
}

/* Spoils the member at `key` of the object at `path`, in a fresh copy of `root`. `spoil`: -1: taken away. */
static void spoil_member(json_object *root, const char *const *path, size_t depth, const char *key, int spoil)
{
        json_object *copy = resend(root), *at = copy;
        char what[256];

        for (size_t i = 0; i < depth; i++)
                at = json_object_is_type(at, json_type_array) ? json_object_array_get_idx(at, 0)
                                                              : json_object_object_get(at, path[i]);
        (void) snprintf(what, sizeof what, "%s of %s as %d", key, depth ? path[0] : "all", spoil);
        if (json_object_is_type(at, json_type_array))
                json_object_array_put_idx(at, 0, make_other(spoil));
        else if (spoil < 0)
                json_object_object_del(at, key);
        else
                json_object_object_add(at, key, make_other(spoil));
        assert_refused(copy, what);
        json_object_put(copy);
}

/* Of these each member has the name that it likes. */
static bool is_in_map(const char *const *path, size_t depth)
{
        return depth > 0 && (streq(path[depth - 1], "facts") || streq(path[depth - 1], "labels"));
}

static void spoil_everything(json_object *root, json_object *at, const char **path, size_t depth)
{
        if (json_object_is_type(at, json_type_array)) {
                json_object *first = json_object_array_get_idx(at, 0);

                for (int i = 0; first && i <= 6; i++) {
                        json_object *other = make_other(i);

                        if (json_object_get_type(other) != json_object_get_type(first))
                                spoil_member(root, path, depth, "[0]", i);
                        json_object_put(other);
                }
                path[depth] = "[0]";
                if (first)
                        spoil_everything(root, first, path, depth + 1);
        }
        if (!json_object_is_type(at, json_type_object))
                return;
        json_object_object_foreach (at, key, value) {
                if (!is_in_map(path, depth))
                        spoil_member(root, path, depth, key, -1);
                for (int i = 0; i <= 6; i++) {
                        json_object *other = make_other(i);

                        if (json_object_get_type(other) != json_object_get_type(value))
                                spoil_member(root, path, depth, key, i);
                        json_object_put(other);
                }
                path[depth] = key;
                spoil_everything(root, value, path, depth + 1);
        }
}

static void test_every_member_is_needed_and_has_its_type(void **state)
{
        for (VmmType vmm = 0; vmm < VMM_TYPE_MAX; vmm++) {
                const char *path[JSON_DEPTH_MAX];
                Manifest m;
                json_object *o;

                make(&m, vmm, 2);
                o = manifest_to_json(&m);
                spoil_everything(o, o, path, 0);
                json_object_put(o);
                manifest_deinit(&m);
        }
}

/* ---- findings -------------------------------------------------------------------------------------------------- */

/* What refuses first, whatever was found first: of very many only the first are sent. */
static void test_findings_travel_in_order(void **state)
{
        Finding items[2] = {{FINDING_NOTICE, "", "kernel", "6.1", "", "know it"},
                            {FINDING_REFUSAL, "nic0", "flags", "a", "b", "mend it"}};
        json_object *sent = json_new_array(), *got = json_new_array(), *received;

        findings_to_json(&(Findings){2, items}, sent);
        received = resend(sent);
        findings_take(received, got);
        assert_string_equal(
                json_object_to_json_string_ext(got, JSON_C_TO_STRING_PLAIN),
                "[{\"weight\":\"refusal\",\"device\":\"nic0\",\"property\":\"flags\",\"source\":\"a\","
                "\"destination\":\"b\",\"remedy\":\"mend it\"},"
                "{\"weight\":\"notice\",\"device\":\"\",\"property\":\"kernel\",\"source\":\"6.1\","
                "\"destination\":\"\",\"remedy\":\"know it\"}]");
        assert_ptr_equal(findings_json_first_refusal(got), json_object_array_get_idx(got, 0));
        findings_take(received, got); /* the other host has found the same */
        assert_int_equal(json_object_array_length(got), 2);
        json_object_put(received);
        json_object_put(got);
        json_object_put(sent);
}

/* All that refuses is about devices that write to each other; a notice says nothing either way. */
static void test_a_refusal_for_p2p_alone_is_known_as_such(void **state)
{
        static const struct {
                FindingId ids[2];
                bool expect;
        } rows[] = {
                {{FINDING_P2P_REQUIRED, FINDING_P2P_NO_ORDER}, true},
                {{FINDING_P2P_QEMU, FINDING_P2P_RISK}, true},
                {{FINDING_P2P_NOT_SINGLE, FINDING_P2P_NOT_ISOLATED}, true},
                {{FINDING_P2P_REQUIRED, FINDING_ROOM}, false},
                {{FINDING_ROOM, FINDING_P2P_REQUIRED}, false},
                {{FINDING_P2P_RISK, FINDING_KERNEL_HANGS}, false}, /* refuses nothing */
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                json_object *array = json_new_array();
                Findings findings = {};

                for (size_t k = 0; k < 2; k++)
                        assert_int_equal(findings_add(&findings, rows[i].ids[k], "d", "x", ""), 0);
                findings_to_json(&findings, array);
                assert_int_equal(findings_json_refuse_for_p2p(array), rows[i].expect);
                findings_deinit(&findings);
                json_object_put(array);
        }
}

static void test_findings_of_another_form_are_left_out_and_text_is_made_printable(void **state)
{
        static const char text[] =
                "[1,null,[],{},"
                "{\"weight\":\"whim\",\"device\":\"\",\"property\":\"p\",\"source\":\"\","
                "\"destination\":\"\",\"remedy\":\"r\"},"
                "{\"device\":\"\",\"property\":\"p\",\"source\":\"\",\"destination\":\"\",\"remedy\":\"r\"},"
                "{\"weight\":\"refusal\",\"device\":\"\",\"property\":\"p\",\"source\":\"\",\"destination\":\"\"},"
                "{\"weight\":\"refusal\",\"device\":\"\",\"property\":7,\"source\":\"\",\"destination\":\"\",\"remedy\":\"\"},"
                "{\"weight\":\"notice\",\"device\":\"d\\n\",\"property\":\"p\",\"source\":\"\\u001b\",\"destination\":\"\",\"remedy\":\"r\","
                "\"more\":1}]";
        json_object *from = json_tokener_parse(text), *got = json_new_array();

        findings_take(from, got);
        assert_string_equal(
                json_object_to_json_string_ext(got, JSON_C_TO_STRING_PLAIN),
                "[{\"weight\":\"notice\",\"device\":\"d?\",\"property\":\"p\",\"source\":\"?\",\"destination\":\"\","
                "\"remedy\":\"r\"}]");
        assert_null(findings_json_first_refusal(got));
        findings_take(NULL, got);
        findings_take(json_object_array_get_idx(got, 0), got);
        assert_int_equal(json_object_array_length(got), 1);
        json_object_put(got);
        json_object_put(from);
}

/* Only the last of what it says tells it from others. */
static json_object *make_finding(FindingWeight weight, int n)
{
        json_object *o = json_new_object();
        char remedy[FINDING_VALUE_MAX];

        fill(remedy, sizeof remedy, 'r');
        (void) snprintf(remedy + 100, 32, "%d", n);
        json_add_string(o, "weight", finding_weight_to_string(weight));
        json_add_string(o, "device", "d");
        json_add_string(o, "property", "p");
        json_add_string(o, "source", "s");
        json_add_string(o, "destination", "t");
        json_add_string(o, "remedy", remedy);
        return o;
}

/* As many as one may send, beside as many that are known: it takes no time to see that none is said twice. */
static void test_findings_have_an_end(void **state)
{
        json_object *from = json_new_array(), *got = json_new_array();
        struct timespec begin, now;

        for (int i = 0; i < 4096; i++)
                json_append(got, make_finding(FINDING_REFUSAL, -1 - i));
        for (int i = 0; i < 5000; i++)
                json_append(from, make_finding(FINDING_REFUSAL, i));
        assert_int_equal(clock_gettime(CLOCK_MONOTONIC, &begin), 0);
        findings_take(from, got);
        assert_int_equal(clock_gettime(CLOCK_MONOTONIC, &now), 0);
        assert_in_range(now.tv_sec - begin.tv_sec, 0, 2);
        assert_int_equal(json_object_array_length(got), 2 * 4096);
        json_object_put(got);
        json_object_put(from);
}

static void test_a_finding_said_twice_is_taken_once(void **state)
{
        json_object *from = json_new_array(), *got = json_new_array();

        json_append(got, make_finding(FINDING_REFUSAL, 1));
        for (int i = 0; i < 6; i++)
                json_append(from, make_finding(FINDING_REFUSAL, i % 3));
        findings_take(from, got);
        assert_int_equal(json_object_array_length(got), 3);
        json_object_put(got);
        json_object_put(from);
}

/* However many notices are before it. */
static void test_a_refusal_is_never_cut_off(void **state)
{
        json_object *from = json_new_array(), *got = json_new_array(), *first;

        for (int i = 0; i < 5000; i++)
                json_append(from, make_finding(FINDING_NOTICE, i));
        json_append(from, make_finding(FINDING_REFUSAL, 0));
        findings_take(from, got);
        assert_int_equal(json_object_array_length(got), 4096);
        assert_non_null(findings_json_first_refusal(got));
        json_object_put(got);
        first = findings_json_first(from, 100);
        assert_int_equal(json_object_array_length(first), 100);
        assert_ptr_equal(findings_json_first_refusal(first), json_object_array_get_idx(first, 0));
        json_object_put(first);
        json_object_put(from);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_manifest_comes_back_as_it_was),
                cmocka_unit_test(test_foreign_text_is_made_printable_and_cut),
                cmocka_unit_test(test_lists_of_reasons_are_cut_to_their_room),
                cmocka_unit_test(test_what_is_too_long_goes_without_facts),
                cmocka_unit_test(test_values_that_make_no_sense_are_refused),
                cmocka_unit_test(test_more_devices_than_a_vm_may_have_are_refused),
                cmocka_unit_test(test_more_facts_plugins_or_labels_are_refused),
                cmocka_unit_test(test_two_devices_of_one_id_are_refused),
                cmocka_unit_test(test_what_is_no_object_is_no_manifest),
                cmocka_unit_test(test_every_member_is_needed_and_has_its_type),
                cmocka_unit_test(test_findings_travel_in_order),
                cmocka_unit_test(test_findings_of_another_form_are_left_out_and_text_is_made_printable),
                cmocka_unit_test(test_a_refusal_for_p2p_alone_is_known_as_such),
                cmocka_unit_test(test_findings_have_an_end),
                cmocka_unit_test(test_a_finding_said_twice_is_taken_once),
                cmocka_unit_test(test_a_refusal_is_never_cut_off),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
