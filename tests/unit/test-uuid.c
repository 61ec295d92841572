/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "common/uuid.h"
#include "test.h"

static const char good[] = "01234567-89ab-cdef-0123-456789abcdef";

static void test_36_characters_in_lower_case_are_a_uuid(void **state)
{
        assert_true(uuid_is_valid(good));
        assert_true(uuid_is_valid("00000000-0000-0000-0000-000000000000"));
        assert_true(uuid_is_valid("ffffffff-ffff-ffff-ffff-ffffffffffff"));
}

static void test_nothing_else_is(void **state)
{
        static const char *const bad[] = {
                "",
                "0123456789abcdef0123456789abcdef",
                "{01234567-89ab-cdef-0123-456789abcdef}",
                "01234567-89AB-CDEF-0123-456789ABCDEF",
                "01234567-89ab-cdef-0123-456789abcdef0",
                "01234567-89ab-cdef-0123-456789abcdef ",
                "01234567-89ab-cdef-0123-456789abcdef\n",
                " 1234567-89ab-cdef-0123-456789abcdef",
                "012345678-9ab-cdef-0123-456789abcdef",
                "01234567_89ab_cdef_0123_456789abcdef",
        };

        for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
                assert_false(uuid_is_valid(bad[i]));
}

/* At each place, each of the 256 bytes: a digit of the right kind where digits are, a dash where dashes are. */
static void test_every_byte_at_every_place(void **state)
{
        for (size_t at = 0; at < UUID_TEXT_MAX; at++)
                for (int c = 0; c < 256; c++) {
                        bool dash = good[at] == '-';
                        bool digit = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
                        char text[UUID_TEXT_MAX + 1];

                        memcpy(text, good, sizeof text);
                        text[at] = (char) c;
                        assert_int_equal(uuid_is_valid(text), dash ? c == '-' : digit);
                }
}

/* The text ends where it ends: nothing behind it is read. */
static void test_a_short_text_is_not_read_past_its_end(void **state)
{
        for (size_t n = 0; n < UUID_TEXT_MAX; n++) {
                char *text = malloc(n + 1);

                assert_non_null(text);
                memcpy(text, good, n);
                text[n] = 0;
                assert_false(uuid_is_valid(text));
                free(text);
        }
}

static void test_a_new_uuid_is_random_and_says_so(void **state)
{
        char first[UUID_TEXT_MAX + 1], text[UUID_TEXT_MAX + 1];

        assert_int_equal(uuid_generate(first), 0);
        for (int i = 0; i < 64; i++) {
                memset(text, 'x', sizeof text);
                assert_int_equal(uuid_generate(text), 0);
                assert_true(uuid_is_valid(text));
                assert_int_equal(text[14], '4');           /* version: random */
                assert_non_null(strchr("89ab", text[19])); /* variant: RFC 4122 */
                assert_string_not_equal(text, first);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_36_characters_in_lower_case_are_a_uuid),
                cmocka_unit_test(test_nothing_else_is),
                cmocka_unit_test(test_every_byte_at_every_place),
                cmocka_unit_test(test_a_short_text_is_not_read_past_its_end),
                cmocka_unit_test(test_a_new_uuid_is_random_and_says_so),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
