/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* One half of a migration: the state machine that decides everything about it.
 *
 * A migration is one job with two halves, one in each daemon. A half is in one *state*; the state says what every
 * participant is asked to do on entry (devices, VMM, the other half, the record), and the half leaves it when all
 * have answered: each state with work in it is a barrier. The tables in half-source.c and half-destination.c say
 * which state follows which event. docs/states.md is printed from them.
 *
 * half_step() is pure: an event goes in, the next state and a list of effects come out. It opens nothing, reads no
 * clock and allocates nothing; the caller performs the effects (daemon/job.c) and tells the half what came of them.
 * Every command carries the number of the step that gave it, so that an answer that comes too late is known as such.
 *
 * The rules of ownership that the tables keep are written out in docs/ownership.md; tests/sim drives two halves
 * against each other through every order of deaths, cuts and refusals and checks them.
 */

#include "device-program.h"
#include "message.h"
#include "plan.h"
#include "record.h"

typedef enum HalfState {
        /* The source: forward. */
        SOURCE_CHECK_HERE,
        SOURCE_CHECK_THERE,
        SOURCE_RECORD,
        SOURCE_PREPARE,
        SOURCE_CONNECT,
        SOURCE_LOG,
        SOURCE_PRECOPY,
        SOURCE_VIOMMU_GRACE,
        SOURCE_HALT,
        SOURCE_P2P_GRACE,
        SOURCE_STOP_REST,
        SOURCE_STOP,
        SOURCE_DIRTY,
        SOURCE_DRAIN,
        SOURCE_PAGES,
        SOURCE_INTAKE,
        SOURCE_NOBODY,
        SOURCE_GO,
        SOURCE_ASK,
        SOURCE_DONE,
        SOURCE_RELEASE,
        SOURCE_CLOSE,
        SOURCE_OVER,
        /* The source: back. */
        SOURCE_ABORT,
        SOURCE_LOOK,
        SOURCE_REOPEN,
        SOURCE_BACK_P2P,
        SOURCE_BACK_RUN,
        SOURCE_FIND,
        SOURCE_RUN_AGAIN,
        SOURCE_REPAIR,
        SOURCE_RESUME,
        SOURCE_SETTLE,
        SOURCE_UNLOG,
        SOURCE_END,
        /* The source: a person is asked, or there is nothing left to ask about. */
        SOURCE_DOUBT,
        SOURCE_ORPHAN,
        SOURCE_UNSEEN,
        SOURCE_STUCK,
        SOURCE_HELD,
        SOURCE_FENCE,
        SOURCE_DISCARD,
        SOURCE_LOST,
        /* The destination: forward. */
        DESTINATION_RECORD,
        DESTINATION_PREPARE,
        DESTINATION_ADOPT,
        DESTINATION_CLEAN,
        DESTINATION_TAKE_IN,
        DESTINATION_PAGES,
        DESTINATION_LOADED,
        DESTINATION_INTAKE,
        DESTINATION_READY,
        DESTINATION_OWNER,
        DESTINATION_ARRIVE,
        DESTINATION_RUN_DEVICES,
        DESTINATION_ARRIVE_AGAIN,
        DESTINATION_FIND,
        DESTINATION_RUN_AGAIN,
        DESTINATION_REPAIR,
        DESTINATION_VMM_ARRIVE,
        DESTINATION_PUSH,
        DESTINATION_GATE,
        DESTINATION_GATED,
        DESTINATION_RUN,
        DESTINATION_SETTLE,
        DESTINATION_DONE,
        DESTINATION_STARTED,
        DESTINATION_OVER,
        /* The destination: back. */
        DESTINATION_UNDO,
        DESTINATION_LOOK,
        DESTINATION_REOPEN,
        DESTINATION_UNARRIVE,
        DESTINATION_PROMISE,
        DESTINATION_PROMISED,
        DESTINATION_GATHER,
        DESTINATION_DISCARD,
        DESTINATION_DISCARDED,
        DESTINATION_GONE,
        /* The destination: a person is asked. */
        DESTINATION_STALLED,
        DESTINATION_MAYBE,
        HALF_STATE_MAX,
        HALF_STATE_INVALID = -EINVAL,
} HalfState;

