/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The explorer in tests/sim walks everything that can happen to one device; here are the rules that need several, and
 * what the half says to the outside. */

#include <stdio.h>

#include "daemon/core/half-table.h"
#include "test.h"

#define N 4

/* A half with four devices, and the commands that it has given and that are not answered yet. */
typedef struct Rig {
        Plan plan;
        HalfEffects effects;
        HalfEffect asked[N], vmm, record, connect;
        bool has[N], has_vmm, has_record, has_connect;
        Message sent[64];
        uint32_t n_sent;
        uint64_t timer_usec;
        DeviceState device[N];
        uint32_t flags[N]; /* what they can */
        DeviceOp last[N];  /* the last thing that was asked of each */
        union {
                Half half;
                uint8_t room[sizeof(Half) + N * sizeof(HalfDevice)];
        };
} Rig;

#define DMA (DEVICE_DMA_LOGGING | DEVICE_HAS_DMA) /* all of them write the VM's memory */

#define DRIVEN (DEVICE_SUPERVISED | DEVICE_KERNEL)

static const uint32_t p2p[N] = {3, 1, 3, 1}; /* every other device has the P2P states */
/* Two that the VMM drives, with PRE_COPY and without, beside two of ours. */
static const uint32_t mixed[N] = {3 | DMA, DRIVEN | 7, 1 | DMA, DRIVEN | 3};

static void rig_event(Rig *rig, HalfEvent event)
{
        assert_int_equal(half_step(&half_table, &rig->plan, &rig->half, &event, &rig->effects), 0);
        for (uint32_t i = 0; i < rig->effects.n; i++) {
                HalfEffect *fx = &rig->effects.items[i];

                switch (fx->type) {
                case HALF_EFFECT_DEVICE:
                        rig->asked[fx->device] = *fx;
                        rig->has[fx->device] = true;
                        break;
                case HALF_EFFECT_VMM:
                        rig->vmm = *fx;
                        rig->has_vmm = true;
                        break;
                case HALF_EFFECT_RECORD:
                        rig->record = *fx;
                        rig->has_record = true;
                        break;
                case HALF_EFFECT_CONNECT:
                        rig->connect = *fx;
                        rig->has_connect = true;
                        break;
                case HALF_EFFECT_SEND: rig->sent[rig->n_sent++ % 64] = fx->message; break;
                case HALF_EFFECT_TIMER: rig->timer_usec = fx->deadline_usec; break;
                case HALF_EFFECT_FENCE:
                case HALF_EFFECT_ACKED:
                case HALF_EFFECT_MAX: break;
                }
        }
}

static bool is_driven(const Rig *rig, uint32_t i)
{
        return rig->flags[i] & DEVICE_SUPERVISED;
}

/* The VMM's own devices can't be had before it has started. */
static void set_device(Rig *rig, uint32_t i)
{
        bool there = !is_driven(rig, i);

        half_set_device(&rig->half, i, there ? rig->flags[i] : DRIVEN,
                        there ? DEVICE_STATE_RUNNING : DEVICE_STATE_UNKNOWN);
        half_set_gone(&rig->half, i, !there);
}

static void rig_init_with(Rig *rig, Side side, const uint32_t flags[N])
{
        ManifestDevice devices[N] = {};
        Manifest manifest = {.vmm = {.type = VMM_TYPE_QMP, .can_hold = true},
                             .kernel = "6.12.107",
                             .n_devices = N,
                             .devices = devices};

        memset(rig, 0, sizeof *rig);
        for (int i = 0; i < N; i++) {
                rig->flags[i] = devices[i].migration_flags = flags[i];
                rig->device[i] = DEVICE_STATE_RUNNING;
                if (side == SIDE_DESTINATION && is_driven(rig, (uint32_t) i))
                        rig->device[i] = DEVICE_STATE_STOP; /* left by a job that nobody remembers */
        }
        assert_int_equal(plan_build(&rig->plan, &manifest, &(PolicyRules){}, 10 * USEC_PER_SEC), 0);
        assert_int_equal(half_effects_init(&rig->effects, N), 0);
        half_init(&rig->half, side, N, false);
        for (uint32_t i = 0; i < N; i++)
                set_device(rig, i);
        rig_event(rig, (HalfEvent){.type = HALF_LINKED});
        rig_event(rig, (HalfEvent){.type = HALF_START});
}

static void rig_init(Rig *rig, Side side)
{
        uint32_t flags[N];

        for (int i = 0; i < N; i++)
                flags[i] = p2p[i] | DMA;
        rig_init_with(rig, side, flags);
}

static void rig_deinit(Rig *rig)
{
        half_effects_deinit(&rig->effects);
        plan_deinit(&rig->plan);
}

static bool rig_said(const Rig *rig, Message message)
{
        for (uint32_t i = 0; i < rig->n_sent; i++)
                if (rig->sent[i] == message)
                        return true;
        return false;
}

static void rig_device_ok(Rig *rig, uint32_t i)
{
        HalfEvent event = {HALF_RESULT, HALF_WHO_DEVICE, .device = i, .step = rig->asked[i].step};

        assert_true(rig->has[i]);
        rig->has[i] = false;
        for (uint32_t k = 0; k < rig->asked[i].program.n; k++) {
                DeviceOp op = rig->asked[i].program.ops[k];

                rig->last[i] = op;
                if (op.type == DEVICE_OP_SET) {
                        assert_int_equal(op.from, rig->device[i]);
                        rig->device[i] = op.to;
                } else if (op.type == DEVICE_OP_NUDGE || op.type == DEVICE_OP_EXPECT) {
                        assert_true(rig->device[i] == op.from || rig->device[i] == op.to);
                        if (op.type == DEVICE_OP_NUDGE)
                                rig->device[i] = op.to;
                } else if (op.type == DEVICE_OP_RESET) {
                        rig->device[i] = DEVICE_STATE_RUNNING;
                        event.was_reset = true;
                }
        }
        event.state = rig->device[i];
        half_set_flags(&rig->half, i, rig->flags[i]);
        rig_event(rig, event);
}

static void rig_device_fails(Rig *rig, uint32_t i, DeviceState from, DeviceState to, DeviceState state)
{
        rig->has[i] = false;
        rig->device[i] = state;
        rig_event(rig, (HalfEvent){HALF_RESULT, HALF_WHO_DEVICE, .device = i, .step = rig->asked[i].step,
                                   .status = -EIO, .from = from, .to = to, .state = state});
}

/* All that were asked in this step; the last answer may begin the next one. */
static void rig_devices_ok(Rig *rig)
{
        uint32_t step = rig->half.step;

        for (uint32_t i = 0; i < N; i++)
                if (rig->has[i] && rig->asked[i].step == step)
                        rig_device_ok(rig, i);
}

/* What QEMU does with its own devices in each act, when all goes well. What it has not set itself it does not undo. */
static void vmm_moves(Rig *rig, uint32_t i, VmmAct act)
{
        bool saves = rig->flags[i] & DEVICE_MIGRATION_PRE_COPY;
        DeviceState *state = &rig->device[i];

        switch (act) {
        case VMM_ACT_MIGRATE:
                if (saves)
                        *state = DEVICE_STATE_PRE_COPY;
                break;
        case VMM_ACT_HALT: *state = saves ? DEVICE_STATE_PRE_COPY_P2P : DEVICE_STATE_RUNNING_P2P; break;
        case VMM_ACT_SEAL: *state = DEVICE_STATE_STOP_COPY; break; /* read to its end, and not stopped yet */
        case VMM_ACT_RESUME:
                if (*state != DEVICE_STATE_RUNNING_P2P || saves)
                        *state = DEVICE_STATE_RUNNING;
                break;
        case VMM_ACT_TAKE_IN: *state = DEVICE_STATE_RESUMING; break;
        case VMM_ACT_ARRIVE: *state = DEVICE_STATE_RUNNING_P2P; break;
        case VMM_ACT_GATE:
        case VMM_ACT_RUN: *state = DEVICE_STATE_RUNNING; break;
        case VMM_ACT_HOLD:
        case VMM_ACT_UNDO:
        case VMM_ACT_NONE:
        case VMM_ACT_LOOK:
        case VMM_ACT_PREPARE:
        case VMM_ACT_END:
        case VMM_ACT_START:
        case VMM_ACT_VERIFY:
        case VMM_ACT_MAX:
        case VMM_ACT_INVALID: break;
        }
}

static void rig_vmm(Rig *rig, int status)
{
        assert_true(rig->has_vmm);
        rig->has_vmm = false;
        for (uint32_t i = 0; i < N && status == 0; i++)
                if (is_driven(rig, i))
                        vmm_moves(rig, i, rig->vmm.vmm_act);
        rig_event(rig, (HalfEvent){HALF_RESULT, HALF_WHO_VMM, .step = rig->vmm.step, .status = status});
}

static void rig_record(Rig *rig, int status)
{
        assert_true(rig->has_record);
        rig->has_record = false;
        rig_event(rig, (HalfEvent){HALF_RESULT, HALF_WHO_RECORD, .step = rig->record.step, .status = status});
}

static void rig_message(Rig *rig, Message message, Phase phase)
{
        rig_event(rig, (HalfEvent){HALF_MESSAGE, .message = message, .phase = phase});
}

/* Everything that is asked is done, until `state` is entered. */
static void rig_until(Rig *rig, HalfState state)
{
        for (int i = 0; i < 60 && rig->half.state != state; i++) {
                Message expect = half_states[rig->half.state].expect;

                if (rig->has_record)
                        rig_record(rig, 0);
                else if (rig->has_vmm)
                        rig_vmm(rig, 0);
                else if (rig->has_connect) {
                        rig->has_connect = false;
                        rig_event(rig, (HalfEvent){HALF_RESULT, HALF_WHO_PEER, .step = rig->connect.step});
                } else if (rig->has[0] || rig->has[1] || rig->has[2] || rig->has[3])
                        rig_devices_ok(rig);
                else if (rig->half.state == SOURCE_GO)
                        rig_message(rig, MESSAGE_STARTED, 0);
                else if (rig->half.state == SOURCE_CLOSE)
                        rig_message(rig, MESSAGE_DONEACK, 0);
                else if (rig->half.state == SOURCE_END)
                        rig_message(rig, MESSAGE_ENDED, 0);
                else if (rig->half.state == DESTINATION_LOADED)
                        rig_message(rig, MESSAGE_BEGIN, PHASE_INTAKE);
                else if (rig->half.state == DESTINATION_READY)
                        rig_message(rig, MESSAGE_GO, 0);
                else if (rig->half.state == DESTINATION_STARTED)
                        rig_message(rig, MESSAGE_DONE, 0);
                else
                        rig_message(rig, expect, half_states[rig->half.state].phase);
        }
        assert_string_equal(half_states[rig->half.state].name, half_states[state].name);
}

/* States that are passed by unless vCPUs are held. */
static bool is_for_held(HalfState state)
{
        return state == DESTINATION_GATE || state == DESTINATION_GATED;
}

/* States in which only devices that their VMM drives have something to do; without such they are passed through. */
static bool is_for_driven(HalfState state)
{
        return state == SOURCE_VIOMMU_GRACE || state == SOURCE_SETTLE || state == DESTINATION_ADOPT ||
               state == DESTINATION_CLEAN || state == DESTINATION_VMM_ARRIVE || state == DESTINATION_PUSH ||
               state == DESTINATION_SETTLE || is_for_held(state);
}

/* ---- barriers ------------------------------------------------------------------------------------------------ */

static void test_first_grace_barrier_is_for_p2p_devices_only(void **state)
{
        Rig rig;

        rig_init(&rig, SIDE_SOURCE);
        rig_until(&rig, SOURCE_P2P_GRACE);
        for (uint32_t i = 0; i < N; i++)
                assert_int_equal(rig.has[i], (p2p[i] & 2) != 0);
        rig_device_ok(&rig, 2);
        assert_int_equal(rig.half.state, SOURCE_P2P_GRACE);
        assert_false(rig.has[1] || rig.has[3]);
        rig_device_ok(&rig, 0);
        assert_int_equal(rig.half.state, SOURCE_STOP_REST);
        for (uint32_t i = 0; i < N; i++)
                assert_int_equal(rig.has[i], (p2p[i] & 2) == 0);
        rig_deinit(&rig);
}

/* In every state that commands devices: as long as one of them has not answered, the half stays and asks nothing of
 * anybody else, whoever answers first. */
static void see_no_device_pass(const uint32_t flags[N], bool driven)
{
        static const Side sides[] = {SIDE_SOURCE, SIDE_DESTINATION};

        for (size_t s = 0; s < 2; s++)
                for (HalfState at = 0; at < HALF_STATE_MAX; at++)
                        for (uint32_t last = 0; last < N; last++) {
                                bool back = half_states[at].job != JOB_STATE_RUNNING;
                                Rig rig;

                                if ((at >= DESTINATION_RECORD) != (sides[s] == SIDE_DESTINATION))
                                        continue;
                                if (half_states[at].device == DEVICE_ACT_NONE || back ||
                                    (is_for_driven(at) && !driven) || at == DESTINATION_ARRIVE_AGAIN ||
                                    at == DESTINATION_FIND || at == DESTINATION_RUN_AGAIN ||
                                    at == DESTINATION_REPAIR)
                                        continue;
                                rig_init_with(&rig, sides[s], flags);
                                rig.plan.hold_vcpus = is_for_held(at);
                                rig_until(&rig, at);
                                if (rig.has_vmm)
                                        rig_vmm(&rig, 0);
                                if (half_states[at].expect)
                                        rig_message(&rig, half_states[at].expect, half_states[at].phase);
                                if (!rig.has[last] || rig.half.state != at) {
                                        rig_deinit(&rig);
                                        continue;
                                }
                                for (uint32_t i = 0; i < N; i++)
                                        if (i != last && rig.has[i]) {
                                                rig_device_ok(&rig, i);
                                                assert_int_equal(rig.half.state, at);
                                                assert_false(rig.has[i]);
                                                assert_false(rig.has_vmm || rig.has_record);
                                        }
                                rig_device_ok(&rig, last);
                                if (rig.half.state == at)
                                        rig_devices_ok(&rig); /* whose turn comes after those */
                                assert_int_not_equal(rig.half.state, at);
                                rig_deinit(&rig);
                        }
}

static void test_no_device_passes_a_barrier_before_all_have_reached_it(void **state)
{
        static const uint32_t ours[N] = {3 | DMA, 1 | DMA, 3 | DMA, 1 | DMA};

        see_no_device_pass(ours, false);
        see_no_device_pass(mixed, true);
}

