/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A definition that is right, as text, and what each change of one member must lead to: taken, or refused with words
 * that name the place. */

#include <stdio.h>

#include "common/json.h"
#include "daemon/definition.h"
#include "test.h"

#define UUID    "01234567-89ab-cdef-0123-456789abcdef"
#define DEVICE  "{\"id\":\"nic0\",\"type\":\"vfio-user\",\"socket\":\"/run/nic0.sock\"}"
#define MISSING "" /* the member is left out */

/* The members as JSON; NULL: as they should be. */
typedef struct Members {
        const char *name, *uuid, *vmm, *devices, *more;
} Members;

static void add(char **text, const char *key, const char *value, const char *otherwise)
{
        char *longer;

        value = value ? value : otherwise;
        if (!*value)
                return;
        assert_true(asprintf(&longer, "%s%s\"%s\":%s", *text, strlen(*text) > 1 ? "," : "", key, value) > 0);
        free(*text);
        *text = longer;
}

static char *make(const Members *m)
{
        char *text = strdup("{"), *whole;

        add(&text, "name", m->name, "\"guest\"");
        add(&text, "uuid", m->uuid, "\"" UUID "\"");
        add(&text, "vmm", m->vmm, "{\"type\":\"none\"}");
        add(&text, "devices", m->devices, "[" DEVICE "]");
        assert_true(asprintf(&whole, "%s%s}", text, m->more ? m->more : "") > 0);
        free(text);
        return whole;
}

/* NULL: refused, and `error` says why. */
static Definition *parse(const char *text, size_t size, char *error)
{
        Definition *definition = NULL;
        int r;

        memset(error, 0, JSON_TEXT_MAX);
        r = definition_parse(text, size, &definition, error);
        assert_int_equal(r, definition ? 0 : -EINVAL);
        assert_int_equal(definition == NULL, error[0] != 0);
        if (!definition)
                assert_int_equal(strncmp(error, "VM definition: ", 15), 0);
        return definition;
}

static Definition *parse_members(const Members *m, char *error)
{
        char *text = make(m);
        Definition *definition = parse(text, strlen(text), error);

        free(text);
        return definition;
}

static Definition *parse_good(const Members *m)
{
        char error[JSON_TEXT_MAX];
        Definition *definition = parse_members(m, error);

        if (!definition)
                print_error("%s\n", error);
        assert_non_null(definition);
        return definition;
}

/* ---- what is right ------------------------------------------------------------------------------------------- */

static void test_a_set_of_devices_is_read(void **state)
{
        Definition *d = parse_good(&(Members){.devices = "[" DEVICE ",{\"socket\":\"/b\",\"id\":\"A.b-c_9\","
                                                         "\"type\":\"vfio-user\"}]",
                                              .more = ",\"labels\":{\"rack\":\"7\"}"});

        assert_string_equal(d->name, "guest");
        assert_string_equal(d->uuid, UUID);
        assert_int_equal(d->vmm, VMM_TYPE_NONE);
        assert_string_equal(d->monitor, "");
        assert_null(d->argv);
        assert_int_equal(d->n_devices, 2);
        assert_string_equal(d->devices[0].id, "nic0");
        assert_string_equal(d->devices[0].socket, "/run/nic0.sock");
        assert_string_equal(d->devices[1].id, "A.b-c_9");
        assert_string_equal(d->devices[1].socket, "/b");
        assert_int_equal(d->devices[1].type, DEVICE_TYPE_VFIO_USER);
        definition_free(d);
}

#define BROKERED(id, socket, broker) \
        "{\"id\":\"" id "\",\"type\":\"vfio-user\",\"socket\":\"" socket "\",\"broker\":\"" broker "\"}"

static void test_where_the_vmm_connects_is_read(void **state)
{
        Definition *d = parse_good(&(Members){.devices = "[" DEVICE "," BROKERED("b", "/s", "/b") "]"});

        assert_string_equal(d->devices[0].broker, "");
        assert_string_equal(d->devices[1].socket, "/s");
        assert_string_equal(d->devices[1].broker, "/b");
        definition_free(d);
}

