/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a job keeps of the rules that it began with says of its VM just what they said. */

#include <stdio.h>

#include "daemon/core/plan.h"
#include "daemon/core/record.h"
#include "daemon/policy-kept.h"
#include "test.h"

#define N 3

typedef struct Rig {
        ManifestDevice devices[N];
        Manifest vm;
        PolicyRules rules; /* as files say them */
        PolicyRules kept;
        char *text;
        char error[JSON_TEXT_MAX];
} Rig;

static void rig_init(Rig *rig, const char *rules)
{
        char description[POLICY_DESCRIPTION_MAX + 1];
        int r;

        *rig = (Rig){.devices = {{.id = "d0", .driver = "mlx5_vfio_pci", .device = "15b3:101e"},
                                 {.id = "d1", .n_plugins = 0},
                                 {.id = "A.b_c-1", .driver = "other"}},
                     .vm = {.vmm.type = VMM_TYPE_QMP, .n_labels = 1, .labels = {{"tier", "storage1"}}}};
        rig->vm.n_devices = N;
        rig->vm.devices = rig->devices;
        r = policy_read("f", rules, strlen(rules), &rig->rules, description, rig->error);
        if (r < 0)
                print_error("%s\n", rig->error);
        assert_int_equal(r, 0);
        rig->text = policy_keep(&rig->rules, &rig->vm);
        assert_int_equal(policy_kept_read(rig->text, &rig->kept, rig->error), 0);
}

static void rig_deinit(Rig *rig)
{
        policy_rules_deinit(&rig->rules);
        policy_rules_deinit(&rig->kept);
        free(rig->text);
}

/* Of what rules match by, a restarted daemon may know nothing yet but the ids. */
static void assert_same(const Rig *rig)
{
        ManifestDevice devices[N] = {};
        Manifest vm = {.vmm.type = VMM_TYPE_QMP, .n_devices = N, .devices = devices};
        PolicyView was, is;

        policy_of_vm(&rig->rules, &rig->vm, &was);
        policy_of_vm(&rig->kept, &vm, &is);
        assert_memory_equal(was.values, is.values, sizeof is.values);
        for (uint32_t i = 0; i < N; i++) {
                memcpy(devices[i].id, rig->devices[i].id, sizeof devices[i].id);
                policy_of_device(&rig->rules, &rig->vm, &rig->devices[i], &was);
                policy_of_device(&rig->kept, &vm, &devices[i], &is);
                assert_memory_equal(was.values, is.values, sizeof is.values);
        }
}

static void test_only_what_is_not_the_default_is_kept(void **state)
{
        static const struct {
                const char *rules, *kept;
        } cases[] = {
                {"[]", "[]"},
                {"[{\"set\":{\"retry\":0,\"on-error\":\"reset\",\"compat\":{\"firmware\":\"equal\"}}}]",
                 "[]"},
                {"[{\"match\":{\"id\":\"nobody\"},\"set\":{\"retry\":1}}]", "[]"},
                {"[{\"match\":{\"label\":{\"tier\":\"storage*\"}},\"set\":{\"deadline-ms\":{\"drain\":7,\"run\":8},"
                 "\"after-grace\":\"degraded\"}}]",
                 "[{\"set\":{\"after-grace\":\"degraded\",\"deadline-ms\":{\"drain\":7,\"run\":8}}}]"},
                {"[{\"match\":{\"driver\":\"mlx5*\"},\"set\":{\"on-source-loss\":\"pause\"}}]",
                 "[{\"match\":{\"id\":\"d0\"},\"set\":{\"on-source-loss\":\"pause\"}}]"},
                /* What holds for all, and not for one. */
                {"[{\"set\":{\"on-error\":\"keep\"}},{\"match\":{\"id\":\"d1\"},\"set\":{\"on-error\":\"reset\"}}]",
                 "[{\"set\":{\"on-error\":\"keep\"}},{\"match\":{\"id\":\"d1\"},\"set\":{\"on-error\":\"reset\"}}]"},
        };

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                char rules[512], kept[512];
                Rig rig;

                (void) snprintf(rules, sizeof rules, "{\"rules\":%s}", cases[i].rules);
                (void) snprintf(kept, sizeof kept, "{\"rules\":%s}", cases[i].kept);
                rig_init(&rig, rules);
                assert_string_equal(rig.text, kept);
                assert_same(&rig);
                rig_deinit(&rig);
        }
}