/* How a job looks from outside. */
typedef enum JobState {
        JOB_STATE_RUNNING,
        JOB_STATE_ROLLING_BACK,
        JOB_STATE_SETTLING, /* what happened is decided; a record or the other half is still awaited */
        JOB_STATE_IN_DOUBT,
        JOB_STATE_FINISHED,
        JOB_STATE_MAX,
        JOB_STATE_INVALID = -EINVAL,
} JobState;

/* What is asked of the VMM. Each adapter (daemon/vmm) does it in its own way and answers once. */
typedef enum VmmAct {
        VMM_ACT_NONE,
        VMM_ACT_LOOK,    /* gather facts for the manifest */
        VMM_ACT_PREPARE, /* source: ready to migrate, nothing stopped */
        VMM_ACT_MIGRATE, /* source: memory goes out; answered when only the rest is missing. QEMU halts with that */
        VMM_ACT_HALT,    /* source: the vCPUs stand, confirmed */
        VMM_ACT_SEAL,    /* source: the rest goes out; answered when the VMM can't start again by itself */
        VMM_ACT_RESUME,  /* source: whatever it was doing, the vCPUs run again, confirmed */
        VMM_ACT_END,     /* the process ends */
        VMM_ACT_START,   /* destination: the process starts, paused and listening */
        VMM_ACT_TAKE_IN, /* destination: memory comes in; answered when complete and paused */
        VMM_ACT_VERIFY,  /* destination: complete and paused, still */
        VMM_ACT_HOLD, /* destination, paused: until VMM_ACT_RUN no vCPU executes anything, whatever it says and does */
        VMM_ACT_ARRIVE, /* destination: it begins to run; answered when its own devices read RUNNING_P2P */
        VMM_ACT_GATE, /* destination, held: it has begun to run, and what became of its own devices is known */
        VMM_ACT_UNDO, /* destination: it ends while held. 0: no vCPU has executed anything; else it may have, or lives */
        VMM_ACT_RUN, /* destination: the vCPUs run, confirmed */
        VMM_ACT_MAX,
        VMM_ACT_INVALID = -EINVAL,
} VmmAct;

DECLARE_STRING_TABLE(HalfState, half_state);
DECLARE_STRING_TABLE(JobState, job_state);
DECLARE_STRING_TABLE(VmmAct, vmm_act);

/* ---- events -------------------------------------------------------------------------------------------------- */

typedef enum HalfEventType {
        HALF_START,        /* the half begins, in the state in which half_init() or half_restore() put it */
        HALF_RESULT,       /* a participant answered a command */
        HALF_DEADLINE,     /* the time of the step is up */
        HALF_CANCEL,       /* somebody wants the VM to stay */
        HALF_TIMEOUT,      /* the whole job took too long */
        HALF_BLACKOUT,     /* source: the blackout has become longer than whoever asked wants it */
        HALF_CUT,          /* the control connection is gone, or could not be made */
        HALF_LINKED,       /* the control connection is there (again) */
        HALF_DEVICE_GONE,  /* a device's agent or server is gone */
        HALF_DEVICE_RESET, /* its VMM has reset a device behind our back: what it held is lost */
        HALF_VMM_GONE,     /* the VMM's process is gone, and every duplicate of its files */
        HALF_VMM_RESUMED,  /* source: the vCPUs run, and nobody here asked for it */
        HALF_MESSAGE,      /* the other half says something */
        HALF_RESOLVE,      /* a person has decided, who knows what no daemon can know */
        /* Made by the half itself; these and the ones above are what rows are written for. */
        HALF_REACHED, /* the barrier: all participants have answered */
        HALF_FAILED,  /* a participant failed, or did not answer in time */
        HALF_EVENT_MAX,
        HALF_EVENT_INVALID = -EINVAL,
} HalfEventType;

DECLARE_STRING_TABLE(HalfEventType, half_event);

typedef enum HalfWho {
        HALF_WHO_DEVICE,
        HALF_WHO_VMM,
        HALF_WHO_PEER,
        HALF_WHO_RECORD,
        HALF_WHO_FENCE,
        HALF_WHO_MAX,
        HALF_WHO_INVALID = -EINVAL,
} HalfWho;

DECLARE_STRING_TABLE(HalfWho, half_who);

