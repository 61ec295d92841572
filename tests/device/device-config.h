/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What one emulated device is told to be: the DEVICE argument, parsed. Made by main(), then owned by the Device;
 * delays and faults can be changed later by orders.
 */

#include "fault.h"

typedef enum DeviceResetMode {
        DEVICE_RESET_UAPI,         /* from every state, to RUNNING */
        DEVICE_RESET_LIBVFIO_USER, /* refused in STOP and STOP_COPY; leaves only ERROR */
} DeviceResetMode;

typedef struct DeviceConfig {
        char *id, *socket_path;
        bool migration, p2p, pre_copy, twin_socket, work, worker, mailbox;
        bool ndma;   /* in the P2P states it starts no DMA at all */
        bool strict; /* what libvfio-user refuses while stopped is refused */
        DeviceResetMode reset_mode;
        uint64_t size, seed, max_data;
        uint64_t arc_delay_usec[ARC_STATES][ARC_STATES];
        uint64_t read_delay_usec, write_delay_usec; /* for each MiB */
        uint64_t reset_delay_usec, quiesce_usec;
        uint64_t dirty_rate; /* pages a second */
        FaultList faults;
} DeviceConfig;

/* From `key=value,...`. -ENOMEM; -EINVAL: `ret_wrong` is the part that is wrong, or a sentence on what is missing; the
 * caller frees it. */
int device_config_parse(const char *text, DeviceConfig *ret_config, char **ret_wrong) _must_check_;
void device_config_done(DeviceConfig *c);

/* The flags of VFIO_DEVICE_FEATURE_MIGRATION, 0 without migration. */
uint32_t device_config_flags(const DeviceConfig *c);

/* False: the device has no such arc. A later delay of the same arc replaces an earlier one. */
bool device_config_set_delay(DeviceConfig *c, const ArcDelay *delay) _must_check_;

/* -EINVAL: the device has no such arc. -ENOMEM. */
int device_config_add_fault(DeviceConfig *c, const Fault *fault) _must_check_;
