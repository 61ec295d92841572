/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What daemon/core/policy-rules.h promises, said again: the keys, what a rule matches, which rule decides. */

#include <errno.h>
#include <stdio.h>

#include "daemon/core/policy-rules.h"
#include "test.h"

/* ---- keys ------------------------------------------------------------------------------------------------------ */

static size_t n_words(const PolicyKeyDesc *desc)
{
        size_t n = 0;

        while (n < ARRAY_SIZE(desc->words) && desc->words[n])
                n++;
        return n;
}

static void test_every_key_is_described_and_found_by_its_name(void **state)
{
        for (PolicyKey key = 0; key < POLICY_KEY_MAX; key++) {
                const PolicyKeyDesc *desc = policy_key(key);

                assert_non_null(desc);
                assert_true(desc->name && *desc->name && desc->help && *desc->help);
                assert_int_equal(policy_key_from_string(desc->name), key);
                if (n_words(desc) > 0) {
                        assert_true(n_words(desc) >= 2 && n_words(desc) < ARRAY_SIZE(desc->words));
                        assert_true(desc->standard < n_words(desc));
                        assert_int_equal(desc->most, 0);
                } else {
                        assert_true(desc->least <= desc->standard && desc->standard <= desc->most);
                        assert_true(desc->least < desc->most);
                }
        }
        assert_null(policy_key(POLICY_KEY_MAX));
        assert_null(policy_key(POLICY_KEY_MAX + 1));
        assert_null(policy_key(POLICY_KEY_INVALID));
        assert_null(policy_key((PolicyKey) -1));
        assert_int_equal(policy_key_from_string(""), POLICY_KEY_INVALID);
        assert_int_equal(policy_key_from_string("deadline-ms"), POLICY_KEY_INVALID);
        assert_int_equal(policy_key_from_string("P2P"), POLICY_KEY_INVALID);
}

static void test_each_phase_has_a_deadline_of_its_name(void **state)
{
        for (Phase p = 0; p < PHASE_MAX; p++) {
                char name[64];

                (void) snprintf(name, sizeof name, "deadline-ms.%s", phase_to_string(p));
                assert_int_equal(policy_key_from_string(name), POLICY_DEADLINE + (int) p);
                assert_int_equal(policy_key(POLICY_DEADLINE + (PolicyKey) p)->scope, POLICY_SCOPE_BOTH);
        }
        assert_int_equal(POLICY_DEADLINE_LAST + 1, POLICY_KEY_MAX);
}

