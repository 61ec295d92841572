/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What the halves ask of the world, and what can happen in it. */

#include "invariants.h"

#include <stdlib.h>

HalfTable world_table;
Plan world_plan;
uint32_t world_devices = 1, world_flags[WORLD_DEVICES];
int max_crashes = 2, max_cuts = 1, max_faults = 1, max_resolves;
bool world_half_alone;
bool old_link, forget_discard, first_go_returns, unheard_resets, believes, deaf_fence;

static HalfEffects effects;

void world_plan_for(const uint32_t *flags, const uint32_t *orders, uint32_t n, const PolicyRule *rule)
{
        ManifestDevice devices[WORLD_DEVICES] = {};
        Manifest manifest = {.vmm = {.type = VMM_TYPE_QMP, .can_hold = true},
                             .kernel = "6.12.107",
                             .n_devices = n,
                             .devices = devices};

        assert(n <= WORLD_DEVICES);
        world_devices = n;
        for (uint32_t i = 0; i < n; i++)
                world_flags[i] = devices[i].migration_flags = flags[i];
        plan_deinit(&world_plan);
        if (plan_build(&world_plan, &manifest, &(PolicyRules){rule != NULL, (PolicyRule *) rule},
                       USEC_PER_SEC) < 0 ||
            (!effects.items && half_effects_init(&effects, WORLD_DEVICES) < 0)) {
                fprintf(stderr, "out of memory\n");
                exit(2);
        }
        for (uint32_t i = 0; orders && i < n; i++)
                world_plan.devices[i].order = orders[i];
}

void world_init(World *w)
{
        memset(w, 0, sizeof *w);
        w->link = 1;
        w->side[S].up = w->side[D].up = 1;
        w->side[S].vmm = V_RUNNING;
        for (uint32_t i = 0; i < world_devices; i++) {
                w->side[S].devices[i].state = w->side[D].devices[i].state = DEVICE_STATE_RUNNING;
                if (is_driven(i)) {
                        w->side[S].devices[i].thinks = DEVICE_STATE_RUNNING;
                        w->side[D].devices[i].state =
                                DEVICE_STATE_RESUMING; /* left by a VMM that died in the middle */
                }
        }
}

/* ---- effects of a half on the world -------------------------------------------------------------------------- */

static void put(World *w, int to, const HalfEffect *e)
{
        Daemon *d = &w->side[to];
        Packet p = {(uint8_t) e->message, (uint8_t) e->phase, e->noway, e->copy};

        if (first_go_returns && w->side[D].owner != OWNER_PROMISED)
                p.noway = 0;
        if (!w->link || (world_half_alone && !d->exists))
                return;
        for (int i = 0; i < d->n_queue; i++)
                if (memcmp(&d->queue[i], &p, sizeof p) == 0)
                        return; /* a repetition that has not been read yet says nothing new */
        assert(d->n_queue < QUEUE);
        d->queue[d->n_queue++] = p;
}

static Command *new_command(Command *c, const HalfEffect *fx)
{
        memset(c, 0, sizeof *c);
        c->phase = ASKED;
        c->step = fx->step;
        return c;
}

static void command_device(Daemon *d, const HalfEffect *fx)
{
        Command *c = new_command(&d->devices[fx->device].command, fx);

        c->device.n = (uint8_t) fx->program.n;
        for (uint32_t k = 0; k < fx->program.n; k++) {
                c->device.type[k] = (uint8_t) fx->program.ops[k].type;
                c->device.from[k] = (uint8_t) fx->program.ops[k].from;
                c->device.to[k] = (uint8_t) fx->program.ops[k].to;
        }
}

static void command_record(Daemon *d, const HalfEffect *fx)
{
        Command *c = &d->commands[HALF_WHO_RECORD];

        if (c->phase == ASKED)
                d->owner = (uint8_t) c->owner; /* writes are done in order */
        new_command(c, fx);
        c->owner = fx->owner;
        c->durable = fx->noway; /* carried along until it is written */
}

void world_event(World *w, int side, const HalfEvent *e)
{
        Daemon *d = &w->side[side];
        HalfState was = d->half.state;

        if (half_step(&world_table, &world_plan, &d->half, e, &effects) != 0)
                return;
        for (uint32_t i = 0; i < effects.n; i++) {
                const HalfEffect *fx = &effects.items[i];

                switch (fx->type) {
                case HALF_EFFECT_DEVICE: command_device(d, fx); break;
                case HALF_EFFECT_VMM: new_command(&d->commands[HALF_WHO_VMM], fx)->vmm = fx->vmm_act; break;
                case HALF_EFFECT_CONNECT: new_command(&d->commands[HALF_WHO_PEER], fx); break;
                case HALF_EFFECT_FENCE: new_command(&d->commands[HALF_WHO_FENCE], fx); break;
                case HALF_EFFECT_RECORD: command_record(d, fx); break;
                case HALF_EFFECT_SEND:
                        check_message(w, side, fx->message);
                        put(w, !side, fx);
                        break;
                case HALF_EFFECT_TIMER: d->timer = fx->deadline_usec != 0; break;
                case HALF_EFFECT_ACKED: d->acked = 1; break;
                case HALF_EFFECT_MAX: break;
                }
        }
        check_half(w, side, was);
}

