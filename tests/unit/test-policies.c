/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The policy files that are shipped: each says what the tables here say and no more, and each key of each changes what
 * holds. And their JSON schema, which says the same as the table of keys. */

#include <stdio.h>

#include "common/file.h"
#include "daemon/policy-reader.h"
#include "test.h"

static char *path_of(const char *name, char ret[512])
{
        const char *top = getenv("top_srcdir");

        (void) snprintf(ret, 512, "%s/policies/%s", top ? top : ".", name);
        return ret;
}

static char *read_policy(const char *name, size_t *ret_size)
{
        char path[512], *text = NULL;

        if (file_read(path_of(name, path), POLICY_TEXT_MAX, &text, ret_size) < 0)
                print_error("%s: can't be read\n", path);
        assert_non_null(text);
        return text;
}

/* ---- what each file is about ----------------------------------------------------------------------------------- */

static const ManifestDevice devices[] = {
        {.id = "d", .type = DEVICE_TYPE_VFIO_USER},
        {.id = "d", .type = DEVICE_TYPE_VFIO, .driver = "mlx5_vfio_pci", .device = "15b3:101e"},
        {.id = "d", .type = DEVICE_TYPE_VFIO, .driver = "qat_vfio_pci", .device = "8086:4941"},
        {.id = "d", .type = DEVICE_TYPE_VFIO, .driver = "hisi_acc_vfio_pci", .device = "19e5:a22f"},
        {.id = "d", .type = DEVICE_TYPE_VFIO, .driver = "virtio_vfio_pci", .device = "1af4:1041"},
        {.id = "d", .type = DEVICE_TYPE_VFIO, .device = "10de:2336"},
        {.id = "d", .type = DEVICE_TYPE_VFIO, .driver = "mtty"},
        {.id = "d", .type = DEVICE_TYPE_VFIO_USER, .device = "4e58:0001"},
};

enum { ANY, MLX5, QAT, HISI, VIRTIO, NVIDIA, MTTY, NVME };

static const struct {
        const char *file;
        int device;
        const char *key; /* or the fact that is compared */
        const char *value;
        bool strict; /* of a VM with that label */
} rows[] = {
        {"hisi-acc.json", HISI, "p2p", "single"},
        {"mlx5-vf.json", MLX5, "p2p", "require"},
        {"mlx5-vf.json", MLX5, "firmware", "equal"},
        {"mlx5-vf.json", MLX5, "board", "equal"},
        {"mtty.json", MTTY, "p2p", "require"},
        {"mtty.json", MTTY, "mtty.type", "equal"},
        {"mtty.json", MTTY, "mtty.state-version", "equal"},
        {"nvidia-vgpu.json", NVIDIA, "p2p", "require"},
        {"nvidia-vgpu.json", NVIDIA, "deadline-ms.drain", "500000"},
        {"nvme-vfio-user.json", NVME, "p2p", "single"},
        {"qat-vf.json", QAT, "p2p", "require"},
        {"virtio-vf.json", VIRTIO, "precopy", "auto"},
        {"strict.json", ANY, "opaque", "refuse", true},
        {"strict.json", ANY, "after-grace", "back", true},
        {"strict.json", ANY, "supervised-last-arc", "back", true},
        {"strict.json", HISI, "p2p", "require", true},
        {"strict.json", MLX5, "ndma", "none", true},
        {"strict.json", NVME, "retry", "0", true},
        {"strict.json", ANY, "on-error", "quarantine", true},
        {"strict.json", ANY, "on-source-loss", "pause", true},
};

static const char *const files[] = {"default.json", "hisi-acc.json",    "mlx5-vf.json",
                                    "mtty.json",    "nvidia-vgpu.json", "nvme-vfio-user.json",
                                    "qat-vf.json",  "strict.json",      "virtio-vf.json"};

typedef struct Rig {
        PolicyRules rules;
        char plugin[1][FACT_KEY_MAX + 1];
        ManifestDevice device;
        Manifest vm;
        PolicyView view;
} Rig;

