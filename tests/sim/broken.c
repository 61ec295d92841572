/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Tables with one rule broken, made from the real ones. The names are those of the project's model of the ownership
 * rules, which an independent program explored first; what it found caught or harmless must be so here. It knows no
 * device that hangs: that one rule is ours. */

#include "broken.h"

static HalfStateDesc broken_states[HALF_STATE_MAX];
static HalfRow broken_rows[SIDE_MAX][160];
static HalfRows broken_sides[SIDE_MAX];
static HalfRestore broken_restores[32];

static void copy_tables(void)
{
        world_table = half_table;
        memcpy(broken_states, half_table.states, sizeof broken_states);
        memcpy(broken_restores, half_table.restores, half_table.n_restores * sizeof broken_restores[0]);
        for (Side side = 0; side < SIDE_MAX; side++) {
                const HalfRows *rows = half_table.side[side];

                assert(rows->n + 8 < ARRAY_SIZE(broken_rows[side]));
                memcpy(broken_rows[side] + 8, rows->rows, rows->n * sizeof(HalfRow));
                broken_sides[side] = (HalfRows){broken_rows[side] + 8, rows->n};
                world_table.side[side] = &broken_sides[side];
        }
        world_table.states = broken_states;
        world_table.restores = broken_restores;
        old_link = forget_discard = first_go_returns = unheard_resets = believes = deaf_fence = false;
}

/* A row before all others. */
static void first_row(Side side, HalfRow row)
{
        broken_sides[side].rows--;
        broken_sides[side].n++;
        broken_rows[side][broken_sides[side].rows - broken_rows[side]] = row;
}

static void restore_to(Side side, Owner owner, int vmm_lives, HalfState to)
{
        for (uint32_t i = 0; i < world_table.n_restores; i++)
                if (broken_restores[i].side == side && broken_restores[i].owner == owner &&
                    broken_restores[i].vmm_lives == vmm_lives)
                        broken_restores[i].to = to;
}

/* Whatever its devices read, the destination goes on there. */
static void restore_ran(bool ran)
{
        for (uint32_t i = 0; i < world_table.n_restores; i++)
                if (broken_restores[i].side == SIDE_DESTINATION && broken_restores[i].device_ran == !ran)
                        broken_restores[i].owner = OWNER_UNRECORDED; /* never */
                else if (broken_restores[i].side == SIDE_DESTINATION && broken_restores[i].device_ran == ran)
                        broken_restores[i].device_ran = -1;
}

static void break_go_before_record(void)
{
        first_row(SIDE_SOURCE,
                  (HalfRow){IN(SOURCE_INTAKE), HALF_REACHED, .next = SOURCE_NOBODY, .send = MESSAGE_GO});
}

static void break_start_before_record(void)
{
        first_row(SIDE_DESTINATION,
                  (HalfRow){IN(DESTINATION_READY), HALF_MESSAGE, MESSAGE_GO, .next = DESTINATION_ARRIVE});
}

static void break_resume_on_cut(void)
{
        first_row(SIDE_SOURCE, (HalfRow){SOURCE_TRANSIT, HALF_CUT, .next = SOURCE_ABORT});
}

static void break_give_up_after_go(void)
{
        first_row(SIDE_DESTINATION, (HalfRow){IN(DESTINATION_RUN), HALF_FAILED, .next = DESTINATION_PROMISE});
}

static void break_release_early(void)
{
        broken_states[SOURCE_GO].vmm = VMM_ACT_END;
}

static void break_abort_when_dead(void)
{
        first_row(SIDE_SOURCE, (HalfRow){SOURCE_BACK, HALF_VMM_GONE, .next = HALF_STAY});
        first_row(SIDE_SOURCE, (HalfRow){SOURCE_MOVING, HALF_VMM_GONE, .next = SOURCE_ABORT});
}

static void break_give_up_alone(void)
{
        broken_states[DESTINATION_READY].time = HALF_TIME_PHASE;
        first_row(SIDE_DESTINATION,
                  (HalfRow){IN(DESTINATION_READY), HALF_DEADLINE, .next = DESTINATION_GATHER});
}

static void break_go_unsealed(void)
{
        broken_states[SOURCE_DRAIN].expect = MESSAGE_NONE;
        first_row(SIDE_SOURCE,
                  (HalfRow){IN(SOURCE_DRAIN), HALF_MESSAGE, MESSAGE_REACHED, .next = SOURCE_INTAKE});
}

static void break_destroy_on_refusal(void)
{
        first_row(SIDE_DESTINATION,
                  (HalfRow){IN(DESTINATION_ARRIVE), HALF_FAILED, .next = DESTINATION_GATHER});
}

static void break_promise_while_hanging(void)
{
        first_row(SIDE_DESTINATION,
                  (HalfRow){IN(DESTINATION_UNARRIVE), HALF_REACHED, .next = DESTINATION_PROMISE});
}

static void break_ready_without_pages(void)
{
        first_row(SIDE_DESTINATION,
                  (HalfRow){IN(DESTINATION_TAKE_IN), HALF_REACHED, .next = DESTINATION_INTAKE});
}