/* ---- moves --------------------------------------------------------------------------------------------------- */

static Command *command_of(Daemon *d, int who, uint32_t device)
{
        return who == HALF_WHO_DEVICE ? &d->devices[device].command : &d->commands[who];
}

/* A command that moves nothing may as well be answered when it is carried out. */
static bool moves_nothing(const Command *c, int who)
{
        if (who == HALF_WHO_PEER)
                return true;
        if (who == HALF_WHO_DEVICE)
                return c->device.n == 1 &&
                       (c->device.type[0] == DEVICE_OP_GET || c->device.type[0] == DEVICE_OP_LOAD ||
                        c->device.type[0] == DEVICE_OP_LOAD_PAGES ||
                        c->device.type[0] == DEVICE_OP_LOG_START || c->device.type[0] == DEVICE_OP_LOG_STOP ||
                        c->device.type[0] == DEVICE_OP_DIRTY || c->device.type[0] == DEVICE_OP_REOPEN ||
                        c->device.type[0] == DEVICE_OP_EXPECT || c->device.type[0] == DEVICE_OP_CLOSE);
        return who == HALF_WHO_VMM && (c->vmm == VMM_ACT_LOOK || c->vmm == VMM_ACT_PREPARE ||
                                       (c->vmm == VMM_ACT_HALT && !vmm_drives()) ||
                                       c->vmm == VMM_ACT_VERIFY || c->vmm == VMM_ACT_TAKE_IN);
}

/* A timer that rings while something is awaited means that somebody hangs. */
static bool overdue(const Daemon *d)
{
        bool waits = d->half.vmm_pending || d->half.peer_pending || d->half.fence_pending;

        for (uint32_t i = 0; i < world_devices; i++)
                waits |= d->half.devices[i].pending;
        return waits;
}

static bool any_hangs(const Daemon *d)
{
        for (uint32_t i = 0; i < world_devices; i++)
                if (d->devices[i].late)
                        return true;
        return false;
}

/* How many faults it is that the timer rings. That one hangs was counted when it began; of many each by itself. */
static int count_late(const Daemon *d)
{
        int n = d->half.vmm_pending || d->half.peer_pending || d->half.fence_pending;

        if (WORLD_DEVICES == 1)
                return overdue(d) && !any_hangs(d);
        for (uint32_t i = 0; i < world_devices; i++)
                n += d->half.devices[i].pending && !d->devices[i].hurt;
        return n;
}

static void hurt(Device *v)
{
        v->hurt = WORLD_DEVICES > 1;
}

/* A device that hangs may still do what it was told, at any time. */
static void note_late(Daemon *d, uint32_t device)
{
        Device *v = &d->devices[device];
        const Command *c = &v->command;

        if (!d->half.devices[device].pending)
                return;
        hurt(v);
        if (c->phase != ASKED || v->late)
                return;
        for (int i = 0; i < c->device.n && !v->late; i++)
                if (c->device.type[i] == DEVICE_OP_SET ||
                    (c->device.type[i] == DEVICE_OP_NUDGE && v->state == c->device.from[i]))
                        v->late = (uint8_t) (1 + c->device.to[i]);
}

static void forget(Daemon *d)
{
        d->up = d->timer = d->exists = 0;
        d->unseen_death = d->unseen_resume = 0;
        memset(&d->room, 0, sizeof d->room);
        memset(d->commands, 0, sizeof d->commands);
        for (uint32_t i = 0; i < world_devices; i++)
                memset(&d->devices[i].command, 0, sizeof d->devices[i].command);
}

static void empty_queues(World *w)
{
        for (int i = 0; i < 2; i++) {
                memset(w->side[i].queue, 0, sizeof w->side[i].queue);
                w->side[i].n_queue = 0;
        }
}

static void cut(World *w)
{
        w->link = 0;
        if (!old_link)
                empty_queues(w);
        for (int i = 0; i < 2; i++)
                if (w->side[i].up && w->side[i].exists)
                        world_event(w, i, &(HalfEvent){.type = HALF_CUT});
}

static void daemon_dies(World *w, int side)
{
        let_go(w, side);
        forget(&w->side[side]);
        empty_queues(w);
        if (w->link)
                cut(w);
}

/* What is known of devices when a half begins: of those that its VMM drives, only that. */
static void begin_devices(Daemon *d)
{
        for (uint32_t i = 0; i < world_devices; i++) {
                half_set_device(&d->half, i,
                                is_driven(i) ? DEVICE_SUPERVISED | DEVICE_KERNEL : world_flags[i],
                                is_driven(i) ? DEVICE_STATE_UNKNOWN : d->devices[i].state);
                half_set_gone(&d->half, i, is_driven(i));
        }
}

