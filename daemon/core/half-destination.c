/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What follows what at the destination. Rules by their number in docs/ownership.md. Rows are tried from the top, the
 * first that fits is taken; an event without a row changes nothing. */

#include "half-table.h"

/* Nothing has come in: it is no loss. */
#define EMPTY \
        (IN(DESTINATION_RECORD) | IN(DESTINATION_PREPARE) | IN(DESTINATION_ADOPT) | IN(DESTINATION_CLEAN))

/* Not READY yet: the source will hear of a failure and take the VM back alone. */
#define UNREADY                                                                             \
        (EMPTY | IN(DESTINATION_TAKE_IN) | IN(DESTINATION_PAGES) | IN(DESTINATION_LOADED) | \
         IN(DESTINATION_INTAKE))

/* owner=destination is durable, or being written: the VM may have run here. */
#define OWNING                                                                             \
        (IN(DESTINATION_OWNER) | IN(DESTINATION_ARRIVE) | IN(DESTINATION_RUN_DEVICES) |    \
         IN(DESTINATION_ARRIVE_AGAIN) | IN(DESTINATION_FIND) | IN(DESTINATION_RUN_AGAIN) | \
         IN(DESTINATION_REPAIR) | DESTINATION_RUNNING | IN(DESTINATION_DONE) | IN(DESTINATION_UNDO))

#define ALL                                                                                          \
        (UNREADY | IN(DESTINATION_READY) | OWNING | IN(DESTINATION_STARTED) | IN(DESTINATION_LOOK) | \
         IN(DESTINATION_REOPEN) | IN(DESTINATION_UNARRIVE) | IN(DESTINATION_PROMISE) |               \
         IN(DESTINATION_PROMISED) | IN(DESTINATION_GATHER) | IN(DESTINATION_DISCARD) |               \
         IN(DESTINATION_DISCARDED) | IN(DESTINATION_GONE) | IN(DESTINATION_MAYBE))

#define SAID(m) .on = HALF_MESSAGE, .message = MESSAGE_##m

