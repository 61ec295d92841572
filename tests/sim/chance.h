/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Numbers by chance, the same for the same seed everywhere. */

#include <stdint.h>

/* splitmix64: public domain, Sebastiano Vigna. */
static inline uint64_t chance(uint64_t *seed)
{
        uint64_t z = (*seed += 0x9e3779b97f4a7c15u);

        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
}

static inline uint32_t chance_below(uint64_t *seed, uint32_t n)
{
        return (uint32_t) (chance(seed) >> 32) % n;
}