static void daemon_back(World *w, int side)
{
        Daemon *d = &w->side[side];
        HalfSight sight = {
                .vmm_lives = IS_ALIVE(d->vmm),
                .vmm_runs = d->vmm == V_RUNNING || d->vmm == V_GRACED,
                .complete = d->vmm == V_LOADED,
        };

        for (uint32_t i = 0; i < world_devices; i++) {
                sight.complete &= d->devices[i].loaded && d->devices[i].state == DEVICE_STATE_STOP;
                sight.device_ran |= half_device_may_have_run(world_flags[i], d->devices[i].state);
        }
        d->up = 1;
        d->restarted = 1;
        if (d->owner == OWNER_UNRECORDED || d->acked)
                return;
        if (forget_discard && d->owner == OWNER_DISCARDED)
                return;
        if (half_restore(&world_table, &d->half, side, world_devices, d->owner, d->noway, &sight) < 0)
                abort();
        if (!IS_ALIVE(d->vmm))
                begin_devices(d);
        for (uint32_t i = 0; i < world_devices; i++)
                if (!is_driven(i) || IS_ALIVE(d->vmm))
                        half_set_device(&d->half, i, world_flags[i], d->devices[i].state);
        d->exists = 1;
        world_event(w, side, &(HalfEvent){.type = HALF_START});
}

static void say(World *w, int to, Message message)
{
        put(w, to, &(HalfEffect){.message = message});
}

static void start(World *w, int side)
{
        Daemon *d = &w->side[side];

        w->started = 1;
        half_init(&d->half, side, world_devices, false);
        begin_devices(d);
        d->exists = 1;
        world_event(w, side, &(HalfEvent){.type = HALF_LINKED});
        world_event(w, side, &(HalfEvent){.type = HALF_START});
}

static void hear(World *w, int side, const Packet *p)
{
        Daemon *d = &w->side[side];
        bool gone = false;

        for (uint32_t i = 0; i < world_devices; i++)
                gone |= d->half.devices[i].gone;
        world_event(w, side,
                    &(HalfEvent){.type = HALF_MESSAGE,
                                 .message = p->message,
                                 /* check would not let a device go that can't be had */
                                 .refused = p->message == MESSAGE_CHECKED && gone,
                                 .phase = p->phase,
                                 .noway = p->noway,
                                 .copy = p->copy});
}

static void deliver(World *w, int side)
{
        Daemon *d = &w->side[side];
        Packet p = d->queue[0];

        memmove(d->queue, d->queue + 1, sizeof d->queue - sizeof d->queue[0]);
        memset(&d->queue[--d->n_queue], 0, sizeof d->queue[0]);

        if (d->exists)
                hear(w, side, &p);
        else if (side == D && p.message == MESSAGE_CHECK)
                say(w, S, MESSAGE_CHECKED);
        else if (side == D && p.message == MESSAGE_PREPARE && d->owner == OWNER_UNRECORDED)
                start(w, D);
        else if (side == D && (p.message == MESSAGE_ASK || p.message == MESSAGE_GO ||
                               p.message == MESSAGE_END || p.message == MESSAGE_DONE))
                say(w, S, MESSAGE_UNKNOWN);
}

static void answer(World *w, int side, int who, uint32_t device)
{
        Daemon *d = &w->side[side];
        const Device *v = &d->devices[device];
        Command c = *command_of(d, who, device);
        HalfEvent e = {.type = HALF_RESULT,
                       .who = who,
                       .device = device,
                       .step = c.step,
                       .status = c.status ? -EIO : 0,
                       .state = v->late ? DEVICE_STATE_UNKNOWN : v->state,
                       .from = v->state,
                       .to = v->state};

        memset(command_of(d, who, device), 0, sizeof c);
        if (who == HALF_WHO_DEVICE)
                for (int i = 0; i < c.device.n; i++)
                        e.was_reset |= c.device.type[i] == DEVICE_OP_RESET && !c.status;
        if (who == HALF_WHO_DEVICE && is_driven(device) && c.device.type[0] == DEVICE_OP_REOPEN && c.status)
                e.state = DEVICE_STATE_UNKNOWN;
        else if (who == HALF_WHO_DEVICE && is_driven(device))
                half_set_flags(&d->half, device, world_flags[device]);
        world_event(w, side, &e);
}

static void host_dies(World *w, int side)
{
        Daemon *d = &w->side[side];

        w->crashes++;
        daemon_dies(w, side);
        vmm_dies(d);
        for (uint32_t i = 0; i < world_devices; i++) {
                Device *v = &d->devices[i];

                v->state = DEVICE_STATE_RUNNING; /* power came back: a fresh device */
                v->fresh = 1;
                v->late = v->stream = v->pages = v->loaded = 0;
        }
}

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

