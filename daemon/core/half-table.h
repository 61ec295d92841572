/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The form of the tables behind half_step(). docs/states.md is printed from them (tests/print-states.c), and the
 * explorer breaks them on purpose to see whether it would notice (tests/sim). */

#include "half.h"

/* How a barrier deals with a participant that fails. */
typedef enum HalfPatience {
        HALF_FIRST,    /* leave at the first failure; the others are interrupted later */
        HALF_ALL,      /* wait for all, then fail if one did: what comes next depends on each */
        HALF_TOLERANT, /* wait for all; the walk goes on, and a device that failed is tried again further on */
        HALF_LAST,     /* the same, but there is no further on: a device that fails is lost */
} HalfPatience;

typedef enum HalfTime {
        HALF_TIME_NONE,  /* waits as long as it takes */
        HALF_TIME_PHASE, /* the phase's deadline, for each participant */
        HALF_TIME_DOUBT, /* no answer for this long: in doubt */
        HALF_TIME_RETRY, /* again after a second */
        HALF_TIME_FENCE, /* as long as the command may take */
} HalfTime;

typedef struct HalfStateDesc {
        const char *name;
        Phase phase;
        JobState job;
        bool skippable; /* entered only when the plan has its phase */
        DeviceAct device;
        VmmAct vmm;
        bool connect;         /* the source makes the data connections */
        bool fence;           /* the destination is kept from running */
        Message send, expect; /* to the other half on entry, and what it answers */
        Owner record;         /* what is made durable, unless it already is */
        HalfPatience patience;
        HalfTime time;
        Message answer; /* what this half says when it is asked how it stands */
        const char *doc;
} HalfStateDesc;

/* Conditions on a row, all of which must hold. */
enum {
        WHEN_CHECK_ONLY = 1 << 0,
        WHEN_VMM_LIVES = 1 << 1,
        WHEN_VMM_GONE = 1 << 2,
        WHEN_SEALED = 1 << 3,      /* this process saw it */
        WHEN_NOT_DRAINED = 1 << 4, /* the destination can't have everything */
        WHEN_SEEN =
                1 << 5, /* this process saw the vCPUs run after the last moment they could have gone over */
        WHEN_NEVER_NOBODY = 1 << 6, /* owner=nobody was never written */
        WHEN_COPY = 1 << 7,         /* the message says that a copy is kept */
        WHEN_NO_COPY = 1 << 8,      /* ... that there is none */
        WHEN_NOWAY = 1 << 9,        /* GO says, or has said, that there is no way back */
        WHEN_NOTHING_RAN =
                1 << 10, /* no vCPU was asked to run, and every device reads a state other than RUNNING */
        WHEN_END_SEEN = 1 << 11,  /* END has come */
        WHEN_LINKED = 1 << 12,    /* there is a control connection */
        WHEN_ALL_STAND = 1 << 13, /* no device runs, and none may still begin to */
        WHEN_CANCELLED = 1 << 14, /* ... and was not told that it is too late */
        WHEN_LOGGING = 1 << 15,   /* devices write the VM's memory, and say where */
        WHEN_PAGES = 1 << 16,     /* ... and their agents copy it */
        WHEN_DONE_SEEN = 1 << 17, /* DONE has come */
        WHEN_PUSH = 1 << 18,      /* devices that their VMM drives are pushed on, all at once */
        WHEN_ONWARD = 1 << 19,    /* NOWAY, or policy has the VM stay once it is handed over */
        WHEN_PAUSE = 1 << 20,     /* a device is lost at the source, and policy has the VM stand then */
        WHEN_HELD = 1 << 21, /* the vCPUs were held before the VMM began to run, and have not been let go */
        WHEN_RUN_HERE = 1 << 22,     /* the person says so */
        WHEN_DISCARD_HERE = 1 << 23, /* ... or so */
        WHEN_UNLINKED = 1 << 24,     /* there is no control connection */
        WHEN_FENCE = 1 << 25,        /* a command is configured that fences the destination */
        WHEN_NOT_RESUMED = 1 << 26,  /* this process has not seen the source's vCPUs run again */
        WHEN_RECORDED = 1 << 27,     /* the state's record is durable */
        WHEN_MAX = 1 << 28,
};

/* `next` of a row that leaves the half where it is, in the same barrier. */
#define HALF_STAY HALF_STATE_MAX