static void test_the_way_back_has_the_same_barriers(void **state)
{
        Rig rig;

        rig_init(&rig, SIDE_SOURCE);
        rig_until(&rig, SOURCE_INTAKE);
        rig_event(&rig, (HalfEvent){.type = HALF_CUT});
        rig_record(&rig, 0);
        assert_int_equal(rig.half.state, SOURCE_LOOK);
        rig_devices_ok(&rig);
        assert_int_equal(rig.half.state, SOURCE_BACK_P2P);
        for (uint32_t i = 0; i < N; i++)
                assert_int_equal(rig.has[i], (p2p[i] & 2) != 0);
        rig_device_ok(&rig, 0);
        assert_int_equal(rig.half.state, SOURCE_BACK_P2P);
        rig_device_ok(&rig, 2);
        assert_int_equal(rig.half.state, SOURCE_BACK_RUN);
        for (uint32_t i = 0; i < N; i++)
                assert_int_equal(rig.has[i], (p2p[i] & 2) == 0);
        rig_devices_ok(&rig);
        assert_int_equal(rig.half.state, SOURCE_BACK_RUN);
        for (uint32_t i = 0; i < N; i++)
                assert_int_equal(rig.has[i], (p2p[i] & 2) != 0);
        assert_false(rig.has_vmm); /* vCPUs last */
        rig_devices_ok(&rig);
        assert_int_equal(rig.half.state, SOURCE_RESUME);
        for (uint32_t i = 0; i < N; i++)
                assert_int_equal(rig.device[i], DEVICE_STATE_RUNNING);
        rig_deinit(&rig);
}

/* One without P2P states stands until it runs, and nobody may write to it meanwhile: those with them stay quiet until it has
 * answered, well or not, whatever order policy gives them. */
static void test_who_cannot_be_quiet_runs_before_all_others(void **state)
{
        for (int back = 0; back < 2; back++)
                for (int fails = 0; fails < 2; fails++) {
                        HalfState at = back ? SOURCE_BACK_RUN : DESTINATION_RUN_DEVICES;
                        Rig rig;

                        rig_init(&rig, back ? SIDE_SOURCE : SIDE_DESTINATION);
                        for (uint32_t i = 0; i < N; i++)
                                rig.plan.devices[i].order = p2p[i] & 2 ? 0 : PLAN_ORDERS - 1;
                        rig_until(&rig, back ? SOURCE_INTAKE : at);
                        if (back) {
                                rig_event(&rig, (HalfEvent){.type = HALF_CUT});
                                rig_until(&rig, at);
                        }
                        assert_true(!rig.has[0] && rig.has[1] && !rig.has[2] && rig.has[3]);
                        rig_device_ok(&rig, 1);
                        assert_true(!rig.has[0] && !rig.has[2]);
                        rig.timer_usec = 0;
                        if (!fails)
                                rig_device_ok(&rig, 3);
                        else if (back) /* says nothing */
                                rig_event(&rig, (HalfEvent){.type = HALF_DEADLINE});
                        else
                                rig_device_fails(&rig, 3, DEVICE_STATE_STOP, DEVICE_STATE_RUNNING,
                                                 DEVICE_STATE_STOP);
                        if (fails && !back) {
                                assert_int_not_equal(rig.half.state, at); /* it is looked at first */
                        } else {
                                assert_int_equal(rig.half.state, at);
                                assert_true(rig.has[0] && rig.has[2]);
                                assert_true(rig.timer_usec > USEC_PER_SEC);
                        }
                        rig_deinit(&rig);
                }
}

/* ---- failures ------------------------------------------------------------------------------------------------ */

static void test_a_device_that_answers_late_in_drain_turns_the_job_back(void **state)
{
        Rig rig;
        uint32_t late;

        rig_init(&rig, SIDE_SOURCE);
        rig_until(&rig, SOURCE_DRAIN);
        late = rig.asked[1].step;
        rig.has[1] = false;
        rig_device_ok(&rig, 0);
        rig_event(&rig, (HalfEvent){.type = HALF_DEADLINE});
        assert_int_equal(rig.half.state, SOURCE_ABORT);
        assert_int_equal(rig.half.failure.cause, HALF_CAUSE_DEADLINE);
        assert_int_equal(rig.half.failure.device, 1);
        rig_record(&rig, 0);

        /* It is interrupted, and so are the others that still drain; what it says of the old command is old. */
        assert_true(rig.asked[1].interrupt);
        assert_false(rig.asked[0].interrupt);
        rig_event(&rig, (HalfEvent){HALF_RESULT, HALF_WHO_DEVICE, .device = 1, .step = late,
                                    .state = DEVICE_STATE_STOP});
        assert_true(rig.half.devices[1].pending);

        /* It says where it is after all, and is taken back with the others. */
        rig.device[1] = DEVICE_STATE_STOP_COPY;
        rig.has[1] = true;
        rig_until(&rig, SOURCE_END);
        assert_int_equal(half_result(&rig.half), JOB_RESULT_FAILED);
        assert_int_equal(rig.device[1], DEVICE_STATE_RUNNING);
        rig_deinit(&rig);
}

static void test_a_source_device_that_hangs_for_good_degrades_the_job(void **state)
{
        Rig rig;

        rig_init(&rig, SIDE_SOURCE);
        rig_until(&rig, SOURCE_DRAIN);
        rig.has[3] = false;
        rig_event(&rig, (HalfEvent){.type = HALF_DEADLINE});
        rig_record(&rig, 0);
        assert_int_equal(rig.half.state, SOURCE_LOOK);
        rig.has[3] = false;
        for (uint32_t i = 0; i < 3; i++)
                rig_device_ok(&rig, i);
        assert_int_equal(rig.half.state, SOURCE_LOOK);
        rig_event(&rig, (HalfEvent){.type = HALF_DEADLINE});
        assert_int_equal(rig.half.state, SOURCE_REOPEN);
        assert_false(rig.has[0] || rig.has[1] || rig.has[2]);
        assert_int_equal(rig.asked[3].program.ops[0].type, DEVICE_OP_REOPEN);
        rig.has[3] = false;
        rig_event(&rig, (HalfEvent){.type = HALF_DEADLINE});
        assert_int_equal(rig.half.state, SOURCE_BACK_P2P);
        assert_false(rig.has[3]);
        rig_until(&rig, SOURCE_FIND);
        assert_true(rig.has[3]); /* one last time */
        rig.has[3] = false;
        rig_event(&rig, (HalfEvent){.type = HALF_DEADLINE});
        rig_until(&rig, SOURCE_REPAIR);
        rig.has[3] = false;
        rig_event(&rig, (HalfEvent){.type = HALF_DEADLINE});
        rig_until(&rig, SOURCE_END);
        assert_true(rig.half.devices[3].lost);
        assert_false(rig.half.devices[0].lost || rig.half.devices[1].lost || rig.half.devices[2].lost);
        assert_int_equal(half_result(&rig.half), JOB_RESULT_DEGRADED);
        assert_true(rig_said(&rig, MESSAGE_END));
        rig_deinit(&rig);
}

static void test_a_source_device_whose_connection_hangs_is_found_over_a_new_one(void **state)
{
        Rig rig;

        rig_init(&rig, SIDE_SOURCE);
        rig_until(&rig, SOURCE_DRAIN);
        rig.has[3] = false;
        rig_event(&rig, (HalfEvent){.type = HALF_DEADLINE});
        rig_until(&rig, SOURCE_LOOK);
        rig_device_fails(&rig, 3, DEVICE_STATE_UNKNOWN, DEVICE_STATE_UNKNOWN, DEVICE_STATE_UNKNOWN);
        rig_until(&rig, SOURCE_REOPEN);
        rig.device[3] = DEVICE_STATE_STOP_COPY; /* it had got so far */
        rig_until(&rig, SOURCE_END);
        assert_false(rig.half.devices[3].lost);
        assert_int_equal(rig.device[3], DEVICE_STATE_RUNNING);
        assert_int_equal(half_result(&rig.half), JOB_RESULT_FAILED);
        rig_deinit(&rig);
}

static void rig_reopens(Rig *rig, uint32_t i, DeviceState state, uint32_t flags)
{
        rig->has[i] = false;
        rig_event(rig, (HalfEvent){.type = HALF_DEVICE_GONE, .device = i});
        if (rig->half.state ==
            SOURCE_INTAKE) /* its state has gone out: only the destination can turn this back */
                rig_message(rig, MESSAGE_FAILED, PHASE_INTAKE);
        rig_until(rig, SOURCE_LOOK);
        assert_int_equal(rig->asked[i].program.ops[0].type, DEVICE_OP_REOPEN);
        rig->device[i] = state;
        half_set_flags(&rig->half, i, flags);
        rig_until(rig, SOURCE_END);
        assert_int_equal(rig->device[i], DEVICE_STATE_RUNNING);
}

/* Its server was started anew: it does not stand any more, and nobody has asked it to run. Only of one that ran, or was
 * about to change, that can't be told. */
static void test_a_source_device_that_forgot_that_it_stands_has_lost_its_state(void **state)
{
        static const struct {
                HalfState in;
                DeviceState found;
                bool lost;
        } cases[] = {
                {SOURCE_INTAKE, DEVICE_STATE_RUNNING, true},
                {SOURCE_INTAKE, DEVICE_STATE_STOP, false},
                {SOURCE_HALT, DEVICE_STATE_RUNNING, false},
                {SOURCE_DRAIN, DEVICE_STATE_RUNNING, false},
        };

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                Rig rig;

                rig_init(&rig, SIDE_SOURCE);
                rig_until(&rig, cases[i].in);
                rig_reopens(&rig, 1, cases[i].found, p2p[1] | DMA);
                assert_int_equal(rig.half.devices[1].lost, cases[i].lost);
                assert_int_equal(half_result(&rig.half),
                                 cases[i].lost ? JOB_RESULT_DEGRADED : JOB_RESULT_FAILED);
                rig_deinit(&rig);
        }
}

/* Its agent has died, and with it the VMM's connection to the device, which the new agent has not. */
static void test_a_source_device_that_its_vmm_has_no_more_is_named(void **state)
{
        for (uint32_t dma = 0; dma <= DEVICE_HAS_DMA; dma += DEVICE_HAS_DMA) {
                Rig rig;

                rig_init(&rig, SIDE_SOURCE);
                rig_until(&rig, SOURCE_DRAIN);
                rig_reopens(&rig, 1, DEVICE_STATE_STOP, p2p[1] | (DMA & ~(uint32_t) DEVICE_HAS_DMA) | dma);
                assert_int_equal(rig.half.devices[1].lost, dma == 0);
                assert_int_equal(rig.half.devices[1].unplugged, dma == 0);
                rig_deinit(&rig);
        }
}

static void test_a_source_device_in_error_is_reset_and_the_job_says_degraded(void **state)
{
        Rig rig;

        rig_init(&rig, SIDE_SOURCE);
        rig_until(&rig, SOURCE_STOP_REST);
        rig_device_fails(&rig, 1, DEVICE_STATE_RUNNING, DEVICE_STATE_STOP, DEVICE_STATE_ERROR);
        assert_int_equal(rig.half.state, SOURCE_ABORT);
        rig_until(&rig, SOURCE_BACK_P2P);
        assert_int_equal(rig.asked[1].program.ops[0].type, DEVICE_OP_RESET);
        rig_until(&rig, SOURCE_END);
        assert_int_equal(half_result(&rig.half), JOB_RESULT_DEGRADED);
        assert_true(rig.half.devices[1].lost);
        rig_deinit(&rig);
}

static void test_a_transition_that_moved_nothing_is_tried_as_often_as_policy_says(void **state)
{
        for (uint32_t retries = 0; retries < 3; retries++) {
                Rig rig;

                rig_init(&rig, SIDE_SOURCE);
                for (uint32_t i = 0; i < N; i++)
                        rig.plan.devices[i].retries = retries;
                rig_until(&rig, SOURCE_P2P_GRACE);
                for (uint32_t i = 0; i < retries; i++) {
                        rig_device_fails(&rig, 0, DEVICE_STATE_RUNNING, DEVICE_STATE_RUNNING_P2P,
                                         DEVICE_STATE_RUNNING);
                        assert_int_equal(rig.half.state, SOURCE_P2P_GRACE);
                        assert_true(rig.has[0]);
                }
                rig_device_fails(&rig, 0, DEVICE_STATE_RUNNING, DEVICE_STATE_RUNNING_P2P,
                                 DEVICE_STATE_RUNNING);
                assert_int_equal(rig.half.state, SOURCE_ABORT);
                rig_deinit(&rig);
        }
}

static void test_a_refused_state_at_the_destination_is_told_and_discarded(void **state)
{
        Rig rig;

        rig_init(&rig, SIDE_DESTINATION);
        rig_until(&rig, DESTINATION_INTAKE);
        rig_vmm(&rig, 0);
        rig_device_ok(&rig, 0);
        rig_device_fails(&rig, 1, DEVICE_STATE_RESUMING, DEVICE_STATE_STOP, DEVICE_STATE_RESUMING);
        assert_true(rig_said(&rig, MESSAGE_FAILED));
        assert_int_equal(rig.half.state, DESTINATION_DISCARD);
        assert_int_equal(rig.half.failure.device, 1);
        assert_int_equal(rig.half.failure.from, DEVICE_STATE_RESUMING);
        /* What was taken in must never run: back to RESUMING, then reset. */
        assert_int_equal(rig.asked[0].program.ops[0].to, DEVICE_STATE_RESUMING);
        assert_int_equal(rig.asked[0].program.ops[1].type, DEVICE_OP_RESET);
        rig_until(&rig, DESTINATION_GONE);
        assert_int_equal(rig.half.owner, OWNER_DISCARDED);
        rig_deinit(&rig);
}

/* Kept open it would be in the way of the next VMM, which may reset it better. */
static void test_a_discarded_device_that_cannot_be_reset_is_let_go(void **state)
{
        Rig rig;

        rig_init(&rig, SIDE_DESTINATION);
        rig_until(&rig, DESTINATION_INTAKE);
        rig_vmm(&rig, 0);
        rig_device_ok(&rig, 0);
        rig_device_fails(&rig, 1, DEVICE_STATE_RESUMING, DEVICE_STATE_STOP, DEVICE_STATE_RESUMING);
        assert_int_equal(rig.half.state, DESTINATION_DISCARD);
        rig_device_fails(&rig, 1, DEVICE_STATE_RESUMING, DEVICE_STATE_RESUMING, DEVICE_STATE_RESUMING);
        assert_true(rig.has[1]);
        assert_int_equal(rig.asked[1].program.n, 1);
        assert_int_equal(rig.asked[1].program.ops[0].type, DEVICE_OP_CLOSE);
        /* Once: one that does not even let go is given up. */
        rig_device_fails(&rig, 1, DEVICE_STATE_RESUMING, DEVICE_STATE_RESUMING, DEVICE_STATE_RESUMING);
        assert_false(rig.has[1]);
        rig_until(&rig, DESTINATION_GONE);
        rig_deinit(&rig);
}

