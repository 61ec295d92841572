/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "invariants.h"

const char *const bad_names[BAD_MAX] = {
        [DOUBLED] = "doubled: the VM runs on both sides",
        [STALE] = "the destination runs a stale copy",
        [DESTROYED_S] = "the last copy was destroyed at the source",
        [DESTROYED_D] = "the last copy, or the running VM, was destroyed at the destination",
        [AGAIN] = "the source runs again after something ran at the destination",
        [UNRECORDED] = "something moved at the destination before owner=destination was durable",
        [UNPAGED] = "the destination runs without pages that the source's device wrote",
        [UNGATED] = "a VMM started with a device that still had to accept its state",
        [UNTOLD] = "a device that its VMM has reset is not in the result",
        [MOVING_NOBODY] = "owner=nobody became durable while something could still run at the source",
        [NOT_HELD] = "the source goes on without what its device has lost, and policy has it stand",
        [SAID_EARLY] = "a message was sent before the record that it needs was durable",
        [NOT_OWNER] = "a device runs at the source, which has given the VM up",
        [PEERS] = "a device runs in full while another stands: a barrier was passed too early",
        [UNREADY] = "READY although a device has not accepted its state",
        [UNDIRTY] = "a device was asked what it has written while it could still write",
        [UNTRUE] = "the source's job is done, and the VM has never run at the destination",
        [LEFT_ERROR] = "a device left ERROR without a reset",
        [UNTIMED] = "somebody is waited for without a deadline",
        [NO_END] = "no way to an end",
        [ROUND] = "it goes round in a circle without anything from outside",
        [ASKED_IN_VAIN] = "a person is asked although nothing died",
};

static void flaw(World *w, int what)
{
        if (w->bad == FINE)
                w->bad = (uint8_t) what;
}

static bool runs_in_full(DeviceState state)
{
        return state == DEVICE_STATE_RUNNING || state == DEVICE_STATE_PRE_COPY;
}

static bool runs(DeviceState state)
{
        return runs_in_full(state) || state == DEVICE_STATE_RUNNING_P2P || state == DEVICE_STATE_PRE_COPY_P2P;
}

static bool stands(DeviceState state)
{
        return state == DEVICE_STATE_STOP || state == DEVICE_STATE_STOP_COPY ||
               state == DEVICE_STATE_RESUMING;
}

/* ---- vCPUs and VMMs ---------------------------------------------------------------------------------------------- */

/* The source runs again. Where something ran at the destination only an operator may have it so, when that is over. */
static void source_runs(World *w)
{
        const Daemon *d = &w->side[D];
        bool over = w->forgiven && !IS_ALIVE(d->vmm);

        for (uint32_t i = 0; i < world_devices; i++)
                over &= is_driven(i) || d->devices[i].state != DEVICE_STATE_RUNNING || d->devices[i].fresh;
        if ((w->ran || w->device_ran) && !over)
                flaw(w, AGAIN);
}

/* They begin to. */
void check_vmm_runs(World *w, int side)
{
        Daemon *d = &w->side[side];

        if (side == S) {
                if (w->side[D].vmm == V_LOADED || w->side[D].vmm == V_RUNNING)
                        w->stale = 1;
                source_runs(w);
        } else {
                if (d->owner != OWNER_DESTINATION)
                        flaw(w, UNRECORDED);
                if (w->stale)
                        flaw(w, STALE);
                for (uint32_t i = 0; i < world_devices; i++)
                        if (world_plan.copies_pages && !is_driven(i) && !d->devices[i].pages)
                                flaw(w, UNPAGED);
                w->ran = 1;
        }
        if (w->side[S].vmm == V_RUNNING && w->side[D].vmm == V_RUNNING)
                flaw(w, DOUBLED);
}

/* The destination's is told to run, and takes its devices along. */
void check_vmm_begins(World *w)
{
        for (uint32_t i = 0; i < world_devices; i++)
                if (is_driven(i) && w->side[D].devices[i].state == DEVICE_STATE_RESUMING)
                        flaw(w, UNGATED);
}

/* The destination has all there is of the VM. Where something failed there or was restarted on the way, it counts
 * from READY on. */
bool is_complete(const World *w)
{
        const Daemon *d = &w->side[D];

        if (d->was_ready)
                return true;
        for (uint32_t i = 0; i < world_devices; i++)
                if (!d->devices[i].stream ||
                    (world_plan.copies_pages && !is_driven(i) && !d->devices[i].pages))
                        return false;
        return !d->restarted && !w->turned;
}

