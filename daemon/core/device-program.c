/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "device-program.h"

static const char *const device_op_names[DEVICE_OP_MAX] = {
        [DEVICE_OP_GET] = "get",
        [DEVICE_OP_SET] = "set",
        [DEVICE_OP_RESET] = "reset",
        [DEVICE_OP_SEND] = "send",
        [DEVICE_OP_LOAD] = "load",
        [DEVICE_OP_REOPEN] = "reopen",
        [DEVICE_OP_CLOSE] = "close",
        [DEVICE_OP_LOG_START] = "log-start",
        [DEVICE_OP_LOG_STOP] = "log-stop",
        [DEVICE_OP_DIRTY] = "dirty",
        [DEVICE_OP_PRECOPY] = "precopy",
        [DEVICE_OP_SEND_PAGES] = "send-pages",
        [DEVICE_OP_LOAD_PAGES] = "load-pages",
        [DEVICE_OP_NUDGE] = "nudge",
        [DEVICE_OP_EXPECT] = "expect",
};

static const char *const device_act_names[DEVICE_ACT_MAX] = {
        [DEVICE_ACT_NONE] = "-",
        [DEVICE_ACT_LOOK] = "look",
        [DEVICE_ACT_REOPEN] = "reopen",
        [DEVICE_ACT_RECEIVE] = "receive",
        [DEVICE_ACT_LOG] = "log",
        [DEVICE_ACT_PRECOPY] = "precopy",
        [DEVICE_ACT_GRACE] = "grace",
        [DEVICE_ACT_P2P] = "to-p2p",
        [DEVICE_ACT_STOP_REST] = "stop-rest",
        [DEVICE_ACT_STOP] = "stop",
        [DEVICE_ACT_DIRTY] = "dirty",
        [DEVICE_ACT_DRAIN] = "drain",
        [DEVICE_ACT_SEND_PAGES] = "send-pages",
        [DEVICE_ACT_LOAD] = "load",
        [DEVICE_ACT_LOAD_PAGES] = "load-pages",
        [DEVICE_ACT_SEALED] = "sealed",
        [DEVICE_ACT_ADOPT] = "adopt",
        [DEVICE_ACT_CLEAN] = "clean",
        [DEVICE_ACT_INTAKE] = "intake",
        [DEVICE_ACT_ARRIVE] = "arrive",
        [DEVICE_ACT_RUN] = "run",
        [DEVICE_ACT_PUSH] = "push",
        [DEVICE_ACT_SETTLE] = "settle",
        [DEVICE_ACT_REPAIR] = "repair",
        [DEVICE_ACT_BACK_P2P] = "back-to-p2p",
        [DEVICE_ACT_UNLOG] = "unlog",
        [DEVICE_ACT_UNARRIVE] = "back-to-stop",
        [DEVICE_ACT_DISCARD] = "discard",
        [DEVICE_ACT_CLEAR] = "clear",
        [DEVICE_ACT_CLOSE] = "close",
        [DEVICE_ACT_RESET] = "reset",
};

DEFINE_STRING_TABLE(DeviceOpType, device_op, device_op_names);
DEFINE_STRING_TABLE(DeviceAct, device_act, device_act_names);

bool device_op_transfers(DeviceOpType type)
{
        switch (type) {
        case DEVICE_OP_SEND:
        case DEVICE_OP_LOAD:
        case DEVICE_OP_PRECOPY:
        case DEVICE_OP_SEND_PAGES:
        case DEVICE_OP_LOAD_PAGES: return true;
        case DEVICE_OP_GET:
        case DEVICE_OP_SET:
        case DEVICE_OP_RESET:
        case DEVICE_OP_REOPEN:
        case DEVICE_OP_CLOSE:
        case DEVICE_OP_LOG_START:
        case DEVICE_OP_LOG_STOP:
        case DEVICE_OP_DIRTY:
        case DEVICE_OP_NUDGE:
        case DEVICE_OP_EXPECT:
        case DEVICE_OP_MAX:
        case DEVICE_OP_INVALID: break;
        }
        return false;
}

static void add(DeviceProgram *program, DeviceOpType type)
{
        program->ops[program->n++] = (DeviceOp){.type = type};
}