#define QMP               "{\"type\":\"qmp\",\"monitor\":\"/m\"}"
#define DELEGATE          "{\"type\":\"delegate\",\"bus-name\":\"a.b\",\"object-path\":\"/\"}"
#define KERNEL(id, more)  "{\"id\":\"" id "\",\"type\":\"vfio\"" more "}"
#define BY_NAME           ",\"vmm-device\":\"v0\""
#define BY_SYSFS          ",\"sysfs\":\"/sys/bus/mdev/devices/" UUID "\""
#define BY_SYSFS_OF(path) ",\"sysfs\":\"" path "\""

static void test_who_drives_a_kernel_device_is_read(void **state)
{
        static const struct {
                const char *vmm, *device, *vmm_device, *sysfs;
                bool supervised;
        } good[] = {
                {QMP, KERNEL("gpu", BY_NAME), "v0", "", true},
                {DELEGATE, KERNEL("gpu", BY_NAME), "v0", "", false},
                {DELEGATE, KERNEL("gpu", BY_SYSFS), "", "/sys/bus/mdev/devices/" UUID, false},
                {NULL, KERNEL("gpu", BY_SYSFS_OF("/sys/bus/pci/devices/0000:01:00.0")), "",
                 "/sys/bus/pci/devices/0000:01:00.0", false},
        };

        for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
                char devices[256];
                Definition *d;

                (void) snprintf(devices, sizeof devices, "[%s," DEVICE "]", good[i].device);
                d = parse_good(&(Members){.vmm = good[i].vmm, .devices = devices});
                assert_int_equal(d->devices[0].type, DEVICE_TYPE_VFIO);
                assert_string_equal(d->devices[0].vmm_device, good[i].vmm_device);
                assert_string_equal(d->devices[0].sysfs, good[i].sysfs);
                assert_int_equal(definition_supervises(d, &d->devices[0]), good[i].supervised);
                assert_false(definition_supervises(d, &d->devices[1]));
                definition_free(d);
        }
}

static void test_a_vm_under_qemu_is_read(void **state)
{
        Definition *d = parse_good(
                &(Members){.devices = "[]",
                           .vmm = "{\"type\":\"qmp\",\"monitor\":\"/run/q.sock\",\"incoming\":{\"argv\":"
                                  "[\"/usr/bin/qemu\",\"-name\",\"a b\",\"\"]}}"});

        assert_int_equal(d->vmm, VMM_TYPE_QMP);
        assert_string_equal(d->monitor, "/run/q.sock");
        assert_string_equal(d->argv[0], "/usr/bin/qemu");
        assert_string_equal(d->argv[2], "a b");
        assert_string_equal(d->argv[3], "");
        assert_null(d->argv[4]);
        assert_int_equal(d->n_devices, 0);
        definition_free(d);

        d = parse_good(&(Members){.vmm = "{\"type\":\"qmp\",\"monitor\":\"/m\"}"});
        assert_null(d->argv); /* can go away from here, can't come in */
        definition_free(d);
}

static void test_the_text_that_is_kept_says_the_same(void **state)
{
        Definition *d = parse_good(&(Members){.more = " , \"labels\" : {\n\"a\":\"b\"}\n"}), *again;
        char error[JSON_TEXT_MAX];

        assert_null(strchr(d->text, '\n'));
        again = parse(d->text, strlen(d->text), error);
        assert_non_null(again);
        assert_string_equal(again->text, d->text);
        assert_memory_equal(again->devices, d->devices, sizeof *d->devices);
        definition_free(again);
        definition_free(d);
}

/* ---- what is wrong ------------------------------------------------------------------------------------------- */

#define ONE(id, type, socket) "[{\"id\":" id ",\"type\":" type ",\"socket\":" socket "}]"
#define ARGV(args)            "{\"type\":\"qmp\",\"monitor\":\"/m\",\"incoming\":{\"argv\":" args "}}"