static void break_end_before_running(void)
{
        first_row(SIDE_SOURCE,
                  (HalfRow){IN(SOURCE_ABORT), HALF_REACHED, .next = SOURCE_LOOK, .send = MESSAGE_END});
}

static void break_end_after_restart(void)
{
        restore_to(SIDE_SOURCE, OWNER_ABORTED, 0, SOURCE_END);
}

static void break_guess_not_run(void)
{
        restore_to(SIDE_DESTINATION, OWNER_DESTINATION, 0, DESTINATION_PROMISE);
}

static void break_forget_give_up(void)
{
        forget_discard = true;
}

static void break_old_link(void)
{
        old_link = true;
}

static void break_go_always_returns(void)
{
        first_go_returns = true;
}

static void break_resume_first(void)
{
        for (uint32_t i = 0; i < broken_sides[SIDE_SOURCE].n; i++) {
                HalfRow *row = &broken_rows[SIDE_SOURCE][8 + i];

                if ((row->in & IN(SOURCE_PREPARE)) && row->next == SOURCE_ABORT)
                        row->next = SOURCE_LOOK;
        }
}

/* Of a device that its VMM drives this asks nothing; a state without any act would wait for ever. */
#define ASKS_NOTHING DEVICE_ACT_LOG

static void break_no_intake(void)
{
        broken_states[DESTINATION_INTAKE].device = ASKS_NOTHING;
        broken_states[DESTINATION_ARRIVE].device = ASKS_NOTHING;
}

static void break_no_settle(void)
{
        broken_states[SOURCE_SETTLE].device = ASKS_NOTHING;
}

static void break_not_stopped(void)
{
        broken_states[SOURCE_INTAKE].device = ASKS_NOTHING;
}

static void break_unheard_reset(void)
{
        unheard_resets = true;
}

static void break_nothing_ran(void)
{
        restore_ran(false);
}

static void break_wrong_word(void)
{
        believes = true;
}

static void break_deaf_fence(void)
{
        deaf_fence = true;
}

static void break_fence_later(void)
{
        first_row(SIDE_SOURCE,
                  (HalfRow){IN(SOURCE_DOUBT), HALF_RESOLVE, .when = WHEN_RUN_HERE, .next = SOURCE_ABORT});
}

static void break_resolve_moving(void)
{
        first_row(SIDE_DESTINATION, (HalfRow){IN(DESTINATION_MAYBE), HALF_RESOLVE, .when = WHEN_DISCARD_HERE,
                                              .next = DESTINATION_PROMISE});
}

static void break_resolve_unrecorded(void)
{
        first_row(SIDE_DESTINATION,
                  (HalfRow){IN(DESTINATION_READY), HALF_RESOLVE, .when = WHEN_RUN_HERE | WHEN_UNLINKED,
                            .next = DESTINATION_ARRIVE, .noway = true});
}

static void break_done_unheard(void)
{
        first_row(SIDE_SOURCE,
                  (HalfRow){IN(SOURCE_DOUBT), HALF_RESOLVE, .when = WHEN_DISCARD_HERE | WHEN_VMM_GONE,
                            .next = SOURCE_DONE, .heard = true});
}

static void break_promise_unheld(void)
{
        first_row(SIDE_DESTINATION,
                  (HalfRow){IN(DESTINATION_UNDO), HALF_FAILED, .next = DESTINATION_PROMISE});
}

static void break_promise_unasked(void)
{
        first_row(SIDE_DESTINATION,
                  (HalfRow){DESTINATION_GATING, HALF_VMM_GONE, .when = WHEN_HELD, .next = DESTINATION_LOOK});
}

static void break_restart_goes_on(void)
{
        restore_to(SIDE_SOURCE, OWNER_SOURCE, 1, SOURCE_NOBODY);
}

static void break_prune_early(void)
{
        first_row(SIDE_DESTINATION, (HalfRow){IN(DESTINATION_DONE), HALF_REACHED, .next = DESTINATION_OVER,
                                              .send = MESSAGE_STARTED, .acked = true});
}

static void break_unknown_is_no(void)
{
        break_prune_early();
        first_row(SIDE_SOURCE, (HalfRow){SOURCE_TRANSIT, HALF_MESSAGE, MESSAGE_UNKNOWN,
                                         .when = WHEN_VMM_LIVES, .next = SOURCE_ABORT});
}

static void break_fence_early(void)
{
        first_row(SIDE_SOURCE,
                  (HalfRow){SOURCE_MOVING, HALF_CUT, .when = WHEN_VMM_LIVES, .next = SOURCE_FENCE});
}

