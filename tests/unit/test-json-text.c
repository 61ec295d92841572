/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "common/json-text.h"
#include "test.h"

/* `path`: keys, and "#" for the next element of an array. */
static void assert_line(const char *text, const char *path, uint32_t line, const char *begins)
{
        JsonText value = json_text_root(text, strlen(text)), element = {};
        char key[64];

        while (*path) {
                size_t n = strcspn(path, "/");

                memcpy(key, path, n);
                key[n] = 0;
                path += n + (path[n] == '/');
                if (streq(key, "##"))
                        element = json_text_next(value, json_text_next(value, element));
                else
                        element = *key == '#' ? json_text_next(value, element) : json_text_member(value, key);
                value = element;
                element = (JsonText){};
        }
        assert_int_equal(json_text_line(text, value), line);
        if (begins)
                assert_int_equal(strncmp(value.p, begins, strlen(begins)), 0);
        else
                assert_null(value.p);
}

static void test_values_are_found_on_their_lines(void **state)
{
        static const char text[] = "\n{ \"a\" : 1,\n\"b\":{\"a\":\n2, \"c\": \"}]\\\"\\\\\", \"d\":true},\n"
                                   "\"e\":[[],\n{\"a\":3},\n-4.5e1 ]\n, \"f\":null,\"e2\":0}";

        assert_line(text, "", 2, "{");
        assert_line(text, "a", 2, "1");
        assert_line(text, "b", 3, "{");
        assert_line(text, "b/a", 4, "2");
        assert_line(text, "b/c", 4, "\"}]");
        assert_line(text, "b/d", 4, "true");
        assert_line(text, "e", 5, "[");
        assert_line(text, "e/#", 5, "[]");
        assert_line(text, "e/##", 6, "{");
        assert_line(text, "e/##/a", 6, "3");
        assert_line(text, "f", 8, "null");
        assert_line(text, "e2", 8, "0");
        assert_line(text, "c", 1, NULL);
        assert_line(text, "a/a", 1, NULL);
        assert_line(text, "e/a", 1, NULL);
        assert_line(text, "b/#", 1, NULL);
        assert_line(text, "", 2, "{");
}

static void test_of_two_members_with_one_key_the_last_is_found(void **state)
{
        assert_line("{\"a\":1,\n\"a\":2}", "a", 2, "2");
        assert_int_equal(json_text_count(json_text_root("{\"a\":1,\"a\":{\"b\":1,\"c\":2}}", 26)), 2);
        assert_int_equal(json_text_count(json_text_root("{ }", 3)), 0);
        assert_int_equal(json_text_count(json_text_root("[1,2]", 5)), 0);
        assert_int_equal(json_text_count((JsonText){}), 0);
}

/* Each beginning of a text, in memory of just that size: a sanitizer sees what is read behind it. */
static void test_nothing_is_read_behind_the_end(void **state)
{
        static const char *const texts[] = {
                "{\"a\":{\"b\":[1,{\"c\":\"\\\\\\\"\"}]},\"d\":[[],{}]}",
                "[[[[{{{\"",
                "{\"a\",:}",
                "{:,}{]",
                "[,,,]",
                "{\"a\":,\"b\":]}",
                "]}\"\\",
                "{\"a\" : \"",
                "}{",
        };

        for (size_t t = 0; t < ARRAY_SIZE(texts); t++)
                for (size_t n = 0; n <= strlen(texts[t]); n++) {
                        char *text = malloc(n ? n : 1);
                        JsonText root, item = {};
                        size_t rounds = 0;

                        assert_non_null(text);
                        memcpy(text, texts[t], n);
                        root = json_text_root(text, n);
                        assert_true(json_text_count(root) <= n);
                        (void) json_text_member(json_text_member(root, "a"), "b");
                        do {
                                item = json_text_next(root, item);
                                (void) json_text_line(text, item);
                                assert_true(rounds++ <= n);
                        } while (item.p);
                        free(text);
                }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_values_are_found_on_their_lines),
                cmocka_unit_test(test_of_two_members_with_one_key_the_last_is_found),
                cmocka_unit_test(test_nothing_is_read_behind_the_end),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