static void act(World *w, Move m)
{
        Command *c = command_of(&w->side[m.side], m.who, m.device);

        if (m.who == HALF_WHO_DEVICE)
                act_device(w, m.side, m.device, -1, false);
        else if (m.who == HALF_WHO_VMM)
                act_vmm(w, m.side, false);
        else if (m.who == HALF_WHO_RECORD)
                act_record(w, m.side, false, false);
        else if (m.who == HALF_WHO_FENCE)
                act_fence(w, false, true);
        else
                c->phase = ACTED;
        if (c->phase == ACTED && moves_nothing(c, m.who))
                answer(w, m.side, m.who, m.device);
}

static void act_and_fail(World *w, Move m)
{
        Device *v = &w->side[m.side].devices[m.device];

        w->faults += !(m.who == HALF_WHO_DEVICE && v->late); /* that one hangs was counted when it began */
        if (m.who == HALF_WHO_DEVICE) {
                hurt(v);
                act_device(w, m.side, m.device, m.at, m.what == M_ACT_ERROR);
        } else if (m.who == HALF_WHO_VMM) {
                act_vmm(w, m.side, true);
        } else if (m.who == HALF_WHO_RECORD) {
                act_record(w, m.side, true, m.what == M_ACT_FAIL_DURABLE);
        } else if (m.who == HALF_WHO_FENCE) {
                act_fence(w, true, m.what == M_ACT_FAIL_DURABLE);
        }
}

static void see_death(World *w, int side)
{
        Daemon *d = &w->side[side];

        d->unseen_death = 0;
        for (uint32_t i = 0; i < world_devices; i++)
                if (is_driven(i))
                        clear_device(w, side, i);
        world_event(w, side, &(HalfEvent){.type = HALF_VMM_GONE});
        for (uint32_t i = 0; i < world_devices; i++)
                if (is_driven(i) && d->exists)
                        world_event(w, side,
                                    &(HalfEvent){.type = HALF_DEVICE_GONE,
                                                 .device = i,
                                                 .state = DEVICE_STATE_UNKNOWN});
}

/* What it was doing for us ends there; the device is as it is, and the next agent finds it so. */
static void agent_dies(World *w, Move m)
{
        Device *v = &w->side[m.side].devices[m.device];

        w->faults++;
        hurt(v);
        memset(&v->command, 0, sizeof v->command);
        world_event(
                w, m.side,
                &(HalfEvent){.type = HALF_DEVICE_GONE, .device = m.device, .state = DEVICE_STATE_UNKNOWN});
}

static void timer_rings(World *w, int side)
{
        Daemon *d = &w->side[side];

        d->timer = 0;
        w->faults += count_late(d);
        for (uint32_t i = 0; i < world_devices; i++)
                note_late(d, i);
        world_event(w, side, &(HalfEvent){.type = HALF_DEADLINE});
}

static void link_is_made(World *w)
{
        w->link = 1;
        for (int i = 0; i < 2; i++)
                if (w->side[i].exists)
                        world_event(w, i, &(HalfEvent){.type = HALF_LINKED});
}

/* The destination of a half that is alone has everything. */
static void state_comes(World *w)
{
        w->side[D].vmm = V_LOADED;
        w->side[S].vmm = V_SEALED;
        for (uint32_t i = 0; i < world_devices; i++) {
                Device *v = &w->side[D].devices[i];

                v->stream = v->pages = 1;
                if (is_driven(i))
                        v->state = v->thinks = DEVICE_STATE_RESUMING;
        }
}

/* What it says is so. */
static void says(World *w, Move m)
{
        Packet p = {.message = m.who, .phase = m.at, .copy = m.device};

        w->faults += m.who == MESSAGE_FAILED || m.who == MESSAGE_ABORT;
        if (m.who == MESSAGE_STARTED) {
                w->side[D].vmm = V_RUNNING;
                w->ran = 1;
        } else if (m.who == MESSAGE_PREPARED) {
                w->side[D].vmm = V_INCOMING;
                for (uint32_t i = 0; i < world_devices; i++)
                        w->side[D].devices[i].state =
                                is_driven(i) ? DEVICE_STATE_RUNNING : DEVICE_STATE_RESUMING;
        } else if (m.who == MESSAGE_PREPARE) {
                start(w, D);
                return;
        } else if (m.who == MESSAGE_END) {
                w->side[S].vmm = V_RUNNING;
                w->stale = 1;
        }
        hear(w, m.side, &p);
}

/* ---- operators ----------------------------------------------------------------------------------------------- */

static bool any_late(const Daemon *d)
{
        for (uint32_t i = 0; i < world_devices; i++)
                if (d->devices[i].late)
                        return true;
        return false;
}

