/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "half-table.h"

#include <assert.h>

/* A participant answers by itself when its own deadline is up, and says more than "no answer". The step's timer is
 * for those that do not even do that. The other half has a timer of its own, and the way back. */
#define MARGIN_USEC      (500 * USEC_PER_MSEC)
#define PEER_MARGIN_USEC (1 * USEC_PER_SEC)
#define RETRY_USEC       (1 * USEC_PER_SEC)

#define TURNS (2 * PLAN_ORDERS)

static const char *const job_state_names[JOB_STATE_MAX] = {
        [JOB_STATE_RUNNING] = "running",   [JOB_STATE_ROLLING_BACK] = "rolling-back",
        [JOB_STATE_SETTLING] = "settling", [JOB_STATE_IN_DOUBT] = "in-doubt",
        [JOB_STATE_FINISHED] = "finished",
};

static const char *const job_result_names[JOB_RESULT_MAX] = {
        [JOB_RESULT_NONE] = "",
        [JOB_RESULT_DONE] = "done",
        [JOB_RESULT_FAILED] = "failed",
        [JOB_RESULT_REFUSED] = "refused",
        [JOB_RESULT_CANCELLED] = "cancelled",
        [JOB_RESULT_TIMEOUT] = "timeout",
        [JOB_RESULT_DEGRADED] = "degraded",
        [JOB_RESULT_IN_DOUBT] = "in-doubt",
        [JOB_RESULT_LOST] = "lost",
};

static const char *const vmm_act_names[VMM_ACT_MAX] = {
        [VMM_ACT_NONE] = "-",          [VMM_ACT_LOOK] = "look",     [VMM_ACT_PREPARE] = "prepare",
        [VMM_ACT_MIGRATE] = "migrate", [VMM_ACT_HALT] = "halt",     [VMM_ACT_SEAL] = "seal",
        [VMM_ACT_RESUME] = "resume",   [VMM_ACT_END] = "end",       [VMM_ACT_START] = "start",
        [VMM_ACT_TAKE_IN] = "take-in", [VMM_ACT_VERIFY] = "verify", [VMM_ACT_HOLD] = "hold",
        [VMM_ACT_ARRIVE] = "arrive",   [VMM_ACT_GATE] = "gate",     [VMM_ACT_UNDO] = "undo",
        [VMM_ACT_RUN] = "run",
};

static const char *const half_event_names[HALF_EVENT_MAX] = {
        [HALF_START] = "start",
        [HALF_RESULT] = "result",
        [HALF_DEADLINE] = "deadline",
        [HALF_CANCEL] = "cancel",
        [HALF_TIMEOUT] = "timeout",
        [HALF_CUT] = "cut",
        [HALF_LINKED] = "linked",
        [HALF_DEVICE_GONE] = "device gone",
        [HALF_VMM_GONE] = "VMM gone",
        [HALF_VMM_RESUMED] = "VMM resumed by itself",
        [HALF_MESSAGE] = "message",
        [HALF_REACHED] = "reached",
        [HALF_FAILED] = "failed",
        [HALF_BLACKOUT] = "blackout",
        [HALF_DEVICE_RESET] = "device reset by its VMM",
        [HALF_RESOLVE] = "resolve",
};

static const char *const half_who_names[HALF_WHO_MAX] = {
        [HALF_WHO_DEVICE] = "device", [HALF_WHO_VMM] = "vmm",     [HALF_WHO_PEER] = "peer",
        [HALF_WHO_RECORD] = "record", [HALF_WHO_FENCE] = "fence",
};

static const char *const resolve_names[RESOLVE_MAX] = {
        [RESOLVE_NONE] = "",
        [RESOLVE_RUN_HERE] = "run-here",
        [RESOLVE_DISCARD_HERE] = "discard-here",
};

static const char *const half_cause_names[HALF_CAUSE_MAX] = {
        [HALF_CAUSE_NONE] = "",
        [HALF_CAUSE_REFUSED] = "refused",
        [HALF_CAUSE_FAILED] = "failed",
        [HALF_CAUSE_DEADLINE] = "deadline",
        [HALF_CAUSE_CANCELLED] = "cancelled",
        [HALF_CAUSE_TIMEOUT] = "timeout",
        [HALF_CAUSE_BLACKOUT] = "blackout",
        [HALF_CAUSE_CUT] = "cut",
        [HALF_CAUSE_DEVICE_GONE] = "device-gone",
        [HALF_CAUSE_DEVICE_RESET] = "device-reset",
        [HALF_CAUSE_VMM_GONE] = "vmm-gone",
        [HALF_CAUSE_VMM_RESUMED] = "vmm-resumed",
        [HALF_CAUSE_PEER] = "peer",
        [HALF_CAUSE_RESTART] = "restart",
        [HALF_CAUSE_RESOLVED] = "resolved",
};

DEFINE_STRING_TABLE(JobState, job_state, job_state_names);
DEFINE_STRING_TABLE(JobResult, job_result, job_result_names);
DEFINE_STRING_TABLE(VmmAct, vmm_act, vmm_act_names);
DEFINE_STRING_TABLE(HalfEventType, half_event, half_event_names);
DEFINE_STRING_TABLE(HalfWho, half_who, half_who_names);
DEFINE_STRING_TABLE(HalfCause, half_cause, half_cause_names);
DEFINE_STRING_TABLE(Resolve, resolve, resolve_names);

