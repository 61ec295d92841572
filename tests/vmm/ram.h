/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The guest's memory: one file that device servers map, and a note of every page that this process has written.
 *
 * Who writes here are the vCPU thread, by ram_store(), and the devices' threads for a DMA_WRITE, by ram_store() too.
 * What a device writes through its own mapping of the file is not seen: nobody but the device knows of it
 * (Delegate.TakeDirtyPages brings it).
 *
 * Guest physical addresses, which are also those that devices use (IOVA), are not offsets: the memory lies in areas,
 * as a board would have them. The last one is given to devices without the file, so that they reach it by message only.
 */

#include "common/macros.h"

#define RAM_PAGE      UINT64_C(4096)
#define RAM_AREAS     3
#define RAM_MIB_MIN   16
#define RAM_MIB_MAX   4096
#define RAM_MIB_COUNT 64 /* unless told otherwise */

typedef struct RamArea {
        uint64_t address, offset, size; /* the offset is that in the file */
        bool by_message;
} RamArea;

typedef struct Ram {
        int fd;
        uint8_t *base;
        uint64_t size, pages;
        RamArea areas[RAM_AREAS];
        uint64_t *dirty;  /* a bit for each page; only by the functions below */
        bool vcpus_serve; /* ... what devices ask for by message, as page faults behind a virtual IOMMU: */
        bool vcpus_stand; /* so that has to wait meanwhile. Atomic */
} Ram;

/* Zeroed, and no page noted. -ENOMEM and what memfd_create() and mmap() say. */
int ram_new(uint64_t size, Ram **ret) _must_check_;
Ram *ram_free(Ram *ram);
DEFINE_CLEANUP(Ram *, ram_free);

/* Writes `n` bytes to `where`, which is inside the memory, and notes the pages. */
void ram_store(Ram *ram, void *where, const void *data, size_t n);

/* Notes the pages of `n` bytes from `offset`, which somebody else has written. */
void ram_mark(Ram *ram, uint64_t offset, uint64_t n);

/* Whether the page was noted; it no longer is. Only then read it: what is written from now on is noted again. */
bool ram_take(Ram *ram, uint64_t page);

/* Pages that are noted. */
uint64_t ram_count_dirty(const Ram *ram);

/* Where a device's address is. NULL unless all `n` bytes are in one area. */
uint8_t *ram_find(const Ram *ram, uint64_t address, uint64_t n);

/* The address of something in the memory. */
uint64_t ram_address(const Ram *ram, const void *where);
