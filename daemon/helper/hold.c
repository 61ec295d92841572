/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Holds the one thread of a QEMU that takes its devices through their states when it believes that memory is nearly through.
 * The vCPUs and the monitor go on. A child of the helper is the tracer: only the thread that has seized another one may let
 * it go, and it must be able to wait. Whatever ends that child, the kernel lets the thread go with it. */

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ptrace.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "call.h"
#include "common/clock.h"

/* What QEMU calls the thread, when it names its threads. */
#define THREAD_NAME "mig/src/main"
#define THREADS_MAX 65536

#define STAND_USEC \
        (300 * USEC_PER_MSEC) /* a thread that does not stand by then is in a call that does not end */
#define HOLD_USEC (2 * USEC_PER_SEC)

typedef struct Hold {
        int socket, signals;
        pid_t thread;
        int passed_on; /* the signal that stopped it, and is for itself */
} Hold;

static bool has_name(pid_t pid, pid_t thread)
{
        char path[64], name[32];
        FILE *f;
        bool yes;

        (void) snprintf(path, sizeof path, "/proc/%d/task/%d/comm", (int) pid, (int) thread);
        f = fopen(path, "re");
        if (!f)
                return false;
        yes = fgets(name, sizeof name, f) && streq(name, THREAD_NAME "\n");
        (void) fclose(f);
        return yes;
}

static pid_t find_thread(pid_t pid)
{
        char path[32];
        struct dirent *entry;
        pid_t found = -ENOENT;
        DIR *dir;

        (void) snprintf(path, sizeof path, "/proc/%d/task", (int) pid);
        dir = opendir(path);
        if (!dir)
                return -errno;
        for (int n = 0; found < 0 && n < THREADS_MAX && (entry = readdir(dir)); n++) {
                pid_t thread = (pid_t) strtol(entry->d_name, NULL, 10);

                if (thread > 0 && has_name(pid, thread))
                        found = thread;
        }
        (void) closedir(dir);
        return found;
}

static void tell(const Hold *hold, const char *text)
{
        (void) send(hold->socket, text, MAX(strlen(text), 1), MSG_NOSIGNAL);
}

/* 1: it stands; 0: not yet. */
static int has_stopped(Hold *hold)
{
        int status;
        pid_t r = waitpid(hold->thread, &status, WNOHANG | __WALL);

        if (r < 0 || (r > 0 && !WIFSTOPPED(status)))
                return -ESRCH;
        if (r == 0)
                return 0;
        hold->passed_on = status >> 16 == PTRACE_EVENT_STOP ? 0 : WSTOPSIG(status);
        return 1;
}

static int wait_to_stand(Hold *hold)
{
        uint64_t until = clock_monotonic_usec() + STAND_USEC;
        struct pollfd p = {.fd = hold->signals, .events = POLLIN};
        struct signalfd_siginfo info;
        int r;

        while ((r = has_stopped(hold)) == 0) {
                uint64_t now = clock_monotonic_usec();

                if (now >= until)
                        return -ETIMEDOUT;
                if (poll(&p, 1, (int) ((until - now) / USEC_PER_MSEC) + 1) > 0 &&
                    read(hold->signals, &info, sizeof info) < 0)
                        return -errno;
        }
        return r < 0 ? r : 0;
}

/* Until the other end of the socket is closed, or the time is up. */
static void wait_to_let_go(const Hold *hold)
{
        struct pollfd p = {.fd = hold->socket, .events = POLLIN};

        (void) poll(&p, 1, HOLD_USEC / USEC_PER_MSEC);
}

static void hold_thread(Hold *hold, pid_t pid)
{
        if (ptrace(PTRACE_SEIZE, hold->thread, NULL, NULL) < 0) {
                tell(hold, errno == EPERM || errno == EACCES ? "it may not be traced" : strerror(errno));
                return;
        }
        /* Whatever had that number before: what is seized now is a thread of that process and has that name. */
        if (!has_name(pid, hold->thread) || ptrace(PTRACE_INTERRUPT, hold->thread, NULL, NULL) < 0 ||
            wait_to_stand(hold) < 0) {
                tell(hold, "its migration thread did not stand in time");
                return; /* the kernel lets go of it when we end */
        }
        tell(hold, "");
        wait_to_let_go(hold);
        (void) ptrace(PTRACE_DETACH, hold->thread, NULL, (void *) (intptr_t) hold->passed_on);
}

static void __attribute__((noreturn)) be_tracer(int socket, int pidfd, pid_t pid, pid_t thread)
{
        struct pollfd alive = {.fd = 4, .events = POLLIN};
        Hold hold = {.socket = 3, .thread = thread};
        sigset_t child;

        /* What the helper serves must end with the helper. */
        if (dup2(socket, 3) < 0 || dup2(pidfd, 4) < 0)
                _exit(1);
        (void) syscall(SYS_close_range, 5, ~0u, 0);
        (void) sigemptyset(&child);
        (void) sigaddset(&child, SIGCHLD);
        (void) sigprocmask(SIG_BLOCK, &child, NULL);
        hold.signals = signalfd(-1, &child, SFD_CLOEXEC);
        if (hold.signals >= 0 && poll(&alive, 1, 0) == 0)
                hold_thread(&hold, pid);
        _exit(0);
}

void hold_reap(void)
{
        while (waitpid(-1, NULL, WNOHANG) > 0)
                ;
}

int call_hold(Call *call)
{
        _cleanup_(closep) int pidfd = -1, ours = -1, theirs = -1;
        ProcessId id;
        pid_t thread, child;
        int s[2], r = call_process(call, &id);

        if (r < 0)
                return r;
        pidfd = process_id_open(&id);
        if (pidfd < 0)
                return call_say(call, pidfd, "that process has ended");
        thread = find_thread(id.pid);
        if (thread < 0)
                return call_say_of(
                        call, thread,
                        "process %d has no thread called " THREAD_NAME
                        ": it does not migrate, or does not name its threads (-name debug-threads=on)",
                        (int) id.pid);
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, s) < 0)
                return call_say(call, -errno, "no socket");
        theirs = s[0];
        ours = s[1];
        child = fork();
        if (child < 0)
                return call_say(call, -errno, "cannot fork");
        if (child == 0) {
                int socket = fcntl(ours, F_DUPFD, 16), process = fcntl(pidfd, F_DUPFD, 16);

                if (socket >= 0 && process >= 0)
                        be_tracer(socket, process, id.pid, thread);
                _exit(1);
        }
        call->fd = TAKE_FD(theirs);
        return 0;
}
