/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the kernel's VFIO uAPI has and the headers of Debian 12 (Linux 6.1) have not, wherever kernel VFIO is spoken.
 *
 * Names and numbers are those of include/uapi/linux/vfio.h and include/uapi/linux/iommufd.h of Linux 6.12; the section
 * that each comes from stands above it. Where the system's header has it, its own definition is taken. States are
 * DeviceState everywhere (daemon/core/device-state.h), whose numbers are the uAPI's.
 */

#include <assert.h>
#include <linux/vfio.h>
#if __has_include(<linux/iommufd.h>)
#include <linux/iommufd.h>
#endif

#include "daemon/core/device-state.h"

/* "VFIO_DEVICE_FEATURE_MIGRATION": flags. Linux 6.2. */
#ifndef VFIO_MIGRATION_PRE_COPY
#define VFIO_MIGRATION_PRE_COPY (1 << 2)
#endif

/* "VFIO_MIG_GET_PRECOPY_INFO - _IO(VFIO_TYPE, VFIO_BASE + 21)": asked of the data file, in PRE_COPY and PRE_COPY_P2P
 * only. Linux 6.2. */
#ifndef VFIO_MIG_GET_PRECOPY_INFO
struct vfio_precopy_info {
        __u32 argsz;
        __u32 flags;
        __aligned_u64 initial_bytes;
        __aligned_u64 dirty_bytes;
};
#define VFIO_MIG_GET_PRECOPY_INFO _IO(VFIO_TYPE, VFIO_BASE + 21)
#endif

/* "VFIO_DEVICE_FEATURE_MIG_DATA_SIZE": how much STOP_COPY would give now. Linux 6.2. */
#ifndef VFIO_DEVICE_FEATURE_MIG_DATA_SIZE
struct vfio_device_feature_mig_data_size {
        __aligned_u64 stop_copy_length;
};
#define VFIO_DEVICE_FEATURE_MIG_DATA_SIZE 9
#endif

/* "VFIO_DEVICE_BIND_IOMMUFD - _IOR(VFIO_TYPE, VFIO_BASE + 18)": the first that a device's own file (cdev) is told.
 * Linux 6.6. */
#ifndef VFIO_DEVICE_BIND_IOMMUFD
struct vfio_device_bind_iommufd {
        __u32 argsz;
        __u32 flags;
        __s32 iommufd;
        __u32 out_devid;
};
#define VFIO_DEVICE_BIND_IOMMUFD _IO(VFIO_TYPE, VFIO_BASE + 18)
#endif

/* "VFIO_DEVICE_ATTACH_IOMMUFD_PT - _IOW(VFIO_TYPE, VFIO_BASE + 19)". Linux 6.6. */
#ifndef VFIO_DEVICE_ATTACH_IOMMUFD_PT
struct vfio_device_attach_iommufd_pt {
        __u32 argsz;
        __u32 flags;
        __u32 pt_id;
};
#define VFIO_DEVICE_ATTACH_IOMMUFD_PT _IO(VFIO_TYPE, VFIO_BASE + 19)
#endif

/* iommufd.h, "IOMMU_IOAS_ALLOC": an I/O address space, empty. Linux 6.2. */
#ifndef IOMMU_IOAS_ALLOC
struct iommu_ioas_alloc {
        __u32 size;
        __u32 flags;
        __u32 out_ioas_id;
};
#define IOMMU_IOAS_ALLOC _IO(';', 0x81)
#endif

static_assert((int) DEVICE_STATE_ERROR == (int) VFIO_DEVICE_STATE_ERROR &&
                      (int) DEVICE_STATE_STOP == (int) VFIO_DEVICE_STATE_STOP &&
                      (int) DEVICE_STATE_RUNNING == (int) VFIO_DEVICE_STATE_RUNNING &&
                      (int) DEVICE_STATE_STOP_COPY == (int) VFIO_DEVICE_STATE_STOP_COPY &&
                      (int) DEVICE_STATE_RESUMING == (int) VFIO_DEVICE_STATE_RESUMING &&
                      (int) DEVICE_STATE_RUNNING_P2P == (int) VFIO_DEVICE_STATE_RUNNING_P2P,
              "states are the kernel's");
static_assert((int) DEVICE_MIGRATION_STOP_COPY == VFIO_MIGRATION_STOP_COPY &&
                      (int) DEVICE_MIGRATION_P2P == VFIO_MIGRATION_P2P &&
                      (int) DEVICE_MIGRATION_PRE_COPY == VFIO_MIGRATION_PRE_COPY,
              "flags are the kernel's");