static void test_words_are_in_the_order_of_their_enums(void **state)
{
        static const struct {
                PolicyKey key;
                uint64_t value;
                const char *word;
        } rows[] = {
                {POLICY_P2P, POLICY_P2P_REQUIRE, "require"},
                {POLICY_P2P, POLICY_P2P_ISOLATE, "isolate"},
                {POLICY_P2P, POLICY_P2P_SINGLE, "single"},
                {POLICY_P2P, POLICY_P2P_ACCEPT_RISK, "accept-risk"},
                {POLICY_NDMA, POLICY_NDMA_NONE, "none"},
                {POLICY_NDMA, POLICY_NDMA_FULL, "full"},
                {POLICY_VIOMMU_GRACE, POLICY_OFF, "off"},
                {POLICY_VIOMMU_GRACE, POLICY_AUTO, "auto"},
                {POLICY_VIOMMU_GRACE, POLICY_REQUIRE, "require"},
                {POLICY_PRECOPY, POLICY_OFF, "off"},
                {POLICY_PRECOPY, POLICY_AUTO, "auto"},
                {POLICY_PRECOPY, POLICY_REQUIRE, "require"},
                {POLICY_ON_ERROR, POLICY_ON_ERROR_RESET, "reset"},
                {POLICY_ON_ERROR, POLICY_ON_ERROR_QUARANTINE, "quarantine"},
                {POLICY_ON_ERROR, POLICY_ON_ERROR_KEEP, "keep"},
                {POLICY_ON_SOURCE_LOSS, POLICY_ON_SOURCE_LOSS_DEGRADED_RUN, "degraded-run"},
                {POLICY_ON_SOURCE_LOSS, POLICY_ON_SOURCE_LOSS_PAUSE, "pause"},
                {POLICY_AFTER_GRACE, POLICY_AFTER_GRACE_BACK, "back"},
                {POLICY_AFTER_GRACE, POLICY_AFTER_GRACE_DEGRADED, "degraded"},
                {POLICY_OPAQUE, POLICY_OPAQUE_REFUSE, "refuse"},
                {POLICY_OPAQUE, POLICY_OPAQUE_ALLOW, "allow"},
                {POLICY_SUPERVISED_GRACE, POLICY_OFF, "off"},
                {POLICY_SUPERVISED_GRACE, POLICY_AUTO, "auto"},
                {POLICY_SUPERVISED_PUSH, POLICY_OFF, "off"},
                {POLICY_SUPERVISED_PUSH, POLICY_AUTO, "auto"},
                {POLICY_SUPERVISED_LAST_ARC, POLICY_LAST_ARC_DEGRADED, "degraded"},
                {POLICY_SUPERVISED_LAST_ARC, POLICY_LAST_ARC_BACK, "back"},
        };
        size_t n_all = 0;
        char text[24];

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                policy_value_text(rows[i].key, rows[i].value, text, sizeof text);
                assert_string_equal(text, rows[i].word);
        }
        for (PolicyKey key = 0; key < POLICY_KEY_MAX; key++)
                n_all += n_words(policy_key(key));
        assert_int_equal(n_all, ARRAY_SIZE(rows)); /* none is missing above */
        policy_value_text(POLICY_RETRY, UINT64_MAX, text, sizeof text);
        assert_string_equal(text, "18446744073709551615");
        for (CompatHow how = 0; how < COMPAT_HOW_MAX; how++)
                assert_int_equal(compat_how_from_string(compat_how_to_string(how)), how);
        assert_null(compat_how_to_string(COMPAT_HOW_MAX));
        assert_int_equal(compat_how_from_string("no"), COMPAT_HOW_INVALID);
}

/* ---- a VM with one device, and rules --------------------------------------------------------------------------- */

#define RULES_MAX 80

typedef struct Rig {
        char plugins[2][FACT_KEY_MAX + 1];
        ManifestDevice device;
        Manifest vm;
        PolicyRule list[RULES_MAX];
        PolicyRules rules;
        PolicyView view;
} Rig;

static Rig *rig_new(void)
{
        Rig *rig = calloc(1, sizeof *rig);

        assert_non_null(rig);
        rig->device = (ManifestDevice){.id = "nic0",
                                       .type = DEVICE_TYPE_VFIO,
                                       .driver = "mlx5_vfio_pci",
                                       .device = "15b3:101e",
                                       .subsystem = "15b3:0058",
                                       .n_plugins = 2,
                                       .plugins = rig->plugins};
        strcpy(rig->plugins[0], "first");
        strcpy(rig->plugins[1], "pci");
        rig->vm.n_labels = 2;
        strcpy(rig->vm.labels[0].name, "tier");
        strcpy(rig->vm.labels[0].value, "gold");
        strcpy(rig->vm.labels[1].name, "site");
        strcpy(rig->vm.labels[1].value, "berlin-2");
        rig->rules.rules = rig->list;
        return rig;
}

static PolicyRule *rig_rule(Rig *rig, const PolicyMatch *match)
{
        PolicyRule *rule = &rig->list[rig->rules.n++];

        assert_true(rig->rules.n <= RULES_MAX);
        rule->match = match ? *match : (PolicyMatch){};
        return rule;
}

static void set(PolicyRule *rule, PolicyKey key, uint64_t value)
{
        rule->sets[key] = true;
        rule->values[key] = value;
}

static uint64_t rig_value(Rig *rig, PolicyKey key)
{
        policy_of_device(&rig->rules, &rig->vm, &rig->device, &rig->view);
        return rig->view.values[key];
}

