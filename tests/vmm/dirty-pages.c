/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "dirty-pages.h"

#define WORDS_AT_ONCE 512
#define BITS          64

/* Bits `first` and on of a bitmap over the memory from `offset` on. */
static void mark_word(Ram *ram, uint64_t offset, uint64_t word, uint64_t first, uint64_t page_size,
                      uint64_t pages)
{
        for (uint64_t bit = 0; bit < BITS && first + bit < pages; bit++)
                if (word >> bit & 1)
                        ram_mark(ram, offset + (first + bit) * page_size, page_size);
}

int dirty_pages_mark(Ram *ram, uint64_t address, uint64_t page_size, uint64_t pages, int file)
{
        uint64_t words[WORDS_AT_ONCE], n_words = pages / BITS + (pages % BITS > 0);
        const uint8_t *where;

        if (page_size == 0 || pages == 0 || pages > ram->size / page_size)
                return -ERANGE;
        where = ram_find(ram, address, pages * page_size);
        if (!where)
                return -ERANGE;
        for (uint64_t at = 0; at < n_words; at += WORDS_AT_ONCE) {
                size_t n = MIN(n_words - at, WORDS_AT_ONCE) * sizeof *words;
                ssize_t got = pread(file, words, n, (off_t) (at * sizeof *words));

                if (got < 0)
                        return -errno;
                if ((size_t) got != n)
                        return -ENODATA;
                for (size_t i = 0; i < n / sizeof *words; i++)
                        mark_word(ram, (uint64_t) (where - ram->base), words[i], (at + i) * BITS, page_size,
                                  pages);
        }
        return 0;
}
