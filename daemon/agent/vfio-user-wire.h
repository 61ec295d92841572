/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* vfio-user on the wire: numbers and layouts, nothing else.
 *
 * Source: QEMU's docs/interop/vfio-user.rst, and what libvfio-user really answers. Host byte order, no padding beyond
 * what stands here. A message is this header and a payload; files travel with the first byte of the header.
 */

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#define VFIO_USER_MAJOR 0
#define VFIO_USER_MINOR 2 /* what we say; nothing we use depends on the minor */

/* The largest message that libvfio-user takes: 1 MiB of data and the largest fixed part before it. */
#define VFIO_USER_MESSAGE_MAX (1048576 + 32)
#define VFIO_USER_DATA_MAX    1048576 /* default of max_data_xfer_size */
#define VFIO_USER_FDS_MAX     16      /* files that we take with one message */

typedef enum VfioUserCommand {
        VFIO_USER_VERSION = 1,
        VFIO_USER_DMA_MAP = 2,
        VFIO_USER_DMA_UNMAP = 3,
        VFIO_USER_DEVICE_GET_INFO = 4,
        VFIO_USER_DEVICE_GET_REGION_INFO = 5,
        VFIO_USER_DEVICE_GET_REGION_IO_FDS = 6,
        VFIO_USER_DEVICE_GET_IRQ_INFO = 7,
        VFIO_USER_DEVICE_SET_IRQS = 8,
        VFIO_USER_REGION_READ = 9,
        VFIO_USER_REGION_WRITE = 10,
        VFIO_USER_DMA_READ = 11,  /* server to client */
        VFIO_USER_DMA_WRITE = 12, /* server to client */
        VFIO_USER_DEVICE_RESET = 13,
        VFIO_USER_REGION_WRITE_MULTI = 15,
        VFIO_USER_DEVICE_FEATURE = 16,
        VFIO_USER_MIG_DATA_READ = 17,
        VFIO_USER_MIG_DATA_WRITE = 18,
} VfioUserCommand;

enum {
        VFIO_USER_TYPE_MASK = 0xf,
        VFIO_USER_TYPE_COMMAND = 0,
        VFIO_USER_TYPE_REPLY = 1,
        VFIO_USER_NO_REPLY = 1 << 4,
        VFIO_USER_ERROR = 1 << 5,
};

typedef struct VfioUserHeader {
        uint16_t id; /* the sender's choice, repeated in the reply; each direction has its own */
        uint16_t command;
        uint32_t size; /* of the whole message */
        uint32_t flags;
        uint32_t error; /* errno, with VFIO_USER_ERROR; such a reply has no payload */
} VfioUserHeader;
static_assert(sizeof(VfioUserHeader) == 16, "vfio-user header");

/* VERSION, both ways; JSON text with a final NUL follows. */
typedef struct VfioUserVersion {
        uint16_t major, minor;
} VfioUserVersion;
static_assert(sizeof(VfioUserVersion) == 4, "vfio-user VERSION");

/* DEVICE_FEATURE; the feature's data follows. */
typedef struct VfioUserFeature {
        uint32_t argsz; /* request: room for the reply's payload; reply: its size */
        uint32_t flags; /* number of the feature and operations */
} VfioUserFeature;
static_assert(sizeof(VfioUserFeature) == 8, "vfio-user DEVICE_FEATURE");

enum {
        VFIO_USER_FEATURE_MASK = 0xffff,
        VFIO_USER_FEATURE_GET = 1 << 16,
        VFIO_USER_FEATURE_SET = 1 << 17,
        VFIO_USER_FEATURE_PROBE = 1 << 18,
        VFIO_USER_FEATURE_MIGRATION = 1,
        VFIO_USER_FEATURE_MIG_DEVICE_STATE = 2,
        VFIO_USER_FEATURE_DMA_LOGGING_START = 6,
        VFIO_USER_FEATURE_DMA_LOGGING_STOP = 7,
        VFIO_USER_FEATURE_DMA_LOGGING_REPORT = 8,
};

