/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the operator allows. Values come from migmgrd.json; the defaults stand here and nowhere else. */

#include <stdint.h>

#include "phase.h"

typedef struct Policy {
        uint64_t deadline_usec[PHASE_MAX]; /* for each participant in that phase */
        uint64_t connect_usec;             /* connecting to a device server and its VERSION answer */
        uint64_t doubt_usec;               /* GO without an answer for this long: the job is in doubt */
        uint32_t retries;                  /* of a transition that failed and moved nothing */
} Policy;

extern const Policy policy_default;