const Rule broken_rules[] = {
        {"go-before-record", "source sends GO before owner=nobody is durable", true, break_go_before_record},
        {"start-before-record", "destination starts the VM before owner=destination is durable", true,
         break_start_before_record},
        {"resume-on-cut", "source resumes by itself when the link is cut after GO", true, break_resume_on_cut,
         .cuts = 1},
        {"give-up-after-go", "destination gives up by itself when it may have started", true,
         break_give_up_after_go, .crashes = 1},
        {"release-early", "source ends its VMM when it sends GO", true, break_release_early},
        {"abort-when-dead", "source aborts although its VMM is dead and the destination has everything", true,
         break_abort_when_dead, .crashes = 1, .cuts = 1},
        {"give-up-alone", "a destination that has everything gives up by itself", true, break_give_up_alone,
         .crashes = 1},
        {"go-unsealed", "source sends GO while its VMM could still resume by itself", true,
         break_go_unsealed},
        {"destroy-on-refusal", "a destination that can't start destroys its copy at once", true,
         break_destroy_on_refusal, .faults = 1, .crashes = 1},
        {"promise-while-hanging", "destination promises although a device may yet begin to run", true,
         break_promise_while_hanging, .faults = 1},
        {"ready-without-pages", "destination is READY with what has come when the source is gone", true,
         break_ready_without_pages, .dma = true, .cuts = 1, .crashes = 1},
        {"no-intake", "the VMM starts before its device was asked to accept its state", true, break_no_intake,
         .its_vmm = true},
        {"no-settle", "source says END without a look where the VMM's device was left", true, break_no_settle,
         .faults = 1, .its_vmm = true},
        {"not-stopped", "source gives the VM up when its VMM is sealed, wherever the VMM's device is", true,
         break_not_stopped, .its_vmm = true},
        {"unheard-reset", "that its VMM has reset a device is not heard of", true, break_unheard_reset,
         .faults = 1, .its_vmm = true},
        {"nothing-ran", "a restarted destination believes the VMM's device that nothing was started", false,
         break_nothing_ran, .its_vmm = true, .crashes = 1},
        {"promise-unheld", "destination promises although the hold of its vCPUs had ended", true,
         break_promise_unheld, .faults = 1, .its_vmm = true, .held = true},
        {"promise-unasked", "... or its VMM has died and nobody asked whether they were held until then",
         true, break_promise_unasked, .its_vmm = true, .held = true, .crashes = 2},
        {"end-before-running", "source says END when it has recorded the abort, before it runs", true,
         break_end_before_running, .crashes = 1},
        {"end-after-restart", "a restarted source with a dead VMM says END", true, break_end_after_restart,
         .crashes = 1, .cuts = 1},
        {"guess-not-run", "a destination that finds its VMM gone says that it never ran", true,
         break_guess_not_run, .crashes = 1},
        {"wrong-word", "an operator has the source run, or a copy start, while the other side lives", true,
         break_wrong_word, .resolves = 1},
        {"deaf-fence", "a fence that failed is taken for one that has done it", true, break_deaf_fence,
         .faults = 1, .resolves = 1, .fence = true},
        {"fence-later", "source runs on an operator's word before the destination is fenced", true,
         break_fence_later, .resolves = 1, .fence = true},
        {"resolve-moving", "an operator gives up what ran at the destination while its device goes on", true,
         break_resolve_moving, .resolves = 1, .crashes = 1},
        {"resolve-unrecorded", "destination starts on an operator's word before that is durable", true,
         break_resolve_unrecorded, .resolves = 1, .crashes = 1},
        {"done-unheard", "a source that nobody has heard of the VM from is done, when it was given up there",
         true, break_done_unheard, .resolves = 2, .crashes = 1},
        {"restart-goes-on", "a restarted source goes on with a job that had no owner=nobody", true,
         break_restart_goes_on, .crashes = 1},
        {"prune-early", "destination forgets the job before the source has acknowledged that it runs there",
         true, break_prune_early, .cuts = 1},
        {"unknown-is-no", "... and a job that nobody has a record of is taken for aborted", true,
         break_unknown_is_no, .cuts = 1},
        {"fence-early", "source fences before GO", true, break_fence_early, .cuts = 1, .faults = 1,
         .fence = true},
        {"forget-give-up", "destination does not remember that it discarded its copy", false,
         break_forget_give_up, .crashes = 1, .cuts = 1},
        {"old-link", "messages of a cut link may still arrive", false, break_old_link, .crashes = 1,
         .cuts = 1},
        {"go-always-returns", "the first GO never says that there is no way back", false,
         break_go_always_returns, .crashes = 1, .cuts = 1},
        {"resume-first", "before owner=nobody, source resumes before it has recorded the abort", false,
         break_resume_first, .crashes = 1, .cuts = 1},
};

const size_t n_broken_rules = ARRAY_SIZE(broken_rules);

void print_rules(void)
{
        for (size_t i = 0; i < n_broken_rules; i++)
                printf("%-20s %-8s %s\n", broken_rules[i].name,
                       broken_rules[i].caught ? "caught" : "harmless", broken_rules[i].text);
}

const Rule *find_rule(const char *name)
{
        for (size_t i = 0; i < n_broken_rules; i++)
                if (streq(broken_rules[i].name, name))
                        return &broken_rules[i];
        return NULL;
}

int break_rule(const char *name)
{
        const Rule *rule = find_rule(name);

        if (!rule)
                return -ENOENT;
        copy_tables();
        rule->apply();
        return 0;
}