/* One call of half_step(). */
typedef struct Step {
        const HalfTable *table;
        const Plan *plan;
        Half *half;
        const HalfEvent *event;
        HalfEffects *effects;
} Step;

static const HalfStateDesc *desc(const Step *s)
{
        return &s->table->states[s->half->state];
}

/* ---- effects ------------------------------------------------------------------------------------------------- */

int half_effects_init(HalfEffects *effects, uint32_t n_devices)
{
        /* One event can pass several states, but waits in the first that commands a device; what a state may emit
         * besides is a handful. */
        uint32_t max = n_devices * 2 + 32;
        HalfEffect *items = calloc(max, sizeof *items);

        if (!items)
                return -ENOMEM;
        *effects = (HalfEffects){.max = max, .items = items};
        return 0;
}

void half_effects_deinit(HalfEffects *effects)
{
        free(effects->items);
        *effects = (HalfEffects){};
}

static HalfEffect *emit(Step *s, HalfEffectType type)
{
        HalfEffect *effect;

        assert(s->effects->n < s->effects->max);
        effect = &s->effects->items[s->effects->n++];
        *effect = (HalfEffect){.type = type, .step = s->half->step};
        return effect;
}

static void emit_send(Step *s, Message message, Phase phase)
{
        HalfEffect *effect;

        if (!s->half->linked)
                return;
        effect = emit(s, HALF_EFFECT_SEND);
        effect->message = message;
        effect->phase = phase;
        effect->noway = message == MESSAGE_GO && s->half->vmm_gone;
        effect->copy =
                message == MESSAGE_NOTSTARTED && !s->half->vmm_gone && s->half->owner != OWNER_DISCARDED;
}

static const PlanPhase *phase_plan(const Step *s)
{
        return &s->plan->phases[desc(s)->phase];
}

static uint64_t device_usec(const Step *s, uint32_t i)
{
        return s->plan->devices[i].deadline_usec[desc(s)->phase];
}

/* Of those that are waited for, the next whose time is up, and later than `after`. Without any, the VMM's. */
static uint64_t next_due(const Step *s, uint64_t after)
{
        const Half *half = s->half;
        uint64_t next = UINT64_MAX;

        if (half->peer_pending && phase_plan(s)->peer_usec > after)
                next = MIN(next, phase_plan(s)->peer_usec);
        if (half->vmm_pending && phase_plan(s)->deadline_usec > after)
                next = MIN(next, phase_plan(s)->deadline_usec);
        for (uint32_t i = 0; i < half->n_devices; i++)
                if (half->devices[i].pending && device_usec(s, i) > after)
                        next = MIN(next, device_usec(s, i));
        return next == UINT64_MAX ? MAX(phase_plan(s)->deadline_usec, after) : next;
}

static void emit_timer(Step *s, HalfTime time)
{
        uint64_t usec = 0;

        switch (time) {
        case HALF_TIME_NONE: break;
        case HALF_TIME_PHASE:
                s->half->due_usec = next_due(s, 0);
                usec = s->half->due_usec + MARGIN_USEC + (s->half->peer_pending ? PEER_MARGIN_USEC : 0);
                break;
        case HALF_TIME_DOUBT: usec = s->plan->doubt_usec; break;
        case HALF_TIME_RETRY: usec = RETRY_USEC; break;
        case HALF_TIME_FENCE: usec = s->plan->fence_usec + MARGIN_USEC; break;
        }
        emit(s, HALF_EFFECT_TIMER)->deadline_usec = usec;
}

/* ---- the barrier --------------------------------------------------------------------------------------------- */

static bool says_why(const HalfEvent *event)
{
        return event->type == HALF_MESSAGE && event->message == MESSAGE_FAILED &&
               event->status != -DEVICE_E_CUT;
}

static bool is_only_cut(const HalfFailure *failure)
{
        return failure->cause == HALF_CAUSE_FAILED && failure->who == HALF_WHO_DEVICE &&
               failure->status == -DEVICE_E_CUT;
}

static void note_failure(Step *s, HalfCause cause, HalfWho who)
{
        HalfFailure *failure = &s->half->failure;
        HalfState in = failure->cause == HALF_CAUSE_NONE ? s->half->state : failure->in;

        if (failure->cause != HALF_CAUSE_NONE && !(is_only_cut(failure) && says_why(s->event))) {
                failure->of_both |= failure->cause == HALF_CAUSE_FAILED && failure->who == HALF_WHO_VMM &&
                                    says_why(s->event);
                return;
        }
        *failure = (HalfFailure){.cause = cause, .in = in, .who = who};
        if (s->event->type == HALF_RESULT || s->event->type == HALF_DEVICE_GONE ||
            s->event->type == HALF_DEVICE_RESET || s->event->type == HALF_MESSAGE) {
                failure->device = s->event->device;
                failure->from = s->event->from;
                failure->to = s->event->to;
                failure->state = s->event->state;
                failure->status = s->event->status;
        }
}

static bool anything_pending(const Half *half)
{
        if (half->peer_pending || half->vmm_pending || half->record_pending || half->fence_pending)
                return true;
        for (uint32_t i = 0; i < half->n_devices; i++)
                if (half->devices[i].pending)
                        return true;
        return false;
}

static bool any_device_failed(const Half *half)
{
        for (uint32_t i = 0; i < half->n_devices; i++)
                if (half->devices[i].failed)
                        return true;
        return false;
}

