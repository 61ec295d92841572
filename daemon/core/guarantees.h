/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What is promised for one move, and what is not: of this VM, with these devices, between these two hosts. Said by check,
 * before anything is touched. */

#include <stdbool.h>

#include "plan.h"

typedef enum Guarantee {
        GUARANTEE_ONE_OWNER,
        GUARANTEE_WAY_BACK,
        GUARANTEE_LOCKSTEP,
        GUARANTEE_QUIET_PEERS,
        GUARANTEE_RESETS_SEEN,
        GUARANTEE_COMPATIBLE,
        GUARANTEE_VMM_STARTS,
        GUARANTEE_BLACKOUT_LIMIT,
        GUARANTEE_PEER_KNOWN,
        GUARANTEE_MAX,
        GUARANTEE_INVALID = -EINVAL,
} Guarantee;

DECLARE_STRING_TABLE(Guarantee, guarantee);

/* What they rest on, beside manifest and plan. */
typedef struct GuaranteeFacts {
        const Manifest *source;
        const Plan *plan;
        bool peer_known;       /* the connection says who the other daemon is */
        bool blackout_limited; /* somebody has set a limit */
        bool risk_accepted;    /* a policy accepts what P2P may do to a device that can't be quieted */
        uint32_t n_uncompared; /* devices of which no policy says what must be alike */
} GuaranteeFacts;

/* What is promised, for people. */
const char *guarantee_promise(Guarantee guarantee);

/* NULL: it holds; else why it does not. */
const char *guarantee_gap(Guarantee guarantee, const GuaranteeFacts *facts);