static int add_path(DeviceProgram *program, DeviceState from, DeviceState to, uint32_t flags)
{
        DeviceState path[DEVICE_PATH_MAX];
        int n = device_state_path(from, to, flags, path);

        if (n < 0)
                return n;
        for (int i = 0; i < n; i++) {
                program->ops[program->n++] = (DeviceOp){DEVICE_OP_SET, from, path[i]};
                from = path[i];
        }
        return 0;
}

static int drain(DeviceProgram *program, DeviceState state, uint32_t flags)
{
        int r = add_path(program, state, DEVICE_STATE_STOP_COPY, flags);

        if (r < 0)
                return r;
        add(program, DEVICE_OP_SEND);
        return add_path(program, DEVICE_STATE_STOP_COPY, DEVICE_STATE_STOP, flags);
}

/* Only a device that may still hold somebody's work or an open stream is reset: from STOP and STOP_COPY vfio-user
 * servers refuse DEVICE_RESET, and the way over RUNNING would let a foreign state run. The kernel takes it in every state. */
static bool resettable(DeviceState state, uint32_t flags)
{
        if (state == DEVICE_STATE_UNKNOWN)
                return false;
        return (flags & DEVICE_KERNEL) || (state != DEVICE_STATE_STOP && state != DEVICE_STATE_STOP_COPY);
}

static int receive(DeviceProgram *program, DeviceState state, uint32_t flags)
{
        bool fresh = (flags & DEVICE_KERNEL) && state == DEVICE_STATE_RUNNING;

        if (resettable(state, flags) && !fresh) {
                add(program, DEVICE_OP_RESET);
                state = DEVICE_STATE_RUNNING;
        }
        return add_path(program, state, DEVICE_STATE_RESUMING, flags);
}

/* Resuming is aborted by a reset. A state that was already taken in is led back to RESUMING first: it must never
 * run here, and from STOP there is no reset. */
static int discard(DeviceProgram *program, DeviceState state, uint32_t flags)
{
        int r;

        if (state != DEVICE_STATE_UNKNOWN) {
                if (!resettable(state, flags)) {
                        r = add_path(program, state, DEVICE_STATE_RESUMING, flags);
                        if (r < 0)
                                return r;
                }
                add(program, DEVICE_OP_RESET);
        }
        add(program, DEVICE_OP_CLOSE);
        return 0;
}

static int repair(DeviceProgram *program, DeviceState state, uint32_t flags)
{
        int r;

        if (state == DEVICE_STATE_RUNNING)
                return 0;
        if (!resettable(state, flags) && state != DEVICE_STATE_UNKNOWN) {
                r = add_path(program, state, DEVICE_STATE_RESUMING, flags);
                if (r < 0)
                        return r;
        }
        add(program, DEVICE_OP_RESET);
        return 0;
}

static bool pre_copies(DeviceState state)
{
        return state == DEVICE_STATE_PRE_COPY || state == DEVICE_STATE_PRE_COPY_P2P;
}

/* A device whose state is on its way already must not leave the saving states: by way of STOP all of it would have to
 * be sent again. In STOP_COPY it stands as it does in STOP. */
static int stop(DeviceProgram *program, DeviceState state, uint32_t flags)
{
        if (state == DEVICE_STATE_STOP_COPY)
                return 0;
        return add_path(program, state, pre_copies(state) ? DEVICE_STATE_STOP_COPY : DEVICE_STATE_STOP,
                        flags);
}

static int to_p2p(DeviceProgram *program, DeviceState state, uint32_t flags)
{
        return add_path(program, state,
                        pre_copies(state) ? DEVICE_STATE_PRE_COPY_P2P : DEVICE_STATE_RUNNING_P2P, flags);
}

static int precopy(DeviceProgram *program, DeviceState state, uint32_t flags)
{
        int r;

        if (state != DEVICE_STATE_RUNNING)
                return -EINVAL;
        r = add_path(program, state, DEVICE_STATE_PRE_COPY, flags);
        if (r < 0)
                return r;
        add(program, DEVICE_OP_PRECOPY);
        return 0;
}