static const struct {
        Members members;
        const char *expect; /* in the text */
} wrong[] = {
        {{.name = MISSING}, "\"name\" is missing"},
        {{.name = "7"}, "\"name\" is not of type string"},
        {{.name = "\"\""}, "\"name\" is empty"},
        {{.name = "\"a/b\""}, "\"name\" has a character"},
        {{.name = "\"a\\nb\""}, "\"name\" has a character"},
        {{.name = "\"\\u00e9\""}, "\"name\" has a character"},
        {{.name = "\"a\\u0000b\""}, "\"name\" has a zero byte"},
        {{.uuid = MISSING}, "\"uuid\" is missing"},
        {{.uuid = "null"}, "\"uuid\" is not of type string"},
        {{.uuid = "\"01234567-89AB-cdef-0123-456789abcdef\""}, "is no UUID in lower case"},
        {{.uuid = "\"" UUID "0\""}, "is no UUID in lower case"},
        {{.vmm = MISSING}, "\"vmm\" is missing"},
        {{.vmm = "\"none\""}, "\"vmm\" is not of type object"},
        {{.vmm = "{}"}, "\"type\" is missing"},
        {{.vmm = "{\"type\":\"xen\"}"}, "unknown type \"xen\"; known: qmp, delegate, none"},
        {{.vmm = "{\"type\":\"none\",\"monitor\":\"/m\"}"}, "unknown key \"monitor\""},
        {{.vmm = "{\"type\":\"qmp\"}"}, "\"monitor\" is missing"},
        {{.vmm = "{\"type\":\"qmp\",\"monitor\":\"m\"}"}, "\"monitor\": m... is no absolute path"},
        {{.vmm = "{\"type\":\"qmp\",\"monitor\":\"/m\",\"x\":1}"}, "unknown key \"x\""},
        {{.vmm = "{\"type\":\"qmp\",\"monitor\":\"/m\",\"incoming\":[]}"},
         "\"incoming\" is not of type object"},
        {{.vmm = "{\"type\":\"qmp\",\"monitor\":\"/m\",\"incoming\":{}}"}, "\"argv\" is missing"},
        {{.vmm = "{\"type\":\"qmp\",\"monitor\":\"/m\",\"incoming\":{\"argv\":[\"/q\"],\"env\":{}}}"},
         "unknown key \"env\""},
        {{.vmm = ARGV("[]")}, "\"argv\" has 0 members"},
        {{.vmm = ARGV("\"/q\"")}, "\"argv\" is not of type array"},
        {{.vmm = ARGV("[\"qemu\"]")}, "\"qemu\" is no absolute path"},
        {{.vmm = ARGV("[\"\"]")}, "is no absolute path"},
        {{.vmm = ARGV("[\"/q\",1]")}, "member 1 is not a string"},
        {{.vmm = ARGV("[\"/q\",null]")}, "member 1 is not a string"},
        {{.vmm = ARGV("[\"/q\",\"-drive\",\"a\\u0000b\"]")}, "member 2 has a zero byte in it"},
        {{.vmm = "{\"type\":\"delegate\"}"}, "\"bus-name\" is missing"},
        {{.vmm = "{\"type\":\"delegate\",\"bus-name\":\"a.b\"}"}, "\"object-path\" is missing"},
        {{.vmm = "{\"type\":\"delegate\",\"bus-name\":1,\"object-path\":\"/\"}"},
         "\"bus-name\" is not of type string"},
        {{.vmm = "{\"type\":\"delegate\",\"bus-name\":\"a.b\",\"object-path\":\"/\",\"monitor\":\"/m\"}"},
         "unknown key \"monitor\""},
        {{.devices = "[" KERNEL("g", "") "]"}, "needs one of \"vmm-device\" and \"sysfs\""},
        {{.devices = "[" KERNEL("g", BY_NAME BY_SYSFS) "]"}, "needs only one of"},
        {{.devices = "[" KERNEL("g", BY_NAME) "]"}, "names a device of a VMM, and there is none"},
        {{.vmm = QMP, .devices = "[" KERNEL("g", BY_SYSFS) "]"}, "QEMU drives its devices itself"},
        {{.vmm = QMP, .devices = "[" KERNEL("g", BY_NAME ",\"precopy\":\"off\"") "]"},
         "unknown key \"precopy\""},
        {{.vmm = QMP, .devices = "[" KERNEL("g", ",\"vmm-device\":\"a b\"") "]"}, "\"a b\" is not 1 to 64"},
        {{.vmm = QMP, .devices = "[" KERNEL("g", ",\"vmm-device\":7") "]"}, "is not of type string"},
        {{.vmm = QMP, .devices = "[" KERNEL("g", BY_NAME) "," KERNEL("h", BY_NAME) "]"},
         "devices \"g\" and \"h\" are the same: \"v0\""},
        {{.devices = "[" KERNEL("g", BY_SYSFS) "," KERNEL("h", BY_SYSFS) "]"},
         "devices \"g\" and \"h\" are the same: \"/sys/bus/mdev"},
        {{.devices = "[" KERNEL("g", BY_SYSFS ",\"socket\":\"/s\"") "]"}, "are for type vfio-user"},
        {{.devices = "[" KERNEL("g", BY_SYSFS ",\"broker\":\"/s\"") "]"}, "are for type vfio-user"},
        {{.devices = "[{\"id\":\"n\",\"type\":\"vfio-user\",\"socket\":\"/s\"" BY_SYSFS "}]"},
         "\"sysfs\" is for type vfio"},
        {{.devices = "[{\"id\":\"n\",\"type\":\"vfio-user\",\"socket\":\"/s\"" BY_NAME "}]"},
         "\"vmm-device\" is for type vfio"},
        {{.devices = "[" KERNEL("g", BY_SYSFS_OF("/sys/bus/mdev/devices/..")) "]"}, "is no /sys/bus/pci"},
        {{.devices = "[" KERNEL("g", BY_SYSFS_OF("/sys/bus/mdev/devices/")) "]"}, "is no /sys/bus/pci"},
        {{.devices = "[" KERNEL("g", BY_SYSFS_OF("/sys/bus/mdev/devices/a/b")) "]"}, "is no /sys/bus/pci"},
        {{.devices = "[" KERNEL("g", BY_SYSFS_OF("/sys/bus/usb/devices/a")) "]"}, "is no /sys/bus/pci"},
        {{.devices = "[" KERNEL("g", BY_SYSFS_OF("/dev/vfio/devices/vfio0")) "]"}, "is no /sys/bus/pci"},
        {{.devices = MISSING}, "\"devices\" is missing"},
        {{.devices = "{}"}, "\"devices\" is not of type array"},
        {{.devices = "[[]]"}, "is not an object"},
        {{.devices = "[null]"}, "is not an object"},
        {{.devices = "[{}]"}, "\"id\" is missing"},
        {{.devices = ONE("7", "\"vfio-user\"", "\"/s\"")}, "\"id\" is not of type string"},
        {{.devices = ONE("\"\"", "\"vfio-user\"", "\"/s\"")}, "device id \"\" is not 1 to 64"},
        {{.devices = ONE("\"a b\"", "\"vfio-user\"", "\"/s\"")}, "device id \"a b\" is not"},
        {{.devices = ONE("\"a/b\"", "\"vfio-user\"", "\"/s\"")}, "device id \"a/b\" is not"},
        {{.devices = ONE("\"a\\u0000\"", "\"vfio-user\"", "\"/s\"")}, "zero byte"},
        {{.devices = ONE("\"a\"", "\"vfio-ap\"", "\"/s\"")}, "unknown type \"vfio-ap\""},
        {{.devices = ONE("\"a\"", "null", "\"/s\"")}, "\"type\" is not of type string"},
        {{.devices = ONE("\"a\"", "\"vfio-user\"", "\"s\"")}, "\"socket\": s... is no absolute path"},
        {{.devices = ONE("\"a\"", "\"vfio-user\"", "\"\"")}, "is no absolute path"},
        {{.devices = "[{\"id\":\"a\",\"type\":\"vfio-user\"}]"}, "\"socket\" is missing"},
        {{.devices = "[" DEVICE "," DEVICE "]"}, "two devices are called \"nic0\""},
        {{.devices = "[" DEVICE ",{\"id\":\"b\",\"type\":\"vfio-user\",\"socket\":\"/run/nic0.sock\"}]"},
         "devices \"nic0\" and \"b\" have the same socket"},
        {{.devices = "[" BROKERED("a", "/s", "b") "]"}, "\"broker\": b... is no absolute path"},
        {{.devices = "[" BROKERED("a", "/s", "") "]"}, "is no absolute path"},
        {{.devices = "[" BROKERED("a", "/s", "/s") "]"}, "device \"a\": \"broker\" is its server's socket"},
        {{.devices = "[" BROKERED("a", "/s", "/b") "," BROKERED("c", "/t", "/b") "]"},
         "devices \"a\" and \"c\" have the same socket"},
        {{.devices = "[" BROKERED("a", "/s", "/b") "," BROKERED("c", "/b", "/d") "]"},
         "devices \"a\" and \"c\" have the same socket"},
        {{.devices = "[" BROKERED("a", "/s", "/b") "," BROKERED("c", "/t", "/s") "]"},
         "devices \"a\" and \"c\" have the same socket"},
        {{.devices = "[{\"id\":\"a\",\"type\":\"vfio-user\",\"socket\":\"/s\",\"broker\":7}]"},
         "\"broker\" is not of type string"},
        {{.devices = "[{\"id\":\"a\",\"type\":\"vfio-user\",\"socket\":\"/s\",\"mode\":1}]"},
         "unknown key \"mode\""},
        {{.more = ",\"device\":[]"}, "unknown key \"device\""},
        {{.more = ",\"labels\":[]"}, "\"labels\" is not of type object"},
        {{.more = ",\"labels\":{\"a\":1}"}, "label \"a\" is not a string"},
        {{.more = "}{"}, ""},
        {{.more = "\xff"}, ""},
};

