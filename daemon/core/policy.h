/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the operator allows. Values come from migmgrd.json; the defaults stand here and nowhere else. */

#include <stdbool.h>
#include <stdint.h>

#include "phase.h"
#include "policy-rules.h"
#include "transfer-limits.h"

typedef struct Policy {
        uint64_t deadline_usec[PHASE_MAX]; /* for each participant in that phase */
        uint64_t connect_usec;             /* connecting to a device server and its VERSION answer */
        uint64_t doubt_usec;               /* GO without an answer for this long: the job is in doubt */
        TransferLimits limits;             /* of each device; the bandwidth is a job's and not here */
        uint32_t retries;                  /* of a transition that failed and moved nothing */
        /* Of devices that their VMM drives, where it is safe; false: never. */
        bool grace; /* quieted while vCPUs still run */
        bool push;  /* taken on all at once, where the VMM goes from one to the next */
} Policy;

extern const Policy policy_default;

/* The same as one rule for all VMs and devices. -ENOMEM. */
int policy_make_rules(const Policy *policy, PolicyRules *ret) _must_check_;