static bool any_may_move(const Daemon *d)
{
        for (uint32_t i = 0; i < world_devices; i++)
                if (device_may_move(d, i))
                        return true;
        return false;
}

/* What the operator vouches for with his word is so. */
static bool is_true(const World *w, int side, Resolve resolve)
{
        const Daemon *s = &w->side[S], *d = &w->side[D];
        bool copy = (d->vmm == V_LOADED && is_complete(w) && !w->stale) || d->vmm == V_RUNNING;

        if (believes || (side == S && s->half.state == SOURCE_HELD))
                return true;
        /* A fence makes it so; else what is over there is dead, device and all. */
        if (side == S && resolve == RESOLVE_RUN_HERE)
                return world_plan.fence || (!d->up && !IS_ALIVE(d->vmm) && !any_may_move(d));
        /* The VMM here is dead and nothing has run since, or what is here is not needed. */
        if (side == S)
                return IS_ALIVE(s->vmm) ? copy : !w->stale && !any_late(s);
        if (resolve == RESOLVE_RUN_HERE)
                return !s->up && !IS_ALIVE(s->vmm) && !w->stale;
        return d->vmm != V_LOADED || w->stale || !is_complete(w) || IS_ALIVE(s->vmm);
}

static bool may_decide(const World *w, int side, Resolve resolve)
{
        const Daemon *d = &w->side[side];

        return (max_resolves < 0 || w->resolves < max_resolves) && d->up && d->exists &&
               half_may_resolve(&world_table, &world_plan, &d->half, resolve) && is_true(w, side, resolve);
}

static void decide(World *w, int side, Resolve resolve)
{
        w->resolves += max_resolves > 0;
        if (side == S && resolve == RESOLVE_RUN_HERE && w->side[S].half.state == SOURCE_DOUBT)
                w->forgiven = 1;
        if (side == D && resolve == RESOLVE_DISCARD_HERE && w->side[D].half.state == DESTINATION_MAYBE)
                w->forgiven = 1;
        if (side == S && w->side[S].half.state == SOURCE_HELD)
                w->let_go = 1;
        if (resolve == RESOLVE_DISCARD_HERE)
                w->vouched = 1;
        world_event(w, side, &(HalfEvent){.type = HALF_RESOLVE, .resolve = resolve});
}

/* It waits for a person, who lets the VM go on by its VMM. */
static bool is_held(const Daemon *d)
{
        return d->up && d->exists && d->half.state == SOURCE_HELD && IS_ALIVE(d->vmm) && d->vmm != V_RUNNING;
}

static void make_move(World *w, Move m)
{
        Daemon *d = &w->side[m.side];

        switch (m.what) {
        case M_START: start(w, m.side); break;
        case M_DELIVER: deliver(w, m.side); break;
        case M_ACT: act(w, m); break;
        case M_LATE: land(w, m.side, m.device); break;
        case M_ACT_FAIL:
        case M_ACT_ERROR:
        case M_ACT_FAIL_DURABLE: act_and_fail(w, m); break;
        case M_ANSWER: answer(w, m.side, m.who, m.device); break;
        case M_TIMER: timer_rings(w, m.side); break;
        case M_CANCEL:
                if (w->resolves < max_resolves)
                        w->resolves++;
                else
                        w->faults += max_resolves >= 0;
                world_event(w, S, &(HalfEvent){.type = HALF_CANCEL});
                w->turned |= w->side[S].half.cancelled;
                break;
        case M_CUT:
                w->cuts++;
                cut(w);
                break;
        case M_LINK: link_is_made(w); break;
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
                resume_source(w);
                d->unseen_resume = d->up && d->exists;
                break;
        case M_SEE_RESUME:
                d->unseen_resume = 0;
                world_event(w, S, &(HalfEvent){.type = HALF_VMM_RESUMED});
                break;
        case M_ACT_RESET:
                w->faults++;
                act_vmm(w, m.side, false);
                reset_behind(w, m.side, m.device);
                break;
        case M_VMM_STEPS: step_on(w, m.side); break;
        case M_RUN_HERE: decide(w, m.side, RESOLVE_RUN_HERE); break;
        case M_DISCARD_HERE: decide(w, m.side, RESOLVE_DISCARD_HERE); break;
        case M_HOLD_ENDS:
                w->crashes++;
                let_go(w, m.side);
                break;
        case M_AGENT_DIES: agent_dies(w, m); break;
        case M_SAY: says(w, m); break;
        case M_STATE_COMES: state_comes(w); break;
        }
}

bool move_is_bad(const World *w, Move move)
{
        const Daemon *d = &w->side[move.side];

        switch (move.what) {
        case M_TIMER: return count_late(d) > 0;
        case M_QEMU_RESUMES: return !is_held(d);
        case M_ACT_FAIL:
        case M_ACT_ERROR:
        case M_ACT_FAIL_DURABLE:
        case M_CANCEL:
        case M_CUT:
        case M_DAEMON_DIES:
        case M_VMM_DIES:
        case M_HOST_DIES:
        case M_ACT_RESET:
        case M_HOLD_ENDS:
        case M_AGENT_DIES: return true;
        case M_SAY: return move.who == MESSAGE_FAILED || move.who == MESSAGE_ABORT;
        default: return false;
        }
}

