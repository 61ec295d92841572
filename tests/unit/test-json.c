/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdio.h>

#include "common/json.h"
#include "test.h"

#define WHERE "here: "

/* NULL when the reader took it, else what it said, without the place. */
static const char *complaint(const JsonReader *reader)
{
        if (!reader->failed)
                return NULL;
        assert_int_equal(strncmp(reader->text, WHERE, strlen(WHERE)), 0);
        return reader->text + strlen(WHERE);
}

static json_object *parse(JsonReader *reader, const char *text, size_t size)
{
        char *exact = malloc(size + 1); /* no byte behind it is ours to read: ASan sees who does */
        json_object *object;

        assert_non_null(exact);
        exact = realloc(exact, size ? size : 1);
        assert_non_null(exact);
        memcpy(exact, text, size);
        *reader = (JsonReader){.where = "here"};
        object = json_parse(reader, exact, size);
        free(exact);
        if (reader->failed)
                assert_null(object);
        return object;
}

static json_object *parse_good(JsonReader *reader, const char *text)
{
        json_object *object = parse(reader, text, strlen(text));

        assert_non_null(object);
        assert_null(complaint(reader));
        return object;
}

/* ---- parsing ------------------------------------------------------------------------------------------------- */

static void test_what_is_not_one_json_value_is_refused(void **state)
{
        static const char *const bad[] = {
                "",          " ",          "{",          "{}{}",           "{} x",       "[1,2",
                "{\"a\":1",  "{\"a\":1,}", "[1,]",       "{a:1}",          "/* c */ {}", "{} // c",
                "{\"a\" 1}", "{\"a\":01}", "{\"a\":+1}", "{\"a\":TRUE}",   "\"\\x41\"",  "\"\xff\"",
                "\"\xc3\"",  "{\"a\":1}]", "}",          "\xef\xbb\xbf{}",
        };
        JsonReader reader;

        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                json_object *object = parse(&reader, bad[i], strlen(bad[i]));

                if (!reader.failed)
                        print_error("taken: %s\n", bad[i]);
                assert_null(object);
                assert_non_null(complaint(&reader));
        }
}

/* json-c has no object for it: a caller that saw NULL and no complaint would go on with its defaults. */
static void test_null_is_no_value_that_anybody_can_use(void **state)
{
        JsonReader reader;

        assert_null(parse(&reader, "null", 4));
        assert_non_null(complaint(&reader));
        assert_null(parse(&reader, "null\n", 5));
        assert_string_equal(complaint(&reader), "is null");
}

/* json-c keeps the last. And where it had no memory for a member, it looks the same. */
static void test_a_key_is_said_once(void **state)
{
        static const char *const bad[] = {"{\"a\":1,\"a\":1}", "[{\"b\":{\"a\":[],\"c\":2,\"a\":[]}}]"};
        static const char *const good[] = {"{\"a\":{\"a\":1},\"b\":[{\"a\":1},{\"a\":1}]}",
                                           "{\"a:\\\":\\\\\":\":\"}", "[\":\",\"\\\":\"]"};
        JsonReader reader;

        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                assert_null(parse(&reader, bad[i], strlen(bad[i])));
                assert_string_equal(complaint(&reader), "says a key twice");
        }
        for (size_t i = 0; i < ARRAY_SIZE(good); i++)
                json_object_put(parse_good(&reader, good[i]));
}

static void test_a_zero_byte_is_no_white_space(void **state)
{
        static const struct {
                const char *text;
                size_t size;
        } cases[] = {{"{}\0", 3}, {"{}\0\0\0", 5}, {"\0{}", 3}, {"{\0}", 3}, {"{}\n\0", 4}, {"\0", 1}};
        JsonReader reader;

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                assert_null(parse(&reader, cases[i].text, cases[i].size));
                assert_non_null(complaint(&reader));
        }
}

static void test_white_space_around_a_value_is_no_part_of_it(void **state)
{
        static const char *const good[] = {"{}", " \t\r\n{}\r\n\t ", "[ ]", "\"\"",
                                           "{ \"a\" : [ 1 , 2 ] }\n"};
        JsonReader reader;

        for (size_t i = 0; i < ARRAY_SIZE(good); i++)
                json_object_put(parse_good(&reader, good[i]));
}

static void test_every_prefix_of_an_object_is_not_whole(void **state)
{
        static const char text[] = "{\"a\":[1,{\"b\":\"\\u00e9\\n\"},true,null],\"c\":-1.5e3}";
        JsonReader reader;

        for (size_t size = 0; size < strlen(text); size++) {
                assert_null(parse(&reader, text, size));
                assert_non_null(complaint(&reader));
        }
        json_object_put(parse_good(&reader, text));
}