static void test_no_device_running_yet_means_back_and_one_running_means_forward(void **state)
{
        for (uint32_t running = 0; running < 2; running++) {
                Rig rig;

                rig_init(&rig, SIDE_DESTINATION);
                rig_until(&rig, DESTINATION_RUN_DEVICES);
                for (uint32_t i = 1; i < N; i += 2) /* the others are not asked before these run */
                        if (i == 1 && running)
                                rig_device_ok(&rig, 1);
                        else
                                rig_device_fails(&rig, i, rig.device[i], DEVICE_STATE_RUNNING, rig.device[i]);
                if (running) {
                        /* All are asked again; one refuses again, and is reset. */
                        assert_int_equal(rig.half.state, DESTINATION_RUN_AGAIN);
                        assert_false(rig.has[1]);
                        rig_device_fails(&rig, 3, rig.device[3], DEVICE_STATE_RUNNING, rig.device[3]);
                }
                rig_until(&rig, running ? DESTINATION_DONE : DESTINATION_PROMISED);
                for (uint32_t i = 0; i < N; i++) {
                        assert_int_equal(rig.device[i], running ? DEVICE_STATE_RUNNING : DEVICE_STATE_STOP);
                        assert_int_equal(rig.half.devices[i].lost, running && i == 3);
                }
                rig_deinit(&rig);
        }
}

/* The first device answers nothing, or, when its server has ended, only that nobody listens; the others do all. */
static void rig_without_first(Rig *rig, bool ended)
{
        rig->has[0] = false;
        for (uint32_t i = 1; i < N; i++)
                if (rig->has[i])
                        rig_device_ok(rig, i);
        if (!rig->half.devices[0].pending)
                return;
        if (ended)
                rig_event(rig, (HalfEvent){.type = HALF_RESULT,
                                           .who = HALF_WHO_DEVICE,
                                           .step = rig->half.step,
                                           .status = -ECONNREFUSED,
                                           .state = DEVICE_STATE_UNKNOWN,
                                           .absent = true});
        else
                rig_event(rig, (HalfEvent){.type = HALF_DEADLINE});
}

/* It may run, or may yet. A server that has ended is no such danger. */
static void test_nobody_promises_for_a_device_that_hangs(void **state)
{
        for (int ended = 0; ended < 2; ended++) {
                HalfState end = ended ? DESTINATION_PROMISED : DESTINATION_ARRIVE_AGAIN;
                Rig rig;

                rig_init(&rig, SIDE_DESTINATION);
                rig_until(&rig, DESTINATION_ARRIVE);
                if (ended)
                        rig_event(&rig, (HalfEvent){.type = HALF_DEVICE_GONE, .device = 0});
                for (int i = 0; i < 10 && rig.half.state != end; i++)
                        if (rig.has_record)
                                rig_record(&rig, 0);
                        else
                                rig_without_first(&rig, ended);
                assert_int_equal(rig.half.state, end);
                rig_deinit(&rig);
        }
}

static void test_the_first_cause_is_kept(void **state)
{
        Rig rig;

        rig_init(&rig, SIDE_SOURCE);
        rig_until(&rig, SOURCE_DRAIN);
        rig_event(&rig, (HalfEvent){.type = HALF_CANCEL});
        rig_event(&rig, (HalfEvent){.type = HALF_CUT});
        rig_event(&rig, (HalfEvent){.type = HALF_LINKED});
        rig_until(&rig, SOURCE_OVER);
        assert_int_equal(half_result(&rig.half), JOB_RESULT_CANCELLED);
        assert_true(rig.half.acked);
        rig_deinit(&rig);
}

/* ---- cancel, timers, results --------------------------------------------------------------------------------- */

/* Who cancels a job in doubt was told yes: it is said when the other half can be reached again, and whatever it says
 * then but STARTED leads back. */
static void test_a_cancel_in_doubt_is_not_forgotten(void **state)
{
        Rig rig;

        rig_init(&rig, SIDE_SOURCE);
        rig_until(&rig, SOURCE_GO);
        rig_event(&rig, (HalfEvent){.type = HALF_CUT});
        rig_event(&rig, (HalfEvent){.type = HALF_DEADLINE});
        assert_int_equal(rig.half.state, SOURCE_DOUBT);
        rig_event(&rig, (HalfEvent){.type = HALF_CANCEL});
        rig.n_sent = 0;
        rig_event(&rig, (HalfEvent){.type = HALF_LINKED});
        assert_int_equal(rig.n_sent, 1);
        assert_int_equal(rig.sent[0], MESSAGE_ABORT);
        rig_message(&rig, MESSAGE_READY, 0);
        assert_int_equal(rig.n_sent, 2);
        assert_int_equal(rig.sent[1], MESSAGE_ABORT);
        rig_message(&rig, MESSAGE_NOTSTARTED, 0);
        assert_int_equal(rig.half.state, SOURCE_ABORT);
        rig_deinit(&rig);
}

/* Where the words of docs/in-doubt.md have a meaning, and nowhere else. */
static void test_what_a_person_can_decide(void **state)
{
        static const struct {
                HalfState at;
                bool linked, vmm_gone, vmm_resumed, run, discard;
        } cases[] = {
                {SOURCE_DOUBT, .run = true, .discard = true},
                {SOURCE_DOUBT, .linked = true, .run = true, .discard = true},
                {SOURCE_DOUBT, .vmm_gone = true, .discard = true},
                {SOURCE_DOUBT, .vmm_resumed = true, .run = true},
                {SOURCE_ORPHAN, .vmm_gone = true, .discard = true},
                {SOURCE_UNSEEN, .vmm_gone = true, .discard = true},
                {SOURCE_HELD, .run = true},
                {SOURCE_HELD, .vmm_gone = true},
                {DESTINATION_READY, .run = true, .discard = true},
                {DESTINATION_READY, .linked = true, .discard = true},
                {DESTINATION_PROMISED, .run = true, .discard = true},
                {DESTINATION_PROMISED, .linked = true, .discard = true},
                {DESTINATION_PROMISED, .vmm_gone = true, .discard = true},
                {DESTINATION_MAYBE, .vmm_gone = true, .discard = true},
        };
        bool known[HALF_STATE_MAX] = {};

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                Rig rig;

                known[cases[i].at] = true;
                rig_init(&rig, cases[i].at < DESTINATION_RECORD ? SIDE_SOURCE : SIDE_DESTINATION);
                rig.half.state = cases[i].at;
                rig.half.linked = cases[i].linked;
                rig.half.vmm_gone = cases[i].vmm_gone;
                rig.half.vmm_resumed = cases[i].vmm_resumed;
                assert_int_equal(half_may_resolve(&half_table, &rig.plan, &rig.half, RESOLVE_RUN_HERE),
                                 cases[i].run);
                assert_int_equal(half_may_resolve(&half_table, &rig.plan, &rig.half, RESOLVE_DISCARD_HERE),
                                 cases[i].discard);
                rig_deinit(&rig);
        }
        for (HalfState at = 0; at < HALF_STATE_MAX; at++) {
                Rig rig;

                rig_init(&rig, at < DESTINATION_RECORD ? SIDE_SOURCE : SIDE_DESTINATION);
                rig.half.state = at;
                for (Resolve how = RESOLVE_RUN_HERE; how < RESOLVE_MAX && !known[at]; how++) {
                        HalfEvent event = {.type = HALF_RESOLVE, .resolve = how};

                        assert_int_equal(half_step(&half_table, &rig.plan, &rig.half, &event, &rig.effects),
                                         HALF_E_FORBIDDEN);
                        assert_int_equal(rig.half.state, at);
                }
                rig_deinit(&rig);
        }
}

static void test_the_source_runs_on_a_persons_word_when_it_has_fenced(void **state)
{
        for (int status = 0; status >= -EIO; status -= EIO) {
                Rig rig;

                rig_init(&rig, SIDE_SOURCE);
                rig.plan.fence = true;
                rig_until(&rig, SOURCE_GO);
                rig_event(&rig, (HalfEvent){.type = HALF_DEADLINE});
                assert_int_equal(rig.half.state, SOURCE_DOUBT);
                rig_event(&rig, (HalfEvent){.type = HALF_RESOLVE, .resolve = RESOLVE_RUN_HERE});
                assert_int_equal(rig.half.state, SOURCE_FENCE);
                assert_int_equal(rig.effects.items[0].type, HALF_EFFECT_FENCE);
                /* What it says now may come from a host that is being switched off. */
                rig_message(&rig, MESSAGE_STARTED, 0);
                assert_int_equal(rig.half.state, SOURCE_FENCE);
                rig_event(&rig, (HalfEvent){.type = HALF_RESULT,
                                            .who = HALF_WHO_FENCE,
                                            .step = rig.half.step,
                                            .status = status});
                assert_int_equal(rig.half.state, status == 0 ? SOURCE_ABORT : SOURCE_DOUBT);
                rig_deinit(&rig);
        }
}

/* The write of `aborted` was not waited for; it may come through, so what is given up must be written once more. */
static void test_a_record_that_was_not_waited_for_is_not_trusted(void **state)
{
        Rig rig;

        rig_init(&rig, SIDE_SOURCE);
        rig_until(&rig, SOURCE_GO);
        rig_message(&rig, MESSAGE_NOTSTARTED, 0);
        assert_int_equal(rig.half.state, SOURCE_ABORT);
        rig_event(&rig, (HalfEvent){.type = HALF_VMM_GONE});
        assert_int_equal(rig.half.state, SOURCE_UNSEEN);
        rig.has_record = false;
        rig_event(&rig, (HalfEvent){.type = HALF_RESOLVE, .resolve = RESOLVE_DISCARD_HERE});
        rig_until(&rig, SOURCE_NOBODY);
        assert_true(rig.has_record);
        assert_int_equal(rig.record.owner, OWNER_NOBODY);
        assert_true(rig.record.noway);
        rig_deinit(&rig);
}

/* Both sides may have discarded: that the VM runs there the destination alone can say, before or after a restart. */
static void test_a_vm_that_is_given_up_is_lost_until_the_destination_says_that_it_runs(void **state)
{
        for (int heard = 0; heard < 2; heard++) {
                HalfSight sight = {};
                Rig rig;

                rig_init(&rig, SIDE_SOURCE);
                rig_until(&rig, SOURCE_GO);
                rig_event(&rig, (HalfEvent){.type = HALF_DEADLINE});
                rig_event(&rig, (HalfEvent){.type = HALF_RESOLVE, .resolve = RESOLVE_DISCARD_HERE});
                rig_until(&rig, SOURCE_GO);
                assert_true(rig.half.vmm_gone);
                rig_event(&rig, (HalfEvent){.type = HALF_DEADLINE});
                assert_int_equal(rig.half.state, SOURCE_DOUBT);
                if (heard)
                        rig_message(&rig, MESSAGE_STARTED, 0);
                else
                        rig_event(&rig, (HalfEvent){.type = HALF_RESOLVE, .resolve = RESOLVE_DISCARD_HERE});
                assert_int_equal(rig.half.state, SOURCE_DONE);
                assert_int_equal(rig.record.owner, OWNER_DONE);
                assert_int_equal(rig.record.noway, !heard);
                rig_until(&rig, SOURCE_CLOSE);
                assert_int_equal(half_result(&rig.half), heard ? JOB_RESULT_DONE : JOB_RESULT_LOST);
                assert_int_equal(half_is_given_up(&rig.half), !heard);
                assert_int_equal(half_restore(&half_table, &rig.half, SIDE_SOURCE, rig.half.n_devices,
                                              OWNER_DONE, rig.record.noway, &sight),
                                 0);
                rig_event(&rig, (HalfEvent){.type = HALF_START});
                rig_until(&rig, SOURCE_CLOSE);
                assert_int_equal(half_result(&rig.half), heard ? JOB_RESULT_DONE : JOB_RESULT_LOST);
                assert_int_equal(rig.half.failure.cause, heard ? HALF_CAUSE_NONE : HALF_CAUSE_RESOLVED);
                rig_deinit(&rig);
        }
}

/* Given up first, and then the destination says that it runs: whenever it says so, the VM is not lost. */
static void test_a_vm_of_which_it_is_heard_that_it_runs_is_not_lost(void **state)
{
        static const HalfState heard_in[] = {SOURCE_DONE, SOURCE_CLOSE};

        for (size_t i = 0; i < ARRAY_SIZE(heard_in); i++) {
                Rig rig;

                rig_init(&rig, SIDE_SOURCE);
                rig_until(&rig, SOURCE_GO);
                rig_event(&rig, (HalfEvent){.type = HALF_DEADLINE});
                rig_event(&rig, (HalfEvent){.type = HALF_RESOLVE, .resolve = RESOLVE_DISCARD_HERE});
                rig_until(&rig, SOURCE_GO);
                rig_event(&rig, (HalfEvent){.type = HALF_DEADLINE});
                rig_event(&rig, (HalfEvent){.type = HALF_RESOLVE, .resolve = RESOLVE_DISCARD_HERE});
                rig_until(&rig, heard_in[i]);
                assert_true(half_is_given_up(&rig.half) || rig.half.owner != OWNER_DONE);
                rig_message(&rig, MESSAGE_STARTED, 0);
                rig_until(&rig, SOURCE_CLOSE);
                assert_false(half_is_given_up(&rig.half));
                assert_int_equal(half_result(&rig.half), JOB_RESULT_DONE);
                rig_deinit(&rig);
        }
}

/* Somebody's `cont` makes the copy stale (rule 4): while `nobody` is written no GO has gone out, and later none may follow. */
static void test_a_vm_that_runs_again_unasked_gets_no_go(void **state)
{
        Rig rig;

        rig_init(&rig, SIDE_SOURCE);
        rig_until(&rig, SOURCE_NOBODY);
        rig_event(&rig, (HalfEvent){.type = HALF_VMM_RESUMED});
        assert_int_equal(rig.half.state, SOURCE_NOBODY);
        rig_record(&rig, 0);
        assert_int_equal(rig.half.state, SOURCE_ABORT);
        assert_false(rig_said(&rig, MESSAGE_GO));
        rig_deinit(&rig);

        rig_init(&rig, SIDE_SOURCE);
        rig_until(&rig, SOURCE_GO);
        rig_event(&rig, (HalfEvent){.type = HALF_VMM_RESUMED});
        assert_int_equal(rig.half.state, SOURCE_DOUBT);
        rig.n_sent = 0;
        rig_message(&rig, MESSAGE_READY, 0);
        assert_true(rig_said(&rig, MESSAGE_ABORT));
        assert_false(rig_said(&rig, MESSAGE_GO));
        rig_deinit(&rig);
}

static void test_an_abort_is_answered_in_every_state(void **state)
{
        for (HalfState at = DESTINATION_RECORD; at < HALF_STATE_MAX; at++) {
                Rig rig;

                if (half_states[at].answer == MESSAGE_NONE || half_states[at].job != JOB_STATE_RUNNING ||
                    at == DESTINATION_FIND || at == DESTINATION_ARRIVE_AGAIN || at == DESTINATION_RUN_AGAIN ||
                    at == DESTINATION_REPAIR)
                        continue;
                rig_init_with(&rig, SIDE_DESTINATION, mixed);
                rig.plan.hold_vcpus = is_for_held(at);
                rig_until(&rig, at);
                rig.n_sent = 0;
                rig_message(&rig, MESSAGE_ABORT, 0);
                if (rig.half.state == at) {
                        assert_int_equal(rig.n_sent, 1);
                        assert_int_equal(rig.sent[0], half_states[at].answer);
                }
                rig_deinit(&rig);
        }
}