/* ---- what can be next ------------------------------------------------------------------------------------------ */

static int list_act(const World *w, int side, uint8_t who, uint8_t device, Move *moves)
{
        const Daemon *d = &w->side[side];
        const Device *v = &d->devices[device];
        const Command *c = who == HALF_WHO_DEVICE ? &v->command : &d->commands[who];
        bool faults = w->faults < max_faults, hangs = who == HALF_WHO_DEVICE && v->late;
        int n = 0;

        if (c->phase == ACTED)
                moves[n++] = (Move){M_ANSWER, (uint8_t) side, who, 0, device};
        if (c->phase != ASKED)
                return n;
        moves[n++] = (Move){M_ACT, (uint8_t) side, who, 0, device};
        if ((!faults && !hangs) || who == HALF_WHO_PEER)
                return n;
        for (uint8_t at = 0; at < (who == HALF_WHO_DEVICE ? c->device.n : 1); at++) {
                moves[n++] = (Move){M_ACT_FAIL, (uint8_t) side, who, at, device};
                if (WORLD_DEVICES > 1 && who == HALF_WHO_DEVICE && c->device.type[at] == DEVICE_OP_SET &&
                    !is_driven(device))
                        moves[n++] = (Move){M_ACT_ERROR, (uint8_t) side, who, at, device};
        }
        for (uint8_t i = 0; who == HALF_WHO_VMM && i < world_devices; i++)
                if (may_reset(d, c, i))
                        moves[n++] = (Move){M_ACT_RESET, (uint8_t) side, who, 0, i};
        if (who == HALF_WHO_RECORD || who == HALF_WHO_FENCE)
                moves[n++] = (Move){M_ACT_FAIL_DURABLE, (uint8_t) side, who, 0, 0};
        return n;
}

static int list_half_moves(const World *w, int side, Move *moves)
{
        const Daemon *d = &w->side[side];
        bool faults = w->faults < max_faults;
        uint8_t at = (uint8_t) side;
        int n = 0;

        for (uint8_t i = 0; i < world_devices; i++)
                n += list_act(w, side, HALF_WHO_DEVICE, i, moves + n);
        for (uint8_t who = HALF_WHO_VMM; who < HALF_WHO_MAX; who++)
                n += list_act(w, side, who, 0, moves + n);
        if (d->timer && w->faults + count_late(d) <= MAX(max_faults, w->faults))
                moves[n++] = (Move){M_TIMER, at, 0, 0, 0};
        if (d->unseen_death)
                moves[n++] = (Move){M_SEE_DEATH, at, 0, 0, 0};
        if (d->unseen_resume)
                moves[n++] = (Move){M_SEE_RESUME, at, 0, 0, 0};
        for (uint8_t i = 0; WORLD_DEVICES > 1 && faults && i < world_devices; i++)
                if (!is_driven(i) && !d->half.devices[i].gone)
                        moves[n++] = (Move){M_AGENT_DIES, at, 0, 0, i};
        return n;
}

int list_side_moves(const World *w, int side, Move *moves)
{
        const Daemon *d = &w->side[side];
        uint8_t at = (uint8_t) side;
        int n = 0;

        if (!d->up)
                moves[n++] = (Move){M_DAEMON_BACK, at, 0, 0, 0};
        if (d->up && d->n_queue > 0)
                moves[n++] = (Move){M_DELIVER, at, 0, 0, 0};
        if (d->up && d->exists)
                n += list_half_moves(w, side, moves + n);
        for (uint8_t i = 0; i < world_devices; i++)
                if (d->devices[i].late)
                        moves[n++] = (Move){M_LATE, at, 0, 0, i};
        if (vmm_drives() && may_step(w, side))
                moves[n++] = (Move){M_VMM_STEPS, at, 0, 0, 0};
        if (may_decide(w, side, RESOLVE_RUN_HERE))
                moves[n++] = (Move){M_RUN_HERE, at, 0, 0, 0};
        if (may_decide(w, side, RESOLVE_DISCARD_HERE))
                moves[n++] = (Move){M_DISCARD_HERE, at, 0, 0, 0};
        /* A migration that fails lets QEMU go on by itself: whenever it is under way and not sealed. */
        if (side == S && (d->vmm == V_HELD || d->vmm == V_GRACED) && w->faults < max_faults)
                moves[n++] = (Move){M_QEMU_RESUMES, S, 0, 0, 0};
        else if (side == S && is_held(d)) /* a person lets it */
                moves[n++] = (Move){M_QEMU_RESUMES, S, 0, 0, 0};
        if (side == S && d->up && d->exists &&
            (max_resolves < 0 || w->resolves < max_resolves || w->faults < max_faults))
                moves[n++] = (Move){M_CANCEL, S, 0, 0, 0};
        if (w->crashes >= max_crashes)
                return n;
        if (d->up && d->exists)
                moves[n++] = (Move){M_DAEMON_DIES, at, 0, 0, 0};
        if (IS_ALIVE(d->vmm))
                moves[n++] = (Move){M_VMM_DIES, at, 0, 0, 0};
        if (IS_ALIVE(d->vmm) && d->held)
                moves[n++] = (Move){M_HOLD_ENDS, at, 0, 0, 0};
        if (d->up && IS_ALIVE(d->vmm))
                moves[n++] = (Move){M_HOST_DIES, at, 0, 0, 0};
        return n;
}

