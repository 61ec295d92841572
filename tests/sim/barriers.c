/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* One real half with three devices, through every order of answers, failures and late answers.
 *
 *   barriers [--side source|destination] [--devices WORD] [--cuts N] [--faults N] [--break BARRIER | --rules | --all]
 *
 * Of the other half there is only what it may say, and when (list_their_words()): always the truth. Without --side and
 * --devices: both sides, every set of devices. Checked are the invariants of invariants.h; of both sides together
 * they are explorer.c's affair.
 *
 * --break takes one barrier away from a copy of the tables, to see that it is caught.
 */

#include <getopt.h>
#include <stdlib.h>

#include "broken.h"
#include "search.h"

#define DMA  (DEVICE_DMA_LOGGING | DEVICE_HAS_DMA)
#define SAVE DEVICE_MIGRATION_STOP_COPY
#define P2P  (DEVICE_MIGRATION_STOP_COPY | DEVICE_MIGRATION_P2P)
#define PRE  DEVICE_MIGRATION_PRE_COPY
#define VMMS (P2P | DEVICE_SUPERVISED | DEVICE_KERNEL)

static const struct Set {
        const char *name;
        uint32_t flags[WORLD_DEVICES], orders[WORLD_DEVICES];
} sets[] = {
        {"p2p", {P2P, P2P, P2P}, {}},           {"some", {P2P, SAVE, P2P}, {}},
        {"none", {SAVE, SAVE, SAVE}, {}},       {"dma", {P2P | DMA | PRE, SAVE | DMA, P2P | DMA}, {}},
        {"order", {P2P, SAVE, P2P}, {1, 0, 2}}, {"mixed", {P2P, VMMS, SAVE}, {}},
        {"driven", {VMMS, VMMS, P2P}, {}},
};

static int side = S;

/* ---- the half that is none ------------------------------------------------------------------------------------- */

static Move tells(Message message, Phase phase)
{
        return (Move){M_SAY, (uint8_t) side, (uint8_t) message, (uint8_t) phase, 0};
}

static int list_destinations_words(const World *w, Move *moves)
{
        const Half *half = &w->side[S].half;
        const HalfStateDesc *desc = &half_states[half->state];
        bool transit = SOURCE_TRANSIT & IN(half->state);
        int n = 0;

        if (half->peer_pending && desc->expect != MESSAGE_NONE)
                moves[n++] = tells(desc->expect, desc->phase);
        if (half->peer_pending && desc->expect != MESSAGE_NONE && w->faults < max_faults)
                moves[n++] = tells(MESSAGE_FAILED, desc->phase);
        if (transit) {
                moves[n++] = tells(MESSAGE_STARTED, 0);
                if (!w->ran) {
                        moves[n] = tells(MESSAGE_NOTSTARTED, 0);
                        moves[n++].device = 1;
                }
        }
        if (half->state == SOURCE_CLOSE)
                moves[n++] = tells(MESSAGE_DONEACK, 0);
        if (half->state == SOURCE_END)
                moves[n++] = tells(MESSAGE_ENDED, 0);
        return n;
}

/* It turns back only as long as it has not given the VM up, or on a promise. */
static int list_sources_words(const World *w, Move *moves)
{
        const Half *half = &w->side[D].half;
        bool gone = w->side[S].vmm == V_RUNNING && w->stale;
        int n = 0;

        switch (half->state) {
        case DESTINATION_TAKE_IN:
                if (w->side[D].vmm == V_INCOMING)
                        moves[n++] = (Move){M_STATE_COMES, D, 0, 0, 0};
                if (!w->side[D].timer)
                        moves[n++] = tells(MESSAGE_BEGIN, PHASE_DRAIN);
                break;
        case DESTINATION_LOADED: moves[n++] = tells(MESSAGE_BEGIN, PHASE_INTAKE); break;
        case DESTINATION_READY:
                if (!gone)
                        moves[n++] = tells(MESSAGE_GO, 0);
                break;
        case DESTINATION_STARTED: moves[n++] = tells(MESSAGE_DONE, 0); break;
        case DESTINATION_PROMISED:
        case DESTINATION_GONE: moves[n++] = tells(MESSAGE_END, 0); break;
        default: break;
        }
        if (half->owner == OWNER_PREPARED && half->state <= DESTINATION_READY && w->faults < max_faults)
                moves[n++] = tells(MESSAGE_ABORT, 0);
        return n;
}

static int list(const World *w, Move *moves)
{
        const Daemon *d = &w->side[side];
        int n = 0;

        if (!w->started) {
                moves[n++] = side == S ? (Move){M_START, S, 0, 0, 0} : tells(MESSAGE_PREPARE, 0);
                return n;
        }
        n += list_side_moves(w, side, moves + n);
        if (d->exists && w->link)
                n += side == S ? list_destinations_words(w, moves + n) : list_sources_words(w, moves + n);
        if (w->link && w->cuts < max_cuts)
                moves[n++] = (Move){M_CUT, (uint8_t) side, 0, 0, 0};
        if (!w->link)
                moves[n++] = (Move){M_LINK, (uint8_t) side, 0, 0, 0};
        assert(n <= MOVES_MAX);
        return n;
}

/* It is over, and the VM runs on the side on which it should, or not on this one. */
static bool is_alone_at_end(const World *w)
{
        const Daemon *d = &w->side[side];

        if (!is_finished(d))
                return false;
        return runs_with_devices(w, side) || d->owner == (side == S ? OWNER_DONE : OWNER_DISCARDED);
}

static const Search how = {list, is_alone_at_end};