void check_vmm_ends(World *w, int side)
{
        const Daemon *d = &w->side[side], *s = &w->side[S];

        if (side == S && d->vmm != V_DEAD && !w->ran && !w->vouched)
                flaw(w, DESTROYED_S);
        if (side == D && (d->vmm == V_RUNNING || d->vmm == V_STARTING))
                flaw(w, DESTROYED_D);
        if (side == D && d->vmm == V_LOADED && is_complete(w) && !w->stale && !IS_ALIVE(s->vmm) &&
            !w->vouched)
                flaw(w, DESTROYED_D);
}

/* ---- devices ------------------------------------------------------------------------------------------------------- */

/* Forward nobody is passed over. */
static bool goes_forward(const Daemon *d, int side)
{
        if (!d->exists)
                return false;
        if (side == S)
                return half_states[d->half.state].job == JOB_STATE_RUNNING;
        return !d->half.noway && !world_plan.onward &&
               (d->half.state == DESTINATION_ARRIVE || d->half.state == DESTINATION_RUN_DEVICES);
}

static bool has_p2p(uint32_t device)
{
        return world_flags[device] & DEVICE_MIGRATION_P2P;
}

/* One that was reset does nothing until somebody works with it. */
static bool works_in_full(const Device *v)
{
        return runs_in_full(v->state) && !v->fresh;
}

static void check_peers(World *w, int side, uint32_t device)
{
        const Daemon *d = &w->side[side];
        const Device *a = &d->devices[device];

        /* Of a VM whose memory is gone there is nothing left that they could spoil. */
        if (!IS_ALIVE(d->vmm))
                return;
        if (is_driven(device) || (side == D && d->owner != OWNER_DESTINATION && d->owner != OWNER_DONE))
                return;
        for (uint32_t i = 0; i < world_devices; i++) {
                const Device *b = &d->devices[i];
                bool apart = (works_in_full(a) && stands(b->state)) || (stands(a->state) && works_in_full(b));

                if (!apart || is_driven(i) || (!has_p2p(i) && !has_p2p(device)))
                        continue;
                if ((!a->hurt && !b->hurt) || goes_forward(d, side))
                        flaw(w, PEERS);
        }
}

/* It was in another state. */
void check_device_state(World *w, int side, uint32_t device, DeviceState was)
{
        Daemon *d = &w->side[side];
        DeviceState to = d->devices[device].state;

        if (was == DEVICE_STATE_ERROR)
                flaw(w, LEFT_ERROR);
        check_peers(w, side, device);
        if (side == S && runs(to) && !runs(was) && (d->owner == OWNER_NOBODY || d->owner == OWNER_DONE))
                flaw(w, NOT_OWNER);
        if ((to != DEVICE_STATE_RUNNING && to != DEVICE_STATE_RUNNING_P2P) || was == DEVICE_STATE_RUNNING)
                return;
        if (side == S && was != DEVICE_STATE_RUNNING_P2P) {
                if (w->side[D].vmm == V_LOADED)
                        w->stale = 1;
                source_runs(w);
        }
        if (side == D) {
                if (d->owner != OWNER_DESTINATION && d->owner != OWNER_DONE)
                        flaw(w, UNRECORDED);
                if (w->stale)
                        flaw(w, STALE);
                if (to == DEVICE_STATE_RUNNING && !d->held && !d->died_held)
                        w->device_ran = 1;
        }
}

void check_dirty(World *w, int side, uint32_t device)
{
        if (!stands(w->side[side].devices[device].state))
                flaw(w, UNDIRTY);
}

/* ---- records and messages ---------------------------------------------------------------------------------------- */

/* What a dead VMM drove is closed; what a living one drives stands only in STOP. */
bool device_may_move(const Daemon *d, uint32_t i)
{
        DeviceState state = d->devices[i].state;

        if (is_driven(i))
                return IS_ALIVE(d->vmm) && state != DEVICE_STATE_STOP;
        if (d->devices[i].fresh && !IS_ALIVE(d->vmm))
                return false;
        return state != DEVICE_STATE_STOP && state != DEVICE_STATE_STOP_COPY;
}

/* It is about to become durable. */
void check_record(World *w, int side, Owner owner)
{
        const Daemon *d = &w->side[side];

        if (!owner_may_become(side, d->owner, owner, true))
                flaw(w, UNRECORDED);
        if (owner != OWNER_NOBODY || w->vouched)
                return;
        if (d->vmm == V_RUNNING || d->vmm == V_HELD || d->vmm == V_GRACED)
                flaw(w, MOVING_NOBODY);
        for (uint32_t i = 0; i < world_devices; i++)
                if (device_may_move(d, i))
                        flaw(w, MOVING_NOBODY);
}