/* What a person decides of the side that is asked (docs/in-doubt.md). */
typedef enum Resolve {
        RESOLVE_NONE,
        RESOLVE_RUN_HERE,     /* the VM is to run here: the other side does not run it, and never will */
        RESOLVE_DISCARD_HERE, /* what is here of it may go: the other side has the VM, or nobody needs it */
        RESOLVE_MAX,
        RESOLVE_INVALID = -EINVAL,
} Resolve;

DECLARE_STRING_TABLE(Resolve, resolve);

typedef struct HalfEvent {
        HalfEventType type;
        /* HALF_RESULT, HALF_DEVICE_GONE, HALF_DEVICE_RESET */
        HalfWho who;
        uint32_t device;      /* which one, of HALF_WHO_DEVICE */
        uint32_t step;        /* of the command that is answered */
        int status;           /* 0; or the negative errno. -ECONNREFUSED and the like go in HALF_CUT too */
        DeviceState from, to; /* the arc that failed, if one did */
        DeviceState state; /* of the device, read back after its last operation; UNKNOWN when that failed */
        bool was_reset;    /* the device lost its state on the way */
        bool absent;       /* nobody listens for the device any more */
        bool refused;      /* HALF_WHO_PEER, HALF_WHO_VMM in check: nothing broke, the answer is no */
        /* HALF_MESSAGE */
        Message message;
        Phase phase; /* of BEGIN, REACHED, FAILED */
        bool noway;  /* of GO */
        bool copy;   /* of NOTSTARTED: the copy is kept */
        /* HALF_RESOLVE */
        Resolve resolve;
} HalfEvent;

/* ---- effects ------------------------------------------------------------------------------------------------- */

typedef enum HalfEffectType {
        HALF_EFFECT_DEVICE, /* run `program` on `device`; answer with HALF_RESULT */
        HALF_EFFECT_VMM,    /* `vmm_act`; answer with HALF_RESULT */
        HALF_EFFECT_RECORD, /* make `owner` durable; answer with HALF_RESULT */
        HALF_EFFECT_SEND,   /* to the other half; no answer but its own */
        HALF_EFFECT_FENCE,  /* source: see to it that the destination does not run; answer with HALF_RESULT */
        HALF_EFFECT_CONNECT, /* source: make the data connections; answer with HALF_RESULT of HALF_WHO_PEER */
        HALF_EFFECT_TIMER, /* HALF_DEADLINE after `deadline_usec`, which replaces the timer before; 0: none */
        HALF_EFFECT_ACKED, /* both ends know the end: the record may be pruned, the half let go */
        HALF_EFFECT_MAX,
} HalfEffectType;

typedef struct HalfEffect {
        HalfEffectType type;
        uint32_t step; /* to be given back with the answer */
        uint64_t
                deadline_usec; /* DEVICE, VMM, FENCE: from now; the participant should answer by itself before that */
        uint32_t device;
        DeviceProgram program;
        bool interrupt; /* DEVICE: it is busy with an older command that is of no more use */
        VmmAct vmm_act;
        Owner owner;
        bool noway;      /* RECORD, SEND */
        Message message; /* SEND */
        Phase phase;     /* SEND */
        bool copy;       /* SEND */
} HalfEffect;

typedef struct HalfEffects {
        uint32_t n, max;
        HalfEffect *items; /* owned */
} HalfEffects;

/* Room for all effects of one event of a half with that many devices. -ENOMEM. */
int half_effects_init(HalfEffects *effects, uint32_t n_devices) _must_check_;
void half_effects_deinit(HalfEffects *effects);

/* ---- the half ------------------------------------------------------------------------------------------------ */

typedef enum HalfCause {
        HALF_CAUSE_NONE,
        HALF_CAUSE_REFUSED,  /* by check */
        HALF_CAUSE_FAILED,   /* a participant said so */
        HALF_CAUSE_DEADLINE, /* a participant did not answer */
        HALF_CAUSE_CANCELLED,
        HALF_CAUSE_TIMEOUT,
        HALF_CAUSE_BLACKOUT,
        HALF_CAUSE_CUT,
        HALF_CAUSE_DEVICE_GONE,
        HALF_CAUSE_DEVICE_RESET,
        HALF_CAUSE_VMM_GONE,
        HALF_CAUSE_VMM_RESUMED,
        HALF_CAUSE_PEER, /* the other half said so: PROMISED, ABORT, END */
        HALF_CAUSE_RESTART,
        HALF_CAUSE_RESOLVED, /* a person said so */
        HALF_CAUSE_MAX,
        HALF_CAUSE_INVALID = -EINVAL,
} HalfCause;

