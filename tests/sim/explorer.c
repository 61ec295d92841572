/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Drives the two real halves against each other, with one device on each side, through every order of what can happen.
 *
 *   explorer [--crashes N] [--cuts N] [--faults N] [--dma] [--supervised [--held]] [--break RULE | --rules | --all]
 *
 * The world around the halves is abstract (world.h), what is checked in every state stands in invariants.h.
 *
 * --break changes one rule in a copy of the tables, to see that it is caught.
 */

#include <getopt.h>
#include <stdlib.h>

#include "broken.h"
#include "search.h"

static const Search how = {list_moves, is_end};

/* `dma`: the device writes the VM's memory, its agents copy what it wrote; and it pre-copies. `its_vmm`: the VMM drives it. */
static void set_plan(bool dma, bool its_vmm, bool is_held)
{
        PolicyRule rule = {};
        uint32_t flags = DEVICE_MIGRATION_STOP_COPY | DEVICE_MIGRATION_P2P;

        rule.sets[POLICY_SUPERVISED_LAST_ARC] = is_held;
        rule.values[POLICY_SUPERVISED_LAST_ARC] = POLICY_LAST_ARC_BACK;
        if (dma)
                flags |= DEVICE_MIGRATION_PRE_COPY | DEVICE_DMA_LOGGING | DEVICE_HAS_DMA;
        if (its_vmm)
                flags |= DEVICE_SUPERVISED | DEVICE_KERNEL;
        world_plan_for(&flags, NULL, 1, &rule);
}

static int try_all_rules(void)
{
        int wrong = 0, asked = max_faults, crashes = max_crashes;

        for (size_t i = 0; i < n_broken_rules; i++) {
                const Rule *rule = &broken_rules[i];
                int bad;

                max_faults = MAX(asked, rule->faults);
                max_crashes = MAX(crashes, rule->crashes);
                set_plan(rule->dma, rule->its_vmm, rule->held);
                (void) break_rule(rule->name);
                bad = search(&how, NULL);
                printf("%-20s %-9s %s\n", rule->name, bad == FINE ? "harmless" : "caught",
                       bad == FINE ? "" : bad_names[bad]);
                wrong += (bad != FINE) != rule->caught;
        }
        printf("%zu rules broken, %d not as expected\n", n_broken_rules, wrong);
        return wrong ? 1 : 0;
}

static int usage(FILE *f)
{
        fprintf(f,
                "explorer [--crashes N] [--cuts N] [--faults N] [--dma] [--supervised [--held]] [--break RULE | "
                "--rules | --all]\n");
        return 2;
}

int main(int argc, char **argv)
{
        static const struct option options[] = {{"crashes", required_argument, NULL, 'c'},
                                                {"cuts", required_argument, NULL, 'u'},
                                                {"faults", required_argument, NULL, 'f'},
                                                {"break", required_argument, NULL, 'b'},
                                                {"rules", no_argument, NULL, 'r'},
                                                {"all", no_argument, NULL, 'a'},
                                                {"dma", no_argument, NULL, 'd'},
                                                {"supervised", no_argument, NULL, 's'},
                                                {"held", no_argument, NULL, 'l'},
                                                {"help", no_argument, NULL, 'h'},
                                                {}};
        const char *broken = NULL;
        bool dma = false, its_vmm = false, is_held = false;
        int c;

        while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0)
                switch (c) {
                case 'c': max_crashes = atoi(optarg); break;
                case 'u': max_cuts = atoi(optarg); break;
                case 'f': max_faults = atoi(optarg); break;
                case 'b': broken = optarg; break;
                case 'r': print_rules(); return 0;
                case 'a': broken = "--all"; break;
                case 'd': dma = true; break;
                case 's': its_vmm = true; break;
                case 'l': is_held = true; break;
                case 'h': usage(stdout); return 0;
                default: return usage(stderr);
                }
        set_plan(dma, its_vmm, is_held);
        if (broken && streq(broken, "--all"))
                return try_all_rules();
        world_table = half_table;
        if (broken && break_rule(broken) < 0) {
                fprintf(stderr, "no rule is called \"%s\"; --rules lists them\n", broken);
                return 2;
        }
        return search(&how, "") == FINE ? 0 : 1;
}
