/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The world's devices, VMMs and journals: what they do when they are asked, and by themselves. */

#include "invariants.h"

static void vmm_becomes(World *w, int side, int v)
{
        Daemon *d = &w->side[side];
        int was = d->vmm;

        d->vmm = (uint8_t) v;
        if (v == V_RUNNING && was != V_RUNNING && was != V_GRACED)
                check_vmm_runs(w, side);
}

static void device_becomes(World *w, int side, uint32_t device, DeviceState to)
{
        Device *v = &w->side[side].devices[device];
        DeviceState was = v->state;

        v->state = (uint8_t) to;
        v->fresh = 0;
        check_device_state(w, side, device, was);
}

void let_go(World *w, int side)
{
        Daemon *d = &w->side[side];

        for (uint32_t i = 0; i < world_devices; i++)
                if (d->held && IS_ALIVE(d->vmm) && d->devices[i].state == DEVICE_STATE_RUNNING)
                        w->device_ran = 1;
        d->held = 0;
}

void vmm_dies(Daemon *d)
{
        d->vmm = V_DEAD;
        d->died_held = d->held;
        d->held = 0;
}

void land(World *w, int side, uint32_t device)
{
        Device *v = &w->side[side].devices[device];
        DeviceState to = (DeviceState) (v->late - 1);

        if (!v->late)
                return;
        v->late = 0;
        if (v->state == DEVICE_STATE_RESUMING && to == DEVICE_STATE_STOP)
                v->loaded = 1;
        device_becomes(w, side, device, to);
}

static void end_vmm(World *w, int side)
{
        Daemon *d = &w->side[side];

        check_vmm_ends(w, side);
        if (IS_ALIVE(d->vmm))
                d->vmm = V_ENDED;
}

/* ---- devices ------------------------------------------------------------------------------------------------------- */

/* What an operation on a device that its VMM drives must find, or it does nothing. */
static bool finds(const Daemon *d, const Device *v, int i)
{
        const Command *c = &v->command;

        switch ((DeviceOpType) c->device.type[i]) {
        case DEVICE_OP_SET: return v->state == c->device.from[i];
        case DEVICE_OP_NUDGE:
                return v->state == c->device.from[i] || device_nudge_is_done(c->device.to[i], v->state);
        case DEVICE_OP_EXPECT: return v->state == c->device.from[i] || v->state == c->device.to[i];
        case DEVICE_OP_REOPEN: return IS_ALIVE(d->vmm);
        default: return true;
        }
}

static void do_op(World *w, int side, uint32_t device, int i)
{
        Device *v = &w->side[side].devices[device], *there = &w->side[D].devices[device];
        const Command *c = &v->command;

        switch ((DeviceOpType) c->device.type[i]) {
        case DEVICE_OP_SET:
                if (v->state == DEVICE_STATE_RESUMING && c->device.to[i] == DEVICE_STATE_STOP)
                        v->loaded = 1;
                device_becomes(w, side, device, c->device.to[i]);
                if (c->device.to[i] == DEVICE_STATE_RESUMING)
                        v->stream = v->loaded = 0;
                break;
        case DEVICE_OP_RESET:
                v->state = DEVICE_STATE_RUNNING; /* nobody's work */
                v->fresh = 1;
                v->stream = v->loaded = 0;
                break;
        case DEVICE_OP_NUDGE:
                if (v->state == c->device.from[i])
                        device_becomes(w, side, device, c->device.to[i]);
                break;
        case DEVICE_OP_SEND: there->stream = there->state == DEVICE_STATE_RESUMING; break;
        case DEVICE_OP_SEND_PAGES: there->pages = there->stream; break;
        case DEVICE_OP_DIRTY: check_dirty(w, side, device); break;
        case DEVICE_OP_GET:
        case DEVICE_OP_LOAD:
        case DEVICE_OP_LOAD_PAGES:
        case DEVICE_OP_LOG_START:
        case DEVICE_OP_LOG_STOP:
        case DEVICE_OP_PRECOPY:
        case DEVICE_OP_EXPECT:
        case DEVICE_OP_REOPEN:
        case DEVICE_OP_CLOSE:
        case DEVICE_OP_MAX:
        case DEVICE_OP_INVALID: break;
        }
}

