/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdio.h>

#include "common/outcome.h"
#include "daemon/core/half.h"
#include "test.h"

static void test_every_outcome_has_a_doc_and_a_status(void **state)
{
        for (Outcome i = 0; i < OUTCOME_MAX; i++) {
                assert_non_null(outcome_info(i));
                assert_non_null(outcome_info(i)->doc);
                assert_true(outcome_info(i)->exit >= EXIT_DONE && outcome_info(i)->exit <= EXIT_DEGRADED);
                assert_true((outcome_info(i)->exit == EXIT_DONE) == (i == OUTCOME_NONE));
        }
        assert_null(outcome_info(OUTCOME_MAX));
        assert_null(outcome_info((Outcome) -1));
        assert_null(outcome_info(OUTCOME_INVALID));
}

static void test_names_lead_back(void **state)
{
        char name[128];

        for (Outcome i = 0; i < OUTCOME_MAX; i++) {
                if (!outcome_info(i)->name)
                        continue;
                (void) snprintf(name, sizeof name, "org.migmgr1.Error.%s", outcome_info(i)->name);
                assert_int_equal(outcome_from_bus(name), i);
        }
}

static void test_other_names_are_not_ours(void **state)
{
        static const char *const names[] = {"",
                                            "Busy",
                                            "org.migmgr1.Error",
                                            "org.migmgr1.Error.",
                                            "org.migmgr1.Error.busy",
                                            "org.migmgr1.Error.BusyX",
                                            "org.freedesktop.DBus.Error.Failed"};

        for (size_t i = 0; i < ARRAY_SIZE(names); i++)
                assert_int_equal(outcome_from_bus(names[i]), OUTCOME_INVALID);
}

/* The results of the state machine and those of the table are the same, and no two end with the same status. */
static void test_every_result_of_a_job_has_a_status(void **state)
{
        uint32_t seen = 0, n = 0;

        for (JobResult r = JOB_RESULT_NONE + 1; r < JOB_RESULT_MAX; r++) {
                int status = outcome_exit_of_result(job_result_to_string(r));

                assert_false(seen & (1u << status));
                seen |= 1u << status;
                n++;
        }
        assert_null(outcome_result(n));
        assert_non_null(outcome_result(n - 1));
        for (size_t i = 0; i < n; i++)
                assert_true((int) job_result_from_string(outcome_result(i)->name) > 0);
        assert_int_equal(outcome_exit_of_result("done"), EXIT_DONE);
        assert_int_equal(outcome_exit_of_result("in-doubt"), EXIT_IN_DOUBT);
        assert_int_equal(outcome_exit_of_result(""), EXIT_FAILED);
        assert_int_equal(outcome_exit_of_result("Done"), EXIT_FAILED);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_every_outcome_has_a_doc_and_a_status),
                cmocka_unit_test(test_names_lead_back),
                cmocka_unit_test(test_other_names_are_not_ours),
                cmocka_unit_test(test_every_result_of_a_job_has_a_status),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