static void rig_read(Rig *rig, const char *name)
{
        char description[POLICY_DESCRIPTION_MAX + 1], error[JSON_TEXT_MAX] = "";
        size_t size;
        char *text = read_policy(name, &size);

        if (policy_read(name, text, size, &rig->rules, description, error) < 0)
                print_error("%s\n", error);
        assert_string_equal(error, "");
        assert_true(description[0]);
        free(text);
}

/* For all, each key has a value that no file gives it. */
static void rig_contradict(Rig *rig)
{
        static const char text[] = "{\"rules\":[{\"set\":{}}]}";
        char description[POLICY_DESCRIPTION_MAX + 1], error[JSON_TEXT_MAX];
        PolicyRule *rule;

        assert_int_equal(policy_read("contrary", text, strlen(text), &rig->rules, description, error), 0);
        rule = &rig->rules.rules[rig->rules.n - 1];
        for (PolicyKey key = 0; key < POLICY_KEY_MAX; key++) {
                rule->sets[key] = true;
                rule->values[key] = 3333;
        }
}

static Rig *rig_new(const ManifestDevice *device, bool strict)
{
        Rig *rig = calloc(1, sizeof *rig);

        assert_non_null(rig);
        rig->device = *device;
        rig->device.plugins = rig->plugin;
        if (streq(device->driver, "mtty")) {
                rig->device.n_plugins = 1;
                strcpy(rig->plugin[0], "mtty");
        }
        if (strict) {
                rig->vm.n_labels = 1;
                strcpy(rig->vm.labels[0].name, "migmgr.policy");
                strcpy(rig->vm.labels[0].value, "strict");
        }
        return rig;
}

static void rig_free(Rig *rig)
{
        policy_rules_deinit(&rig->rules);
        free(rig);
}

/* What holds for a key, as text, and which file says so. */
static const char *rig_value(Rig *rig, const char *name, char ret[24])
{
        PolicyKey key = policy_key_from_string(name);
        uint32_t rule = POLICY_NO_RULE;

        policy_of_device(&rig->rules, &rig->vm, &rig->device, &rig->view);
        (void) snprintf(ret, 24, "nothing");
        if (key != POLICY_KEY_INVALID) {
                if (rig->view.values[key] == 3333)
                        (void) snprintf(ret, 24, "the contrary");
                else
                        policy_value_text(key, rig->view.values[key], ret, 24);
                rule = rig->view.rules[key];
        }
        for (uint32_t i = 0; key == POLICY_KEY_INVALID && i < rig->view.n_compat; i++)
                if (streq(rig->view.compat[i].fact, name)) {
                        (void) snprintf(ret, 24, "%s", compat_how_to_string(rig->view.compat[i].how));
                        rule = rig->view.compat_rules[i];
                }
        return rule == POLICY_NO_RULE ? "" : rig->rules.rules[rule].file;
}

/* Takes a key out of all rules of that file. */
static void rig_forget(Rig *rig, const char *file, const char *name)
{
        PolicyKey key = policy_key_from_string(name);

        for (uint32_t i = 0; i < rig->rules.n; i++) {
                PolicyRule *rule = &rig->rules.rules[i];

                if (!streq(rule->file, file))
                        continue;
                if (key != POLICY_KEY_INVALID)
                        rule->sets[key] = false;
                for (uint32_t k = 0; k < rule->n_compat; k++)
                        if (streq(rule->compat[k].fact, name))
                                rule->compat[k].fact[0] = 0;
        }
}

static void test_each_key_of_each_file_changes_what_holds(void **state)
{
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                Rig *rig = rig_new(&devices[rows[i].device], rows[i].strict);
                char value[24];

                rig_contradict(rig);
                rig_read(rig, rows[i].file);
                assert_string_equal(rig_value(rig, rows[i].key, value), rows[i].file);
                assert_string_equal(value, rows[i].value);
                rig_forget(rig, rows[i].file, rows[i].key);
                (void) rig_value(rig, rows[i].key, value);
                assert_string_not_equal(value, rows[i].value);
                rig_free(rig);
        }
}