static void test_what_is_wrong_is_refused_and_its_place_named(void **state)
{
        for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
                char error[JSON_TEXT_MAX];
                Definition *d = parse_members(&wrong[i].members, error);

                if (d || !strstr(error, wrong[i].expect))
                        print_error("case %zu: wanted \"%s\", got \"%s\"\n", i, wrong[i].expect, error);
                assert_null(d);
                assert_non_null(strstr(error, wrong[i].expect));
        }
}

static void test_what_is_no_object_is_no_definition(void **state)
{
        static const char *const texts[] = {"", "[]", "\"x\"", "1", "true", "null", "null\n", "{", "{}"};
        char error[JSON_TEXT_MAX];

        for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
                assert_null(parse(texts[i], strlen(texts[i]), error));
}

/* The helper says these itself; a VMM that has two, or runs at once, is a second guest. */
static void test_options_that_are_migmgrs_are_refused(void **state)
{
        static const char *const ours[] = {"-S", "-incoming", "-qmp", "-daemonize", "-loadvm"};
        static const char *const fine[] = {"S", "-s", "incoming", "-name", "-", "--", "-Sx", "defer"};
        char args[128], error[JSON_TEXT_MAX];

        for (size_t i = 0; i < ARRAY_SIZE(ours); i++)
                for (int dashes = 0; dashes < 2; dashes++) {
                        (void) snprintf(args, sizeof args, ARGV("[\"/q\",\"-m\",\"%s%s\"]"),
                                        dashes ? "-" : "", ours[i]);
                        assert_null(parse_members(&(Members){.vmm = args}, error));
                        assert_non_null(strstr(error, "leave out "));
                }
        for (size_t i = 0; i < ARRAY_SIZE(fine); i++) {
                (void) snprintf(args, sizeof args, ARGV("[\"/q\",\"%s\"]"), fine[i]);
                definition_free(parse_good(&(Members){.vmm = args}));
        }
}

