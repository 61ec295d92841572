/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdio.h>

#include "daemon/policy-report.h"
#include "test.h"

static const char policy[] =
        "{\"rules\":[\n"
        "{\"set\":{\"retry\":1,\"opaque\":\"allow\",\"deadline-ms\":{\"drain\":7},\"compat\":{\"a\":\"equal\"}}},\n"
        "{\"match\":{\"id\":\"nic\"},\"set\":{\"retry\":2,\"p2p\":\"single\"}},\n"
        "{\"match\":{\"kind\":\"vfio\"},\"set\":{\"retry\":3,\"compat\":{\"a\":[\"x\",\"y\"]}}},\n"
        "{\"match\":{\"label\":{\"tier\":\"gold\"}},\"set\":{\"retry\":4}},\n"
        "{\"match\":{\"label\":{\"tier\":\"tin\"}},\"set\":{\"retry\":5}},\n"
        "{\"match\":{\"id\":\"disk\"},\"set\":{\"retry\":6,\"compat\":{\"b\":\"ignore\"}}},\n"
        "{\"match\":{\"label\":{\"tier\":\"*\"}},\"set\":{\"retry\":7}}]}";

typedef struct Rig {
        PolicyRules rules;
        Manifest vm;
        json_object *report;
} Rig;

static void rig_init(Rig *rig)
{
        char description[POLICY_DESCRIPTION_MAX + 1], error[JSON_TEXT_MAX];

        *rig = (Rig){};
        assert_int_equal(policy_read("/p/f.json", policy, strlen(policy), &rig->rules, description, error),
                         0);
        assert_int_equal(manifest_init(&rig->vm, 1), 0);
        strcpy(rig->vm.name, "web");
        strcpy(rig->vm.labels[rig->vm.n_labels].name, "tier");
        strcpy(rig->vm.labels[rig->vm.n_labels++].value, "gold");
        strcpy(rig->vm.devices[0].id, "nic");
        strcpy(rig->vm.devices[0].driver, "mlx5_vfio_pci");
        rig->vm.devices[0].type = DEVICE_TYPE_VFIO;
}

static void rig_deinit(Rig *rig)
{
        json_object_put(rig->report);
        policy_rules_deinit(&rig->rules);
        manifest_deinit(&rig->vm);
}

static void rig_explain(Rig *rig, bool device)
{
        json_object_put(rig->report);
        rig->report = policy_report_explain(&rig->rules, &rig->vm, device ? &rig->vm.devices[0] : NULL);
}

/* What is said of a key, or of a fact. NULL: nothing. */
static json_object *said(Rig *rig, const char *list, const char *by, const char *name)
{
        json_object *all, *value;

        assert_true(json_object_object_get_ex(rig->report, list, &all));
        for (size_t i = 0; i < json_object_array_length(all); i++) {
                json_object *one = json_object_array_get_idx(all, i);

                assert_true(json_object_object_get_ex(one, by, &value));
                if (streq(json_object_get_string(value), name))
                        return one;
        }
        return NULL;
}

static void assert_said(json_object *one, const char *expect)
{
        json_object *copy = NULL;

        assert_non_null(one);
        assert_int_equal(json_object_deep_copy(one, &copy, NULL), 0);
        json_object_object_del(copy, "help");
        assert_string_equal(json_object_to_json_string_ext(copy, JSON_C_TO_STRING_NOSLASHESCAPE), expect);
        json_object_put(copy);
}

static void test_a_key_is_explained_by_the_rule_that_decides_and_those_that_are_weaker(void **state)
{
        Rig rig;

        rig_init(&rig);
        rig_explain(&rig, true);
        assert_said(
                said(&rig, "keys", "key", "retry"),
                "{\"key\":\"retry\",\"value\":2,\"file\":\"/p/f.json\",\"line\":3,\"default\":0,\"weaker\":["
                "{\"value\":7,\"file\":\"/p/f.json\",\"line\":8},{\"value\":4,\"file\":\"/p/f.json\",\"line\":5},{\"value\":3,\"file\":\"/p/f.json\",\"line\":4},"
                "{\"value\":1,\"file\":\"/p/f.json\",\"line\":2}]}");
        assert_said(
                said(&rig, "keys", "key", "p2p"),
                "{\"key\":\"p2p\",\"value\":\"single\",\"file\":\"/p/f.json\",\"line\":3,\"default\":\"require\","
                "\"weaker\":[]}");
        assert_said(said(&rig, "keys", "key", "order"),
                    "{\"key\":\"order\",\"value\":0,\"file\":\"\",\"line\":0,\"default\":0,\"weaker\":[]}");
        assert_said(
                said(&rig, "compat", "fact", "a"),
                "{\"fact\":\"a\",\"how\":\"in\",\"values\":[\"x\",\"y\"],\"file\":\"/p/f.json\",\"line\":4,\"weaker\":["
                "{\"how\":\"equal\",\"values\":[],\"file\":\"/p/f.json\",\"line\":2}]}");
        assert_null(said(&rig, "compat", "fact", "b"));
        rig_deinit(&rig);
}