typedef struct HalfRow {
        uint64_t in; /* set of states of this side */
        HalfEventType on;
        Message message; /* of HALF_MESSAGE */
        Phase phase;     /* of BEGIN; PHASE_CHECK (0) for any */
        uint32_t when;
        HalfState next;
        Message send; /* before `next` is entered */
        Phase send_phase;
        bool answer;     /* send what this state says when it is asked */
        HalfTime rearm;  /* set the timer to this */
        bool acked;      /* both ends know the end */
        bool noway;      /* from here on there is no way back */
        bool heard;      /* the destination says that it runs the VM */
        HalfCause cause; /* why, if nothing went wrong before */
} HalfRow;

/* A set holds states of one side only, for each side has rows of its own. */
#define SOURCE_STATES      ((int) DESTINATION_RECORD)
#define DESTINATION_STATES ((int) HALF_STATE_MAX - SOURCE_STATES)
#define IN(state) \
        (UINT64_C(1) << ((int) (state) < SOURCE_STATES ? (int) (state) : (int) (state) -SOURCE_STATES))
_Static_assert(SOURCE_STATES <= 64 && DESTINATION_STATES <= 64, "a set of states is a uint64_t");

/* ---- sets of the source's states that several rows share --------------------------------------------------------- */

/* The source owns the VM and can take it back alone. */
#define SOURCE_MOVING                                                                                        \
        (IN(SOURCE_RECORD) | IN(SOURCE_PREPARE) | IN(SOURCE_CONNECT) | IN(SOURCE_LOG) | IN(SOURCE_PRECOPY) | \
         SOURCE_HALTED)

/* ... and its vCPUs stand, or are about to. */
#define SOURCE_HALTED                                                                              \
        (IN(SOURCE_VIOMMU_GRACE) | IN(SOURCE_HALT) | IN(SOURCE_P2P_GRACE) | IN(SOURCE_STOP_REST) | \
         IN(SOURCE_STOP) | IN(SOURCE_DIRTY) | IN(SOURCE_DRAIN) | IN(SOURCE_PAGES) | IN(SOURCE_INTAKE))

/* owner=nobody is durable: only the destination's word decides. */
#define SOURCE_TRANSIT (IN(SOURCE_GO) | IN(SOURCE_ASK) | IN(SOURCE_DOUBT))

/* On the way back: the record says aborted, or is about to. */
#define SOURCE_BACK                                                                         \
        (IN(SOURCE_ABORT) | IN(SOURCE_LOOK) | IN(SOURCE_REOPEN) | IN(SOURCE_BACK_P2P) |     \
         IN(SOURCE_BACK_RUN) | IN(SOURCE_FIND) | IN(SOURCE_RUN_AGAIN) | IN(SOURCE_REPAIR) | \
         IN(SOURCE_RESUME) | IN(SOURCE_STUCK) | IN(SOURCE_HELD) | IN(SOURCE_SETTLE) | IN(SOURCE_UNLOG))

/* ---- and of the destination's ------------------------------------------------------------------------------------ */

/* The VMM begins to run, and its vCPUs may be held. */
#define DESTINATION_GATING \
        (IN(DESTINATION_VMM_ARRIVE) | IN(DESTINATION_PUSH) | IN(DESTINATION_GATE) | IN(DESTINATION_GATED))

/* Forward without anything that went wrong: in all others a hold serves no purpose any more. */
#define DESTINATION_HOLDING \
        (IN(DESTINATION_ARRIVE) | IN(DESTINATION_RUN_DEVICES) | DESTINATION_GATING | IN(DESTINATION_UNDO))

/* Devices of ours run already, and nobody looks for them any more: only the VMM is awaited, and what is its own. */
#define DESTINATION_RUNNING \
        (DESTINATION_GATING | IN(DESTINATION_RUN) | IN(DESTINATION_SETTLE) | IN(DESTINATION_STALLED))

/* Where a restarted daemon goes on. -1 in a column: whatever it is. */
typedef struct HalfRestore {
        Side side;
        Owner owner;
        int superseded, vmm_lives, vmm_runs, complete, device_ran;
        HalfState to;
} HalfRestore;

typedef struct HalfRows {
        const HalfRow *rows; /* the first that fits is taken */
        uint32_t n;
} HalfRows;

struct HalfTable {
        const HalfStateDesc *states; /* HALF_STATE_MAX of them */
        const HalfRows *side[SIDE_MAX];
        const HalfRestore *restores; /* the first that fits */
        uint32_t n_restores;
};

extern const HalfStateDesc half_states[HALF_STATE_MAX];
extern const HalfRows half_source_rows, half_destination_rows;