/* Each word, and the ends of what numbers may be: of the VM, of all devices, and of one. */
static void test_every_value_of_every_key_is_the_same_when_it_is_read(void **state)
{
        static const char *const matches[] = {"{}", "{\"label\":{\"tier\":\"*\"}}", "{\"id\":\"A.b_c-1\"}",
                                              "{\"driver\":\"*\"}"};

        for (PolicyKey key = 0; key < POLICY_KEY_MAX; key++)
                for (size_t m = 0; m < ARRAY_SIZE(matches); m++) {
                        const PolicyKeyDesc *desc = policy_key(key);
                        uint64_t numbers[] = {desc->least, desc->most, desc->least + 1};
                        size_t n = 0;

                        if (m >= 2 && desc->scope == POLICY_SCOPE_VM)
                                continue;
                        while (desc->words[0] ? n < ARRAY_SIZE(desc->words) && desc->words[n] : n < 3) {
                                char text[64], rules[256];
                                const char *dot = strchr(desc->name, '.');
                                Rig rig;

                                policy_value_text(key, desc->words[0] ? n : numbers[n], text, sizeof text);
                                (void) snprintf(
                                        rules, sizeof rules,
                                        "{\"rules\":[{\"match\":%s,\"set\":{\"%.*s\":%s%s%s%s%s%s%s}}]}",
                                        matches[m], dot ? (int) (dot - desc->name) : 60, desc->name,
                                        dot ? "{\"" : "", dot ? dot + 1 : "", dot ? "\":" : "",
                                        desc->words[0] ? "\"" : "", text, desc->words[0] ? "\"" : "",
                                        dot ? "}" : "");
                                rig_init(&rig, rules);
                                assert_same(&rig);
                                rig_deinit(&rig);
                                n++;
                        }
                }
}

static void test_a_plan_of_what_was_kept_is_the_plan(void **state)
{
        Plan plan;
        Rig rig;

        rig_init(
                &rig,
                "{\"rules\":[{\"match\":{\"driver\":\"mlx5*\"},\"set\":{\"on-source-loss\":\"pause\",\"order\":3,"
                "\"deadline-ms\":{\"drain\":90000}}},{\"set\":{\"on-error\":\"keep\",\"after-grace\":\"degraded\"}}]}");
        assert_int_equal(plan_build(&plan, &rig.vm, &rig.kept, 2), 0);
        assert_true(plan.onward);
        for (uint32_t i = 0; i < N; i++) {
                assert_int_equal(plan.devices[i].on_error, POLICY_ON_ERROR_KEEP);
                assert_int_equal(plan.devices[i].on_source_loss,
                                 i == 0 ? POLICY_ON_SOURCE_LOSS_PAUSE : POLICY_ON_SOURCE_LOSS_DEGRADED_RUN);
                assert_int_equal(plan.devices[i].order, i == 0 ? 3 : 0);
                assert_int_equal(plan.devices[i].deadline_usec[PHASE_DRAIN],
                                 (i == 0 ? 90000 : 60000) * USEC_PER_MSEC);
        }
        plan_deinit(&plan);
        rig_deinit(&rig);
}

/* All devices that a VM may have, with the longest ids, each with all that may be said of it: that must fit, too. */
static void test_the_longest_one_fits(void **state)
{
        PolicyRule *rule = calloc(2, sizeof *rule);
        PolicyRules rules = {2, rule}, kept;
        Manifest vm = {.n_devices = MANIFEST_DEVICES_MAX};
        char error[JSON_TEXT_MAX] = "", *text;
        PolicyView view;

        vm.devices = calloc(vm.n_devices, sizeof *vm.devices);
        assert_true(rule && vm.devices);
        for (uint32_t i = 0; i < vm.n_devices; i++)
                (void) snprintf(vm.devices[i].id, sizeof vm.devices[i].id, "%064u", i);
        rule[1].match.id[0] = '*';
        for (PolicyKey key = 0; key < POLICY_KEY_MAX; key++) {
                const PolicyKeyDesc *desc = policy_key(key);

                rule[0].sets[key] = true;
                rule[0].values[key] = desc->words[0] ? desc->standard ? 0 : 1 : desc->most - 1;
                rule[1].sets[key] = desc->scope != POLICY_SCOPE_VM;
                rule[1].values[key] = desc->words[0] ? desc->standard : desc->most;
        }
        text = policy_keep(&rules, &vm);
        assert_in_range(strlen(text), RECORD_POLICY_MAX / 4, RECORD_POLICY_MAX);
        assert_int_equal(policy_kept_read(text, &kept, error), 0);
        assert_int_equal(kept.n, MANIFEST_DEVICES_MAX + 1);
        policy_of_device(&kept, &vm, &vm.devices[MANIFEST_DEVICES_MAX - 1], &view);
        for (PolicyKey key = 0; key < POLICY_KEY_MAX; key++)
                assert_int_equal(view.values[key],
                                 rule[policy_key(key)->scope != POLICY_SCOPE_VM].values[key]);
        policy_rules_deinit(&kept);
        free(text);
        free(vm.devices);
        free(rule);
}

