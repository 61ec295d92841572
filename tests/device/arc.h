/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The arcs of a device that follows the uAPI, and the way it walks when it is asked for more than one.
 *
 * Made from the text of linux/vfio.h and not from the daemon's table: two who read the same text, and are compared
 * in every test.
 */

#include "daemon/core/device-state.h"

#define ARC_STATES   (DEVICE_STATE_PRE_COPY_P2P + 1)
#define ARC_PATH_MAX ARC_STATES

/* `from>to`, where each is a state or `*`. */
typedef struct ArcPattern {
        uint16_t from, to; /* one bit a state */
} ArcPattern;

/* -EINVAL. */
int arc_pattern_parse(const char *text, ArcPattern *ret_pattern) _must_check_;

/* `from>to:milliseconds`. */
typedef struct ArcDelay {
        ArcPattern arcs;
        uint64_t usec;
} ArcDelay;

/* -EINVAL. */
int arc_delay_parse(const char *text, ArcDelay *ret_delay) _must_check_;

bool arc_pattern_matches(const ArcPattern *p, DeviceState from, DeviceState to);

/* Whether a device with these migration flags has an arc that matches: with P2P states, for one, it never goes from
 * RUNNING to STOP directly, and who asks for that arc is mistaken. */
bool arc_pattern_is_possible(const ArcPattern *p, uint32_t flags);

/* The states to pass, the last one being `to`; returns their number, 0 if there is nothing to do, -EINVAL if there
 * is no way. */
int arc_path(DeviceState from, DeviceState to, uint32_t flags,
             DeviceState ret_path[ARC_PATH_MAX]) _must_check_;
