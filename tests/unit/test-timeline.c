/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdio.h>

#include "daemon/timeline.h"
#include "test.h"

static const char *const ids[] = {"nic0", "gpu0"};

static const Span spans[] = {
        {SIDE_SOURCE, PHASE_DRAIN, HALF_WHO_DEVICE, 1, 100, 250, 4096, 0, "stop-copy>stop"},
        {SIDE_SOURCE, PHASE_HALT, HALF_WHO_VMM, -1, 10, 10, 0, 0, "stop"},
        {SIDE_DESTINATION, PHASE_INTAKE, HALF_WHO_DEVICE, 0, 300, 301, 0, -EIO, "resuming>stop"},
};

static void make(Timeline *timeline)
{
        *timeline = (Timeline){};
        for (size_t i = 0; i < ARRAY_SIZE(spans); i++)
                timeline_add(timeline, &spans[i]);
        assert_int_equal(timeline->n, ARRAY_SIZE(spans));
}

static void assert_json(json_object *object, const char *expect)
{
        assert_string_equal(json_object_to_json_string_ext(object, JSON_C_TO_STRING_PLAIN), expect);
        json_object_put(object);
}

static void test_spans_are_written_from_a_given_one_on(void **state)
{
        Timeline t;

        make(&t);
        assert_json(
                timeline_to_json(&t, 1, ids),
                "[{\"half\":\"source\",\"phase\":\"halt\",\"who\":\"vmm\",\"what\":\"stop\",\"start_usec\":10,"
                "\"end_usec\":10},"
                "{\"half\":\"destination\",\"phase\":\"intake\",\"who\":\"device\",\"device\":\"nic0\","
                "\"what\":\"resuming>stop\",\"status\":-5,\"start_usec\":300,\"end_usec\":301}]");
        assert_json(timeline_to_json(&t, 3, ids), "[]");
        assert_json(timeline_to_json(&t, 4, ids), "[]");
        timeline_deinit(&t);
        assert_json(timeline_to_json(&t, 0, ids), "[]");
        timeline_deinit(&t);
}

/* 500 here when it was told, 7000 there when it came: what was 250 ago then is 250 ago now. */
static void test_the_other_half_is_placed_by_how_long_ago_it_was(void **state)
{
        json_object *sent;
        Timeline there, here = {};

        make(&there);
        sent = timeline_to_peer(&there, 0, ids, 500);
        timeline_take(&here, sent, 7000, ids, ARRAY_SIZE(ids));
        assert_int_equal(here.n, ARRAY_SIZE(spans));
        for (size_t i = 0; i < ARRAY_SIZE(spans); i++) {
                const Span *s = &here.spans[i];

                assert_int_equal(s->side, SIDE_DESTINATION); /* whatever it says */
                assert_int_equal(s->phase, spans[i].phase);
                assert_int_equal(s->who, spans[i].who);
                assert_int_equal(s->device, spans[i].device);
                assert_int_equal(s->start_usec, spans[i].start_usec + 6500);
                assert_int_equal(s->end_usec, spans[i].end_usec + 6500);
                assert_int_equal(s->bytes, spans[i].bytes);
                assert_int_equal(s->status, spans[i].status);
                assert_string_equal(s->what, spans[i].what);
        }
        json_object_put(sent);
        timeline_deinit(&here);
        timeline_deinit(&there);
}

static void test_what_was_before_the_job_began_here_began_with_it(void **state)
{
        json_object *sent;
        Timeline there, here = {};

        make(&there);
        sent = timeline_to_peer(&there, 0, ids, 500);
        timeline_take(&here, sent, 300, ids, ARRAY_SIZE(ids));
        assert_int_equal(here.spans[0].start_usec, 0);
        assert_int_equal(here.spans[0].end_usec, 50);
        assert_int_equal(here.spans[1].end_usec, 0);
        json_object_put(sent);
        timeline_deinit(&here);
        timeline_deinit(&there);
}

/* A clock that is read a little late must not make it start in the future. */
static void test_nothing_is_told_as_yet_to_come(void **state)
{
        json_object *sent;
        Timeline there, here = {};

        make(&there);
        sent = timeline_to_peer(&there, 0, ids, 0);
        timeline_take(&here, sent, 1000, ids, ARRAY_SIZE(ids));
        for (size_t i = 0; i < ARRAY_SIZE(spans); i++)
                assert_true(here.spans[i].start_usec == 1000 && here.spans[i].end_usec == 1000);
        json_object_put(sent);
        timeline_deinit(&here);
        timeline_deinit(&there);
}

/* A thousand devices, of the longest ids, each with several arcs. */
static void test_one_message_holds_what_is_sent(void **state)
{
        static const char longest[] = "0123456789012345678901234567890123456789012345678901234567890123";
        const char *const names[] = {longest};
        Span span = {.side = SIDE_DESTINATION,
                     .phase = PHASE_ARRIVAL_GRACE,
                     .who = HALF_WHO_DEVICE,
                     .bytes = INT64_MAX,
                     .status = -4095};
        json_object *sent;
        Timeline t = {};

        memset(span.what, 'x', sizeof span.what - 1);
        for (uint32_t i = 0; i < SPANS_SENT_MAX + 7; i++)
                timeline_add(&t, &span);
        sent = timeline_to_peer(&t, 0, names, INT64_MAX);
        assert_int_equal(json_object_array_length(sent), SPANS_SENT_MAX);
        assert_true(strlen(json_object_to_json_string_ext(sent, JSON_C_TO_STRING_PLAIN)) < 1000 * 1000);
        json_object_put(sent);
        sent = timeline_to_peer(&t, SPANS_SENT_MAX, names, INT64_MAX);
        assert_int_equal(json_object_array_length(sent), 7);
        json_object_put(sent);
        timeline_deinit(&t);
}