DECLARE_STRING_TABLE(HalfCause, half_cause);

/* The first thing that went wrong: what turned the job back, or put it in doubt. A device's connection that has ended is what
 * comes of something else: when the other half says of what, its word takes the place, whichever was heard first. */
typedef struct HalfFailure {
        HalfCause cause;
        HalfState in;
        HalfWho who;
        uint32_t device;
        DeviceState from, to, state;
        int status;
        bool of_both; /* the VMM has failed, and the other half says that it has, too: either may have come of the other */
} HalfFailure;

typedef struct HalfDevice {
        uint32_t flags;        /* VFIO_DEVICE_FEATURE_MIGRATION */
        DeviceState state;     /* as last read back */
        uint32_t busy;         /* step of the command that it has not answered, or 0 */
        uint32_t retries_left; /* in this step */
        bool waits;            /* it is asked in this step when those before it have answered */
        bool pending;          /* the barrier waits for it */
        bool failed;           /* it failed in this step */
        bool gone;             /* its agent or connection is gone */
        bool absent;           /* its server has ended: it does nothing any more */
        bool lost;             /* its state is lost: the VM goes on without what it held */
        bool was_reset;        /* its VMM has reset it: lost, if the VM goes on here */
        bool unplugged;        /* ... because the VMM's connection to it has ended */
        DeviceState left;      /* when it went: as last read, UNKNOWN when it was about to change */
        bool dead;             /* it does not answer, or can't be brought back: no more commands */
        bool failed_once;      /* it has failed in this job, and its policy wants no reset then */
        bool quarantined;      /* ... but that nobody uses it before it was reset */
} HalfDevice;

/* Plain data: may be copied and compared byte for byte, and holds no point in time. */
typedef struct Half {
        Side side;
        HalfState state;
        uint32_t step;     /* number of the entry into `state` */
        Owner owner;       /* as last known to be durable */
        bool owner_unsure; /* a write has failed, or was not waited for: the record may say that instead */
        bool tried_nobody; /* owner=nobody may be durable, whatever the store answered */
        bool check_only;
        bool linked;
        bool peer_pending, vmm_pending, record_pending, fence_pending;
        bool peer_owed;   /* the message of this state could not be sent: there was no connection */
        bool vmm_gone;    /* knowledge of this process: it saw the VMM dead */
        bool vmm_resumed; /* ... saw the source's vCPUs run again by themselves */
        bool failed;      /* a participant other than a device failed in this step */
        bool sealed;      /* ... saw the source's VMM sealed, which no record says */
        bool drained; /* source: it has asked for the seal or sent state: the destination may become complete */
        bool ran;     /* destination: it has asked the vCPUs to run, or its VMM to begin with that */
        bool held; /* ... had them held before that, and has not let go: whether they still are the VMM's adapter knows */
        bool begun;  /* it has left check: what becomes of its devices is told, records or no records */
        bool halted; /* source: the vCPUs were made to stand, or stood when this process came */
        bool forgot; /* source: it was on its way back when this process came, and what it had lost is forgotten */
        bool noway; /* the source has said that there is no way back */
        bool heard; /* source: the destination has said that it runs the VM: it is not lost, whoever gives it up here */
        bool end_seen;  /* destination: END came; ENDED is owed */
        bool done_seen; /* ... DONE came; DONEACK is owed */
        bool cancelled; /* somebody asked for that, and was not told that it is too late */
        bool acked;
        Resolve resolved;  /* what a person has decided last, in this process */
        uint64_t due_usec; /* whose time is no longer than this is late when the timer runs out */
        HalfFailure failure;
        uint32_t n_devices;
        HalfDevice devices[];
} Half;

static inline size_t half_size(uint32_t n_devices)
{
        return sizeof(Half) + n_devices * sizeof(HalfDevice);
}

typedef struct HalfTable HalfTable; /* half-table.h: the states and rows; tests hand in broken ones */

/* The one that is used. */
extern const HalfTable half_table;

