/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What is expected, and by which basis; what is promised, and why not. */

#include "daemon/core/forecast.h"
#include "daemon/core/guarantees.h"
#include "test.h"

#define RATE FORECAST_BYTES_PER_SEC

static const struct {
        ForecastFacts facts;
        Forecast expected;
} devices[] = {
        {{}, {FORECAST_UNKNOWN, 0, 0}},
        {{.state_bytes = RATE}, {FORECAST_SIZE, 1000000, RATE}},
        {{.state_bytes = 1}, {FORECAST_SIZE, 1, 1}},
        {{.state_bytes = UINT64_MAX}, {FORECAST_SIZE, 68719476736000000, UINT64_MAX}},
        {{.estimate_usec = 7, .state_bytes = RATE}, {FORECAST_PLUGIN, 7, RATE}},
        {{.was_measured = true, .measured_usec = 5, .measured_bytes = 9, .estimate_usec = 7},
         {FORECAST_MEASURED, 5, 9}},
        {{.was_measured = true, .measured_bytes = 9, .state_bytes = 10}, {FORECAST_MEASURED, 0, 10}},
        {{.measured_bytes = 9}, {FORECAST_UNKNOWN, 0, 9}},
};

static void test_the_best_basis_counts(void **state)
{
        for (size_t i = 0; i < ARRAY_SIZE(devices); i++) {
                Forecast got = forecast_device(&devices[i].facts);

                assert_int_equal(got.basis, devices[i].expected.basis);
                assert_true(got.usec == devices[i].expected.usec);
                assert_true(got.bytes == devices[i].expected.bytes);
        }
}

static void test_a_vm_stands_as_long_as_its_slowest_device(void **state)
{
        static const Forecast two[] = {{FORECAST_SIZE, 5, 100}, {FORECAST_MEASURED, 9, 10}},
                              one_unknown[] = {{FORECAST_UNKNOWN, 0, 1}, {FORECAST_MEASURED, 9, UINT64_MAX}};
        Forecast got = forecast_vm(0, two, 2, false);

        assert_int_equal(got.basis, FORECAST_SIZE);
        assert_int_equal(got.usec, 9);
        assert_int_equal(got.bytes, 110);
        /* What its VMM needs nobody knows. */
        got = forecast_vm(0, two, 2, true);
        assert_int_equal(got.basis, FORECAST_UNKNOWN);
        assert_int_equal(got.usec, 0);
        got = forecast_vm(0, one_unknown, 2, false);
        assert_int_equal(got.basis, FORECAST_UNKNOWN);
        assert_int_equal(got.usec, 0);
        assert_true(got.bytes == UINT64_MAX);
        got = forecast_vm(77, one_unknown, 2, true);
        assert_int_equal(got.basis, FORECAST_MEASURED);
        assert_int_equal(got.usec, 77);
        got = forecast_vm(0, NULL, 0, false);
        assert_int_equal(got.basis, FORECAST_UNKNOWN);
}

/* One thing that is so, and what no longer holds for it. */
static const struct {
        Guarantee lost; /* MAX: none */
        Manifest source;
        Plan plan;
        bool unknown_peer, unlimited, risk;
        uint32_t n_uncompared;
} cases[] = {
        {.lost = GUARANTEE_MAX},
        {.lost = GUARANTEE_MAX, .source.vmm.type = VMM_TYPE_DELEGATE},
        {.lost = GUARANTEE_WAY_BACK, .plan = {.n_supervised = 1, .push = true}},
        {.lost = GUARANTEE_QUIET_PEERS, .risk = true},
        {.lost = GUARANTEE_RESETS_SEEN, .source.vmm.n_silent = 1},
        {.lost = GUARANTEE_COMPATIBLE, .n_uncompared = 1},
        {.lost = GUARANTEE_VMM_STARTS, .source.vmm.type = VMM_TYPE_QMP},
        {.lost = GUARANTEE_BLACKOUT_LIMIT, .unlimited = true},
        {.lost = GUARANTEE_PEER_KNOWN, .unknown_peer = true},
};

static bool is_lost(size_t i, Guarantee g)
{
        GuaranteeFacts facts = {.source = &cases[i].source,
                                .plan = &cases[i].plan,
                                .peer_known = !cases[i].unknown_peer,
                                .blackout_limited = !cases[i].unlimited,
                                .risk_accepted = cases[i].risk,
                                .n_uncompared = cases[i].n_uncompared};

        return guarantee_gap(g, &facts);
}

static void test_what_is_promised_and_what_is_not(void **state)
{
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
                for (Guarantee g = 0; g < GUARANTEE_MAX; g++)
                        assert_int_equal(is_lost(i, g), g == cases[i].lost);
}

static void test_who_is_not_pushed_is_not_in_lockstep(void **state)
{
        Plan plan = {.n_supervised = 2};
        Manifest source = {};
        GuaranteeFacts facts = {.source = &source, .plan = &plan};

        assert_non_null(guarantee_gap(GUARANTEE_LOCKSTEP, &facts));
        plan.push = true;
        assert_null(guarantee_gap(GUARANTEE_LOCKSTEP, &facts));
}

static void test_every_guarantee_has_a_name_and_words(void **state)
{
        for (Guarantee g = 0; g < GUARANTEE_MAX; g++) {
                assert_int_equal(guarantee_from_string(guarantee_to_string(g)), g);
                assert_true(guarantee_promise(g)[0]);
        }
        assert_null(guarantee_to_string(GUARANTEE_MAX));
        assert_null(guarantee_to_string(GUARANTEE_INVALID));
        assert_int_equal(guarantee_from_string("?"), GUARANTEE_INVALID);
}

int main(void)
{
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_the_best_basis_counts),
                cmocka_unit_test(test_a_vm_stands_as_long_as_its_slowest_device),
                cmocka_unit_test(test_what_is_promised_and_what_is_not),
                cmocka_unit_test(test_who_is_not_pushed_is_not_in_lockstep),
                cmocka_unit_test(test_every_guarantee_has_a_name_and_words),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