static bool rig_matches(Rig *rig, const PolicyMatch *match)
{
        rig->rules.n = 0;
        memset(rig->list, 0, sizeof rig->list);
        set(rig_rule(rig, match), POLICY_RETRY, 77);
        return rig_value(rig, POLICY_RETRY) == 77;
}

/* ---- matching -------------------------------------------------------------------------------------------------- */

/* What `*` and `?` mean, as it can be said in four lines; takes for ever where there are many of the first. */
static bool means(const char *pattern, const char *text)
{
        if (*pattern == '*')
                return means(pattern + 1, text) || (*text && means(pattern, text + 1));
        if (!*pattern || !*text)
                return !*pattern && !*text;
        return (*pattern == '?' || *pattern == *text) && means(pattern + 1, text + 1);
}

/* The `n`th text of at most 4 of these characters. */
static bool nth(unsigned n, const char *characters, char ret[5])
{
        unsigned base = (unsigned) strlen(characters) + 1;
        size_t at = 0;

        for (int i = 0; i < 4; i++, n /= base)
                if (n % base > 0)
                        ret[at++] = characters[n % base - 1];
        ret[at] = 0;
        return n == 0;
}

static void test_wildcards_stand_for_any_characters_and_for_any_one(void **state)
{
        Rig *rig = rig_new();
        char pattern[5], text[5];
        unsigned n_fits = 0;

        for (unsigned p = 1; nth(p, "ab*?", pattern); p++)
                for (unsigned t = 0; *pattern && nth(t, "ab", text); t++) {
                        PolicyMatch match = {};
                        bool fits;

                        (void) snprintf(match.driver, sizeof match.driver, "%s", pattern);
                        (void) snprintf(rig->device.driver, sizeof rig->device.driver, "%s", text);
                        fits = rig_matches(rig, &match);
                        n_fits += fits;
                        if (fits != means(pattern, text))
                                print_error("%s and %s: %d\n", pattern, text, fits);
                        assert_int_equal(fits, means(pattern, text));
                }
        assert_true(n_fits > 1000);
        free(rig);
}

/* As long as they may be, and made so that whoever tries all ways never ends. */
static void test_hostile_patterns_are_answered_at_once(void **state)
{
        Rig *rig = rig_new();
        PolicyMatch match = {};

        memset(rig->device.id, 'a', DEVICE_ID_MAX);
        for (size_t i = 0; i + 1 < POLICY_PATTERN_MAX; i += 2)
                memcpy(match.id + i, "*a", 2);
        assert_true(rig_matches(rig, &match));
        match.id[POLICY_PATTERN_MAX - 1] = 'b';
        assert_false(rig_matches(rig, &match));
        rig->device.id[DEVICE_ID_MAX - 1] = 'b';
        assert_true(rig_matches(rig, &match));
        memset(match.id, '?', POLICY_PATTERN_MAX);
        assert_true(rig_matches(rig, &match));
        rig->device.id[DEVICE_ID_MAX - 1] = 0;
        assert_false(rig_matches(rig, &match));
        memset(match.id, '*', POLICY_PATTERN_MAX);
        assert_true(rig_matches(rig, &match));
        rig->device.id[0] = 0;
        assert_true(rig_matches(rig, &match));
        free(rig);
}

