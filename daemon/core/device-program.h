/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What one device does in one barrier: a short list of operations, planned here, carried out by its agent.
 *
 * An agent decides nothing. It performs the operations in order, reads the state back after each transition, stops at
 * the first that fails, and answers once, with the state in which the device is.
 */

#include "device-state.h"

typedef enum DeviceOpType {
        DEVICE_OP_GET,   /* read the state */
        DEVICE_OP_SET,   /* one arc: the device must read `from`, is SET to `to`, and must then read `to` */
        DEVICE_OP_RESET, /* DEVICE_RESET; the device must then be RUNNING, or be SET there; its state is lost */
        DEVICE_OP_SEND,   /* read the state data to its end and send it over the data connection */
        DEVICE_OP_LOAD,   /* take state data from the data connection to its end frame and write it */
        DEVICE_OP_REOPEN, /* the agent or its connection is gone: start and connect anew, then read the state */
        DEVICE_OP_CLOSE,     /* let go of the device; the agent ends */
        DEVICE_OP_LOG_START, /* the device notes from now on which pages it writes */
        DEVICE_OP_LOG_STOP,  /* ... and no longer */
        DEVICE_OP_DIRTY,     /* read which pages these are */
        DEVICE_OP_PRECOPY, /* send state data while the device runs, until little is left; goes on by itself after */
        DEVICE_OP_SEND_PAGES, /* send what these pages hold, over the same data connection */
        DEVICE_OP_LOAD_PAGES, /* take such pages in, up to their end frame */
        /* A device whose states somebody else sets, too (its VMM): look first, always. */
        DEVICE_OP_NUDGE, /* reads `from`: as SET; reads `to`, or a P2P state is left behind: done already; else a failure */
        DEVICE_OP_EXPECT, /* must read `from` or `to`; nothing is set */
        DEVICE_OP_MAX,
        DEVICE_OP_INVALID = -EINVAL,
} DeviceOpType;

typedef struct DeviceOp {
        DeviceOpType type;
        DeviceState from, to; /* of DEVICE_OP_SET, _NUDGE, _EXPECT */
} DeviceOp;

#define DEVICE_PROGRAM_MAX 8

typedef struct DeviceProgram {
        uint32_t n;
        DeviceOp ops[DEVICE_PROGRAM_MAX];
} DeviceProgram;

/* What is asked of a device in a state of a half. */
typedef enum DeviceAct {
        DEVICE_ACT_NONE,
        DEVICE_ACT_LOOK,       /* say where you are; reopened when gone */
        DEVICE_ACT_REOPEN,     /* connect anew; only those that did not say where they are */
        DEVICE_ACT_RECEIVE,    /* reset, then RESUMING */
        DEVICE_ACT_LOG,        /* log DMA; only those that can */
        DEVICE_ACT_PRECOPY,    /* PRE_COPY, and state data until little is left; only those that can */
        DEVICE_ACT_GRACE,      /* to P2P while vCPUs run; which ones the plan says */
        DEVICE_ACT_P2P,        /* RUNNING_P2P, or PRE_COPY_P2P; only those that can */
        DEVICE_ACT_STOP_REST,  /* STOP, or STOP_COPY from PRE_COPY; only those that have no P2P states */
        DEVICE_ACT_STOP,       /* STOP, or STOP_COPY from PRE_COPY_P2P */
        DEVICE_ACT_DIRTY,      /* which pages were written since DEVICE_ACT_LOG */
        DEVICE_ACT_DRAIN,      /* STOP_COPY, the whole state out, STOP */
        DEVICE_ACT_SEND_PAGES, /* what was written goes out */
        DEVICE_ACT_LOAD,       /* the whole state in */
        DEVICE_ACT_LOAD_PAGES, /* what was written comes in */
        DEVICE_ACT_SEALED, /* its VMM has had it read out to the end: STOP, where it goes from one to the next */
        DEVICE_ACT_ADOPT,    /* its VMM is there, and with it the file of a device that it drives */
        DEVICE_ACT_CLEAN,    /* what such a device holds of somebody before is reset away */
        DEVICE_ACT_INTAKE,   /* RESUMING to STOP: accept or refuse the state */
        DEVICE_ACT_ARRIVE,   /* RUNNING_P2P; only those that can */
        DEVICE_ACT_RUN,      /* RUNNING */
        DEVICE_ACT_PUSH,     /* RUNNING, all at once, where their VMM would go from one to the next */
        DEVICE_ACT_SETTLE,   /* its VMM has brought it to RUNNING, or has forgotten the last arc */
        DEVICE_ACT_REPAIR,   /* not RUNNING although it should be: reset it and run it without its state */
        DEVICE_ACT_BACK_P2P, /* on the way back: RUNNING_P2P, those that can; ERROR is reset */
        DEVICE_ACT_UNLOG,    /* its DMA need not be logged any more */
        DEVICE_ACT_UNARRIVE, /* back to STOP without having run */
        DEVICE_ACT_DISCARD,  /* abort the resuming and let go */
        DEVICE_ACT_CLEAR,    /* the VMM that drove it has ended: reset, unless it stands, and let go */
        DEVICE_ACT_CLOSE,    /* let go as it is */
        DEVICE_ACT_RESET,    /* somebody wants it reset, wherever it is */
        DEVICE_ACT_MAX,
        DEVICE_ACT_INVALID = -EINVAL,
} DeviceAct;

DECLARE_STRING_TABLE(DeviceOpType, device_op);
DECLARE_STRING_TABLE(DeviceAct, device_act);

/* Whether we may take that arc on a device that its VMM drives: it gives no data stream, ends none that is still read, and
 * lies on the VMM's own way or leads back one step of it. */
bool device_arc_supervised(DeviceState from, DeviceState to);

/* Whether a device that was to be nudged to `to` and reads `state` is there: further on the VMM's way out counts, too. */
bool device_nudge_is_done(DeviceState to, DeviceState state);

/* What is answered of a transfer whose data connection has ended: here nobody knows why, and the other half may. */
#define DEVICE_E_CUT ENOLINK

/* The status of a transfer whose connection failed with that errno. */
static inline int device_cut_status(int error)
{
        return error == EPIPE || error == ECONNRESET ? -DEVICE_E_CUT : -error;
}

/* Whether it moves data over the data connection. */
bool device_op_transfers(DeviceOpType type);

/* Plans `act` for a device with these flags (of migration, and what else is known) that was last read in `state`. `gone`:
 * its agent or connection is gone. An empty program: the device has nothing to do in this barrier. -EINVAL: there is no way
 * from that state; the device fails the barrier without being asked.
 *
 * A device that its VMM drives (DEVICE_SUPERVISED) is moved by two, and the kernel keeps a state that opens a data stream
 * for whoever sets it. So it is asked for a few arcs only, those of device_arc_supervised(), and looks first each time. */
int device_program(DeviceAct act, DeviceState state, uint32_t flags, bool gone,
                   DeviceProgram *ret) _must_check_;