/* vfio-user servers take DEVICE_RESET in these states only: from any other it is led to RESUMING, where nothing runs. */
static int reset(DeviceProgram *program, DeviceState state, uint32_t flags)
{
        if (!(flags & DEVICE_KERNEL) && state != DEVICE_STATE_RUNNING && state != DEVICE_STATE_ERROR &&
            state != DEVICE_STATE_UNKNOWN) {
                int r = add_path(program, state, DEVICE_STATE_RESUMING, flags);

                if (r < 0)
                        return r;
        }
        add(program, DEVICE_OP_RESET);
        return 0;
}

static int back_p2p(DeviceProgram *program, DeviceState state, uint32_t flags)
{
        if (state == DEVICE_STATE_ERROR) {
                add(program, DEVICE_OP_RESET);
                return 0;
        }
        /* In PRE_COPY it runs in full, and need not be slowed down on its way back to that. */
        if (state == DEVICE_STATE_RUNNING || state == DEVICE_STATE_PRE_COPY ||
            !(flags & DEVICE_MIGRATION_P2P))
                return 0;
        return add_path(program, state, DEVICE_STATE_RUNNING_P2P, flags);
}

/* ---- devices that their VMM drives ----------------------------------------------------------------------------- */

bool device_arc_supervised(DeviceState from, DeviceState to)
{
        static const DeviceState arcs[][2] = {
                {DEVICE_STATE_RUNNING, DEVICE_STATE_RUNNING_P2P},
                {DEVICE_STATE_RUNNING_P2P, DEVICE_STATE_RUNNING},
                {DEVICE_STATE_PRE_COPY, DEVICE_STATE_PRE_COPY_P2P},
                {DEVICE_STATE_PRE_COPY_P2P, DEVICE_STATE_PRE_COPY},
                {DEVICE_STATE_PRE_COPY_P2P, DEVICE_STATE_STOP_COPY},
                {DEVICE_STATE_RUNNING_P2P, DEVICE_STATE_STOP},
                {DEVICE_STATE_STOP_COPY, DEVICE_STATE_STOP},
                {DEVICE_STATE_STOP, DEVICE_STATE_RUNNING_P2P},
                {DEVICE_STATE_RESUMING, DEVICE_STATE_STOP},
        };

        for (size_t i = 0; i < ARRAY_SIZE(arcs); i++)
                if (arcs[i][0] == from && arcs[i][1] == to)
                        return true;
        return false;
}

bool device_nudge_is_done(DeviceState to, DeviceState state)
{
        return state == to || (to == DEVICE_STATE_PRE_COPY_P2P && state == DEVICE_STATE_STOP_COPY) ||
               (to == DEVICE_STATE_RUNNING_P2P && state == DEVICE_STATE_STOP);
}

static void add_arc(DeviceProgram *program, DeviceOpType type, DeviceState from, DeviceState to)
{
        program->ops[program->n++] = (DeviceOp){type, from, to};
}

/* On its way out: what its VMM sets there depends on whether it pre-copies, not on what we read last. */
static void leave_supervised(DeviceAct act, uint32_t flags, DeviceProgram *program)
{
        bool saves = flags & DEVICE_MIGRATION_PRE_COPY, p2p = flags & DEVICE_MIGRATION_P2P;
        DeviceState runs = saves ? DEVICE_STATE_PRE_COPY : DEVICE_STATE_RUNNING;
        DeviceState quiet = saves ? DEVICE_STATE_PRE_COPY_P2P : DEVICE_STATE_RUNNING_P2P;
        DeviceState stands = saves ? DEVICE_STATE_STOP_COPY : DEVICE_STATE_STOP;

        if (act == DEVICE_ACT_GRACE && p2p)
                add_arc(program, DEVICE_OP_NUDGE, runs, quiet);
        else if (act == DEVICE_ACT_P2P && p2p)
                add_arc(program, DEVICE_OP_EXPECT, quiet, stands);
        else if (act == DEVICE_ACT_STOP_REST && p2p)
                add_arc(program, DEVICE_OP_NUDGE, quiet, stands);
        else if (act == DEVICE_ACT_STOP_REST)
                add_arc(program, DEVICE_OP_EXPECT, stands, stands);
}

/* Back to STOP without having run. One that reads RUNNING was reset, holds nobody's work, and must stand all the same. */
static int unarrive_supervised(DeviceState state, uint32_t flags, DeviceProgram *program)
{
        int r = add_path(program, state, DEVICE_STATE_STOP, flags);

        for (uint32_t i = 0; r == 0 && i < program->n; i++)
                if (!device_arc_supervised(program->ops[i].from, program->ops[i].to))
                        r = -EINVAL;
        return r;
}