/* Starts a half at its first state. `half` has room for half_size(n_devices). The devices' flags and states are to
 * be filled in by the caller: at the source before HALF_START when known, or by half_set_device(). */
void half_init(Half *half, Side side, uint32_t n_devices, bool check_only);

/* What is known about a device when its half begins. */
void half_set_device(Half *half, uint32_t device, uint32_t flags, DeviceState state);

/* What is learnt of a device beside the answers to commands: what it can do, over a connection that was made anew, and
 * whether its VMM is still behind it; that it has none; that the other half says that its state is lost. */
void half_set_flags(Half *half, uint32_t device, uint32_t flags);
void half_set_gone(Half *half, uint32_t device, bool gone);
void half_set_lost(Half *half, uint32_t device);

/* The VM goes on, or would, without what the device held. */
bool half_device_is_lost(const Half *half, uint32_t device);

/* It has failed, was left as it is, and its policy says that nobody shall use it before it was reset. */
bool half_device_is_quarantined(const Half *half, uint32_t device);

/* At a destination that has restarted: what a device reads does not say that nothing was ever asked to run. Of a device that
 * its VMM drives only STOP says so, and only if it would have gone to RUNNING_P2P first. */
bool half_device_may_have_run(uint32_t flags, DeviceState state);

/* What a daemon that has restarted can see. */
typedef struct HalfSight {
        bool vmm_lives;
        bool vmm_runs;   /* its vCPUs */
        bool complete;   /* destination: VMM paused and completed, every agent says `loaded` for this job */
        bool device_ran; /* destination: half_device_may_have_run() of one */
        bool superseded; /* the VM has had a newer job since: only the acknowledgement is left */
} HalfSight;

/* Puts a half where its record and what can be seen say that it must go on: the table of docs/ownership.md. The next
 * event must be HALF_START. -EINVAL when the record is none of this side's. */
int half_restore(const HalfTable *table, Half *half, Side side, uint32_t n_devices, Owner owner, bool noway,
                 const HalfSight *sight) _must_check_;

typedef enum HalfResult {
        HALF_E_TOO_LATE =
                1,        /* HALF_CANCEL, HALF_TIMEOUT: the job is past the point where it can be stopped */
        HALF_E_FORBIDDEN, /* HALF_RESOLVE: it is not for a person to decide, or not so */
} HalfResult;

/* One event. Fills `effects` (emptied first) and returns 0, or a HalfResult and changes nothing. An event that
 * means nothing in this state is taken and ignored. */
int half_step(const HalfTable *table, const Plan *plan, Half *half, const HalfEvent *event,
              HalfEffects *effects) _must_check_;

/* Whether HALF_RESOLVE would be taken now. */
bool half_may_resolve(const HalfTable *table, const Plan *plan, const Half *half, Resolve resolve);

/* A source that a person has ended, with nothing of the VM left there, and without the destination's word that it runs. */
bool half_is_given_up(const Half *half);

/* Of a half that has ended: whether the VM is on its side. Then what the other one has is stale. */
bool half_has_vm(const Half *half);
/* Whether a person may say `resolve` instead of an acknowledgement that will never come: the half has ended, is not connected,
 * and the word agrees with its end. Nothing of the half changes by it. */
bool half_may_give_up(const Half *half, Resolve resolve);

JobState half_job_state(const Half *half);
Phase half_phase(const Half *half);

typedef enum JobResult {
        JOB_RESULT_NONE, /* not finished */
        JOB_RESULT_DONE,
        JOB_RESULT_FAILED,
        JOB_RESULT_REFUSED,
        JOB_RESULT_CANCELLED,
        JOB_RESULT_TIMEOUT,
        JOB_RESULT_DEGRADED,
        JOB_RESULT_IN_DOUBT,
        JOB_RESULT_LOST, /* the source's VMM has died, or was given up: as far as is known the VM runs on neither side */
        JOB_RESULT_MAX,
        JOB_RESULT_INVALID = -EINVAL,
} JobResult;

DECLARE_STRING_TABLE(JobResult, job_result);

/* What to tell whoever asked for the job, now. */
JobResult half_result(const Half *half);

/* Who alone may run the VM, as far as this half knows. */
const char *half_owner_text(const Half *half);