/* The walk goes on. A device that does not even say where it is may be well behind a connection that is not. */
static void pass_over_device(const Step *s, HalfDevice *device)
{
        if (desc(s)->patience == HALF_LAST)
                device->lost = device->dead = true;
}

static bool command_next(Step *s);

/* Something in the barrier has changed. HALF_EVENT_MAX: it still waits. */
static HalfEventType barrier_look(Step *s)
{
        Half *half = s->half;
        bool goes_on = desc(s)->patience == HALF_TOLERANT || desc(s)->patience == HALF_LAST ||
                       !(half->failed || any_device_failed(half));
        bool failed;

        if (goes_on && command_next(s))
                emit_timer(s, desc(s)->time);
        failed = half->failed || any_device_failed(half);
        if (failed && desc(s)->patience == HALF_FIRST)
                return HALF_FAILED;
        if (anything_pending(half))
                return HALF_EVENT_MAX;
        if (!failed)
                return HALF_REACHED;
        if (desc(s)->patience == HALF_ALL)
                return HALF_FAILED;
        for (uint32_t i = 0; i < half->n_devices; i++)
                if (half->devices[i].failed)
                        pass_over_device(s, &half->devices[i]);
        return half->failed ? HALF_FAILED : HALF_REACHED;
}

static void command_device(Step *s, uint32_t i, const DeviceProgram *program)
{
        HalfDevice *device = &s->half->devices[i];
        HalfEffect *effect = emit(s, HALF_EFFECT_DEVICE);

        effect->device = i;
        effect->program = *program;
        effect->interrupt = device->busy != 0;
        /* How long a load takes is the source's business: it stands in the other half's plan. */
        effect->deadline_usec = desc(s)->device == DEVICE_ACT_LOAD ? 0 : device_usec(s, i);
        device->busy = s->half->step;
        device->pending = true;
}

static bool skips_device(const Step *s, uint32_t i)
{
        const HalfDevice *device = &s->half->devices[i];
        DeviceAct act = desc(s)->device;

        return plan_takes_vmms_word(s->plan, act, device->flags) ||
               plan_leaves_out(s->plan, act, i, device->flags) ||
               (device->dead && act != DEVICE_ACT_CLOSE && act != DEVICE_ACT_DISCARD);
}

/* Forward, where devices are moved on, policy may say which go first. What the other half sends is taken in by all at once,
 * whatever its order; and on a way back, or where there is none, nobody waits for anybody. */
static bool goes_by_order(const Step *s)
{
        static const DeviceAct acts[] = {DEVICE_ACT_RECEIVE, DEVICE_ACT_LOG,    DEVICE_ACT_PRECOPY,
                                         DEVICE_ACT_GRACE,   DEVICE_ACT_P2P,    DEVICE_ACT_STOP_REST,
                                         DEVICE_ACT_STOP,    DEVICE_ACT_DRAIN,  DEVICE_ACT_SEALED,
                                         DEVICE_ACT_INTAKE,  DEVICE_ACT_ARRIVE, DEVICE_ACT_RUN};

        if (desc(s)->job != JOB_STATE_RUNNING ||
            (desc(s)->patience != HALF_FIRST && desc(s)->patience != HALF_ALL))
                return false;
        for (size_t k = 0; k < ARRAY_SIZE(acts); k++)
                if (acts[k] == desc(s)->device)
                        return true;
        return false;
}

/* When a device is asked, in its state. One without the P2P states goes from standing to running at once, on every way. As long
 * as it stands nobody may write to it: so those that can be quiet stay so until it runs. */
static uint32_t turn_of(const Step *s, uint32_t i)
{
        bool can_be_quiet = s->half->devices[i].flags & DEVICE_MIGRATION_P2P;

        return (desc(s)->device == DEVICE_ACT_RUN && can_be_quiet ? PLAN_ORDERS : 0) +
               (goes_by_order(s) ? s->plan->devices[i].order : 0);
}

/* The first turn of those that are still to be asked; TURNS: nobody is. */
static uint32_t next_turn(const Step *s)
{
        uint32_t turn = TURNS;

        for (uint32_t i = 0; i < s->half->n_devices; i++) {
                if (s->half->devices[i].pending)
                        return TURNS; /* ... before those have answered */
                if (s->half->devices[i].waits)
                        turn = MIN(turn, turn_of(s, i));
        }
        return turn;
}

static bool would_reset(const DeviceProgram *program)
{
        for (uint32_t i = 0; i < program->n; i++)
                if (program->ops[i].type == DEVICE_OP_RESET)
                        return true;
        return false;
}

/* A device that has failed, and that its policy does not want reset: what it does is not asked of it. -EINVAL: it does not
 * come to run, then. */
static int leave_alone(const Step *s, uint32_t i, DeviceProgram *program)
{
        HalfDevice *device = &s->half->devices[i];

        device->quarantined |= s->plan->devices[i].on_error == POLICY_ON_ERROR_QUARANTINE;
        *program = (DeviceProgram){};
        switch (desc(s)->device) {
        case DEVICE_ACT_DISCARD:
                *program = (DeviceProgram){.n = 1, .ops = {{.type = DEVICE_OP_CLOSE}}};
                return 0;
        case DEVICE_ACT_REPAIR: return -EINVAL;
        default: return 0;
        }
}