static void test_cancel_in_every_state_turns_back_or_says_too_late(void **state)
{
        for (HalfState at = 0; at < DESTINATION_RECORD; at++) {
                JobState job = half_states[at].job;
                bool early;
                Rig rig;
                int r;

                if (job == JOB_STATE_ROLLING_BACK || job == JOB_STATE_IN_DOUBT || at == SOURCE_ASK ||
                    at == SOURCE_FENCE || at == SOURCE_DISCARD || at == SOURCE_LOST || at == SOURCE_END ||
                    at == SOURCE_OVER)
                        continue;
                early = at < SOURCE_NOBODY;
                rig_init_with(&rig, SIDE_SOURCE, mixed);
                rig_until(&rig, at);
                r = half_step(&half_table, &rig.plan, &rig.half, &(HalfEvent){.type = HALF_CANCEL},
                              &rig.effects);
                assert_int_equal(r, early ? 0 : HALF_E_TOO_LATE);
                if (early)
                        assert_int_equal(rig.half.state,
                                         at <= SOURCE_CHECK_THERE ? SOURCE_OVER : SOURCE_ABORT);
                else
                        assert_int_equal(rig.half.state, at);
                rig_deinit(&rig);
        }
}

static void test_every_state_that_waits_for_a_participant_has_a_deadline(void **state)
{
        for (HalfState s = 0; s < HALF_STATE_MAX; s++) {
                const HalfStateDesc *d = &half_states[s];
                bool waits = d->device || d->vmm || d->expect || d->connect;

                /* Memory and state come in as long as the source says: BEGIN{drain} sets that timer. */
                if (waits && s != DESTINATION_TAKE_IN)
                        assert_int_equal(d->time == HALF_TIME_PHASE, true);
        }
}

static void test_begin_drain_gives_the_destination_a_deadline(void **state)
{
        Rig rig;

        rig_init(&rig, SIDE_DESTINATION);
        rig_until(&rig, DESTINATION_TAKE_IN);
        assert_int_equal(rig.timer_usec, 0);
        rig_message(&rig, MESSAGE_BEGIN, PHASE_DRAIN);
        assert_true(rig.timer_usec >= rig.plan.phases[PHASE_DRAIN].deadline_usec);
        rig_event(&rig, (HalfEvent){.type = HALF_DEADLINE});
        assert_int_equal(rig.half.state, DESTINATION_GATHER);
        rig_deinit(&rig);
}

static void test_a_source_that_asks_gets_a_copy_that_is_ready(void **state)
{
        Rig rig;

        rig_init(&rig, SIDE_DESTINATION);
        rig_until(&rig, DESTINATION_LOADED);
        rig_message(&rig, MESSAGE_ASK, 0); /* it has lost its VMM: no BEGIN{intake} will come */
        assert_int_equal(rig.half.state, DESTINATION_INTAKE);
        rig_until(&rig, DESTINATION_READY);
        assert_true(rig_said(&rig, MESSAGE_READY));
        rig_deinit(&rig);
}

static void test_the_whole_way_ends_done_on_both_sides(void **state)
{
        Rig rig;

        rig_init(&rig, SIDE_SOURCE);
        rig_until(&rig, SOURCE_OVER);
        assert_int_equal(half_result(&rig.half), JOB_RESULT_DONE);
        assert_true(rig.half.acked);
        rig_deinit(&rig);

        rig_init(&rig, SIDE_DESTINATION);
        rig_until(&rig, DESTINATION_OVER);
        assert_int_equal(half_result(&rig.half), JOB_RESULT_DONE);
        assert_true(rig.half.acked);
        rig_deinit(&rig);
}

static void test_a_check_alone_touches_nothing(void **state)
{
        Rig rig;

        rig_init(&rig, SIDE_SOURCE);
        rig.half.check_only = true;
        rig_until(&rig, SOURCE_OVER);
        assert_int_equal(half_result(&rig.half), JOB_RESULT_DONE);
        assert_int_equal(rig.half.owner, OWNER_UNRECORDED);
        assert_false(rig_said(&rig, MESSAGE_PREPARE));
        rig_deinit(&rig);
}

static void test_a_refusal_is_not_a_failure(void **state)
{
        Rig rig;

        rig_init(&rig, SIDE_SOURCE);
        rig_until(&rig, SOURCE_CHECK_THERE);
        rig_event(&rig, (HalfEvent){HALF_MESSAGE, .message = MESSAGE_CHECKED, .refused = true});
        assert_int_equal(half_result(&rig.half), JOB_RESULT_REFUSED);
        rig_deinit(&rig);

        /* One that can't be moved, and so says nothing of its state, is what the refusal is about. */
        rig_init(&rig, SIDE_SOURCE);
        half_set_flags(&rig.half, 0, 0);
        rig_device_fails(&rig, 0, DEVICE_STATE_UNKNOWN, DEVICE_STATE_UNKNOWN, DEVICE_STATE_UNKNOWN);
        rig_until(&rig, SOURCE_CHECK_THERE);
        rig_event(&rig, (HalfEvent){HALF_MESSAGE, .message = MESSAGE_CHECKED, .refused = true});
        assert_int_equal(half_result(&rig.half), JOB_RESULT_REFUSED);
        rig_deinit(&rig);
}

static void test_a_full_disk_does_not_keep_the_guest_standing_before_handover(void **state)
{
        Rig rig;

        rig_init(&rig, SIDE_SOURCE);
        rig_until(&rig, SOURCE_DRAIN);
        rig_event(&rig, (HalfEvent){.type = HALF_CANCEL});
        rig_record(&rig, -ENOSPC);
        assert_int_equal(rig.half.state, SOURCE_LOOK);
        /* ... but a job whose record says `source` is not over: a restart would take the VM in hand again */
        rig_until(&rig, SOURCE_END);
        for (int i = 0; i < 2; i++) {
                rig_record(&rig, -ENOSPC);
                rig_message(&rig, i ? MESSAGE_UNKNOWN : MESSAGE_ENDED, 0);
                assert_int_equal(rig.half.state, SOURCE_END);
                rig_event(&rig, (HalfEvent){.type = HALF_DEADLINE});
        }
        rig_record(&rig, 0);
        assert_int_equal(rig.half.owner, OWNER_ABORTED);
        rig_message(&rig, MESSAGE_ENDED, 0);
        assert_int_equal(rig.half.state, SOURCE_OVER);
        rig_deinit(&rig);

        rig_init(&rig, SIDE_SOURCE);
        rig_until(&rig, SOURCE_NOBODY);
        rig_record(&rig, -ENOSPC); /* may be durable all the same */
        assert_int_equal(rig.half.state, SOURCE_ABORT);
        rig_record(&rig, -ENOSPC);
        assert_int_equal(rig.half.state, SOURCE_ABORT);
        assert_false(rig.has_vmm);
        rig_event(&rig, (HalfEvent){.type = HALF_DEADLINE});
        rig_record(&rig, 0);
        assert_int_equal(rig.half.state, SOURCE_LOOK);
        rig_deinit(&rig);
}

/* When devices run and only the vCPUs are awaited, one that goes is not looked for: the VM runs without it, and that is
 * said to both ends. */
static void test_a_device_that_goes_while_the_vcpus_start_is_lost(void **state)
{
        Rig rig;

        rig_init(&rig, SIDE_DESTINATION);
        rig_until(&rig, DESTINATION_RUN);
        rig_event(&rig, (HalfEvent){.type = HALF_DEVICE_GONE, .device = 2, .status = -ECONNRESET});
        assert_int_equal(rig.half.state, DESTINATION_RUN);
        rig_until(&rig, DESTINATION_STARTED);
        assert_true(rig_said(&rig, MESSAGE_STARTED));
        assert_true(rig.half.devices[2].lost && !rig.half.devices[1].lost);
        assert_int_equal(half_result(&rig.half), JOB_RESULT_DEGRADED);
        rig_deinit(&rig);
}

/* The source may say DONE before the destination's own record is written: it need not say it twice. */
static void test_a_done_that_comes_early_counts(void **state)
{
        Rig rig;

        rig_init(&rig, SIDE_DESTINATION);
        rig_until(&rig, DESTINATION_DONE);
        rig_message(&rig, MESSAGE_DONE, 0);
        assert_int_equal(rig.half.state, DESTINATION_DONE);
        assert_false(rig_said(&rig, MESSAGE_DONEACK));
        rig_record(&rig, 0);
        assert_int_equal(rig.half.state, DESTINATION_OVER);
        assert_true(rig_said(&rig, MESSAGE_DONEACK) && rig.half.acked);
        rig_deinit(&rig);
}

/* ---- devices that the VMM drives ------------------------------------------------------------------------------- */

static bool is_settled(const Rig *rig, uint32_t i)
{
        return rig->last[i].type == DEVICE_OP_NUDGE && rig->last[i].from == DEVICE_STATE_RUNNING_P2P &&
               rig->last[i].to == DEVICE_STATE_RUNNING && rig->device[i] == DEVICE_STATE_RUNNING;
}

static void assert_settled(const Rig *rig)
{
        for (uint32_t i = 0; i < N; i++)
                if (is_driven(rig, i))
                        assert_true(is_settled(rig, i));
}

/* Forward, and back from every state from which there is a way back: the last that is asked of each is whether it runs, and so
 * it does, though its VMM does not set right what it has not seen. */
static void test_every_way_ends_with_a_look_that_the_vmms_devices_run(void **state)
{
        Rig rig;

        for (unsigned int without = 0; without < 4; without++) {
                rig_init_with(&rig, SIDE_DESTINATION, mixed);
                rig.plan.push = !(without & 1);
                rig_until(&rig, DESTINATION_STARTED);
                assert_settled(&rig);
                assert_int_equal(half_result(&rig.half), JOB_RESULT_DONE);
                rig_deinit(&rig);
                for (HalfState at = SOURCE_PREPARE; at < SOURCE_NOBODY; at++) {
                        rig_init_with(&rig, SIDE_SOURCE, mixed);
                        rig.plan.push = !(without & 1);
                        rig.plan.grace = rig.plan.phases[PHASE_VIOMMU_GRACE].planned = !(without & 2);
                        if (at == SOURCE_VIOMMU_GRACE && (without & 2)) {
                                rig_deinit(&rig);
                                continue;
                        }
                        rig_until(&rig, at);
                        rig_event(&rig, (HalfEvent){.type = HALF_CANCEL});
                        memset(rig.has, 0, sizeof rig.has);
                        rig.has_vmm = false;
                        rig_until(&rig, SOURCE_END);
                        assert_settled(&rig);
                        assert_int_equal(half_result(&rig.half), JOB_RESULT_CANCELLED);
                        rig_deinit(&rig);
                }
        }
}

static void test_the_vmms_devices_are_quieted_before_it_halts_only_if_planned(void **state)
{
        Rig rig;

        rig_init_with(&rig, SIDE_SOURCE, mixed);
        rig_until(&rig, SOURCE_VIOMMU_GRACE);
        assert_true(rig.has[1] && rig.has[3]);
        assert_false(rig.has[0] || rig.has[2]); /* ours wait for the vCPUs to stand */
        rig_until(&rig, SOURCE_HALT);
        assert_int_equal(rig.device[1], DEVICE_STATE_PRE_COPY_P2P);
        assert_int_equal(rig.device[3], DEVICE_STATE_RUNNING_P2P);
        rig_deinit(&rig);
}

/* Rule 1: not before READY is in and every device has read STOP, whoever has it in hand. */
static void test_the_source_gives_nothing_up_before_the_vmms_devices_read_stop(void **state)
{
        for (int order = 0; order < 2; order++) {
                Rig rig;

                rig_init_with(&rig, SIDE_SOURCE, mixed);
                rig_until(&rig, SOURCE_INTAKE);
                assert_true(rig.has[1] && rig.has[3]);
                if (order)
                        rig_message(&rig, MESSAGE_READY, 0);
                rig_device_ok(&rig, 1);
                assert_int_equal(rig.half.state, SOURCE_INTAKE);
                if (order) {
                        rig_device_fails(&rig, 3, DEVICE_STATE_STOP, DEVICE_STATE_STOP, DEVICE_STATE_RUNNING);
                        assert_int_equal(rig.half.state, SOURCE_ABORT);
                } else {
                        rig_device_ok(&rig, 3);
                        assert_int_equal(rig.half.state, SOURCE_INTAKE);
                        rig_message(&rig, MESSAGE_READY, 0);
                        assert_int_equal(rig.half.state, SOURCE_NOBODY);
                }
                rig_deinit(&rig);
        }
}

static void reset_device(Rig *rig, uint32_t i)
{
        rig_event(rig, (HalfEvent){HALF_DEVICE_RESET, .device = i, .state = DEVICE_STATE_UNKNOWN});
}

/* Whatever was asked before is of no more interest. */
static void forget_asked(Rig *rig)
{
        memset(rig->has, 0, sizeof rig->has);
        rig->has_vmm = false;
}

static void assert_comes_back_without(Rig *rig, uint32_t i)
{
        rig_until(rig, SOURCE_END);
        assert_int_equal(half_result(&rig->half), JOB_RESULT_DEGRADED);
        for (uint32_t k = 0; k < N; k++)
                assert_int_equal(half_device_is_lost(&rig->half, k), k == i);
        rig_deinit(rig);
}

static void test_a_source_device_that_its_vmm_resets_turns_the_job_back_and_is_named(void **state)
{
        for (HalfState at = SOURCE_PREPARE; at < SOURCE_NOBODY; at++) {
                Rig rig;

                rig_init_with(&rig, SIDE_SOURCE, mixed);
                rig_until(&rig, at);
                reset_device(&rig, 3);
                assert_int_equal(rig.half.state, SOURCE_ABORT);
                assert_int_equal(rig.half.failure.cause, HALF_CAUSE_DEVICE_RESET);
                assert_int_equal(rig.half.failure.device, 3);
                forget_asked(&rig);
                rig.device[3] = DEVICE_STATE_RUNNING;
                assert_comes_back_without(&rig, 3);
        }
}

/* Its agent dies while the record is written, and in the grace phase it is not asked. */
static void test_nobody_runs_before_a_device_without_p2p_that_is_gone(void **state)
{
        Rig rig;

        rig_init(&rig, SIDE_DESTINATION);
        rig_until(&rig, DESTINATION_OWNER);
        rig_event(&rig, (HalfEvent){HALF_DEVICE_GONE, .device = 1, .state = DEVICE_STATE_UNKNOWN});
        rig_record(&rig, 0);
        assert_int_equal(rig.half.state, DESTINATION_ARRIVE);
        rig_devices_ok(&rig);
        assert_int_equal(rig.half.state, DESTINATION_FIND);
        rig_until(&rig, DESTINATION_PROMISED);
        for (int i = 0; i < N; i++)
                assert_int_equal(rig.device[i], DEVICE_STATE_STOP);
        rig_deinit(&rig);
}

/* A store that takes nothing: neither that the job began nor that it was turned back is written. */
static void test_a_reset_is_named_though_nothing_was_recorded(void **state)
{
        Rig rig;

        rig_init_with(&rig, SIDE_SOURCE, mixed);
        rig_until(&rig, SOURCE_RECORD);
        rig_event(&rig, (HalfEvent){.type = HALF_CUT});
        assert_int_equal(rig.half.state, SOURCE_ABORT);
        rig_record(&rig, -ENOSPC);
        rig_until(&rig, SOURCE_RESUME);
        assert_int_equal(rig.half.owner, OWNER_UNRECORDED);
        reset_device(&rig, 3);
        assert_comes_back_without(&rig, 3);
}