int list_moves(const World *w, Move *moves)
{
        const Daemon *s = &w->side[S], *o = &w->side[D];
        int n = 0;

        if (!w->started) {
                moves[n++] = (Move){M_START, S, 0, 0, 0};
                return n;
        }
        n += list_side_moves(w, S, moves + n);
        n += list_side_moves(w, D, moves + n);
        if (w->link && w->cuts < max_cuts)
                moves[n++] = (Move){M_CUT, S, 0, 0, 0};
        if (!w->link && s->up && o->up && s->exists)
                moves[n++] = (Move){M_LINK, S, 0, 0, 0};
        assert(n <= MOVES_MAX);
        return n;
}

/* ---- one form for each state --------------------------------------------------------------------------------- */

/* Steps are numbered from the start of a job; only which of them are equal matters, and which is older. */
static void rank_steps(uint32_t **steps, uint32_t n)
{
        uint32_t sorted[HALF_WHO_MAX + 2 * WORLD_DEVICES], n_sorted = 0;

        for (uint32_t i = 0; i < n; i++) {
                uint32_t at = n_sorted;

                while (at > 0 && sorted[at - 1] > *steps[i])
                        at--;
                if (*steps[i] == 0 || (at > 0 && sorted[at - 1] == *steps[i]))
                        continue;
                memmove(sorted + at + 1, sorted + at, (n_sorted - at) * sizeof sorted[0]);
                sorted[at] = *steps[i];
                n_sorted++;
        }
        for (uint32_t i = 0; i < n; i++)
                for (uint32_t k = 0; k < n_sorted; k++)
                        if (sorted[k] == *steps[i]) {
                                *steps[i] = k + 1;
                                break;
                        }
}

static void normalise(Daemon *d)
{
        uint32_t *steps[HALF_WHO_MAX + 2 * WORLD_DEVICES], n = 0;

        if (!d->exists) {
                memset(&d->room, 0, sizeof d->room);
                return;
        }
        for (uint32_t i = 0; i < world_devices; i++)
                d->devices[i].degraded |= half_device_is_lost(&d->half, i);
        d->was_ready |= d->half.state == DESTINATION_READY;
        if (d->half.acked || d->half.state == SOURCE_OVER) {
                forget(d);
                d->up = 1;
                return;
        }
        /* What answers an older step is not heard any more, unless the device is still busy with it. */
        for (int i = HALF_WHO_VMM; i < HALF_WHO_MAX; i++)
                if (d->commands[i].phase == ACTED && d->commands[i].step != d->half.step)
                        memset(&d->commands[i], 0, sizeof d->commands[i]);
        steps[n++] = &d->half.step;
        for (int i = HALF_WHO_VMM; i < HALF_WHO_MAX; i++)
                steps[n++] = &d->commands[i].step;
        for (uint32_t i = 0; i < world_devices; i++) {
                Command *c = &d->devices[i].command;

                if (c->phase == ACTED && c->step != d->half.step && c->step != d->half.devices[i].busy)
                        memset(c, 0, sizeof *c);
                d->half.devices[i].retries_left = 0;
                steps[n++] = &d->half.devices[i].busy;
                steps[n++] = &c->step;
        }
        rank_steps(steps, n);
        /* Which fault came first is told to people; it decides nothing. */
        d->half.failure = (HalfFailure){};
        d->half.resolved = RESOLVE_NONE;
        if (world_plan.devices[0].on_source_loss != POLICY_ON_SOURCE_LOSS_PAUSE)
                d->half.halted = d->half.forgot = false; /* nobody asks */
}

/* What an all-knowing observer remembers only as long as it matters: whether the destination is complete is asked of a VMM that
 * waits there, or will; whether a half was restarted, of that, and of one whose devices its VMM can reset. */
static void forget_what_is_over(World *w)
{
        Daemon *d = &w->side[D];
        bool waits = d->vmm == V_NONE || d->vmm == V_INCOMING || d->vmm == V_LOADED;

        d->was_ready &= waits;
        w->turned &= waits && !d->was_ready;
        if (vmm_drives())
                return;
        w->side[S].restarted = 0;
        d->restarted &= waits && !d->was_ready;
}

