/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The oracle is the layout in docs/wire.md, written out byte by byte. */

#include "daemon/peer/frame.h"
#include "test.h"

#define MAX_LENGTH 0x100000u /* 1 MiB */

static const struct {
        Frame frame;
        uint8_t bytes[FRAME_HEADER_SIZE];
} known[] = {
        {{FRAME_DATA, 0, 1, 0},
         {'M', 'G', 'D', '1', 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0}},
        {{FRAME_DATA, 0x1122334455667788, 0x0f1e2d, 0xa1b2c3d4},
         {'M',  'G',  'D',  '1',  1,    0,    0,    0,    0x88, 0x77, 0x66, 0x55,
          0x44, 0x33, 0x22, 0x11, 0x2d, 0x1e, 0x0f, 0x00, 0xd4, 0xc3, 0xb2, 0xa1}},
        {{FRAME_DATA, UINT64_MAX, MAX_LENGTH, UINT32_MAX},
         {'M',  'G',  'D',  '1',  1, 0, 0,    0, 0xff, 0xff, 0xff, 0xff,
          0xff, 0xff, 0xff, 0xff, 0, 0, 0x10, 0, 0xff, 0xff, 0xff, 0xff}},
        {{FRAME_END, 0x8000, 0, 0},
         {'M', 'G', 'D', '1', 2, 0, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}},
        {{FRAME_ERROR, 0, 0, 0},
         {'M', 'G', 'D', '1', 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}},
        {{FRAME_MEMORY, 0, 0, 0},
         {'M', 'G', 'D', '1', 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}},
        {{FRAME_SLOT, 0x0102, 0x100000, 0, 3},
         {'M', 'G', 'D', '1', 7, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 3, 0, 0, 0}},
};

static bool has_payload(uint32_t type)
{
        return type == 1 || type == 5 || type == 7;
}

static void make(uint8_t *bytes, uint16_t type, uint32_t length, uint32_t crc)
{
        memset(bytes, 0, FRAME_HEADER_SIZE);
        memcpy(bytes, "MGD1", 4);
        for (int i = 0; i < 2; i++)
                bytes[4 + i] = (uint8_t) (type >> 8 * i);
        for (int i = 0; i < 4; i++) {
                bytes[16 + i] = (uint8_t) (length >> 8 * i);
                bytes[20 + i] = (uint8_t) (crc >> 8 * i);
        }
}

/* 0 or -EBADMSG; what is refused leaves the result as it was. */
static int decode(const uint8_t *bytes)
{
        Frame frame = {.type = FRAME_ERROR, .offset = 42, .length = 43, .crc = 44};
        int r = frame_decode(bytes, &frame);

        if (r < 0)
                assert_true(frame.type == FRAME_ERROR && frame.offset == 42 && frame.length == 43 &&
                            frame.crc == 44);
        return r;
}

static void test_frames_are_these_bytes_on_the_wire(void **state)
{
        for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
                uint8_t bytes[FRAME_HEADER_SIZE];
                Frame frame;

                memset(bytes, 0xee, sizeof bytes);
                frame_encode(&known[i].frame, bytes);
                assert_memory_equal(bytes, known[i].bytes, sizeof bytes);
                assert_int_equal(frame_decode(known[i].bytes, &frame), 0);
                assert_int_equal(frame.type, known[i].frame.type);
                assert_true(frame.offset == known[i].frame.offset);
                assert_int_equal(frame.length, known[i].frame.length);
                assert_int_equal(frame.crc, known[i].frame.crc);
                assert_int_equal(frame.slot, known[i].frame.slot);
        }
}

static void test_only_data_carries_bytes_and_at_most_a_mebibyte(void **state)
{
        static const uint32_t lengths[] = {0,          1,          2,          MAX_LENGTH - 1, MAX_LENGTH,
                                           0x100001,   0x1000000,  0x7fffffff, 0x80000000,     0x80000001,
                                           UINT32_MAX, 0xffefffff, 0xfff00000};
        uint8_t bytes[FRAME_HEADER_SIZE];

        for (uint16_t type = FRAME_DATA; type <= FRAME_SLOT; type++)
                for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
                        bool fits = lengths[i] > 0 && lengths[i] <= MAX_LENGTH;

                        make(bytes, type, lengths[i], 0);
                        assert_int_equal(decode(bytes),
                                         (has_payload(type) ? fits : lengths[i] == 0) ? 0 : -EBADMSG);
                }
}

static void test_a_frame_without_payload_has_no_checksum(void **state)
{
        uint8_t bytes[FRAME_HEADER_SIZE];

        for (uint16_t type = FRAME_END; type <= FRAME_MEMORY; type++)
                for (int bit = 0; bit < 32 && !has_payload(type); bit++) {
                        make(bytes, type, 0, 1u << bit);
                        assert_int_equal(decode(bytes), -EBADMSG);
                }
}

static void test_there_are_seven_types(void **state)
{
        uint8_t bytes[FRAME_HEADER_SIZE];

        for (uint32_t type = 0; type <= UINT16_MAX; type++) {
                int as_data, as_end;

                make(bytes, (uint16_t) type, 1, 0);
                as_data = decode(bytes);
                make(bytes, (uint16_t) type, 0, 0);
                as_end = decode(bytes);
                assert_int_equal(as_data, has_payload(type) ? 0 : -EBADMSG);
                assert_int_equal(as_end, (type >= 2 && type <= 4) || type == 6 ? 0 : -EBADMSG);
        }
}

static void test_there_are_four_slots(void **state)
{
        uint8_t bytes[FRAME_HEADER_SIZE];

        for (uint32_t slot = 0; slot < 8; slot++) {
                make(bytes, FRAME_SLOT, 1, slot);
                assert_int_equal(decode(bytes), slot < 4 ? 0 : -EBADMSG);
        }
        for (int bit = 2; bit < 32; bit++) {
                make(bytes, FRAME_SLOT, 1, 1u << bit);
                assert_int_equal(decode(bytes), -EBADMSG);
        }
}

static void test_magic_and_reserved_bits_are_as_written(void **state)
{
        static const uint8_t at[] = {0, 1, 2, 3, 6, 7};

        for (size_t i = 0; i < ARRAY_SIZE(at); i++)
                for (int bit = 0; bit < 8; bit++) {
                        uint8_t bytes[FRAME_HEADER_SIZE];

                        make(bytes, FRAME_DATA, 1, 0);
                        assert_int_equal(decode(bytes), 0);
                        bytes[at[i]] ^= (uint8_t) (1 << bit);
                        assert_int_equal(decode(bytes), -EBADMSG);
                }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_frames_are_these_bytes_on_the_wire),
                cmocka_unit_test(test_only_data_carries_bytes_and_at_most_a_mebibyte),
                cmocka_unit_test(test_a_frame_without_payload_has_no_checksum),
                cmocka_unit_test(test_there_are_seven_types),
                cmocka_unit_test(test_there_are_four_slots),
                cmocka_unit_test(test_magic_and_reserved_bits_are_as_written),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
