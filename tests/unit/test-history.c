/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What jobs did, as it is kept, found, and dropped when it is old. */

#include "common/log.h"
#include "daemon/store/history.h"
#include "scratch.h"

#define DAY (24 * 3600 * USEC_PER_SEC)

typedef struct Rig {
        Scratch scratch;
        HistoryDb *history;
        uint32_t n;
        char text[8][64];
} Rig;

static void silent(LogLevel level, const LogAbout *about, const char *text)
{
}

static void rig_init(Rig *rig)
{
        *rig = (Rig){};
        log_set_sink(silent);
        scratch_init(&rig->scratch);
        assert_int_equal(history_open(rig->scratch.dir, &rig->history), 0);
}

static void rig_deinit(Rig *rig)
{
        rig->history = history_close(rig->history);
        scratch_deinit(&rig->scratch);
}

/* Its number stands in the summary; it began a day before its end, and took one step then. */
static void put(Rig *rig, int n, uint64_t ended_usec, const char *result)
{
        char job[64], summary[64];

        (void) snprintf(job, sizeof job, "job-%d", n);
        (void) snprintf(summary, sizeof summary, "{\"n\":%d}", n);
        assert_int_equal(
                history_put_step(rig->history,
                                 &(StoreStep){.job = job, .usec = ended_usec - DAY, .json = "{\"step\":1}"}),
                0);
        assert_int_equal(history_put_job(rig->history, &(StoreJob){.job = job,
                                                                   .vm = n % 2 ? "odd" : "even",
                                                                   .name = n % 2 ? "Odd" : "Even",
                                                                   .result = result,
                                                                   .created_usec = ended_usec - DAY,
                                                                   .ended_usec = ended_usec,
                                                                   .summary = summary,
                                                                   .report = result}),
                         0);
}

static void check_list(Rig *rig, StoreFilter filter, const char *wanted)
{
        _cleanup_(freep) char *list = NULL;

        assert_int_equal(history_list(rig->history, &filter, &list), 0);
        assert_string_equal(list, wanted);
}

static int on_summary(void *userdata, const char *job, const char *summary, const char *report)
{
        Rig *rig = userdata;

        (void) snprintf(rig->text[rig->n++], sizeof rig->text[0], "%s %s", job, summary);
        return 0;
}

static void test_what_is_asked_for_is_found_newest_first(void **state)
{
        Rig rig;

        rig_init(&rig);
        put(&rig, 1, 30 * DAY, "done");
        put(&rig, 2, 10 * DAY, "failed");
        put(&rig, 3, 20 * DAY, "failed");
        check_list(&rig, (StoreFilter){},
                   "[{\"n\":3},{\"n\":2},{\"n\":1}]"); /* the clock was set back after the first */
        check_list(&rig, (StoreFilter){.result = "failed"}, "[{\"n\":3},{\"n\":2}]");
        check_list(&rig, (StoreFilter){.since_usec = 20 * DAY}, "[{\"n\":3},{\"n\":1}]");
        check_list(&rig, (StoreFilter){.since_usec = 20 * DAY + 1}, "[{\"n\":1}]");
        check_list(&rig, (StoreFilter){.vm = "odd", .result = "failed"}, "[{\"n\":3}]");
        check_list(&rig, (StoreFilter){.vm = "Even"}, "[{\"n\":2}]");
        check_list(&rig, (StoreFilter){.vm = "' OR 1 --"}, "[]");
        assert_int_equal(history_each(rig.history, 2, on_summary, &rig), 0);
        assert_int_equal(rig.n, 2);
        assert_string_equal(rig.text[0], "job-2 {\"n\":2}");
        assert_string_equal(rig.text[1], "job-3 {\"n\":3}");
        rig_deinit(&rig);
}

/* A restarted daemon ends a job again, and knows less of why. */
static void test_the_first_end_of_a_job_is_the_one_that_is_told(void **state)
{
        _cleanup_(freep) char *report = NULL, *steps = NULL;
        Rig rig;

        rig_init(&rig);
        put(&rig, 1, 2 * DAY, "cancelled");
        put(&rig, 1, 3 * DAY, "failed");
        assert_int_equal(history_find(rig.history, "job-1", &report, &steps), 0);
        assert_string_equal(report, "cancelled");
        assert_string_equal(steps, "[{\"step\":1},{\"step\":1}]");
        rig_deinit(&rig);
}

static void test_what_is_not_there_is_not_found(void **state)
{
        char *report = NULL, *steps = NULL;
        Rig rig;

        rig_init(&rig);
        assert_int_equal(history_find(rig.history, "job-1", &report, &steps), 0);
        assert_null(report);
        assert_string_equal(steps, "[]");
        free(steps);
        rig_deinit(&rig);
}

static int count_steps(Rig *rig, const char *job)
{
        _cleanup_(freep) char *report = NULL, *steps = NULL;
        int n = 0;

        assert_int_equal(history_find(rig->history, job, &report, &steps), 0);
        for (const char *p = steps; (p = strstr(p, "{")); p++)
                n++;
        return n;
}