/* ---- barriers that can be taken away ----------------------------------------------------------------------------- */

/* Of a device that no VMM drives this asks nothing; a state without any act would wait for ever. */
#define ASKS_NOTHING DEVICE_ACT_PUSH

static HalfStateDesc states[HALF_STATE_MAX];

static const struct Barrier {
        const char *name, *text;
        HalfState state;
        int side;
        const char *set; /* with which it shows */
        int faults;      /* at least so many are needed */
} barriers[] = {
        {"p2p-grace", "devices go on before all are in P2P", SOURCE_P2P_GRACE, S, "p2p"},
        {"p2p-grace-rest", "... and those that can't be quiet stop while the others run", SOURCE_P2P_GRACE, S,
         "some"},
        {"stop-rest", "devices drain before those without P2P states stand", SOURCE_STOP_REST, S, "some"},
        {"stop", "what was written is asked before all stand", SOURCE_STOP, S, "dma"},
        {"drain", "the source gives the VM up before all devices have drained", SOURCE_DRAIN, S, "p2p"},
        {"intake", "READY before all have accepted their state", DESTINATION_INTAKE, D, "p2p"},
        {"arrival-grace", "devices run before all have arrived", DESTINATION_ARRIVE, D, "p2p"},
        {"arrival-grace-rest", "... and those that can't be quiet run while others stand", DESTINATION_ARRIVE,
         D, "some"},
        {"back-p2p", "on the way back devices run before all are in P2P", SOURCE_BACK_P2P, S, "p2p"},
        {"again", "where there is no way back, devices run before the others have arrived",
         DESTINATION_ARRIVE_AGAIN, D, "p2p", .faults = 1},
};

/* Nothing is asked of a device there. */
static void take_away(const struct Barrier *barrier)
{
        world_table = half_table;
        memcpy(states, half_states, sizeof states);
        states[barrier->state].device = ASKS_NOTHING;
        world_table.states = states;
}

static void use(const struct Set *set)
{
        world_plan_for(set->flags, set->orders, WORLD_DEVICES, NULL);
}

static const struct Set *find_set(const char *name)
{
        for (size_t i = 0; i < ARRAY_SIZE(sets); i++)
                if (streq(sets[i].name, name))
                        return &sets[i];
        return NULL;
}

static int try_without(const struct Barrier *barrier, bool print)
{
        int bad, asked = max_faults;

        side = barrier->side;
        max_faults = MAX(asked, barrier->faults);
        use(find_set(barrier->set));
        take_away(barrier);
        bad = search(&how, print ? "" : NULL);
        max_faults = asked;
        printf("%-20s %-9s %s\n", barrier->name, bad == FINE ? "harmless" : "caught",
               bad == FINE ? "" : bad_names[bad]);
        return bad == FINE;
}

static int try_all(void)
{
        int wrong = 0;

        for (size_t i = 0; i < ARRAY_SIZE(barriers); i++)
                wrong += try_without(&barriers[i], false);
        printf("%zu barriers taken away, %d not noticed\n", ARRAY_SIZE(barriers), wrong);
        return wrong ? 1 : 0;
}

static int try_named(const char *name)
{
        for (size_t i = 0; i < ARRAY_SIZE(barriers); i++)
                if (streq(barriers[i].name, name))
                        return !try_without(&barriers[i], true);
        fprintf(stderr, "no barrier is called \"%s\"; --rules lists them\n", name);
        return 2;
}

static int explore(const char *which, int from, int to)
{
        char about[64];
        int bad = FINE;

        world_table = half_table;
        for (side = from; side <= to; side++)
                for (size_t i = 0; i < ARRAY_SIZE(sets); i++) {
                        if (which && !streq(which, sets[i].name))
                                continue;
                        use(&sets[i]);
                        (void) snprintf(about, sizeof about, "%-11s %-7s ",
                                        side == S ? "source" : "destination", sets[i].name);
                        if (search(&how, about) != FINE)
                                bad = 1;
                        fflush(stdout);
                }
        return bad;
}

static int usage(FILE *f)
{
        fprintf(f,
                "barriers [--side source|destination] [--devices WORD] [--cuts N] [--faults N] [--break BARRIER | "
                "--rules | --all]\n");
        return 2;
}

int main(int argc, char **argv)
{
        static const struct option options[] = {{"side", required_argument, NULL, 's'},
                                                {"devices", required_argument, NULL, 'd'},
                                                {"cuts", required_argument, NULL, 'u'},
                                                {"faults", required_argument, NULL, 'f'},
                                                {"break", required_argument, NULL, 'b'},
                                                {"rules", no_argument, NULL, 'r'},
                                                {"all", no_argument, NULL, 'a'},
                                                {"help", no_argument, NULL, 'h'},
                                                {}};
        const char *broken = NULL, *which = NULL;
        int from = S, to = D, c;
        bool all = false;

        max_crashes = max_cuts = 0;
        world_half_alone = true;
        while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0)
                switch (c) {
                case 's': from = to = streq(optarg, "source") ? S : D; break;
                case 'd': which = optarg; break;
                case 'u': max_cuts = atoi(optarg); break;
                case 'f': max_faults = atoi(optarg); break;
                case 'b': broken = optarg; break;
                case 'r':
                        for (size_t i = 0; i < ARRAY_SIZE(barriers); i++)
                                printf("%-20s %s\n", barriers[i].name, barriers[i].text);
                        return 0;
                case 'a': all = true; break;
                case 'h': usage(stdout); return 0;
                default: return usage(stderr);
                }
        if (all)
                return try_all();
        return broken ? try_named(broken) : explore(which, from, to);
}
