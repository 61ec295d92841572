/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>
#include <stdio.h>

#include "daemon/policy-reader.h"
#include "test.h"

typedef struct Rig {
        PolicyRules rules;
        char description[POLICY_DESCRIPTION_MAX + 1];
        char error[JSON_TEXT_MAX];
} Rig;

static int rig_read(Rig *rig, const char *text)
{
        int r;

        policy_rules_deinit(&rig->rules);
        rig->error[0] = 0;
        r = policy_read("f.json", text, strlen(text), &rig->rules, rig->description, rig->error);
        assert_int_equal(r, rig->error[0] ? -EINVAL : 0);
        return r;
}

/* The rule of a file that has one, with that `set`. */
static const PolicyRule *rig_set(Rig *rig, const char *set)
{
        char text[1024];

        (void) snprintf(text, sizeof text, "{\"rules\":[{\"set\":%s}]}", set);
        if (rig_read(rig, text) < 0)
                print_error("%s: %s\n", text, rig->error);
        assert_string_equal(rig->error, "");
        assert_int_equal(rig->rules.n, 1);
        return &rig->rules.rules[0];
}

/* As a file has it: {"deadline-ms":{"drain":5}}, {"p2p":"require"} */
static void write_set(PolicyKey key, const char *value, char *ret, size_t size)
{
        const char *name = policy_key(key)->name, *dot = strchr(name, '.');

        if (dot)
                (void) snprintf(ret, size, "{\"%.*s\":{\"%s\":%s}}", (int) (dot - name), name, dot + 1,
                                value);
        else
                (void) snprintf(ret, size, "{\"%s\":%s}", name, value);
}

static void assert_sets(Rig *rig, PolicyKey key, const char *text, uint64_t value)
{
        char set[128];
        const PolicyRule *rule;

        write_set(key, text, set, sizeof set);
        rule = rig_set(rig, set);
        for (PolicyKey k = 0; k < POLICY_KEY_MAX; k++)
                assert_int_equal(rule->sets[k], k == key);
        assert_int_equal(rule->values[key], value);
}

static void assert_refuses(Rig *rig, const char *text, const char *expect)
{
        if (rig_read(rig, text) == 0 || !strstr(rig->error, expect))
                print_error("%s\n  \"%s\"\n  is not  \"%s\"\n", text, rig->error, expect);
        assert_non_null(strstr(rig->error, expect));
        assert_int_equal(strncmp(rig->error, "f.json:", 7), 0);
}

/* ---- keys ------------------------------------------------------------------------------------------------------ */

static void test_every_key_takes_each_word_or_number_that_it_may_have_and_no_other(void **state)
{
        Rig rig = {};

        for (PolicyKey key = 0; key < POLICY_KEY_MAX; key++) {
                const PolicyKeyDesc *desc = policy_key(key);
                char text[64], set[128], file[256], expect[128];
                static const char *const wrong[] = {"\"no such word\"", "1.5", "true", "null", "[1]", "-1"};

                if (desc->words[0]) {
                        for (uint64_t i = 0; i < ARRAY_SIZE(desc->words) && desc->words[i]; i++) {
                                (void) snprintf(text, sizeof text, "\"%s\"", desc->words[i]);
                                assert_sets(&rig, key, text, i);
                        }
                } else {
                        (void) snprintf(text, sizeof text, "%llu", (unsigned long long) desc->least);
                        assert_sets(&rig, key, text, desc->least);
                        (void) snprintf(text, sizeof text, "%llu", (unsigned long long) desc->most);
                        assert_sets(&rig, key, text, desc->most);
                }
                for (size_t i = 0; i < ARRAY_SIZE(wrong) + 2; i++) {
                        if (i < ARRAY_SIZE(wrong))
                                (void) snprintf(text, sizeof text, "%s", wrong[i]);
                        else if (i == ARRAY_SIZE(wrong))
                                (void) snprintf(text, sizeof text, "%llu",
                                                (unsigned long long) desc->most + 1);
                        else
                                (void) snprintf(text, sizeof text, "%lld", (long long) desc->least - 1);
                        write_set(key, text, set, sizeof set);
                        (void) snprintf(file, sizeof file, "{\"rules\":[{\"set\":\n%s}]}", set);
                        (void) snprintf(expect, sizeof expect, "f.json:2: \"%s\" is %s; allowed: %s",
                                        desc->name, text,
                                        desc->words[0] ? desc->words[0] : "a whole number from ");
                        assert_refuses(&rig, file, expect);
                }
        }
        policy_rules_deinit(&rig.rules);
}

