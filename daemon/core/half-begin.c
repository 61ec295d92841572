/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* How a half begins, where it goes on after a restart, and how it looks from outside. */

#include "half-table.h"

#include <assert.h>

void half_init(Half *half, Side side, uint32_t n_devices, bool check_only)
{
        memset(half, 0, half_size(n_devices));
        half->side = side;
        half->state = side == SIDE_SOURCE ? SOURCE_CHECK_HERE : DESTINATION_RECORD;
        half->check_only = check_only;
        half->n_devices = n_devices;
        for (uint32_t i = 0; i < n_devices; i++)
                half->devices[i].state = DEVICE_STATE_UNKNOWN;
}

void half_set_device(Half *half, uint32_t device, uint32_t flags, DeviceState state)
{
        assert(device < half->n_devices);
        half->devices[device].flags = flags;
        half->devices[device].state = state;
}

void half_set_flags(Half *half, uint32_t device, uint32_t flags)
{
        HalfDevice *d = &half->devices[device];

        assert(device < half->n_devices);
        /* A new agent: with the old one the VMM's connection ended, and all that it had set up. */
        if (d->gone && !(flags & DEVICE_SUPERVISED) && (d->flags & DEVICE_HAS_DMA) &&
            !(flags & DEVICE_HAS_DMA))
                d->lost = d->unplugged = true;
        d->flags = flags;
}

void half_set_gone(Half *half, uint32_t device, bool gone)
{
        assert(device < half->n_devices);
        half->devices[device].gone = gone;
}

void half_set_lost(Half *half, uint32_t device)
{
        assert(device < half->n_devices);
        half->devices[device].lost = true;
}

bool half_device_is_lost(const Half *half, uint32_t device)
{
        const HalfDevice *d = &half->devices[device];
        bool here = half->side == SIDE_SOURCE ? half->owner != OWNER_DONE
                                              : half->owner == OWNER_DESTINATION || half->owner == OWNER_DONE;

        return d->lost || (d->was_reset && here);
}

bool half_device_is_quarantined(const Half *half, uint32_t device)
{
        return half->devices[device].quarantined;
}

bool half_device_may_have_run(uint32_t flags, DeviceState state)
{
        if (flags & DEVICE_SUPERVISED)
                return state != DEVICE_STATE_STOP || !(flags & DEVICE_MIGRATION_P2P);
        return state == DEVICE_STATE_RUNNING || state == DEVICE_STATE_UNKNOWN;
}

bool half_is_given_up(const Half *half)
{
        return half->side == SIDE_SOURCE && half->owner == OWNER_DONE && half->noway && !half->heard;
}

static bool agrees(int column, bool value)
{
        return column < 0 || (column != 0) == value;
}

int half_restore(const HalfTable *table, Half *half, Side side, uint32_t n_devices, Owner owner, bool noway,
                 const HalfSight *sight)
{
        for (uint32_t i = 0; i < table->n_restores; i++) {
                const HalfRestore *row = &table->restores[i];

                if (row->side != side || row->owner != owner || !agrees(row->superseded, sight->superseded) ||
                    !agrees(row->vmm_lives, sight->vmm_lives) || !agrees(row->vmm_runs, sight->vmm_runs) ||
                    !agrees(row->complete, sight->complete) || !agrees(row->device_ran, sight->device_ran))
                        continue;
                half_init(half, side, n_devices, false);
                half->state = row->to;
                half->owner = owner;
                half->noway = noway;
                half->vmm_gone = !sight->vmm_lives &&
                                 !sight->superseded; /* what became of it since is no matter of this job */
                half->vmm_resumed = side == SIDE_SOURCE && sight->vmm_runs;
                /* What the process before knew is forgotten: the worst is assumed. */
                half->drained = side == SIDE_SOURCE;
                half->halted = side == SIDE_SOURCE && !sight->vmm_runs;
                half->forgot = owner == OWNER_ABORTED;
                half->tried_nobody = side == SIDE_SOURCE && owner != OWNER_SOURCE;
                /* What had turned it back is not in the record; that it was turned back is. */
                half->failure.cause = owner == OWNER_DONE ? HALF_CAUSE_NONE : HALF_CAUSE_RESTART;
                half->failure.in = row->to;
                if (half_is_given_up(half)) {
                        half->failure.cause = HALF_CAUSE_RESOLVED;
                        half->resolved = RESOLVE_DISCARD_HERE;
                }
                half->begun = true;
                return 0;
        }
        return -EINVAL;
}

