/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The rules of docs/plugin.md, said again in other words: before the blackout who is of no use refuses, from its beginning on
 * he was not asked, and only a plain no counts. */

#include "common/macros.h"
#include "daemon/core/plugin-verdict.h"
#include "test.h"

static PluginVerdict expected(Phase phase, PluginEnd end)
{
        if (end == PLUGIN_END_YES)
                return PLUGIN_GO_ON;
        if (end == PLUGIN_END_NO)
                return PLUGIN_REFUSE;
        if (end == PLUGIN_END_WAIT)
                return PLUGIN_ASK_AGAIN;
        if (phase >= PHASE_HALT)
                return PLUGIN_GO_ON;
        return end == PLUGIN_END_DEGRADED ? PLUGIN_NOTICE : PLUGIN_REFUSE;
}

static void test_verdicts(void **state)
{
        for (Phase p = 0; p < PHASE_MAX; p++)
                for (PluginEnd e = 0; e < PLUGIN_END_MAX; e++)
                        assert_int_equal(plugin_verdict(p, e), expected(p, e));
}

static void test_an_unknown_end_is_no_yes(void **state)
{
        assert_int_equal(plugin_verdict(PHASE_CHECK, PLUGIN_END_MAX), PLUGIN_REFUSE);
        assert_int_equal(plugin_verdict(PHASE_CHECK, PLUGIN_END_INVALID), PLUGIN_REFUSE);
        assert_int_equal(plugin_verdict(PHASE_DRAIN, PLUGIN_END_INVALID), PLUGIN_GO_ON);
}

static void test_blackout(void **state)
{
        for (Phase p = 0; p < PHASE_MAX; p++)
                assert_int_equal(plugin_phase_is_blackout(p), p >= 4 && p <= 11);
}

/* One retry, in any phase; a reset only where the device holds nothing; all else is told as it is. */
static void test_advice(void **state)
{
        for (Side side = 0; side < SIDE_MAX; side++)
                for (Phase p = 0; p < PHASE_MAX; p++)
                        for (PluginEnd e = 0; e < PLUGIN_END_MAX; e++) {
                                bool fresh = side == SIDE_DESTINATION && p == PHASE_PREPARE;
                                PluginVerdict verdict = e == PLUGIN_END_RETRY ? PLUGIN_TRY_AGAIN
                                                        : e == PLUGIN_END_RESET && fresh
                                                                ? PLUGIN_RESET_AND_TRY
                                                                : PLUGIN_GO_ON;

                                assert_int_equal(plugin_advice(side, p, e, false), verdict);
                                assert_int_equal(plugin_advice(side, p, e, true), PLUGIN_GO_ON);
                        }
}

static void test_budget(void **state)
{
        assert_int_equal(plugin_budget_usec(0, 5000000), 0);
        assert_int_equal(plugin_budget_usec(7, 5000000), 7000);
        assert_int_equal(plugin_budget_usec(60000, 5000000), 2500000); /* the device has the other half */
        assert_int_equal(plugin_budget_usec(1000, 0), 0);
}

/* Nobody is asked on the way back, nor where a device changes no state, nor where its VMM does that whatever is answered, nor where there is no way back any more: there a device that
 * has failed is reset, and loses its state. */
static void test_who_asks(void **state)
{
        static const HalfState asks[] = {
                SOURCE_PRECOPY,     SOURCE_VIOMMU_GRACE, SOURCE_P2P_GRACE,        SOURCE_STOP_REST,
                SOURCE_STOP,        SOURCE_DRAIN,        SOURCE_INTAKE,           DESTINATION_PREPARE,
                DESTINATION_INTAKE, DESTINATION_ARRIVE,  DESTINATION_RUN_DEVICES,
        };
        Half half = {};

        for (HalfState s = 0; s < HALF_STATE_MAX; s++) {
                bool expect = false;

                for (size_t i = 0; i < ARRAY_SIZE(asks); i++)
                        expect |= asks[i] == s;
                half.state = s;
                half.side = s >= DESTINATION_RECORD ? SIDE_DESTINATION : SIDE_SOURCE;
                if (plugin_half_asks(&half) != expect)
                        fail_msg("%s", half_state_to_string(s));
        }
}

static int follow(HalfState state, PluginVerdict advice, DeviceState from, DeviceProgram *ret)
{
        Half half = {.state = state};

        return plugin_half_program(&half, advice, from, DEVICE_MIGRATION_STOP_COPY, ret);
}

static void test_advice_is_followed_where_it_can_be(void **state)
{
        DeviceProgram program;

        assert_int_equal(follow(DESTINATION_PREPARE, PLUGIN_TRY_AGAIN, DEVICE_STATE_RUNNING, &program), 0);
        assert_int_equal(program.ops[program.n - 1].to, DEVICE_STATE_RESUMING);
        assert_int_equal(follow(DESTINATION_PREPARE, PLUGIN_RESET_AND_TRY, DEVICE_STATE_ERROR, &program), 0);
        assert_int_equal(program.ops[0].type, DEVICE_OP_RESET);
        /* No advice; no reset on its way; it would send twice. */
        assert_int_equal(follow(DESTINATION_PREPARE, PLUGIN_GO_ON, DEVICE_STATE_RUNNING, &program), -EINVAL);
        assert_int_equal(follow(DESTINATION_PREPARE, PLUGIN_RESET_AND_TRY, DEVICE_STATE_STOP, &program),
                         -EINVAL);
        assert_int_equal(follow(SOURCE_DRAIN, PLUGIN_TRY_AGAIN, DEVICE_STATE_STOP, &program), -EINVAL);
        assert_int_equal(program.ops[0].type, DEVICE_OP_RESET);
}

static void test_names(void **state)
{
        for (PluginEnd e = 0; e < PLUGIN_END_MAX; e++)
                assert_int_equal(plugin_end_from_string(plugin_end_to_string(e)), e);
        for (PluginVerdict v = 0; v < PLUGIN_VERDICT_MAX; v++)
                assert_int_equal(plugin_verdict_from_string(plugin_verdict_to_string(v)), v);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_verdicts),
                cmocka_unit_test(test_an_unknown_end_is_no_yes),
                cmocka_unit_test(test_blackout),
                cmocka_unit_test(test_advice),
                cmocka_unit_test(test_budget),
                cmocka_unit_test(test_who_asks),
                cmocka_unit_test(test_advice_is_followed_where_it_can_be),
                cmocka_unit_test(test_names),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