/* Carries a device's program out; stops before operation `fail`, or in the middle of it, which leaves ERROR. */
bool act_device(World *w, int side, uint32_t device, int fail, bool error)
{
        Daemon *d = &w->side[side];
        Device *v = &d->devices[device];
        Command *c = &v->command;

        for (int i = 0; i < c->device.n; i++)
                if (fail < 0 && ((c->device.type[i] == DEVICE_OP_LOAD && !v->stream) ||
                                 (c->device.type[i] == DEVICE_OP_LOAD_PAGES && !v->pages)))
                        return false;
        /* A device that answers again has done what it was told before. */
        if (fail < 0)
                land(w, side, device);
        c->status = 0;
        for (int i = 0; i < c->device.n; i++) {
                if (i == fail || (is_driven(device) && !finds(d, v, i))) {
                        c->status = 1;
                        break;
                }
                do_op(w, side, device, i);
        }
        if (error) {
                v->state = DEVICE_STATE_ERROR;
                v->fresh = 0;
                v->loaded = v->late = 0;
        }
        c->phase = ACTED;
        return true;
}

/* The VMM is dead: its device is reset, unless it stands, and closed. */
void clear_device(World *w, int side, uint32_t device)
{
        Device *v = &w->side[side].devices[device];

        land(w, side, device);
        if (v->state != DEVICE_STATE_STOP)
                v->state = DEVICE_STATE_RUNNING;
        v->stream = v->loaded = 0;
        memset(&v->command, 0, sizeof v->command);
}

/* ---- a VMM and the devices that it drives ---------------------------------------------------------------------- */

/* It sets a state; a SET that hangs in the kernel is over first: there is one lock. */
static void drive(World *w, int side, uint32_t device, DeviceState to)
{
        Device *v = &w->side[side].devices[device];

        land(w, side, device);
        v->thinks = (uint8_t) to;
        device_becomes(w, side, device, to);
        if (to == DEVICE_STATE_RESUMING)
                v->stream = v->loaded = 0;
}

static void drive_all(World *w, int side, DeviceState to)
{
        for (uint32_t i = 0; i < world_devices; i++)
                if (is_driven(i))
                        drive(w, side, i, to);
}

static DeviceState quiet(uint32_t device)
{
        return world_flags[device] & DEVICE_MIGRATION_PRE_COPY ? DEVICE_STATE_PRE_COPY_P2P
                                                               : DEVICE_STATE_RUNNING_P2P;
}

static DeviceState standing(uint32_t device)
{
        return world_flags[device] & DEVICE_MIGRATION_PRE_COPY ? DEVICE_STATE_STOP_COPY : DEVICE_STATE_STOP;
}

/* Whether it has set one of its devices to this last, or to another state. */
static bool any_thinks(const Daemon *d, DeviceState state, bool other)
{
        for (uint32_t i = 0; i < world_devices; i++)
                if (is_driven(i) && (d->devices[i].thinks == state) != other)
                        return true;
        return false;
}

static bool any_quiet(const Daemon *d)
{
        for (uint32_t i = 0; i < world_devices; i++)
                if (is_driven(i) && d->devices[i].thinks == quiet(i))
                        return true;
        return false;
}

/* The source's begins to save, the destination's to load, which takes devices that nobody has left in the middle. */
static bool begin_migration(World *w)
{
        if (w->side[D].vmm != V_INCOMING)
                return false;
        for (uint32_t i = 0; i < world_devices; i++)
                if (is_driven(i) && w->side[D].devices[i].state != DEVICE_STATE_RUNNING)
                        return false;
        for (uint32_t i = 0; i < world_devices; i++)
                if (is_driven(i) && (world_flags[i] & DEVICE_MIGRATION_PRE_COPY))
                        drive(w, S, i, DEVICE_STATE_PRE_COPY);
        drive_all(w, D, DEVICE_STATE_RESUMING);
        w->side[S].vmm = V_GRACED;
        return true;
}

static bool halt(World *w)
{
        Daemon *s = &w->side[S];

        if (s->vmm != V_GRACED)
                return s->vmm == V_HELD;
        s->vmm = V_HELD;
        for (uint32_t i = 0; i < world_devices; i++)
                if (is_driven(i))
                        drive(w, S, i, quiet(i));
        for (uint32_t i = 0; i < world_devices; i++)
                if (is_driven(i) && !world_plan.push)
                        drive(w, S, i, standing(i));
        return true;
}

