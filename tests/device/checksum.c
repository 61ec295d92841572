/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "checksum.h"

#include <string.h>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

#define POLYNOMIAL UINT32_C(0x82f63b78) /* bit-reversed: the highest power is the lowest bit */

/* table[k][b]: the remainder of byte b with k bytes of zeros after it. Written once, before main(). */
static uint32_t table[8][256];

__attribute__((constructor)) static void fill_table(void)
{
        for (uint32_t b = 0; b < 256; b++) {
                uint32_t crc = b;

                for (int bit = 0; bit < 8; bit++)
                        crc = (crc >> 1) ^ ((crc & 1) ? POLYNOMIAL : 0);
                table[0][b] = crc;
        }
        for (int k = 1; k < 8; k++)
                for (uint32_t b = 0; b < 256; b++)
                        table[k][b] = (table[k - 1][b] >> 8) ^ table[0][table[k - 1][b] & 0xff];
}

static uint32_t add_by_table(uint32_t crc, const uint8_t *p, size_t n)
{
        for (; n >= 8; p += 8, n -= 8)
                crc = table[7][p[0] ^ (crc & 0xff)] ^ table[6][p[1] ^ (crc >> 8 & 0xff)] ^
                      table[5][p[2] ^ (crc >> 16 & 0xff)] ^ table[4][p[3] ^ (crc >> 24)] ^ table[3][p[4]] ^
                      table[2][p[5]] ^ table[1][p[6]] ^ table[0][p[7]];
        for (; n > 0; p++, n--)
                crc = (crc >> 8) ^ table[0][(crc ^ *p) & 0xff];
        return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t add_by_instruction(uint32_t crc, const uint8_t *p, size_t n)
{
        uint64_t wide = crc;

        for (; n >= 8; p += 8, n -= 8) {
                uint64_t word;

                memcpy(&word, p, sizeof word);
                wide = _mm_crc32_u64(wide, word);
        }
        crc = (uint32_t) wide;
        for (; n > 0; p++, n--)
                crc = _mm_crc32_u8(crc, *p);
        return crc;
}
#endif

uint32_t checksum_add(uint32_t crc, const void *data, size_t n)
{
#if defined(__x86_64__)
        if (__builtin_cpu_supports("sse4.2"))
                return ~add_by_instruction(~crc, data, n);
#endif
        return ~add_by_table(~crc, data, n);
}

/* a times b, modulo the polynomial; 1 is the highest bit. */
static uint32_t multiply(uint32_t a, uint32_t b)
{
        uint32_t product = 0;

        for (; a; a <<= 1) {
                if (a & UINT32_C(0x80000000))
                        product ^= b;
                b = (b >> 1) ^ ((b & 1) ? POLYNOMIAL : 0);
        }
        return product;
}

uint32_t checksum_join(uint32_t a, uint32_t b, uint64_t b_length)
{
        uint32_t power =
                UINT32_C(0x80000000) >> 8; /* one byte further: x to the 8th, then squared and squared */

        for (; b_length; b_length >>= 1) {
                if (b_length & 1)
                        a = multiply(power, a);
                power = multiply(power, power);
        }
        return a ^ b;
}
