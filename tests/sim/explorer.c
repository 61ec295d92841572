/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Drives the two real halves against each other, through every order of what can happen.
 *
 *   explorer [--crashes N] [--cuts N] [--faults N] [--dma] [--supervised [--held]] [--pause] [--onward]
 *            [--resolves N] [--fence]
 *            [--break RULE | --rules | --all]
 *
 * The world around the halves is abstract: one device and one VMM on each side, two journals, two hosts, one link.
 * Commands take effect and are answered in separate steps, so that a daemon can die between the two. Messages take as
 * long as they like. Counted are deaths (of a daemon, a VMM, a host), cuts of the link, and faults: a device or VMM
 * that refuses or hangs, a write that fails (durable or not), a QEMU that resumes by itself, a cancel.
 *
 * Checked in every state (docs/ownership.md):
 *   doubled     the VM never runs on both sides
 *   stale       nothing runs a copy that the source has gone on without
 *   destroyed   a VMM is ended only when a better one exists
 *   no way back the source never runs again after vCPUs or a device have run at the destination
 *   unpaged     the destination never runs without what the source's device wrote into the VM's memory (with --dma)
 *   ungated     no VMM starts with a device of its own whose state was not accepted before (with --supervised)
 *   untold      a device that its VMM has reset is in the result, wherever the VM goes on (with --supervised)
 *   not held    the source does not go on without what its device has lost (with --pause)
 *   unrecorded  no device or vCPU of the destination moves before owner=destination is durable; owner=nobody is
 *               durable only while source device and VMM stand still
 * and over all: from every state an end can be reached in which one side runs the VM and both halves are finished,
 * or a person is asked, or the VM is lost with its VMM; and nothing is ever asked of a person that need not be.
 *
 * With --supervised the device is its VMM's, as QEMU's vfio-pci is: the VMM sets its states and moves its data, goes on by
 * itself, has its own idea of where the device is, and resets it when an arc fails; with --dma it pre-copies, too. What an
 * agent does to it looks first. Otherwise all is as above.
 *
 * With --held the destination's vCPUs are held while its VMM takes the device through its last arc. A device that runs
 * meanwhile counts as one that has run only when they are let go. The hold ends with the daemon, or by itself.
 * With --resolves operators decide what no daemon can know, so often. What they vouch for is true: the other side is dead and
 * stays so, what is given up is needed by nobody. With --fence it need not be: before the source runs again the destination's
 * host is powered off. What an operator's wrong word does shows --break wrong-word. Of a VM that has run at the destination
 * and died there an operator may have the source's older memory go on: that is no violation then.
 *
 * --pause and --onward explore two policies: the source stands when its device has lost its state; and once handed over the VM
 * stays there, whatever its devices do.
 *
 * --break changes one rule in a copy of the tables, to see that it is caught.
 */

#include <assert.h>
#include <getopt.h>
#include <stdio.h>

#include "daemon/core/half-table.h"

/* ---- the world ----------------------------------------------------------------------------------------------- */

/* GRACED: its migration is under way and held, vCPUs run; STARTING: it was told to run, and will. Both with --supervised. */
enum { V_NONE, V_INCOMING, V_LOADED, V_RUNNING, V_HELD, V_SEALED, V_DEAD, V_ENDED, V_GRACED, V_STARTING };
enum {
        IDLE,
        ASKED,
        ACTED
}; /* of a command: not there, not yet carried out, carried out but not yet answered */

typedef struct Command {
        uint8_t phase, status, durable, refused;
        uint32_t step;
        union {
                struct {
                        uint8_t n;
                        uint8_t type[6], from[6], to[6];
                } device;
                VmmAct vmm;
                Owner owner;
        };
} Command;

#define QUEUE 12

typedef struct Packet {
        uint8_t message, phase, noway, copy;
} Packet;

typedef struct Daemon {
        uint8_t up, exists, timer;   /* exists: it has a half */
        uint8_t owner, noway, acked; /* its journal */
        uint8_t vmm, unseen_death, unseen_resume;
        uint8_t degraded;             /* it has said that the device's state is lost */
        uint8_t restarted, was_ready; /* in this job */
        uint8_t device, stream, pages,
                loaded; /* the device's state; at D: data, and pages, have come to their end; the agent says loaded */
        uint8_t thinks;          /* where its VMM has set the device, if it is the VMM's */
        uint8_t reset;           /* the VMM has reset it behind our back */
        uint8_t held, died_held; /* the vCPUs are, and were when their VMM died */
        uint8_t fresh;           /* it was reset, and does nobody's work */
        uint8_t late; /* 1 + the state to which the device was told to go and still may, at any time; 0: none */
        Command commands[HALF_WHO_MAX]; /* device, vmm, peer (connect), record, fence */
        Packet queue[QUEUE];            /* to this side */
        uint8_t n_queue;
        union {
                Half half;
                uint8_t room[sizeof(Half) + sizeof(HalfDevice)];
        };
} Daemon;

typedef struct World {
        Daemon side[2];
        uint8_t link, crashes, cuts, faults, resolves;
        uint8_t vouched;  /* an operator has given a copy up, and the other side had a better one then */
        uint8_t let_go;   /* ... has a VM go on that policy has stand */
        uint8_t forgiven; /* an operator knows that the destination may have run, and that it is over */
        uint8_t stale, ran, device_ran; /* what an all-knowing observer notes */
        uint8_t started;                /* the job was begun */
        uint8_t bad;
} World;

enum {
        FINE,
        DOUBLED,
        STALE,
        DESTROYED_S,
        DESTROYED_D,
        AGAIN,
        UNRECORDED,
        UNPAGED,
        UNGATED,
        UNTOLD,
        MOVING_NOBODY,
        NOT_HELD,
        NO_END,
        ASKED_IN_VAIN
};
static const char *const bad_names[] = {
        "",
        "doubled: the VM runs on both sides",
        "the destination runs a stale copy",
        "the last copy was destroyed at the source",
        "the last copy, or the running VM, was destroyed at the destination",
        "the source runs again after something ran at the destination",
        "something moved at the destination before owner=destination was durable",
        "the destination runs without pages that the source's device wrote",
        "a VMM started with a device that still had to accept its state",
        "a device that its VMM has reset is not in the result",
        "owner=nobody became durable while something could still run at the source",
        "the source goes on without what its device has lost, and policy has it stand",
        "no way to an end",
        "a person is asked although nothing died"};

#define S           0
#define D           1
#define IS_ALIVE(v) ((v) != V_NONE && (v) != V_DEAD && (v) != V_ENDED)

static HalfTable table;
static Plan plan;
static HalfEffects effects;
static uint32_t flags; /* of the device */
static int max_crashes = 2, max_cuts = 1, max_faults = 1, max_resolves;
static bool believes, deaf_fence; /* broken rules: an operator's word, a fence */
static bool supervised;           /* the device is its VMM's */
static bool old_link, forget_discard, first_go_returns, unheard_resets; /* broken rules that no table holds */

static void flaw(World *w, int what)
{
        if (w->bad == FINE)
                w->bad = (uint8_t) what;
}

/* ---- effects of a half on the world -------------------------------------------------------------------------- */

static void put(World *w, int to, HalfEffect *e)
{
        Daemon *d = &w->side[to];
        Packet p = {(uint8_t) e->message, (uint8_t) e->phase, e->noway, e->copy};

        if (first_go_returns && w->side[D].owner != OWNER_PROMISED)
                p.noway = 0;
        if (!w->link)
                return;
        for (int i = 0; i < d->n_queue; i++)
                if (memcmp(&d->queue[i], &p, sizeof p) == 0)
                        return; /* a repetition that has not been read yet says nothing new */
        assert(d->n_queue < QUEUE);
        d->queue[d->n_queue++] = p;
}

