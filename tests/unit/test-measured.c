/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What jobs leave behind, good, odd and of other ends, and what is taken of it. */

#include "daemon/measured.h"
#include "test.h"

#define HEAD "\"half\":\"source\",\"result\":\"done\",\"blackout_usec\":100,\"blackout_start_usec\":1000"

static void take(Measured *measured, const char *text)
{
        json_object *job = json_tokener_parse(text);

        assert_non_null(job);
        measured_take(measured, job);
        json_object_put(job);
}

static uint64_t usec_of(const Measured *measured, const char *id)
{
        const MeasuredDevice *device = measured_find(measured, id);

        assert_non_null(device);
        return device->usec;
}

static void test_what_both_ends_do_counts_once(void **state)
{
        Measured m = {};

        take(&m,
             "{" HEAD ",\"devices\":[{\"id\":\"b\",\"bytes\":7},{\"id\":\"a\",\"bytes\":9}],\"timeline\":["
             "{\"device\":\"a\",\"start_usec\":1010,\"end_usec\":1030},"
             "{\"device\":\"b\",\"start_usec\":1010,\"end_usec\":1011},"
             "{\"device\":\"a\",\"start_usec\":1020,\"end_usec\":1040},"
             "{\"device\":\"a\",\"start_usec\":1015,\"end_usec\":1016},"
             "{\"start_usec\":1000,\"end_usec\":1100},"
             "{\"device\":\"c\",\"start_usec\":1000,\"end_usec\":1100},"
             "{\"device\":\"a\",\"start_usec\":1090,\"end_usec\":1095}]}");
        assert_int_equal(m.blackout_usec, 100);
        assert_int_equal(m.n, 2);
        assert_int_equal(usec_of(&m, "a"), 35);
        assert_int_equal(usec_of(&m, "b"), 1);
        assert_int_equal(measured_find(&m, "a")->bytes, 9);
        assert_null(measured_find(&m, "c"));
        measured_deinit(&m);
        assert_null(measured_find(&m, "a"));
}

static void test_what_is_outside_of_the_blackout_does_not_count(void **state)
{
        Measured m = {};

        take(&m, "{" HEAD ",\"devices\":[{\"id\":\"a\"}],\"timeline\":["
                 "{\"device\":\"a\",\"start_usec\":0,\"end_usec\":1001},"
                 "{\"device\":\"a\",\"start_usec\":10,\"end_usec\":900},"
                 "{\"device\":\"a\",\"start_usec\":1098,\"end_usec\":5000},"
                 "{\"device\":\"a\",\"start_usec\":4000,\"end_usec\":5000}]}");
        assert_int_equal(usec_of(&m, "a"), 3);
        measured_deinit(&m);
}

/* The last good one stays. */
static void test_other_ends_tell_nothing(void **state)
{
        static const char *const others[] = {
                "{}",
                "[]",
                "{\"half\":\"destination\",\"result\":\"done\",\"blackout_usec\":5}",
                "{\"half\":\"source\",\"result\":\"failed\",\"blackout_usec\":5}",
                "{\"half\":\"source\",\"result\":\"degraded\",\"blackout_usec\":5}",
                "{\"half\":\"source\",\"result\":\"done\",\"blackout_usec\":0}",
                "{\"half\":\"source\",\"result\":\"done\",\"blackout_usec\":-5}",
                "{\"half\":7,\"result\":\"done\",\"blackout_usec\":5}",
        };
        Measured m = {};

        take(&m, "{" HEAD ",\"devices\":[{\"id\":\"a\"}]}");
        for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
                take(&m, others[i]);
                assert_int_equal(m.blackout_usec, 100);
                assert_non_null(measured_find(&m, "a"));
        }
        take(&m, "{\"half\":\"source\",\"result\":\"done\",\"blackout_usec\":5}");
        assert_int_equal(m.blackout_usec, 5);
        assert_null(measured_find(&m, "a"));
        measured_deinit(&m);
}

static void test_odd_members_are_left_out(void **state)
{
        Measured m = {};

        take(&m, "{" HEAD
                 ",\"devices\":[1,{},{\"id\":\"a b\"},{\"id\":\"a\",\"bytes\":-1},{\"id\":7}],\"timeline\":["
                 "7,null,{},{\"device\":\"a\"},{\"device\":\"a\",\"start_usec\":1020,\"end_usec\":1010},"
                 "{\"device\":\"a\",\"start_usec\":\"x\",\"end_usec\":1001}]}");
        assert_int_equal(m.n, 1);
        assert_int_equal(usec_of(&m, "a"), 1);
        assert_int_equal(measured_find(&m, "a")->bytes, 0);
        measured_deinit(&m);
}

int main(void)
{
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_what_both_ends_do_counts_once),
                cmocka_unit_test(test_what_is_outside_of_the_blackout_does_not_count),
                cmocka_unit_test(test_other_ends_tell_nothing),
                cmocka_unit_test(test_odd_members_are_left_out),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
