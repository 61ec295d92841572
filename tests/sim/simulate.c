/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Migrations by chance: both real halves, 1 to WORLD_DEVICES devices, faults, deaths and cuts, drawn by a seed.
 *
 *   simulate [--seed S] [--migrations N] [--states N] [--devices N] [--break RULE]
 *
 * Each migration has a seed of its own and a clock of its own: what is under way takes as long as is drawn for it when it
 * begins, most of it short, some of it longer than anybody waits; a deadline is one more thing that takes its time. What
 * goes wrong is drawn, too, and how much of it there may be. When that is used up the rest goes well, and has to come to
 * a good end: the VM runs on one side with its devices, or stands and somebody is asked, or has died and that is said.
 * In every state the invariants must hold (invariants.h). Half of them have operators, who
 * cancel and decide; of these half have a fence. Policies are drawn, too.
 *
 * --states N: as many migrations as it takes to see so many different states. --seed S alone: that one migration, each of
 * its moves printed; this is how a failing one is looked at. --break: with a rule broken on purpose (explorer --rules).
 */

#include <getopt.h>
#include <stdlib.h>

#include "broken.h"
#include "chance.h"
#include "invariants.h"

#define MOVES_OF_ONE 4000 /* no migration needs as many */
#define BAD_MOST     3    /* so many are enough to look at */
#define SETTLED      100  /* so many after an end it is one: somebody may be asking again and again */

typedef struct Timed {
        Move move;
        uint64_t usec;
} Timed;

static uint32_t devices_asked; /* 0: drawn */

/* ---- one migration ----------------------------------------------------------------------------------------------- */

static void draw_devices(uint64_t *seed)
{
        uint32_t n = devices_asked ? devices_asked : 1 + chance_below(seed, WORLD_DEVICES),
                 kind = chance_below(seed, 4);
        uint32_t flags[WORLD_DEVICES], orders[WORLD_DEVICES];
        PolicyRule rule = {};

        for (uint32_t i = 0; i < n; i++) {
                bool driven = kind == 1 || (kind == 2 && chance_below(seed, 2));

                flags[i] = DEVICE_MIGRATION_STOP_COPY;
                if (driven || chance_below(seed, 4))
                        flags[i] |= DEVICE_MIGRATION_P2P;
                if (chance_below(seed, 2))
                        flags[i] |= DEVICE_MIGRATION_PRE_COPY;
                if (!driven && chance_below(seed, 2))
                        flags[i] |= DEVICE_DMA_LOGGING | DEVICE_HAS_DMA;
                if (driven)
                        flags[i] |= DEVICE_SUPERVISED | DEVICE_KERNEL;
                orders[i] = chance_below(seed, 4) ? 0 : chance_below(seed, 3);
        }
        rule.sets[POLICY_SUPERVISED_LAST_ARC] = chance_below(seed, 2);
        rule.values[POLICY_SUPERVISED_LAST_ARC] = POLICY_LAST_ARC_BACK;
        rule.sets[POLICY_ON_SOURCE_LOSS] = chance_below(seed, 4) == 0;
        rule.values[POLICY_ON_SOURCE_LOSS] = POLICY_ON_SOURCE_LOSS_PAUSE;
        world_plan_for(flags, orders, n, &rule);
        world_plan.fence = chance_below(seed, 2);
        world_plan.fence_usec = USEC_PER_SEC;
}

/* How long it takes, in microseconds. What is bad need not come at all. */
static uint64_t draw_usec(const World *w, Move m, uint64_t *seed)
{
        static const uint32_t spans[] = {100, 1000, 10000, 100000, 1000000};
        uint32_t span = spans[chance_below(seed, ARRAY_SIZE(spans) - (chance_below(seed, 8) != 0))];

        if (m.what == M_TIMER)
                return 900000 + chance_below(seed, 200000);
        if (m.what == M_DAEMON_BACK || m.what == M_LINK)
                return 1000 + chance_below(seed, 3000000);
        if (m.what == M_QEMU_RESUMES && !move_is_bad(w, m)) /* somebody comes and lets it */
                return 1000 + chance_below(seed, 3000000);
        if (move_is_bad(w, m))
                return chance_below(seed, chance_below(seed, 2) ? 1000000 : 20000000);
        return 1 + chance_below(seed, span);
}