/* First the destination has it all, then the source is sealed. Returns 1 when it is, 0 when there is more to do. */
static int seal(World *w)
{
        Daemon *s = &w->side[S], *d = &w->side[D];

        if (s->vmm == V_SEALED)
                return 1;
        if (s->vmm != V_HELD)
                return -EIO;
        if (d->vmm == V_INCOMING) {
                for (uint32_t i = 0; i < world_devices; i++)
                        if (is_driven(i) && (d->devices[i].state != DEVICE_STATE_RESUMING ||
                                             s->devices[i].thinks == DEVICE_STATE_RUNNING))
                                return -EIO;
                drive_all(w, S, DEVICE_STATE_STOP_COPY);
                for (uint32_t i = 0; i < world_devices; i++)
                        if (is_driven(i))
                                d->devices[i].stream = 1;
                d->vmm = V_LOADED;
                return 0;
        }
        if (d->vmm != V_LOADED)
                return -EIO;
        s->vmm = V_SEALED; /* and the devices are read out, but not stopped yet */
        return 1;
}

/* What it believes to run it leaves as it is. */
void resume_source(World *w)
{
        for (uint32_t i = 0; i < world_devices; i++)
                if (is_driven(i) && w->side[S].devices[i].thinks != DEVICE_STATE_RUNNING)
                        drive(w, S, i, DEVICE_STATE_RUNNING);
        vmm_becomes(w, S, V_RUNNING);
}

static void begin_to_run(World *w)
{
        Daemon *d = &w->side[D];

        if (d->vmm == V_RUNNING || d->vmm == V_STARTING)
                return;
        for (uint32_t i = 0; i < world_devices; i++)
                if (is_driven(i))
                        land(w, D, i);
        check_vmm_begins(w);
        d->vmm = V_STARTING;
        drive_all(w, D, DEVICE_STATE_RUNNING_P2P);
}

static void run(World *w)
{
        Daemon *d = &w->side[D];

        begin_to_run(w);
        if (d->vmm == V_RUNNING)
                return;
        for (uint32_t i = 0; i < world_devices; i++)
                if (is_driven(i) && d->devices[i].thinks != DEVICE_STATE_RUNNING)
                        drive(w, D, i, DEVICE_STATE_RUNNING);
        if (!d->held)
                vmm_becomes(w, D, V_RUNNING);
}

/* Its death is what it was asked for; whoever asked hears of it twice, as an answer and as a death. */
static bool undo(Daemon *d)
{
        if (IS_ALIVE(d->vmm) && d->held) {
                vmm_dies(d);
                d->unseen_death = 1;
        }
        return d->died_held;
}

/* It goes on by itself from where it was answered for. */
bool may_step(const World *w, int side)
{
        const Daemon *d = &w->side[side];

        return (d->vmm == V_STARTING && (!d->held || any_thinks(d, DEVICE_STATE_RUNNING, true))) ||
               (side == S && d->vmm == V_HELD && any_quiet(d)) ||
               (d->vmm == V_SEALED && any_thinks(d, DEVICE_STATE_STOP_COPY, false));
}

void step_on(World *w, int side)
{
        if (side == D) {
                run(w);
                return;
        }
        for (uint32_t i = 0; i < world_devices; i++)
                if (is_driven(i))
                        drive(w, S, i, w->side[S].vmm == V_SEALED ? DEVICE_STATE_STOP : standing(i));
}

static void start_vmm(Daemon *d)
{
        d->vmm = V_INCOMING;
        d->held = d->died_held = 0;
        for (uint32_t i = 0; i < world_devices; i++) {
                d->devices[i].pages = 0; /* they are in the VM's memory, whatever becomes of the device */
                if (is_driven(i))
                        d->devices[i].thinks = DEVICE_STATE_RUNNING;
        }
}

static bool act_driving_vmm(World *w, int side, bool fail)
{
        Daemon *d = &w->side[side];
        Command *c = &d->commands[HALF_WHO_VMM];
        int r;

        c->phase = ACTED;
        c->status = fail || (!IS_ALIVE(d->vmm) && c->vmm != VMM_ACT_START && c->vmm != VMM_ACT_END &&
                             c->vmm != VMM_ACT_UNDO);
        if (c->status)
                return true;
        switch (c->vmm) {
        case VMM_ACT_START: start_vmm(d); break;
        case VMM_ACT_END: end_vmm(w, side); break;
        case VMM_ACT_MIGRATE: c->status = !begin_migration(w); break;
        case VMM_ACT_HALT: c->status = !halt(w); break;
        case VMM_ACT_SEAL:
                r = seal(w);
                c->status = r < 0;
                if (r == 0)
                        c->phase = ASKED;
                break;
        case VMM_ACT_RESUME: resume_source(w); break;
        case VMM_ACT_TAKE_IN:
                if (d->vmm == V_INCOMING) {
                        c->phase = ASKED;
                        return false;
                }
                break;
        case VMM_ACT_VERIFY: c->status = d->vmm != V_LOADED; break;
        case VMM_ACT_HOLD: d->held = 1; break;
        case VMM_ACT_ARRIVE: begin_to_run(w); break;
        case VMM_ACT_GATE: run(w); break;
        case VMM_ACT_UNDO: c->status = !undo(d); break;
        case VMM_ACT_RUN:
                let_go(w, side);
                run(w);
                break;
        case VMM_ACT_NONE:
        case VMM_ACT_LOOK:
        case VMM_ACT_PREPARE:
        case VMM_ACT_MAX:
        case VMM_ACT_INVALID: break;
        }
        return true;
}