static void test_a_reset_while_it_is_checked_is_none_of_the_job(void **state)
{
        Rig rig;

        rig_init_with(&rig, SIDE_SOURCE, mixed);
        reset_device(&rig, 3);
        assert_int_equal(rig.half.state, SOURCE_CHECK_HERE);
        rig_event(&rig, (HalfEvent){.type = HALF_CANCEL});
        assert_int_equal(rig.half.state, SOURCE_OVER);
        assert_int_equal(half_result(&rig.half), JOB_RESULT_CANCELLED);
        rig_deinit(&rig);
}

static void test_a_source_device_that_its_vmm_resets_on_the_way_back_is_named(void **state)
{
        static const HalfState states[] = {SOURCE_ABORT,  SOURCE_LOOK,   SOURCE_BACK_P2P, SOURCE_BACK_RUN,
                                           SOURCE_RESUME, SOURCE_SETTLE, SOURCE_UNLOG};

        for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
                Rig rig;

                rig_init_with(&rig, SIDE_SOURCE, mixed);
                rig_until(&rig, SOURCE_DRAIN);
                rig_event(&rig, (HalfEvent){.type = HALF_CANCEL});
                forget_asked(&rig);
                rig_until(&rig, states[i]);
                reset_device(&rig, 1);
                assert_int_equal(rig.half.state, states[i]);
                rig.device[1] = DEVICE_STATE_RUNNING;
                assert_comes_back_without(&rig, 1);
        }
}

/* All that it held is at the destination: it is lost only if the VM comes back. */
static void test_a_device_reset_in_transit_counts_when_the_vm_comes_back(void **state)
{
        for (int back = 0; back < 2; back++) {
                Rig rig;

                rig_init_with(&rig, SIDE_SOURCE, mixed);
                rig_until(&rig, SOURCE_GO);
                reset_device(&rig, 1);
                assert_int_equal(rig.half.state, SOURCE_GO);
                if (back) {
                        rig_event(&rig,
                                  (HalfEvent){HALF_MESSAGE, .message = MESSAGE_NOTSTARTED, .copy = true});
                        assert_comes_back_without(&rig, 1);
                        continue;
                }
                rig_until(&rig, SOURCE_CLOSE);
                assert_int_equal(half_result(&rig.half), JOB_RESULT_DONE);
                rig_deinit(&rig);
        }
}

static void test_a_destination_device_that_its_vmm_resets_is_given_up_in_time_or_named(void **state)
{
        for (HalfState at = DESTINATION_PREPARE; at <= DESTINATION_DONE; at++) {
                bool unready = at < DESTINATION_READY;
                Rig rig;

                if (at == DESTINATION_FIND || at == DESTINATION_ARRIVE_AGAIN || at == DESTINATION_RUN_AGAIN ||
                    at == DESTINATION_REPAIR || is_for_held(at))
                        continue;
                rig_init_with(&rig, SIDE_DESTINATION, mixed);
                rig_until(&rig, at);
                reset_device(&rig, 1);
                if (unready) {
                        assert_true(rig_said(&rig, MESSAGE_FAILED));
                        assert_true(rig.half.state == DESTINATION_GATHER ||
                                    rig.half.state == DESTINATION_DISCARD);
                        rig_deinit(&rig);
                        continue;
                }
                if (at == DESTINATION_READY) {
                        assert_int_equal(rig.half.state, DESTINATION_PROMISE);
                        rig_until(&rig, DESTINATION_PROMISED);
                        assert_true(rig_said(&rig, MESSAGE_NOTSTARTED));
                        rig_deinit(&rig);
                        continue;
                }
                assert_int_equal(rig.half.state, at);
                rig_until(&rig, DESTINATION_STARTED);
                assert_int_equal(half_result(&rig.half), JOB_RESULT_DEGRADED);
                assert_true(half_device_is_lost(&rig.half, 1));
                rig_deinit(&rig);
        }
}

static void test_a_start_that_was_asked_for_is_asked_for_again(void **state)
{
        Rig rig;

        rig_init_with(&rig, SIDE_DESTINATION, mixed);
        rig_until(&rig, DESTINATION_VMM_ARRIVE);
        rig_vmm(&rig, -EIO);
        assert_int_equal(rig.half.state, DESTINATION_RUN);
        rig_vmm(&rig, -EIO);
        assert_int_equal(rig.half.state, DESTINATION_STALLED);
        rig_vmm(&rig, -EIO);
        rig_event(&rig, (HalfEvent){.type = HALF_DEADLINE});
        rig_until(&rig, DESTINATION_STARTED);
        assert_settled(&rig);
        assert_int_equal(half_result(&rig.half), JOB_RESULT_DONE);
        rig_deinit(&rig);
}

/* Its vCPUs may have run since the first word of a start. */
static void test_a_vmm_that_dies_after_it_was_told_to_begin_may_have_run(void **state)
{
        static const HalfState states[] = {DESTINATION_VMM_ARRIVE, DESTINATION_PUSH, DESTINATION_RUN};

        for (size_t i = 0; i < ARRAY_SIZE(states); i++) {
                Rig rig;

                rig_init_with(&rig, SIDE_DESTINATION, mixed);
                rig_until(&rig, states[i]);
                rig_event(&rig, (HalfEvent){.type = HALF_VMM_GONE});
                assert_int_equal(rig.half.state, DESTINATION_MAYBE);
                assert_true(rig_said(&rig, MESSAGE_MAYBE));
                rig_deinit(&rig);
        }
}

/* ... and before that it has not, which this very process knows; what the VMM had open has gone with it, and stands. */
static void test_a_vmm_that_dies_before_it_was_told_to_begin_has_not_run(void **state)
{
        Rig rig;

        rig_init_with(&rig, SIDE_DESTINATION, mixed);
        rig_until(&rig, DESTINATION_ARRIVE);
        rig_event(&rig, (HalfEvent){.type = HALF_VMM_GONE});
        for (uint32_t i = 1; i < N; i += 2) {
                rig.has[i] = false;
                rig_event(&rig, (HalfEvent){HALF_DEVICE_GONE, .device = i, .state = DEVICE_STATE_UNKNOWN});
        }
        for (int tries = 0; tries < 4 && rig.half.state != DESTINATION_PROMISE; tries++)
                for (uint32_t i = 0; i < N; i++)
                        if (rig.has[i] && is_driven(&rig, i))
                                rig_device_fails(&rig, i, DEVICE_STATE_UNKNOWN, DEVICE_STATE_UNKNOWN,
                                                 DEVICE_STATE_UNKNOWN);
                        else if (rig.has[i])
                                rig_device_ok(&rig, i);
        rig_until(&rig, DESTINATION_PROMISED);
        assert_true(rig_said(&rig, MESSAGE_NOTSTARTED));
        rig_deinit(&rig);
}

/* A source that saw the seal goes forward without its VMM, and without what went with that. */
static void test_a_vmm_that_dies_sealed_takes_its_devices_with_it_and_no_more(void **state)
{
        Rig rig;

        rig_init_with(&rig, SIDE_SOURCE, mixed);
        rig_until(&rig, SOURCE_DRAIN);
        rig_vmm(&rig, 0);
        rig_devices_ok(&rig);
        assert_int_equal(rig.half.state, SOURCE_DRAIN);
        rig_event(&rig, (HalfEvent){.type = HALF_VMM_GONE});
        rig_event(&rig, (HalfEvent){HALF_DEVICE_GONE, .device = 1, .state = DEVICE_STATE_UNKNOWN});
        rig_event(&rig, (HalfEvent){HALF_DEVICE_GONE, .device = 3, .state = DEVICE_STATE_UNKNOWN});
        rig_message(&rig, MESSAGE_REACHED, PHASE_DRAIN);
        rig_until(&rig, SOURCE_INTAKE);
        rig_message(&rig, MESSAGE_READY, 0);
        assert_int_equal(rig.half.state, SOURCE_NOBODY);
        rig_deinit(&rig);
}

static void rig_is_told_why(Rig *rig, int status)
{
        rig_event(rig, (HalfEvent){HALF_MESSAGE, .message = MESSAGE_FAILED, .phase = PHASE_DRAIN, .device = 2,
                                   .status = status});
}

static void rig_fails_with(Rig *rig, uint32_t i, int status)
{
        assert_true(rig->has[i]);
        rig->has[i] = false;
        rig_event(rig, (HalfEvent){HALF_RESULT, HALF_WHO_DEVICE, .device = i, .step = rig->asked[i].step,
                                   .status = status, .state = rig->device[i]});
}

