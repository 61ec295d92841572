/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory.h"

/* Any word can be computed alone: a multiple of an odd number, well mixed. Fast because no step waits for the one
 * before it. */
static uint64_t random_word(uint64_t seed, uint64_t i)
{
        uint64_t x = (seed << 32 ^ i) * UINT64_C(0x9e3779b97f4a7c15);

        x = (x ^ x >> 32) * UINT64_C(0xd6e8feb86659fd93);
        x = (x ^ x >> 32) * UINT64_C(0xd6e8feb86659fd93);
        return x ^ x >> 32;
}

int memory_init(Memory *m, uint64_t size, uint64_t seed)
{
        *m = (Memory){.size = size, .seed = seed};
        if ((size_t) size == size)
                m->data = malloc(MAX((size_t) size, (size_t) 1));
        if (!m->data)
                return -ENOMEM;
        memory_restore(m);
        return 0;
}

void memory_done(Memory *m)
{
        memory_unwatch(m);
        free(TAKE_PTR(m->data));
}

static void touch(Memory *m, uint64_t offset, uint64_t n)
{
        if (!m->dirty || n == 0)
                return;
        for (uint64_t page = offset / MEMORY_PAGE; page <= (offset + n - 1) / MEMORY_PAGE; page++)
                m->dirty[page / 8] |= (uint8_t) (1 << page % 8);
}

void memory_restore(Memory *m)
{
        uint64_t words = m->size / 8, tail = m->size % 8;

        for (uint64_t i = 0; i < words; i++) {
                uint64_t word = i ? random_word(m->seed, i) : 0;

                memcpy(m->data + i * 8, &word, sizeof word);
        }
        if (tail) {
                uint64_t word = random_word(m->seed, words);

                memcpy(m->data + words * 8, &word, tail);
        }
        touch(m, 0, m->size);
}

void memory_write(Memory *m, uint64_t offset, const void *data, uint64_t n)
{
        if (n)
                memcpy(m->data + offset, data, n);
        touch(m, offset, n);
}

uint64_t memory_counter(const Memory *m)
{
        uint64_t counter = 0;

        if (memory_has_counter(m))
                memcpy(&counter, m->data, sizeof counter);
        return counter;
}

void memory_count(Memory *m)
{
        uint64_t counter = memory_counter(m) + 1;

        memory_write(m, 0, &counter, sizeof counter);
}

void memory_change(Memory *m, uint64_t page)
{
        uint64_t offset = page * MEMORY_PAGE + sizeof(uint64_t), word;

        memcpy(&word, m->data + offset, sizeof word);
        word++;
        memory_write(m, offset, &word, sizeof word);
}

int memory_watch(Memory *m)
{
        uint8_t *dirty = calloc(memory_pages(m) / 8 + 1, 1);

        if (!dirty)
                return -ENOMEM;
        memory_unwatch(m);
        m->dirty = dirty;
        return 0;
}

void memory_unwatch(Memory *m)
{
        free(TAKE_PTR(m->dirty));
}

uint64_t memory_next_dirty(const Memory *m, uint64_t page)
{
        uint64_t n = memory_pages(m);

        while (page < n && !(m->dirty[page / 8] >> page % 8 & 1))
                page += page % 8 == 0 && m->dirty[page / 8] == 0 ? 8 : 1;
        return MIN(page, n);
}

void memory_clean(Memory *m, uint64_t page)
{
        m->dirty[page / 8] &= (uint8_t) ~(1 << page % 8);
}
