/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "starter.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "scope.h"

#define KEEP_FD   3
#define REPORT_FD 4

/* What the processes on the way tell us, over a pipe. */
typedef struct Report {
        pid_t pid;  /* of the program */
        int status; /* 0, or the negative errno with which it could not begin */
} Report;

static void report(int fd, pid_t pid, int status)
{
        Report r = {pid, status};

        if (write(fd, &r, sizeof r) != sizeof r)
                _exit(1);
}

static void close_descriptors(unsigned int first, unsigned int last)
{
        (void) syscall(SYS_close_range, first, last, 0);
}

/* Out of the way of the descriptors that the program is given. */
static int move_up(int fd)
{
        return fd < 0 ? fd : fcntl(fd, F_DUPFD_CLOEXEC, KEEP_FD + 8);
}

/* Leaves 0 to 2, KEEP_FD when there is something to keep, and REPORT_FD, which closes when the program begins. */
static int prepare_files(const Start *start, int report_fd)
{
        int null = move_up(open("/dev/null", O_RDWR | O_CLOEXEC)), keep = move_up(start->keep_fd);
        int log = move_up(start->log_fd), rep = move_up(report_fd);

        if (null < 0 || rep < 0 || dup2(null, STDIN_FILENO) < 0)
                return -errno;
        if (log >= 0 && (dup2(log, STDOUT_FILENO) < 0 || dup2(log, STDERR_FILENO) < 0))
                return -errno;
        close_descriptors(KEEP_FD, KEEP_FD + 7);
        if (keep >= 0 && dup2(keep, KEEP_FD) < 0)
                return -errno;
        if (dup3(rep, REPORT_FD, O_CLOEXEC) < 0)
                return -errno;
        close_descriptors(REPORT_FD + 1, ~0u);
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

/* The program-to-be: waits until it has its scope, then begins. A pipe that closes on exec tells of success. */
static void __attribute__((noreturn)) become_program(const Start *start, int go_fd, int report_fd)
{
        char go;
        int r;

        if (read(go_fd, &go, 1) != 1)
                _exit(1);
        reset_signals();
        r = prepare_files(start, report_fd);
        if (r == 0) {
                (void) execv(start->argv[0], (char *const *) start->argv);
                r = -errno;
        }
        report(REPORT_FD, 0, r);
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
static void __attribute__((noreturn)) keep(const Start *start, int go_fd, int report_fd)
{
        pid_t pid;

        (void) setsid();
        (void) prctl(PR_SET_CHILD_SUBREAPER, 1);
        (void) prctl(PR_SET_NAME, "migmgr-keeper");
        pid = fork();
        if (pid < 0) {
                report(report_fd, 0, -errno);
                _exit(1);
        }
        if (pid == 0)
                become_program(start, go_fd, report_fd);
        report(report_fd, pid, 0);
        hold_nothing();
        for (int sig = 1; sig < NSIG; sig++)
                (void) signal(sig, sig == SIGCHLD ? SIG_DFL : SIG_IGN);
        while (wait(NULL) > 0 || errno == EINTR)
                ;
        _exit(0);
}

/* 1: a report; 0: all who could report have begun or ended. */
static int read_report(int fd, Report *ret)
{
        ssize_t n;

        do
                n = read(fd, ret, sizeof *ret);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return -errno;
        if (n == 0)
                return 0;
        return n == sizeof *ret ? 1 : -EIO;
}

static int fork_keeper(const Start *start, const int go[2], const int reports[2])
{
        pid_t middle = fork();
        int status;

        if (middle < 0)
                return -errno;
        if (middle == 0) {
                (void) close(go[1]);
                (void) close(reports[0]);
                if (fork() == 0)
                        keep(start, go[0], reports[1]);
                _exit(0);
        }
        if (waitpid(middle, &status, 0) < 0)
                return -errno;
        return 0;
}

int starter_start(const Start *start, pid_t *ret_pid, const char **ret_text)
{
        _cleanup_(closep) int go_read = -1, go_write = -1, report_read = -1, report_write = -1;
        int go[2], reports[2], r;
        Report begun, late;

        *ret_text = "cannot fork";
        if (pipe2(go, O_CLOEXEC) < 0)
                return -errno;
        go_read = go[0];
        go_write = go[1];
        if (pipe2(reports, O_CLOEXEC) < 0)
                return -errno;
        report_read = reports[0];
        report_write = reports[1];
        r = fork_keeper(start, go, reports);
        if (r < 0)
                return r;
        (void) close(TAKE_FD(report_write));
        (void) close(TAKE_FD(go_read));
        r = read_report(report_read, &begun);
        if (r <= 0 || begun.status < 0)
                return r < 0 ? r : r == 0 ? -ECHILD : begun.status;

        *ret_text = "cannot be given a scope of its own";
        r = scope_start(start->scope, start->description, begun.pid);
        if (r < 0)
                return r; /* it has not begun: it ends when the pipe closes */
        *ret_text = "cannot be executed";
        if (write(go_write, "", 1) != 1)
                return -errno;
        r = read_report(report_read, &late);
        if (r != 0)
                return r < 0 ? r : late.status;
        *ret_pid = begun.pid;
        return 0;
}