/* Its end is seen here, too, and may be seen first: by a device whose connection has ended. */
static void test_what_the_destination_says_of_its_end_is_told_whichever_was_heard_first(void **state)
{
        static const struct {
                int here, there; /* in this order; there 0: nothing is said */
                HalfWho told;
                int status;
        } rows[] = {
                {-DEVICE_E_CUT, -EREMOTEIO, HALF_WHO_PEER, -EREMOTEIO},
                {-DEVICE_E_CUT, -DEVICE_E_CUT, HALF_WHO_DEVICE, -DEVICE_E_CUT}, /* it does not know either */
                {-DEVICE_E_CUT, 0, HALF_WHO_DEVICE, -DEVICE_E_CUT},
                {-EIO, -EREMOTEIO, HALF_WHO_DEVICE, -EIO}, /* this has ended the connection */
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
                for (int late = 0; late < 2; late++) {
                        Rig rig;

                        rig_init(&rig, SIDE_SOURCE);
                        rig_until(&rig, SOURCE_DRAIN);
                        rig_fails_with(&rig, 1, rows[i].here);
                        if (late)
                                rig_until(&rig, SOURCE_LOOK);
                        if (rows[i].there < 0)
                                rig_is_told_why(&rig, rows[i].there);
                        assert_int_equal(rig.half.failure.cause, HALF_CAUSE_FAILED);
                        assert_int_equal(rig.half.failure.in, SOURCE_DRAIN);
                        assert_int_equal(rig.half.failure.who, rows[i].told);
                        assert_int_equal(rig.half.failure.status, rows[i].status);
                        assert_false(rig.half.failure.of_both);
                        rig_until(&rig, SOURCE_OVER);
                        assert_int_equal(half_result(&rig.half), JOB_RESULT_FAILED);
                        rig_deinit(&rig);
                }
}

/* A VMM has reasons of its own, and knows more than that its connection has ended: both are told. */
static void test_what_both_vmms_say_is_told(void **state)
{
        Rig rig;

        rig_init_with(&rig, SIDE_SOURCE, mixed);
        rig_until(&rig, SOURCE_DRAIN);
        rig_vmm(&rig, -EREMOTEIO);
        assert_int_equal(rig.half.state, SOURCE_ABORT);
        assert_false(rig.half.failure.of_both);
        rig_is_told_why(&rig, -EREMOTEIO);
        assert_int_equal(rig.half.failure.who, HALF_WHO_VMM);
        assert_true(rig.half.failure.of_both);
        rig_deinit(&rig);
}

/* Nobody saw whether it ran again: with a copy over there a person decides, without one nothing is left to decide. */
static void test_a_vmm_that_dies_unseen_is_lost_where_there_is_no_copy(void **state)
{
        for (int copy = 0; copy < 2; copy++) {
                Rig rig;

                rig_init_with(&rig, SIDE_SOURCE, mixed);
                rig_until(&rig, SOURCE_DRAIN);
                rig_message(&rig, MESSAGE_FAILED, PHASE_DRAIN);
                rig_event(&rig, (HalfEvent){.type = HALF_VMM_GONE});
                assert_int_equal(rig.half.state, SOURCE_UNSEEN);
                assert_true(rig_said(&rig, MESSAGE_ASK));
                rig_event(&rig, (HalfEvent){HALF_MESSAGE, .message = MESSAGE_NOTSTARTED, .copy = copy});
                assert_int_equal(rig.half.state, copy ? SOURCE_UNSEEN : SOURCE_LOST);
                assert_int_equal(half_result(&rig.half), copy ? JOB_RESULT_IN_DOUBT : JOB_RESULT_LOST);
                rig_deinit(&rig);
        }
}

static void test_a_push_that_fails_leaves_it_to_the_vmm(void **state)
{
        Rig rig;

        rig_init_with(&rig, SIDE_DESTINATION, mixed);
        rig_until(&rig, DESTINATION_PUSH);
        rig_device_fails(&rig, 1, DEVICE_STATE_RUNNING_P2P, DEVICE_STATE_RUNNING, DEVICE_STATE_RUNNING_P2P);
        rig_device_ok(&rig, 3);
        assert_int_equal(rig.half.state, DESTINATION_RUN);
        rig_until(&rig, DESTINATION_STARTED);
        assert_int_equal(half_result(&rig.half), JOB_RESULT_DONE);
        rig_deinit(&rig);
}

static void test_a_device_that_does_not_run_behind_its_vmm_is_named(void **state)
{
        for (int back = 0; back < 2; back++) {
                Rig rig;

                rig_init_with(&rig, back ? SIDE_SOURCE : SIDE_DESTINATION, mixed);
                if (back) {
                        rig_until(&rig, SOURCE_HALT);
                        rig_event(&rig, (HalfEvent){.type = HALF_CANCEL});
                        rig.has_vmm = false;
                }
                rig_until(&rig, back ? SOURCE_SETTLE : DESTINATION_SETTLE);
                rig_device_fails(&rig, 1, DEVICE_STATE_RUNNING_P2P, DEVICE_STATE_RUNNING, DEVICE_STATE_ERROR);
                rig_until(&rig, back ? SOURCE_END : DESTINATION_STARTED);
                assert_int_equal(half_result(&rig.half), JOB_RESULT_DEGRADED);
                assert_true(half_device_is_lost(&rig.half, 1));
                assert_false(half_device_is_lost(&rig.half, 3));
                rig_deinit(&rig);
        }
}

/* Our agent holds a duplicate; when it dies the device does not. */
static void test_an_agent_that_dies_while_the_vcpus_start_loses_nothing_of_the_vmms_device(void **state)
{
        Rig rig;

        rig_init_with(&rig, SIDE_DESTINATION, mixed);
        rig_until(&rig, DESTINATION_RUN);
        rig_event(&rig, (HalfEvent){HALF_DEVICE_GONE, .device = 1, .state = DEVICE_STATE_UNKNOWN});
        rig_vmm(&rig, 0);
        assert_int_equal(rig.half.state, DESTINATION_SETTLE);
        assert_int_equal(rig.asked[1].program.ops[0].type, DEVICE_OP_REOPEN);
        rig_device_ok(&rig, 3);
        rig_device_ok(&rig, 1); /* found */
        assert_int_equal(rig.half.state, DESTINATION_SETTLE);
        assert_int_equal(rig.asked[1].program.ops[0].type, DEVICE_OP_NUDGE);
        rig_device_ok(&rig, 1);
        rig_until(&rig, DESTINATION_STARTED);
        assert_int_equal(half_result(&rig.half), JOB_RESULT_DONE);
        rig_deinit(&rig);
}

static void test_a_source_that_its_vmm_resumes_late_is_looked_at_too(void **state)
{
        Rig rig;

        rig_init_with(&rig, SIDE_SOURCE, mixed);
        rig_until(&rig, SOURCE_HALT);
        rig_event(&rig, (HalfEvent){.type = HALF_CANCEL});
        rig.has_vmm = false;
        rig_until(&rig, SOURCE_RESUME);
        rig_vmm(&rig, -EIO);
        assert_int_equal(rig.half.state, SOURCE_STUCK);
        rig.device[1] = DEVICE_STATE_RUNNING;
        rig_event(&rig, (HalfEvent){.type = HALF_VMM_RESUMED});
        rig.has_vmm = false;
        rig_until(&rig, SOURCE_END);
        assert_settled(&rig);
        rig_deinit(&rig);
}

/* What a device of ours takes longer does not make the VMM's go one by one. */
static void test_the_vmms_devices_are_pushed_behind_a_repair_too(void **state)
{
        Rig rig;

        rig_init_with(&rig, SIDE_DESTINATION, mixed);
        rig_until(&rig, DESTINATION_RUN_DEVICES);
        rig_device_ok(&rig, 2);
        rig_device_fails(&rig, 0, DEVICE_STATE_RUNNING_P2P, DEVICE_STATE_RUNNING, DEVICE_STATE_ERROR);
        rig_until(&rig, DESTINATION_REPAIR);
        rig_until(&rig, DESTINATION_PUSH);
        assert_true(rig.has[1] && rig.has[3]);
        rig_until(&rig, DESTINATION_STARTED);
        assert_int_equal(half_result(&rig.half), JOB_RESULT_DEGRADED);
        assert_false(half_device_is_lost(&rig.half, 1) || half_device_is_lost(&rig.half, 3));
        rig_deinit(&rig);
}

/* Its VMM may have taken it from STOP to RUNNING, and what the VMM has mapped for it our agents never knew. */
static void test_a_device_of_the_vmm_that_is_found_again_has_lost_nothing(void **state)
{
        Rig rig;

        rig_init_with(&rig, SIDE_SOURCE, mixed);
        rig.flags[1] |= DMA;
        rig_until(&rig, SOURCE_INTAKE);
        rig_devices_ok(&rig);
        assert_int_equal(rig.half.devices[1].state, DEVICE_STATE_STOP);
        rig_event(&rig, (HalfEvent){HALF_DEVICE_GONE, .device = 1, .state = DEVICE_STATE_UNKNOWN});
        rig_event(&rig, (HalfEvent){.type = HALF_CANCEL});
        rig.flags[1] &= ~(uint32_t) DMA;
        rig.device[1] = DEVICE_STATE_RUNNING; /* QEMU has resumed by itself */
        rig_until(&rig, SOURCE_END);
        assert_int_equal(half_result(&rig.half), JOB_RESULT_CANCELLED);
        assert_false(half_device_is_lost(&rig.half, 1));
        rig_deinit(&rig);
}

static void test_the_vmm_is_told_to_begin_before_it_is_told_to_run(void **state)
{
        for (int push = 0; push < 2; push++) {
                Rig rig;

                rig_init_with(&rig, SIDE_DESTINATION, mixed);
                rig.plan.push = push;
                rig_until(&rig, push ? DESTINATION_VMM_ARRIVE : DESTINATION_RUN);
                assert_int_equal(rig.vmm.vmm_act, push ? VMM_ACT_ARRIVE : VMM_ACT_RUN);
                rig_until(&rig, DESTINATION_RUN);
                assert_int_equal(rig.vmm.vmm_act, VMM_ACT_RUN);
                rig_deinit(&rig);
        }
}

/* ---- vCPUs that are held ---------------------------------------------------------------------------------------- */

static void rig_init_held(Rig *rig, bool push)
{
        rig_init_with(rig, SIDE_DESTINATION, mixed);
        rig->plan.hold_vcpus = true;
        rig->plan.push = push;
}

/* Its process has ended, and with it the files of its own devices. */
static void vmm_goes(Rig *rig)
{
        rig_event(rig, (HalfEvent){.type = HALF_VMM_GONE});
        for (uint32_t i = 0; i < N; i++)
                if (is_driven(rig, i)) {
                        rig->has[i] = false;
                        rig_event(rig,
                                  (HalfEvent){HALF_DEVICE_GONE, .device = i, .state = DEVICE_STATE_UNKNOWN});
                }
}

/* Ours stand again, and of those that went with their VMM nothing can be had. */
static void assert_promises_without_a_copy(Rig *rig)
{
        for (int tries = 0; tries < 4 && rig->half.state != DESTINATION_PROMISE; tries++)
                for (uint32_t i = 0; i < N; i++)
                        if (rig->has[i] && is_driven(rig, i))
                                rig_device_fails(rig, i, DEVICE_STATE_UNKNOWN, DEVICE_STATE_UNKNOWN,
                                                 DEVICE_STATE_UNKNOWN);
                        else if (rig->has[i])
                                rig_device_ok(rig, i);
        assert_int_equal(rig->device[0], DEVICE_STATE_STOP);
        assert_int_equal(rig->device[2], DEVICE_STATE_STOP);
        rig_until(rig, DESTINATION_PROMISED);
        assert_true(rig_said(rig, MESSAGE_NOTSTARTED));
        assert_true(rig->half.vmm_gone); /* so NOTSTARTED says that there is no copy */
        rig_until(rig, DESTINATION_PROMISED);
        rig_message(rig, MESSAGE_END, 0);
        assert_int_equal(rig->half.state, DESTINATION_GATHER);
        for (uint32_t i = 0; i < N; i++)
                assert_false(half_device_is_lost(&rig->half, i));
}

static void test_vcpus_are_held_from_before_the_start_to_a_look_at_the_vmms_devices(void **state)
{
        for (int push = 0; push < 2; push++) {
                Rig rig;

                rig_init_held(&rig, push);
                rig_until(&rig, DESTINATION_ARRIVE);
                assert_true(rig.has_vmm && rig.vmm.vmm_act == VMM_ACT_HOLD);
                rig_devices_ok(&rig);
                assert_int_equal(rig.half.state, DESTINATION_ARRIVE); /* nothing starts before they are */
                assert_false(rig.half.held);
                rig_until(&rig, push ? DESTINATION_VMM_ARRIVE : DESTINATION_GATE);
                assert_int_equal(rig.vmm.vmm_act, push ? VMM_ACT_ARRIVE : VMM_ACT_GATE);
                rig_until(&rig, DESTINATION_GATE);
                rig_vmm(&rig, 0);
                assert_int_equal(rig.half.state, DESTINATION_GATED);
                assert_true(rig.half.held);
                rig_devices_ok(&rig);
                assert_settled(&rig);
                assert_int_equal(rig.half.state, DESTINATION_RUN);
                assert_int_equal(rig.vmm.vmm_act, VMM_ACT_RUN);
                assert_false(rig.half.held);
                rig_until(&rig, DESTINATION_STARTED);
                assert_int_equal(half_result(&rig.half), JOB_RESULT_DONE);
                rig_deinit(&rig);
        }
}

static void test_vcpus_are_not_held_unless_planned_or_where_there_is_no_way_back(void **state)
{
        for (int noway = 0; noway < 2; noway++) {
                Rig rig;

                rig_init_held(&rig, true);
                rig.plan.hold_vcpus = noway;
                rig_until(&rig, DESTINATION_READY);
                rig_event(&rig, (HalfEvent){HALF_MESSAGE, .message = MESSAGE_GO, .noway = noway});
                rig_until(&rig, DESTINATION_ARRIVE);
                assert_false(rig.has_vmm);
                rig_until(&rig, DESTINATION_PUSH);
                rig_devices_ok(&rig);
                assert_int_equal(rig.half.state, DESTINATION_RUN);
                rig_deinit(&rig);
        }
}

static void test_vcpus_that_cannot_be_held_turn_the_job_back_with_its_copy(void **state)
{
        Rig rig;

        rig_init_held(&rig, true);
        rig_until(&rig, DESTINATION_ARRIVE);
        rig_vmm(&rig, -EBUSY);
        assert_int_equal(rig.half.state, DESTINATION_LOOK);
        rig_until(&rig, DESTINATION_PROMISED);
        assert_false(rig.half.vmm_gone);
        for (uint32_t i = 0; i < N; i++)
                assert_int_equal(rig.device[i], DEVICE_STATE_STOP);
        rig_deinit(&rig);
}

enum { RESET, FAILS, DIES };

/* What may befall it while they are held. */
static void befall(Rig *rig, int what)
{
        if (what == RESET) {
                reset_device(rig, 1);
        } else if (what == DIES) {
                vmm_goes(rig);
        } else if (rig->has_vmm) {
                rig_vmm(rig, -EIO);
        } else {
                rig_device_fails(rig, 1, DEVICE_STATE_RUNNING_P2P, DEVICE_STATE_RUNNING,
                                 DEVICE_STATE_RUNNING_P2P);
        }
}

static const HalfState gating[] = {DESTINATION_VMM_ARRIVE, DESTINATION_PUSH, DESTINATION_GATE,
                                   DESTINATION_GATED};

static void rig_until_undo(Rig *rig, size_t at, int what)
{
        rig_init_held(rig, true);
        rig_until(rig, gating[at]);
        befall(rig, what);
        assert_int_equal(rig->half.state, DESTINATION_UNDO);
        assert_int_equal(rig->vmm.vmm_act, VMM_ACT_UNDO); /* also of one that is dead: how did it end? */
        assert_true(rig->has_vmm);
        assert_int_equal(half_job_state(&rig->half), JOB_STATE_ROLLING_BACK);
}

static void test_a_last_arc_that_fails_while_held_ends_in_a_promise(void **state)
{
        for (size_t at = 0; at < ARRAY_SIZE(gating); at++)
                for (int what = RESET; what <= DIES; what++)
                        for (int late = 0; late < 2; late++) {
                                Rig rig;

                                if (what == FAILS && gating[at] == DESTINATION_PUSH)
                                        continue; /* the VMM's own turn is the second try */
                                rig_until_undo(&rig, at, what);
                                /* The answer and the death come in any order; neither is enough. */
                                if (what != DIES && !late)
                                        vmm_goes(&rig);
                                assert_int_equal(rig.half.state, DESTINATION_UNDO);
                                rig_vmm(&rig, 0);
                                if (what != DIES && late) {
                                        assert_int_equal(rig.half.state, DESTINATION_UNDO);
                                        vmm_goes(&rig);
                                }
                                assert_promises_without_a_copy(&rig);
                                rig_deinit(&rig);
                        }
}

static void test_a_hold_that_did_not_last_allows_no_promise(void **state)
{
        for (size_t at = 0; at < ARRAY_SIZE(gating); at++)
                for (int what = RESET; what <= DIES; what++) {
                        Rig rig;

                        if (what == FAILS && gating[at] == DESTINATION_PUSH)
                                continue;
                        rig_until_undo(&rig, at, what);
                        rig_vmm(&rig, -ESTALE);
                        if (what == DIES) {
                                assert_int_equal(rig.half.state, DESTINATION_MAYBE);
                                assert_true(rig_said(&rig, MESSAGE_MAYBE));
                        } else {
                                assert_int_equal(rig.half.state, DESTINATION_RUN);
                                forget_asked(&rig);
                                rig_event(&rig, (HalfEvent){.type = HALF_VMM_GONE});
                                assert_int_equal(rig.half.state, DESTINATION_MAYBE);
                        }
                        assert_false(rig_said(&rig, MESSAGE_NOTSTARTED));
                        rig_deinit(&rig);
                }
}

/* It goes on as without a hold, and names what was lost. */
static void test_a_device_reset_behind_a_hold_that_did_not_last_is_named(void **state)
{
        Rig rig;

        rig_until_undo(&rig, 2, RESET);
        rig_vmm(&rig, -ESTALE);
        rig_until(&rig, DESTINATION_STARTED);
        assert_int_equal(half_result(&rig.half), JOB_RESULT_DEGRADED);
        assert_true(half_device_is_lost(&rig.half, 1));
        rig_deinit(&rig);
}

/* The source's host may be gone: what is here is all there is. */
static void test_without_a_link_a_device_that_was_reset_does_not_end_the_copy(void **state)
{
        Rig rig;

        rig_init_held(&rig, true);
        rig_until(&rig, DESTINATION_GATE);
        rig_event(&rig, (HalfEvent){.type = HALF_CUT});
        reset_device(&rig, 1);
        assert_int_equal(rig.half.state, DESTINATION_GATE);
        rig_vmm(&rig, -EIO);
        assert_int_equal(rig.half.state, DESTINATION_RUN);
        rig_deinit(&rig);
}

/* What a device that hangs has begun nobody knows; the others go on here, and are not held for that. */
static void test_behind_a_failure_from_which_there_is_no_way_back_nobody_counts_as_held(void **state)
{
        Rig rig;

        rig_init_held(&rig, true);
        rig_until(&rig, DESTINATION_RUN_DEVICES);
        assert_true(rig.half.held);
        rig_device_ok(&rig, 2); /* without the P2P states, it runs first */
        rig_device_fails(&rig, 0, DEVICE_STATE_RUNNING_P2P, DEVICE_STATE_RUNNING, DEVICE_STATE_ERROR);
        rig_devices_ok(&rig);
        assert_int_equal(rig.half.held, false);
        rig_until(&rig, DESTINATION_PUSH);
        rig_devices_ok(&rig);
        assert_int_equal(rig.half.state, DESTINATION_RUN);
        rig_deinit(&rig);
}

static void test_a_restarted_destination_whose_vcpus_run_looks_at_the_vmms_devices(void **state)
{
        Rig rig;

        rig_init_with(&rig, SIDE_DESTINATION, mixed);
        assert_int_equal(half_restore(&half_table, &rig.half, SIDE_DESTINATION, N, OWNER_DESTINATION, false,
                                      &(HalfSight){.vmm_lives = true, .vmm_runs = true}),
                         0);
        forget_asked(&rig);
        rig.has_record = false;
        for (uint32_t i = 0; i < N; i++)
                set_device(&rig, i);
        rig.device[1] = DEVICE_STATE_RUNNING;
        rig.device[3] = DEVICE_STATE_RUNNING_P2P;
        rig_event(&rig, (HalfEvent){.type = HALF_LINKED});
        rig_event(&rig, (HalfEvent){.type = HALF_START});
        rig_until(&rig, DESTINATION_STARTED);
        assert_settled(&rig);
        assert_int_equal(half_result(&rig.half), JOB_RESULT_DONE);
        rig_deinit(&rig);
}

/* RUN_DEVICES asks nothing of them: they read RUNNING_P2P, or STOP without P2P, right up to the moment in which the vCPUs are
 * asked to run, and after it. So only STOP, where RUNNING_P2P comes first, says that this was never asked. */
static void test_after_a_restart_the_vmms_devices_vouch_for_nothing(void **state)
{
        for (DeviceState s = 0; s < DEVICE_STATE_MAX; s++) {
                assert_int_equal(half_device_may_have_run(3, s),
                                 s == DEVICE_STATE_RUNNING || s == DEVICE_STATE_UNKNOWN);
                assert_int_equal(half_device_may_have_run(DRIVEN | 3, s), s != DEVICE_STATE_STOP);
                assert_true(half_device_may_have_run(DRIVEN | 1, s));
                assert_true(half_device_may_have_run(DRIVEN, s));
        }
}

/* ---- the tables themselves ----------------------------------------------------------------------------------- */

static void test_every_state_is_reached_by_a_row_or_a_restart(void **state)
{
        bool reached[HALF_STATE_MAX] = {[SOURCE_CHECK_HERE] = true, [DESTINATION_RECORD] = true};

        for (Side side = 0; side < SIDE_MAX; side++)
                for (uint32_t i = 0; i < half_table.side[side]->n; i++)
                        if (half_table.side[side]->rows[i].next != HALF_STAY)
                                reached[half_table.side[side]->rows[i].next] = true;
        for (uint32_t i = 0; i < half_table.n_restores; i++)
                reached[half_table.restores[i].to] = true;
        for (HalfState s = 0; s < HALF_STATE_MAX; s++) {
                assert_non_null(half_states[s].name);
                assert_non_null(half_states[s].doc);
                if (!reached[s])
                        print_error("%s\n", half_states[s].name);
                assert_true(reached[s]);
        }
}

/* That a row's set names states of its side alone, tests/test-core-pure sees in the source: in a set the two look alike. */
static void test_rows_stay_on_their_side(void **state)
{
        for (Side side = 0; side < SIDE_MAX; side++)
                for (uint32_t i = 0; i < half_table.side[side]->n; i++) {
                        HalfState next = half_table.side[side]->rows[i].next;

                        assert_true(next == HALF_STAY ||
                                    (next < DESTINATION_RECORD) == (side == SIDE_SOURCE));
                }
}

/* Where its VMM's devices may have run there is no way back, but ours, which stand, must all arrive before one runs. */
static void test_after_a_restart_all_arrive_before_one_runs(void **state)
{
        Rig rig;

        rig_init_with(&rig, SIDE_DESTINATION, mixed);
        rig.has_record = rig.has_vmm = false;
        memset(rig.has, 0, sizeof rig.has);
        assert_int_equal(half_restore(&half_table, &rig.half, SIDE_DESTINATION, N, OWNER_DESTINATION, false,
                                      &(HalfSight){.vmm_lives = true, .complete = true, .device_ran = true}),
                         0);
        for (uint32_t i = 0; i < N; i++) {
                rig.device[i] = is_driven(&rig, i) ? DEVICE_STATE_RUNNING_P2P : DEVICE_STATE_STOP;
                half_set_device(&rig.half, i, rig.flags[i], rig.device[i]);
        }
        rig_event(&rig, (HalfEvent){.type = HALF_START});
        while (rig.device[0] == DEVICE_STATE_STOP) {
                assert_int_not_equal(rig.device[2], DEVICE_STATE_RUNNING);
                rig_devices_ok(&rig);
        }
        assert_int_equal(rig.device[0], DEVICE_STATE_RUNNING_P2P);
        rig_until(&rig, DESTINATION_STARTED);
        assert_int_equal(rig.device[0], DEVICE_STATE_RUNNING);
        assert_int_equal(rig.device[2], DEVICE_STATE_RUNNING);
        rig_deinit(&rig);
}

static void test_every_record_of_each_side_has_a_place_after_a_restart(void **state)
{
        for (Side side = 0; side < SIDE_MAX; side++)
                for (Owner owner = OWNER_SOURCE; owner < OWNER_MAX; owner++)
                        for (uint32_t bits = 0; bits < 32; bits++) {
                                HalfSight sight = {bits & 1, bits & 2, bits & 4, bits & 8, bits & 16};
                                bool mine = owner == OWNER_DONE ||
                                            (side == SIDE_SOURCE) == (owner < OWNER_PREPARED);
                                Rig rig;
                                int r = half_restore(&half_table, &rig.half, side, N, owner, false, &sight);

                                assert_int_equal(r, mine ? 0 : -EINVAL);
                        }
}

static void test_a_job_that_was_given_up_is_not_done_after_a_restart(void **state)
{
        static const struct {
                Side side;
                Owner owner;
                HalfState end;
                JobResult result;
        } cases[] = {
                {SIDE_SOURCE, OWNER_ABORTED, SOURCE_OVER, JOB_RESULT_FAILED},
                {SIDE_SOURCE, OWNER_DONE, SOURCE_OVER, JOB_RESULT_DONE},
                {SIDE_DESTINATION, OWNER_DISCARDED, DESTINATION_GONE, JOB_RESULT_FAILED},
                {SIDE_DESTINATION, OWNER_DONE, DESTINATION_STARTED, JOB_RESULT_DONE},
        };

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                Rig rig;

                rig_init(&rig, cases[i].side);
                assert_int_equal(half_restore(&half_table, &rig.half, cases[i].side, N, cases[i].owner, false,
                                              &(HalfSight){.vmm_lives = true}),
                                 0);
                for (uint32_t k = 0; k < N; k++)
                        half_set_device(&rig.half, k, p2p[k], DEVICE_STATE_RUNNING);
                rig.has_vmm = rig.has_record = false;
                memset(rig.has, 0, sizeof rig.has);
                rig_event(&rig, (HalfEvent){.type = HALF_LINKED});
                rig_event(&rig, (HalfEvent){.type = HALF_START});
                rig_until(&rig, cases[i].end);
                assert_int_equal(half_result(&rig.half), cases[i].result);
                rig_deinit(&rig);
        }
}