static void event(World *w, int side, const HalfEvent *e)
{
        Daemon *d = &w->side[side];

        if (half_step(&table, &plan, &d->half, e, &effects) != 0)
                return;
        for (uint32_t i = 0; i < effects.n; i++) {
                HalfEffect *fx = &effects.items[i];
                Command *c;

                switch (fx->type) {
                case HALF_EFFECT_DEVICE:
                        c = &d->commands[HALF_WHO_DEVICE];
                        memset(c, 0, sizeof *c);
                        c->phase = ASKED;
                        c->step = fx->step;
                        c->device.n = (uint8_t) fx->program.n;
                        for (uint32_t k = 0; k < fx->program.n; k++) {
                                c->device.type[k] = (uint8_t) fx->program.ops[k].type;
                                c->device.from[k] = (uint8_t) fx->program.ops[k].from;
                                c->device.to[k] = (uint8_t) fx->program.ops[k].to;
                        }
                        break;
                case HALF_EFFECT_VMM:
                        c = &d->commands[HALF_WHO_VMM];
                        memset(c, 0, sizeof *c);
                        c->phase = ASKED;
                        c->step = fx->step;
                        c->vmm = fx->vmm_act;
                        break;
                case HALF_EFFECT_CONNECT:
                case HALF_EFFECT_FENCE:
                        c = &d->commands[fx->type == HALF_EFFECT_FENCE ? HALF_WHO_FENCE : HALF_WHO_PEER];
                        memset(c, 0, sizeof *c);
                        c->phase = ASKED;
                        c->step = fx->step;
                        break;
                case HALF_EFFECT_RECORD:
                        c = &d->commands[HALF_WHO_RECORD];
                        if (c->phase == ASKED)
                                d->owner = (uint8_t) c->owner; /* writes are done in order */
                        memset(c, 0, sizeof *c);
                        c->phase = ASKED;
                        c->step = fx->step;
                        c->owner = fx->owner;
                        c->durable = fx->noway; /* carried along until it is written */
                        break;
                case HALF_EFFECT_SEND: put(w, !side, fx); break;
                case HALF_EFFECT_TIMER: d->timer = fx->deadline_usec != 0; break;
                case HALF_EFFECT_ACKED: d->acked = 1; break;
                case HALF_EFFECT_MAX: break;
                }
        }
}

/* ---- what happens to VMMs and devices ------------------------------------------------------------------------ */

/* The source runs again. Where something ran at the destination only an operator may have it so, when that is over. */
static void source_runs(World *w)
{
        const Daemon *d = &w->side[D];
        bool over = w->forgiven && !IS_ALIVE(d->vmm) &&
                    (supervised || d->device != DEVICE_STATE_RUNNING || d->fresh);

        if ((w->ran || w->device_ran) && !over)
                flaw(w, AGAIN);
}

static void vmm_becomes(World *w, int side, int v)
{
        Daemon *d = &w->side[side];
        int was = d->vmm;

        d->vmm = (uint8_t) v;
        if (v != V_RUNNING || was == V_RUNNING || was == V_GRACED)
                return;
        if (side == S) {
                if (w->side[D].vmm == V_LOADED || w->side[D].vmm == V_RUNNING)
                        w->stale = 1;
                source_runs(w);
        } else {
                if (d->owner != OWNER_DESTINATION)
                        flaw(w, UNRECORDED);
                if (w->stale)
                        flaw(w, STALE);
                if (plan.copies_pages && !d->pages)
                        flaw(w, UNPAGED);
                w->ran = 1;
        }
        if (w->side[S].vmm == V_RUNNING && w->side[D].vmm == V_RUNNING)
                flaw(w, DOUBLED);
}

static void device_becomes(World *w, int side, DeviceState to)
{
        Daemon *d = &w->side[side];
        DeviceState was = d->device;

        d->device = (uint8_t) to;
        d->fresh = 0;
        if (to != DEVICE_STATE_RUNNING && to != DEVICE_STATE_RUNNING_P2P)
                return;
        if (was == DEVICE_STATE_RUNNING)
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

static void let_go(World *w, int side)
{
        Daemon *d = &w->side[side];

        if (d->held && IS_ALIVE(d->vmm) && d->device == DEVICE_STATE_RUNNING)
                w->device_ran = 1;
        d->held = 0;
}

static void vmm_dies(Daemon *d)
{
        d->vmm = V_DEAD;
        d->died_held = d->held;
        d->held = 0;
}

static void land(World *w, int side)
{
        Daemon *d = &w->side[side];
        DeviceState to = (DeviceState) (d->late - 1);

        if (!d->late)
                return;
        d->late = 0;
        if (d->device == DEVICE_STATE_RESUMING && to == DEVICE_STATE_STOP)
                d->loaded = 1;
        device_becomes(w, side, to);
}

/* The destination has all there is of the VM. Where something failed there or was restarted on the way, it counts
 * from READY on. */
static bool is_complete(const World *w)
{
        const Daemon *d = &w->side[D];

        return d->was_ready ||
               (d->stream && (d->pages || !plan.copies_pages) && !d->restarted && w->faults == 0);
}

static void end_vmm(World *w, int side)
{
        Daemon *d = &w->side[side], *s = &w->side[S];

        if (side == S && d->vmm != V_DEAD && !w->ran && !w->vouched)
                flaw(w, DESTROYED_S);
        if (side == D && (d->vmm == V_RUNNING || d->vmm == V_STARTING))
                flaw(w, DESTROYED_D);
        if (side == D && d->vmm == V_LOADED && is_complete(w) && !w->stale && !IS_ALIVE(s->vmm) &&
            !w->vouched)
                flaw(w, DESTROYED_D);
        if (IS_ALIVE(d->vmm))
                d->vmm = V_ENDED;
}

/* What an operation on a device that its VMM drives must find, or it does nothing. */
static bool finds(const Daemon *d, const Command *c, int i)
{
        switch ((DeviceOpType) c->device.type[i]) {
        case DEVICE_OP_SET: return d->device == c->device.from[i];
        case DEVICE_OP_NUDGE:
                return d->device == c->device.from[i] || device_nudge_is_done(c->device.to[i], d->device);
        case DEVICE_OP_EXPECT: return d->device == c->device.from[i] || d->device == c->device.to[i];
        case DEVICE_OP_REOPEN: return IS_ALIVE(d->vmm);
        default: return true;
        }
}

/* Carries a device's program out; stops before operation `fail`. Returns false when it must wait. */
static bool act_device(World *w, int side, int fail)
{
        Daemon *d = &w->side[side];
        Command *c = &d->commands[HALF_WHO_DEVICE];

        for (int i = 0; i < c->device.n; i++)
                if (fail < 0 && ((c->device.type[i] == DEVICE_OP_LOAD && !d->stream) ||
                                 (c->device.type[i] == DEVICE_OP_LOAD_PAGES && !d->pages)))
                        return false;
        /* A device that answers again has done what it was told before. */
        if (fail < 0)
                land(w, side);
        c->status = 0;
        for (int i = 0; i < c->device.n; i++) {
                if (i == fail || (supervised && !finds(d, c, i))) {
                        c->status = 1;
                        break;
                }
                switch ((DeviceOpType) c->device.type[i]) {
                case DEVICE_OP_SET:
                        if (d->device == DEVICE_STATE_RESUMING && c->device.to[i] == DEVICE_STATE_STOP)
                                d->loaded = 1;
                        device_becomes(w, side, c->device.to[i]);
                        if (c->device.to[i] == DEVICE_STATE_RESUMING)
                                d->stream = d->loaded = 0;
                        break;
                case DEVICE_OP_RESET:
                        d->device = DEVICE_STATE_RUNNING; /* fresh: nobody's work */
                        d->fresh = 1;
                        d->stream = d->loaded = 0;
                        break;
                case DEVICE_OP_NUDGE:
                        if (d->device == c->device.from[i])
                                device_becomes(w, side, c->device.to[i]);
                        break;
                case DEVICE_OP_SEND: w->side[D].stream = w->side[D].device == DEVICE_STATE_RESUMING; break;
                case DEVICE_OP_SEND_PAGES: w->side[D].pages = w->side[D].stream; break;
                case DEVICE_OP_GET:
                case DEVICE_OP_LOAD:
                case DEVICE_OP_LOAD_PAGES:
                case DEVICE_OP_LOG_START:
                case DEVICE_OP_LOG_STOP:
                case DEVICE_OP_DIRTY:
                case DEVICE_OP_PRECOPY:
                case DEVICE_OP_EXPECT:
                case DEVICE_OP_REOPEN:
                case DEVICE_OP_CLOSE:
                case DEVICE_OP_MAX:
                case DEVICE_OP_INVALID: break;
                }
        }
        c->phase = ACTED;
        return true;
}

/* ---- a VMM and the device that it drives ----------------------------------------------------------------------- */

/* It sets a state; a SET that hangs in the kernel is over first: there is one lock. */
static void drive(World *w, int side, DeviceState to)
{
        Daemon *d = &w->side[side];

        land(w, side);
        d->thinks = (uint8_t) to;
        device_becomes(w, side, to);
        if (to == DEVICE_STATE_RESUMING)
                d->stream = d->loaded = 0;
}

static DeviceState quiet(void)
{
        return flags & DEVICE_MIGRATION_PRE_COPY ? DEVICE_STATE_PRE_COPY_P2P : DEVICE_STATE_RUNNING_P2P;
}

static DeviceState standing(void)
{
        return flags & DEVICE_MIGRATION_PRE_COPY ? DEVICE_STATE_STOP_COPY : DEVICE_STATE_STOP;
}

/* The source's begins to save, the destination's to load, which takes a device that nobody has left in the middle. */
static bool begin_migration(World *w)
{
        if (w->side[D].vmm != V_INCOMING || w->side[D].device != DEVICE_STATE_RUNNING)
                return false;
        if (flags & DEVICE_MIGRATION_PRE_COPY)
                drive(w, S, DEVICE_STATE_PRE_COPY);
        drive(w, D, DEVICE_STATE_RESUMING);
        w->side[S].vmm = V_GRACED;
        return true;
}

static bool halt(World *w)
{
        Daemon *s = &w->side[S];

        if (s->vmm != V_GRACED)
                return s->vmm == V_HELD;
        s->vmm = V_HELD;
        drive(w, S, quiet());
        if (!plan.push)
                drive(w, S, standing());
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
                if (d->device != DEVICE_STATE_RESUMING || s->thinks == DEVICE_STATE_RUNNING)
                        return -EIO;
                drive(w, S, DEVICE_STATE_STOP_COPY);
                d->stream = 1;
                d->vmm = V_LOADED;
                return 0;
        }
        if (d->vmm != V_LOADED)
                return -EIO;
        s->vmm = V_SEALED; /* and the device is read out, but not stopped yet */
        return 1;
}