/* ---- a delegate ---------------------------------------------------------------------------------------------- */

static Definition *parse_delegate(const char *name, const char *path, char *error)
{
        char vmm[1024];

        (void) snprintf(vmm, sizeof vmm, "{\"type\":\"delegate\",\"bus-name\":\"%s\",\"object-path\":\"%s\"}",
                        name, path);
        return parse_members(&(Members){.vmm = vmm}, error);
}

static void test_a_vm_behind_a_delegate_is_read(void **state)
{
        char error[JSON_TEXT_MAX];
        Definition *d = parse_delegate("org.example.vmm1", "/org/example/vmm1", error);

        assert_non_null(d);
        assert_int_equal(d->vmm, VMM_TYPE_DELEGATE);
        assert_string_equal(d->bus_name, "org.example.vmm1");
        assert_string_equal(d->object_path, "/org/example/vmm1");
        assert_string_equal(definition_place(d), "org.example.vmm1");
        definition_free(d);
}

/* The rules of the D-Bus specification; a name that the bus gives to a connection is nobody's for long. */
static void test_names_and_paths_are_those_of_dbus(void **state)
{
        static const char *const names[] = {"a.b", "a.b.c", "_a._b", "a-b.c-d", "A9.z0", "org.Example-1._2"};
        static const char *const no_names[] = {"",     "a",    ".a.b",  "a.b.",  "a..b", ":1.5",
                                               "1a.b", "a.1b", "a b.c", "a/b.c", "a.b,", "a.\\u00e9"};
        static const char *const paths[] = {"/", "/a", "/a/b", "/_/0", "/A9/z"};
        static const char *const no_paths[] = {"", "a", "//", "/a/", "/a//b", "/a-b", "/a.b", "/a b"};
        char error[JSON_TEXT_MAX];

        for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
                Definition *d = parse_delegate(names[i], "/", error);

                assert_non_null(d);
                definition_free(d);
        }
        for (size_t i = 0; i < ARRAY_SIZE(no_names); i++) {
                assert_null(parse_delegate(no_names[i], "/", error));
                assert_non_null(strstr(error, "\"bus-name\""));
        }
        for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
                Definition *d = parse_delegate("a.b", paths[i], error);

                assert_non_null(d);
                definition_free(d);
        }
        for (size_t i = 0; i < ARRAY_SIZE(no_paths); i++) {
                assert_null(parse_delegate("a.b", no_paths[i], error));
                assert_non_null(strstr(error, "\"object-path\""));
        }
}