static void test_it_holds_beside_all_the_others(void **state)
{
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                Rig *rig = rig_new(&devices[rows[i].device], rows[i].strict);
                char value[24];

                for (size_t k = 0; k < ARRAY_SIZE(files); k++)
                        rig_read(rig, files[k]);
                assert_string_equal(rig_value(rig, rows[i].key, value), rows[i].file);
                assert_string_equal(value, rows[i].value);
                rig_free(rig);
        }
}

/* Each key that a file sets has a row, so that none is there that nobody has looked at. */
static void test_no_file_says_more_than_the_table_here(void **state)
{
        for (size_t f = 1; f < ARRAY_SIZE(files); f++) {
                Rig *rig = rig_new(&devices[ANY], false);
                uint32_t n_set = 0, n_rows = 0;

                rig_read(rig, files[f]);
                for (uint32_t i = 0; i < rig->rules.n; i++) {
                        for (PolicyKey key = 0; key < POLICY_KEY_MAX; key++)
                                n_set += rig->rules.rules[i].sets[key];
                        n_set += rig->rules.rules[i].n_compat;
                }
                for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
                        n_rows += streq(rows[i].file, files[f]);
                assert_int_equal(n_set, n_rows);
                assert_true(n_rows > 0);
                rig_free(rig);
        }
}

/* None but default.json is about a device or a VM that it does not name. */
static void test_other_devices_are_left_alone(void **state)
{
        for (size_t i = 0; i < ARRAY_SIZE(devices); i++)
                for (size_t f = 1; f < ARRAY_SIZE(files); f++) {
                        Rig *rig = rig_new(&devices[i], false);
                        bool named = false;

                        for (size_t r = 0; r < ARRAY_SIZE(rows); r++)
                                named |= !rows[r].strict && rows[r].device == (int) i &&
                                         streq(rows[r].file, files[f]);
                        rig_read(rig, files[f]);
                        for (uint32_t r = 0; r < rig->rules.n; r++)
                                assert_int_equal(
                                        policy_match_fits(&rig->rules.rules[r].match, &rig->vm, &rig->device),
                                        named);
                        rig_free(rig);
                }
}

static void test_default_is_what_is_built_in_and_each_key_of_it_counts(void **state)
{
        for (PolicyKey key = 0; key < POLICY_KEY_MAX; key++) {
                Rig *rig = rig_new(&devices[ANY], false);
                char value[24], expect[24];

                rig_contradict(rig);
                rig_read(rig, "default.json");
                policy_value_text(key, policy_key(key)->standard, expect, sizeof expect);
                assert_string_equal(rig_value(rig, policy_key(key)->name, value), "default.json");
                assert_string_equal(value, expect);
                rig_forget(rig, "default.json", policy_key(key)->name);
                (void) rig_value(rig, policy_key(key)->name, value);
                assert_string_equal(value, "the contrary");
                rig_free(rig);
        }
}

/* ---- the schema ------------------------------------------------------------------------------------------------ */

static json_object *follow(json_object *from, const char *path)
{
        char key[64];

        while (*path) {
                size_t n = strcspn(path, "/");
                json_object *next = NULL;

                memcpy(key, path, n);
                key[n] = 0;
                path += n + (path[n] == '/');
                if (!json_object_object_get_ex(from, key, &next))
                        return NULL;
                from = next;
        }
        return from;
}

static int64_t number_of(json_object *from, const char *key)
{
        json_object *value = follow(from, key);

        assert_true(json_object_is_type(value, json_type_int));
        return json_object_get_int64(value);
}

static void assert_key(json_object *of, const PolicyKeyDesc *desc)
{
        json_object *words = follow(of, "enum");

        assert_non_null(of);
        assert_string_equal(json_object_get_string(follow(of, "description")), desc->help);
        for (size_t i = 0; desc->words[0] && i < ARRAY_SIZE(desc->words); i++) {
                json_object *word = json_object_array_get_idx(words, i);

                assert_int_equal(!word, !desc->words[i]);
                if (word)
                        assert_string_equal(json_object_get_string(word), desc->words[i]);
        }
        if (desc->words[0])
                return;
        assert_null(words);
        assert_string_equal(json_object_get_string(follow(of, "type")), "integer");
        assert_int_equal(number_of(of, "minimum"), desc->least);
        assert_int_equal(number_of(of, "maximum"), desc->most);
}