static void test_a_vm_is_explained_by_rules_about_vms(void **state)
{
        json_object *compat;
        Rig rig;

        rig_init(&rig);
        rig_explain(&rig, false);
        assert_said(
                said(&rig, "keys", "key", "opaque"),
                "{\"key\":\"opaque\",\"value\":\"allow\",\"file\":\"/p/f.json\",\"line\":2,\"default\":\"refuse\","
                "\"weaker\":[]}");
        assert_said(
                said(&rig, "keys", "key", "deadline-ms.drain"),
                "{\"key\":\"deadline-ms.drain\",\"value\":7,\"file\":\"/p/f.json\",\"line\":2,\"default\":60000,"
                "\"weaker\":[]}");
        assert_true(json_object_object_get_ex(rig.report, "compat", &compat));
        assert_int_equal(json_object_array_length(compat), 0);
        rig_deinit(&rig);
}

static void test_all_keys_that_are_about_it_are_there_and_no_others(void **state)
{
        Rig rig;

        rig_init(&rig);
        for (int device = 0; device < 2; device++) {
                rig_explain(&rig, device);
                for (PolicyKey key = 0; key < POLICY_KEY_MAX; key++) {
                        PolicyScope scope = policy_key(key)->scope;
                        bool is_about = scope == POLICY_SCOPE_BOTH ||
                                        scope == (device ? POLICY_SCOPE_DEVICE : POLICY_SCOPE_VM);

                        assert_int_equal(!said(&rig, "keys", "key", policy_key(key)->name), !is_about);
                }
        }
        rig_deinit(&rig);
}

static void test_what_is_known_is_told(void **state)
{
        json_object *known;
        Rig rig;

        rig_init(&rig);
        assert_int_equal(manifest_add_plugin(&rig.vm.devices[0], "pci"), 0);
        rig_explain(&rig, true);
        assert_true(json_object_object_get_ex(rig.report, "known", &known));
        assert_string_equal(
                json_object_to_json_string_ext(known, JSON_C_TO_STRING_PLAIN),
                "{\"label\":{\"tier\":\"gold\"},\"id\":\"nic\",\"kind\":\"vfio\","
                "\"driver\":\"mlx5_vfio_pci\",\"device\":\"\",\"subsystem\":\"\",\"plugin\":[\"pci\"]}");
        rig_explain(&rig, false);
        assert_true(json_object_object_get_ex(rig.report, "known", &known));
        assert_string_equal(json_object_to_json_string_ext(known, JSON_C_TO_STRING_PLAIN),
                            "{\"label\":{\"tier\":\"gold\"},\"plugin\":[]}");
        rig_deinit(&rig);
}

static void test_files_are_listed_as_they_are(void **state)
{
        char a[] = "a", a_path[] = "/etc/a.json", a_other[] = "/usr/a.json", b[] = "b",
             b_path[] = "/usr/b.json";
        PolicyFile list[] = {{.name = a, .path = a_path, .overrides = a_other, .n_rules = 3},
                             {.name = b, .path = b_path, .description = "what"}};
        PolicyFiles files = {.n = 2, .files = list};
        json_object *report = policy_report_list(&files);

        assert_string_equal(json_object_to_json_string_ext(report, JSON_C_TO_STRING_NOSLASHESCAPE),
                            "[{\"name\":\"a\",\"path\":\"/etc/a.json\",\"overrides\":\"/usr/a.json\","
                            "\"description\":\"\",\"rules\":3},{\"name\":\"b\",\"path\":\"/usr/b.json\","
                            "\"overrides\":\"\",\"description\":\"what\",\"rules\":0}]");
        json_object_put(report);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_key_is_explained_by_the_rule_that_decides_and_those_that_are_weaker),
                cmocka_unit_test(test_a_vm_is_explained_by_rules_about_vms),
                cmocka_unit_test(test_all_keys_that_are_about_it_are_there_and_no_others),
                cmocka_unit_test(test_what_is_known_is_told),
                cmocka_unit_test(test_files_are_listed_as_they_are),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