static void test_names_and_paths_have_their_limit(void **state)
{
        char text[300], error[JSON_TEXT_MAX];

        for (size_t n = 254; n < 258; n++) {
                Definition *d;

                memset(text, 'a', n);
                text[n] = 0;
                text[1] = '.';
                d = parse_delegate(text, "/", error);
                assert_int_equal(d != NULL, n <= 255);
                definition_free(d);
                text[1] = 'a';
                text[0] = '/';
                d = parse_delegate("a.b", text, error);
                assert_int_equal(d != NULL, n <= 255);
                definition_free(d);
        }
}

/* ---- limits -------------------------------------------------------------------------------------------------- */

typedef int (*Element)(char *to, size_t i);

static int element_device(char *to, size_t i)
{
        return sprintf(to, "{\"id\":\"d%zu\",\"type\":\"vfio-user\",\"socket\":\"/s%zu\"}", i, i);
}

static int element_arg(char *to, size_t i)
{
        return sprintf(to, "\"/%zu\"", i);
}

static int element_label(char *to, size_t i)
{
        return sprintf(to, "\"l%zu\":\"\"", i);
}

/* `n` elements between `open` and `close`. */
static char *list(size_t n, const char *open, Element element, const char *close)
{
        char *text = malloc(n * 64 + 64), *end = text;

        assert_non_null(text);
        end += sprintf(end, "%s", open);
        for (size_t i = 0; i < n; i++) {
                if (i > 0)
                        *end++ = ',';
                end += element(end, i);
        }
        (void) sprintf(end, "%s", close);
        return text;
}

static void test_lists_have_their_limits(void **state)
{
        for (size_t over = 0; over < 2; over++) {
                char *devices = list(1024 + over, "[", element_device, "]");
                char *argv = list(256 + over, "{\"type\":\"qmp\",\"monitor\":\"/m\",\"incoming\":{\"argv\":[",
                                  element_arg, "]}}");
                char *labels = list(32 + over, ",\"labels\":{", element_label, "}");
                const Members cases[] = {{.devices = devices}, {.vmm = argv}, {.more = labels}};
                static const char *const expect[] = {"1025 devices; the most is 1024",
                                                     "\"argv\" has 257 members, not 1 to 256",
                                                     "more than 32 labels"};

                for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                        char error[JSON_TEXT_MAX];
                        Definition *d = parse_members(&cases[i], error);

                        assert_int_equal(d == NULL, over);
                        if (over)
                                assert_non_null(strstr(error, expect[i]));
                        definition_free(d);
                }
                free(devices);
                free(argv);
                free(labels);
        }
}

static void test_texts_have_their_limits(void **state)
{
        char x[256], name[256], id[512], socket[512];

        memset(x, 'x', sizeof x);
        for (int n = 1; n < 200; n++) {
                const struct {
                        Members members;
                        int most;
                } cases[] = {{{.name = name}, 128}, {{.devices = id}, 64}, {{.devices = socket}, 106}};

                (void) snprintf(name, sizeof name, "\"%.*s\"", n, x);
                (void) snprintf(id, sizeof id, ONE("\"%.*s\"", "\"vfio-user\"", "\"/s\""), n, x);
                (void) snprintf(socket, sizeof socket, ONE("\"a\"", "\"vfio-user\"", "\"/%.*s\""), n, x);
                for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                        char error[JSON_TEXT_MAX];
                        Definition *d = parse_members(&cases[i].members, error);

                        assert_int_equal(d != NULL, n <= cases[i].most);
                        definition_free(d);
                }
        }
}