static bool same(Move a, Move b)
{
        return memcmp(&a, &b, sizeof a) == 0;
}

static bool in(const Timed *all, int n, Move move)
{
        for (int i = 0; i < n; i++)
                if (same(all[i].move, move))
                        return true;
        return false;
}

/* What is still under way keeps its time, what is new gets one. Returns how many there are. */
static int draw_times(const World *w, uint64_t now, Timed *all, int n_all, uint64_t *seed)
{
        Move moves[MOVES_MAX];
        Timed next[MOVES_MAX];
        int n = list_moves(w, moves), n_next = 0;

        for (int i = 0; i < n_all; i++)
                for (int k = 0; k < n; k++)
                        if (same(all[i].move, moves[k])) {
                                next[n_next++] = all[i];
                                break;
                        }
        for (int k = 0; k < n; k++)
                if (!in(next, n_next, moves[k]))
                        next[n_next++] = (Timed){moves[k], now + draw_usec(w, moves[k], seed)};
        memcpy(all, next, (size_t) n_next * sizeof next[0]);
        return n_next;
}

static int first_of(const Timed *all, int n)
{
        int first = 0;

        for (int i = 1; i < n; i++)
                if (all[i].usec < all[first].usec)
                        first = i;
        return first;
}

/* ---- states that were seen ----------------------------------------------------------------------------------------- */

static uint64_t *seen, n_seen, max_seen;

static void see(const World *w)
{
        const uint8_t *p = (const uint8_t *) w;
        uint64_t h = 0x9e3779b97f4a7c15u ^ world_devices, v;

        if (max_seen == 0 || n_seen * 2 > max_seen)
                return;
        for (uint32_t i = 0; i < world_devices; i++)
                h = (h ^ world_flags[i] ^ (world_plan.devices[i].order << 16)) * 0xff51afd7ed558ccdu;
        for (size_t i = 0; i < sizeof *w; i += 8) {
                v = 0;
                memcpy(&v, p + i, MIN(sizeof v, sizeof *w - i));
                h = (h ^ v) * 0xff51afd7ed558ccdu;
                h ^= h >> 32;
        }
        h |= 1;
        for (uint64_t i = h >> 20;; i++)
                if (seen[i & (max_seen - 1)] == h) {
                        return;
                } else if (seen[i & (max_seen - 1)] == 0) {
                        seen[i & (max_seen - 1)] = h;
                        n_seen++;
                        return;
                }
}

/* ---- many ------------------------------------------------------------------------------------------------------------ */

typedef struct Sum {
        uint64_t migrations, moves, done, back, nowhere, bad, usec;
        uint64_t faults, crashes, cuts, resolves;
} Sum;

static void count(Sum *sum, const World *w)
{
        bool s = runs_with_devices(w, S), d = runs_with_devices(w, D);

        sum->done += d;
        sum->back += s;
        sum->nowhere += !s && !d;
        sum->faults += w->faults;
        sum->crashes += w->crashes;
        sum->cuts += w->cuts;
        sum->resolves += w->resolves;
}

/* Runs the migration of that seed. Returns FINE or what was violated. */
static int migrate(uint64_t seed, bool print, Sum *sum)
{
        Timed all[MOVES_MAX];
        int n_all = 0;
        uint64_t now = 0;
        int settled = 0;
        World w;

        draw_devices(&seed);
        world_init(&w);
        max_faults = chance_below(&seed, 2) ? 0 : 1 + (int) chance_below(&seed, 3);
        max_crashes = chance_below(&seed, 2) ? 0 : (int) chance_below(&seed, 4);
        max_cuts = (int) chance_below(&seed, 3);
        max_resolves = chance_below(&seed, 2) ? 0 : 1 + (int) chance_below(&seed, 3);
        sum->migrations++;
        for (uint32_t nr = 1; nr <= MOVES_OF_ONE; nr++) {
                int at;
                Move m;

                n_all = draw_times(&w, now, all, n_all, &seed);
                if (n_all == 0)
                        break;
                at = first_of(all, n_all);
                m = all[at].move;
                now = MAX(now, all[at].usec);
                all[at] = all[--n_all]; /* it may be possible again, and takes its time again */
                move_on(&w, m);
                sum->moves++;
                see(&w);
                if (print) {
                        printf("%10.6f ", (double) now / 1e6);
                        print_move(&w, nr, m);
                }
                if (w.bad != FINE)
                        return w.bad;
                if (!is_end(&w))
                        settled = 0;
                else if (++settled == SETTLED)
                        break;
                /* Nothing more goes wrong from half of the way on. */
                if (nr == MOVES_OF_ONE / 2)
                        max_faults = max_crashes = max_cuts = max_resolves = 0;
        }
        sum->usec += now;
        count(sum, &w);
        return is_end(&w) ? FINE : NO_END;
}

