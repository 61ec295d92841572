/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* VFIO device states and the arcs between them.
 *
 * Names and numbers are those of `enum vfio_device_mig_state` in the kernel's uAPI (linux/vfio.h, 6.2 and later);
 * vfio-user uses the same ones. The kernel walks combined transitions by itself, invisibly. We do not let it: a
 * transition is planned here as single arcs, so that every step can be read back and every failure has a place.
 */

#include <stdbool.h>
#include <stdint.h>

#include "common/string-table.h"

typedef enum DeviceState {
        DEVICE_STATE_ERROR = 0,
        DEVICE_STATE_STOP = 1,
        DEVICE_STATE_RUNNING = 2,
        DEVICE_STATE_STOP_COPY = 3,
        DEVICE_STATE_RESUMING = 4,
        DEVICE_STATE_RUNNING_P2P = 5,
        DEVICE_STATE_PRE_COPY = 6,
        DEVICE_STATE_PRE_COPY_P2P = 7,
        /* Not a state of the uAPI: nobody could be asked, or the answer was lost. */
        DEVICE_STATE_UNKNOWN = 8,
        DEVICE_STATE_MAX,
        DEVICE_STATE_INVALID = -EINVAL,
} DeviceState;

/* The flags of VFIO_DEVICE_FEATURE_MIGRATION. */
enum {
        DEVICE_MIGRATION_STOP_COPY = 1 << 0,
        DEVICE_MIGRATION_P2P = 1 << 1,
        DEVICE_MIGRATION_PRE_COPY = 1 << 2,
        DEVICE_MIGRATION_MASK = (1 << 3) - 1,
};

/* What else is known of a device, in the same word. */
enum {
        DEVICE_DMA_LOGGING = 1 << 8, /* VFIO_DEVICE_FEATURE_DMA_LOGGING_START, _STOP and _REPORT */
        DEVICE_HAS_DMA = 1 << 9,     /* its VMM has mapped memory for it */
        DEVICE_SUPERVISED =
                1 << 10,         /* its VMM moves its data, and sets the states that open a stream for it */
        DEVICE_KERNEL = 1 << 11, /* a VFIO file of the kernel, whose RESET is taken in every state */
        DEVICE_FLAGS_MASK = DEVICE_MIGRATION_MASK | DEVICE_DMA_LOGGING | DEVICE_HAS_DMA | DEVICE_SUPERVISED |
                            DEVICE_KERNEL,
};

/* The longest planned path, RESUMING to PRE_COPY with P2P, has four arcs. */
#define DEVICE_PATH_MAX 4

DECLARE_STRING_TABLE(DeviceState, device_state);

/* Whether a device with these migration flags can be in `state` at all. ERROR always can be, UNKNOWN never. */
bool device_state_supported(DeviceState state, uint32_t flags);

/* Plans the arcs from one state to another: the uAPI's shortest path, in which states of the saving group
 * (PRE_COPY, PRE_COPY_P2P, STOP_COPY) stand only at the ends or next to each other, and states that the device
 * does not support are passed over.
 *
 * Writes the states to be SET one after another to `ret_path` and returns their number, 0 when `from` is `to`.
 * -EINVAL: no such path. That is so for a state the device does not support, for ERROR and UNKNOWN at either end
 * (only a reset leaves ERROR), and always for STOP_COPY to PRE_COPY and PRE_COPY_P2P: the uAPI blocks these two,
 * and kernels up to at least 6.12.95 do not refuse them but loop for ever with the device's lock held.
 */
int device_state_path(DeviceState from, DeviceState to, uint32_t flags,
                      DeviceState ret_path[DEVICE_PATH_MAX]) _must_check_;
