/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The oracle is the layout in docs/wire.md, written out byte by byte. */

#include "daemon/peer/hello.h"
#include "test.h"

/* 32 bytes, no two alike: a token that lands in the wrong place is seen. */
static void make_token(uint8_t *token)
{
        for (size_t i = 0; i < HELLO_TOKEN_SIZE; i++)
                token[i] = (uint8_t) (0xa0 + i);
}

static void make(uint8_t *bytes, uint16_t kind, uint32_t index)
{
        memset(bytes, 0, HELLO_SIZE);
        memcpy(bytes, "MGH1", 4);
        bytes[4] = 1;
        bytes[6] = (uint8_t) kind;
        bytes[7] = (uint8_t) (kind >> 8);
        make_token(bytes + 8);
        for (int i = 0; i < 4; i++)
                bytes[40 + i] = (uint8_t) (index >> 8 * i);
}

static int decode(const uint8_t *bytes)
{
        Hello hello = {.index = 42};
        int r = hello_decode(bytes, &hello);

        if (r < 0)
                assert_int_equal(hello.index, 42);
        return r;
}

static void test_a_hello_is_these_bytes_on_the_wire(void **state)
{
        static const struct {
                HelloKind kind;
                uint32_t index;
        } cases[] = {
                {HELLO_DEVICE, 0}, {HELLO_DEVICE, 0x01020304}, {HELLO_DEVICE, UINT32_MAX}, {HELLO_MEMORY, 0}};

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                Hello hello = {.kind = cases[i].kind, .index = cases[i].index}, got;
                uint8_t expect[HELLO_SIZE], bytes[HELLO_SIZE];

                make_token(hello.token);
                make(expect, cases[i].kind, cases[i].index);
                memset(bytes, 0xee, sizeof bytes);
                hello_encode(&hello, bytes);
                assert_memory_equal(bytes, expect, sizeof bytes);
                assert_int_equal(hello_decode(expect, &got), 0);
                assert_int_equal(got.kind, cases[i].kind);
                assert_int_equal(got.index, cases[i].index);
                assert_memory_equal(got.token, hello.token, sizeof got.token);
        }
}

/* Of the 64 bytes only token and index are free. */
static void test_every_other_bit_is_as_written(void **state)
{
        for (size_t at = 0; at < HELLO_SIZE; at++)
                for (int bit = 0; bit < 8; bit++) {
                        bool is_free = at >= 8 && at < 44;
                        uint8_t bytes[HELLO_SIZE];

                        make(bytes, HELLO_DEVICE, 7);
                        bytes[at] ^= (uint8_t) (1 << bit);
                        assert_int_equal(decode(bytes), is_free ? 0 : -EBADMSG);
                }
}

static void test_there_are_two_kinds(void **state)
{
        for (uint32_t kind = 0; kind <= UINT16_MAX; kind++) {
                uint8_t bytes[HELLO_SIZE];

                make(bytes, (uint16_t) kind, 0);
                assert_int_equal(decode(bytes), kind == 1 || kind == 2 ? 0 : -EBADMSG);
        }
}

static void test_memory_has_no_index(void **state)
{
        for (int bit = 0; bit < 32; bit++) {
                uint8_t bytes[HELLO_SIZE];

                make(bytes, HELLO_MEMORY, 1u << bit);
                assert_int_equal(decode(bytes), -EBADMSG);
        }
}

static void test_no_control_message_begins_like_a_hello(void **state)
{
        static const uint8_t longest[4] = {0, 0, 0x10, 0}; /* the most that a control message announces */
        uint8_t bytes[HELLO_SIZE];
        uint32_t as_length = 0;

        make(bytes, HELLO_DEVICE, 0);
        assert_true(hello_is_magic(bytes));
        for (int i = 3; i >= 0; i--)
                as_length = as_length << 8 | bytes[i];
        assert_true(as_length > 1024 * 1024);
        assert_false(hello_is_magic(longest));
        assert_false(hello_is_magic((const uint8_t[4]){'M', 'G', 'D', '1'}));
}

static void test_tokens_travel_as_64_hex_digits(void **state)
{
        static const char text[] = "a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebf";
        uint8_t token[HELLO_TOKEN_SIZE], got[HELLO_TOKEN_SIZE];
        char written[2 * HELLO_TOKEN_SIZE + 1];

        make_token(token);
        hello_token_text(token, written);
        assert_string_equal(written, text);
        assert_int_equal(hello_token_parse(text, got), 0);
        assert_memory_equal(got, token, sizeof got);
}

static void test_what_is_no_token_is_refused_and_leaves_none(void **state)
{
        char good[2 * HELLO_TOKEN_SIZE + 2], bad[sizeof good];
        uint8_t token[HELLO_TOKEN_SIZE], before[HELLO_TOKEN_SIZE];

        memset(good, '7', sizeof good - 1);
        good[2 * HELLO_TOKEN_SIZE + 1] = 0;
        make_token(before);
        make_token(token);
        for (size_t n = 0; n < sizeof good; n++) {
                memcpy(bad, good, sizeof bad);
                bad[n] = 0; /* n digits */
                if (n == 2 * HELLO_TOKEN_SIZE)
                        continue;
                assert_int_equal(hello_token_parse(bad, token), -EBADMSG);
        }
        for (size_t at = 0; at < 2 * HELLO_TOKEN_SIZE; at++)
                for (const char *c = "gGA/:`@ -\xff"; *c; c++) {
                        memcpy(bad, good, sizeof bad);
                        bad[2 * HELLO_TOKEN_SIZE] = 0;
                        bad[at] = *c;
                        assert_int_equal(hello_token_parse(bad, token), -EBADMSG);
                }
        assert_memory_equal(token, before, sizeof token);
}

static void test_tokens_are_equal_only_when_every_bit_is(void **state)
{
        uint8_t a[HELLO_TOKEN_SIZE], b[HELLO_TOKEN_SIZE];

        make_token(a);
        make_token(b);
        assert_true(hello_token_equal(a, b));
        for (size_t bit = 0; bit < 8 * HELLO_TOKEN_SIZE; bit++) {
                make_token(b);
                b[bit / 8] ^= (uint8_t) (1 << bit % 8);
                assert_false(hello_token_equal(a, b));
        }
}

static void test_a_new_token_is_like_no_other(void **state)
{
        uint8_t a[HELLO_TOKEN_SIZE] = {}, b[HELLO_TOKEN_SIZE] = {}, zero[HELLO_TOKEN_SIZE] = {};

        assert_int_equal(hello_token(a), 0);
        assert_int_equal(hello_token(b), 0);
        assert_false(hello_token_equal(a, b));
        assert_false(hello_token_equal(a, zero));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_hello_is_these_bytes_on_the_wire),
                cmocka_unit_test(test_every_other_bit_is_as_written),
                cmocka_unit_test(test_there_are_two_kinds),
                cmocka_unit_test(test_memory_has_no_index),
                cmocka_unit_test(test_no_control_message_begins_like_a_hello),
                cmocka_unit_test(test_tokens_travel_as_64_hex_digits),
                cmocka_unit_test(test_what_is_no_token_is_refused_and_leaves_none),
                cmocka_unit_test(test_tokens_are_equal_only_when_every_bit_is),
                cmocka_unit_test(test_a_new_token_is_like_no_other),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