static json_object *read_schema(void)
{
        JsonReader reader = {.where = "schema"};
        json_object *schema;
        size_t size;
        char *text = read_policy("policy.schema.json", &size);

        schema = json_parse(&reader, text, size);
        assert_string_equal(reader.text, "");
        free(text);
        return schema;
}

static void test_the_schema_has_each_key_with_its_words_and_bounds(void **state)
{
        json_object *schema = read_schema(), *set = follow(schema, "$defs/set/properties");
        json_object *of_vm = follow(schema, "$defs/rule/then/properties/set/properties");
        int n_keys = 0, n_of_vm = 0;

        for (PolicyKey key = 0; key < POLICY_KEY_MAX; key++) {
                const PolicyKeyDesc *desc = policy_key(key);
                const char *dot = strchr(desc->name, '.');
                char path[128];

                (void) snprintf(path, sizeof path, "%.*s%s%s", dot ? (int) (dot - desc->name) : 64,
                                desc->name, dot ? "/properties/" : "", dot ? dot + 1 : "");
                assert_key(follow(set, path), desc);
                if (desc->scope == POLICY_SCOPE_VM) {
                        json_object *refused = NULL;

                        n_of_vm++;
                        assert_true(json_object_object_get_ex(of_vm, desc->name, &refused));
                        assert_true(json_object_is_type(refused, json_type_boolean) &&
                                    !json_object_get_boolean(refused));
                }
        }
        json_object_object_foreach (set, name, value) {
                json_object *members = follow(value, "properties");

                if (!streq(name, "compat"))
                        n_keys += members ? json_object_object_length(members) : 1;
        }
        assert_int_equal(n_keys, POLICY_KEY_MAX);
        assert_int_equal(n_of_vm, json_object_object_length(of_vm));
        json_object_put(schema);
}

static void test_the_schema_has_the_bounds_of_the_reader(void **state)
{
        json_object *schema = read_schema(), *compat = follow(schema, "$defs/set/properties/compat");
        json_object *match = follow(schema, "$defs/match/properties"), *kinds;

        assert_int_equal(number_of(schema, "properties/rules/maxItems"), POLICY_RULES_MAX);
        assert_int_equal(number_of(schema, "properties/description/maxLength"), POLICY_DESCRIPTION_MAX);
        assert_int_equal(number_of(compat, "maxProperties"), POLICY_COMPAT_MAX);
        assert_int_equal(number_of(match, "driver/maxLength"), POLICY_PATTERN_MAX);
        assert_int_equal(number_of(match, "id/maxLength"), POLICY_PATTERN_MAX);
        assert_int_equal(number_of(match, "plugin/maxLength"), POLICY_PATTERN_MAX);
        assert_int_equal(number_of(match, "label/propertyNames/maxLength"), FACT_KEY_MAX);
        kinds = follow(match, "kind/enum");
        assert_int_equal(json_object_array_length(kinds), DEVICE_TYPE_MAX);
        for (size_t i = 0; i < DEVICE_TYPE_MAX; i++)
                assert_true((int) device_type_from_string(
                                    json_object_get_string(json_object_array_get_idx(kinds, i))) >= 0);
        json_object_put(schema);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_each_key_of_each_file_changes_what_holds),
                cmocka_unit_test(test_it_holds_beside_all_the_others),
                cmocka_unit_test(test_no_file_says_more_than_the_table_here),
                cmocka_unit_test(test_other_devices_are_left_alone),
                cmocka_unit_test(test_default_is_what_is_built_in_and_each_key_of_it_counts),
                cmocka_unit_test(test_the_schema_has_each_key_with_its_words_and_bounds),
                cmocka_unit_test(test_the_schema_has_the_bounds_of_the_reader),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