/* Data of feature 1: flags as in the uAPI, STOP_COPY 1, P2P 2, PRE_COPY 4. */
typedef struct VfioUserFeatureMigration {
        uint64_t flags;
} VfioUserFeatureMigration;

/* Data of feature 2. */
typedef struct VfioUserFeatureState {
        uint32_t state;
        int32_t data_fd; /* means nothing here: data goes by MIG_DATA_READ and MIG_DATA_WRITE */
} VfioUserFeatureState;
static_assert(sizeof(VfioUserFeatureState) == 8, "vfio-user device state");

/* Data of feature 6; ranges follow, none: everything that is mapped. */
typedef struct VfioUserFeatureLogStart {
        uint64_t page_size;
        uint32_t n_ranges;
        uint32_t reserved;
} VfioUserFeatureLogStart;
static_assert(sizeof(VfioUserFeatureLogStart) == 16, "vfio-user DMA_LOGGING_START");

/* Data of feature 8, both ways; in the reply the bitmap follows, in whole u64 words. */
typedef struct VfioUserFeatureLogReport {
        uint64_t address;
        uint64_t size;
        uint64_t page_size;
} VfioUserFeatureLogReport;
static_assert(sizeof(VfioUserFeatureLogReport) == 24, "vfio-user DMA_LOGGING_REPORT");

/* MIG_DATA_READ (request and reply) and MIG_DATA_WRITE (request); data follows where there is any. */
typedef struct VfioUserMigData {
        uint32_t argsz;
        uint32_t size; /* of the data. In a reply this counts, not the message's size: libvfio-user pads */
} VfioUserMigData;
static_assert(sizeof(VfioUserMigData) == 8, "vfio-user MIG_DATA");

typedef struct VfioUserDeviceInfo {
        uint32_t argsz, flags, num_regions, num_irqs;
} VfioUserDeviceInfo;
static_assert(sizeof(VfioUserDeviceInfo) == 16, "vfio-user DEVICE_GET_INFO");

enum {
        VFIO_USER_DEVICE_FLAG_RESET = 1 << 0,
        VFIO_USER_DEVICE_FLAG_PCI = 1 << 1,
};

/* REGION_READ, REGION_WRITE; the reply of WRITE repeats it without data. */
typedef struct VfioUserRegionAccess {
        uint64_t offset;
        uint32_t region;
        uint32_t count;
} VfioUserRegionAccess;
static_assert(sizeof(VfioUserRegionAccess) == 16, "vfio-user REGION_READ");

/* DMA_READ, DMA_WRITE. The reply of DMA_WRITE is this too (16 bytes): libvfio-user wants that, whatever the
 * specification's table says. */
typedef struct VfioUserDmaAccess {
        uint64_t address;
        uint64_t count;
} VfioUserDmaAccess;
static_assert(sizeof(VfioUserDmaAccess) == 16, "vfio-user DMA_READ");

/* DMA_MAP; a file may come with it. The reply has no payload. */
typedef struct VfioUserDmaMap {
        uint32_t argsz, flags;
        uint64_t offset; /* in the file */
        uint64_t address, size;
} VfioUserDmaMap;
static_assert(sizeof(VfioUserDmaMap) == 32, "vfio-user DMA_MAP");

enum {
        VFIO_USER_DMA_READABLE = 1 << 0,
        VFIO_USER_DMA_WRITEABLE = 1 << 1,
};

/* DMA_UNMAP, and its reply; with DIRTY a VfioUserDmaBitmap follows, and in the reply the bitmap. */
typedef struct VfioUserDmaUnmap {
        uint32_t argsz, flags;
        uint64_t address, size;
} VfioUserDmaUnmap;
static_assert(sizeof(VfioUserDmaUnmap) == 24, "vfio-user DMA_UNMAP");