static const struct {
        PolicyMatch match;
        bool fits;
} matches[] = {
        {{}, true},
        {{.kind = "vfio"}, true},
        {{.kind = "vfio-user"}, false},
        {{.driver = "mlx5_vfio_pci"}, true},
        {{.driver = "mlx5_*"}, true},
        {{.driver = "mlx5_"}, false},
        {{.driver = "mlx5_vfio_pci2"}, false},
        {{.device = "15b3:101e"}, true},
        {{.device = "15b3:*"}, true},
        {{.device = "15b3:101f"}, false},
        {{.device = "8086:*"}, false},
        {{.subsystem = "15b3:0058"}, true},
        {{.subsystem = "15b3:*"}, true},
        {{.subsystem = "15b3:0059"}, false},
        {{.id = "nic0"}, true},
        {{.id = "nic?"}, true},
        {{.id = "nic"}, false},
        {{.plugin = "first"}, true},
        {{.plugin = "pci"}, true},
        {{.plugin = "pc"}, false},
        {{.plugin = "*"}, false},
        {{.label = "tier"}, true},
        {{.label = "tier", .label_value = "gold"}, true},
        {{.label = "tier", .label_value = "silver"}, false},
        {{.label = "tier", .label_value = "*"}, true},
        {{.label = "site", .label_value = "berlin-*"}, true},
        {{.label = "site", .label_value = "gold"}, false},
        {{.label = "tie?", .label_value = "gold"}, false},
        {{.label = "color"}, false},
        {{.kind = "vfio", .driver = "*", .id = "nic0", .plugin = "pci", .label = "tier"}, true},
        {{.kind = "vfio", .driver = "*", .id = "nic1", .plugin = "pci", .label = "tier"}, false},
        {{.kind = "vfio", .driver = "*", .id = "nic0", .plugin = "pci", .label = "x"}, false},
        {{.id = "nic0", .label = "tier", .label_value = "silver"}, false},
};

static void test_all_that_a_rule_names_must_fit(void **state)
{
        Rig *rig = rig_new();

        for (size_t i = 0; i < ARRAY_SIZE(matches); i++) {
                if (rig_matches(rig, &matches[i].match) != matches[i].fits)
                        print_error("row %zu\n", i);
                assert_int_equal(rig_matches(rig, &matches[i].match), matches[i].fits);
        }
        free(rig);
}

/* What is not known of a device fits nothing but `*`. */
static void test_what_is_not_known_fits_no_name(void **state)
{
        static const PolicyMatch named[] = {{.driver = "mlx5*"},     {.device = "15b3:*"},
                                            {.subsystem = "15b3:*"}, {.plugin = "first"},
                                            {.label = "tier"},       {.driver = "?*"}};
        Rig *rig = rig_new();

        rig->device = (ManifestDevice){.id = "nic0", .type = DEVICE_TYPE_VFIO};
        rig->vm.n_labels = 0;
        for (size_t i = 0; i < ARRAY_SIZE(named); i++)
                assert_false(rig_matches(rig, &named[i]));
        assert_true(rig_matches(rig, &(PolicyMatch){.driver = "*"}));
        free(rig);
}

/* ---- which one decides ----------------------------------------------------------------------------------------- */

/* In the order of their weight, heaviest first. */
static const PolicyMatch criteria[] = {
        {.id = "nic0"},       {.id = "nic*"},    {.subsystem = "15b3:0058"},  {.device = "15b3:101e"},
        {.device = "15b3:*"}, {.plugin = "pci"}, {.driver = "mlx5_vfio_pci"}, {.label = "tier"},
        {.kind = "vfio"},
};

/* `a` and what `b` names beside it. */
static PolicyMatch both(const PolicyMatch *a, const PolicyMatch *b)
{
        PolicyMatch match = *a;

        for (size_t i = 0; i < sizeof match; i++)
                ((char *) &match)[i] |= ((const char *) b)[i];
        return match;
}

static bool same_field(size_t a, size_t b)
{
        return (a < 2 && b < 2) || ((a == 3 || a == 4) && (b == 3 || b == 4));
}

static void test_one_criterion_outweighs_all_that_come_after_it_together(void **state)
{
        assert_int_equal(policy_match_weight(&(PolicyMatch){}), 0);
        for (size_t i = 0; i < ARRAY_SIZE(criteria); i++) {
                PolicyMatch rest = {};

                for (size_t k = i + 1; k < ARRAY_SIZE(criteria); k++) {
                        bool again = false;

                        for (size_t l = i + 1; l < k; l++)
                                again |= same_field(l, k);
                        if (!again)
                                rest = both(&rest, &criteria[k]);
                }
                assert_true(policy_match_weight(&criteria[i]) > policy_match_weight(&rest));
        }
}

