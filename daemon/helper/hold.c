/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Holds threads of a QEMU: the one that takes its devices through their states when it believes that memory is nearly through,
 * or those that execute its guest. All others go on. A child of the helper is the tracer: only the thread that has seized
 * another one may let it go, and it must be able to wait. Whatever ends that child, the kernel lets the threads go with it. */

#include <dirent.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
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
#define HOLD_THREAD_USEC (2 * USEC_PER_SEC)
#define HOLD_VCPUS_USEC  (60 * USEC_PER_SEC)

typedef struct Thread {
        pid_t id;
        bool seen; /* it has stopped once, since when it can't run unseen */
        bool stands;
        bool ended;
        int passed_on; /* the signal that stopped it, and is for itself */
} Thread;

typedef struct Hold {
        int socket, process, signals;
        pid_t pid;
        const char *name;   /* of the one thread that may be held, or NULL */
        bool until_kvm_run; /* they stand only where they would execute the guest */
        uint64_t usec;
        uint32_t n;
        Thread threads[HELPER_STRINGS_MAX];
} Hold;

/* NULL: any. */
static bool has_name(pid_t pid, pid_t thread, const char *wanted)
{
        char path[64], name[32] = "";
        FILE *f;
        bool there;

        (void) snprintf(path, sizeof path, "/proc/%d/task/%d/comm", (int) pid, (int) thread);
        f = fopen(path, "re");
        if (!f)
                return false;
        there = fgets(name, sizeof name, f) != NULL;
        (void) fclose(f);
        name[strcspn(name, "\n")] = 0;
        return there && (!wanted || streq(name, wanted));
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

                if (thread > 0 && has_name(pid, thread, THREAD_NAME))
                        found = thread;
        }
        (void) closedir(dir);
        return found;
}

/* ---- stops ---------------------------------------------------------------------------------------------------- */

static bool is_about_to_run_guest(const Thread *thread)
{
        struct __ptrace_syscall_info info = {};

        /* Where the kernel can't say what it is, the thread stands. */
        if (ptrace(PTRACE_GET_SYSCALL_INFO, thread->id, (void *) sizeof info, &info) <= 0)
                return true;
        return info.op == PTRACE_SYSCALL_INFO_ENTRY && info.entry.nr == SYS_ioctl &&
               (uint32_t) info.entry.args[1] == KVM_RUN;
}

/* To the next call that it makes. One that somebody has stopped stays so. */
static void go_on(Thread *thread, int status)
{
        bool group = status >> 16 == PTRACE_EVENT_STOP && WSTOPSIG(status) != SIGTRAP;

        thread->stands = false;
        (void) ptrace(group ? PTRACE_LISTEN : PTRACE_SYSCALL, thread->id, NULL,
                      (void *) (intptr_t) thread->passed_on);
        thread->passed_on = 0;
}

static void on_stop(Hold *hold, Thread *thread, int status)
{
        bool in_call = WSTOPSIG(status) == (SIGTRAP | 0x80);

        thread->seen = thread->stands = true;
        thread->passed_on = in_call || status >> 16 == PTRACE_EVENT_STOP ? 0 : WSTOPSIG(status);
        if (hold->until_kvm_run && !(in_call && is_about_to_run_guest(thread)))
                go_on(thread, status);
}

/* Also those that have ended: a process is not gone before all of its threads have been waited for. */
static void take_stops(Hold *hold)
{
        struct signalfd_siginfo info;
        int status;
        pid_t id;

        while (read(hold->signals, &info, sizeof info) > 0)
                ;
        while ((id = waitpid(-1, &status, WNOHANG | __WALL)) > 0)
                for (uint32_t i = 0; i < hold->n; i++)
                        if (hold->threads[i].id == id && WIFSTOPPED(status))
                                on_stop(hold, &hold->threads[i], status);
                        else if (hold->threads[i].id == id)
                                hold->threads[i].ended = true;
}

static bool all_ended(const Hold *hold)
{
        for (uint32_t i = 0; i < hold->n; i++)
                if (!hold->threads[i].ended)
                        return false;
        return true;
}

static bool all_seen(const Hold *hold)
{
        for (uint32_t i = 0; i < hold->n; i++)
                if (!hold->threads[i].seen)
                        return false;
        return true;
}

/* ---- the tracer ------------------------------------------------------------------------------------------------- */

/* NULL, or why not. */
static const char *seize(const Hold *hold, const Thread *thread)
{
        struct pollfd alive = {.fd = hold->process, .events = POLLIN};

        if (ptrace(PTRACE_SEIZE, thread->id, NULL, (void *) (intptr_t) PTRACE_O_TRACESYSGOOD) < 0)
                return errno == EPERM || errno == EACCES ? "it may not be traced" : strerror(errno);
        /* Whatever had that number before: what is seized now is a thread of that process, which lives. */
        if (!has_name(hold->pid, thread->id, hold->name) || poll(&alive, 1, 0) != 0 ||
            ptrace(PTRACE_INTERRUPT, thread->id, NULL, NULL) < 0)
                return "it has no such thread any more";
        return NULL;
}

/* Each stops once; what it does then is up to on_stop(). */
static const char *seize_all(Hold *hold)
{
        uint64_t until = clock_monotonic_usec() + STAND_USEC, now;
        struct pollfd p = {.fd = hold->signals, .events = POLLIN};

        for (uint32_t i = 0; i < hold->n; i++) {
                const char *text = seize(hold, &hold->threads[i]);

                if (text)
                        return text;
        }
        while (!all_seen(hold)) {
                now = clock_monotonic_usec();
                if (now >= until)
                        return "its thread did not stand in time";
                (void) poll(&p, 1, (int) ((until - now) / USEC_PER_MSEC) + 1);
                take_stops(hold);
        }
        return NULL;
}