static void test_names_round_trip(void **state)
{
        for (HalfState s = 0; s < HALF_STATE_MAX; s++)
                assert_int_equal(half_state_from_string(half_state_to_string(s)), s);
        assert_null(half_state_to_string(HALF_STATE_MAX));
        assert_null(half_state_to_string(-1));
        for (int i = 0; i < JOB_STATE_MAX; i++)
                assert_int_equal(job_state_from_string(job_state_to_string(i)), i);
        for (int i = 0; i < JOB_RESULT_MAX; i++)
                assert_int_equal(job_result_from_string(job_result_to_string(i)), i);
        for (int i = 0; i < MESSAGE_MAX; i++)
                assert_int_equal(message_from_string(message_to_string(i)), i);
        for (int i = 0; i < RESOLVE_MAX; i++)
                assert_int_equal(resolve_from_string(resolve_to_string(i)), i);
        for (int i = 0; i < PHASE_MAX; i++)
                assert_int_equal(phase_from_string(phase_to_string(i)), i);
        for (int i = 0; i < OWNER_MAX; i++)
                assert_int_equal(owner_from_string(owner_to_string(i)), i);
        assert_null(message_to_string(MESSAGE_MAX));
        assert_null(phase_to_string(PHASE_MAX));
        assert_null(owner_to_string(OWNER_INVALID));
        assert_int_equal(phase_from_string("no such"), PHASE_INVALID);
}

/* ---- what policy says ------------------------------------------------------------------------------------------ */

static const uint32_t all_p2p[N] = {3 | DMA, 3 | DMA, 3 | DMA, 3 | DMA};

static void set_orders(Rig *rig)
{
        static const uint32_t orders[N] = {7, 0, 7, 255};

        for (uint32_t i = 0; i < N; i++)
                rig->plan.devices[i].order = orders[i];
}

/* Forward, wherever a device is moved on, those with a lower number come first, and the next only when all of these have
 * answered; each number has its time. */
static void test_forward_devices_are_asked_in_their_order(void **state)
{
        static const struct {
                Side side;
                HalfState at;
        } places[] = {
                {SIDE_SOURCE, SOURCE_LOG},
                {SIDE_SOURCE, SOURCE_P2P_GRACE},
                {SIDE_SOURCE, SOURCE_STOP},
                {SIDE_SOURCE, SOURCE_DRAIN},
                {SIDE_DESTINATION, DESTINATION_PREPARE},
                {SIDE_DESTINATION, DESTINATION_INTAKE},
                {SIDE_DESTINATION, DESTINATION_ARRIVE},
                {SIDE_DESTINATION, DESTINATION_RUN_DEVICES},
        };

        for (size_t k = 0; k < ARRAY_SIZE(places); k++) {
                Rig rig;

                rig_init_with(&rig, places[k].side, all_p2p);
                set_orders(&rig);
                rig_until(&rig, places[k].at);
                if (rig.has_vmm)
                        rig_vmm(&rig, 0); /* it waits for nobody */
                assert_true(!rig.has[0] && rig.has[1] && !rig.has[2] && !rig.has[3]);
                rig.timer_usec = 0;
                rig_device_ok(&rig, 1);
                assert_true(rig.has[0] && !rig.has[1] && rig.has[2] && !rig.has[3]);
                assert_true(rig.timer_usec > 0);
                rig_device_ok(&rig, 2);
                assert_true(rig.has[0] && !rig.has[3]);
                rig_device_ok(&rig, 0);
                assert_true(rig.has[3]);
                assert_int_equal(rig.half.state, places[k].at);
                rig_device_ok(&rig, 3);
                if (half_states[places[k].at].expect)
                        rig_message(&rig, half_states[places[k].at].expect, half_states[places[k].at].phase);
                assert_int_not_equal(rig.half.state, places[k].at);
                rig_deinit(&rig);
        }
}

/* What the other half sends must find a taker, and on the way back nobody waits for anybody. */
static void test_nobody_waits_for_his_order_to_load_or_to_go_back(void **state)
{
        Rig rig;

        rig_init_with(&rig, SIDE_DESTINATION, all_p2p);
        set_orders(&rig);
        rig_until(&rig, DESTINATION_TAKE_IN);
        assert_true(rig.has[0] && rig.has[1] && rig.has[2] && rig.has[3]);
        rig_deinit(&rig);

        rig_init_with(&rig, SIDE_SOURCE, all_p2p);
        set_orders(&rig);
        rig_until(&rig, SOURCE_DRAIN);
        rig_event(&rig, (HalfEvent){.type = HALF_CANCEL});
        rig_until(&rig, SOURCE_BACK_RUN);
        assert_true(rig.has[0] && rig.has[1] && rig.has[2] && rig.has[3]);
        rig_deinit(&rig);
}

/* Those after one that fails are not even asked. */
static void test_a_failure_ends_the_order(void **state)
{
        static const Side sides[] = {SIDE_SOURCE, SIDE_DESTINATION};
        static const HalfState at[] = {SOURCE_P2P_GRACE, DESTINATION_RUN_DEVICES};
        static const HalfState then[] = {SOURCE_ABORT, DESTINATION_FIND};

        for (size_t k = 0; k < 2; k++) {
                Rig rig;

                rig_init_with(&rig, sides[k], all_p2p);
                set_orders(&rig);
                rig_until(&rig, at[k]);
                rig_device_fails(&rig, 1, rig.device[1], DEVICE_STATE_MAX, rig.device[1]);
                assert_true(rig.half.state == then[k] ||
                            half_states[rig.half.state].job != JOB_STATE_RUNNING);
                if (sides[k] == SIDE_SOURCE)
                        assert_false(rig.has[0] || rig.has[2] || rig.has[3]);
                rig_deinit(&rig);
        }
}

/* Each has its own time; who has more is waited for after who has less, and the half is told when. */
static void test_each_device_has_its_own_time(void **state)
{
        Rig rig;

        for (int answers = 0; answers < 2; answers++) {
                uint64_t first;

                rig_init_with(&rig, SIDE_SOURCE, all_p2p);
                rig.plan.devices[2].deadline_usec[PHASE_P2P_GRACE] = 2 * USEC_PER_SEC;
                rig_until(&rig, SOURCE_P2P_GRACE);
                for (uint32_t i = 0; i < N; i++)
                        assert_int_equal(rig.asked[i].deadline_usec, (i == 2 ? 2 : 5) * USEC_PER_SEC);
                first = rig.timer_usec;
                assert_in_range(first, 2 * USEC_PER_SEC, 3 * USEC_PER_SEC);
                if (answers)
                        rig_device_ok(&rig, 2);
                rig_event(&rig, (HalfEvent){.type = HALF_DEADLINE});
                if (answers) {
                        assert_int_equal(rig.half.state, SOURCE_P2P_GRACE);
                        assert_int_equal(rig.timer_usec, 3 * USEC_PER_SEC);
                        rig_event(&rig, (HalfEvent){.type = HALF_DEADLINE});
                }
                assert_int_equal(rig.half.state, SOURCE_ABORT);
                assert_int_equal(rig.half.failure.cause, HALF_CAUSE_DEADLINE);
                assert_int_equal(rig.half.failure.device, answers ? 0 : 2);
                rig_deinit(&rig);
        }
}

/* after-grace: back, the VM goes home from a failure in arrival-grace; degraded, it runs there without the device. */
static void test_after_grace_says_where_a_failure_in_arrival_grace_leads(void **state)
{
        for (int onward = 0; onward < 2; onward++) {
                Rig rig;

                rig_init_with(&rig, SIDE_DESTINATION, all_p2p);
                rig.plan.onward = onward;
                rig_until(&rig, DESTINATION_ARRIVE);
                rig_device_fails(&rig, 2, DEVICE_STATE_STOP, DEVICE_STATE_RUNNING_P2P, DEVICE_STATE_ERROR);
                if (!onward) {
                        rig_until(&rig, DESTINATION_PROMISED);
                        assert_true(rig_said(&rig, MESSAGE_NOTSTARTED));
                } else {
                        rig_until(&rig, DESTINATION_STARTED);
                        assert_true(half_device_is_lost(&rig.half, 2));
                        assert_int_equal(half_result(&rig.half), JOB_RESULT_DEGRADED);
                        assert_true(rig_said(&rig, MESSAGE_STARTED));
                        assert_false(rig_said(&rig, MESSAGE_NOTSTARTED));
                }
                rig_deinit(&rig);
        }
}

static void set_on_error(Rig *rig, PolicyOnError word)
{
        for (uint32_t i = 0; i < N; i++)
                rig->plan.devices[i].on_error = word;
}

/* on-error, on the way back: reset, it runs without its state; quarantine and keep, nobody touches it, the VM goes on without
 * it, and with quarantine no job takes it then. */
static void test_on_error_says_whether_a_device_is_reset_on_the_way_back(void **state)
{
        for (PolicyOnError word = POLICY_ON_ERROR_RESET; word <= POLICY_ON_ERROR_KEEP; word++) {
                Rig rig;

                rig_init_with(&rig, SIDE_SOURCE, all_p2p);
                set_on_error(&rig, word);
                rig_until(&rig, SOURCE_P2P_GRACE);
                rig_device_fails(&rig, 1, DEVICE_STATE_RUNNING, DEVICE_STATE_RUNNING_P2P, DEVICE_STATE_ERROR);
                rig_until(&rig, SOURCE_END);
                assert_int_equal(half_result(&rig.half), JOB_RESULT_DEGRADED);
                for (uint32_t i = 0; i < N; i++) {
                        assert_int_equal(half_device_is_lost(&rig.half, i), i == 1);
                        assert_int_equal(half_device_is_quarantined(&rig.half, i),
                                         i == 1 && word == POLICY_ON_ERROR_QUARANTINE);
                }
                assert_int_equal(rig.device[1],
                                 word == POLICY_ON_ERROR_RESET ? DEVICE_STATE_RUNNING : DEVICE_STATE_ERROR);
                rig_deinit(&rig);
        }
}

