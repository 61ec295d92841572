/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* How fast a device's state goes out while it runs, when that has gone on long enough, and how much there may be in all. */

#include <stdint.h>

typedef struct TransferLimits {
        uint64_t bandwidth;     /* bytes a second; 0: as fast as it goes. Not in the blackout */
        uint64_t precopy_usec;  /* at most so long; 0 for none, as below */
        uint64_t precopy_bytes; /* at most so much */
        uint64_t precopy_rate;  /* until the device gives less than this, in bytes a second */
        uint64_t state_bytes;   /* more than so much in all, in the blackout too, is a failure */
} TransferLimits;
