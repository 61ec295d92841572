/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Policy files: any text is either taken or refused with one line that names its place; what is taken holds what it
 * promises, and what follows from it for a device can be worked out and told. */

#include <stdio.h>
#include <stdlib.h>

#include "common/json-text.h"
#include "daemon/policy-report.h"
#include "fuzz.h"

#define FILE_NAME "f.json"

static void demand(bool holds)
{
        if (!holds)
                abort();
}

/* The walk that finds lines is meant for texts that json-c has taken; with others it must end, too. */
static void walk(const char *text, size_t size)
{
        JsonText root = json_text_root(text, size), item = {};
        size_t n = 0;

        (void) json_text_count(json_text_member(json_text_member(root, "rules"), "set"));
        do {
                item = json_text_next(root, item);
                demand(n++ <= size);
                demand(json_text_line(text, item) <= size + 1);
        } while (item.p);
}

static void check_rule(const PolicyRule *rule)
{
        for (PolicyKey key = 0; key < POLICY_KEY_MAX; key++) {
                const PolicyKeyDesc *desc = policy_key(key);
                uint64_t value = rule->values[key];

                if (!rule->sets[key])
                        continue;
                demand(desc->scope != POLICY_SCOPE_VM || policy_match_is_of_vm(&rule->match));
                demand(desc->words[0] ? value < ARRAY_SIZE(desc->words) && desc->words[value]
                                      : value >= desc->least && value <= desc->most);
        }
        demand(rule->n_compat <= POLICY_COMPAT_MAX && rule->line > 0);
        for (uint32_t i = 0; i < rule->n_compat; i++) {
                demand(compat_how_to_string(rule->compat[i].how) && rule->compat[i].fact[0]);
                demand((rule->compat[i].how == COMPAT_IN) == (rule->compat[i].n_choices > 0));
        }
}

static void explain(const PolicyRules *rules)
{
        ManifestDevice device = {.id = "nic0", .driver = "mlx5_vfio_pci", .device = "15b3:101e"};
        Manifest vm = {.n_labels = 1, .labels = {{"a", "b"}}};

        json_object_put(policy_report_explain(rules, &vm, NULL));
        json_object_put(policy_report_explain(rules, &vm, &device));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        char description[POLICY_DESCRIPTION_MAX + 1], error[JSON_TEXT_MAX] = "";
        PolicyRules rules = {};
        char *text = malloc(size ? size : 1); /* of just that size: a sanitizer sees what is read behind it */
        int r;

        demand(text);
        memcpy(text, data, size);
        walk(text, size);
        r = policy_read(FILE_NAME, text, size, &rules, description, error);
        demand(r == (error[0] ? -EINVAL : 0));
        demand(r == 0 || strncmp(error, FILE_NAME ":", strlen(FILE_NAME) + 1) == 0);
        demand(rules.n <= POLICY_RULES_MAX);
        for (uint32_t i = 0; r == 0 && i < rules.n; i++)
                check_rule(&rules.rules[i]);
        if (r == 0)
                explain(&rules);
        policy_rules_deinit(&rules);
        free(text);
        return 0;
}