/* What is asked of it in this state. -EINVAL: there is no way. */
static int plan_program(const Step *s, uint32_t i, DeviceProgram *program)
{
        HalfDevice *device = &s->half->devices[i];
        DeviceAct act = desc(s)->device;
        int r = device_program(act, device->state, device->flags, device->gone, program);

        if (r < 0 || s->plan->devices[i].on_error == POLICY_ON_ERROR_RESET)
                return r;
        if ((act == DEVICE_ACT_DISCARD && device->failed_once) ||
            ((act == DEVICE_ACT_REPAIR || act == DEVICE_ACT_BACK_P2P) && would_reset(program)))
                return leave_alone(s, i, program);
        return 0;
}

/* A change of state refused, ERROR, or no answer: what a stream or the other side does is not the device's fault. */
static void note_device_failed(const Step *s, uint32_t i, bool at_fault)
{
        HalfDevice *device = &s->half->devices[i];

        device->failed = true;
        device->failed_once |= at_fault && s->plan->devices[i].on_error != POLICY_ON_ERROR_RESET;
}

/* Asks those that are to be asked next, once all before have answered. Returns whether anybody was asked. */
static bool command_next(Step *s)
{
        DeviceProgram program;
        bool asked = false;
        uint32_t turn;

        while (!asked && (turn = next_turn(s)) < TURNS)
                for (uint32_t i = 0; i < s->half->n_devices; i++) {
                        HalfDevice *device = &s->half->devices[i];

                        if (!device->waits || turn_of(s, i) != turn)
                                continue;
                        device->waits = false;
                        if (plan_program(s, i, &program) < 0) {
                                device->failed = true; /* it has changed since all were planned */
                                note_failure(s, HALF_CAUSE_FAILED, HALF_WHO_DEVICE);
                        } else if (program.n > 0) {
                                command_device(s, i, &program);
                                asked = true;
                        }
                }
        return asked;
}

/* Gives every device its part. First all are planned: a device that has no way fails the barrier before any other
 * has been asked to move. */
static void enter_devices(Step *s)
{
        Half *half = s->half;
        DeviceProgram program;
        bool hopeless = false;

        for (uint32_t i = 0; i < half->n_devices; i++) {
                HalfDevice *device = &half->devices[i];

                if (skips_device(s, i))
                        continue;
                if (plan_program(s, i, &program) < 0)
                        device->failed = hopeless = true;
        }
        if (hopeless)
                note_failure(s, HALF_CAUSE_FAILED, HALF_WHO_DEVICE);
        if (hopeless && (desc(s)->patience == HALF_FIRST || desc(s)->patience == HALF_ALL))
                return;

        for (uint32_t i = 0; i < half->n_devices; i++) {
                HalfDevice *device = &half->devices[i];

                device->retries_left = s->plan->devices[i].retries;
                device->waits = !skips_device(s, i) && !device->failed;
        }
        (void) command_next(s);
}

/* Of one that is gone only how it ended is asked. Where there is no way back nobody need be held. */
static bool asks_vmm(const Step *s)
{
        VmmAct act = desc(s)->vmm;

        if (act == VMM_ACT_NONE || (act == VMM_ACT_HOLD && (!s->plan->hold_vcpus || s->half->noway)))
                return false;
        return act == VMM_ACT_UNDO || !s->half->vmm_gone;
}

static void enter_vmm(Step *s)
{
        HalfEffect *effect;

        if (!asks_vmm(s))
                return;
        effect = emit(s, HALF_EFFECT_VMM);
        effect->vmm_act = desc(s)->vmm;
        /* As for a load: memory comes in as long as the source says. */
        effect->deadline_usec = desc(s)->vmm == VMM_ACT_TAKE_IN ? 0 : phase_plan(s)->deadline_usec;
        s->half->vmm_pending = true;
        if (desc(s)->vmm == VMM_ACT_SEAL)
                s->half->drained = true;
        if (desc(s)->vmm == VMM_ACT_HALT)
                s->half->halted = true;
        if (desc(s)->vmm == VMM_ACT_ARRIVE || desc(s)->vmm == VMM_ACT_GATE || desc(s)->vmm == VMM_ACT_RUN)
                s->half->ran = true;
}

static void enter_record(Step *s)
{
        Half *half = s->half;
        Owner owner = desc(s)->record;
        HalfEffect *effect;

        if (owner == OWNER_UNRECORDED || (half->owner == owner && !half->owner_unsure))
                return;
        if (owner == OWNER_NOBODY)
                half->tried_nobody = true;
        effect = emit(s, HALF_EFFECT_RECORD);
        effect->owner = owner;
        effect->noway = half->noway && !(owner == OWNER_DONE && half->heard);
        half->record_pending = true;
}

static void enter_fence(Step *s)
{
        if (!desc(s)->fence)
                return;
        emit(s, HALF_EFFECT_FENCE)->deadline_usec = s->plan->fence_usec;
        s->half->fence_pending = true;
}

static void enter_peer(Step *s)
{
        Half *half = s->half;

        half->peer_owed = desc(s)->send != MESSAGE_NONE && !half->linked;
        if (desc(s)->send != MESSAGE_NONE)
                emit_send(s, desc(s)->send, desc(s)->phase);
        if (desc(s)->expect != MESSAGE_NONE)
                half->peer_pending = true;
        if (desc(s)->connect) {
                emit(s, HALF_EFFECT_CONNECT)->deadline_usec = phase_plan(s)->deadline_usec;
                half->peer_pending = true;
        }
}