JobState half_job_state(const Half *half)
{
        return half_states[half->state].job;
}

Phase half_phase(const Half *half)
{
        /* On the way back the phase in which it went wrong says more than the names of the steps back. */
        if (half_states[half->state].job == JOB_STATE_ROLLING_BACK && half->failure.cause != HALF_CAUSE_NONE)
                return half_states[half->failure.in].phase;
        return half_states[half->state].phase;
}

static bool any_lost(const Half *half)
{
        for (uint32_t i = 0; i < half->n_devices; i++)
                if (half_device_is_lost(half, i))
                        return true;
        return false;
}

static JobResult result_of_cause(HalfCause cause)
{
        switch (cause) {
        case HALF_CAUSE_NONE: return JOB_RESULT_DONE;
        case HALF_CAUSE_REFUSED: return JOB_RESULT_REFUSED;
        case HALF_CAUSE_CANCELLED: return JOB_RESULT_CANCELLED;
        case HALF_CAUSE_TIMEOUT: return JOB_RESULT_TIMEOUT;
        case HALF_CAUSE_FAILED:
        case HALF_CAUSE_DEADLINE:
        case HALF_CAUSE_BLACKOUT:
        case HALF_CAUSE_CUT:
        case HALF_CAUSE_DEVICE_GONE:
        case HALF_CAUSE_DEVICE_RESET:
        case HALF_CAUSE_VMM_GONE:
        case HALF_CAUSE_VMM_RESUMED:
        case HALF_CAUSE_PEER:
        case HALF_CAUSE_RESTART:
        case HALF_CAUSE_RESOLVED:
        case HALF_CAUSE_MAX:
        case HALF_CAUSE_INVALID: break;
        }
        return JOB_RESULT_FAILED;
}

JobResult half_result(const Half *half)
{
        switch (half_job_state(half)) {
        case JOB_STATE_RUNNING:
        case JOB_STATE_ROLLING_BACK:
        case JOB_STATE_SETTLING:
        case JOB_STATE_MAX:
        case JOB_STATE_INVALID: return JOB_RESULT_NONE;
        case JOB_STATE_IN_DOUBT: return JOB_RESULT_IN_DOUBT;
        case JOB_STATE_FINISHED: break;
        }
        /* Its VMM is dead and it does not run at the destination: "failed" would say that it runs at the source. */
        if (half->side == SIDE_SOURCE && half->vmm_gone && half->owner != OWNER_DONE)
                return JOB_RESULT_LOST;
        if (half_is_given_up(half))
                return JOB_RESULT_LOST;
        if (half->begun && any_lost(half))
                return JOB_RESULT_DEGRADED;
        if (half->owner == OWNER_DONE)
                return JOB_RESULT_DONE;
        return result_of_cause(half->failure.cause);
}

bool half_has_vm(const Half *half)
{
        return (half->side == SIDE_DESTINATION) == (half->owner == OWNER_DONE);
}

bool half_may_give_up(const Half *half, Resolve resolve)
{
        return half_job_state(half) == JOB_STATE_FINISHED && !half->check_only && !half->linked &&
               resolve == (half_has_vm(half) ? RESOLVE_RUN_HERE : RESOLVE_DISCARD_HERE);
}

const char *half_owner_text(const Half *half)
{
        switch (half->owner) {
        case OWNER_UNRECORDED:
        case OWNER_SOURCE:
        case OWNER_ABORTED:
        case OWNER_PREPARED:
        case OWNER_DISCARDED: return "source";
        case OWNER_NOBODY:
        case OWNER_PROMISED: return "nobody";
        case OWNER_DONE:
        case OWNER_DESTINATION: return "destination";
        case OWNER_MAX:
        case OWNER_INVALID: break;
        }
        return "unknown";
}