static void test_keys_of_vms_are_not_for_rules_about_devices(void **state)
{
        static const char *const about[] = {
                "{\"kind\":\"vfio\"}",           "{\"driver\":\"x\"}", "{\"device\":\"15b3:*\"}",
                "{\"subsystem\":\"15b3:0001\"}", "{\"id\":\"x\"}",     "{\"plugin\":\"x\"}",
        };
        Rig rig = {};

        for (PolicyKey key = 0; key < POLICY_KEY_MAX; key++)
                for (size_t i = 0; i < ARRAY_SIZE(about); i++) {
                        const PolicyKeyDesc *desc = policy_key(key);
                        char value[64], set[128], text[512];

                        (void) snprintf(value, sizeof value, "%s%s%s", desc->words[0] ? "\"" : "",
                                        desc->words[0] ? desc->words[0] : "1", desc->words[0] ? "\"" : "");
                        write_set(key, value, set, sizeof set);
                        (void) snprintf(text, sizeof text, "{\"rules\":[{\"match\":%s,\"set\":%s}]}",
                                        about[i], set);
                        if (desc->scope == POLICY_SCOPE_VM)
                                assert_refuses(&rig, text, "is about VMs: ");
                        else
                                assert_int_equal(rig_read(&rig, text), 0);
                        (void) snprintf(text, sizeof text,
                                        "{\"rules\":[{\"match\":{\"label\":{\"a\":\"b\"}},\"set\":%s}]}",
                                        set);
                        assert_int_equal(rig_read(&rig, text), 0);
                }
        policy_rules_deinit(&rig.rules);
}

/* ---- match and compat ------------------------------------------------------------------------------------------ */

static void test_all_criteria_are_taken_and_lines_are_those_of_the_rules(void **state)
{
        const PolicyRule *rule;
        Rig rig = {};

        assert_int_equal(
                rig_read(
                        &rig,
                        "{ \"description\": \"what\", \"comment\": \"why\",\n"
                        "  \"rules\": [\n"
                        "    {\"set\": {}}, { \"set\": {\"retry\": 1} },\n"
                        "    { \"comment\": \"x] } \\\" {\", \"match\": {\"kind\": \"vfio\", \"driver\": \"a*\","
                        " \"device\": \"15b3:101e\",\n"
                        "      \"subsystem\": \"15b3:*\", \"id\": \"nic?\", \"plugin\": \"p\","
                        " \"label\": {\"l\": \"v*\"}},\n"
                        "      \"set\": {\"p2p\": \"single\"} }\n"
                        "  ] }\n"),
                0);
        assert_string_equal(rig.description, "what");
        assert_int_equal(rig.rules.n, 3);
        assert_int_equal(rig.rules.rules[0].line, 3);
        assert_int_equal(rig.rules.rules[1].line, 3);
        rule = &rig.rules.rules[2];
        assert_int_equal(rule->line, 4);
        assert_string_equal(rule->file, "f.json");
        assert_string_equal(rule->match.kind, "vfio");
        assert_string_equal(rule->match.driver, "a*");
        assert_string_equal(rule->match.device, "15b3:101e");
        assert_string_equal(rule->match.subsystem, "15b3:*");
        assert_string_equal(rule->match.id, "nic?");
        assert_string_equal(rule->match.plugin, "p");
        assert_string_equal(rule->match.label, "l");
        assert_string_equal(rule->match.label_value, "v*");
        policy_rules_deinit(&rig.rules);
}

static void test_compat_has_words_and_sets(void **state)
{
        const PolicyRule *rule;
        Rig rig = {};

        rule = rig_set(
                &rig,
                "{\"compat\":{\"a.b\":\"equal\",\"c\":\"at-least\",\"d\":\"ignore\",\"e\":[\"x\",\"equal\"]}}");
        assert_int_equal(rule->n_compat, 4);
        assert_string_equal(rule->compat[0].fact, "a.b");
        assert_int_equal(rule->compat[0].how, COMPAT_EQUAL);
        assert_int_equal(rule->compat[1].how, COMPAT_AT_LEAST);
        assert_int_equal(rule->compat[2].how, COMPAT_IGNORE);
        assert_int_equal(rule->compat[3].how, COMPAT_IN);
        assert_int_equal(rule->compat[3].n_choices, 2);
        assert_string_equal(rule->compat[3].choices[0], "x");
        assert_string_equal(rule->compat[3].choices[1], "equal");
        policy_rules_deinit(&rig.rules);
}