static void test_nesting_has_an_end(void **state)
{
        JsonReader reader;

        for (size_t depth = 1; depth <= 4 * JSON_DEPTH_MAX; depth++) {
                char text[8 * JSON_DEPTH_MAX + 1];
                json_object *object;

                memset(text, '[', depth);
                memset(text + depth, ']', depth);
                object = parse(&reader, text, 2 * depth);
                assert_int_equal(object != NULL, depth <= JSON_DEPTH_MAX);
                assert_int_equal(reader.failed, depth > JSON_DEPTH_MAX);
                json_object_put(object);
        }
}

/* ---- members ------------------------------------------------------------------------------------------------- */

static void test_unknown_keys_are_named(void **state)
{
        static const char *const keys[] = {"a", "b", NULL};
        static const struct {
                const char *text, *expect;
        } cases[] = {
                {"{}", NULL},
                {"{\"a\":1}", NULL},
                {"{\"b\":1,\"a\":{\"c\":1}}", NULL},
                {"{\"a\":1,\"ab\":1}", "unknown key \"ab\""},
                {"{\"A\":1}", "unknown key \"A\""},
                {"{\"\":1}", "unknown key \"\""},
                {"[]", "is not an object"},
                {"\"a\"", "is not an object"},
        };

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                JsonReader reader;
                json_object *object = parse_good(&reader, cases[i].text);

                json_only(&reader, object, keys);
                if (cases[i].expect)
                        assert_string_equal(complaint(&reader), cases[i].expect);
                else
                        assert_null(complaint(&reader));
                json_object_put(object);
        }
}

/* Every kind of value is asked for as every type: one fits, a missing one fits only when it is not needed. */
static void test_a_member_has_its_type_or_the_reader_fails(void **state)
{
        static const json_type types[] = {json_type_boolean, json_type_double, json_type_int,
                                          json_type_object,  json_type_array,  json_type_string};
        static const char *const values[] = {"true", "1.0", "1", "{}", "[]", "\"1\"", "null"};

        for (size_t v = 0; v < ARRAY_SIZE(values); v++)
                for (size_t t = 0; t < ARRAY_SIZE(types); t++)
                        for (int needed = 0; needed < 2; needed++) {
                                char text[32];
                                JsonReader reader;
                                json_object *object, *value;

                                (void) snprintf(text, sizeof text, "{\"k\":%s}", values[v]);
                                object = parse_good(&reader, text);
                                value = json_member(&reader, object, "k", types[t], needed);
                                assert_int_equal(value != NULL, v == t);
                                assert_int_equal(reader.failed, v != t);
                                reader.failed = false;
                                assert_null(json_member(&reader, object, "j", types[t], needed));
                                assert_int_equal(reader.failed, needed);
                                json_object_put(object);
                        }
}

static void test_nothing_has_no_members(void **state)
{
        JsonReader reader = {.where = "here"};

        assert_null(json_member(&reader, NULL, "k", json_type_int, false));
        assert_int_equal(json_number(&reader, NULL, "k", 0, 9, 7), 7);
        assert_true(json_flag(&reader, NULL, "k", true));
        assert_null(complaint(&reader));
        assert_null(json_string(&reader, NULL, "k", true));
        assert_string_equal(complaint(&reader), "\"k\" is missing");
}

static void test_numbers_are_whole_and_in_range(void **state)
{
        static const struct {
                const char *value;
                int64_t min, max, expect; /* 77, the fallback: refused */
        } cases[] = {
                {"0", 0, 9, 0},
                {"9", 0, 9, 9},
                {"10", 0, 9, 77},
                {"-1", 0, 9, 77},
                {"-1", -1, 9, -1},
                {"1.0", 0, 9, 77},
                {"1e0", 0, 9, 77},
                {"\"1\"", 0, 9, 77},
                {"true", 0, 9, 77},
                {"null", 0, 9, 77},
                {"9223372036854775807", 0, INT64_MAX, INT64_MAX},
                {"-9223372036854775808", INT64_MIN, 0, INT64_MIN},
                {"9223372036854775808", 0, INT64_MAX - 1, 77},
                {"18446744073709551616", 0, INT64_MAX - 1, 77},
                {"99999999999999999999999999999999999999", 0, INT64_MAX - 1, 77},
                {"-99999999999999999999999999999999999999", INT64_MIN + 1, 0, 77},
                {"4294967296", 0, UINT32_MAX, 77},
        };

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                char text[64];
                JsonReader reader;
                json_object *object;

                (void) snprintf(text, sizeof text, "{\"k\":%s}", cases[i].value);
                object = parse_good(&reader, text);
                assert_true(json_number(&reader, object, "k", cases[i].min, cases[i].max, 77) ==
                            cases[i].expect);
                assert_int_equal(reader.failed, cases[i].expect == 77);
                json_object_put(object);
        }
}

