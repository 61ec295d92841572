/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The two clocks: one for intervals, which all processes of a host share, and one for people. */

#include <stdint.h>
#include <time.h>

#include "macros.h"

static inline uint64_t clock_usec(clockid_t id)
{
        struct timespec ts;

        (void) clock_gettime(id, &ts);
        return (uint64_t) ts.tv_sec * USEC_PER_SEC + (uint64_t) ts.tv_nsec / 1000;
}

/* For intervals and deadlines. Comparable between processes of one boot, never between hosts. */
static inline uint64_t clock_monotonic_usec(void)
{
        return clock_usec(CLOCK_MONOTONIC);
}

/* For records that people read. */
static inline uint64_t clock_realtime_usec(void)
{
        return clock_usec(CLOCK_REALTIME);
}