static void test_each_criterion_more_weighs_more(void **state)
{
        for (size_t i = 0; i < ARRAY_SIZE(criteria); i++)
                for (size_t k = 0; k < ARRAY_SIZE(criteria); k++) {
                        PolicyMatch two = both(&criteria[i], &criteria[k]);

                        if (i == k || same_field(i, k))
                                continue;
                        assert_true(policy_match_weight(&two) > policy_match_weight(&criteria[i]));
                        assert_true(policy_match_weight(&two) > policy_match_weight(&criteria[k]));
                }
}

static void test_a_value_of_a_label_and_a_wildcard_in_a_driver_weigh_nothing(void **state)
{
        assert_int_equal(policy_match_weight(&(PolicyMatch){.label = "a", .label_value = "b"}),
                         policy_match_weight(&(PolicyMatch){.label = "a"}));
        assert_int_equal(policy_match_weight(&(PolicyMatch){.driver = "*"}),
                         policy_match_weight(&(PolicyMatch){.driver = "mlx5_vfio_pci"}));
}

static void test_rules_are_about_vms_unless_they_ask_for_something_of_a_device(void **state)
{
        assert_true(policy_match_is_of_vm(&(PolicyMatch){}));
        for (size_t i = 0; i < ARRAY_SIZE(criteria); i++)
                assert_int_equal(policy_match_is_of_vm(&criteria[i]), criteria[i].label[0] != 0);
}

static void test_the_most_specific_rule_decides_wherever_it_stands(void **state)
{
        for (size_t i = 0; i < ARRAY_SIZE(criteria); i++)
                for (size_t k = i + 1; k < ARRAY_SIZE(criteria); k++)
                        for (int swapped = 0; swapped < 2; swapped++) {
                                Rig *rig = rig_new();

                                set(rig_rule(rig, &criteria[swapped ? k : i]), POLICY_RETRY, swapped ? 2 : 1);
                                set(rig_rule(rig, &criteria[swapped ? i : k]), POLICY_RETRY, swapped ? 1 : 2);
                                assert_int_equal(rig_value(rig, POLICY_RETRY), 1);
                                assert_int_equal(rig->view.rules[POLICY_RETRY], swapped);
                                free(rig);
                        }
}

static void test_of_equally_specific_rules_the_later_one_decides(void **state)
{
        Rig *rig = rig_new();

        set(rig_rule(rig, &(PolicyMatch){.driver = "mlx5_vfio_pci"}), POLICY_RETRY, 1);
        set(rig_rule(rig, &(PolicyMatch){.driver = "mlx5*"}), POLICY_RETRY, 2);
        set(rig_rule(rig, NULL), POLICY_RETRY, 3);
        assert_int_equal(rig_value(rig, POLICY_RETRY), 2);
        assert_int_equal(rig->view.rules[POLICY_RETRY], 1);
        free(rig);
}

static void test_each_key_is_decided_by_itself(void **state)
{
        Rig *rig = rig_new();

        set(rig_rule(rig, &(PolicyMatch){.id = "nic0"}), POLICY_ORDER, 5);
        set(rig_rule(rig, NULL), POLICY_ORDER, 6);
        set(&rig->list[1], POLICY_RETRY, 7);
        assert_int_equal(rig_value(rig, POLICY_ORDER), 5);
        assert_int_equal(rig->view.values[POLICY_RETRY], 7);
        assert_int_equal(rig->view.rules[POLICY_ORDER], 0);
        assert_int_equal(rig->view.rules[POLICY_RETRY], 1);
        for (PolicyKey key = 0; key < POLICY_KEY_MAX; key++)
                if (key != POLICY_ORDER && key != POLICY_RETRY) {
                        assert_int_equal(rig->view.values[key], policy_key(key)->standard);
                        assert_int_equal(rig->view.rules[key], POLICY_NO_RULE);
                }
        free(rig);
}