/* ... and where the copy is let go: who refused his state is not reset then, but the others are, which hold the VM's. */
static void test_on_error_is_about_the_device_that_failed_at_the_destination(void **state)
{
        for (PolicyOnError word = POLICY_ON_ERROR_RESET; word <= POLICY_ON_ERROR_KEEP; word++) {
                Rig rig;

                rig_init_with(&rig, SIDE_DESTINATION, all_p2p);
                set_on_error(&rig, word);
                rig_until(&rig, DESTINATION_INTAKE);
                rig_device_fails(&rig, 1, DEVICE_STATE_RESUMING, DEVICE_STATE_STOP, DEVICE_STATE_ERROR);
                rig_until(&rig, DESTINATION_DISCARD);
                for (uint32_t i = 0; i < N; i++) {
                        bool alone = i == 1 && word != POLICY_ON_ERROR_RESET;

                        assert_true(rig.has[i]);
                        assert_int_equal(rig.asked[i].program.n == 1, alone);
                        assert_int_equal(rig.asked[i].program.ops[rig.asked[i].program.n - 1].type,
                                         DEVICE_OP_CLOSE);
                        assert_int_equal(half_device_is_quarantined(&rig.half, i),
                                         alone && word == POLICY_ON_ERROR_QUARANTINE);
                }
                rig_deinit(&rig);
        }
}

/* A connection that broke, or a job that was cancelled, is no fault of the device: it is reset as ever. */
static void test_who_was_only_in_the_middle_has_not_failed(void **state)
{
        Rig rig;

        rig_init_with(&rig, SIDE_DESTINATION, all_p2p);
        set_on_error(&rig, POLICY_ON_ERROR_QUARANTINE);
        rig_until(&rig, DESTINATION_TAKE_IN);
        rig.has[1] = false;
        rig_event(&rig, (HalfEvent){HALF_RESULT, HALF_WHO_DEVICE, .device = 1, .step = rig.asked[1].step,
                                    .status = -DEVICE_E_CUT, .state = DEVICE_STATE_RESUMING});
        rig_until(&rig, DESTINATION_DISCARD);
        for (uint32_t i = 0; i < N; i++) {
                assert_int_equal(rig.asked[i].program.ops[0].type, DEVICE_OP_RESET);
                assert_false(half_device_is_quarantined(&rig.half, i));
        }
        rig_deinit(&rig);
}

static void lose(Rig *rig, HalfState at)
{
        rig_until(rig, at);
        rig_device_fails(rig, 1, rig->device[1], DEVICE_STATE_MAX, DEVICE_STATE_ERROR);
}

/* on-source-loss: degraded-run, the VM goes on; pause, it stands, in doubt, until its VMM lets it go on. */
static void test_on_source_loss_says_whether_the_vm_goes_on(void **state)
{
        for (int pause = 0; pause < 2; pause++)
                for (uint32_t whose = 0; whose < 2; whose++) {
                        Rig rig;

                        rig_init_with(&rig, SIDE_SOURCE, all_p2p);
                        if (pause)
                                rig.plan.devices[whose].on_source_loss = POLICY_ON_SOURCE_LOSS_PAUSE;
                        lose(&rig, SOURCE_STOP);
                        if (pause && whose == 1) {
                                rig_until(&rig, SOURCE_HELD);
                                assert_false(rig.has_vmm);
                                assert_int_equal(half_job_state(&rig.half), JOB_STATE_IN_DOUBT);
                                assert_int_equal(half_result(&rig.half), JOB_RESULT_IN_DOUBT);
                                assert_string_equal(half_owner_text(&rig.half), "source");
                                assert_false(rig_said(&rig, MESSAGE_END));
                                rig_event(&rig, (HalfEvent){.type = HALF_DEADLINE});
                                assert_int_equal(rig.half.state, SOURCE_HELD);
                                rig_event(&rig, (HalfEvent){.type = HALF_VMM_RESUMED});
                        }
                        rig_until(&rig, SOURCE_END);
                        assert_int_equal(half_result(&rig.half), JOB_RESULT_DEGRADED);
                        assert_true(half_device_is_lost(&rig.half, 1));
                        assert_true(rig_said(&rig, MESSAGE_END));
                        rig_deinit(&rig);
                }
}

/* One that runs is not stopped: its vCPUs have seen the device fail. And where none has lost anything nobody is asked. */
static void test_only_a_vm_that_stands_is_kept_so(void **state)
{
        Rig rig;

        rig_init_with(&rig, SIDE_SOURCE, all_p2p);
        rig.plan.devices[1].on_source_loss = POLICY_ON_SOURCE_LOSS_PAUSE;
        lose(&rig, SOURCE_LOG);
        rig_until(&rig, SOURCE_END);
        assert_int_equal(half_result(&rig.half), JOB_RESULT_DEGRADED);
        rig_deinit(&rig);

        rig_init_with(&rig, SIDE_SOURCE, all_p2p);
        rig.plan.devices[1].on_source_loss = POLICY_ON_SOURCE_LOSS_PAUSE;
        rig_until(&rig, SOURCE_DRAIN);
        rig_event(&rig, (HalfEvent){.type = HALF_CANCEL});
        rig_until(&rig, SOURCE_END);
        assert_int_equal(half_result(&rig.half), JOB_RESULT_CANCELLED);
        rig_deinit(&rig);
}

/* A vIOMMU: all devices are quiet while vCPUs run, from where they run to their P2P states; and on the way back they run again
 * before the vCPUs are told to. */
static void test_viommu_grace_is_before_the_halt_and_leads_back(void **state)
{
        Rig rig;

        rig_init_with(&rig, SIDE_SOURCE, all_p2p);
        rig.plan.viommu = rig.plan.phases[PHASE_VIOMMU_GRACE].planned = true;
        rig_until(&rig, SOURCE_VIOMMU_GRACE);
        for (uint32_t i = 0; i < N; i++)
                assert_true(rig.has[i]);
        rig_device_ok(&rig, 0);
        rig_device_ok(&rig, 1);
        rig_device_ok(&rig, 2);
        assert_int_equal(rig.half.state, SOURCE_VIOMMU_GRACE);
        rig_device_ok(&rig, 3);
        assert_int_equal(rig.half.state, SOURCE_HALT);
        for (uint32_t i = 0; i < N; i++)
                assert_int_equal(rig.device[i], DEVICE_STATE_RUNNING_P2P);
        rig_event(&rig, (HalfEvent){.type = HALF_CANCEL});
        rig_until(&rig, SOURCE_RESUME);
        for (uint32_t i = 0; i < N; i++)
                assert_int_equal(rig.device[i], DEVICE_STATE_RUNNING);
        rig_until(&rig, SOURCE_END);
        assert_int_equal(half_result(&rig.half), JOB_RESULT_CANCELLED);
        rig_deinit(&rig);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_first_grace_barrier_is_for_p2p_devices_only),
                cmocka_unit_test(test_no_device_passes_a_barrier_before_all_have_reached_it),
                cmocka_unit_test(test_the_way_back_has_the_same_barriers),
                cmocka_unit_test(test_who_cannot_be_quiet_runs_before_all_others),
                cmocka_unit_test(test_a_device_that_answers_late_in_drain_turns_the_job_back),
                cmocka_unit_test(test_a_source_device_that_hangs_for_good_degrades_the_job),
                cmocka_unit_test(test_a_source_device_whose_connection_hangs_is_found_over_a_new_one),
                cmocka_unit_test(test_a_source_device_that_forgot_that_it_stands_has_lost_its_state),
                cmocka_unit_test(test_a_source_device_that_its_vmm_has_no_more_is_named),
                cmocka_unit_test(test_a_source_device_in_error_is_reset_and_the_job_says_degraded),
                cmocka_unit_test(test_a_transition_that_moved_nothing_is_tried_as_often_as_policy_says),
                cmocka_unit_test(test_a_refused_state_at_the_destination_is_told_and_discarded),
                cmocka_unit_test(test_a_discarded_device_that_cannot_be_reset_is_let_go),
                cmocka_unit_test(test_no_device_running_yet_means_back_and_one_running_means_forward),
                cmocka_unit_test(test_nobody_promises_for_a_device_that_hangs),
                cmocka_unit_test(test_the_first_cause_is_kept),
                cmocka_unit_test(test_a_cancel_in_doubt_is_not_forgotten),
                cmocka_unit_test(test_what_a_person_can_decide),
                cmocka_unit_test(test_the_source_runs_on_a_persons_word_when_it_has_fenced),
                cmocka_unit_test(test_a_record_that_was_not_waited_for_is_not_trusted),
                cmocka_unit_test(test_a_vm_that_is_given_up_is_lost_until_the_destination_says_that_it_runs),
                cmocka_unit_test(test_a_vm_of_which_it_is_heard_that_it_runs_is_not_lost),
                cmocka_unit_test(test_a_vm_that_runs_again_unasked_gets_no_go),
                cmocka_unit_test(test_an_abort_is_answered_in_every_state),
                cmocka_unit_test(test_cancel_in_every_state_turns_back_or_says_too_late),
                cmocka_unit_test(test_every_state_that_waits_for_a_participant_has_a_deadline),
                cmocka_unit_test(test_begin_drain_gives_the_destination_a_deadline),
                cmocka_unit_test(test_a_source_that_asks_gets_a_copy_that_is_ready),
                cmocka_unit_test(test_the_whole_way_ends_done_on_both_sides),
                cmocka_unit_test(test_a_check_alone_touches_nothing),
                cmocka_unit_test(test_a_refusal_is_not_a_failure),
                cmocka_unit_test(test_a_full_disk_does_not_keep_the_guest_standing_before_handover),
                cmocka_unit_test(test_a_device_that_goes_while_the_vcpus_start_is_lost),
                cmocka_unit_test(test_a_done_that_comes_early_counts),
                cmocka_unit_test(test_every_way_ends_with_a_look_that_the_vmms_devices_run),
                cmocka_unit_test(test_the_vmms_devices_are_quieted_before_it_halts_only_if_planned),
                cmocka_unit_test(test_the_source_gives_nothing_up_before_the_vmms_devices_read_stop),
                cmocka_unit_test(test_a_source_device_that_its_vmm_resets_turns_the_job_back_and_is_named),
                cmocka_unit_test(test_a_source_device_that_its_vmm_resets_on_the_way_back_is_named),
                cmocka_unit_test(test_nobody_runs_before_a_device_without_p2p_that_is_gone),
                cmocka_unit_test(test_a_reset_is_named_though_nothing_was_recorded),
                cmocka_unit_test(test_a_reset_while_it_is_checked_is_none_of_the_job),
                cmocka_unit_test(test_a_device_reset_in_transit_counts_when_the_vm_comes_back),
                cmocka_unit_test(test_a_destination_device_that_its_vmm_resets_is_given_up_in_time_or_named),
                cmocka_unit_test(test_a_start_that_was_asked_for_is_asked_for_again),
                cmocka_unit_test(test_a_vmm_that_dies_after_it_was_told_to_begin_may_have_run),
                cmocka_unit_test(test_a_vmm_that_dies_before_it_was_told_to_begin_has_not_run),
                cmocka_unit_test(test_a_vmm_that_dies_sealed_takes_its_devices_with_it_and_no_more),
                cmocka_unit_test(test_what_the_destination_says_of_its_end_is_told_whichever_was_heard_first),
                cmocka_unit_test(test_what_both_vmms_say_is_told),
                cmocka_unit_test(test_a_vmm_that_dies_unseen_is_lost_where_there_is_no_copy),
                cmocka_unit_test(test_a_push_that_fails_leaves_it_to_the_vmm),
                cmocka_unit_test(test_a_device_that_does_not_run_behind_its_vmm_is_named),
                cmocka_unit_test(
                        test_an_agent_that_dies_while_the_vcpus_start_loses_nothing_of_the_vmms_device),
                cmocka_unit_test(test_a_source_that_its_vmm_resumes_late_is_looked_at_too),
                cmocka_unit_test(test_the_vmms_devices_are_pushed_behind_a_repair_too),
                cmocka_unit_test(test_a_device_of_the_vmm_that_is_found_again_has_lost_nothing),
                cmocka_unit_test(test_the_vmm_is_told_to_begin_before_it_is_told_to_run),
                cmocka_unit_test(test_vcpus_are_held_from_before_the_start_to_a_look_at_the_vmms_devices),
                cmocka_unit_test(test_vcpus_are_not_held_unless_planned_or_where_there_is_no_way_back),
                cmocka_unit_test(test_vcpus_that_cannot_be_held_turn_the_job_back_with_its_copy),
                cmocka_unit_test(test_a_last_arc_that_fails_while_held_ends_in_a_promise),
                cmocka_unit_test(test_a_hold_that_did_not_last_allows_no_promise),
                cmocka_unit_test(test_a_device_reset_behind_a_hold_that_did_not_last_is_named),
                cmocka_unit_test(test_without_a_link_a_device_that_was_reset_does_not_end_the_copy),
                cmocka_unit_test(test_behind_a_failure_from_which_there_is_no_way_back_nobody_counts_as_held),
                cmocka_unit_test(test_a_restarted_destination_whose_vcpus_run_looks_at_the_vmms_devices),
                cmocka_unit_test(test_after_a_restart_the_vmms_devices_vouch_for_nothing),
                cmocka_unit_test(test_every_state_is_reached_by_a_row_or_a_restart),
                cmocka_unit_test(test_rows_stay_on_their_side),
                cmocka_unit_test(test_after_a_restart_all_arrive_before_one_runs),
                cmocka_unit_test(test_every_record_of_each_side_has_a_place_after_a_restart),
                cmocka_unit_test(test_a_job_that_was_given_up_is_not_done_after_a_restart),
                cmocka_unit_test(test_names_round_trip),
                cmocka_unit_test(test_forward_devices_are_asked_in_their_order),
                cmocka_unit_test(test_nobody_waits_for_his_order_to_load_or_to_go_back),
                cmocka_unit_test(test_a_failure_ends_the_order),
                cmocka_unit_test(test_each_device_has_its_own_time),
                cmocka_unit_test(test_after_grace_says_where_a_failure_in_arrival_grace_leads),
                cmocka_unit_test(test_on_error_says_whether_a_device_is_reset_on_the_way_back),
                cmocka_unit_test(test_on_error_is_about_the_device_that_failed_at_the_destination),
                cmocka_unit_test(test_who_was_only_in_the_middle_has_not_failed),
                cmocka_unit_test(test_on_source_loss_says_whether_the_vm_goes_on),
                cmocka_unit_test(test_only_a_vm_that_stands_is_kept_so),
                cmocka_unit_test(test_viommu_grace_is_before_the_halt_and_leads_back),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