static void test_old_jobs_go_by_age_and_by_number(void **state)
{
        Rig rig;

        rig_init(&rig);
        for (int i = 0; i < 6; i++)
                put(&rig, i, (uint64_t) (10 + i) * DAY, "done");
        assert_int_equal(history_prune(rig.history, &(StoreLimits){}, 1000 * DAY), 0); /* no limits */
        check_list(&rig, (StoreFilter){.since_usec = 1},
                   "[{\"n\":5},{\"n\":4},{\"n\":3},{\"n\":2},{\"n\":1},{\"n\":0}]");
        assert_int_equal(history_prune(rig.history, &(StoreLimits){.days = 3}, 14 * DAY), 0);
        check_list(&rig, (StoreFilter){}, "[{\"n\":5},{\"n\":4},{\"n\":3},{\"n\":2},{\"n\":1}]");
        assert_int_equal(count_steps(&rig, "job-0"), 0);
        assert_int_equal(history_prune(rig.history, &(StoreLimits){.jobs = 2}, 14 * DAY), 0);
        check_list(&rig, (StoreFilter){}, "[{\"n\":5},{\"n\":4}]");
        assert_int_equal(count_steps(&rig, "job-3"), 0);
        assert_int_equal(count_steps(&rig, "job-4"), 1);
        rig_deinit(&rig);
}

/* A job that goes on, or is in doubt for a week. */
static void test_the_steps_of_a_job_that_has_not_ended_stay(void **state)
{
        Rig rig;

        rig_init(&rig);
        put(&rig, 1, 10 * DAY, "done");
        assert_int_equal(
                history_put_step(rig.history, &(StoreStep){.job = "open", .usec = 10 * DAY, .json = "{}"}),
                0);
        assert_int_equal(history_prune(rig.history, &(StoreLimits){.jobs = 1, .days = 30}, 20 * DAY), 0);
        assert_int_equal(count_steps(&rig, "open"), 1);
        assert_int_equal(history_prune(rig.history, &(StoreLimits){.jobs = 1, .days = 30}, 50 * DAY), 0);
        assert_int_equal(count_steps(&rig, "open"), 0);
        rig_deinit(&rig);
}

/* What was written last is the newest, whatever the clock said. */
static void test_a_clock_that_is_set_back_drops_no_newer_job(void **state)
{
        Rig rig;

        rig_init(&rig);
        put(&rig, 1, 30 * DAY, "done");
        put(&rig, 2, 31 * DAY, "done");
        assert_int_equal(
                history_put_step(rig.history, &(StoreStep){.job = "open", .usec = 5 * DAY, .json = "{}"}), 0);
        put(&rig, 3, 6 * DAY, "done");
        assert_int_equal(history_prune(rig.history, &(StoreLimits){.jobs = 2}, 6 * DAY), 0);
        check_list(&rig, (StoreFilter){}, "[{\"n\":3},{\"n\":2}]");
        assert_int_equal(count_steps(&rig, "open"), 1);
        assert_int_equal(history_prune(rig.history, &(StoreLimits){.jobs = 1}, 6 * DAY), 0);
        assert_int_equal(count_steps(&rig, "open"), 0);
        rig_deinit(&rig);
}

/* Nobody's VM depends on it: migmgrd starts, and what was there is kept for whoever can mend it. */
static void test_a_damaged_file_is_put_aside(void **state)
{
        char garbage[8192];
        Rig rig;

        memset(garbage, 0xa5, sizeof garbage);
        rig_init(&rig);
        put(&rig, 1, 10 * DAY, "done");
        rig.history = history_close(rig.history);
        scratch_write(&rig.scratch, "history.db", garbage, sizeof garbage);
        assert_int_equal(history_open(rig.scratch.dir, &rig.history), 0);
        check_list(&rig, (StoreFilter){}, "[]");
        assert_int_equal(access(scratch_path(&rig.scratch, "history.db.damaged"), F_OK), 0);
        put(&rig, 2, 10 * DAY, "done");
        check_list(&rig, (StoreFilter){}, "[{\"n\":2}]");
        rig_deinit(&rig);
}

/* What can't be read is left out, and all else is there. */
static void test_a_damaged_row_hides_no_other(void **state)
{
        static const char *const damaged[] = {"", "{", "\xff"};
        _cleanup_(freep) char *report = NULL, *steps = NULL;
        Rig rig;

        rig_init(&rig);
        put(&rig, 1, 10 * DAY, "done");
        for (size_t i = 0; i < ARRAY_SIZE(damaged); i++) {
                char job[16];

                (void) snprintf(job, sizeof job, "damaged-%zu", i);
                assert_int_equal(history_put_job(rig.history, &(StoreJob){.job = job,
                                                                          .vm = "",
                                                                          .name = "",
                                                                          .result = "",
                                                                          .ended_usec = (5 + i) * DAY,
                                                                          .summary = damaged[i],
                                                                          .report = ""}),
                                 0);
                assert_int_equal(
                        history_put_step(rig.history, &(StoreStep){.job = "job-1", .json = damaged[i]}), 0);
        }
        check_list(&rig, (StoreFilter){}, "[{\"n\":1}]");
        assert_int_equal(history_find(rig.history, "job-1", &report, &steps), 0);
        assert_string_equal(steps, "[{\"step\":1}]");
        rig_deinit(&rig);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_what_is_asked_for_is_found_newest_first),
                cmocka_unit_test(test_the_first_end_of_a_job_is_the_one_that_is_told),
                cmocka_unit_test(test_what_is_not_there_is_not_found),
                cmocka_unit_test(test_old_jobs_go_by_age_and_by_number),
                cmocka_unit_test(test_the_steps_of_a_job_that_has_not_ended_stay),
                cmocka_unit_test(test_a_clock_that_is_set_back_drops_no_newer_job),
                cmocka_unit_test(test_a_damaged_file_is_put_aside),
                cmocka_unit_test(test_a_damaged_row_hides_no_other),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