static void assert_nothing_is_taken(const char *text)
{
        char error[JSON_TEXT_MAX] = "";
        PolicyRules rules;

        memset(&rules, 0xee, sizeof rules);
        assert_int_equal(policy_kept_read(text, &rules, error), -EINVAL);
        assert_true(error[0] != 0);
        assert_int_equal(rules.n, 0);
        assert_null(rules.rules);
}

static void test_of_what_is_damaged_nothing_is_taken(void **state)
{
        static const char *const texts[] = {
                "x",
                "null",
                "[]",
                "{}",
                "\xff\xfe",
                "{\"rules\":{}}",
                "{\"rules\":[3]}",
                "{\"rules\":[{\"set\":{\"retry\":1}},{\"set\":{\"retry\":101}}]}",
                "{\"rules\":[{\"set\":{\"retry\":-1}}]}",
                "{\"rules\":[{\"set\":{\"order\":256}}]}",
                "{\"rules\":[{\"set\":{\"on-source-loss\":1}}]}",
                "{\"rules\":[{\"set\":{\"deadline-ms\":{\"drain\":0}}}]}",
                "{\"rules\":[{\"match\":{\"id\":\"d0\"},\"set\":{\"after-grace\":\"degraded\"}}]}",
                "77697ba5a4ff89130a0179f958e12fe042fef54fa12b6e59e124e9b5be88a771", /* what once stood there */
        };
        char *text = malloc(RECORD_POLICY_MAX + 2);

        for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
                assert_nothing_is_taken(texts[i]);
        assert_non_null(text);
        memset(text, ' ', RECORD_POLICY_MAX + 1);
        memcpy(text, "{\"rules\":[]}", 12);
        text[RECORD_POLICY_MAX + 1] = 0;
        assert_nothing_is_taken(text);
        memset(text, '[', RECORD_POLICY_MAX);
        text[RECORD_POLICY_MAX] = 0;
        assert_nothing_is_taken(text);
        free(text);
}

/* Cut off anywhere it is nothing; with another byte anywhere it is nothing, or something within bounds. */
static void test_no_damage_is_read_as_what_no_file_may_say(void **state)
{
        Rig rig;
        size_t size;

        rig_init(&rig, "{\"rules\":[{\"set\":{\"retry\":7,\"on-error\":\"keep\"}},{\"match\":{\"id\":\"d0\"},"
                       "\"set\":{\"order\":9,\"deadline-ms\":{\"drain\":123}}}]}");
        size = strlen(rig.text);
        for (size_t i = 0; i < size; i++) {
                char was = rig.text[i];
                PolicyRules rules;

                for (int byte = 1; byte < 256; byte++) {
                        rig.text[i] = (char) byte;
                        assert_true(policy_kept_read(rig.text, &rules, rig.error) == 0 || rules.n == 0);
                        for (uint32_t k = 0; k < rules.n; k++)
                                for (PolicyKey key = 0; key < POLICY_KEY_MAX; key++)
                                        assert_true(!rules.rules[k].sets[key] || policy_key(key)->words[0] ||
                                                    rules.rules[k].values[key] <= policy_key(key)->most);
                        policy_rules_deinit(&rules);
                }
                rig.text[i] = 0;
                if (i > 0)
                        assert_nothing_is_taken(rig.text);
                rig.text[i] = was;
        }
        rig_deinit(&rig);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_only_what_is_not_the_default_is_kept),
                cmocka_unit_test(test_every_value_of_every_key_is_the_same_when_it_is_read),
                cmocka_unit_test(test_a_plan_of_what_was_kept_is_the_plan),
                cmocka_unit_test(test_the_longest_one_fits),
                cmocka_unit_test(test_of_what_is_damaged_nothing_is_taken),
                cmocka_unit_test(test_no_damage_is_read_as_what_no_file_may_say),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