/* What it believes to run it leaves as it is. */
static void resume(World *w)
{
        if (w->side[S].thinks != DEVICE_STATE_RUNNING)
                drive(w, S, DEVICE_STATE_RUNNING);
        vmm_becomes(w, S, V_RUNNING);
}

static void begin_to_run(World *w)
{
        Daemon *d = &w->side[D];

        if (d->vmm == V_RUNNING || d->vmm == V_STARTING)
                return;
        land(w, D);
        if (d->device == DEVICE_STATE_RESUMING)
                flaw(w, UNGATED);
        d->vmm = V_STARTING;
        drive(w, D, DEVICE_STATE_RUNNING_P2P);
}

static void run(World *w)
{
        begin_to_run(w);
        if (w->side[D].vmm == V_RUNNING)
                return;
        if (w->side[D].thinks != DEVICE_STATE_RUNNING)
                drive(w, D, DEVICE_STATE_RUNNING);
        if (!w->side[D].held)
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
static bool may_step(const World *w, int side)
{
        const Daemon *d = &w->side[side];

        return (d->vmm == V_STARTING && (!d->held || d->thinks != DEVICE_STATE_RUNNING)) ||
               (side == S && d->vmm == V_HELD && d->thinks == quiet()) ||
               (d->vmm == V_SEALED && d->thinks == DEVICE_STATE_STOP_COPY);
}

static void step_on(World *w, int side)
{
        if (side == S)
                drive(w, S, w->side[S].vmm == V_SEALED ? DEVICE_STATE_STOP : standing());
        else
                run(w);
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
        case VMM_ACT_START:
                d->vmm = V_INCOMING;
                d->thinks = DEVICE_STATE_RUNNING;
                d->held = d->died_held = 0;
                break;
        case VMM_ACT_END: end_vmm(w, side); break;
        case VMM_ACT_MIGRATE: c->status = !begin_migration(w); break;
        case VMM_ACT_HALT: c->status = !halt(w); break;
        case VMM_ACT_SEAL:
                r = seal(w);
                c->status = r < 0;
                if (r == 0)
                        c->phase = ASKED;
                break;
        case VMM_ACT_RESUME: resume(w); break;
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
static void reset_behind(World *w, int side)
{
        Daemon *d = &w->side[side];

        if (d->commands[HALF_WHO_VMM].phase != ACTED || d->commands[HALF_WHO_VMM].status)
                return;
        d->device = d->thinks = DEVICE_STATE_RUNNING;
        d->loaded = 0;
        d->reset = 1;
        if (!unheard_resets)
                event(w, side, &(HalfEvent){.type = HALF_DEVICE_RESET, .state = DEVICE_STATE_UNKNOWN});
}

static bool may_reset(const Command *c)
{
        return supervised && (c->vmm == VMM_ACT_HALT || c->vmm == VMM_ACT_RESUME ||
                              c->vmm == VMM_ACT_ARRIVE || c->vmm == VMM_ACT_GATE || c->vmm == VMM_ACT_RUN);
}

/* The VMM does what it was asked, or fails. Returns false when it must wait. */
static bool act_vmm(World *w, int side, bool fail)
{
        Daemon *d = &w->side[side], *o = &w->side[!side];
        Command *c = &d->commands[HALF_WHO_VMM];

        if (supervised)
                return act_driving_vmm(w, side, fail);
        c->status = fail || !IS_ALIVE(d->vmm);
        switch (c->vmm) {
        case VMM_ACT_START:
                c->status = fail;
                if (!fail) {
                        d->vmm = V_INCOMING;
                        d->pages = 0; /* they are in the VM's memory, whatever becomes of the device */
                }
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

/* A command that moves nothing may as well be answered when it is carried out. */
static bool moves_nothing(const Command *c, int who)
{
        if (who == HALF_WHO_PEER)
                return true;
        if (who == HALF_WHO_FENCE)
                return false;
        if (who == HALF_WHO_DEVICE)
                return c->device.n == 1 &&
                       (c->device.type[0] == DEVICE_OP_GET || c->device.type[0] == DEVICE_OP_LOAD ||
                        c->device.type[0] == DEVICE_OP_LOAD_PAGES ||
                        c->device.type[0] == DEVICE_OP_LOG_START || c->device.type[0] == DEVICE_OP_LOG_STOP ||
                        c->device.type[0] == DEVICE_OP_DIRTY || c->device.type[0] == DEVICE_OP_REOPEN ||
                        c->device.type[0] == DEVICE_OP_EXPECT || c->device.type[0] == DEVICE_OP_CLOSE);
        return who == HALF_WHO_VMM && (c->vmm == VMM_ACT_LOOK || c->vmm == VMM_ACT_PREPARE ||
                                       (c->vmm == VMM_ACT_HALT && !supervised) || c->vmm == VMM_ACT_VERIFY ||
                                       c->vmm == VMM_ACT_TAKE_IN);
}

/* What a dead VMM drove is closed; what a living one drives stands only in STOP. */
static bool device_may_move(const Daemon *d)
{
        if (supervised)
                return IS_ALIVE(d->vmm) && d->device != DEVICE_STATE_STOP;
        if (d->fresh && !IS_ALIVE(d->vmm))
                return false;
        return d->device != DEVICE_STATE_STOP && d->device != DEVICE_STATE_STOP_COPY;
}

static void act_record(World *w, int side, bool fail, bool durable)
{
        Daemon *d = &w->side[side];
        Command *c = &d->commands[HALF_WHO_RECORD];

        if (!fail || durable) {
                if (!owner_may_become(side, d->owner, c->owner, true))
                        flaw(w, UNRECORDED);
                if (c->owner == OWNER_NOBODY && !w->vouched &&
                    (device_may_move(d) || d->vmm == V_RUNNING || d->vmm == V_HELD || d->vmm == V_GRACED))
                        flaw(w, MOVING_NOBODY);
                d->owner = (uint8_t) c->owner;
                d->noway |= c->durable;
        }
        c->status = fail;
        c->phase = ACTED;
}

/* ---- moves --------------------------------------------------------------------------------------------------- */

enum {
        M_START,
        M_DELIVER,
        M_ACT,
        M_LATE,
        M_ACT_FAIL,
        M_ACT_FAIL_DURABLE,
        M_ANSWER,
        M_TIMER,
        M_CANCEL,
        M_CUT,
        M_LINK,
        M_DAEMON_DIES,
        M_DAEMON_BACK,
        M_VMM_DIES,
        M_HOST_DIES,
        M_SEE_DEATH,
        M_QEMU_RESUMES,
        M_SEE_RESUME,
        M_ACT_RESET,
        M_VMM_STEPS,
        M_RUN_HERE,
        M_DISCARD_HERE,
        M_HOLD_ENDS,
        M_MAX
};

static const char *const move_names[] = {"start",
                                         "deliver",
                                         "act",
                                         "act, late",
                                         "act, failing",
                                         "act, failing but durable",
                                         "answer",
                                         "timer",
                                         "cancel",
                                         "cut",
                                         "link",
                                         "daemon dies",
                                         "daemon back",
                                         "VMM dies",
                                         "host dies",
                                         "death seen",
                                         "QEMU resumes by itself",
                                         "resume seen",
                                         "act, device reset",
                                         "VMM goes on",
                                         "operator: run here",
                                         "operator: discard here",
                                         "hold ends"};

typedef struct Move {
        uint8_t what, side, who, at;
} Move;

/* A timer that rings while something is awaited means that somebody hangs. */
static bool overdue(const Daemon *d)
{
        return d->half.vmm_pending || d->half.peer_pending || d->half.fence_pending ||
               d->half.devices[0].pending;
}

/* A device that hangs may still do what it was told, at any time. */
static void note_late(Daemon *d)
{
        const Command *c = &d->commands[HALF_WHO_DEVICE];

        if (!d->half.devices[0].pending || c->phase != ASKED || d->late)
                return;
        for (int i = 0; i < c->device.n && !d->late; i++)
                if (c->device.type[i] == DEVICE_OP_SET ||
                    (c->device.type[i] == DEVICE_OP_NUDGE && d->device == c->device.from[i]))
                        d->late = (uint8_t) (1 + c->device.to[i]);
}

/* That it does not answer was counted when it began. */
static bool is_hanging(const Daemon *d, int who)
{
        return who == HALF_WHO_DEVICE && d->late;
}

static void forget(Daemon *d)
{
        d->up = d->timer = d->exists = 0;
        d->unseen_death = d->unseen_resume = 0;
        memset(&d->room, 0, sizeof d->room);
        memset(d->commands, 0, sizeof d->commands);
}

static void cut(World *w)
{
        w->link = 0;
        for (int i = 0; i < 2 && !old_link; i++) {
                memset(w->side[i].queue, 0, sizeof w->side[i].queue);
                w->side[i].n_queue = 0;
        }
        for (int i = 0; i < 2; i++)
                if (w->side[i].up && w->side[i].exists)
                        event(w, i, &(HalfEvent){.type = HALF_CUT});
}

static void daemon_dies(World *w, int side)
{
        let_go(w, side);
        forget(&w->side[side]);
        for (int i = 0; i < 2; i++) {
                memset(w->side[i].queue, 0, sizeof w->side[i].queue);
                w->side[i].n_queue = 0;
        }
        if (w->link)
                cut(w);
}

/* What is known of the device when a half begins: of one that its VMM drives, only that. */
static void begin_device(Daemon *d)
{
        half_set_device(&d->half, 0, supervised ? DEVICE_SUPERVISED | DEVICE_KERNEL : flags,
                        supervised ? DEVICE_STATE_UNKNOWN : d->device);
        half_set_gone(&d->half, 0, supervised);
}

static void daemon_back(World *w, int side)
{
        Daemon *d = &w->side[side];
        HalfSight sight = {
                .vmm_lives = IS_ALIVE(d->vmm),
                .vmm_runs = d->vmm == V_RUNNING || d->vmm == V_GRACED,
                .complete = d->vmm == V_LOADED && d->loaded && d->device == DEVICE_STATE_STOP,
                .device_ran = half_device_may_have_run(flags, d->device),
        };

        d->up = 1;
        d->restarted = 1;
        if (d->owner == OWNER_UNRECORDED || d->acked)
                return;
        if (forget_discard && d->owner == OWNER_DISCARDED)
                return;
        if (half_restore(&table, &d->half, side, 1, d->owner, d->noway, &sight) < 0)
                abort();
        if (supervised && !IS_ALIVE(d->vmm))
                begin_device(d);
        else
                half_set_device(&d->half, 0, flags, d->device);
        d->exists = 1;
        event(w, side, &(HalfEvent){.type = HALF_START});
}

static void say(World *w, int to, Message message)
{
        put(w, to, &(HalfEffect){.message = message});
}

/* The VMM is dead: its device is reset, unless it stands, and closed. */
static void clear_device(World *w, int side)
{
        Daemon *d = &w->side[side];

        land(w, side);
        if (d->device != DEVICE_STATE_STOP)
                d->device = DEVICE_STATE_RUNNING;
        d->stream = d->loaded = 0;
        memset(&d->commands[HALF_WHO_DEVICE], 0, sizeof d->commands[HALF_WHO_DEVICE]);
}

static void deliver(World *w, int side)
{
        Daemon *d = &w->side[side];
        Packet p = d->queue[0];

        memmove(d->queue, d->queue + 1, sizeof d->queue - sizeof d->queue[0]);
        memset(&d->queue[--d->n_queue], 0, sizeof d->queue[0]);

        if (!d->exists) {
                if (side == D && p.message == MESSAGE_CHECK)
                        say(w, S, MESSAGE_CHECKED);
                else if (side == D && p.message == MESSAGE_PREPARE && d->owner == OWNER_UNRECORDED) {
                        half_init(&d->half, SIDE_DESTINATION, 1, false);
                        begin_device(d);
                        d->exists = 1;
                        event(w, side, &(HalfEvent){.type = HALF_LINKED});
                        event(w, side, &(HalfEvent){.type = HALF_START});
                } else if (side == D && (p.message == MESSAGE_ASK || p.message == MESSAGE_GO ||
                                         p.message == MESSAGE_END || p.message == MESSAGE_DONE))
                        say(w, S, MESSAGE_UNKNOWN);
                return;
        }
        event(w, side,
              &(HalfEvent){.type = HALF_MESSAGE,
                           .message = p.message,
                           /* check would not let a device go that can't be had */
                           .refused = p.message == MESSAGE_CHECKED && d->half.devices[0].gone,
                           .phase = p.phase,
                           .noway = p.noway,
                           .copy = p.copy});
}

static void answer(World *w, int side, int who)
{
        Daemon *d = &w->side[side];
        Command c = d->commands[who];
        HalfEvent e = {.type = HALF_RESULT,
                       .who = who,
                       .step = c.step,
                       .status = c.status ? -EIO : 0,
                       .state = d->late ? DEVICE_STATE_UNKNOWN : d->device,
                       .from = d->device,
                       .to = d->device};

        memset(&d->commands[who], 0, sizeof c);
        if (who == HALF_WHO_DEVICE)
                for (int i = 0; i < c.device.n; i++)
                        e.was_reset |= c.device.type[i] == DEVICE_OP_RESET && !c.status;
        if (who == HALF_WHO_DEVICE && supervised && c.device.type[0] == DEVICE_OP_REOPEN && c.status)
                e.state = DEVICE_STATE_UNKNOWN;
        else if (who == HALF_WHO_DEVICE && supervised)
                half_set_flags(&d->half, 0, flags);
        event(w, side, &e);
}

/* Whom it has restarted has forgotten. */
static void check_result(World *w, const Daemon *d)
{
        JobResult result;

        if (!d->exists || !d->reset || d->restarted || half_job_state(&d->half) != JOB_STATE_FINISHED)
                return;
        if (d->owner == OWNER_DISCARDED)
                return; /* the VM does not go on there */
        result = half_result(&d->half);
        if (result != JOB_RESULT_DEGRADED && result != JOB_RESULT_LOST)
                flaw(w, UNTOLD);
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
        if (s->exists && s->half.state == SOURCE_HELD && !s->half.forgot && !half_device_is_lost(&s->half, 0))
                flaw(w, ASKED_IN_VAIN);
        /* What was restarted on its way back can't know better. */
        if (s->exists && s->half.state == SOURCE_RESUME &&
            plan.devices[0].on_source_loss == POLICY_ON_SOURCE_LOSS_PAUSE && s->half.halted &&
            !s->half.vmm_resumed && s->vmm != V_DEAD && !s->half.vmm_gone &&
            (s->half.forgot || half_device_is_lost(&s->half, 0)) && !w->let_go)
                flaw(w, NOT_HELD);
}

static void start(World *w)
{
        Daemon *d = &w->side[S];

        w->started = 1;
        half_init(&d->half, SIDE_SOURCE, 1, false);
        begin_device(d);
        d->exists = 1;
        event(w, S, &(HalfEvent){.type = HALF_LINKED});
        event(w, S, &(HalfEvent){.type = HALF_START});
}

static void host_dies(World *w, int side);

/* The destination's host is powered off. A fence that fails may have done so all the same. */
static void act_fence(World *w, bool fail, bool effective)
{
        Command *c = &w->side[S].commands[HALF_WHO_FENCE];

        if (effective) {
                uint8_t crashes = w->crashes;

                host_dies(w, D);
                w->crashes = crashes;
        }
        c->status = fail && !deaf_fence;
        c->phase = ACTED;
}

static void act(World *w, int side, int who)
{
        Command *c = &w->side[side].commands[who];

        if (who == HALF_WHO_DEVICE)
                act_device(w, side, -1);
        else if (who == HALF_WHO_VMM)
                act_vmm(w, side, false);
        else if (who == HALF_WHO_RECORD)
                act_record(w, side, false, false);
        else if (who == HALF_WHO_FENCE)
                act_fence(w, false, true);
        else
                c->phase = ACTED;
        if (c->phase == ACTED && moves_nothing(c, who))
                answer(w, side, who);
}

/* It waits for a person, who lets the VM go on by its VMM. */
static bool is_held(const Daemon *d)
{
        return d->up && d->exists && d->half.state == SOURCE_HELD && IS_ALIVE(d->vmm) && d->vmm != V_RUNNING;
}

static void act_and_fail(World *w, Move m)
{
        w->faults += !is_hanging(&w->side[m.side], m.who);
        if (m.who == HALF_WHO_DEVICE)
                act_device(w, m.side, m.at);
        else if (m.who == HALF_WHO_VMM)
                act_vmm(w, m.side, true);
        else if (m.who == HALF_WHO_RECORD)
                act_record(w, m.side, true, false);
        else if (m.who == HALF_WHO_FENCE)
                act_fence(w, true, false);
}

static void host_dies(World *w, int side)
{
        Daemon *d = &w->side[side];

        w->crashes++;
        daemon_dies(w, side);
        vmm_dies(d);
        d->device = DEVICE_STATE_RUNNING; /* power came back: a fresh device */
        d->fresh = 1;
        d->late = 0;
        d->stream = d->pages = d->loaded = 0;
}

static void see_death(World *w, int side)
{
        Daemon *d = &w->side[side];

        d->unseen_death = 0;
        if (supervised)
                clear_device(w, side);
        event(w, side, &(HalfEvent){.type = HALF_VMM_GONE});
        if (supervised && d->exists)
                event(w, side, &(HalfEvent){.type = HALF_DEVICE_GONE, .state = DEVICE_STATE_UNKNOWN});
}

/* ---- operators ----------------------------------------------------------------------------------------------- */

/* What the operator vouches for with his word is so. */
static bool is_true(const World *w, int side, Resolve resolve)
{
        const Daemon *s = &w->side[S], *d = &w->side[D];
        bool copy = (d->vmm == V_LOADED && is_complete(w) && !w->stale) || d->vmm == V_RUNNING;

        if (believes || (side == S && s->half.state == SOURCE_HELD))
                return true;
        /* A fence makes it so; else what is over there is dead, device and all. */
        if (side == S && resolve == RESOLVE_RUN_HERE)
                return plan.fence || (!d->up && !IS_ALIVE(d->vmm) && !device_may_move(d));
        /* The VMM here is dead and nothing has run since, or what is here is not needed. */
        if (side == S)
                return IS_ALIVE(s->vmm) ? copy : !w->stale && !s->late;
        if (resolve == RESOLVE_RUN_HERE)
                return !s->up && !IS_ALIVE(s->vmm) && !w->stale;
        return d->vmm != V_LOADED || w->stale || !is_complete(w) || IS_ALIVE(s->vmm);
}

static bool may_decide(const World *w, int side, Resolve resolve)
{
        const Daemon *d = &w->side[side];

        return w->resolves < max_resolves && d->up && d->exists &&
               half_may_resolve(&table, &plan, &d->half, resolve) && is_true(w, side, resolve);
}

static void decide(World *w, int side, Resolve resolve)
{
        w->resolves++;
        if (side == S && resolve == RESOLVE_RUN_HERE && w->side[S].half.state == SOURCE_DOUBT)
                w->forgiven = 1;
        if (side == D && resolve == RESOLVE_DISCARD_HERE && w->side[D].half.state == DESTINATION_MAYBE)
                w->forgiven = 1;
        if (side == S && w->side[S].half.state == SOURCE_HELD)
                w->let_go = 1;
        if (resolve == RESOLVE_DISCARD_HERE)
                w->vouched = 1;
        event(w, side, &(HalfEvent){.type = HALF_RESOLVE, .resolve = resolve});
}

static void make_move(World *w, Move m)
{
        Daemon *d = &w->side[m.side];

        switch (m.what) {
        case M_START: start(w); break;
        case M_DELIVER: deliver(w, m.side); break;
        case M_ACT: act(w, m.side, m.who); break;
        case M_LATE: land(w, m.side); break;
        case M_ACT_FAIL: act_and_fail(w, m); break;
        case M_ACT_FAIL_DURABLE:
                w->faults++;
                if (m.who == HALF_WHO_FENCE)
                        act_fence(w, true, true);
                else
                        act_record(w, m.side, true, true);
                break;
        case M_ANSWER: answer(w, m.side, m.who); break;
        case M_TIMER:
                d->timer = 0;
                w->faults += overdue(d) && !is_hanging(d, HALF_WHO_DEVICE);
                note_late(d);
                event(w, m.side, &(HalfEvent){.type = HALF_DEADLINE});
                break;
        case M_CANCEL:
                w->faults++;
                event(w, S, &(HalfEvent){.type = HALF_CANCEL});
                break;
        case M_CUT:
                w->cuts++;
                cut(w);
                break;
        case M_LINK:
                w->link = 1;
                for (int i = 0; i < 2; i++)
                        if (w->side[i].exists)
                                event(w, i, &(HalfEvent){.type = HALF_LINKED});
                break;
        case M_DAEMON_DIES:
                w->crashes++;
                daemon_dies(w, m.side);
                break;
        case M_DAEMON_BACK: daemon_back(w, m.side); break;
        case M_VMM_DIES:
                w->crashes++;
                vmm_dies(d);
                d->unseen_death = d->up && d->exists;
                break;
        case M_HOST_DIES: host_dies(w, m.side); break;
        case M_SEE_DEATH: see_death(w, m.side); break;
        case M_QEMU_RESUMES:
                w->faults += !is_held(d);
                if (supervised)
                        resume(w);
                else
                        vmm_becomes(w, S, V_RUNNING);
                d->unseen_resume = d->up && d->exists;
                break;
        case M_SEE_RESUME:
                d->unseen_resume = 0;
                event(w, S, &(HalfEvent){.type = HALF_VMM_RESUMED});
                break;
        case M_ACT_RESET:
                w->faults++;
                act_vmm(w, m.side, false);
                reset_behind(w, m.side);
                break;
        case M_VMM_STEPS: step_on(w, m.side); break;
        case M_RUN_HERE: decide(w, m.side, RESOLVE_RUN_HERE); break;
        case M_DISCARD_HERE: decide(w, m.side, RESOLVE_DISCARD_HERE); break;
        case M_HOLD_ENDS:
                w->crashes++;
                let_go(w, m.side);
                break;
        }
}

static int list_acts(const World *w, int side, Move *moves)
{
        const Daemon *d = &w->side[side];
        int n = 0;
        bool faults = w->faults < max_faults;

        for (uint8_t who = 0; who < HALF_WHO_MAX; who++) {
                const Command *c = &d->commands[who];

                if (c->phase == ACTED)
                        moves[n++] = (Move){M_ANSWER, (uint8_t) side, who, 0};
                if (c->phase != ASKED)
                        continue;
                moves[n++] = (Move){M_ACT, (uint8_t) side, who, 0};
                if ((!faults && !is_hanging(d, who)) || who == HALF_WHO_PEER)
                        continue;
                if (who == HALF_WHO_DEVICE)
                        for (uint8_t at = 0; at < c->device.n; at++)
                                moves[n++] = (Move){M_ACT_FAIL, (uint8_t) side, who, at};
                else
                        moves[n++] = (Move){M_ACT_FAIL, (uint8_t) side, who, 0};
                if (who == HALF_WHO_VMM && may_reset(c))
                        moves[n++] = (Move){M_ACT_RESET, (uint8_t) side, who, 0};
                if (who == HALF_WHO_RECORD || who == HALF_WHO_FENCE)
                        moves[n++] = (Move){M_ACT_FAIL_DURABLE, (uint8_t) side, who, 0};
        }
        return n;
}

static int list_moves(const World *w, Move *moves)
{
        const Daemon *s = &w->side[S], *o = &w->side[D];
        bool crashes = w->crashes < max_crashes;
        int n = 0;

        if (!w->started) {
                moves[n++] = (Move){M_START, S, 0, 0};
                return n;
        }
        for (uint8_t i = 0; i < 2; i++) {
                const Daemon *d = &w->side[i];

                if (!d->up) {
                        moves[n++] = (Move){M_DAEMON_BACK, i, 0, 0};
                } else {
                        if (d->n_queue > 0)
                                moves[n++] = (Move){M_DELIVER, i, 0, 0};
                        if (d->exists) {
                                n += list_acts(w, i, moves + n);
                                if (d->timer &&
                                    (!overdue(d) || is_hanging(d, HALF_WHO_DEVICE) || w->faults < max_faults))
                                        moves[n++] = (Move){M_TIMER, i, 0, 0};
                                if (d->unseen_death)
                                        moves[n++] = (Move){M_SEE_DEATH, i, 0, 0};
                                if (d->unseen_resume)
                                        moves[n++] = (Move){M_SEE_RESUME, i, 0, 0};
                        }
                }
                if (d->late)
                        moves[n++] = (Move){M_LATE, i, 0, 0};
                if (supervised && may_step(w, i))
                        moves[n++] = (Move){M_VMM_STEPS, i, 0, 0};
                if (may_decide(w, i, RESOLVE_RUN_HERE))
                        moves[n++] = (Move){M_RUN_HERE, i, 0, 0};
                if (may_decide(w, i, RESOLVE_DISCARD_HERE))
                        moves[n++] = (Move){M_DISCARD_HERE, i, 0, 0};
                if (!crashes)
                        continue;
                if (d->up && d->exists)
                        moves[n++] = (Move){M_DAEMON_DIES, i, 0, 0};
                if (IS_ALIVE(d->vmm))
                        moves[n++] = (Move){M_VMM_DIES, i, 0, 0};
                if (IS_ALIVE(d->vmm) && d->held)
                        moves[n++] = (Move){M_HOLD_ENDS, i, 0, 0};
                if (d->up && IS_ALIVE(d->vmm))
                        moves[n++] = (Move){M_HOST_DIES, i, 0, 0};
        }
        if (s->up && s->exists && w->faults < max_faults)
                moves[n++] = (Move){M_CANCEL, S, 0, 0};
        if (w->link && w->cuts < max_cuts)
                moves[n++] = (Move){M_CUT, S, 0, 0};
        if (!w->link && s->up && o->up && s->exists)
                moves[n++] = (Move){M_LINK, S, 0, 0};
        /* A migration that fails lets QEMU go on by itself: whenever it is under way and not sealed. */
        if ((s->vmm == V_HELD || s->vmm == V_GRACED) && w->faults < max_faults)
                moves[n++] = (Move){M_QEMU_RESUMES, S, 0, 0};
        else if (is_held(s)) /* a person lets it */
                moves[n++] = (Move){M_QEMU_RESUMES, S, 0, 0};
        return n;
}

/* ---- one form for each state --------------------------------------------------------------------------------- */

/* Steps are numbered from the start of a job; only which of them are equal matters. */
static void normalise(Daemon *d)
{
        uint32_t *steps[2 + HALF_WHO_MAX], n = 0, old[2 + HALF_WHO_MAX];

        if (!d->exists) {
                memset(&d->room, 0, sizeof d->room);
                return;
        }
        d->degraded |= half_device_is_lost(&d->half, 0);
        d->was_ready |= d->half.state == DESTINATION_READY;
        if (d->half.acked || d->half.state == SOURCE_OVER) {
                forget(d);
                d->up = 1;
                return;
        }
        /* What answers an older step is not heard any more, unless the device is still busy with it. */
        for (int i = 0; i < HALF_WHO_MAX; i++)
                if (d->commands[i].phase == ACTED && d->commands[i].step != d->half.step &&
                    (i != HALF_WHO_DEVICE || d->commands[i].step != d->half.devices[0].busy))
                        memset(&d->commands[i], 0, sizeof d->commands[i]);
        steps[n++] = &d->half.step;
        steps[n++] = &d->half.devices[0].busy;
        for (int i = 0; i < HALF_WHO_MAX; i++)
                steps[n++] = &d->commands[i].step;
        for (uint32_t i = 0; i < n; i++)
                old[i] = *steps[i];
        for (uint32_t i = 0; i < n; i++) {
                uint32_t rank = 1;

                for (uint32_t k = 0; k < n; k++) {
                        bool first = true;

                        for (uint32_t j = 0; j < k; j++)
                                first &= old[j] != old[k];
                        if (first && old[k] != 0 && old[k] < old[i])
                                rank++;
                }
                *steps[i] = old[i] ? rank : 0;
        }
        d->half.devices[0].retries_left = 0;
        if (plan.devices[0].on_source_loss != POLICY_ON_SOURCE_LOSS_PAUSE)
                d->half.halted = d->half.forgot = false; /* nobody asks */
        /* Which fault came first is told to people; it decides nothing. */
        d->half.failure = (HalfFailure){};
        d->half.resolved = RESOLVE_NONE;
}

/* ---- search -------------------------------------------------------------------------------------------------- */

/* A state is known by 128 bits of hash; the state itself is kept only until it has been expanded, and made again by
 * repeating the moves when somebody wants to see how it came about. */
typedef struct Node {
        uint64_t hash[2];
        uint32_t parent;
        Move move;
        uint8_t end, bad;
} Node;

static Node *nodes;
static World *todo;
static uint32_t n_nodes, max_nodes, *slots, n_slots, n_todo, max_todo, todo_first;
static uint32_t (*edges)[2];
static size_t n_edges, max_edges;

static void *grow(void *p, size_t n, size_t size)
{
        p = realloc(p, n * size);
        if (!p) {
                fprintf(stderr, "out of memory\n");
                exit(2);
        }
        return p;
}

static uint64_t hash(const World *w, uint64_t h)
{
        const uint8_t *p = (const uint8_t *) w;

        for (size_t i = 0; i < sizeof *w; i += 8) {
                uint64_t v = 0;

                memcpy(&v, p + i, MIN(sizeof v, sizeof *w - i));
                h = (h ^ v) * 0xff51afd7ed558ccdu;
                h ^= h >> 32;
        }
        return h ^ h >> 29;
}

static uint32_t slot_of(uint64_t h)
{
        uint32_t i = (uint32_t) h & (n_slots - 1);

        while (slots[i] != UINT32_MAX && nodes[slots[i]].hash[0] != h)
                i = (i + 1) & (n_slots - 1);
        return i;
}

static void grow_slots(void)
{
        n_slots = n_slots ? n_slots * 2 : 1 << 16;
        slots = grow(slots, n_slots, sizeof *slots);
        memset(slots, 0xff, n_slots * sizeof *slots);
        for (uint32_t k = 0; k < n_nodes; k++)
                slots[slot_of(nodes[k].hash[0])] = k;
}

static void push_todo(const World *w)
{
        if (n_todo == max_todo) {
                /* What was expanded is forgotten. */
                if (n_todo > 0)
                        memmove(todo, todo + todo_first, (n_todo - todo_first) * sizeof *todo);
                n_todo -= todo_first;
                todo_first = 0;
                if (n_todo * 2 >= max_todo) {
                        max_todo = max_todo ? max_todo * 2 : 1 << 12;
                        todo = grow(todo, max_todo, sizeof *todo);
                }
        }
        todo[n_todo++] = *w;
}

static bool is_end(const World *w);

static uint32_t find_or_add(const World *w, uint32_t parent, Move move)
{
        uint64_t h0 = hash(w, 0x9e3779b97f4a7c15u), h1 = hash(w, 0xc2b2ae3d27d4eb4fu);
        uint32_t i;

        if (n_nodes * 2 >= n_slots)
                grow_slots();
        i = slot_of(h0);
        if (slots[i] != UINT32_MAX) {
                assert(nodes[slots[i]].hash[1] == h1);
                return slots[i];
        }
        if (n_nodes == max_nodes) {
                max_nodes = max_nodes ? max_nodes * 2 : 1 << 14;
                nodes = grow(nodes, max_nodes, sizeof *nodes);
        }
        slots[i] = n_nodes;
        nodes[n_nodes] = (Node){{h0, h1}, parent, move, is_end(w), w->bad};
        push_todo(w);
        return n_nodes++;
}

static void add_edge(uint32_t from, uint32_t to)
{
        if (n_edges == max_edges) {
                max_edges = max_edges ? max_edges * 2 : 1 << 16;
                edges = grow(edges, max_edges, sizeof *edges);
        }
        edges[n_edges][0] = from;
        edges[n_edges++][1] = to;
}

static bool finished(const Daemon *d)
{
        return d->up && (!d->exists || half_job_state(&d->half) == JOB_STATE_FINISHED);
}

static bool doubting(const Daemon *d)
{
        return d->up && d->exists && half_job_state(&d->half) == JOB_STATE_IN_DOUBT;
}

static bool runs_with_device(const World *w, int side)
{
        const Daemon *d = &w->side[side];

        return d->vmm == V_RUNNING && (d->device == DEVICE_STATE_RUNNING || d->degraded);
}

/* An end that an operator would accept. */
static bool is_end(const World *w)
{
        const Daemon *s = &w->side[S], *d = &w->side[D];
        bool s_runs = runs_with_device(w, S), d_runs = runs_with_device(w, D);

        if (s_runs != d_runs)
                return finished(s) && finished(d);
        if (s->vmm == V_RUNNING || d->vmm == V_RUNNING)
                return false;
        /* Nothing runs: somebody must have died, and somebody must say so. */
        return (!IS_ALIVE(s->vmm) || d->vmm == V_DEAD) && (finished(s) || doubting(s)) &&
               (finished(d) || doubting(d) || d->vmm == V_LOADED || (d->up && d->exists));
}

/* A state from which no end can be reached, or UINT32_MAX: the search goes back from the ends. */
static uint32_t find_stuck(void)
{
        uint32_t *first = grow(NULL, n_nodes + 2, sizeof *first),
                 *back = grow(NULL, n_edges + 1, sizeof *back);
        uint32_t *open = grow(NULL, n_nodes + 1, sizeof *open), n_open = 0, stuck = UINT32_MAX;

        memset(first, 0, (n_nodes + 2) * sizeof *first);
        for (size_t i = 0; i < n_edges; i++)
                first[edges[i][1] + 2]++;
        for (uint32_t i = 1; i < n_nodes + 2; i++)
                first[i] += first[i - 1];
        for (size_t i = 0; i < n_edges; i++)
                back[first[edges[i][1] + 1]++] = edges[i][0];
        for (uint32_t i = 0; i < n_nodes; i++)
                if (nodes[i].end)
                        open[n_open++] = i;
        while (n_open > 0) {
                uint32_t i = open[--n_open];

                for (uint32_t k = first[i]; k < first[i + 1]; k++)
                        if (!nodes[back[k]].end) {
                                nodes[back[k]].end = 1;
                                open[n_open++] = back[k];
                        }
        }
        for (uint32_t i = 0; i < n_nodes && stuck == UINT32_MAX; i++)
                if (!nodes[i].end)
                        stuck = i;
        free(first);
        free(back);
        free(open);
        return stuck;
}

static const char *vmm_text(int v)
{
        static const char *const names[] = {"none",   "incoming", "loaded", "running", "held",
                                            "sealed", "dead",     "ended",  "graced",  "starting"};

        return names[v];
}

static void first_world(World *w)
{
        memset(w, 0, sizeof *w);
        w->link = 1;
        w->side[S].up = w->side[D].up = 1;
        w->side[S].vmm = V_RUNNING;
        w->side[S].device = w->side[D].device = DEVICE_STATE_RUNNING;
        if (supervised) {
                w->side[S].thinks = DEVICE_STATE_RUNNING;
                w->side[D].device = DEVICE_STATE_RESUMING; /* left by a VMM that died in the middle */
        }
}

static void move_on(World *w, Move move)
{
        make_move(w, move);
        check_asking(w);
        check_result(w, &w->side[S]);
        check_result(w, &w->side[D]);
        normalise(&w->side[S]);
        normalise(&w->side[D]);
}

static void print_side(const Daemon *d)
{
        printf(" | %-23s %-11s %-8s %-11s",
               d->exists ? half_states[d->half.state].name
               : d->up   ? "-"
                         : "down",
               owner_to_string(d->owner), vmm_text(d->vmm), device_state_to_string(d->device));
}

static void print_trace(uint32_t node)
{
        uint32_t path[4096], n = 0;
        World w;

        for (uint32_t i = node; i != 0 && n < ARRAY_SIZE(path); i = nodes[i].parent)
                path[n++] = i;
        first_world(&w);
        for (uint32_t k = n; k-- > 0;) {
                Move m = nodes[path[k]].move;

                move_on(&w, m);
                printf("%3u %c %s %s", n - k, m.side == S ? 'S' : 'D',
                       m.what >= M_ACT && m.what <= M_ANSWER ? half_who_to_string(m.who) : "",
                       move_names[m.what]);
                print_side(&w.side[S]);
                print_side(&w.side[D]);
                printf("%s\n", w.link ? "" : " (no link)");
        }
}

/* Returns FINE or what was violated first. */
static int explore(bool verbose)
{
        World first;
        int bad = FINE;
        uint32_t at;

        n_nodes = n_todo = todo_first = 0;
        n_edges = 0;
        if (slots)
                memset(slots, 0xff, n_slots * sizeof *slots);
        first_world(&first);
        find_or_add(&first, 0, (Move){});

        for (at = 0; at < n_nodes && nodes[at].bad == FINE; at++) {
                World here = todo[todo_first++];
                Move moves[64];
                int n = list_moves(&here, moves);

                for (int i = 0; i < n; i++) {
                        World w = here;

                        move_on(&w, moves[i]);
                        add_edge(at, find_or_add(&w, at, moves[i]));
                }
        }
        if (at < n_nodes) {
                bad = nodes[at].bad;
        } else {
                at = find_stuck();
                if (at != UINT32_MAX)
                        bad = NO_END;
        }
        if (verbose && bad != FINE) {
                printf("violation: %s\n", bad_names[bad]);
                print_trace(at);
        }
        if (verbose)
                printf("%u states, %zu steps, %d deaths, %d cuts, %d faults, %d operators: %s\n", n_nodes,
                       n_edges, max_crashes, max_cuts, max_faults, max_resolves,
                       bad == FINE ? "no violation" : "violation");
        return bad;
}

static PolicyRule rule; /* what all devices and VMs have */

static void set_policy(PolicyKey key, uint64_t value)
{
        rule.sets[key] = true;
        rule.values[key] = value;
}

/* `dma`: the device writes the VM's memory, its agents copy what it wrote; and it pre-copies. `its_vmm`: the VMM drives it. */
static void set_plan(bool dma, bool its_vmm, bool is_held, bool fence)
{
        supervised = its_vmm;
        rule.sets[POLICY_SUPERVISED_LAST_ARC] = is_held;
        rule.values[POLICY_SUPERVISED_LAST_ARC] = POLICY_LAST_ARC_BACK;
        flags = DEVICE_MIGRATION_STOP_COPY | DEVICE_MIGRATION_P2P;
        if (dma)
                flags |= DEVICE_MIGRATION_PRE_COPY | DEVICE_DMA_LOGGING | DEVICE_HAS_DMA;
        if (supervised)
                flags |= DEVICE_SUPERVISED | DEVICE_KERNEL;
        if (plan_build(&plan,
                       &(Manifest){.vmm = {.type = VMM_TYPE_QMP, .can_hold = true},
                                   .kernel = "6.12.107",
                                   .n_devices = 1,
                                   .devices = (ManifestDevice[1]){{.migration_flags = flags}}},
                       &(PolicyRules){1, &rule}, USEC_PER_SEC) < 0)
                exit(2);
        plan.fence = fence;
        plan.fence_usec = USEC_PER_SEC;
}

#include "broken.h"

static int usage(FILE *f)
{
        fprintf(f,
                "explorer [--crashes N] [--cuts N] [--faults N] [--dma] [--supervised [--held]] [--pause] [--onward]\n"
                "         [--resolves N] [--fence] [--break RULE | --rules | --all]\n");
        return 2;
}

int main(int argc, char **argv)
{
        static const struct option options[] = {{"crashes", required_argument, NULL, 'c'},
                                                {"cuts", required_argument, NULL, 'u'},
                                                {"faults", required_argument, NULL, 'f'},
                                                {"break", required_argument, NULL, 'b'},
                                                {"rules", no_argument, NULL, 'r'},
                                                {"all", no_argument, NULL, 'a'},
                                                {"dma", no_argument, NULL, 'd'},
                                                {"supervised", no_argument, NULL, 's'},
                                                {"resolves", required_argument, NULL, 'w'},
                                                {"fence", no_argument, NULL, 'F'},
                                                {"held", no_argument, NULL, 'l'},
                                                {"pause", no_argument, NULL, 'p'},
                                                {"onward", no_argument, NULL, 'o'},
                                                {"help", no_argument, NULL, 'h'},
                                                {}};
        const char *broken = NULL;
        bool dma = false, its_vmm = false, is_held = false, fence = false;
        int c, r;

        while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0)
                switch (c) {
                case 'c': max_crashes = atoi(optarg); break;
                case 'u': max_cuts = atoi(optarg); break;
                case 'f': max_faults = atoi(optarg); break;
                case 'b': broken = optarg; break;
                case 'r': print_rules(); return 0;
                case 'a': broken = "--all"; break;
                case 'd': dma = true; break;
                case 'w': max_resolves = atoi(optarg); break;
                case 'F': fence = true; break;
                case 's': its_vmm = true; break;
                case 'p': set_policy(POLICY_ON_SOURCE_LOSS, POLICY_ON_SOURCE_LOSS_PAUSE); break;
                case 'o': set_policy(POLICY_AFTER_GRACE, POLICY_AFTER_GRACE_DEGRADED); break;
                case 'l': is_held = true; break;
                case 'h': usage(stdout); return 0;
                default: return usage(stderr);
                }
        set_plan(dma, its_vmm, is_held, fence);
        if (half_effects_init(&effects, 1) < 0)
                return 2;
        if (broken && streq(broken, "--all"))
                return try_all_rules();
        table = half_table;
        if (broken && break_rule(broken) < 0) {
                fprintf(stderr, "no rule is called \"%s\"; --rules lists them\n", broken);
                return 2;
        }
        r = explore(true);
        return r == FINE ? 0 : 1;
}
