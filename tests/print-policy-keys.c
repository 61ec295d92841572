/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Prints docs/policy-keys.md from the table in daemon/core/policy-rules.c. `make update-docs` writes it, a test compares. */

#include <stdio.h>

#include "daemon/core/policy-rules.h"

static void print_values(const PolicyKeyDesc *desc)
{
        if (!desc->words[0]) {
                printf("%llu to %llu", (unsigned long long) desc->least, (unsigned long long) desc->most);
                return;
        }
        for (size_t i = 0; i < ARRAY_SIZE(desc->words) && desc->words[i]; i++)
                printf("%s`%s`", i ? ", " : "", desc->words[i]);
}

static void print_keys(const char *heading, PolicyScope scope, const char *text)
{
        printf("\n## %s\n\n%s\n\n| key | values | default | |\n| --- | --- | --- | --- |\n", heading, text);
        for (PolicyKey key = 0; key < POLICY_KEY_MAX; key++) {
                const PolicyKeyDesc *desc = policy_key(key);
                char standard[24];

                if (desc->scope != scope)
                        continue;
                policy_value_text(key, desc->standard, standard, sizeof standard);
                printf("| `%s` | ", desc->name);
                print_values(desc);
                printf(" | `%s` | %s |\n", standard, desc->help);
        }
}

int main(void)
{
        printf("<!-- Made by tests/print-policy-keys.c from daemon/core/policy-rules.c; do not edit. -->\n"
               "# Keys of policies\n\n"
               "What a rule's `set` may have. `a.b` is the member `b` of an object `a`. [policy.md](policy.md) says how rules "
               "are\nwritten and which one decides.\n");
        print_keys("Of devices", POLICY_SCOPE_DEVICE, "In any rule.");
        print_keys(
                "Of VMs", POLICY_SCOPE_VM,
                "Only in a rule whose `match` asks for nothing of a device: for a `label`, or for nothing.");
        print_keys(
                "Of both", POLICY_SCOPE_BOTH,
                "Said of a device they are that device's. Said without asking for a device they are the VMM's, the other\n"
                "half's and the record's too.");
        printf("\n## Comparisons\n\n`compat` is an object: the name of a fact, and how it is compared between both hosts.\n\n"
               "| word | |\n| --- | --- |\n"
               "| `\"%s\"` | the same on both |\n"
               "| `\"%s\"` | the destination's is the source's or newer, as version numbers go |\n"
               "| `[\"A\", \"B\"]` | each host's is one of these, 1 to %d |\n"
               "| `\"%s\"` | not compared: takes back what a less specific rule says |\n\n"
               "A fact that either host does not know speaks against the move, unless it is ignored. A rule has at most %d of "
               "them, all\nrules together %d different ones.\n",
               compat_how_to_string(COMPAT_EQUAL), compat_how_to_string(COMPAT_AT_LEAST), POLICY_CHOICES_MAX,
               compat_how_to_string(COMPAT_IGNORE), POLICY_COMPAT_MAX, POLICY_FACTS_MAX);
        return 0;
}