static const HalfRow rows[] = {
        /* taking in */
        {IN(DESTINATION_RECORD), HALF_REACHED, .next = DESTINATION_PREPARE},
        {IN(DESTINATION_PREPARE), HALF_REACHED, .next = DESTINATION_ADOPT},
        {IN(DESTINATION_ADOPT), HALF_REACHED, .next = DESTINATION_CLEAN},
        {IN(DESTINATION_CLEAN), HALF_REACHED, .next = DESTINATION_TAKE_IN, .send = MESSAGE_PREPARED},
        {IN(DESTINATION_TAKE_IN), SAID(BEGIN), .phase = PHASE_PRECOPY, .next = HALF_STAY,
         .send = MESSAGE_REACHED, .send_phase = PHASE_PRECOPY},
        {IN(DESTINATION_TAKE_IN), SAID(BEGIN), .phase = PHASE_DRAIN, .next = HALF_STAY,
         .rearm = HALF_TIME_PHASE},
        {IN(DESTINATION_TAKE_IN), HALF_REACHED, .when = WHEN_PAGES, .next = DESTINATION_PAGES,
         .send = MESSAGE_REACHED, .send_phase = PHASE_DRAIN},
        {IN(DESTINATION_TAKE_IN) | IN(DESTINATION_PAGES), HALF_REACHED, .when = WHEN_LINKED,
         .next = DESTINATION_LOADED, .send = MESSAGE_REACHED, .send_phase = PHASE_DRAIN},
        {IN(DESTINATION_LOADED), SAID(BEGIN), .phase = PHASE_INTAKE, .next = DESTINATION_INTAKE},

        /* the source is gone in the middle: what it has sent may be all there is of the VM. The data connections say
         * by themselves whether everything came; if so it is made ready without a word from the source, and kept */
        {IN(DESTINATION_TAKE_IN) | IN(DESTINATION_PAGES), HALF_CUT, .next = HALF_STAY,
         .rearm = HALF_TIME_PHASE},
        {IN(DESTINATION_TAKE_IN) | IN(DESTINATION_PAGES), HALF_REACHED, .next = DESTINATION_INTAKE},
        {IN(DESTINATION_LOADED), HALF_CUT, .next = DESTINATION_INTAKE},
        /* ... or the source asks: it has lost its VMM, and does not lead any more */
        {IN(DESTINATION_LOADED), SAID(ASK), .next = DESTINATION_INTAKE},
        {IN(DESTINATION_INTAKE), HALF_REACHED, .next = DESTINATION_READY, .send = MESSAGE_READY},

        {UNREADY, HALF_FAILED, .next = DESTINATION_GATHER, .send = MESSAGE_FAILED,
         .cause = HALF_CAUSE_FAILED},
        {UNREADY, HALF_VMM_GONE, .next = DESTINATION_GATHER, .send = MESSAGE_FAILED,
         .cause = HALF_CAUSE_VMM_GONE},
        {UNREADY, HALF_DEVICE_GONE, .next = DESTINATION_GATHER, .send = MESSAGE_FAILED,
         .cause = HALF_CAUSE_DEVICE_GONE},
        {UNREADY, HALF_DEVICE_RESET, .next = DESTINATION_GATHER, .send = MESSAGE_FAILED,
         .cause = HALF_CAUSE_DEVICE_RESET},
        {UNREADY, SAID(ABORT), .next = DESTINATION_GATHER, .cause = HALF_CAUSE_PEER},
        {EMPTY, HALF_CUT, .next = DESTINATION_GATHER, .cause = HALF_CAUSE_CUT},

        /* rule 6: the source runs */
        {UNREADY | IN(DESTINATION_READY) | IN(DESTINATION_PROMISED), SAID(END), .next = DESTINATION_GATHER,
         .cause = HALF_CAUSE_PEER},

        /* rule 5: everything is here, and nothing but the source's word ends it. Rule 3: what dies here before
         * anything has run makes a promise, not a destruction */
        {IN(DESTINATION_READY), SAID(GO), .next = DESTINATION_OWNER},
        {IN(DESTINATION_READY), SAID(ABORT), .next = DESTINATION_PROMISE, .cause = HALF_CAUSE_PEER},
        {IN(DESTINATION_READY), HALF_DEVICE_GONE, .next = DESTINATION_PROMISE,
         .cause = HALF_CAUSE_DEVICE_GONE},
        {IN(DESTINATION_READY), HALF_DEVICE_RESET, .next = DESTINATION_PROMISE,
         .cause = HALF_CAUSE_DEVICE_RESET},
        {IN(DESTINATION_READY), HALF_VMM_GONE, .next = DESTINATION_PROMISE, .cause = HALF_CAUSE_VMM_GONE},
        {IN(DESTINATION_READY), SAID(BEGIN), .phase = PHASE_INTAKE, .next = HALF_STAY, .answer = true},

        /* a person's word (docs/in-doubt.md): the source is gone for good, and has not run since. While it can be asked it is
         * for the source to decide. DONE to a copy that was not started is such a word, too, given there */
        {IN(DESTINATION_READY), HALF_RESOLVE, .when = WHEN_RUN_HERE | WHEN_UNLINKED,
         .next = DESTINATION_OWNER, .noway = true},
        {IN(DESTINATION_PROMISED), HALF_RESOLVE, .when = WHEN_RUN_HERE | WHEN_UNLINKED | WHEN_VMM_LIVES,
         .next = DESTINATION_OWNER, .noway = true},
        {IN(DESTINATION_READY), SAID(DONE), .next = DESTINATION_OWNER, .noway = true},
        {IN(DESTINATION_PROMISED), SAID(DONE), .when = WHEN_VMM_LIVES, .next = DESTINATION_OWNER,
         .noway = true},
        {IN(DESTINATION_PROMISED), SAID(DONE), .next = DESTINATION_GATHER},
        /* ... or nobody needs the copy */
        {IN(DESTINATION_READY) | IN(DESTINATION_PROMISED), HALF_RESOLVE, .when = WHEN_DISCARD_HERE,
         .next = DESTINATION_GATHER, .cause = HALF_CAUSE_RESOLVED},
        /* ... or what ran here is over: all devices stand before anybody may count on that (rule 3) */
        {IN(DESTINATION_MAYBE), HALF_RESOLVE, .when = WHEN_DISCARD_HERE, .next = DESTINATION_LOOK,
         .cause = HALF_CAUSE_RESOLVED},
        /* the source's operator was quicker */
        {IN(DESTINATION_MAYBE), SAID(END), .next = DESTINATION_LOOK},

        /* rule 2: durable before any device leaves STOP */
        {IN(DESTINATION_OWNER), HALF_REACHED, .when = WHEN_VMM_GONE, .next = DESTINATION_PROMISE,
         .cause = HALF_CAUSE_VMM_GONE},
        {IN(DESTINATION_OWNER), HALF_REACHED, .next = DESTINATION_ARRIVE},
        {IN(DESTINATION_OWNER), HALF_FAILED, .next = HALF_STAY, .rearm = HALF_TIME_RETRY},
        {IN(DESTINATION_OWNER), HALF_DEADLINE, .next = DESTINATION_OWNER},

        /* up to the first RUNNING there is a way back */
        {IN(DESTINATION_ARRIVE), HALF_REACHED, .next = DESTINATION_RUN_DEVICES},
        {IN(DESTINATION_ARRIVE), HALF_VMM_GONE, .next = DESTINATION_LOOK, .cause = HALF_CAUSE_VMM_GONE},
        {IN(DESTINATION_ARRIVE), HALF_FAILED, .when = WHEN_ONWARD, .next = DESTINATION_RUN_DEVICES,
         .cause = HALF_CAUSE_FAILED},
        {IN(DESTINATION_ARRIVE), HALF_FAILED, .next = DESTINATION_LOOK, .cause = HALF_CAUSE_FAILED},
        {IN(DESTINATION_ARRIVE), HALF_DEVICE_GONE, .when = WHEN_ONWARD, .next = HALF_STAY,
         .cause = HALF_CAUSE_DEVICE_GONE},
        {IN(DESTINATION_ARRIVE), HALF_DEVICE_GONE, .next = DESTINATION_LOOK, .cause = HALF_CAUSE_DEVICE_GONE},

        {IN(DESTINATION_RUN_DEVICES), HALF_REACHED, .when = WHEN_PUSH, .next = DESTINATION_VMM_ARRIVE},
        {IN(DESTINATION_RUN_DEVICES), HALF_REACHED, .when = WHEN_HELD, .next = DESTINATION_GATE},
        {IN(DESTINATION_RUN_DEVICES), HALF_REACHED, .next = DESTINATION_RUN},
        {IN(DESTINATION_RUN_DEVICES), HALF_FAILED, .next = DESTINATION_FIND, .cause = HALF_CAUSE_FAILED},
        /* each has said where it is, or can't: has nothing run after all? */
        {IN(DESTINATION_FIND), HALF_REACHED, .when = WHEN_ONWARD, .next = DESTINATION_RUN_AGAIN},
        {IN(DESTINATION_FIND), HALF_REACHED, .when = WHEN_NOTHING_RAN, .next = DESTINATION_UNARRIVE},
        {IN(DESTINATION_FIND), HALF_REACHED, .next = DESTINATION_RUN_AGAIN},
        {IN(DESTINATION_RUN_AGAIN), HALF_REACHED, .next = DESTINATION_REPAIR},
        {IN(DESTINATION_REPAIR), HALF_REACHED, .when = WHEN_PUSH, .next = DESTINATION_VMM_ARRIVE},
        {IN(DESTINATION_REPAIR), HALF_REACHED, .next = DESTINATION_RUN},
        /* from here on the vCPUs may run at any moment, unless they are held: whatever it answers, it is asked until they do */
        {IN(DESTINATION_VMM_ARRIVE), HALF_REACHED, .next = DESTINATION_PUSH},
        {DESTINATION_GATING, HALF_FAILED, .when = WHEN_HELD | WHEN_LINKED, .next = DESTINATION_UNDO,
         .cause = HALF_CAUSE_FAILED},
        {DESTINATION_GATING, HALF_FAILED, .next = DESTINATION_RUN},
        {IN(DESTINATION_PUSH), HALF_REACHED, .when = WHEN_HELD, .next = DESTINATION_GATE},
        {IN(DESTINATION_PUSH), HALF_REACHED, .next = DESTINATION_RUN},
        {IN(DESTINATION_GATE), HALF_REACHED, .next = DESTINATION_GATED},
        {IN(DESTINATION_GATED), HALF_REACHED, .next = DESTINATION_RUN},
        /* rule 2: held to its end it has not run. Without a link nobody may be there to take the VM back: it goes on */
        {DESTINATION_GATING, HALF_DEVICE_RESET, .when = WHEN_HELD | WHEN_LINKED, .next = DESTINATION_UNDO,
         .cause = HALF_CAUSE_DEVICE_RESET},
        {DESTINATION_GATING, HALF_VMM_GONE, .when = WHEN_HELD, .next = DESTINATION_UNDO,
         .cause = HALF_CAUSE_VMM_GONE},
        {IN(DESTINATION_UNDO), HALF_REACHED, .when = WHEN_VMM_GONE, .next = DESTINATION_LOOK},
        {IN(DESTINATION_UNDO), HALF_REACHED, .next = HALF_STAY},
        {IN(DESTINATION_UNDO), HALF_VMM_GONE, .next = DESTINATION_LOOK},
        {IN(DESTINATION_UNDO), HALF_FAILED, .when = WHEN_VMM_GONE, .next = DESTINATION_MAYBE,
         .send = MESSAGE_MAYBE},
        {IN(DESTINATION_UNDO), HALF_FAILED, .next = DESTINATION_RUN},
        {IN(DESTINATION_RUN), HALF_REACHED, .next = DESTINATION_SETTLE},
        {IN(DESTINATION_RUN), HALF_FAILED, .next = DESTINATION_STALLED, .cause = HALF_CAUSE_FAILED},
        {IN(DESTINATION_STALLED), HALF_REACHED, .next = DESTINATION_SETTLE},
        {IN(DESTINATION_STALLED), HALF_FAILED, .next = HALF_STAY, .rearm = HALF_TIME_RETRY},
        {IN(DESTINATION_STALLED), HALF_DEADLINE, .next = DESTINATION_STALLED},
        {IN(DESTINATION_SETTLE), HALF_REACHED, .next = DESTINATION_DONE},

        /* what that device held is lost, and its name is in the result */
        {OWNING, HALF_DEVICE_RESET, .next = HALF_STAY},

        /* rule 2: it may have run, and nobody can ask it any more */
        {IN(DESTINATION_RUN_DEVICES) | IN(DESTINATION_FIND) | IN(DESTINATION_ARRIVE_AGAIN) |
                 IN(DESTINATION_RUN_AGAIN) | IN(DESTINATION_REPAIR) | IN(DESTINATION_VMM_ARRIVE) |
                 IN(DESTINATION_PUSH) | IN(DESTINATION_RUN) | IN(DESTINATION_STALLED),
         HALF_VMM_GONE, .next = DESTINATION_MAYBE, .send = MESSAGE_MAYBE, .cause = HALF_CAUSE_VMM_GONE},

        /* it runs */
        /* the source may have been quicker than the record */
        {IN(DESTINATION_DONE), HALF_REACHED, .when = WHEN_DONE_SEEN, .next = DESTINATION_OVER,
         .send = MESSAGE_DONEACK, .acked = true},
        {IN(DESTINATION_DONE), HALF_REACHED, .next = DESTINATION_STARTED},
        {IN(DESTINATION_DONE), HALF_FAILED, .next = HALF_STAY, .rearm = HALF_TIME_RETRY},
        {IN(DESTINATION_DONE), HALF_DEADLINE, .next = DESTINATION_DONE},
        {IN(DESTINATION_STARTED), SAID(DONE), .next = DESTINATION_OVER, .send = MESSAGE_DONEACK,
         .acked = true},

        /* back, without having run */
        {IN(DESTINATION_LOOK), HALF_REACHED, .next = DESTINATION_REOPEN},
        {IN(DESTINATION_REOPEN), HALF_REACHED, .next = DESTINATION_UNARRIVE},
        {IN(DESTINATION_UNARRIVE), HALF_REACHED, .when = WHEN_ALL_STAND, .next = DESTINATION_PROMISE},
        /* a device that hangs may have begun to run, or may yet: whoever promised would perhaps lie */
        {IN(DESTINATION_UNARRIVE), HALF_REACHED, .when = WHEN_VMM_GONE, .next = DESTINATION_MAYBE,
         .send = MESSAGE_MAYBE},
        {IN(DESTINATION_UNARRIVE), HALF_REACHED, .next = DESTINATION_ARRIVE_AGAIN},
        {IN(DESTINATION_ARRIVE_AGAIN), HALF_REACHED, .next = DESTINATION_RUN_AGAIN},
        {IN(DESTINATION_PROMISE), HALF_REACHED, .when = WHEN_END_SEEN, .next = DESTINATION_GATHER},
        {IN(DESTINATION_PROMISE), HALF_REACHED, .next = DESTINATION_PROMISED, .send = MESSAGE_NOTSTARTED},
        {IN(DESTINATION_PROMISE), HALF_FAILED, .next = HALF_STAY, .rearm = HALF_TIME_RETRY},
        {IN(DESTINATION_PROMISE), HALF_DEADLINE, .next = DESTINATION_PROMISE},
        {IN(DESTINATION_PROMISED), SAID(GO), .when = WHEN_NOWAY | WHEN_VMM_LIVES, .next = DESTINATION_OWNER},
        {IN(DESTINATION_PROMISED), HALF_VMM_GONE, .next = HALF_STAY, .send = MESSAGE_NOTSTARTED,
         .cause = HALF_CAUSE_VMM_GONE},

        {IN(DESTINATION_GATHER), HALF_REACHED, .next = DESTINATION_DISCARD},
        {IN(DESTINATION_DISCARD), HALF_REACHED, .next = DESTINATION_DISCARDED},
        {IN(DESTINATION_DISCARD), HALF_FAILED, .next = HALF_STAY, .rearm = HALF_TIME_RETRY},
        {IN(DESTINATION_DISCARD), HALF_DEADLINE, .next = DESTINATION_DISCARD},
        {IN(DESTINATION_DISCARDED), HALF_REACHED, .when = WHEN_END_SEEN, .next = DESTINATION_OVER,
         .send = MESSAGE_ENDED, .acked = true},
        {IN(DESTINATION_DISCARDED), HALF_REACHED, .when = WHEN_DONE_SEEN, .next = DESTINATION_OVER,
         .send = MESSAGE_DONEACK, .acked = true},
        {IN(DESTINATION_DISCARDED), HALF_REACHED, .next = DESTINATION_GONE},
        {IN(DESTINATION_DISCARDED), HALF_FAILED, .next = HALF_STAY, .rearm = HALF_TIME_RETRY},
        {IN(DESTINATION_DISCARDED), HALF_DEADLINE, .next = DESTINATION_DISCARDED},
        {IN(DESTINATION_GONE), SAID(END), .next = DESTINATION_OVER, .send = MESSAGE_ENDED, .acked = true},
        {IN(DESTINATION_GONE), SAID(DONE), .next = DESTINATION_OVER, .send = MESSAGE_DONEACK, .acked = true},

        /* whatever it is doing, it says how it stands */
        {ALL, SAID(ASK), .next = HALF_STAY, .answer = true},
        {ALL, SAID(GO), .next = HALF_STAY, .answer = true},
        {ALL, SAID(ABORT), .next = HALF_STAY, .answer = true},
};

const HalfRows half_destination_rows = {rows, ARRAY_SIZE(rows)};
