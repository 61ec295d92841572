/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* When what happened, and for whom it was waited: the timeline, the blackout, and the part of it in which only a VMM was
 * awaited. What the figures mean is said in docs/architecture.md. */

#include <stdio.h>

#include "common/clock.h"
#include "core/half-table.h"
#include "job.h"

static uint64_t since(const Job *job, uint64_t usec)
{
        return usec > job->clock.start_usec ? usec - job->clock.start_usec : 0;
}

static void add_span(Job *job, Span span, uint64_t start_usec, uint64_t end_usec)
{
        span.side = job_side(job);
        span.start_usec = since(job, start_usec);
        span.end_usec = since(job, end_usec);
        timeline_add(&job->timeline, &span);
}

void job_measure_begin(Job *job)
{
        job->clock.start_usec = job->clock.state_usec = clock_monotonic_usec();
}

/* ---- the blackout -------------------------------------------------------------------------------------------- */

static bool in_blackout(const Job *job)
{
        return job->clock.blackout_start_usec != 0 && job->clock.blackout_end_usec == 0;
}

void job_measure_halted(Job *job, uint64_t usec)
{
        /* A VMM may find out later that it was sooner. */
        if (job->clock.blackout_start_usec == 0 || usec < job->clock.blackout_start_usec)
                job->clock.blackout_start_usec = usec;
}

/* A set of devices without a VM stands from the first SET of the grace phase on. */
static void look_for_blackout(Job *job, HalfState to, uint64_t now)
{
        if (to == SOURCE_P2P_GRACE)
                job_measure_halted(job, now);
        /* The last two follow the vCPUs' start at once where nothing is to be settled or logged. */
        if (in_blackout(job) &&
            (to == SOURCE_DONE || to == SOURCE_SETTLE || to == SOURCE_UNLOG || to == SOURCE_END))
                job->clock.blackout_end_usec = now;
}

uint64_t job_blackout_usec(const Job *job)
{
        uint64_t start = job->clock.blackout_start_usec, end = job->clock.blackout_end_usec;

        if (start == 0)
                return 0;
        if (end == 0)
                end = clock_monotonic_usec(); /* it lasts */
        return end > start ? end - start : 0;
}

uint64_t job_vmm_only_usec(const Job *job)
{
        return job->clock.vmm_only_usec;
}

/* How long, in the state that is being left, only a VMM was awaited: since the last other answer. */
static uint64_t vmm_only(const Job *job, uint64_t now)
{
        uint64_t begin = MAX(job->clock.state_usec, job->clock.others_usec);

        if (job->seen_state == HALF_STATE_INVALID || half_states[job->seen_state].vmm == VMM_ACT_NONE ||
            !job->wants_memory)
                return 0;
        begin = MAX(begin, job->clock.blackout_start_usec);
        return now > begin ? now - begin : 0;
}

/* ---- what happened ------------------------------------------------------------------------------------------- */

/* The state that the half has left, as a span; once. */
static void note_left_state(Job *job, uint64_t now)
{
        Span span = {.who = HALF_WHO_PEER, .device = -1};

        if (job->clock.noted || (int) job->seen_state < 0)
                return;
        job->clock.noted = true;
        span.phase = half_states[job->seen_state].phase;
        (void) snprintf(span.what, sizeof span.what, "%s", half_states[job->seen_state].name);
        add_span(job, span, job->clock.state_usec, now);
}

void job_measure_state(Job *job, HalfState to)
{
        uint64_t now = clock_monotonic_usec();

        note_left_state(job, now);
        if (job_side(job) == SIDE_SOURCE) {
                if (in_blackout(job))
                        job->clock.vmm_only_usec += vmm_only(job, now);
                look_for_blackout(job, to, now);
        }
        job->clock.state_usec = now;
        job->clock.others_usec = 0;
        job->clock.noted = false;
}

static void name_operation(const DeviceOp *op, char *ret)
{
        if (op->type == DEVICE_OP_SET || op->type == DEVICE_OP_NUDGE)
                (void) snprintf(ret, SPAN_WHAT_MAX, "%s -> %s", device_state_to_string(op->from),
                                device_state_to_string(op->to));
        else if (op->type == DEVICE_OP_EXPECT)
                (void) snprintf(ret, SPAN_WHAT_MAX, "%s%s%s?", device_state_to_string(op->from),
                                op->from == op->to ? "" : " or ",
                                op->from == op->to ? "" : device_state_to_string(op->to));
        else
                (void) snprintf(ret, SPAN_WHAT_MAX, "%s", device_op_to_string(op->type));
}

void job_measure_device(Job *job, uint32_t device, const AgentResultPacket *result)
{
        const DeviceProgram *program = &job->devices[device].program;
        Span span = {.phase = half_states[job->half->state].phase,
                     .who = HALF_WHO_DEVICE,
                     .device = (int32_t) device};

        job->clock.others_usec = clock_monotonic_usec();
        for (uint32_t i = 0; i < program->n && result->start_usec[i] > 0; i++) {
                const DeviceOp *op = &program->ops[i];

                span.status = i == result->op ? result->status : 0;
                span.bytes = device_op_transfers(op->type) ? result->bytes : 0;
                name_operation(op, span.what);
                add_span(job, span, result->start_usec[i], MAX(result->end_usec[i], result->start_usec[i]));
        }
}

void job_measure_vmm(Job *job, int status)
{
        const HalfStateDesc *state = &half_states[job->half->state];
        Span span = {.phase = state->phase, .who = HALF_WHO_VMM, .device = -1, .status = status};

        if (!job->wants_memory)
                return;
        (void) snprintf(span.what, sizeof span.what, "%s", vmm_act_to_string(state->vmm));
        add_span(job, span, job->clock.state_usec, clock_monotonic_usec());
}

/* ---- between the halves -------------------------------------------------------------------------------------- */

void job_add_measures(Job *job, json_object *message)
{
        uint64_t now = clock_monotonic_usec();

        note_left_state(job, now);
        json_add(message, "spans",
                 timeline_to_peer(&job->timeline, job->clock.reported, job->ids, since(job, now)));
        json_add_number(message, "vmm_only_usec", (int64_t) vmm_only(job, now));
        /* What was too much goes with the next message. */
        job->clock.reported = MIN(job->timeline.n, job->clock.reported + SPANS_SENT_MAX);
}

void job_take_measures(Job *job, JsonReader *reader, json_object *message)
{
        uint64_t now = clock_monotonic_usec();
        uint64_t theirs = (uint64_t) json_number(reader, message, "vmm_only_usec", 0, INT64_MAX, 0);

        timeline_take(&job->timeline, json_member(reader, message, "spans", json_type_array, false),
                      since(job, now), job->ids, job->n_devices);
        if (half_states[job->half->state].vmm != VMM_ACT_NONE)
                job->clock.others_usec = MAX(job->clock.others_usec, now - MIN(theirs, now));
        else if (in_blackout(job))
                job->clock.vmm_only_usec += MIN(theirs, now - job->clock.state_usec);
}
