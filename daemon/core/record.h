/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The durable word of one half about who owns the VM (docs/ownership.md).
 *
 * A record exists once per job and half. What it may say next is a short list, and the store refuses anything else:
 * a daemon that wants to write another word has a bug, and a bug must not move a VM.
 */

#include <stdbool.h>

#include "common/macros.h"
#include "common/string-table.h"
#include "manifest.h"

typedef enum Side {
        SIDE_SOURCE,
        SIDE_DESTINATION,
        SIDE_MAX,
        SIDE_INVALID = -EINVAL,
} Side;

typedef enum Owner {
        OWNER_UNRECORDED, /* no row */
        /* source half */
        OWNER_SOURCE,  /* the source runs the VM, or can by itself */
        OWNER_NOBODY,  /* in transit: GO may have been sent */
        OWNER_DONE,    /* both halves: the destination runs the VM */
        OWNER_ABORTED, /* the source took the VM back */
        /* destination half */
        OWNER_PREPARED,    /* a copy is being made, or is ready */
        OWNER_DESTINATION, /* the destination may start the VM, or has */
        OWNER_PROMISED,    /* the destination will not start its copy without a new word */
        OWNER_DISCARDED,   /* the copy is gone */
        OWNER_MAX,
        OWNER_INVALID = -EINVAL,
} Owner;

DECLARE_STRING_TABLE(Side, side);
DECLARE_STRING_TABLE(Owner, owner);

/* Bytes of the policy that a record has. */
#define RECORD_POLICY_MAX ((size_t) MIB)

/* Whether the record of `side` may change from `from` to `to`; `noway` is the word of the GO that asks for it. A
 * repetition (`from` is `to`) is allowed. */
bool owner_may_become(Side side, Owner from, Owner to, bool noway);

/* Whether the record says how the job ended, so that only its acknowledgement is still to come. */
bool owner_is_final(Owner owner);

/* What else is known of the VM of a record that a restart has found. */
typedef struct RecordOthers {
        bool has_newer;    /* a job of it was recorded after this one */
        bool has_unended;  /* another record of it is not final: that job is newer */
        Presence presence; /* where it is: it changes with `done`. Negative: it is not registered */
} RecordOthers;

/* Whether the VM has had a newer job than that of the record: of this one only the acknowledgement is left, and it must not
 * touch the VM. */
bool owner_is_superseded(Side side, Owner owner, const RecordOthers *others);
