/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Which changes of state a kernel VFIO device may be asked for, judged before the kernel sees them.
 *
 *  what                                        refused with  because
 *  ------------------------------------------  ------------  ------------------------------------------------------------
 *  STOP_COPY -> PRE_COPY, PRE_COPY_P2P         EINVAL        kernels up to at least 6.12.95 loop for ever on it, with the
 *                                                            device's lock held; and any way that would lead over it
 *  to or from ERROR, a state it does not have  EINVAL        the uAPI: only a reset leaves ERROR
 *  RESUMING -> anything after a failed write   EPERM         a driver took bad data in after it had refused the write: the
 *                                                            way out is a reset
 *  supervised: all but                         EPERM         its VMM has the data stream; another arc opens or ends one, or
 *   device_arc_supervised()                                  lies off the VMM's own way
 */

#include "common/macros.h"
#include "daemon/core/device-state.h"

typedef struct VfioArc {
        DeviceState from, to;
        uint32_t flags;   /* of the device; DEVICE_SUPERVISED counts */
        bool load_failed; /* since it went to RESUMING */
} VfioArc;

/* 0, or a negative errno and in `ret_text` why, a constant. */
int vfio_arc_judge(const VfioArc *arc, const char **ret_text) _must_check_;

/* Whether the kernel has to give a data file with it, and otherwise must not. */
bool vfio_arc_opens_data(const VfioArc *arc);
/* Whether the data file that is there belongs to the state that follows, too. */
bool vfio_arc_keeps_data(const VfioArc *arc);