static void test_a_definition_has_at_most_256_kib(void **state)
{
        char *good = make(&(Members){}), *text = malloc(256 * 1024 + 1), error[JSON_TEXT_MAX];
        Definition *d;

        assert_non_null(text);
        memset(text, ' ', 256 * 1024 + 1);
        memcpy(text, good, strlen(good));
        d = parse(text, 256 * 1024, error);
        assert_non_null(d);
        definition_free(d);
        assert_null(parse(text, 256 * 1024 + 1, error));
        assert_non_null(strstr(error, "longer than 262144 bytes"));
        free(text);
        free(good);
}

static void test_the_order_of_keys_makes_no_other_definition(void **state)
{
        static const char *const texts[] = {
                "{\"name\":\"a\",\"uuid\":\"4c1d6a3e-2f53-4a52-9d43-1c6f0c0f7b11\",\"vmm\":{\"type\":\"none\"},"
                "\"devices\":[{\"id\":\"x\",\"type\":\"vfio-user\",\"socket\":\"/x\"}]}",
                "{\"devices\":[{\"socket\":\"/x\",\"id\":\"x\",\"type\":\"vfio-user\"}],  \"vmm\":{\"type\":\"none\"},"
                "\"uuid\":\"4c1d6a3e-2f53-4a52-9d43-1c6f0c0f7b11\",\"name\":\"a\"}",
                "{\"name\":\"a\",\"uuid\":\"4c1d6a3e-2f53-4a52-9d43-1c6f0c0f7b11\",\"vmm\":{\"type\":\"none\"},"
                "\"devices\":[{\"id\":\"x\",\"type\":\"vfio-user\",\"socket\":\"/y\"}]}",
        };
        Definition *d[3];
        char error[JSON_TEXT_MAX];

        for (size_t i = 0; i < 3; i++)
                assert_int_equal(definition_parse(texts[i], strlen(texts[i]), &d[i], error), 0);
        assert_true(definition_equal(d[0], d[0]));
        assert_true(definition_equal(d[0], d[1]));
        assert_false(definition_equal(d[0], d[2]));
        for (size_t i = 0; i < 3; i++)
                definition_free(d[i]);
}

/* ---- labels ----------------------------------------------------------------------------------------------------- */

static void test_labels_are_kept(void **state)
{
        Definition *d = parse_good(&(Members){.more = ",\"labels\":{\"rack\":\"7\",\"tenant\":\"\"}"});

        assert_int_equal(d->n_labels, 2);
        assert_string_equal(d->labels[0].name, "rack");
        assert_string_equal(d->labels[0].value, "7");
        assert_string_equal(d->labels[1].name, "tenant");
        assert_string_equal(d->labels[1].value, "");
        definition_free(d);
}

static void test_labels_have_their_limits(void **state)
{
        static const struct {
                int name, value;
                const char *odd;
                bool good;
        } cases[] = {{FACT_KEY_MAX, FACT_VALUE_MAX, "", true},
                     {FACT_KEY_MAX + 1, 1, "", false},
                     {1, FACT_VALUE_MAX + 1, "", false},
                     {0, 1, "", false},
                     {1, 1, "\\n", false},
                     {1, 1, "\\u0000", false},
                     {1, 1, "\\u007f", false}};

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                char more[512], error[JSON_TEXT_MAX], *text;
                Definition *d;

                (void) snprintf(
                        more, sizeof more, ",\"labels\":{\"%.*s\":\"%.*s%s\"}", cases[i].name,
                        "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn", cases[i].value,
                        "vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv"
                        "vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv",
                        cases[i].odd);
                text = make(&(Members){.more = more});
                d = parse(text, strlen(text), error);
                assert_int_equal(d != NULL, cases[i].good);
                if (!d)
                        assert_non_null(strstr(error, "only characters that can be shown"));
                definition_free(d);
                free(text);
        }
}

/* ---- what QEMU will be -------------------------------------------------------------------------------------------- */