static void say(const Hold *hold, uint8_t byte)
{
        (void) send(hold->socket, &byte, 1, MSG_NOSIGNAL);
}

static bool is_told_to_kill(const Hold *hold)
{
        uint8_t byte;

        return recv(hold->socket, &byte, 1, MSG_DONTWAIT) == 1 && byte == HELPER_HOLD_KILL;
}

/* Until the other end of the socket is closed, the threads have ended, or the time is up. */
static void keep(Hold *hold)
{
        uint64_t until = clock_monotonic_usec() + hold->usec, now;

        while ((now = clock_monotonic_usec()) < until) {
                struct pollfd p[] = {{.fd = hold->socket, .events = POLLIN},
                                     {.fd = hold->signals, .events = POLLIN}};

                (void) poll(p, ARRAY_SIZE(p), (int) ((until - now) / USEC_PER_MSEC) + 1);
                take_stops(hold);
                if (all_ended(hold)) {
                        say(hold, HELPER_HOLD_ENDED);
                        return;
                }
                if (p[0].revents && !is_told_to_kill(hold))
                        return;
                if (p[0].revents)
                        (void) syscall(SYS_pidfd_send_signal, hold->process, SIGKILL, NULL, 0);
        }
}

static void hold_threads(Hold *hold)
{
        const char *text = seize_all(hold);

        if (text) {
                (void) send(hold->socket, text, strlen(text), MSG_NOSIGNAL);
                return; /* the kernel lets go of them when we end */
        }
        say(hold, HELPER_HOLD_STANDS);
        keep(hold);
        for (uint32_t i = 0; i < hold->n; i++)
                if (hold->threads[i].stands)
                        (void) ptrace(PTRACE_DETACH, hold->threads[i].id, NULL,
                                      (void *) (intptr_t) hold->threads[i].passed_on);
}

static void __attribute__((noreturn)) be_tracer(Hold *hold)
{
        sigset_t child;

        (void) prctl(PR_SET_NAME, "migmgr-holder");
        /* What the helper serves must end with the helper. */
        if (dup2(hold->socket, 3) < 0 || dup2(hold->process, 4) < 0)
                _exit(1);
        hold->socket = 3;
        hold->process = 4;
        (void) syscall(SYS_close_range, 5, ~0u, 0);
        (void) sigemptyset(&child);
        (void) sigaddset(&child, SIGCHLD);
        (void) sigprocmask(SIG_BLOCK, &child, NULL);
        hold->signals = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
        if (hold->signals >= 0)
                hold_threads(hold);
        _exit(0);
}

void hold_reap(void)
{
        while (waitpid(-1, NULL, WNOHANG) > 0)
                ;
}

/* In a child of its own, whose socket is the answer's file. */
static int start_tracer(Call *call, Hold *hold)
{
        _cleanup_(closep) int ours = -1, theirs = -1;
        pid_t child;
        int s[2];

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, s) < 0)
                return call_say(call, -errno, "no socket");
        theirs = s[0];
        ours = s[1];
        child = fork();
        if (child < 0)
                return call_say(call, -errno, "cannot fork");
        if (child == 0) {
                hold->socket = fcntl(ours, F_DUPFD, 16);
                hold->process = fcntl(hold->process, F_DUPFD, 16);
                if (hold->socket >= 0 && hold->process >= 0)
                        be_tracer(hold);
                _exit(1);
        }
        call->fd = TAKE_FD(theirs);
        return 0;
}

static int open_process(Call *call, ProcessId *ret_id, int *ret_fd)
{
        int r = call_process(call, ret_id);

        if (r < 0)
                return r;
        *ret_fd = process_id_open(ret_id);
        return *ret_fd < 0 ? call_say(call, *ret_fd, "that process has ended") : 0;
}

int call_hold(Call *call)
{
        _cleanup_(closep) int pidfd = -1;
        ProcessId id;
        pid_t thread;
        int r = open_process(call, &id, &pidfd);

        if (r < 0)
                return r;
        thread = find_thread(id.pid);
        if (thread < 0)
                return call_say_of(
                        call, thread,
                        "process %d has no thread called " THREAD_NAME
                        ": it does not migrate, or does not name its threads (-name debug-threads=on)",
                        (int) id.pid);
        return start_tracer(call, &(Hold){.process = pidfd,
                                          .pid = id.pid,
                                          .name = THREAD_NAME,
                                          .usec = HOLD_THREAD_USEC,
                                          .n = 1,
                                          .threads = {{.id = thread}}});
}

/* One thread may have several vCPUs. */
static void add_thread(Hold *hold, pid_t id)
{
        for (uint32_t i = 0; i < hold->n; i++)
                if (hold->threads[i].id == id)
                        return;
        hold->threads[hold->n++].id = id;
}

int call_hold_vcpus(Call *call)
{
        _cleanup_(closep) int pidfd = -1;
        Hold hold = {.usec = HOLD_VCPUS_USEC, .until_kvm_run = streq(call->strings[3], "kvm")};
        ProcessId id;
        int r = open_process(call, &id, &pidfd);

        if (r < 0)
                return r;
        if (!hold.until_kvm_run && !streq(call->strings[3], "still"))
                return call_say(call, -EINVAL, "threads are held by \"kvm\" or \"still\"");
        for (uint32_t i = 4; i < call->n_strings; i++) {
                pid_t thread = (pid_t) strtol(call->strings[i], NULL, 10);

                if (thread <= 0 || !has_name(id.pid, thread, NULL))
                        return call_say_of(call, -ESRCH, "process %d has no thread %s", (int) id.pid,
                                           call->strings[i]);
                add_thread(&hold, thread);
        }
        hold.process = pidfd;
        hold.pid = id.pid;
        return start_tracer(call, &hold);
}
