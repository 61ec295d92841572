/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "starter.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "scope.h"

#define KEEP_FD 3
#define WORD_FD 4

/* What the keeper tells us. */
typedef struct Report {
        pid_t pid;  /* of the program-to-be */
        int status; /* 0, or the negative errno with which it could not be made */
} Report;

static void close_descriptors(unsigned int first, unsigned int last)
{
        (void) syscall(SYS_close_range, first, last, 0);
}

/* Out of the way of the descriptors that the program is given. */
static int move_up(int fd)
{
        return fd < 0 ? fd : fcntl(fd, F_DUPFD_CLOEXEC, KEEP_FD + 8);
}

/* Leaves 0 to 2, KEEP_FD when there is something to keep, and WORD_FD, which closes when the program begins. `word` is out of
 * the way, and still there when this fails. */
static int prepare_files(const Start *start, int word)
{
        int null = move_up(open("/dev/null", O_RDWR | O_CLOEXEC)), keep = move_up(start->keep_fd);
        int log = move_up(start->log_fd);

        if (null < 0 || dup2(null, STDIN_FILENO) < 0)
                return -errno;
        if (log >= 0 && (dup2(log, STDOUT_FILENO) < 0 || dup2(log, STDERR_FILENO) < 0))
                return -errno;
        close_descriptors(KEEP_FD, KEEP_FD + 7);
        if (keep >= 0 && dup2(keep, KEEP_FD) < 0)
                return -errno;
        if (dup3(word, WORD_FD, O_CLOEXEC) < 0)
                return -errno;
        close_descriptors(WORD_FD + 1, ~0u);
        return 0;
}

static void reset_signals(void)
{
        sigset_t none;

        (void) sigemptyset(&none);
        (void) sigprocmask(SIG_SETMASK, &none, NULL);
        for (int sig = 1; sig < NSIG; sig++)
                (void) signal(sig, SIG_DFL);
}

/* The program-to-be: waits for the word of whoever knows of it by then, and ends with the last who could give it. What it
 * has inherited is closed before: it must not keep the helper's connections open when the helper has ended. */
static void __attribute__((noreturn)) become_program(const Start *start, int report_fd, int word_fd)
{
        int32_t r;
        char go;

        (void) close(report_fd);
        word_fd = move_up(word_fd);
        r = prepare_files(start, word_fd);
        if (r == 0)
                word_fd = WORD_FD;
        if (recv(word_fd, &go, 1, 0) != 1)
                _exit(1);
        reset_signals();
        if (r == 0) {
                (void) execv(start->argv[0], (char *const *) start->argv);
                r = -errno;
        }
        (void) send(word_fd, &r, sizeof r, MSG_NOSIGNAL);
        _exit(127);
}

/* A keeper must not keep anybody's files, or terminals, open. */
static void hold_nothing(void)
{
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);

        for (int fd = 0; fd < 3 && null >= 0; fd++)
                (void) dup2(null, fd);
        close_descriptors(3, ~0u);
}

/* Between PID 1 and the program: its subreaper, which waits for it and whatever it leaves behind. */
static void __attribute__((noreturn)) keep(const Start *start, int report_fd, int word_fd)
{
        Report report = {};

        (void) setsid();
        (void) prctl(PR_SET_CHILD_SUBREAPER, 1);
        (void) prctl(PR_SET_NAME, "migmgr-keeper");
        report.pid = fork();
        if (report.pid == 0)
                become_program(start, report_fd, word_fd);
        if (report.pid < 0)
                report.status = -errno;
        if (write(report_fd, &report, sizeof report) != sizeof report || report.status < 0)
                _exit(1);
        hold_nothing();
        for (int sig = 1; sig < NSIG; sig++)
                (void) signal(sig, sig == SIGCHLD ? SIG_DFL : SIG_IGN);
        while (wait(NULL) > 0 || errno == EINTR)
                ;
        _exit(0);
}

/* Its end, however it came, ends the pipe: nobody else has it for long. */
static int read_report(int fd, Report *ret)
{
        ssize_t n;

        do
                n = read(fd, ret, sizeof *ret);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return -errno;
        return n == sizeof *ret ? ret->status : -ECHILD;
}

static int fork_keeper(const Start *start, int report_fd, int ours, int theirs)
{
        pid_t middle = fork();
        int status;

        if (middle < 0)
                return -errno;
        if (middle == 0) {
                (void) close(ours);
                if (fork() == 0)
                        keep(start, report_fd, theirs);
                _exit(0);
        }
        while (waitpid(middle, &status, 0) < 0)
                if (errno != EINTR)
                        return -errno;
        return 0;
}

int starter_start(const Start *start, pid_t *ret_pid, int *ret_socket, const char **ret_text)
{
        _cleanup_(closep) int ours = -1, theirs = -1, report_in = -1, report_out = -1;
        char scope[256];
        Report report;
        int pair[2], r;

        *ret_text = "cannot fork";
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
                return -errno;
        ours = pair[0];
        theirs = pair[1];
        if (pipe2(pair, O_CLOEXEC) < 0)
                return -errno;
        report_in = pair[0];
        report_out = pair[1];
        r = fork_keeper(start, report_out, ours, theirs);
        if (r < 0)
                return r;
        (void) close(TAKE_FD(theirs));
        (void) close(TAKE_FD(report_out));
        r = read_report(report_in, &report);
        if (r < 0)
                return r;

        *ret_text = "cannot be given a scope of its own; is the one before still there?";
        if (start->scope_by_pid)
                (void) snprintf(scope, sizeof scope, "%.200s-%d", start->scope, (int) report.pid);
        else
                (void) snprintf(scope, sizeof scope, "%.200s", start->scope);
        r = scope_start(scope, start->description, report.pid);
        if (r < 0)
                return r; /* it has not begun: it ends when the socket closes */
        *ret_pid = report.pid;
        *ret_socket = TAKE_FD(ours);
        return 0;
}