static HalfEventType enter(Step *s, HalfState state)
{
        Half *half = s->half;

        half->state = state;
        half->step++;
        half->begun |= desc(s)->phase != PHASE_CHECK && state != SOURCE_OVER;
        half->owner_unsure |= half->record_pending;
        half->peer_pending = half->vmm_pending = half->record_pending = half->fence_pending = false;
        half->peer_owed = half->failed = false;
        half->held &= (DESTINATION_HOLDING & IN(state)) != 0;
        for (uint32_t i = 0; i < half->n_devices; i++)
                half->devices[i].pending = half->devices[i].failed = half->devices[i].waits = false;
        half->due_usec = 0;

        if (desc(s)->skippable && !s->plan->phases[desc(s)->phase].planned)
                return HALF_REACHED;

        enter_record(s);
        enter_devices(s);
        enter_vmm(s);
        enter_fence(s);
        enter_peer(s);
        emit_timer(s, desc(s)->time);
        if (desc(s)->device == DEVICE_ACT_NONE && !anything_pending(half) &&
            desc(s)->record == OWNER_UNRECORDED && desc(s)->vmm == VMM_ACT_NONE)
                return HALF_EVENT_MAX; /* a state that waits for an event, not a barrier */
        return barrier_look(s);
}

/* ---- rows ---------------------------------------------------------------------------------------------------- */

static bool nothing_ran(const Half *half)
{
        if (half->ran)
                return false;
        for (uint32_t i = 0; i < half->n_devices; i++) {
                DeviceState state = half->devices[i].state;

                if (state == DEVICE_STATE_RUNNING || state == DEVICE_STATE_UNKNOWN)
                        return false;
        }
        return true;
}

/* A device that did not answer may yet do what it was told; one whose server has ended does nothing. */
static bool stands(const HalfDevice *device)
{
        switch (device->state) {
        case DEVICE_STATE_UNKNOWN:
        case DEVICE_STATE_RUNNING:
        case DEVICE_STATE_RUNNING_P2P:
        case DEVICE_STATE_PRE_COPY:
        case DEVICE_STATE_PRE_COPY_P2P: return device->absent;
        case DEVICE_STATE_ERROR:
        case DEVICE_STATE_STOP:
        case DEVICE_STATE_STOP_COPY:
        case DEVICE_STATE_RESUMING:
        case DEVICE_STATE_MAX:
        case DEVICE_STATE_INVALID: break;
        }
        return true;
}

/* What a dead VMM had open for itself nobody has open any more. */
static bool went_with_vmm(const Half *half, const HalfDevice *device)
{
        return half->vmm_gone && device->gone && (device->flags & DEVICE_SUPERVISED);
}

static bool all_stand(const Half *half)
{
        for (uint32_t i = 0; i < half->n_devices; i++)
                if (!stands(&half->devices[i]) && !went_with_vmm(half, &half->devices[i]))
                        return false;
        return true;
}

/* Only a VM that stands can be kept so. A daemon that came on the way back does not know what was lost before. */
static bool pauses_vm(const Step *s)
{
        const Half *half = s->half;

        if (half->vmm_gone || half->vmm_resumed || !half->halted)
                return false;
        for (uint32_t i = 0; i < half->n_devices; i++)
                if (s->plan->devices[i].on_source_loss == POLICY_ON_SOURCE_LOSS_PAUSE &&
                    (half->forgot || half_device_is_lost(half, i)))
                        return true;
        return false;
}

static bool holds(const Step *s, uint32_t when)
{
        const Half *half = s->half;

        switch (when) {
        case WHEN_CHECK_ONLY: return half->check_only;
        case WHEN_VMM_LIVES: return !half->vmm_gone;
        case WHEN_VMM_GONE: return half->vmm_gone;
        case WHEN_SEALED: return half->sealed;
        case WHEN_NOT_DRAINED: return !half->drained;
        case WHEN_SEEN: return !half->drained || half->vmm_resumed;
        case WHEN_NEVER_NOBODY: return !half->tried_nobody;
        case WHEN_COPY: return s->event->copy;
        case WHEN_NO_COPY: return !s->event->copy;
        case WHEN_NOWAY: return half->noway || s->event->noway;
        case WHEN_PAUSE: return pauses_vm(s);
        case WHEN_ONWARD: return half->noway || s->plan->onward;
        case WHEN_NOTHING_RAN: return nothing_ran(half);
        case WHEN_END_SEEN: return half->end_seen;
        case WHEN_LINKED: return half->linked;
        case WHEN_ALL_STAND: return all_stand(half);
        case WHEN_CANCELLED: return half->cancelled;
        case WHEN_DONE_SEEN: return half->done_seen;
        case WHEN_LOGGING: return s->plan->logs_dma;
        case WHEN_PAGES: return s->plan->copies_pages;
        case WHEN_PUSH: return s->plan->push;
        case WHEN_RUN_HERE: return s->event->resolve == RESOLVE_RUN_HERE;
        case WHEN_DISCARD_HERE: return s->event->resolve == RESOLVE_DISCARD_HERE;
        case WHEN_UNLINKED: return !half->linked;
        case WHEN_FENCE: return s->plan->fence;
        case WHEN_NOT_RESUMED: return !half->vmm_resumed;
        case WHEN_HELD: return half->held;
        case WHEN_RECORDED: return half->owner == desc(s)->record && !half->owner_unsure;
        }
        return false;
}