/* ---- what is wrong --------------------------------------------------------------------------------------------- */

#define RULE(match, set) "{\"rules\":[{\"match\":" match ",\n\"set\":" set "}]}"
#define LONG_16          "aaaaaaaaaaaaaaaa"
#define LONG_64          LONG_16 LONG_16 LONG_16 LONG_16

static const struct {
        const char *text, *expect;
} wrong[] = {
        {"", "f.json:1: JSON: is not whole"},
        {"{\n\"rules\":\n[}", "f.json:3: JSON: "},
        {"{\"rules\":[]}\nx", "f.json:2: JSON: unexpected character at byte 13"},
        {"[]", "f.json:1: a policy is []; it has to be an object"},
        {"{}", "a policy needs \"rules\", an array"},
        {"{\n\"rules\":{}}", "f.json:2: a policy needs \"rules\", an array"},
        {"{\"rules\":[],\n\n\"rulez\":1}",
         "f.json:3: a policy has no key \"rulez\"; it has description, comment, rules"},
        {"{\"rules\":[],\n\"rules\":[]}", "a policy says a key twice"},
        {"{\"r\\u0075les\":[{\"set\":{}}]}", "f.json:1: a rule has to be written without escapes"},
        {"{\"rules\":[\n{\"s\\u0065t\":{}}]}", "f.json:2: \"set\" has to be written without escapes"},
        {"{\"rules\":[\n1]}", "f.json:2: a rule is 1; it has to be an object"},
        {"{\"rules\":[\n{}]}", "f.json:2: a rule without \"set\""},
        {"{\"rules\":[{\"set\":{},\n\"sets\":1}]}",
         "f.json:2: a rule has no key \"sets\"; it has match, set, comment"},
        {"{\"rules\":[],\"description\":7}", "\"description\" is 7; it has to be a text of 1 to 200"},
        {"{\"rules\":[],\"comment\":\"\"}", "\"comment\" is \"\"; it has to be a text of 1 to "},
        {RULE("5", "{}"), "f.json:1: \"match\" is 5; it has to be an object"},
        {RULE("{\"kynd\":\"vfio\"}", "{}"),
         "\"match\" has no key \"kynd\"; it has kind, driver, device, subsystem, id, plugin, label"},
        {RULE("{\"kind\":\"mdev\"}", "{}"), "\"kind\" is \"mdev\"; allowed: vfio, vfio-user"},
        {RULE("{\"kind\":\"\"}", "{}"), "\"kind\" is \"\"; it has to be a text"},
        {RULE("{\"kind\":\"a\\u0000b\"}", "{}"), "\"kind\" is \"a\\u0000b\"; it has to be a text"},
        {RULE("{\"driver\":\"\\n\"}", "{}"), "\"driver\" is \"\\n\"; it has to be a text"},
        {RULE("{\"driver\":\"" LONG_64 "a\"}", "{}"), "it has to be a text of 1 to 64 printable bytes"},
        {RULE("{\"device\":\"15B3:101E\"}", "{}"),
         "\"device\" is \"15B3:101E\"; allowed: PCI vendor and device in lower"},
        {RULE("{\"device\":\"15b3:101ef\"}", "{}"), "\"device\" is \"15b3:101ef\"; allowed: "},
        {RULE("{\"device\":\"15b3:10*\"}", "{}"), "\"device\" is \"15b3:10*\"; allowed: "},
        {RULE("{\"device\":\"15b3:*e\"}", "{}"), "\"device\" is \"15b3:*e\"; allowed: "},
        {RULE("{\"device\":\"15b3:101e \"}", "{}"), "\"device\" is \"15b3:101e \"; allowed: "},
        {RULE("{\"device\":\"x5b3:101e\"}", "{}"), "\"device\" is \"x5b3:101e\"; allowed: "},
        {RULE("{\"device\":\"*\"}", "{}"), "\"device\" is \"*\"; allowed: "},
        {RULE("{\"subsystem\":\"15b3\"}", "{}"), "\"subsystem\" is \"15b3\"; allowed: "},
        {RULE("{\"label\":\"x\"}", "{}"), "\"label\" is \"x\"; it has to be an object"},
        {RULE("{\"label\":{}}", "{}"), "\"label\" has 0 members; it has to be one"},
        {RULE("{\"label\":{\"a\":\"1\",\"b\":\"2\"}}", "{}"), "\"label\" has 2 members"},
        {RULE("{\"label\":{\"a\":\"\"}}", "{}"), "\"a\" is \"\"; it has to be a text"},
        {RULE("{\"label\":{\"\":\"a\"}}", "{}"), "\"\" is no name of a label"},
        {RULE("{\"label\":{\"" LONG_64 "\":\"a\"}}", "{}"), "is no name of a label: 1 to 63 bytes"},
        {RULE("{}", "1"), "f.json:2: \"set\" is 1; it has to be an object"},
        {RULE("{}", "{\"retires\":1}"),
         "f.json:2: \"retires\" is no key; allowed: p2p, ndma, viommu-grace, precopy, "
         "precopy-limit, retry, on-error, on-source-loss, after-grace, max-state-mib, "
         "max-blackout-ms, bandwidth-mib, order, opaque, supervised-grace, "
         "supervised-push, supervised-last-arc, deadline-ms, compat"},
        {RULE("{}", "{\"deadline-ms.drain\":1}"), "\"deadline-ms.drain\" is no key"},
        {RULE("{}", "{\"deadline-ms\":1}"), "\"deadline-ms\" is 1; it has to be an object"},
        {RULE("{}", "{\"deadline-ms\":{\"Drain\":1}}"),
         "\"deadline-ms.Drain\" is no key; allowed: check, prepare, "},
        {RULE("{}", "{\"deadline-ms\":{\"drain\":1,\"drain\":2}}"), "\"deadline-ms\" says a key twice"},
        {RULE("{}", "{\"precopy-limit\":{\"sec\":1}}"),
         "\"precopy-limit.sec\" is no key; allowed: msec, mib, rate-kib"},
        {RULE("{}", "{\"retry\":1,\n\"retry\":2}"), "f.json:2: \"set\" says a key twice"},
        {RULE("{}", "{\"retry\":18446744073709551615}"), "\"retry\" is 18446744073709551615; allowed: "},
        {RULE("{}", "{\"retry\":-9223372036854775808}"), "\"retry\" is -9223372036854775808; allowed: "},
        {RULE("{}", "{\"compat\":[]}"), "\"compat\" is []; it has to be an object"},
        {RULE("{}", "{\"compat\":{\"A\":\"equal\"}}"), "\"A\" is no name of a fact: 1 to 63 of a-z"},
        {RULE("{}", "{\"compat\":{\"" LONG_64 "\":\"equal\"}}"), "is no name of a fact"},
        {RULE("{}", "{\"compat\":{\"a\":\"in\"}}"),
         "\"a\" is \"in\"; allowed: equal, at-least, ignore, or an array of values"},
        {RULE("{}", "{\"compat\":{\"a\":1}}"), "\"a\" is 1; allowed: equal, "},
        {RULE("{}", "{\"compat\":{\"a\":[]}}"), "\"a\": 0 values; allowed: 1 to 16"},
        {RULE("{}", "{\"compat\":{\"a\":[1]}}"), "\"a\": 1; each value has to be a text"},
        {RULE("{}", "{\"compat\":{\"a\":[\"\"]}}"), "\"a\": \"\"; each value has to be a text"},
        {RULE("{}", "{\"compat\":{\"a\":[\"" LONG_64 LONG_64 "\"]}}"),
         "each value has to be a text of 1 to 127"},
        {RULE("{}", "{\"compat\":{\"a\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]}}"), "\"a\": 17 values"},
        {RULE("{}", "{\"compat\":{\"a\":\"equal\",\"a\":\"ignore\"}}"), "\"compat\" says a key twice"},
};

