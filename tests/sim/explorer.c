/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Drives the two real halves against each other, with one device on each side, through every order of what can happen.
 *
 *   explorer [--crashes N] [--cuts N] [--faults N] [--dma] [--supervised [--held]] [--pause] [--onward]
 *            [--resolves N | --operators] [--fence] [--break RULE | --rules | --all]
 *
 * The world around the halves is abstract (world.h), what is checked in every state stands in invariants.h.
 *
 * --pause and --onward explore two policies: the source stands when its device has lost its state; and once handed over the VM
 * stays there, whatever its devices do. With --resolves operators decide what no daemon can know, so often; --fence: the
 * destination's host is powered off before. What an operator's wrong word does shows --break wrong-word.
 *
 * --break changes one rule in a copy of the tables, to see that it is caught; what it takes for it to show is added.
 */

#include <getopt.h>
#include <stdlib.h>

#include "broken.h"
#include "search.h"

static const Search how = {list_moves, is_end};

static PolicyRule rule; /* what all devices and VMs have */

static void set_policy(PolicyKey key, uint64_t value)
{
        rule.sets[key] = true;
        rule.values[key] = value;
}

/* `dma`: the device writes the VM's memory, its agents copy what it wrote; and it pre-copies. `its_vmm`: the VMM drives it. */
static void set_plan(bool dma, bool its_vmm, bool is_held, bool fence)
{
        uint32_t flags = DEVICE_MIGRATION_STOP_COPY | DEVICE_MIGRATION_P2P;

        rule.sets[POLICY_SUPERVISED_LAST_ARC] = is_held;
        rule.values[POLICY_SUPERVISED_LAST_ARC] = POLICY_LAST_ARC_BACK;
        if (dma)
                flags |= DEVICE_MIGRATION_PRE_COPY | DEVICE_DMA_LOGGING | DEVICE_HAS_DMA;
        if (its_vmm)
                flags |= DEVICE_SUPERVISED | DEVICE_KERNEL;
        world_plan_for(&flags, NULL, 1, &rule);
        world_plan.fence = fence;
        world_plan.fence_usec = USEC_PER_SEC;
}

/* With what it takes for it to show, or more where more was asked for. */
static void give_room(const Rule *broken, int faults, int crashes, int cuts)
{
        max_faults = MAX(faults, broken->faults);
        max_crashes = MAX(crashes, broken->crashes);
        max_cuts = MAX(cuts, broken->cuts);
}

static int try_all_rules(void)
{
        int wrong = 0, faults = max_faults, crashes = max_crashes, cuts = max_cuts;

        for (size_t i = 0; i < n_broken_rules; i++) {
                const Rule *broken = &broken_rules[i];
                int bad;

                give_room(broken, faults, crashes, cuts);
                max_resolves = broken->resolves;
                set_plan(broken->dma, broken->its_vmm, broken->held, broken->fence);
                (void) break_rule(broken->name);
                bad = search(&how, NULL);
                printf("%-22s %-9s %8u states %s\n", broken->name, bad == FINE ? "harmless" : "caught",
                       search_states(), bad == FINE ? "" : bad_names[bad]);
                wrong += (bad != FINE) != broken->caught;
        }
        printf("%zu rules broken, %d not as expected\n", n_broken_rules, wrong);
        return wrong ? 1 : 0;
}

static int usage(FILE *f)
{
        fprintf(f,
                "explorer [--crashes N] [--cuts N] [--faults N] [--dma] [--supervised [--held]] [--pause] [--onward]\n"
                "         [--resolves N | --operators] [--fence] [--break RULE | --rules | --all]\n");
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
                                                {"resolves", required_argument, NULL, 'w'},
                                                {"operators", no_argument, NULL, 'O'},
                                                {"fence", no_argument, NULL, 'F'},
                                                {"pause", no_argument, NULL, 'p'},
                                                {"onward", no_argument, NULL, 'o'},
                                                {"held", no_argument, NULL, 'l'},
                                                {"help", no_argument, NULL, 'h'},
                                                {}};
        const char *broken = NULL;
        bool dma = false, its_vmm = false, is_held = false, fence = false, pause = false, onward = false;
        char about[64];
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
                case 'w': max_resolves = atoi(optarg); break;
                case 'O': max_resolves = -1; break;
                case 'F': fence = true; break;
                case 'p':
                        pause = true;
                        set_policy(POLICY_ON_SOURCE_LOSS, POLICY_ON_SOURCE_LOSS_PAUSE);
                        break;
                case 'o':
                        onward = true;
                        set_policy(POLICY_AFTER_GRACE, POLICY_AFTER_GRACE_DEGRADED);
                        break;
                case 'l': is_held = true; break;
                case 'h': usage(stdout); return 0;
                default: return usage(stderr);
                }
        if (broken && streq(broken, "--all"))
                return try_all_rules();
        world_table = half_table;
        if (broken) {
                const Rule *wanted = find_rule(broken);

                if (!wanted) {
                        fprintf(stderr, "no rule is called \"%s\"; --rules lists them\n", broken);
                        return 2;
                }
                give_room(wanted, max_faults, max_crashes, max_cuts);
                max_resolves = max_resolves < 0 ? max_resolves : MAX(max_resolves, wanted->resolves);
                dma |= wanted->dma;
                its_vmm |= wanted->its_vmm;
                is_held |= wanted->held;
                fence |= wanted->fence;
        }
        set_plan(dma, its_vmm, is_held, fence);
        if (broken)
                (void) break_rule(broken);
        (void) snprintf(about, sizeof about, "%s%s%s%s%s%s", dma ? "dma " : "", its_vmm ? "supervised " : "",
                        is_held ? "held " : "", pause ? "pause " : "", onward ? "onward " : "",
                        fence ? "fence " : "");
        return search(&how, about) == FINE ? 0 : 1;
}