/* ---- hostile --------------------------------------------------------------------------------------------------- */

#define GOOD "\"phase\":\"drain\",\"who\":\"device\",\"what\":\"x\""
#define AGO  "\"start_ago_usec\":20,\"end_ago_usec\":10"

static const struct {
        const char *text;
        bool taken;
} cases[] = {
        {"{" GOOD "," AGO "}", true},
        {"{" GOOD "," AGO ",\"device\":\"who?\"}", true}, /* without a device */
        {"{" GOOD "," AGO ",\"more\":[]}", true},
        {"{" GOOD "," AGO ",\"bytes\":9223372036854775807,\"status\":-4095}", true},
        {"{" GOOD ",\"start_ago_usec\":9223372036854775807,\"end_ago_usec\":0}", true},
        {"{" GOOD ",\"start_ago_usec\":10,\"end_ago_usec\":20}", false},
        {"{" GOOD ",\"start_ago_usec\":-1,\"end_ago_usec\":-2}", false},
        {"{" GOOD ",\"start_ago_usec\":\"20\",\"end_ago_usec\":10}", false},
        {"{" GOOD ",\"start_ago_usec\":20}", false},
        {"{" GOOD ",\"end_ago_usec\":10}", false},
        {"{" GOOD "}", false},
        {"{" GOOD "," AGO ",\"bytes\":-1}", false},
        {"{" GOOD "," AGO ",\"status\":1}", false},
        {"{" GOOD "," AGO ",\"status\":-4096}", false},
        {"{" GOOD "," AGO ",\"device\":7}", false},
        {"{\"who\":\"device\",\"what\":\"x\"," AGO "}", false},
        {"{\"phase\":\"drain\",\"what\":\"x\"," AGO "}", false},
        {"{\"phase\":\"drain\",\"who\":\"device\"," AGO "}", false},
        {"{\"phase\":\"Drain\",\"who\":\"device\",\"what\":\"x\"," AGO "}", false},
        {"{\"phase\":\"drain\",\"who\":\"me\",\"what\":\"x\"," AGO "}", false},
        {"{\"phase\":3,\"who\":\"device\",\"what\":\"x\"," AGO "}", false},
        {"{}", false},
        {"[]", false},
        {"null", false},
        {"7", false},
};

static void test_what_makes_no_sense_is_left_out(void **state)
{
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                char text[512];
                json_object *array;
                Timeline t = {};

                (void) snprintf(text, sizeof text, "[%s,{" GOOD "," AGO "}]", cases[i].text);
                array = json_tokener_parse(text);
                assert_non_null(array);
                timeline_take(&t, array, 1000, ids, ARRAY_SIZE(ids));
                if (t.n != 1 + (uint32_t) cases[i].taken)
                        print_error("%s\n", cases[i].text);
                assert_int_equal(t.n, 1 + cases[i].taken);
                assert_int_equal(t.spans[0].device, -1);
                json_object_put(array);
                timeline_deinit(&t);
        }
}

static void test_what_is_no_list_is_nothing(void **state)
{
        json_object *object = json_tokener_parse("{" GOOD "," AGO "}");
        Timeline t = {};

        timeline_take(&t, NULL, 0, ids, ARRAY_SIZE(ids));
        timeline_take(&t, object, 0, ids, ARRAY_SIZE(ids));
        assert_int_equal(t.n, 0);
        json_object_put(object);
}

static void test_foreign_text_is_made_printable_and_cut(void **state)
{
        json_object *array = json_new_array(), *o = json_tokener_parse("{" GOOD "," AGO "}");
        char longer[1000];
        Timeline t = {};

        memset(longer, 'x', sizeof longer - 1);
        longer[sizeof longer - 1] = 0;
        longer[1] = '\n';
        json_add_string(o, "what", longer);
        json_append(array, o);
        timeline_take(&t, array, 0, ids, ARRAY_SIZE(ids));
        assert_int_equal(t.n, 1);
        assert_int_equal(strlen(t.spans[0].what), SPAN_WHAT_MAX - 1);
        assert_int_equal(t.spans[0].what[1], '?');
        json_object_put(array);
        timeline_deinit(&t);
}

static void test_a_timeline_has_an_end(void **state)
{
        json_object *array = json_new_array(), *one = json_tokener_parse("{" GOOD "," AGO "}");
        Timeline t = {};

        for (int i = 0; i < 20000; i++)
                timeline_add(&t, &spans[0]);
        assert_int_equal(t.n, 16384);
        timeline_deinit(&t);
        for (int i = 0; i < 20000; i++)
                json_append(array, json_object_get(one));
        timeline_take(&t, array, 0, ids, ARRAY_SIZE(ids));
        assert_int_equal(t.n, 16384);
        timeline_take(&t, array, 0, ids, ARRAY_SIZE(ids));
        assert_int_equal(t.n, 16384);
        json_object_put(one);
        json_object_put(array);
        timeline_deinit(&t);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_spans_are_written_from_a_given_one_on),
                cmocka_unit_test(test_the_other_half_is_placed_by_how_long_ago_it_was),
                cmocka_unit_test(test_what_was_before_the_job_began_here_began_with_it),
                cmocka_unit_test(test_one_message_holds_what_is_sent),
                cmocka_unit_test(test_nothing_is_told_as_yet_to_come),
                cmocka_unit_test(test_what_makes_no_sense_is_left_out),
                cmocka_unit_test(test_what_is_no_list_is_nothing),
                cmocka_unit_test(test_foreign_text_is_made_printable_and_cut),
                cmocka_unit_test(test_a_timeline_has_an_end),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