static int arrive_supervised(DeviceState state, uint32_t flags, DeviceProgram *program)
{
        if (!(flags & DEVICE_MIGRATION_P2P) || state == DEVICE_STATE_RUNNING_P2P ||
            state == DEVICE_STATE_RUNNING)
                return 0;
        if (state == DEVICE_STATE_UNKNOWN)
                return -EINVAL;
        add_arc(program, DEVICE_OP_SET, DEVICE_STATE_STOP, DEVICE_STATE_RUNNING_P2P);
        return 0;
}

static int plan_supervised(DeviceAct act, DeviceState state, uint32_t flags, bool gone,
                           DeviceProgram *program)
{
        bool unseen = gone || state == DEVICE_STATE_UNKNOWN;

        switch (act) {
        case DEVICE_ACT_LOOK: add(program, gone ? DEVICE_OP_REOPEN : DEVICE_OP_GET); return 0;
        case DEVICE_ACT_REOPEN:
                if (unseen)
                        add(program, DEVICE_OP_REOPEN);
                return 0;
        case DEVICE_ACT_ADOPT: add(program, DEVICE_OP_REOPEN); return 0;
        case DEVICE_ACT_CLEAN:
                if (state != DEVICE_STATE_RUNNING)
                        add(program, DEVICE_OP_RESET);
                return 0;
        case DEVICE_ACT_GRACE:
        case DEVICE_ACT_P2P:
        case DEVICE_ACT_STOP_REST: leave_supervised(act, flags, program); return 0;
        case DEVICE_ACT_SEALED:
                /* Gone is one whose VMM has died after its seal: with any other this state is not reached. */
                if (!gone)
                        add_arc(program, DEVICE_OP_NUDGE, DEVICE_STATE_STOP_COPY, DEVICE_STATE_STOP);
                return 0;
        case DEVICE_ACT_INTAKE:
                /* What was read last, RUNNING, is of the time before its VMM has set RESUMING. */
                add_arc(program, DEVICE_OP_SET, DEVICE_STATE_RESUMING, DEVICE_STATE_STOP);
                return 0;
        case DEVICE_ACT_ARRIVE: return arrive_supervised(state, flags, program);
        case DEVICE_ACT_UNARRIVE: return unarrive_supervised(state, flags, program);
        case DEVICE_ACT_PUSH:
                if ((flags & DEVICE_MIGRATION_P2P) && !gone)
                        add_arc(program, DEVICE_OP_NUDGE, DEVICE_STATE_RUNNING_P2P, DEVICE_STATE_RUNNING);
                return 0;
        case DEVICE_ACT_SETTLE:
                /* An agent that died takes nothing of the device with it: first it is looked for. */
                if (gone)
                        add(program, DEVICE_OP_REOPEN);
                else
                        add_arc(program, DEVICE_OP_NUDGE, DEVICE_STATE_RUNNING_P2P, DEVICE_STATE_RUNNING);
                return 0;
        case DEVICE_ACT_RESET: add(program, DEVICE_OP_RESET); return 0;
        case DEVICE_ACT_DISCARD:
                if (!unseen)
                        add(program, DEVICE_OP_RESET);
                add(program, DEVICE_OP_CLOSE);
                return 0;
        case DEVICE_ACT_CLEAR:
                if (!gone && state != DEVICE_STATE_STOP)
                        add(program, DEVICE_OP_RESET);
                add(program, DEVICE_OP_CLOSE);
                return 0;
        case DEVICE_ACT_CLOSE: add(program, DEVICE_OP_CLOSE); return 0;
        /* All this its VMM does. */
        case DEVICE_ACT_RECEIVE:
        case DEVICE_ACT_LOG:
        case DEVICE_ACT_PRECOPY:
        case DEVICE_ACT_STOP:
        case DEVICE_ACT_DIRTY:
        case DEVICE_ACT_DRAIN:
        case DEVICE_ACT_SEND_PAGES:
        case DEVICE_ACT_LOAD:
        case DEVICE_ACT_LOAD_PAGES:
        case DEVICE_ACT_RUN:
        case DEVICE_ACT_REPAIR:
        case DEVICE_ACT_BACK_P2P:
        case DEVICE_ACT_UNLOG:
        case DEVICE_ACT_NONE:
        case DEVICE_ACT_MAX:
        case DEVICE_ACT_INVALID: return 0;
        }
        return -EINVAL;
}

