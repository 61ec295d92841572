/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Events for one half, in any order, also such as no honest other half, device or VMM would give: messages that are out of turn,
 * answers of old steps, deaths, a person's word. What it then says and writes must keep the rules of docs/ownership.md that one
 * half can keep alone: nothing is said before its record is durable, no record takes a forbidden step, GO and END are never both
 * said, and whoever is waited for has been asked. An input is
 *
 *     one byte: the side, what is looked at (BEGIN_*); one: what the VM's devices can
 *     then of each event 3 bytes: its HalfEventType and more, see event_of()
 */

#include "daemon/core/half-table.h"
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>

#define N 2

#define MUST(condition)                                            \
        do {                                                       \
                if (!(condition)) {                                \
                        fprintf(stderr, "half: %s\n", #condition); \
                        abort();                                   \
                }                                                  \
        } while (0)

enum {
        BEGIN_SOURCE = 1 << 0,
        BEGIN_CHECK_ONLY = 1 << 1,
        BEGIN_FENCE = 1 << 2,
        BEGIN_HOLD = 1 << 3,
        BEGIN_COPIES = 1 << 4,
        BEGIN_RESTORED = 1 << 5,
        BEGIN_SUPERVISED = 1 << 6,
        BEGIN_PRECOPY = 1 << 7,
};

typedef struct World {
        Plan plan;
        HalfEffects effects;
        Side side;
        Owner durable;     /* what the record says */
        bool unsure;       /* a write was answered with an error: it may say that, too */
        Owner may_say;     /* ... that is this */
        HalfEffect record; /* that is under way */
        bool writes;
        bool said_go, said_end, asked;
        uint32_t steps[N], vmm_step, fence_step, connect_step;
        union {
                Half half;
                uint8_t room[sizeof(Half) + N * sizeof(HalfDevice)];
        };
} World;

static bool record_says(const World *w, Owner owner)
{
        return w->durable == owner || (w->unsure && w->may_say == owner);
}

/* ---- what it asks for ------------------------------------------------------------------------------------------ */

static void check_message(World *w, const HalfEffect *fx)
{
        Message m = fx->message;

        MUST(m > MESSAGE_HELLO && m < MESSAGE_MAX);
        MUST(message_is_for_destination(m) == (w->side == SIDE_SOURCE));
        if (m == MESSAGE_GO)
                MUST(record_says(w, OWNER_NOBODY));
        if (m == MESSAGE_STARTED)
                MUST(w->durable == OWNER_DESTINATION || w->durable == OWNER_DONE);
        if (m == MESSAGE_NOTSTARTED)
                MUST(w->durable == OWNER_PROMISED || w->durable == OWNER_DISCARDED);
        if (m == MESSAGE_DONE)
                MUST(w->durable == OWNER_DONE);
        if (m == MESSAGE_END)
                MUST(w->durable != OWNER_NOBODY && w->durable != OWNER_DONE);
        if (m == MESSAGE_REACHED || m == MESSAGE_BEGIN || m == MESSAGE_FAILED)
                MUST((int) fx->phase >= 0 && fx->phase < PHASE_MAX);
}

static void check_effect(World *w, const HalfEffect *fx)
{
        switch (fx->type) {
        case HALF_EFFECT_DEVICE:
                MUST(fx->device < N && fx->program.n > 0 && fx->program.n <= DEVICE_PROGRAM_MAX);
                w->steps[fx->device] = fx->step;
                break;
        case HALF_EFFECT_VMM:
                MUST(fx->vmm_act > VMM_ACT_NONE && fx->vmm_act < VMM_ACT_MAX);
                w->vmm_step = fx->step;
                break;
        case HALF_EFFECT_RECORD:
                MUST(owner_may_become(w->side, w->durable, fx->owner, fx->noway) ||
                     (w->unsure && owner_may_become(w->side, w->may_say, fx->owner, fx->noway)));
                w->record = *fx;
                w->writes = true;
                break;
        case HALF_EFFECT_SEND: check_message(w, fx); break;
        case HALF_EFFECT_FENCE:
                MUST(w->side == SIDE_SOURCE);
                w->fence_step = fx->step;
                break;
        case HALF_EFFECT_CONNECT:
                MUST(w->side == SIDE_SOURCE);
                w->connect_step = fx->step;
                break;
        case HALF_EFFECT_TIMER:
        case HALF_EFFECT_ACKED: break;
        case HALF_EFFECT_MAX: MUST(false);
        }
}

static void check_half(const World *w)
{
        const Half *half = &w->half;

        MUST((int) half->state >= 0 && half->state < HALF_STATE_MAX && half->side == w->side);
        MUST(job_state_to_string(half_job_state(half)) && phase_to_string(half_phase(half)));
        MUST(job_result_to_string(half_result(half)) && half_owner_text(half));
        MUST(owner_to_string(half->owner) && half_cause_to_string(half->failure.cause));
        MUST(half->failure.cause == HALF_CAUSE_NONE || half->failure.device < N ||
             half->failure.who != HALF_WHO_DEVICE);
        for (Resolve r = RESOLVE_NONE; r < RESOLVE_MAX; r++)
                (void) half_may_resolve(&half_table, &w->plan, half, r);
}

static void step(World *w, const HalfEvent *event)
{
        int r = half_step(&half_table, &w->plan, &w->half, event, &w->effects);

        MUST(r == 0 || r == HALF_E_TOO_LATE || r == HALF_E_FORBIDDEN);
        MUST(w->effects.n <= w->effects.max && (r == 0 || w->effects.n == 0));
        for (uint32_t i = 0; i < w->effects.n; i++)
                check_effect(w, &w->effects.items[i]);
        check_half(w);
}

/* ---- what comes ------------------------------------------------------------------------------------------------ */

/* The store is honest: what it says of a record is so, but an error may have been after the write. */
static void answer_record(World *w, uint8_t how)
{
        HalfEvent event = {.type = HALF_RESULT, .who = HALF_WHO_RECORD, .step = w->record.step};
        bool good = how & 1;

        if (!w->writes)
                return;
        w->writes = false;
        event.status = good ? 0 : -EIO;
        if (good || (how & 2)) {
                w->durable = w->record.owner;
                w->unsure = false;
        }
        step(w, &event);
}

static uint32_t asked_step(const World *w, const HalfEvent *event)
{
        switch (event->who) {
        case HALF_WHO_DEVICE: return w->steps[event->device];
        case HALF_WHO_VMM: return w->vmm_step;
        case HALF_WHO_PEER: return w->connect_step;
        case HALF_WHO_FENCE: return w->fence_step;
        case HALF_WHO_RECORD:
        case HALF_WHO_MAX:
        case HALF_WHO_INVALID: break;
        }
        return 0;
}

/* Bytes: type and device; message, who or what a person says; flags and states. */
static void take_event(World *w, const uint8_t bytes[3])
{
        HalfEvent event = {.type = bytes[0] % HALF_REACHED,
                           .device = bytes[0] / HALF_REACHED % N,
                           .from = DEVICE_STATE_UNKNOWN,
                           .to = DEVICE_STATE_UNKNOWN};

        if (event.type == HALF_START)
                return; /* comes once, of whoever has made the half */
        event.state = (DeviceState) (bytes[2] >> 4) % DEVICE_STATE_MAX;
        event.status = bytes[2] & 1 ? -EIO : 0;
        event.refused = bytes[2] & 2;
        event.was_reset = bytes[2] & 4;
        event.absent = bytes[2] & 8;
        if (event.type == HALF_RESULT) {
                event.who = bytes[1] % HALF_WHO_MAX;
                if (event.who == HALF_WHO_RECORD) {
                        answer_record(w, bytes[2]);
                        return;
                }
                event.step = asked_step(w, &event) - (bytes[1] >> 7);
        } else if (event.type == HALF_MESSAGE) {
                event.message = MESSAGE_CHECK + bytes[1] % (MESSAGE_MAX - MESSAGE_CHECK);
                if (message_is_for_destination(event.message) != (w->side == SIDE_DESTINATION))
                        return; /* job_message() lets none through */
                event.phase = (Phase) (bytes[2] >> 4) % PHASE_MAX;
                event.noway = event.copy = bytes[2] & 8;
        } else if (event.type == HALF_RESOLVE) {
                event.resolve = RESOLVE_RUN_HERE + bytes[1] % 2;
        }
        step(w, &event);
}

/* ---- the half -------------------------------------------------------------------------------------------------- */

static bool restore(World *w, uint8_t how)
{
        HalfSight sight = {
                .vmm_lives = how & 1, .vmm_runs = how & 2, .complete = how & 4, .device_ran = how & 8};
        Owner owner = OWNER_SOURCE + (how >> 4) % (OWNER_MAX - OWNER_SOURCE);

        if (half_restore(&half_table, &w->half, w->side, N, owner, how & 128, &sight) < 0)
                return false;
        w->durable = owner;
        return true;
}

static bool begin(World *w, uint8_t how, uint8_t can)
{
        ManifestDevice devices[N] = {};
        Manifest manifest = {.vmm = {.type = VMM_TYPE_QMP, .can_hold = how & BEGIN_HOLD},
                             .kernel = "6.12.107",
                             .n_devices = N,
                             .devices = devices};
        uint32_t flags[N];

        memset(w, 0, sizeof *w);
        w->side = how & BEGIN_SOURCE ? SIDE_SOURCE : SIDE_DESTINATION;
        for (uint32_t i = 0; i < N; i++) {
                flags[i] = (can >> 4 * i & 7) | (can >> 4 * i & 8 ? DEVICE_DMA_LOGGING | DEVICE_HAS_DMA : 0) |
                           (how & BEGIN_SUPERVISED && i == 0 ? DEVICE_SUPERVISED | DEVICE_KERNEL : 0);
                devices[i].migration_flags = flags[i];
        }
        MUST(plan_build(&w->plan, &manifest, &(PolicyRules){}, USEC_PER_SEC) == 0);
        w->plan.fence = how & BEGIN_FENCE;
        w->plan.hold_vcpus &= (how & BEGIN_HOLD) != 0;
        w->plan.copies_pages = how & BEGIN_COPIES;
        MUST(half_effects_init(&w->effects, N) == 0);
        if (how & BEGIN_RESTORED) {
                if (!restore(w, can))
                        return false;
        } else {
                half_init(&w->half, w->side, N, how & BEGIN_CHECK_ONLY && how & BEGIN_SOURCE);
        }
        for (uint32_t i = 0; i < N; i++)
                half_set_device(&w->half, i, flags[i], DEVICE_STATE_RUNNING);
        step(w, &(HalfEvent){.type = HALF_LINKED});
        step(w, &(HalfEvent){.type = HALF_START});
        return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static World w;

        if (size < 2)
                return 0;
        if (begin(&w, data[0], data[1]))
                for (size_t at = 2; size - at >= 3; at += 3)
                        take_event(&w, data + at);
        half_effects_deinit(&w.effects);
        plan_deinit(&w.plan);
        return 0;
}