static void test_what_is_wrong_is_told_with_its_line_and_what_is_allowed(void **state)
{
        Rig rig = {};

        for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
                assert_refuses(&rig, wrong[i].text, wrong[i].expect);
        policy_rules_deinit(&rig.rules);
}

/* A text of `n` times `item`, with a number in it, between two others. */
static char *repeat(const char *before, const char *item, int n, const char *after)
{
        size_t size = strlen(before) + (size_t) n * (strlen(item) + 16) + strlen(after) + 1, at;
        char *text = malloc(size);

        assert_non_null(text);
        at = (size_t) snprintf(text, size, "%s", before);
        for (int i = 0; i < n; i++) {
                char number[16];
                const char *mark = strchr(item, '#');

                (void) snprintf(number, sizeof number, "%d", i);
                at += (size_t) snprintf(text + at, size - at, "%s%.*s%s%s", i ? "," : "",
                                        (int) (mark ? mark - item : 0), item, mark ? number : "",
                                        mark ? mark + 1 : item);
        }
        (void) snprintf(text + at, size - at, "%s", after);
        return text;
}

static void test_everything_is_bounded(void **state)
{
        static const struct {
                const char *before, *item, *after, *expect;
                int most;
        } rows[] = {
                {"{\"rules\":[", "{\"set\":{}}", "]}", "more than 4096 rules in all files", POLICY_RULES_MAX},
                {"{\"rules\":[{\"set\":{\"compat\":{", "\"f#\":\"equal\"", "}}}]}",
                 "\"compat\" has 17 facts; allowed: 16", POLICY_COMPAT_MAX},
                {"{\"rules\":[", "{\"set\":{\"compat\":{\"f#\":\"equal\",\"other\":\"ignore\"}}}", "]}",
                 "more than 64 different facts", POLICY_FACTS_MAX - 1},
                {"{\"rules\":[{\"set\":{\"compat\":{\"a\":[", "\"v#\"", "]}}}]}",
                 "\"a\": 17 values; allowed: 1 to 16", POLICY_CHOICES_MAX},
        };
        Rig rig = {};

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
                for (int over = 0; over < 2; over++) {
                        char *text = repeat(rows[i].before, rows[i].item, rows[i].most + over, rows[i].after);

                        if (over)
                                assert_refuses(&rig, text, rows[i].expect);
                        else
                                assert_int_equal(rig_read(&rig, text), 0);
                        free(text);
                }
        policy_rules_deinit(&rig.rules);
}