/* ---- all ------------------------------------------------------------------------------------------------------- */

static int plan(DeviceAct act, DeviceState state, uint32_t flags, bool gone, DeviceProgram *program)
{
        bool p2p = flags & DEVICE_MIGRATION_P2P;
        bool logs = (flags & DEVICE_DMA_LOGGING) && (flags & DEVICE_HAS_DMA);

        switch (act) {
        case DEVICE_ACT_NONE:
        /* Nobody but us sets the state of a device that is ours. */
        case DEVICE_ACT_SEALED:
        case DEVICE_ACT_ADOPT:
        case DEVICE_ACT_CLEAN:
        case DEVICE_ACT_PUSH:
        case DEVICE_ACT_SETTLE:
        case DEVICE_ACT_CLEAR:
        case DEVICE_ACT_MAX:
        case DEVICE_ACT_INVALID: return 0;
        case DEVICE_ACT_LOOK: add(program, gone ? DEVICE_OP_REOPEN : DEVICE_OP_GET); return 0;
        case DEVICE_ACT_REOPEN:
                if (gone || state == DEVICE_STATE_UNKNOWN)
                        add(program, DEVICE_OP_REOPEN);
                return 0;
        case DEVICE_ACT_CLOSE: add(program, DEVICE_OP_CLOSE); return 0;
        case DEVICE_ACT_DISCARD:
                if (gone) {
                        add(program, DEVICE_OP_CLOSE);
                        return 0;
                }
                return discard(program, state, flags);
        case DEVICE_ACT_RECEIVE: return receive(program, state, flags);
        case DEVICE_ACT_LOG:
                if (logs)
                        add(program, DEVICE_OP_LOG_START);
                return 0;
        case DEVICE_ACT_UNLOG:
                if (logs)
                        add(program, DEVICE_OP_LOG_STOP);
                return 0;
        case DEVICE_ACT_PRECOPY:
                return flags & DEVICE_MIGRATION_PRE_COPY ? precopy(program, state, flags) : 0;
        case DEVICE_ACT_GRACE:
        case DEVICE_ACT_P2P: return p2p ? to_p2p(program, state, flags) : 0;
        case DEVICE_ACT_ARRIVE: return p2p ? add_path(program, state, DEVICE_STATE_RUNNING_P2P, flags) : 0;
        case DEVICE_ACT_STOP_REST: return p2p ? 0 : stop(program, state, flags);
        case DEVICE_ACT_STOP: return stop(program, state, flags);
        case DEVICE_ACT_DIRTY: add(program, DEVICE_OP_DIRTY); return 0;
        case DEVICE_ACT_DRAIN: return drain(program, state, flags);
        case DEVICE_ACT_SEND_PAGES: add(program, DEVICE_OP_SEND_PAGES); return 0;
        case DEVICE_ACT_LOAD: add(program, DEVICE_OP_LOAD); return 0;
        case DEVICE_ACT_LOAD_PAGES: add(program, DEVICE_OP_LOAD_PAGES); return 0;
        case DEVICE_ACT_INTAKE:
        case DEVICE_ACT_UNARRIVE: return add_path(program, state, DEVICE_STATE_STOP, flags);
        case DEVICE_ACT_RUN: return add_path(program, state, DEVICE_STATE_RUNNING, flags);
        case DEVICE_ACT_REPAIR: return repair(program, state, flags);
        case DEVICE_ACT_BACK_P2P: return back_p2p(program, state, flags);
        case DEVICE_ACT_RESET: return reset(program, state, flags);
        }
        return -EINVAL;
}

int device_program(DeviceAct act, DeviceState state, uint32_t flags, bool gone, DeviceProgram *ret)
{
        DeviceProgram program = {};
        int r = flags & DEVICE_SUPERVISED ? plan_supervised(act, state, flags, gone, &program)
                                          : plan(act, state, flags, gone, &program);

        if (r < 0)
                return r;
        *ret = program;
        return 0;
}
