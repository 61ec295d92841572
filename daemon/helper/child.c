/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "child.h"

#include <poll.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "common/clock.h"
#include "common/socket.h"

typedef struct Answer {
        int status;
        char text[CHILD_TEXT_MAX];
} Answer;

#define SOCKET_FD 3

/* What the helper serves must end with the helper, also when the kernel keeps this child for longer. */
static void __attribute__((noreturn)) work(ChildRun run, const char *argument, int socket)
{
        ChildWork work = {.fd = -1};
        Answer answer = {};

        if (dup2(socket, SOCKET_FD) < 0)
                _exit(1);
        (void) syscall(SYS_close_range, SOCKET_FD + 1, ~0u, 0);
        answer.status = run(argument, &work);
        memcpy(answer.text, work.text, sizeof answer.text);
        _exit(socket_send(SOCKET_FD, &answer, sizeof answer, &work.fd, work.fd >= 0 ? 1 : 0) < 0);
}

/* Forked twice: nobody has to wait for a child that hangs. */
static int start(ChildRun run, const char *argument, int socket)
{
        pid_t middle = fork();

        if (middle < 0)
                return -errno;
        if (middle == 0) {
                pid_t pid = fork();

                if (pid == 0)
                        work(run, argument, socket);
                _exit(pid < 0);
        }
        while (waitpid(middle, NULL, 0) < 0)
                if (errno != EINTR)
                        return -errno;
        return 0;
}

static int wait_for_answer(int socket, uint64_t usec)
{
        struct pollfd poll_fd = {.fd = socket, .events = POLLIN};
        uint64_t end = clock_monotonic_usec() + usec, now;

        while ((now = clock_monotonic_usec()) < end) {
                int r = poll(&poll_fd, 1, (int) ((end - now) / USEC_PER_MSEC) + 1);

                if (r > 0)
                        return 0;
                if (r < 0 && errno != EINTR)
                        return -errno;
        }
        return -ETIMEDOUT;
}

int child_run(ChildRun run, const char *argument, uint64_t usec, ChildWork *ret)
{
        _cleanup_(closep) int ours = -1, theirs = -1;
        ChildWork answered = {.fd = -1};
        Answer answer;
        size_t n_fds = 0;
        ssize_t n;
        int pair[2], r;

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
                return -errno;
        ours = pair[0];
        theirs = pair[1];
        r = start(run, argument, theirs);
        (void) close(TAKE_FD(theirs));
        if (r >= 0)
                r = wait_for_answer(ours, usec);
        if (r < 0)
                return r;
        n = socket_recv(ours, &answer, sizeof answer, &answered.fd, 1, &n_fds);
        if (n != sizeof answer)
                return n < 0 ? (int) n : -ECHILD;
        memcpy(answered.text, answer.text, sizeof answered.text);
        answered.text[sizeof answered.text - 1] = 0;
        *ret = answered;
        return answer.status;
}