void move_on(World *w, Move move)
{
        make_move(w, move);
        w->turned |= w->faults > 0;
        check_all(w);
        normalise(&w->side[S]);
        normalise(&w->side[D]);
        forget_what_is_over(w);
}

/* ---- ends -------------------------------------------------------------------------------------------------------- */

bool is_finished(const Daemon *d)
{
        return d->up && (!d->exists || half_job_state(&d->half) == JOB_STATE_FINISHED);
}

bool is_doubting(const Daemon *d)
{
        return d->up && d->exists && half_job_state(&d->half) == JOB_STATE_IN_DOUBT;
}

bool runs_with_devices(const World *w, int side)
{
        const Daemon *d = &w->side[side];

        if (d->vmm != V_RUNNING)
                return false;
        for (uint32_t i = 0; i < world_devices; i++)
                if (d->devices[i].state != DEVICE_STATE_RUNNING && !d->devices[i].degraded)
                        return false;
        return true;
}

bool is_end(const World *w)
{
        const Daemon *s = &w->side[S], *d = &w->side[D];
        bool s_runs = runs_with_devices(w, S), d_runs = runs_with_devices(w, D);

        if (s_runs != d_runs)
                return is_finished(s) && is_finished(d);
        if (s->vmm == V_RUNNING || d->vmm == V_RUNNING)
                return false;
        /* Nothing runs: somebody must have died, and somebody must say so. */
        return (!IS_ALIVE(s->vmm) || d->vmm == V_DEAD) && (is_finished(s) || is_doubting(s)) &&
               (is_finished(d) || is_doubting(d) || d->vmm == V_LOADED || (d->up && d->exists));
}

/* ---- for people -------------------------------------------------------------------------------------------------- */

static const char *const move_names[M_MAX] = {
        [M_START] = "start",
        [M_DELIVER] = "deliver",
        [M_ACT] = "act",
        [M_LATE] = "act, late",
        [M_ACT_FAIL] = "act, failing",
        [M_ACT_ERROR] = "act, failing into ERROR",
        [M_ACT_FAIL_DURABLE] = "act, failing but durable",
        [M_ANSWER] = "answer",
        [M_TIMER] = "timer",
        [M_CANCEL] = "cancel",
        [M_CUT] = "cut",
        [M_LINK] = "link",
        [M_DAEMON_DIES] = "daemon dies",
        [M_DAEMON_BACK] = "daemon back",
        [M_VMM_DIES] = "VMM dies",
        [M_HOST_DIES] = "host dies",
        [M_SEE_DEATH] = "death seen",
        [M_QEMU_RESUMES] = "QEMU resumes by itself",
        [M_SEE_RESUME] = "resume seen",
        [M_ACT_RESET] = "act, device reset",
        [M_VMM_STEPS] = "VMM goes on",
        [M_RUN_HERE] = "operator: run here",
        [M_DISCARD_HERE] = "operator: discard here",
        [M_HOLD_ENDS] = "hold ends",
        [M_AGENT_DIES] = "agent dies",
        [M_SAY] = "is told",
        [M_STATE_COMES] = "has everything",
};

static void print_side(const Daemon *d)
{
        static const char *const vmms[] = {"none",   "incoming", "loaded", "running", "held",
                                           "sealed", "dead",     "ended",  "graced",  "starting"};

        printf(" | %-23s %-11s %-8s",
               d->exists ? half_states[d->half.state].name
               : d->up   ? "-"
                         : "down",
               owner_to_string(d->owner), vmms[d->vmm]);
        for (uint32_t i = 0; i < world_devices; i++)
                printf(" %-11s", device_state_to_string(d->devices[i].state));
}

void print_move(const World *w, uint32_t nr, Move m)
{
        char who[32] = "";

        if (m.what == M_SAY)
                (void) snprintf(who, sizeof who, " %s", message_to_string(m.who));
        else if (m.what >= M_ACT && m.what <= M_ANSWER && m.what != M_LATE && m.who != HALF_WHO_DEVICE)
                (void) snprintf(who, sizeof who, "%s ", half_who_to_string(m.who));
        else if ((m.what >= M_ACT && m.what <= M_ANSWER) || m.what == M_AGENT_DIES || m.what == M_ACT_RESET)
                (void) snprintf(who, sizeof who, world_devices > 1 ? "device %u " : "device ", m.device);
        printf("%3u %c %s%s%s", nr, m.side == S ? 'S' : 'D', m.what == M_SAY ? "" : who, move_names[m.what],
               m.what == M_SAY ? who : "");
        if (!world_half_alone || m.side == S)
                print_side(&w->side[S]);
        if (!world_half_alone || m.side == D)
                print_side(&w->side[D]);
        printf("%s\n", w->link ? "" : " (no link)");
}