static bool fits(const Step *s, const HalfRow *row, HalfEventType type)
{
        if (!(row->in & IN(s->half->state)) || row->on != type)
                return false;
        if (type == HALF_MESSAGE && row->message != s->event->message)
                return false;
        if (type == HALF_MESSAGE && row->phase != PHASE_CHECK && row->phase != s->event->phase)
                return false;
        for (uint32_t when = 1; when < WHEN_MAX; when <<= 1)
                if ((row->when & when) && !holds(s, when))
                        return false;
        return true;
}

static const HalfRow *find_row(const Step *s, HalfEventType type)
{
        const HalfRows *side = s->table->side[s->half->side];

        for (uint32_t i = 0; i < side->n; i++)
                if (fits(s, &side->rows[i], type))
                        return &side->rows[i];
        return NULL;
}

static void send_answer(Step *s)
{
        if (desc(s)->answer != MESSAGE_NONE)
                emit_send(s, desc(s)->answer, desc(s)->phase);
}

/* Takes the rows for `type`, and for what comes of each at once. */
static void follow(Step *s, HalfEventType type)
{
        const HalfRow *row;

        while (type != HALF_EVENT_MAX && (row = find_row(s, type))) {
                if (row->cause != HALF_CAUSE_NONE)
                        note_failure(s, row->cause, HALF_WHO_PEER);
                if (type == HALF_MESSAGE && s->event->message == MESSAGE_GO && s->event->noway &&
                    row->next != HALF_STAY)
                        s->half->noway = true;
                s->half->noway |= row->noway;
                s->half->heard |= row->heard;
                if (row->send != MESSAGE_NONE)
                        emit_send(s, row->send, row->send_phase ? row->send_phase : desc(s)->phase);
                if (row->answer)
                        send_answer(s);
                if (row->acked && !s->half->acked) {
                        s->half->acked = true;
                        emit(s, HALF_EFFECT_ACKED);
                }
                if (row->next == HALF_STAY) {
                        if (row->rearm != HALF_TIME_NONE)
                                emit_timer(s, row->rearm);
                        return;
                }
                type = enter(s, row->next);
        }
}

/* ---- events -------------------------------------------------------------------------------------------------- */

/* Its state is lost when it comes back without it, or was reset where that is no part of the preparation. */
static bool is_loss(const HalfDevice *device, const HalfEvent *event)
{
        /* It stood, nobody has asked it to run, and it runs: it is another one, and knows nothing. One that its VMM drives
         * may run because of that. */
        return event->status == 0 && device->gone && event->state == DEVICE_STATE_RUNNING &&
               !(device->flags & DEVICE_SUPERVISED) &&
               (device->left == DEVICE_STATE_STOP || device->left == DEVICE_STATE_STOP_COPY);
}

static bool resets_for_good(DeviceAct act)
{
        return act == DEVICE_ACT_RECEIVE || act == DEVICE_ACT_CLEAN || act == DEVICE_ACT_DISCARD;
}

/* Asked once more, from the state in which it is now. */
static bool ask_again(Step *s, uint32_t i)
{
        DeviceProgram program;

        if (plan_program(s, i, &program) < 0 || program.n == 0)
                return false;
        command_device(s, i, &program);
        return true;
}

static bool may_retry(const Step *s, const HalfDevice *device)
{
        const HalfEvent *event = s->event;

        return event->status < 0 && event->state == event->from && event->from != event->to &&
               device->retries_left > 0 && (desc(s)->patience == HALF_FIRST || desc(s)->patience == HALF_ALL);
}

static void device_result(Step *s)
{
        Half *half = s->half;
        const HalfEvent *event = s->event;
        HalfDevice *device;
        DeviceAct act = desc(s)->device;
        bool found;

        if (event->device >= half->n_devices)
                return;
        device = &half->devices[event->device];
        if (device->busy != event->step)
                return; /* an answer to a command that was already given up for a newer one */
        device->busy = 0;
        device->state = event->state;
        device->lost |= is_loss(device, event);
        found = event->status == 0 && device->gone;
        if (found)
                device->gone = false;
        /* Its connection ended, and there is no new one. A server that has gone only deaf is another matter. */
        device->absent = event->absent && device->gone;
        if (event->step != half->step || !device->pending)
                return;
        if (event->was_reset && !resets_for_good(act))
                device->lost = true;
        if (found && act == DEVICE_ACT_SETTLE && ask_again(s, event->device))
                return; /* it was only looked for so far */
        /* What can't be reset is let go all the same: kept open it would be in the way of the next VMM. */
        if (event->status < 0 && act == DEVICE_ACT_DISCARD && !device->gone) {
                device->gone = true;
                if (ask_again(s, event->device))
                        return;
        }
        if (may_retry(s, device)) {
                device->retries_left--;
                if (ask_again(s, event->device))
                        return;
        }
        device->pending = false;
        /* libvfio-user says of every device that it can pre-copy; one that can't says so by refusing the arc. */
        if (event->status < 0 && !(act == DEVICE_ACT_PRECOPY && event->state == DEVICE_STATE_RUNNING)) {
                note_device_failed(s, event->device,
                                   event->from != event->to || event->state == DEVICE_STATE_ERROR ||
                                           event->state == DEVICE_STATE_UNKNOWN);
                /* A device that its VMM drives is opened by the check: that it can't be is a finding, not a failure. So it is
                 * that one has no state to be read, for it can't be moved. */
                if (half->state != SOURCE_CHECK_HERE ||
                    (!(device->flags & DEVICE_SUPERVISED) && (device->flags & DEVICE_MIGRATION_STOP_COPY)))
                        note_failure(s, HALF_CAUSE_FAILED, HALF_WHO_DEVICE);
        }
        follow(s, barrier_look(s));
}