static void test_without_rules_the_defaults_hold(void **state)
{
        Rig *rig = rig_new();

        policy_of_vm(&rig->rules, &rig->vm, &rig->view);
        for (int device = 0; device < 2; device++) {
                for (PolicyKey key = 0; key < POLICY_KEY_MAX; key++) {
                        assert_int_equal(rig->view.values[key], policy_key(key)->standard);
                        assert_int_equal(rig->view.rules[key], POLICY_NO_RULE);
                }
                assert_int_equal(rig->view.n_compat, 0);
                policy_of_device(&rig->rules, &rig->vm, &rig->device, &rig->view);
        }
        free(rig);
}

static void test_no_rule_about_devices_says_anything_of_a_vm(void **state)
{
        for (size_t i = 0; i < ARRAY_SIZE(criteria); i++) {
                bool of_vm = criteria[i].label[0];
                Rig *rig = rig_new();
                PolicyRule *rule = rig_rule(rig, &criteria[i]);

                for (PolicyKey key = 0; key < POLICY_KEY_MAX; key++)
                        set(rule, key, policy_key(key)->standard + 1);
                policy_of_vm(&rig->rules, &rig->vm, &rig->view);
                for (PolicyKey key = 0; key < POLICY_KEY_MAX; key++)
                        assert_int_equal(rig->view.rules[key], of_vm ? 0 : POLICY_NO_RULE);
                policy_of_device(&rig->rules, &rig->vm, &rig->device, &rig->view);
                for (PolicyKey key = 0; key < POLICY_KEY_MAX; key++)
                        assert_int_equal(rig->view.rules[key],
                                         of_vm || policy_key(key)->scope != POLICY_SCOPE_VM ? 0
                                                                                            : POLICY_NO_RULE);
                free(rig);
        }
}

/* ---- compatibility --------------------------------------------------------------------------------------------- */

static void compare(PolicyRule *rule, const char *fact, CompatHow how)
{
        PolicyCompat *compat = &rule->compat[rule->n_compat++];

        assert_true(rule->n_compat <= POLICY_COMPAT_MAX);
        compat->how = how;
        (void) snprintf(compat->fact, sizeof compat->fact, "%s", fact);
}

static CompatHow rig_how(Rig *rig, const char *fact, uint32_t *ret_rule)
{
        policy_of_device(&rig->rules, &rig->vm, &rig->device, &rig->view);
        for (uint32_t i = 0; i < rig->view.n_compat; i++)
                if (streq(rig->view.compat[i].fact, fact)) {
                        *ret_rule = rig->view.compat_rules[i];
                        return rig->view.compat[i].how;
                }
        return COMPAT_HOW_INVALID;
}

static void test_facts_of_all_rules_are_compared_each_as_the_most_specific_says(void **state)
{
        Rig *rig = rig_new();
        PolicyRule *of_id = rig_rule(rig, &(PolicyMatch){.id = "nic0"}), *of_all = rig_rule(rig, NULL),
                   *of_kind = rig_rule(rig, &(PolicyMatch){.kind = "vfio"}),
                   *of_other = rig_rule(rig, &(PolicyMatch){.id = "nic1"});
        uint32_t rule;

        compare(of_all, "a", COMPAT_EQUAL);
        compare(of_all, "b", COMPAT_EQUAL);
        compare(of_all, "c", COMPAT_EQUAL);
        compare(of_kind, "b", COMPAT_AT_LEAST);
        compare(of_kind, "c", COMPAT_AT_LEAST);
        compare(of_id, "c", COMPAT_IGNORE);
        compare(of_id, "d", COMPAT_IN);
        compare(of_other, "e", COMPAT_EQUAL);
        assert_int_equal(rig_how(rig, "a", &rule), COMPAT_EQUAL);
        assert_int_equal(rule, 1);
        assert_int_equal(rig_how(rig, "b", &rule), COMPAT_AT_LEAST);
        assert_int_equal(rule, 2);
        assert_int_equal(rig_how(rig, "c", &rule), COMPAT_IGNORE);
        assert_int_equal(rule, 0);
        assert_int_equal(rig_how(rig, "d", &rule), COMPAT_IN);
        assert_int_equal(rule, 0);
        assert_int_equal(rig_how(rig, "e", &rule), COMPAT_HOW_INVALID);
        assert_int_equal(rig->view.n_compat, 4);
        free(rig);
}

