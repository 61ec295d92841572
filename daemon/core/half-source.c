/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What follows what at the source. The rules that these rows keep stand in docs/ownership.md; the numbers below are
 * theirs. Rows are tried from the top, the first that fits is taken; an event without a row changes nothing. */

#include "half-table.h"

/* Nothing has been touched yet. */
#define CHECKING (IN(SOURCE_CHECK_HERE) | IN(SOURCE_CHECK_THERE))

#define SAID(m) .on = HALF_MESSAGE, .message = MESSAGE_##m

static const HalfRow rows[] = {
        /* check: refused, failed or cancelled, nothing was touched */
        {IN(SOURCE_CHECK_HERE), HALF_REACHED, .next = SOURCE_CHECK_THERE},
        {IN(SOURCE_CHECK_THERE), HALF_REACHED, .when = WHEN_CHECK_ONLY, .next = SOURCE_OVER},
        {IN(SOURCE_CHECK_THERE), HALF_REACHED, .next = SOURCE_RECORD},
        {CHECKING, HALF_FAILED, .next = SOURCE_OVER, .cause = HALF_CAUSE_FAILED},
        {CHECKING, HALF_CANCEL, .next = SOURCE_OVER, .cause = HALF_CAUSE_CANCELLED},
        {CHECKING, HALF_TIMEOUT, .next = SOURCE_OVER, .cause = HALF_CAUSE_TIMEOUT},
        {CHECKING, HALF_CUT, .next = SOURCE_OVER, .cause = HALF_CAUSE_CUT},
        {CHECKING, HALF_VMM_GONE, .next = SOURCE_OVER, .cause = HALF_CAUSE_VMM_GONE},
        {CHECKING, HALF_DEVICE_GONE, .next = SOURCE_OVER, .cause = HALF_CAUSE_DEVICE_GONE},

        /* forward, barrier by barrier */
        {IN(SOURCE_RECORD), HALF_REACHED, .next = SOURCE_PREPARE},
        {IN(SOURCE_PREPARE), HALF_REACHED, .next = SOURCE_CONNECT},
        /* a page that is copied before its writes are noted may be lost: the log first, then the memory */
        {IN(SOURCE_CONNECT), HALF_REACHED, .when = WHEN_LOGGING, .next = SOURCE_LOG},
        {IN(SOURCE_CONNECT), HALF_REACHED, .next = SOURCE_PRECOPY},
        {IN(SOURCE_LOG), HALF_REACHED, .next = SOURCE_PRECOPY},
        {IN(SOURCE_PRECOPY), HALF_REACHED, .next = SOURCE_VIOMMU_GRACE},
        {IN(SOURCE_VIOMMU_GRACE), HALF_REACHED, .next = SOURCE_HALT},
        {IN(SOURCE_HALT), HALF_REACHED, .next = SOURCE_P2P_GRACE},
        {IN(SOURCE_P2P_GRACE), HALF_REACHED, .next = SOURCE_STOP_REST},
        {IN(SOURCE_STOP_REST), HALF_REACHED, .when = WHEN_LOGGING, .next = SOURCE_STOP},
        {IN(SOURCE_STOP_REST), HALF_REACHED, .next = SOURCE_DRAIN},
        {IN(SOURCE_STOP), HALF_REACHED, .next = SOURCE_DIRTY},
        {IN(SOURCE_DIRTY), HALF_REACHED, .next = SOURCE_DRAIN},
        {IN(SOURCE_DRAIN), HALF_REACHED, .when = WHEN_PAGES, .next = SOURCE_PAGES},
        {IN(SOURCE_DRAIN), HALF_REACHED, .next = SOURCE_INTAKE},
        {IN(SOURCE_PAGES), HALF_REACHED, .next = SOURCE_INTAKE},

        /* rule 1: READY is in, the VMM is sealed, every device has read STOP */
        {IN(SOURCE_INTAKE), HALF_REACHED, .next = SOURCE_NOBODY},

        /* nothing was sent when the first record fails */
        {IN(SOURCE_RECORD), HALF_FAILED, .next = SOURCE_OVER, .cause = HALF_CAUSE_FAILED},

        /* the VMM dies: before the drain the destination can't have everything, so there is nothing to ask; after
         * the seal this process may go forward (rule 5); in between a person decides, unless no copy exists */
        {SOURCE_MOVING, HALF_VMM_GONE, .when = WHEN_NOT_DRAINED, .next = SOURCE_ABORT,
         .cause = HALF_CAUSE_VMM_GONE},
        {SOURCE_MOVING, HALF_VMM_GONE, .when = WHEN_SEALED, .next = HALF_STAY, .cause = HALF_CAUSE_VMM_GONE},
        {SOURCE_MOVING, HALF_VMM_GONE, .next = SOURCE_ORPHAN, .cause = HALF_CAUSE_VMM_GONE},

        /* a device that has given its state away is no longer needed here */
        {IN(SOURCE_INTAKE), HALF_DEVICE_GONE, .next = HALF_STAY},

        /* anything else that goes wrong before owner=nobody: the source takes the VM back, alone */
        {SOURCE_MOVING, HALF_FAILED, .when = WHEN_VMM_LIVES, .next = SOURCE_ABORT,
         .cause = HALF_CAUSE_FAILED},
        {SOURCE_MOVING, SAID(FAILED), .when = WHEN_VMM_LIVES, .next = SOURCE_ABORT,
         .cause = HALF_CAUSE_FAILED},
        {SOURCE_MOVING, SAID(UNKNOWN), .when = WHEN_VMM_LIVES, .next = SOURCE_ABORT,
         .cause = HALF_CAUSE_PEER},
        {SOURCE_MOVING, HALF_CUT, .when = WHEN_VMM_LIVES, .next = SOURCE_ABORT, .cause = HALF_CAUSE_CUT},
        {SOURCE_MOVING, HALF_CANCEL, .when = WHEN_VMM_LIVES, .next = SOURCE_ABORT,
         .cause = HALF_CAUSE_CANCELLED},
        {SOURCE_MOVING, HALF_TIMEOUT, .when = WHEN_VMM_LIVES, .next = SOURCE_ABORT,
         .cause = HALF_CAUSE_TIMEOUT},
        {SOURCE_HALTED, HALF_BLACKOUT, .when = WHEN_VMM_LIVES, .next = SOURCE_ABORT,
         .cause = HALF_CAUSE_BLACKOUT},
        {SOURCE_MOVING, HALF_DEVICE_GONE, .when = WHEN_VMM_LIVES, .next = SOURCE_ABORT,
         .cause = HALF_CAUSE_DEVICE_GONE},
        {SOURCE_MOVING, HALF_DEVICE_RESET, .when = WHEN_VMM_LIVES, .next = SOURCE_ABORT,
         .cause = HALF_CAUSE_DEVICE_RESET},
        {SOURCE_MOVING, HALF_VMM_RESUMED, .when = WHEN_VMM_LIVES, .next = SOURCE_ABORT,
         .cause = HALF_CAUSE_VMM_RESUMED},

        /* ... unless its VMM is dead: then it can only ask */
        {SOURCE_MOVING, HALF_FAILED, .next = SOURCE_ORPHAN, .cause = HALF_CAUSE_FAILED},
        {SOURCE_MOVING, SAID(FAILED), .next = SOURCE_ORPHAN, .cause = HALF_CAUSE_FAILED},
        {SOURCE_MOVING, SAID(UNKNOWN), .next = SOURCE_ORPHAN, .cause = HALF_CAUSE_PEER},
        {SOURCE_MOVING, HALF_CUT, .next = SOURCE_ORPHAN, .cause = HALF_CAUSE_CUT},
        {SOURCE_MOVING, HALF_DEVICE_GONE, .next = SOURCE_ORPHAN, .cause = HALF_CAUSE_DEVICE_GONE},

        /* rule 1: durable first, then GO. A write that failed may be durable all the same, but no GO was sent: the
         * source may take the VM back as soon as `aborted` is durable */
        {IN(SOURCE_NOBODY), HALF_REACHED, .when = WHEN_NOWAY, .next = SOURCE_GO},
        {IN(SOURCE_NOBODY), HALF_REACHED, .when = WHEN_NOT_RESUMED, .next = SOURCE_GO},
        /* somebody has had its VMM run again while that was written: the copy is stale, and no GO was sent */
        {IN(SOURCE_NOBODY), HALF_REACHED, .next = SOURCE_ABORT, .cause = HALF_CAUSE_VMM_RESUMED},
        {IN(SOURCE_NOBODY), HALF_FAILED, .when = WHEN_VMM_LIVES, .next = SOURCE_ABORT,
         .cause = HALF_CAUSE_FAILED},
        {IN(SOURCE_NOBODY), HALF_FAILED, .next = HALF_STAY, .rearm = HALF_TIME_RETRY},
        {IN(SOURCE_NOBODY), HALF_DEADLINE, .next = SOURCE_NOBODY},

        /* in transit */
        {SOURCE_TRANSIT, SAID(STARTED), .next = SOURCE_DONE, .heard = true},
        {SOURCE_TRANSIT, SAID(READY), .when = WHEN_CANCELLED | WHEN_VMM_LIVES, .next = HALF_STAY,
         .send = MESSAGE_ABORT},
        {SOURCE_TRANSIT, SAID(READY), .when = WHEN_NOWAY, .next = HALF_STAY, .send = MESSAGE_GO},
        {SOURCE_TRANSIT, SAID(READY), .when = WHEN_NOT_RESUMED, .next = HALF_STAY, .send = MESSAGE_GO},
        /* it stands there, and it runs here, though nobody has allowed that: the copy is stale */
        {SOURCE_TRANSIT, SAID(READY), .when = WHEN_VMM_LIVES, .next = HALF_STAY, .send = MESSAGE_ABORT},
        /* rule 4: only on the promise */
        {SOURCE_TRANSIT, SAID(NOTSTARTED), .when = WHEN_VMM_LIVES, .next = SOURCE_ABORT,
         .cause = HALF_CAUSE_PEER},
        /* rule 3: the VM died here, the copy there is the best there is */
        {SOURCE_TRANSIT, SAID(NOTSTARTED), .when = WHEN_COPY, .next = SOURCE_GO},
        {SOURCE_TRANSIT, SAID(NOTSTARTED), .when = WHEN_NO_COPY, .next = SOURCE_LOST,
         .cause = HALF_CAUSE_PEER, .acked = true},
        {SOURCE_TRANSIT, SAID(MAYBE), .next = SOURCE_DOUBT, .cause = HALF_CAUSE_PEER},
        {SOURCE_TRANSIT, SAID(UNKNOWN), .next = SOURCE_DOUBT, .cause = HALF_CAUSE_PEER}, /* rule 7 */
        {SOURCE_TRANSIT, HALF_VMM_RESUMED, .next = SOURCE_DOUBT, .cause = HALF_CAUSE_VMM_RESUMED},
        /* with GO on its way it is too late: who asks would be told yes and find the VM moved. Where nobody knows what
         * became of GO, the destination can still be asked to let it be */
        {IN(SOURCE_ASK) | IN(SOURCE_DOUBT), HALF_CANCEL, .when = WHEN_VMM_LIVES, .next = HALF_STAY,
         .send = MESSAGE_ABORT},
        {SOURCE_TRANSIT, HALF_LINKED, .when = WHEN_CANCELLED | WHEN_VMM_LIVES, .next = HALF_STAY,
         .send = MESSAGE_ABORT},
        {SOURCE_TRANSIT, HALF_LINKED, .next = HALF_STAY, .send = MESSAGE_ASK},
        {IN(SOURCE_DOUBT), HALF_DEADLINE, .next = HALF_STAY, .send = MESSAGE_ASK, .rearm = HALF_TIME_DOUBT},
        {SOURCE_TRANSIT, HALF_DEADLINE, .next = SOURCE_DOUBT, .cause = HALF_CAUSE_DEADLINE},

        /* a person's word (docs/in-doubt.md). The source runs again: the destination is fenced first, where that is
         * configured (rule 8), and whatever it says meanwhile, it may be dead by the time we have heard it */
        {IN(SOURCE_DOUBT), HALF_RESOLVE, .when = WHEN_RUN_HERE | WHEN_VMM_LIVES | WHEN_FENCE,
         .next = SOURCE_FENCE, .cause = HALF_CAUSE_RESOLVED},
        {IN(SOURCE_DOUBT), HALF_RESOLVE, .when = WHEN_RUN_HERE | WHEN_VMM_LIVES, .next = SOURCE_ABORT,
         .cause = HALF_CAUSE_RESOLVED},
        {IN(SOURCE_FENCE), HALF_REACHED, .when = WHEN_VMM_LIVES, .next = SOURCE_ABORT},
        {IN(SOURCE_FENCE), HALF_REACHED, .next = SOURCE_DOUBT},
        {IN(SOURCE_FENCE), HALF_FAILED, .next = SOURCE_DOUBT},
        /* ... or gives up what is here, so that the destination's copy is the VM: but none that is stale (rule 4) */
        {IN(SOURCE_DOUBT), HALF_RESOLVE, .when = WHEN_DISCARD_HERE | WHEN_VMM_LIVES | WHEN_NOT_RESUMED,
         .next = SOURCE_DISCARD, .cause = HALF_CAUSE_RESOLVED, .noway = true},
        {IN(SOURCE_ORPHAN) | IN(SOURCE_UNSEEN), HALF_RESOLVE, .when = WHEN_DISCARD_HERE,
         .next = SOURCE_DISCARD, .cause = HALF_CAUSE_RESOLVED, .noway = true},
        /* the destination's operator was quicker */
        {IN(SOURCE_ORPHAN) | IN(SOURCE_UNSEEN), SAID(STARTED), .next = SOURCE_DISCARD, .noway = true,
         .heard = true},
        {IN(SOURCE_DISCARD), HALF_REACHED, .next = SOURCE_NOBODY},
        {IN(SOURCE_DISCARD), HALF_FAILED, .next = HALF_STAY, .rearm = HALF_TIME_RETRY},
        {IN(SOURCE_DISCARD), HALF_DEADLINE, .next = SOURCE_DISCARD},
        /* nothing is left here, and the destination is not waited for any longer: it may run the VM, or have discarded it,
         * too. `done` with no way back is that: nobody has heard that it runs */
        {IN(SOURCE_DOUBT), HALF_RESOLVE, .when = WHEN_DISCARD_HERE | WHEN_VMM_GONE, .next = SOURCE_DONE,
         .cause = HALF_CAUSE_RESOLVED, .noway = true},

        /* the destination runs the VM, as it may say after somebody has given up waiting for that */
        {IN(SOURCE_DONE) | IN(SOURCE_RELEASE) | IN(SOURCE_CLOSE), SAID(STARTED), .next = HALF_STAY,
         .heard = true},
        {IN(SOURCE_DONE), HALF_REACHED, .next = SOURCE_RELEASE},
        {IN(SOURCE_DONE), HALF_FAILED, .next = HALF_STAY, .rearm = HALF_TIME_RETRY},
        {IN(SOURCE_DONE), HALF_DEADLINE, .next = SOURCE_DONE},
        {IN(SOURCE_RELEASE), HALF_REACHED, .next = SOURCE_CLOSE},
        {IN(SOURCE_RELEASE), HALF_FAILED, .next = HALF_STAY, .rearm = HALF_TIME_RETRY},
        {IN(SOURCE_RELEASE), HALF_DEADLINE, .next = SOURCE_RELEASE},
        {IN(SOURCE_CLOSE), SAID(DONEACK), .next = SOURCE_OVER, .acked = true},
        {IN(SOURCE_CLOSE), SAID(UNKNOWN), .next = SOURCE_OVER, .acked = true},
        {IN(SOURCE_CLOSE), HALF_LINKED, .next = HALF_STAY, .send = MESSAGE_DONE},
        {IN(SOURCE_CLOSE), HALF_DEADLINE, .next = HALF_STAY, .send = MESSAGE_DONE, .rearm = HALF_TIME_DOUBT},

        /* back: `aborted` is durable before anything runs again (rule 4). Where owner=nobody was never written, a
         * restart would roll back by itself, so a full disk need not keep the guest standing */
        {IN(SOURCE_ABORT), HALF_REACHED, .next = SOURCE_LOOK},
        {IN(SOURCE_ABORT), HALF_FAILED, .when = WHEN_NEVER_NOBODY, .next = SOURCE_LOOK},
        {IN(SOURCE_ABORT), HALF_FAILED, .next = HALF_STAY, .rearm = HALF_TIME_RETRY},
        {IN(SOURCE_ABORT), HALF_DEADLINE, .next = SOURCE_ABORT},

        /* what that device held is lost if the VM goes on here, and its name is in the result */
        {SOURCE_BACK | SOURCE_TRANSIT | IN(SOURCE_NOBODY), HALF_DEVICE_RESET, .next = HALF_STAY},

        /* what was held and is known not to have gone over is lost with its VMM */
        {IN(SOURCE_HELD), HALF_VMM_GONE, .when = WHEN_SEEN, .next = SOURCE_RESUME,
         .cause = HALF_CAUSE_VMM_GONE},
        /* rule 4: the VMM died and nobody saw it run again; nobody can tell what it did */
        {SOURCE_BACK, HALF_VMM_GONE, .when = WHEN_SEEN, .next = HALF_STAY, .cause = HALF_CAUSE_VMM_GONE},
        {SOURCE_BACK, HALF_VMM_GONE, .next = SOURCE_UNSEEN, .cause = HALF_CAUSE_VMM_GONE},

        /* the same walk in the other direction, with the same barriers */
        {IN(SOURCE_LOOK), HALF_REACHED, .next = SOURCE_REOPEN},
        {IN(SOURCE_REOPEN), HALF_REACHED, .next = SOURCE_BACK_P2P},
        {IN(SOURCE_BACK_P2P), HALF_REACHED, .next = SOURCE_BACK_RUN},
        {IN(SOURCE_BACK_RUN), HALF_REACHED, .next = SOURCE_FIND},
        {IN(SOURCE_FIND), HALF_REACHED, .next = SOURCE_RUN_AGAIN},
        {IN(SOURCE_RUN_AGAIN), HALF_REACHED, .next = SOURCE_REPAIR},
        /* what a device has lost nobody may work without unseen, if policy says so */
        {IN(SOURCE_REPAIR), HALF_REACHED, .when = WHEN_PAUSE, .next = SOURCE_HELD},
        {IN(SOURCE_HELD), HALF_VMM_RESUMED, .next = SOURCE_SETTLE},
        {IN(SOURCE_HELD), HALF_RESOLVE, .when = WHEN_RUN_HERE | WHEN_VMM_LIVES, .next = SOURCE_RESUME},
        {IN(SOURCE_REPAIR), HALF_REACHED, .next = SOURCE_RESUME},
        {IN(SOURCE_RESUME), HALF_REACHED, .next = SOURCE_SETTLE},
        {IN(SOURCE_RESUME), HALF_FAILED, .next = SOURCE_STUCK, .cause = HALF_CAUSE_FAILED},
        {IN(SOURCE_STUCK), HALF_REACHED, .next = SOURCE_SETTLE},
        {IN(SOURCE_STUCK), HALF_FAILED, .next = HALF_STAY, .rearm = HALF_TIME_RETRY},
        {IN(SOURCE_STUCK), HALF_DEADLINE, .next = SOURCE_STUCK},
        {IN(SOURCE_STUCK), HALF_VMM_RESUMED, .next = SOURCE_SETTLE},
        {IN(SOURCE_SETTLE), HALF_REACHED, .next = SOURCE_UNLOG},
        {IN(SOURCE_UNLOG), HALF_REACHED, .next = SOURCE_END},

        /* vCPUs and devices read running: END, until it is answered */
        /* a record that still says `source` would be taken up again after the VM has moved */
        {IN(SOURCE_END), SAID(ENDED), .when = WHEN_RECORDED, .next = SOURCE_OVER, .acked = true},
        {IN(SOURCE_END), SAID(UNKNOWN), .when = WHEN_RECORDED, .next = SOURCE_OVER, .acked = true},
        {IN(SOURCE_END), HALF_LINKED, .next = HALF_STAY, .send = MESSAGE_END},
        {IN(SOURCE_END), HALF_FAILED, .next = HALF_STAY},
        {IN(SOURCE_END), HALF_DEADLINE, .next = SOURCE_END},

        /* the source's VMM is dead and owner=nobody was not written (rule 5) */
        {IN(SOURCE_ORPHAN), SAID(READY), .when = WHEN_SEALED, .next = SOURCE_NOBODY},
        {IN(SOURCE_ORPHAN), SAID(NOTSTARTED), .when = WHEN_NO_COPY, .next = SOURCE_LOST,
         .cause = HALF_CAUSE_PEER, .acked = true},
        {IN(SOURCE_ORPHAN), HALF_LINKED, .next = HALF_STAY, .send = MESSAGE_ASK},
        {IN(SOURCE_ORPHAN), HALF_DEADLINE, .next = SOURCE_ORPHAN},

        /* ... or it died on the way back. Where there is no copy, nothing is left to decide: it does not matter what it did */
        {IN(SOURCE_UNSEEN), SAID(NOTSTARTED), .when = WHEN_NO_COPY, .next = SOURCE_LOST, .acked = true},
        {IN(SOURCE_UNSEEN), HALF_LINKED, .next = HALF_STAY, .send = MESSAGE_ASK},
        {IN(SOURCE_UNSEEN), HALF_DEADLINE, .next = SOURCE_UNSEEN},
};

const HalfRows half_source_rows = {rows, ARRAY_SIZE(rows)};