void check_message(World *w, int side, Message message)
{
        Owner owner = w->side[side].owner;
        bool early = false;

        if (message == MESSAGE_GO)
                early = owner != OWNER_NOBODY;
        else if (message == MESSAGE_STARTED)
                early = owner != OWNER_DESTINATION && owner != OWNER_DONE;
        else if (message == MESSAGE_NOTSTARTED)
                early = owner != OWNER_PROMISED && owner != OWNER_DISCARDED;
        else if (message == MESSAGE_DONE)
                early = owner != OWNER_DONE;
        else if (message == MESSAGE_END)
                early = owner == OWNER_NOBODY || owner == OWNER_DONE;
        if (early)
                flaw(w, SAID_EARLY);
}

/* ---- halves -------------------------------------------------------------------------------------------------------- */

/* It was in state `was` before an event. */
void check_half(World *w, int side, HalfState was)
{
        const Daemon *d = &w->side[side];

        if (d->half.state != DESTINATION_READY || was == DESTINATION_READY)
                return;
        for (uint32_t i = 0; i < world_devices; i++)
                if (!d->devices[i].loaded || d->devices[i].state != DEVICE_STATE_STOP)
                        flaw(w, UNREADY);
}

/* What nobody has said is not known, after a restart neither. */
static void check_done(World *w)
{
        const Daemon *s = &w->side[S];

        if (s->exists && !w->ran && s->half.owner == OWNER_DONE && half_result(&s->half) == JOB_RESULT_DONE)
                flaw(w, UNTRUE);
}

/* Whom it has restarted has forgotten. */
static void check_result(World *w, const Daemon *d)
{
        JobResult result;
        bool reset = false;

        for (uint32_t i = 0; i < world_devices; i++)
                reset |= d->devices[i].reset;
        if (!d->exists || !reset || d->restarted || half_job_state(&d->half) != JOB_STATE_FINISHED)
                return;
        if (d->owner == OWNER_DISCARDED)
                return; /* the VM does not go on there */
        result = half_result(&d->half);
        if (result != JOB_RESULT_DEGRADED && result != JOB_RESULT_LOST)
                flaw(w, UNTOLD);
}

static bool any_lost(const Half *half)
{
        for (uint32_t i = 0; i < world_devices; i++)
                if (half_device_is_lost(half, i))
                        return true;
        return false;
}

static void check_asking(World *w)
{
        const Daemon *s = &w->side[S], *d = &w->side[D];

        if (s->exists && s->vmm != V_DEAD && !w->vouched &&
            (s->half.state == SOURCE_ORPHAN || s->half.state == SOURCE_UNSEEN ||
             s->half.state == SOURCE_LOST))
                flaw(w, ASKED_IN_VAIN);
        if (d->exists && d->vmm != V_DEAD && d->half.state == DESTINATION_MAYBE)
                flaw(w, ASKED_IN_VAIN);
        if (s->exists && s->half.state == SOURCE_HELD && !s->half.forgot && !any_lost(&s->half))
                flaw(w, ASKED_IN_VAIN);
        /* What was restarted on its way back can't know better; what its VMM resets while it begins to run comes too late. */
        if (s->exists && s->half.state == SOURCE_RESUME && s->vmm != V_RUNNING &&
            world_plan.devices[0].on_source_loss == POLICY_ON_SOURCE_LOSS_PAUSE && s->half.halted &&
            !s->half.vmm_resumed && s->vmm != V_DEAD && !s->half.vmm_gone &&
            (s->half.forgot || any_lost(&s->half)) && !w->let_go)
                flaw(w, NOT_HELD);
}

/* What comes in comes as long as the source says, and a write ends by itself. */
static void check_timer(World *w, const Daemon *d)
{
        const Half *half = &d->half;
        bool waits;

        if (!d->up || !d->exists || d->timer || half_states[half->state].time != HALF_TIME_PHASE)
                return;
        waits = half->vmm_pending || half->peer_pending || half->fence_pending;
        for (uint32_t i = 0; i < world_devices; i++)
                waits |= half->devices[i].pending;
        if (waits && !half->record_pending)
                flaw(w, UNTIMED);
}

void check_all(World *w)
{
        check_asking(w);
        check_done(w);
        for (int i = 0; i < 2; i++) {
                check_result(w, &w->side[i]);
                check_timer(w, &w->side[i]);
        }
}
