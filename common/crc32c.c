/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "crc32c.h"

#include <stdbool.h>
#include <string.h>

#define POLYNOMIAL 0x82f63b78u /* 0x1edc6f41, reflected */

static uint32_t table[256];

static void __attribute__((constructor)) make_table(void)
{
        for (uint32_t i = 0; i < 256; i++) {
                uint32_t crc = i;

                for (int bit = 0; bit < 8; bit++)
                        crc = (crc >> 1) ^ (crc & 1 ? POLYNOMIAL : 0);
                table[i] = crc;
        }
}

uint32_t crc32c_portable(const void *data, size_t size)
{
        const uint8_t *p = data;
        uint32_t crc = UINT32_MAX;

        for (size_t i = 0; i < size; i++)
                crc = (crc >> 8) ^ table[(crc ^ p[i]) & 0xff];
        return ~crc;
}

#if defined(__x86_64__)

__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(const void *data, size_t size)
{
        const uint8_t *p = data;
        uint64_t crc = UINT32_MAX;

        for (; size >= 8; size -= 8, p += 8) {
                uint64_t word;

                memcpy(&word, p, sizeof word);
                crc = __builtin_ia32_crc32di(crc, word);
        }
        for (; size > 0; size--, p++)
                crc = __builtin_ia32_crc32qi((uint32_t) crc, *p);
        return ~(uint32_t) crc;
}

uint32_t crc32c(const void *data, size_t size)
{
        if (__builtin_cpu_supports("sse4.2"))
                return crc32c_sse42(data, size);
        return crc32c_portable(data, size);
}

#else

uint32_t crc32c(const void *data, size_t size)
{
        return crc32c_portable(data, size);
}

#endif