static Definition *with_argv(const char *more)
{
        char vmm[1024];

        (void) snprintf(vmm, sizeof vmm,
                        "{\"type\":\"qmp\",\"monitor\":\"/m\",\"incoming\":{\"argv\":[\"/q\"%s]}}", more);
        return parse_good(&(Members){.vmm = vmm});
}

static void test_where_qemus_device_will_be(void **state)
{
        static const struct {
                const char *argv, *sysfs;
        } cases[] = {
                {",\"-device\",\"vfio-pci,host=0000:3b:00.2,id=gpu\"", "/sys/bus/pci/devices/0000:3b:00.2"},
                {",\"--device\",\"vfio-pci,id=gpu,host=3b:00.2\"", "/sys/bus/pci/devices/0000:3b:00.2"},
                {",\"-device\",\"vfio-pci,id=a\",\"-device\",\"vfio-pci,sysfsdev=/x/"
                 "01234567-89ab-cdef-0123-456789abcdef,id=gpu\"",
                 "/sys/bus/mdev/devices/01234567-89ab-cdef-0123-456789abcdef"},
                {",\"-device\",\"{\\\"driver\\\":\\\"vfio-pci\\\",\\\"id\\\":\\\"gpu\\\",\\\"host\\\":"
                 "\\\"0000:01:00.0\\\"}\"",
                 "/sys/bus/pci/devices/0000:01:00.0"},
                {",\"-device\",\"vfio-pci,id=gpu2,host=0000:3b:00.2\"", ""},
                {",\"-device\",\"vfio-pci,id=gpu,host=../../etc\"", ""},
                {",\"-device\",\"vfio-pci,id=gpu,,x,host=0000:3b:00.2\"", ""},
                {",\"-device\",\"{not json,id=gpu\"", ""},
                {",\"-device\"", ""},
                {"", ""},
        };

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                Definition *d = with_argv(cases[i].argv);
                char sysfs[VMM_SYSFS_MAX + 1];

                definition_find_sysfs(d, "gpu", sysfs);
                assert_string_equal(sysfs, cases[i].sysfs);
                definition_free(d);
        }
}

static void test_which_machine_qemu_will_be(void **state)
{
        static const struct {
                const char *argv, *machine;
        } cases[] = {
                {",\"-M\",\"pc-q35-10.0\"", "pc-q35-10.0"},
                {",\"-machine\",\"q35,accel=kvm\"", "q35"},
                {",\"--machine\",\"accel=kvm,type=pc\"", "pc"},
                {",\"-M\",\"pc\",\"-machine\",\"accel=kvm\"", "pc"},
                {",\"-M\",\"pc\",\"-M\",\"q35\"", "q35"},
                {",\"-machine\",\"{\\\"type\\\":\\\"virt\\\"}\"", "virt"},
                {",\"-m\",\"pc\"", ""},
                {",\"-M\"", ""},
        };

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                Definition *d = with_argv(cases[i].argv);
                char machine[64];

                definition_find_machine(d, machine, sizeof machine);
                assert_string_equal(machine, cases[i].machine);
                definition_free(d);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_the_order_of_keys_makes_no_other_definition),
                cmocka_unit_test(test_a_set_of_devices_is_read),
                cmocka_unit_test(test_where_the_vmm_connects_is_read),
                cmocka_unit_test(test_who_drives_a_kernel_device_is_read),
                cmocka_unit_test(test_a_vm_under_qemu_is_read),
                cmocka_unit_test(test_the_text_that_is_kept_says_the_same),
                cmocka_unit_test(test_what_is_wrong_is_refused_and_its_place_named),
                cmocka_unit_test(test_what_is_no_object_is_no_definition),
                cmocka_unit_test(test_options_that_are_migmgrs_are_refused),
                cmocka_unit_test(test_a_vm_behind_a_delegate_is_read),
                cmocka_unit_test(test_names_and_paths_are_those_of_dbus),
                cmocka_unit_test(test_names_and_paths_have_their_limit),
                cmocka_unit_test(test_labels_are_kept),
                cmocka_unit_test(test_labels_have_their_limits),
                cmocka_unit_test(test_where_qemus_device_will_be),
                cmocka_unit_test(test_which_machine_qemu_will_be),
                cmocka_unit_test(test_lists_have_their_limits),
                cmocka_unit_test(test_texts_have_their_limits),
                cmocka_unit_test(test_a_definition_has_at_most_256_kib),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