enum {
        VFIO_USER_UNMAP_DIRTY = 1 << 0,
        VFIO_USER_UNMAP_ALL = 1 << 1, /* libvfio-user's; address and size are 0 */
};

typedef struct VfioUserDmaBitmap {
        uint64_t page_size;
        uint64_t size; /* of the bitmap, in bytes */
} VfioUserDmaBitmap;
static_assert(sizeof(VfioUserDmaBitmap) == 16, "vfio-user DMA_UNMAP bitmap");

/* DEVICE_GET_REGION_INFO, both ways; capabilities may follow in the reply. */
typedef struct VfioUserRegionInfo {
        uint32_t argsz, flags, index, cap_offset;
        uint64_t size, offset;
} VfioUserRegionInfo;
static_assert(sizeof(VfioUserRegionInfo) == 32, "vfio-user DEVICE_GET_REGION_INFO");

enum {
        VFIO_USER_REGION_FLAG_READ = 1 << 0,
        VFIO_USER_REGION_FLAG_WRITE = 1 << 1,
        VFIO_USER_REGION_FLAG_MMAP = 1 << 2,
        VFIO_USER_REGION_FLAG_CAPS = 1 << 3,
};

#define VFIO_USER_REGION_CAP_SPARSE 1

enum {
        VFIO_USER_REGION_BARS = 6, /* the first of them */
        VFIO_USER_REGION_CONFIG = 7,
};

/* The capability that says which parts can be mapped, with its first part. */
typedef struct VfioUserRegionSparse {
        uint16_t id, version;
        uint32_t next;
        uint32_t nr_areas, reserved;
        uint64_t offset, size;
} VfioUserRegionSparse;
static_assert(sizeof(VfioUserRegionSparse) == 32, "vfio-user sparse mmap capability");

/* DEVICE_GET_IRQ_INFO, both ways. */
typedef struct VfioUserIrqInfo {
        uint32_t argsz, flags, index, count;
} VfioUserIrqInfo;
static_assert(sizeof(VfioUserIrqInfo) == 16, "vfio-user DEVICE_GET_IRQ_INFO");

enum {
        VFIO_USER_IRQ_FLAG_EVENTFD = 1 << 0,
};

/* DEVICE_SET_IRQS; one byte for each vector follows with DATA_BOOL, a file for each comes with DATA_EVENTFD. */
typedef struct VfioUserSetIrqs {
        uint32_t argsz, flags, index, start, count;
} VfioUserSetIrqs;
static_assert(sizeof(VfioUserSetIrqs) == 20, "vfio-user DEVICE_SET_IRQS");

enum {
        VFIO_USER_IRQ_DATA_NONE = 1 << 0,
        VFIO_USER_IRQ_DATA_BOOL = 1 << 1,
        VFIO_USER_IRQ_DATA_EVENTFD = 1 << 2,
        VFIO_USER_IRQ_DATA_MASK = (1 << 3) - 1,
        VFIO_USER_IRQ_ACTION_MASK = 1 << 3,
        VFIO_USER_IRQ_ACTION_UNMASK = 1 << 4,
        VFIO_USER_IRQ_ACTION_TRIGGER = 1 << 5,
        VFIO_USER_IRQ_ACTIONS =
                VFIO_USER_IRQ_ACTION_MASK | VFIO_USER_IRQ_ACTION_UNMASK | VFIO_USER_IRQ_ACTION_TRIGGER,
};

/* REGION_WRITE_MULTI: the number of writes, and the writes. The reply is the number of those that were done. */
typedef struct VfioUserWriteMulti {
        uint64_t count;
} VfioUserWriteMulti;

typedef struct VfioUserWriteOne {
        VfioUserRegionAccess access; /* count at most 8 */
        uint64_t data;
} VfioUserWriteOne;
static_assert(sizeof(VfioUserWriteOne) == 24, "vfio-user REGION_WRITE_MULTI");
