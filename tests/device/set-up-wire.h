/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* How a VMM sets a device up, on the wire: memory, regions, interrupts, and the logging of what the device writes.
 *
 * Source: QEMU's docs/interop/vfio-user.rst and linux/vfio.h, and what libvfio-user really answers. Host byte order, no
 * padding beyond what stands here.
 */

#include <assert.h>
#include <stdint.h>

/* ---- DMA_MAP, DMA_UNMAP -------------------------------------------------------------------------------------- */

typedef struct WireDmaMap {
        uint32_t argsz, flags;
        uint64_t offset; /* in the file, if one came with it */
        uint64_t address;
        uint64_t size;
} WireDmaMap;
static_assert(sizeof(WireDmaMap) == 32, "vfio-user DMA_MAP");

enum {
        WIRE_DMA_READABLE = 1 << 0,
        WIRE_DMA_WRITEABLE = 1 << 1,
};

/* Reply too; with WIRE_UNMAP_BITMAP a WireBitmap follows, and in the reply the bits. */
typedef struct WireDmaUnmap {
        uint32_t argsz, flags;
        uint64_t address;
        uint64_t size;
} WireDmaUnmap;
static_assert(sizeof(WireDmaUnmap) == 24, "vfio-user DMA_UNMAP");

enum {
        WIRE_UNMAP_BITMAP = 1 << 0,
        WIRE_UNMAP_ALL = 1 << 1, /* address and size are 0 */
};

typedef struct WireBitmap {
        uint64_t page_size;
        uint64_t size; /* of the bits, in bytes */
} WireBitmap;
static_assert(sizeof(WireBitmap) == 16, "vfio-user DMA_UNMAP bitmap");

/* ---- DEVICE_GET_REGION_INFO ---------------------------------------------------------------------------------- */

typedef struct WireRegionInfo {
        uint32_t argsz, flags, index, cap_offset;
        uint64_t size, offset;
} WireRegionInfo;
static_assert(sizeof(WireRegionInfo) == 32, "vfio-user DEVICE_GET_REGION_INFO");

enum {
        WIRE_REGION_READ = 1 << 0,
        WIRE_REGION_WRITE = 1 << 1,
        WIRE_REGION_MMAP = 1 << 2,
        WIRE_REGION_CAPS = 1 << 3,
};

/* The capability that says which parts can be mapped, with the only part that we have. */
typedef struct WireSparse {
        uint16_t id, version;
        uint32_t next;
        uint32_t nr_areas, reserved;
        uint64_t offset, size;
} WireSparse;
static_assert(sizeof(WireSparse) == 32, "vfio-user sparse mmap capability");

#define WIRE_SPARSE_ID 1

/* ---- DEVICE_GET_IRQ_INFO, DEVICE_SET_IRQS -------------------------------------------------------------------- */

typedef struct WireIrqInfo {
        uint32_t argsz, flags, index, count;
} WireIrqInfo;
static_assert(sizeof(WireIrqInfo) == 16, "vfio-user DEVICE_GET_IRQ_INFO");

#define WIRE_IRQ_EVENTFD 1

/* With WIRE_IRQ_DATA_BOOL one byte for each interrupt follows. */
typedef struct WireIrqSet {
        uint32_t argsz, flags, index, start, count;
} WireIrqSet;
static_assert(sizeof(WireIrqSet) == 20, "vfio-user DEVICE_SET_IRQS");

enum {
        WIRE_IRQ_DATA_NONE = 1 << 0,
        WIRE_IRQ_DATA_BOOL = 1 << 1,
        WIRE_IRQ_DATA_EVENTFD = 1 << 2,
        WIRE_IRQ_MASK = 1 << 3,
        WIRE_IRQ_UNMASK = 1 << 4,
        WIRE_IRQ_TRIGGER = 1 << 5,
};

/* ---- features 6 and 8: logging ------------------------------------------------------------------------------- */

/* Ranges follow, of two u64 each. */
typedef struct WireLogStart {
        uint64_t page_size;
        uint32_t num_ranges, reserved;
} WireLogStart;
static_assert(sizeof(WireLogStart) == 16, "vfio-user DMA_LOGGING_START");

/* In the reply the bits follow. */
typedef struct WireLogReport {
        uint64_t address, length, page_size;
} WireLogReport;
static_assert(sizeof(WireLogReport) == 24, "vfio-user DMA_LOGGING_REPORT");