static int simulate(uint64_t seed, uint64_t migrations, uint64_t states)
{
        Sum sum = {};
        uint64_t first_bad = 0;

        for (uint64_t i = 0; sum.bad < BAD_MOST && (states ? n_seen < states : i < migrations); i++) {
                int bad = migrate(seed + i, false, &sum);

                if (bad == FINE)
                        continue;
                if (sum.bad++ == 0)
                        first_bad = seed + i;
        }
        if (sum.bad > 0) {
                printf("%s --devices %u --seed %llu:\n", program_invocation_short_name,
                       (unsigned) devices_asked, (unsigned long long) first_bad);
                printf("violation: %s\n", bad_names[migrate(first_bad, true, &(Sum){})]);
        }
        printf("%llu migrations, %llu moves, %llu states, %llu faults, %llu deaths, %llu cuts, %llu decisions, %.1f hours of theirs: "
               "%llu went over, %llu stayed, %llu ran nowhere and said so, %llu bad ends\n",
               (unsigned long long) sum.migrations, (unsigned long long) sum.moves,
               (unsigned long long) n_seen, (unsigned long long) sum.faults, (unsigned long long) sum.crashes,
               (unsigned long long) sum.cuts, (unsigned long long) sum.resolves, (double) sum.usec / 3.6e9,
               (unsigned long long) sum.done, (unsigned long long) sum.back, (unsigned long long) sum.nowhere,
               (unsigned long long) sum.bad);
        return sum.bad > 0;
}

static void make_room_for_states(uint64_t states)
{
        for (max_seen = 1024; max_seen < states * 2; max_seen *= 2)
                ;
        seen = calloc(max_seen, sizeof *seen);
        if (!seen) {
                fprintf(stderr, "out of memory\n");
                exit(2);
        }
}

static int usage(FILE *f)
{
        fprintf(f, "simulate [--seed S] [--migrations N] [--states N] [--devices N] [--break RULE]\n");
        return 2;
}

int main(int argc, char **argv)
{
        static const struct option options[] = {{"seed", required_argument, NULL, 's'},
                                                {"migrations", required_argument, NULL, 'm'},
                                                {"states", required_argument, NULL, 'w'},
                                                {"devices", required_argument, NULL, 'd'},
                                                {"break", required_argument, NULL, 'b'},
                                                {"help", no_argument, NULL, 'h'},
                                                {}};
        uint64_t seed = 1, migrations = 0, states = 0;
        const char *broken = NULL;
        int c, bad;

        while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0)
                switch (c) {
                case 's': seed = strtoull(optarg, NULL, 10); break;
                case 'm': migrations = strtoull(optarg, NULL, 10); break;
                case 'w': states = strtoull(optarg, NULL, 10); break;
                case 'd': devices_asked = MIN((uint32_t) atoi(optarg), WORLD_DEVICES); break;
                case 'b': broken = optarg; break;
                case 'h': usage(stdout); return 0;
                default: return usage(stderr);
                }
        world_table = half_table;
        if (broken && break_rule(broken) < 0) {
                fprintf(stderr, "no rule is called \"%s\"; explorer --rules lists them\n", broken);
                return 2;
        }
        if (states > 0)
                make_room_for_states(states);
        if (migrations > 0 || states > 0)
                return simulate(seed, migrations, states);
        bad = migrate(seed, true, &(Sum){});
        printf("%s\n", bad == FINE ? "a good end" : bad_names[bad]);
        return bad != FINE;
}
