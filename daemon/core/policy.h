/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the operator allows. Values come from migmgrd.json; the defaults stand here and nowhere else. */

#include <stdbool.h>
#include <stdint.h>

#include "phase.h"

/* How fast a device's state goes out while it runs, and when that has gone on long enough. */
typedef struct TransferLimits {
        uint64_t bandwidth;     /* bytes a second; 0: as fast as it goes. Not in the blackout */
        uint64_t precopy_usec;  /* at most so long; 0 for none, as below */
        uint64_t precopy_bytes; /* at most so much */
        uint64_t precopy_rate;  /* until the device gives less than this, in bytes a second */
} TransferLimits;

typedef struct Policy {
        uint64_t deadline_usec[PHASE_MAX]; /* for each participant in that phase */
        uint64_t connect_usec;             /* connecting to a device server and its VERSION answer */
        uint64_t doubt_usec;               /* GO without an answer for this long: the job is in doubt */
        TransferLimits limits;             /* of each device; the bandwidth is a job's and not here */
        uint32_t retries;                  /* of a transition that failed and moved nothing */
        /* Of devices that their VMM drives, where it is safe; false: never. */
        bool grace; /* quieted while vCPUs still run */
        bool push;  /* taken on all at once, where the VMM goes from one to the next */
        /* Before the source runs again on a person's word after GO, a command must have seen to it that the destination does
         * not; false: the person's word is enough. */
        bool fence;
        uint64_t fence_usec; /* so long it may take */
} Policy;

extern const Policy policy_default;
