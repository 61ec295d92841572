/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/socket.h"
#include "daemon/helper/child.h"
#include "scratch.h"

static int answer_text(const char *argument, ChildWork *work)
{
        (void) snprintf(work->text, sizeof work->text, "%s it is", argument);
        work->fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        return -ENODEV;
}

/* As in a call that the kernel keeps; `argument` is the file that names who hangs. */
static int hang(const char *argument, ChildWork *work)
{
        char pid[16];

        (void) snprintf(pid, sizeof pid, "%d", (int) getpid());
        if (symlink(pid, argument) < 0)
                return -errno;
        for (;;)
                (void) pause();
}

static void test_what_is_answered(void **state)
{
        ChildWork work;

        assert_int_equal(child_run(answer_text, "that", USEC_PER_SEC * 10, &work), -ENODEV);
        assert_string_equal(work.text, "that it is");
        assert_true(work.fd >= 0);
        (void) close(work.fd);
}

/* Else the next helper could not listen, and nobody would learn that this one has ended. */
static void test_a_child_that_hangs_keeps_nothing_open(void **state)
{
        char path[sizeof((Scratch *) 0)->path], pid[16] = "";
        Scratch scratch;
        ChildWork work;
        int fd;

        scratch_init(&scratch);
        (void) snprintf(path, sizeof path, "%s", scratch_path(&scratch, "socket"));
        fd = socket_listen(path, SOCK_STREAM);
        assert_true(fd >= 0);
        assert_int_equal(child_run(hang, scratch_path(&scratch, "pid"), USEC_PER_SEC / 2, &work), -ETIMEDOUT);
        (void) close(fd);
        fd = socket_connect(path, SOCK_STREAM);
        assert_true(readlink(scratch_path(&scratch, "pid"), pid, sizeof pid - 1) > 0);
        assert_int_equal(kill((pid_t) strtol(pid, NULL, 10), SIGKILL), 0);
        scratch_deinit(&scratch);
        assert_int_equal(fd, -ECONNREFUSED);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_what_is_answered),
                cmocka_unit_test(test_a_child_that_hangs_keeps_nothing_open),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
