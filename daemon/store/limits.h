/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdint.h>

/* How much history is kept (history-days, history-jobs in migmgrd.json). 0: no such limit. */
typedef struct StoreLimits {
        uint64_t days;
        uint64_t jobs;
} StoreLimits;