static void test_a_file_has_at_most_256_kib(void **state)
{
        char *text = malloc(POLICY_TEXT_MAX + 2);
        Rig rig = {};

        assert_non_null(text);
        for (size_t over = 0; over < 2; over++) {
                memset(text, ' ', POLICY_TEXT_MAX + 1);
                memcpy(text, "{\"rules\":[]}", 12);
                text[POLICY_TEXT_MAX + over] = 0;
                assert_int_equal(rig_read(&rig, text), over ? -EINVAL : 0);
        }
        assert_string_equal(rig.error, "f.json: longer than 262144 bytes");
        free(text);
        policy_rules_deinit(&rig.rules);
}

/* As a reader does that goes through several files. */
static void test_rules_are_added_to_those_that_are_there(void **state)
{
        static const char text[] =
                "{\"rules\":[{\"set\":{\"retry\":1}},{\"set\":{\"retry\":2}},{\"set\":{\"retry\":3}}]}";
        Rig rig = {};

        for (int i = 0; i < 5; i++)
                assert_int_equal(policy_read("f", text, strlen(text), &rig.rules, rig.description, rig.error),
                                 0);
        assert_int_equal(rig.rules.n, 15);
        for (uint32_t i = 0; i < 15; i++)
                assert_int_equal(rig.rules.rules[i].values[POLICY_RETRY], i % 3 + 1);
        policy_rules_deinit(&rig.rules);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_every_key_takes_each_word_or_number_that_it_may_have_and_no_other),
                cmocka_unit_test(test_keys_of_vms_are_not_for_rules_about_devices),
                cmocka_unit_test(test_all_criteria_are_taken_and_lines_are_those_of_the_rules),
                cmocka_unit_test(test_compat_has_words_and_sets),
                cmocka_unit_test(test_what_is_wrong_is_told_with_its_line_and_what_is_allowed),
                cmocka_unit_test(test_everything_is_bounded),
                cmocka_unit_test(test_a_file_has_at_most_256_kib),
                cmocka_unit_test(test_rules_are_added_to_those_that_are_there),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
