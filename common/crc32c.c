/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "crc32c.h"

#include <endian.h>
#include <stdbool.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#define POLYNOMIAL 0x82f63b78u /* 0x1edc6f41, reflected */

/* table[k][b]: what byte b does when k more bytes follow it: eight bytes are looked up at a time. */
static uint32_t table[8][256];

static void __attribute__((constructor)) make_table(void)
{
        for (uint32_t i = 0; i < 256; i++) {
                uint32_t crc = i;

                for (int bit = 0; bit < 8; bit++)
                        crc = (crc >> 1) ^ (crc & 1 ? POLYNOMIAL : 0);
                table[0][i] = crc;
        }
        for (int k = 1; k < 8; k++)
                for (uint32_t i = 0; i < 256; i++)
                        table[k][i] = (table[k - 1][i] >> 8) ^ table[0][table[k - 1][i] & 0xff];
}

uint32_t crc32c_portable(const void *data, size_t size)
{
        const uint8_t *p = data;
        uint32_t crc = UINT32_MAX;

        for (; size >= 8; size -= 8, p += 8) {
                uint64_t word;

                memcpy(&word, p, sizeof word);
                word = le64toh(word) ^ crc;
                crc = table[7][word & 0xff] ^ table[6][word >> 8 & 0xff] ^ table[5][word >> 16 & 0xff] ^
                      table[4][word >> 24 & 0xff] ^ table[3][word >> 32 & 0xff] ^
                      table[2][word >> 40 & 0xff] ^ table[1][word >> 48 & 0xff] ^ table[0][word >> 56];
        }
        for (; size > 0; size--, p++)
                crc = (crc >> 8) ^ table[0][(crc ^ *p) & 0xff];
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

static bool has_fast_instruction;

/* QEMU's emulation takes the instruction for each bit by itself: the table is four times as fast there. "Hypervisor CPUID
 * leaf": who emulates or virtualizes says its name in 0x40000000. */
static void __attribute__((constructor)) look_at_processor(void)
{
        uint32_t eax, ebx, ecx, edx;
        char name[13] = "";

        __builtin_cpu_init();
        has_fast_instruction = __builtin_cpu_supports("sse4.2");
        if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & (1u << 31)))
                return;
        __cpuid(0x40000000, eax, ebx, ecx, edx);
        memcpy(name, &ebx, 4);
        memcpy(name + 4, &ecx, 4);
        memcpy(name + 8, &edx, 4);
        if (strcmp(name, "TCGTCGTCGTCG") == 0)
                has_fast_instruction = false;
}

uint32_t crc32c(const void *data, size_t size)
{
        if (has_fast_instruction)
                return crc32c_sse42(data, size);
        return crc32c_portable(data, size);
}

#else

uint32_t crc32c(const void *data, size_t size)
{
        return crc32c_portable(data, size);
}

#endif
