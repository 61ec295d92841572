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

/* x to the 8 * bytes: what a checksum is multiplied by when so many bytes of zeros follow. */
static uint32_t power_of(uint64_t bytes)
{
        uint32_t power = UINT32_C(0x80000000) >> 8, result = UINT32_C(0x80000000);

        for (; bytes; bytes >>= 1) {
                if (bytes & 1)
                        result = multiply(power, result);
                power = multiply(power, power);
        }
        return result;
}

#if defined(__x86_64__)
/* The instruction takes three cycles, and a new one can begin in each: three lanes at a time. Their length makes a page
 * just one round of them. */
#define LANE        1360
#define LANE_WORDS  (LANE / 8)
#define LANES_BYTES ((size_t) (3 * LANE))

/* lane_shift[k][b]: byte k of a checksum, if it is b, after LANE bytes of zeros. */
static uint32_t lane_shift[4][256];

__attribute__((constructor)) static void fill_lane_shift(void)
{
        uint32_t power = power_of(LANE);

        for (int k = 0; k < 4; k++)
                for (uint32_t b = 0; b < 256; b++)
                        lane_shift[k][b] = multiply(power, b << (8 * k));
}

static uint32_t shift_by_lane(uint32_t crc)
{
        return lane_shift[0][crc & 0xff] ^ lane_shift[1][crc >> 8 & 0xff] ^ lane_shift[2][crc >> 16 & 0xff] ^
               lane_shift[3][crc >> 24];
}

__attribute__((target("sse4.2"))) static uint32_t add_lanes(uint32_t crc, const uint8_t *p)
{
        uint64_t a = crc, b = 0, c = 0, words[3];

        for (size_t i = 0; i < LANE_WORDS; i++, p += 8) {
                memcpy(&words[0], p, 8);
                memcpy(&words[1], p + LANE, 8);
                memcpy(&words[2], p + 2 * LANE, 8);
                a = _mm_crc32_u64(a, words[0]);
                b = _mm_crc32_u64(b, words[1]);
                c = _mm_crc32_u64(c, words[2]);
        }
        return shift_by_lane(shift_by_lane((uint32_t) a) ^ (uint32_t) b) ^ (uint32_t) c;
}

__attribute__((target("sse4.2"))) static uint32_t add_by_instruction(uint32_t crc, const uint8_t *p, size_t n)
{
        uint64_t wide;

        for (; n >= LANES_BYTES; p += LANES_BYTES, n -= LANES_BYTES)
                crc = add_lanes(crc, p);
        wide = crc;
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

uint32_t checksum_join(uint32_t a, uint32_t b, uint64_t b_length)
{
        return multiply(power_of(b_length), a) ^ b;
}