static void test_strings_have_no_zero_byte_in_them(void **state)
{
        JsonReader reader;
        json_object *object = parse_good(&reader, "{\"a\":\"x\",\"b\":\"x\\u0000y\",\"c\":\"\"}");

        assert_string_equal(json_string(&reader, object, "a", true), "x");
        assert_string_equal(json_string(&reader, object, "c", true), "");
        assert_null(complaint(&reader));
        assert_null(json_string(&reader, object, "b", true));
        assert_string_equal(complaint(&reader), "\"b\" has a zero byte in it");
        json_object_put(object);
}

static void test_a_copy_is_whole_or_empty(void **state)
{
        JsonReader reader;
        json_object *object = parse_good(&reader, "{\"a\":\"1234\"}");
        char text[6] = "stale";

        json_copy(&reader, object, "a", true, text, 5);
        assert_string_equal(text, "1234");
        json_copy(&reader, object, "b", false, text, 5);
        assert_string_equal(text, "");
        assert_null(complaint(&reader));
        memcpy(text, "stale", 6);
        json_copy(&reader, object, "a", true, text, 4);
        assert_string_equal(text, "");
        assert_string_equal(complaint(&reader), "\"a\" is longer than 3 bytes");
        json_object_put(object);
}

/* ---- what it says -------------------------------------------------------------------------------------------- */

static void test_the_first_error_is_kept(void **state)
{
        JsonReader reader = {.where = "here"};

        json_fail(&reader, "first %d", 1);
        json_fail(&reader, "second");
        assert_string_equal(complaint(&reader), "first 1");
}

static void test_foreign_text_is_made_printable_and_cut(void **state)
{
        char foreign[2 * JSON_TEXT_MAX];
        JsonReader reader = {.where = "here"};

        json_fail(&reader, "%s", "a\n\x1b[31m\xc3\xa9");
        assert_string_equal(complaint(&reader), "a??[31m??");

        memset(foreign, 'x', sizeof foreign - 1);
        foreign[sizeof foreign - 1] = 0;
        reader = (JsonReader){.where = "here"};
        json_fail(&reader, "%s", foreign);
        assert_int_equal(strlen(reader.text), JSON_TEXT_MAX - 1);
}

static void test_a_long_place_leaves_room_for_what_is_wrong_there(void **state)
{
        char place[4 * JSON_TEXT_MAX];
        JsonReader reader = {.where = place};

        memset(place, '/', sizeof place - 1);
        place[sizeof place - 1] = 0;
        json_fail(&reader, "that is wrong");
        assert_true(strlen(reader.text) < JSON_TEXT_MAX);
        assert_non_null(strstr(reader.text, "/: that is wrong"));
}

/* ---- writing ------------------------------------------------------------------------------------------------- */

static void test_what_is_written_is_read_back(void **state)
{
        JsonReader reader;
        json_object *object = json_new_object(), *list = json_new_array();

        json_add_string(object, "text", "a \"quoted\" \n \xc3\xa9");
        json_add_number(object, "least", INT64_MIN);
        json_add_number(object, "most", INT64_MAX);
        json_add_bool(object, "flag", true);
        json_append(list, json_new_object());
        json_add(object, "list", list);
        {
                json_object *read = parse_good(&reader, json_object_to_json_string(object));

                assert_string_equal(json_string(&reader, read, "text", true), "a \"quoted\" \n \xc3\xa9");
                assert_true(json_number(&reader, read, "least", INT64_MIN, 0, 0) == INT64_MIN);
                assert_true(json_number(&reader, read, "most", 0, INT64_MAX, 0) == INT64_MAX);
                assert_true(json_flag(&reader, read, "flag", false));
                assert_int_equal(
                        json_object_array_length(json_member(&reader, read, "list", json_type_array, true)),
                        1);
                assert_null(complaint(&reader));
                json_object_put(read);
        }
        json_object_put(object);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_what_is_not_one_json_value_is_refused),
                cmocka_unit_test(test_null_is_no_value_that_anybody_can_use),
                cmocka_unit_test(test_a_key_is_said_once),
                cmocka_unit_test(test_a_zero_byte_is_no_white_space),
                cmocka_unit_test(test_white_space_around_a_value_is_no_part_of_it),
                cmocka_unit_test(test_every_prefix_of_an_object_is_not_whole),
                cmocka_unit_test(test_nesting_has_an_end),
                cmocka_unit_test(test_unknown_keys_are_named),
                cmocka_unit_test(test_a_member_has_its_type_or_the_reader_fails),
                cmocka_unit_test(test_nothing_has_no_members),
                cmocka_unit_test(test_numbers_are_whole_and_in_range),
                cmocka_unit_test(test_strings_have_no_zero_byte_in_them),
                cmocka_unit_test(test_a_copy_is_whole_or_empty),
                cmocka_unit_test(test_the_first_error_is_kept),
                cmocka_unit_test(test_foreign_text_is_made_printable_and_cut),
                cmocka_unit_test(test_a_long_place_leaves_room_for_what_is_wrong_there),
                cmocka_unit_test(test_what_is_written_is_read_back),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
