/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Processes are children of the test that wait to be killed, and are waited for without being taken away: nothing here
 * depends on how fast anything is. */

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "common/process-id.h"
#include "test.h"

/* `name`: what /proc shows of it in brackets; NULL: as it is. */
static pid_t child_start(const char *name)
{
        int named[2];
        pid_t pid;
        char byte;

        assert_int_equal(pipe(named), 0);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
                if (name)
                        (void) prctl(PR_SET_NAME, name);
                if (write(named[1], "", 1) == 1)
                        (void) pause();
                _exit(0);
        }
        (void) close(named[1]);
        assert_int_equal(read(named[0], &byte, 1), 1);
        (void) close(named[0]);
        return pid;
}

/* It stays a zombie until child_reap(). */
static void child_kill(pid_t pid)
{
        siginfo_t info;

        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitid(P_PID, (id_t) pid, &info, WEXITED | WNOWAIT), 0);
}

static void child_reap(pid_t pid)
{
        assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static bool lives(const ProcessId *id)
{
        _cleanup_(closep) int fd = process_id_open(id);

        return fd >= 0;
}

static void test_a_process_that_lives_is_known_again(void **state)
{
        pid_t child = child_start(NULL);
        char boot[UUID_TEXT_MAX + 1];
        ProcessId id = {}, again = {};
        int fd;

        assert_int_equal(process_id_read(child, &id), 0);
        assert_int_equal(id.pid, child);
        assert_true(id.start > 0);
        assert_int_equal(boot_id_read(boot), 0);
        assert_true(uuid_is_valid(boot));
        assert_string_equal(id.boot, boot);
        assert_int_equal(process_id_read(child, &again), 0);
        assert_memory_equal(&id, &again, sizeof id);
        assert_true(lives(&id));
        fd = process_id_open(&id);
        assert_true(fd >= 0);
        assert_int_equal(poll(&(struct pollfd){fd, POLLIN, 0}, 1, 0), 0);
        child_kill(child);
        assert_int_equal(poll(&(struct pollfd){fd, POLLIN, 0}, 1, 0), 1);
        (void) close(fd);
        child_reap(child);
}

static void test_a_zombie_is_gone(void **state)
{
        pid_t child = child_start(NULL);
        ProcessId id, read_late = {.pid = 42};

        assert_int_equal(process_id_read(child, &id), 0);
        child_kill(child);
        assert_int_equal(kill(child, 0), 0); /* which is why that is not asked */
        assert_int_equal(process_id_read(child, &read_late), -ESRCH);
        assert_int_equal(read_late.pid, 42);
        assert_int_equal(process_id_open(&id), -ESRCH);
        assert_false(lives(&id));
        child_reap(child);
        assert_int_equal(process_id_open(&id), -ESRCH);
        assert_false(lives(&id));
}

/* What a pid that is used again looks like: the same number, another time, or another boot. */
static void test_a_pid_that_is_another_process_now_is_not_it(void **state)
{
        pid_t child = child_start(NULL);
        ProcessId id, other;

        assert_int_equal(process_id_read(child, &id), 0);
        other = id;
        other.start++;
        assert_int_equal(process_id_open(&other), -ESRCH);
        other = id;
        other.start--;
        assert_false(lives(&other));
        other = id;
        other.boot[0] = other.boot[0] == '0' ? '1' : '0';
        assert_int_equal(process_id_open(&other), -ESRCH);
        other = id;
        other.boot[0] = 0;
        assert_false(lives(&other));
        assert_true(lives(&id));
        child_kill(child);
        child_reap(child);
}

/* The name of a process is its own to choose; the start time must not come from it. */
static void test_a_process_cannot_lie_about_its_start_by_its_name(void **state)
{
        static const char *const names[] = {") Z 1 1 1 1 1", "a) S 9", "))))))", "((((", " ", ") ) 0 0"};

        for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
                pid_t before = child_start(NULL), child = child_start(names[i]), after = child_start(NULL);
                ProcessId a, b, c;

                assert_int_equal(process_id_read(before, &a), 0);
                assert_int_equal(process_id_read(child, &b), 0);
                assert_int_equal(process_id_read(after, &c), 0);
                assert_true(a.start <= b.start && b.start <= c.start);
                assert_true(lives(&b));
                for (pid_t each[] = {before, child, after}, *p = each; p < each + 3; p++) {
                        child_kill(*p);
                        child_reap(*p);
                }
        }
}

static void test_no_pid_is_no_process(void **state)
{
        static const pid_t pids[] = {0, -1, INT32_MIN, INT32_MAX};

        for (size_t i = 0; i < ARRAY_SIZE(pids); i++) {
                ProcessId id = {.pid = 42}, none = {.pid = pids[i]};

                assert_int_equal(process_id_read(pids[i], &id), -ESRCH);
                assert_int_equal(id.pid, 42);
                assert_int_equal(process_id_open(&none), -ESRCH);
                assert_false(lives(&none));
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_process_that_lives_is_known_again),
                cmocka_unit_test(test_a_zombie_is_gone),
                cmocka_unit_test(test_a_pid_that_is_another_process_now_is_not_it),
                cmocka_unit_test(test_a_process_cannot_lie_about_its_start_by_its_name),
                cmocka_unit_test(test_no_pid_is_no_process),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