static void test_of_equally_specific_rules_the_later_one_says_how(void **state)
{
        Rig *rig = rig_new();
        uint32_t rule;

        compare(rig_rule(rig, NULL), "a", COMPAT_EQUAL);
        compare(rig_rule(rig, NULL), "a", COMPAT_AT_LEAST);
        compare(&rig->list[1], "b", COMPAT_EQUAL);
        assert_int_equal(rig_how(rig, "a", &rule), COMPAT_AT_LEAST);
        assert_int_equal(rule, 1);
        assert_int_equal(rig->view.n_compat, 2);
        free(rig);
}

/* The reader takes no more; should it one day, what is known already still follows the rules. */
static void test_a_view_has_room_for_64_facts(void **state)
{
        Rig *rig = rig_new();
        char fact[16];
        uint32_t rule;

        for (uint32_t i = 0; i < POLICY_FACTS_MAX + 3; i++) {
                (void) snprintf(fact, sizeof fact, "f%u", i);
                compare(rig_rule(rig, NULL), fact, COMPAT_EQUAL);
        }
        compare(rig_rule(rig, NULL), "one more", COMPAT_EQUAL);
        compare(&rig->list[rig->rules.n - 1], "f63", COMPAT_IGNORE);
        assert_int_equal(rig_how(rig, "f64", &rule), COMPAT_HOW_INVALID);
        assert_int_equal(rig->view.n_compat, POLICY_FACTS_MAX);
        assert_int_equal(rig_how(rig, "f63", &rule), COMPAT_IGNORE);
        free(rig);
}

static void test_rules_are_freed_with_all_that_they_own(void **state)
{
        PolicyRules rules = {.n = 2, .rules = calloc(2, sizeof *rules.rules)};

        assert_non_null(rules.rules);
        rules.rules[0].file = strdup("f");
        rules.rules[1].n_compat = 1;
        rules.rules[1].compat[0].choices = calloc(1, sizeof *rules.rules[1].compat[0].choices);
        policy_rules_deinit(&rules);
        assert_int_equal(rules.n, 0);
        assert_null(rules.rules);
        policy_rules_deinit(&rules);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_every_key_is_described_and_found_by_its_name),
                cmocka_unit_test(test_each_phase_has_a_deadline_of_its_name),
                cmocka_unit_test(test_words_are_in_the_order_of_their_enums),
                cmocka_unit_test(test_wildcards_stand_for_any_characters_and_for_any_one),
                cmocka_unit_test(test_hostile_patterns_are_answered_at_once),
                cmocka_unit_test(test_all_that_a_rule_names_must_fit),
                cmocka_unit_test(test_what_is_not_known_fits_no_name),
                cmocka_unit_test(test_one_criterion_outweighs_all_that_come_after_it_together),
                cmocka_unit_test(test_each_criterion_more_weighs_more),
                cmocka_unit_test(test_a_value_of_a_label_and_a_wildcard_in_a_driver_weigh_nothing),
                cmocka_unit_test(test_rules_are_about_vms_unless_they_ask_for_something_of_a_device),
                cmocka_unit_test(test_the_most_specific_rule_decides_wherever_it_stands),
                cmocka_unit_test(test_of_equally_specific_rules_the_later_one_decides),
                cmocka_unit_test(test_each_key_is_decided_by_itself),
                cmocka_unit_test(test_without_rules_the_defaults_hold),
                cmocka_unit_test(test_no_rule_about_devices_says_anything_of_a_vm),
                cmocka_unit_test(test_facts_of_all_rules_are_compared_each_as_the_most_specific_says),
                cmocka_unit_test(test_of_equally_specific_rules_the_later_one_says_how),
                cmocka_unit_test(test_a_view_has_room_for_64_facts),
                cmocka_unit_test(test_rules_are_freed_with_all_that_they_own),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