static void vmm_result(Step *s)
{
        Half *half = s->half;

        if (s->event->step != half->step || !half->vmm_pending)
                return;
        half->vmm_pending = false;
        if (s->event->status < 0) {
                note_failure(s, s->event->refused ? HALF_CAUSE_REFUSED : HALF_CAUSE_FAILED, HALF_WHO_VMM);
                half->failed = true;
        } else if (desc(s)->vmm == VMM_ACT_SEAL) {
                half->sealed = true;
        } else if (desc(s)->vmm == VMM_ACT_HOLD) {
                half->held = true;
        } else if (desc(s)->vmm == VMM_ACT_RESUME) {
                half->vmm_resumed = true;
        } else if (desc(s)->vmm == VMM_ACT_END) {
                half->vmm_gone = true;
        }
        follow(s, barrier_look(s));
}

static void record_result(Step *s)
{
        Half *half = s->half;

        if (s->event->step != half->step || !half->record_pending)
                return;
        half->record_pending = false;
        if (s->event->status < 0) {
                note_failure(s, HALF_CAUSE_FAILED, HALF_WHO_RECORD);
                half->failed = half->owner_unsure = true;
        } else {
                half->owner_unsure = false;
                half->owner = desc(s)->record;
        }
        follow(s, barrier_look(s));
}

static void fence_result(Step *s)
{
        if (s->event->step != s->half->step || !s->half->fence_pending)
                return;
        s->half->fence_pending = false;
        if (s->event->status < 0) {
                note_failure(s, HALF_CAUSE_FAILED, HALF_WHO_FENCE);
                s->half->failed = true;
        }
        follow(s, barrier_look(s));
}

static void peer_result(Step *s)
{
        if (s->event->step != s->half->step || !s->half->peer_pending)
                return;
        s->half->peer_pending = false;
        if (s->event->status < 0) {
                note_failure(s, HALF_CAUSE_FAILED, HALF_WHO_PEER);
                s->half->failed = true;
        }
        follow(s, barrier_look(s));
}

static void result(Step *s)
{
        switch (s->event->who) {
        case HALF_WHO_DEVICE: device_result(s); break;
        case HALF_WHO_VMM: vmm_result(s); break;
        case HALF_WHO_RECORD: record_result(s); break;
        case HALF_WHO_PEER: peer_result(s); break;
        case HALF_WHO_FENCE: fence_result(s); break;
        case HALF_WHO_MAX:
        case HALF_WHO_INVALID: break;
        }
}

static void late(Step *s, bool *pending, HalfWho who)
{
        note_failure(s, HALF_CAUSE_DEADLINE, who);
        *pending = false;
        s->half->failed = true;
}

/* Some have more time than those that were late. */
static void wait_on(Step *s)
{
        uint64_t due_usec = s->half->due_usec, next = next_due(s, due_usec);

        s->half->due_usec = next;
        emit(s, HALF_EFFECT_TIMER)->deadline_usec = MAX(next - due_usec, 1);
}

static void deadline(Step *s)
{
        Half *half = s->half;
        /* A timer that no participant was given: whoever is still awaited then is late. */
        uint64_t due_usec = half->due_usec > 0 ? half->due_usec : UINT64_MAX;
        HalfEventType type;

        if (half->record_pending)
                return; /* a write that is under way may become durable at any moment: there is no acting without it */
        if (!anything_pending(half)) {
                follow(s, HALF_DEADLINE);
                return;
        }
        for (uint32_t i = 0; i < half->n_devices; i++) {
                HalfDevice *device = &half->devices[i];

                if (!device->pending || device_usec(s, i) > due_usec)
                        continue;
                device->pending = false;
                note_device_failed(s, i, true);
                device->state = DEVICE_STATE_UNKNOWN;
                if (half->failure.cause == HALF_CAUSE_NONE) {
                        note_failure(s, HALF_CAUSE_DEADLINE, HALF_WHO_DEVICE);
                        half->failure.device = i;
                        half->failure.state = DEVICE_STATE_UNKNOWN;
                }
        }
        if (half->vmm_pending && phase_plan(s)->deadline_usec <= due_usec)
                late(s, &half->vmm_pending, HALF_WHO_VMM);
        if (half->peer_pending && phase_plan(s)->peer_usec <= due_usec)
                late(s, &half->peer_pending, HALF_WHO_PEER);
        if (half->fence_pending)
                late(s, &half->fence_pending, HALF_WHO_FENCE);
        half->due_usec = 0;
        type = barrier_look(s);
        if (type == HALF_EVENT_MAX && half->due_usec == 0) { /* nobody was asked anew */
                half->due_usec = due_usec;
                wait_on(s);
        }
        follow(s, type);
}

