/* SPDX-License-Identifier: LGPL-2.1-or-later */
#define _GNU_SOURCE 1 /* memfd_create */
#include "ram.h"

#include <sys/mman.h>

/* Below 4 GiB and above, with a hole between, as on a PC; and far away what goes by message. */
#define LOW_ADDRESS     UINT64_C(0x40000000)
#define HIGH_ADDRESS    UINT64_C(0x100000000)
#define MESSAGE_ADDRESS UINT64_C(0x800000000)
#define MESSAGE_PART    8 /* of the memory: one of so many */

#define BITS 64

int ram_new(uint64_t size, Ram **ret)
{
        _cleanup_(ram_freep) Ram *ram = calloc(1, sizeof *ram);
        uint64_t low = size / 2, by_message = size / MESSAGE_PART;
        void *base;

        if (!ram)
                return -ENOMEM;
        ram->fd = memfd_create("guest-ram", MFD_CLOEXEC);
        if (ram->fd < 0 || ftruncate(ram->fd, (off_t) size) < 0)
                return -errno;
        base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, ram->fd, 0);
        if (base == MAP_FAILED)
                return -errno;
        ram->base = base;
        ram->size = size;
        ram->pages = size / RAM_PAGE;
        ram->areas[0] = (RamArea){LOW_ADDRESS, 0, low, false};
        ram->areas[1] = (RamArea){HIGH_ADDRESS, low, size - low - by_message, false};
        ram->areas[2] = (RamArea){MESSAGE_ADDRESS, size - by_message, by_message, true};
        ram->dirty = calloc((ram->pages + BITS - 1) / BITS, sizeof *ram->dirty);
        if (!ram->dirty)
                return -ENOMEM;
        *ret = TAKE_PTR(ram);
        return 0;
}

Ram *ram_free(Ram *ram)
{
        if (!ram)
                return NULL;
        if (ram->base)
                (void) munmap(ram->base, ram->size);
        if (ram->fd >= 0)
                (void) close(ram->fd);
        free(ram->dirty);
        free(ram);
        return NULL;
}

void ram_mark(Ram *ram, uint64_t offset, uint64_t n)
{
        if (n == 0)
                return;
        for (uint64_t page = offset / RAM_PAGE; page <= (offset + n - 1) / RAM_PAGE; page++)
                (void) __atomic_fetch_or(&ram->dirty[page / BITS], UINT64_C(1) << page % BITS,
                                         __ATOMIC_RELEASE);
}

void ram_store(Ram *ram, void *where, const void *data, size_t n)
{
        /* In this order: whoever took the note before the bytes were there finds it again. The other way round, the page
         * could be taken and read between note and bytes, and nobody would come back for it. */
        memcpy(where, data, n);
        ram_mark(ram, (uint64_t) ((uint8_t *) where - ram->base), n);
}

bool ram_take(Ram *ram, uint64_t page)
{
        uint64_t bit = UINT64_C(1) << page % BITS;

        if (!(__atomic_load_n(&ram->dirty[page / BITS], __ATOMIC_RELAXED) & bit))
                return false;
        return __atomic_fetch_and(&ram->dirty[page / BITS], ~bit, __ATOMIC_ACQ_REL) & bit;
}

uint64_t ram_count_dirty(const Ram *ram)
{
        uint64_t n = 0;

        for (uint64_t i = 0; i < (ram->pages + BITS - 1) / BITS; i++)
                n += (uint64_t) __builtin_popcountll(__atomic_load_n(&ram->dirty[i], __ATOMIC_RELAXED));
        return n;
}

uint8_t *ram_find(const Ram *ram, uint64_t address, uint64_t n)
{
        for (unsigned i = 0; i < RAM_AREAS; i++) {
                const RamArea *area = &ram->areas[i];

                if (address >= area->address && address - area->address <= area->size &&
                    n <= area->size - (address - area->address))
                        return ram->base + area->offset + (address - area->address);
        }
        return NULL;
}

uint64_t ram_address(const Ram *ram, const void *where)
{
        uint64_t offset = (uint64_t) ((const uint8_t *) where - ram->base);
        unsigned i = RAM_AREAS - 1;

        while (offset < ram->areas[i].offset)
                i--;
        return ram->areas[i].address + (offset - ram->areas[i].offset);
}
