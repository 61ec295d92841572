/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The one table that bus, CLI and man page share, against what was agreed. */

#include <ctype.h>

#include "common/outcome.h"
#include "daemon/core/half.h"
#include "test.h"

#define EXIT_LAST 12 /* 0 done ... 11 lost, 12 busy */

static void test_every_outcome_has_a_line_and_an_agreed_exit_status(void **state)
{
        for (Outcome i = 0; i < OUTCOME_MAX; i++) {
                const OutcomeInfo *info = outcome_info(i);

                assert_non_null(info);
                assert_non_null(info->doc);
                assert_true(info->doc[0] != 0);
                assert_in_range(info->exit, 0, EXIT_LAST);
                assert_int_equal(info->exit == EXIT_DONE, i == OUTCOME_NONE);
        }
}

/* Errors of the bus: all but "nothing went wrong" and "there is no daemon to say anything". */
static void test_names_on_the_bus_are_unique_and_come_back(void **state)
{
        for (Outcome i = 0; i < OUTCOME_MAX; i++) {
                const char *name = outcome_info(i)->name;
                char bus[128] = OUTCOME_BUS_PREFIX;

                assert_int_equal(name == NULL, i == OUTCOME_NONE || i == OUTCOME_UNREACHABLE);
                if (!name)
                        continue;
                for (const char *c = name; *c; c++)
                        assert_true(isalnum((unsigned char) *c)); /* else D-Bus takes it for no name */
                assert_true(isupper((unsigned char) name[0]));
                for (Outcome k = 0; k < i; k++)
                        assert_true(!outcome_info(k)->name || strcmp(outcome_info(k)->name, name) != 0);
                assert_true(strlen(bus) + strlen(name) < sizeof bus);
                strcat(bus, name);
                assert_int_equal(outcome_from_bus(bus), i);
        }
}

static void test_the_agreed_errors_have_these_names_and_exits(void **state)
{
        static const struct {
                const char *name;
                int exit;
        } agreed[] = {
                {"Incompatible", 6},   {"P2P", 6},       {"Busy", 12},           {"NoSuchVM", 5},
                {"Device", 1},         {"Peer", 1},      {"InDoubt", 9},         {"Denied", 4},
                {"Cancelled", 7},      {"Timeout", 3},   {"InvalidArgument", 2}, {"BadDefinition", 2},
                {"BadDestination", 2}, {"NoSuchJob", 5},
        };

        for (size_t i = 0; i < ARRAY_SIZE(agreed); i++) {
                char bus[128] = OUTCOME_BUS_PREFIX;
                const OutcomeInfo *info = outcome_info(outcome_from_bus(strcat(bus, agreed[i].name)));

                assert_non_null(info);
                assert_int_equal(info->exit, agreed[i].exit);
        }
        assert_int_equal(outcome_info(OUTCOME_UNREACHABLE)->exit, 8);
}

static void test_there_is_nothing_past_either_end(void **state)
{
        static const int outside[] = {-1, -EINVAL, INT32_MIN, OUTCOME_MAX, OUTCOME_MAX + 1, INT32_MAX};

        for (size_t i = 0; i < ARRAY_SIZE(outside); i++)
                assert_null(outcome_info((Outcome) outside[i]));
}

static void test_other_errors_of_the_bus_are_not_ours(void **state)
{
        static const char *const names[] = {
                "",
                "Busy",
                "org.migmgr1.Error",
                "org.migmgr1.Error.",
                "org.migmgr1.Error.busy",
                "org.migmgr1.Error.Busy2",
                "org.migmgr1.Error.Bus",
                "org.migmgr1.Error.Busy.More",
                "org.migmgr2.Error.Busy",
                "org.freedesktop.DBus.Error.ServiceUnknown",
        };

        for (size_t i = 0; i < ARRAY_SIZE(names); i++)
                assert_int_equal(outcome_from_bus(names[i]), OUTCOME_INVALID);
}

/* The job that a VM has already may be in doubt, or have moved it: no result of the one that was not begun says where it is. */
static void test_busy_is_no_result(void **state)
{
        for (size_t i = 0; outcome_result(i); i++)
                assert_int_not_equal(outcome_result(i)->exit, outcome_info(OUTCOME_BUSY)->exit);
}

/* A script that looks at the exit status alone must know which result it was. */
static void test_every_result_has_an_exit_status_of_its_own(void **state)
{
        static const struct {
                const char *name;
                int exit;
        } agreed[] = {{"done", 0},    {"failed", 1},    {"refused", 6},  {"cancelled", 7},
                      {"timeout", 3}, {"degraded", 10}, {"in-doubt", 9}, {"lost", 11}};
        size_t n = 0;

        for (const ResultInfo *info; (info = outcome_result(n)); n++) {
                assert_true(info->doc && info->doc[0]);
                for (size_t k = 0; k < n; k++) {
                        assert_string_not_equal(outcome_result(k)->name, info->name);
                        assert_int_not_equal(outcome_result(k)->exit, info->exit);
                }
        }
        assert_int_equal(n, ARRAY_SIZE(agreed));
        assert_null(outcome_result(n + 1));
        assert_null(outcome_result(SIZE_MAX));
        for (size_t i = 0; i < ARRAY_SIZE(agreed); i++)
                assert_int_equal(outcome_exit_of_result(agreed[i].name), agreed[i].exit);
}

/* The names come from core, the statuses from here: a result that only one of them knows would exit as "failed". */
static void test_every_result_of_core_is_in_the_table(void **state)
{
        size_t n = 0;

        for (JobResult r = JOB_RESULT_NONE + 1; r < JOB_RESULT_MAX; r++, n++) {
                bool found = false;

                for (size_t i = 0; outcome_result(i); i++)
                        found |= streq(outcome_result(i)->name, job_result_to_string(r));
                assert_true(found);
        }
        assert_null(outcome_result(n));
}

static void test_a_result_that_is_not_known_is_no_success(void **state)
{
        static const char *const names[] = {"", "Done", "done ", "don", "running", "?"};

        for (size_t i = 0; i < ARRAY_SIZE(names); i++)
                assert_int_equal(outcome_exit_of_result(names[i]), EXIT_FAILED);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_every_outcome_has_a_line_and_an_agreed_exit_status),
                cmocka_unit_test(test_names_on_the_bus_are_unique_and_come_back),
                cmocka_unit_test(test_the_agreed_errors_have_these_names_and_exits),
                cmocka_unit_test(test_there_is_nothing_past_either_end),
                cmocka_unit_test(test_other_errors_of_the_bus_are_not_ours),
                cmocka_unit_test(test_busy_is_no_result),
                cmocka_unit_test(test_every_result_has_an_exit_status_of_its_own),
                cmocka_unit_test(test_every_result_of_core_is_in_the_table),
                cmocka_unit_test(test_a_result_that_is_not_known_is_no_success),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