static void device_gone(Step *s)
{
        HalfDevice *device;

        if (s->event->device >= s->half->n_devices)
                return;
        device = &s->half->devices[s->event->device];
        if (!device->gone)
                device->left = device->busy ? DEVICE_STATE_UNKNOWN : device->state;
        device->gone = true;
        device->state = DEVICE_STATE_UNKNOWN;
        device->busy = 0;
        /* It ran already, and only the vCPUs are still awaited: nobody looks for it any more. What its VMM drives goes on
         * without us. */
        if (s->half->side == SIDE_DESTINATION && (DESTINATION_RUNNING & IN(s->half->state)) &&
            !(device->flags & DEVICE_SUPERVISED))
                device->lost = true;
        if (!device->pending) {
                if (!went_with_vmm(s->half, device)) /* that was told, and decides */
                        follow(s, HALF_DEVICE_GONE);
                return;
        }
        device->pending = false;
        device->failed = true;
        note_failure(s, HALF_CAUSE_DEVICE_GONE, HALF_WHO_DEVICE);
        follow(s, barrier_look(s));
}

static void device_reset(Step *s)
{
        HalfDevice *device;

        if (s->event->device >= s->half->n_devices || desc(s)->job == JOB_STATE_FINISHED || !s->half->begun ||
            (s->half->side == SIDE_DESTINATION && s->half->owner == OWNER_UNRECORDED))
                return;
        device = &s->half->devices[s->event->device];
        device->was_reset = true;
        follow(s, HALF_DEVICE_RESET);
}

static void vmm_gone(Step *s)
{
        Half *half = s->half;

        if (half->vmm_gone)
                return;
        half->vmm_gone = true;
        if (desc(s)->vmm == VMM_ACT_UNDO && half->vmm_pending)
                return; /* the answer says how it ended */
        if (find_row(s, HALF_VMM_GONE)) {
                bool pending = half->vmm_pending;
                uint32_t step = half->step;

                half->vmm_pending = false;
                if (half->failure.cause == HALF_CAUSE_NONE)
                        note_failure(s, HALF_CAUSE_VMM_GONE, HALF_WHO_VMM);
                follow(s, HALF_VMM_GONE);
                if (pending && half->step == step)
                        follow(s, barrier_look(s));
                return;
        }
        if (!half->vmm_pending)
                return;
        half->vmm_pending = false;
        if (desc(s)->vmm == VMM_ACT_END) {
                follow(s, barrier_look(s));
                return;
        }
        note_failure(s, HALF_CAUSE_VMM_GONE, HALF_WHO_VMM);
        half->failed = true;
        follow(s, barrier_look(s));
}

static void linked(Step *s)
{
        s->half->linked = true;
        if (s->half->peer_owed) {
                s->half->peer_owed = false;
                emit_send(s, desc(s)->send, desc(s)->phase);
                return;
        }
        follow(s, HALF_LINKED);
}

static bool is_awaited(const Step *s)
{
        if (!s->half->peer_pending || s->event->message != desc(s)->expect)
                return false;
        return s->event->message != MESSAGE_REACHED || s->event->phase == desc(s)->phase;
}

static void message(Step *s)
{
        Half *half = s->half;

        if (s->event->message == MESSAGE_END)
                half->end_seen = true;
        if (s->event->message == MESSAGE_DONE)
                half->done_seen = true;
        if (!is_awaited(s)) {
                if (s->event->message == MESSAGE_FAILED)
                        note_failure(s, HALF_CAUSE_FAILED, HALF_WHO_PEER);
                follow(s, HALF_MESSAGE);
                return;
        }
        half->peer_pending = false;
        if (s->event->refused) {
                note_failure(s, HALF_CAUSE_REFUSED, HALF_WHO_PEER);
                half->failed = true;
        }
        follow(s, barrier_look(s));
}

bool half_may_resolve(const HalfTable *table, const Plan *plan, const Half *half, Resolve resolve)
{
        const HalfEvent event = {.type = HALF_RESOLVE, .resolve = resolve};
        Step s = {table, plan, (Half *) half, &event, NULL}; /* looked at only */

        return find_row(&s, HALF_RESOLVE) != NULL;
}

int half_step(const HalfTable *table, const Plan *plan, Half *half, const HalfEvent *event,
              HalfEffects *effects)
{
        Step s = {table, plan, half, event, effects};

        effects->n = 0;
        switch (event->type) {
        case HALF_START: follow(&s, enter(&s, half->state)); break;
        case HALF_RESULT: result(&s); break;
        case HALF_DEADLINE: deadline(&s); break;
        case HALF_CANCEL:
        case HALF_TIMEOUT:
        case HALF_BLACKOUT:
                if (!find_row(&s, event->type))
                        return HALF_E_TOO_LATE;
                half->cancelled |= event->type == HALF_CANCEL;
                follow(&s, event->type);
                break;
        case HALF_CUT:
                half->linked = false;
                follow(&s, HALF_CUT);
                break;
        case HALF_LINKED: linked(&s); break;
        case HALF_DEVICE_GONE: device_gone(&s); break;
        case HALF_DEVICE_RESET: device_reset(&s); break;
        case HALF_VMM_GONE: vmm_gone(&s); break;
        case HALF_VMM_RESUMED:
                half->vmm_resumed = true;
                follow(&s, HALF_VMM_RESUMED);
                break;
        case HALF_MESSAGE: message(&s); break;
        case HALF_RESOLVE:
                if (!find_row(&s, HALF_RESOLVE))
                        return HALF_E_FORBIDDEN;
                half->resolved = event->resolve;
                follow(&s, HALF_RESOLVE);
                break;
        case HALF_REACHED:
        case HALF_FAILED:
        case HALF_EVENT_MAX:
        case HALF_EVENT_INVALID: break; /* not for callers */
        }
        return 0;
}