/* An arc of the VMM's own has failed: it resets the device, goes on, and says so before it answers. */
void reset_behind(World *w, int side, uint32_t device)
{
        Daemon *d = &w->side[side];
        Device *v = &d->devices[device];

        if (d->commands[HALF_WHO_VMM].phase != ACTED || d->commands[HALF_WHO_VMM].status)
                return;
        v->state = v->thinks = DEVICE_STATE_RUNNING;
        v->loaded = 0;
        v->reset = 1;
        if (!unheard_resets)
                world_event(w, side,
                            &(HalfEvent){.type = HALF_DEVICE_RESET,
                                         .device = device,
                                         .state = DEVICE_STATE_UNKNOWN});
}

bool may_reset(const Daemon *d, const Command *c, uint32_t device)
{
        /* One that runs already has no arc left that could fail. */
        return is_driven(device) &&
               (c->vmm == VMM_ACT_HALT || (c->vmm == VMM_ACT_RESUME && d->vmm != V_RUNNING) ||
                c->vmm == VMM_ACT_ARRIVE || c->vmm == VMM_ACT_GATE || c->vmm == VMM_ACT_RUN);
}

/* The VMM does what it was asked, or fails. Returns false when it must wait. */
bool act_vmm(World *w, int side, bool fail)
{
        Daemon *d = &w->side[side], *o = &w->side[!side];
        Command *c = &d->commands[HALF_WHO_VMM];

        if (vmm_drives())
                return act_driving_vmm(w, side, fail);
        c->status = fail || !IS_ALIVE(d->vmm);
        switch (c->vmm) {
        case VMM_ACT_START:
                c->status = fail;
                if (!fail)
                        start_vmm(d);
                break;
        case VMM_ACT_END:
                if (!fail)
                        end_vmm(w, side);
                c->status = fail;
                break;
        case VMM_ACT_MIGRATE:
                if (!c->status)
                        d->vmm = V_HELD;
                break;
        case VMM_ACT_HALT: c->status |= d->vmm != V_HELD; break;
        case VMM_ACT_SEAL:
                if (d->vmm == V_SEALED || c->status)
                        break;
                if (d->vmm != V_HELD) {
                        c->status = 1;
                        break;
                }
                if (o->vmm == V_INCOMING) {
                        o->vmm = V_LOADED; /* first the destination has it all, then the source is sealed */
                        return true;
                }
                if (o->vmm == V_LOADED) {
                        d->vmm = V_SEALED;
                        break;
                }
                c->status = 1;
                break;
        case VMM_ACT_RESUME:
                if (!c->status)
                        vmm_becomes(w, side, V_RUNNING);
                break;
        case VMM_ACT_TAKE_IN:
                if (!c->status && d->vmm == V_INCOMING)
                        return false;
                break;
        case VMM_ACT_VERIFY: c->status |= d->vmm != V_LOADED; break;
        case VMM_ACT_RUN:
                if (!c->status)
                        vmm_becomes(w, side, V_RUNNING);
                break;
        case VMM_ACT_HOLD:
        case VMM_ACT_ARRIVE:
        case VMM_ACT_GATE:
        case VMM_ACT_UNDO:
        case VMM_ACT_NONE:
        case VMM_ACT_LOOK:
        case VMM_ACT_PREPARE:
        case VMM_ACT_MAX:
        case VMM_ACT_INVALID: break;
        }
        c->phase = ACTED;
        return true;
}

/* ---- journals ------------------------------------------------------------------------------------------------------ */

void act_record(World *w, int side, bool fail, bool durable)
{
        Daemon *d = &w->side[side];
        Command *c = &d->commands[HALF_WHO_RECORD];

        if (!fail || durable) {
                check_record(w, side, c->owner);
                d->owner = (uint8_t) c->owner;
                d->noway = c->durable;
        }
        c->status = fail;
        c->phase = ACTED;
}
