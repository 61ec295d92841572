/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The oracle is the definition of CRC-32C: long division, a bit at a time, by 0x1edc6f41 without reflecting anything;
 * bits enter lowest first, and the remainder is read backwards. No table, no instruction. */

#include "common/crc32c.h"
#include "common/macros.h"
#include "test.h"

#define ALIGNMENTS 16
#define LENGTHS    300

static uint32_t divide(const uint8_t *p, size_t size)
{
        uint32_t rest = UINT32_MAX, backwards = 0;

        for (size_t bit = 0; bit < 8 * size; bit++) {
                uint32_t in = p[bit / 8] >> bit % 8 & 1;

                rest = (rest << 1) ^ ((rest >> 31 ^ in) ? 0x1edc6f41u : 0);
        }
        for (int i = 0; i < 32; i++)
                backwards |= (rest >> i & 1) << (31 - i);
        return ~backwards;
}

static void fill(uint8_t *p, size_t size)
{
        uint32_t x = 2463534242u; /* xorshift */

        for (size_t i = 0; i < size; i++) {
                x ^= x << 13;
                x ^= x >> 17;
                x ^= x << 5;
                p[i] = (uint8_t) x;
        }
}

/* RFC 3720, B.4, and the usual check value. */
static void test_published_values(void **state)
{
        uint8_t up[32], down[32], zeros[32] = {}, ones[32];
        const struct {
                const void *data;
                size_t size;
                uint32_t crc;
        } cases[] = {
                {"", 0, 0},
                {"123456789", 9, 0xe3069283},
                {zeros, 32, 0x8a9136aa},
                {ones, 32, 0x62a8ab43},
                {up, 32, 0x46dd794e},
                {down, 32, 0x113fdb5c},
        };

        for (uint8_t i = 0; i < 32; i++) {
                up[i] = i;
                down[i] = 31 - i;
                ones[i] = 0xff;
        }
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                assert_int_equal(divide(cases[i].data, cases[i].size), cases[i].crc);
                assert_int_equal(crc32c(cases[i].data, cases[i].size), cases[i].crc);
                assert_int_equal(crc32c_portable(cases[i].data, cases[i].size), cases[i].crc);
        }
}

static void test_both_ways_agree_at_every_alignment_and_length(void **state)
{
        uint8_t *room = malloc(ALIGNMENTS + LENGTHS);

        assert_non_null(room);
        fill(room, ALIGNMENTS + LENGTHS);
        for (size_t at = 0; at < ALIGNMENTS; at++)
                for (size_t size = 0; size <= LENGTHS; size++) {
                        uint32_t crc = divide(room + at, size);

                        assert_int_equal(crc32c(room + at, size), crc);
                        assert_int_equal(crc32c_portable(room + at, size), crc);
                }
        free(room);
}

static void test_both_ways_agree_on_the_largest_frame(void **state)
{
        uint8_t *room = malloc(MIB + 1);

        assert_non_null(room);
        fill(room, MIB + 1);
        assert_int_equal(crc32c(room, MIB), crc32c_portable(room, MIB));
        assert_int_equal(crc32c(room + 1, MIB), crc32c_portable(room + 1, MIB));
        free(room);
}

static void test_any_one_bit_that_flips_is_seen(void **state)
{
        uint8_t data[64];
        uint32_t crc;

        fill(data, sizeof data);
        crc = crc32c(data, sizeof data);
        for (size_t bit = 0; bit < 8 * sizeof data; bit++) {
                data[bit / 8] ^= (uint8_t) (1 << bit % 8);
                assert_int_not_equal(crc32c(data, sizeof data), crc);
                data[bit / 8] ^= (uint8_t) (1 << bit % 8);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_published_values),
                cmocka_unit_test(test_both_ways_agree_at_every_alignment_and_length),
                cmocka_unit_test(test_both_ways_agree_on_the_largest_frame),
                cmocka_unit_test(test_any_one_bit_that_flips_is_seen),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
