/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The memory of an emulated device: its whole state. Owned by the Device.
 *
 * Initial contents: the first 8 bytes are a counter, 0; the 8 bytes at offset 8 * i are word i of a random sequence
 * that depends on the seed alone. A memory under 8 bytes has no counter.
 */

#include "common/macros.h"

#define MEMORY_PAGE UINT64_C(4096)

typedef struct Memory {
        uint8_t *data;
        uint64_t size;
        uint64_t seed;
        uint8_t *dirty; /* one bit a page; not NULL while somebody wants to know what changes */
} Memory;

/* -ENOMEM. */
int memory_init(Memory *m, uint64_t size, uint64_t seed) _must_check_;
void memory_done(Memory *m);

/* Back to the initial contents. */
void memory_restore(Memory *m);

static inline bool memory_has(const Memory *m, uint64_t offset, uint64_t n)
{
        return offset <= m->size && n <= m->size - offset;
}

/* The caller has asked memory_has(). */
void memory_write(Memory *m, uint64_t offset, const void *data, uint64_t n);

static inline bool memory_has_counter(const Memory *m)
{
        return m->size >= sizeof(uint64_t);
}

uint64_t memory_counter(const Memory *m); /* 0 without one */
void memory_count(Memory *m);             /* one up */

/* Changes one word of a page, which must be a whole one; never the counter. */
void memory_change(Memory *m, uint64_t page);

static inline uint64_t memory_pages(const Memory *m)
{
        return (m->size + MEMORY_PAGE - 1) / MEMORY_PAGE;
}

static inline uint64_t memory_page_size(const Memory *m, uint64_t page)
{
        return MIN(MEMORY_PAGE, m->size - page * MEMORY_PAGE);
}

/* From here on changed pages are noted, starting with none. -ENOMEM. */
int memory_watch(Memory *m) _must_check_;
void memory_unwatch(Memory *m);

/* The first changed page at or after `page`, or memory_pages(). */
uint64_t memory_next_dirty(const Memory *m, uint64_t page);
void memory_clean(Memory *m, uint64_t page);
