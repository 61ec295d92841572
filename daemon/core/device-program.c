/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "device-program.h"

static const char *const device_op_names[DEVICE_OP_MAX] = {
        [DEVICE_OP_GET] = "get",     [DEVICE_OP_SET] = "set",   [DEVICE_OP_RESET] = "reset",
        [DEVICE_OP_SEND] = "send",   [DEVICE_OP_LOAD] = "load", [DEVICE_OP_REOPEN] = "reopen",
        [DEVICE_OP_CLOSE] = "close",
};

static const char *const device_act_names[DEVICE_ACT_MAX] = {
        [DEVICE_ACT_NONE] = "-",
        [DEVICE_ACT_LOOK] = "look",
        [DEVICE_ACT_REOPEN] = "reopen",
        [DEVICE_ACT_RECEIVE] = "receive",
        [DEVICE_ACT_P2P] = "to-p2p",
        [DEVICE_ACT_STOP_REST] = "stop-rest",
        [DEVICE_ACT_DRAIN] = "drain",
        [DEVICE_ACT_LOAD] = "load",
        [DEVICE_ACT_INTAKE] = "intake",
        [DEVICE_ACT_ARRIVE] = "arrive",
        [DEVICE_ACT_RUN] = "run",
        [DEVICE_ACT_REPAIR] = "repair",
        [DEVICE_ACT_BACK_P2P] = "back-to-p2p",
        [DEVICE_ACT_UNARRIVE] = "back-to-stop",
        [DEVICE_ACT_DISCARD] = "discard",
        [DEVICE_ACT_CLOSE] = "close",
        [DEVICE_ACT_RESET] = "reset",
};

DEFINE_STRING_TABLE(DeviceOpType, device_op, device_op_names);
DEFINE_STRING_TABLE(DeviceAct, device_act, device_act_names);

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
 * servers refuse DEVICE_RESET, and the way over RUNNING would let a foreign state run. */
static bool resettable(DeviceState state)
{
        return state != DEVICE_STATE_STOP && state != DEVICE_STATE_STOP_COPY && state != DEVICE_STATE_UNKNOWN;
}

static int receive(DeviceProgram *program, DeviceState state, uint32_t flags)
{
        if (resettable(state)) {
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
                if (!resettable(state)) {
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
        if (!resettable(state) && state != DEVICE_STATE_UNKNOWN) {
                r = add_path(program, state, DEVICE_STATE_RESUMING, flags);
                if (r < 0)
                        return r;
        }
        add(program, DEVICE_OP_RESET);
        return 0;
}

/* Servers take DEVICE_RESET in these states only: from any other it is led to RESUMING, where nothing runs. */
static int reset(DeviceProgram *program, DeviceState state, uint32_t flags)
{
        if (state != DEVICE_STATE_RUNNING && state != DEVICE_STATE_ERROR && state != DEVICE_STATE_UNKNOWN) {
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
        if (state == DEVICE_STATE_RUNNING || !(flags & DEVICE_MIGRATION_P2P))
                return 0;
        return add_path(program, state, DEVICE_STATE_RUNNING_P2P, flags);
}

static int plan(DeviceAct act, DeviceState state, uint32_t flags, bool gone, DeviceProgram *program)
{
        bool p2p = flags & DEVICE_MIGRATION_P2P;

        switch (act) {
        case DEVICE_ACT_NONE:
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
        case DEVICE_ACT_P2P:
        case DEVICE_ACT_ARRIVE: return p2p ? add_path(program, state, DEVICE_STATE_RUNNING_P2P, flags) : 0;
        case DEVICE_ACT_STOP_REST: return p2p ? 0 : add_path(program, state, DEVICE_STATE_STOP, flags);
        case DEVICE_ACT_DRAIN: return drain(program, state, flags);
        case DEVICE_ACT_LOAD: add(program, DEVICE_OP_LOAD); return 0;
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
        int r = plan(act, state, flags, gone, &program);

        if (r < 0)
                return r;
        *ret = program;
        return 0;
}
