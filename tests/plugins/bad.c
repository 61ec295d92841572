/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Plugins as they should not be. tests/system/test_plugin.py builds one of each: IN names a function ("match", or "load": the
 * constructor), DO what it does there; everywhere else all are content. */

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "daemon/plugin/plugin-protocol.h"

#ifndef IN
#define IN "nowhere"
#endif
#ifndef DO
#define DO "nothing"
#endif
#ifndef ABI
#define ABI MIGMGR_PLUGIN_ABI
#endif
#ifndef SIZE
#define SIZE sizeof(struct migmgr_plugin)
#endif
#ifndef NAME
#define NAME "bad"
#endif
#ifndef BUDGET
#define BUDGET 100
#endif
#ifndef WAIT_MS
#define WAIT_MS 20
#endif

#define GIB (1024ul * 1024 * 1024)

static char text[] = "a text without an end";

/* What a host of another mind would send. */
static void say(uint32_t call, uint32_t id, int32_t status, uint32_t n_strings)
{
        static PluginPacket packet;

        packet.head = (PluginHead){
                .magic = PLUGIN_MAGIC, .call = call, .id = id, .status = status, .n_strings = n_strings};
        packet.text[0] = packet.text[1] = 0;
        (void) !write(PLUGIN_SOCKET_FD, &packet, sizeof packet.head + n_strings);
}

static void *idle(void *unused)
{
        return NULL;
}

/* Everything that a plugin may not do, ever; and what it may do only while it is loaded. Says what it could do. */
static int try_to_escape(bool loading, char *ret_what, size_t size)
{
        static char *const argv[] = {"/bin/true", NULL};
        static char page[4096] __attribute__((aligned(4096)));
        struct rlimit limit;
        pthread_t thread;
        int n = 0;

#define TRY(expression)                                                           \
        do {                                                                      \
                if ((long) (expression) >= 0) {                                   \
                        (void) snprintf(ret_what, size, "could %s", #expression); \
                        n++;                                                      \
                }                                                                 \
        } while (0)
        TRY(open("/tmp/migmgr-escaped", O_WRONLY | O_CREAT, 0600));
        TRY(open("/etc/shadow", O_RDONLY));
        TRY(open("/dev/null", O_RDWR));
        TRY(syscall(SYS_openat2, AT_FDCWD, "/etc/passwd", NULL, 0));
        TRY(syscall(SYS_io_uring_setup, 8, NULL));
        TRY(socket(AF_UNIX, SOCK_STREAM, 0));
        TRY(socket(AF_INET, SOCK_STREAM, 0));
        TRY(shutdown(PLUGIN_SOCKET_FD, SHUT_RDWR));
        TRY(dup(PLUGIN_SOCKET_FD));
        TRY(send(PLUGIN_SOCKET_FD, "x", 1, 0));
        TRY(syscall(SYS_fork));
        TRY(syscall(SYS_vfork));
        TRY(syscall(SYS_clone3, NULL, 0));
        TRY(fork());
        TRY(-pthread_create(&thread, NULL, idle, NULL));
        TRY(execv("/bin/true", argv));
        TRY(kill(getppid(), 0));
        TRY(kill(-1, SIGKILL));
        TRY(ptrace(PTRACE_TRACEME, 0, NULL, NULL));
        TRY(syscall(SYS_process_vm_readv, getppid(), NULL, 0, NULL, 0, 0));
        TRY(setuid(0));
        TRY(syscall(SYS_capset, NULL, NULL));
        TRY(chdir("/"));
        TRY(unlink("/tmp/migmgr-nothing"));
        TRY(write(STDERR_FILENO, "escaped\n", 8));
        TRY(malloc(GIB) ? 0 : -1);
        TRY(prlimit(getpid(), RLIMIT_CORE, NULL, &limit)); /* its own, but by number: so would be another's */
        TRY(prctl(PR_SET_PDEATHSIG, 0));
        TRY(prctl(PR_SET_NAME, "migmgrd"));
        if (loading)
                return n;
        TRY(open("/etc/passwd", O_RDONLY));
        TRY(close(PLUGIN_SOCKET_FD));
        TRY(prctl(PR_SET_DUMPABLE, 1));
        TRY(mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
                            MAP_FAILED
                    ? -1
                    : 0);
        TRY(mprotect(page, sizeof page, PROT_READ | PROT_WRITE | PROT_EXEC));
#undef TRY
        return n;
}

/* Returns what the function is to return. */
static int misbehave(const char *where, struct migmgr_reply *reply, int content)
{
        if (strcmp(where, IN) != 0)
                return content;
        if (strcmp(DO, "crash") == 0)
                *(volatile char *) NULL = 0;
        else if (strcmp(DO, "abort") == 0)
                abort();
        else if (strcmp(DO, "exit") == 0)
                _exit(0);
        else if (strcmp(DO, "hang") == 0)
                for (;;)
                        ;
        else if (strcmp(DO, "sleep") == 0)
                nanosleep(&(struct timespec){.tv_sec = 3600}, NULL);
        else if (strcmp(DO, "recurse") == 0)
                return misbehave(where, reply, content) + 1;
        else if (strcmp(DO, "wrong-value") == 0)
                return 99;
        else if (strcmp(DO, "errno") == 0)
                return -EIO;
        else if (strcmp(DO, "gibibyte") == 0) {
                (void) !write(PLUGIN_SOCKET_FD, text, GIB);
                while (write(PLUGIN_SOCKET_FD, text, 100000) >= 0)
                        ;
                for (char *p; (p = malloc(16 * 1024 * 1024));)
                        memset(p, 1, 16 * 1024 * 1024);
                *(volatile char *) NULL = 0; /* or it would have been no harm */
        } else if (strcmp(DO, "flood") == 0) {
                for (;;)
                        say(PLUGIN_CALL_LOG, 1, 0, 1);
        } else if (strcmp(DO, "garbage") == 0)
                (void) !write(PLUGIN_SOCKET_FD, text, sizeof text);
        else if (strcmp(DO, "out-of-order") == 0)
                say(PLUGIN_CALL_LOOK, 77, MIGMGR_YES, 2);
        else if (strcmp(DO, "another-call") == 0)
                for (uint32_t id = 1; id < 20; id++)
                        say(PLUGIN_CALL_ON_ERROR, id, MIGMGR_RETRY, 2);
        else if (strcmp(DO, "second-hello") == 0)
                say(PLUGIN_CALL_HELLO, 0, 0, 2);
        else if (strcmp(DO, "many-logs") == 0)
                for (int i = 0; i < 100000; i++)
                        reply->log(reply, "again and again");
        else if (strcmp(DO, "escape") == 0)
                return try_to_escape(strcmp(where, "load") == 0, reply->reason, sizeof reply->reason)
                               ? MIGMGR_NO
                               : content;
        else if (strcmp(DO, "no-end") == 0) {
                memset(reply->reason, '\xff', sizeof reply->reason);
                memset(reply->remedy, '\n', sizeof reply->remedy);
                return MIGMGR_NO;
        } else if (strcmp(DO, "refuse") == 0) {
                (void) snprintf(reply->reason, sizeof reply->reason,
                                "state-version is 2 at the source, 1 here");
                (void) snprintf(reply->remedy, sizeof reply->remedy, "update it");
                return MIGMGR_NO;
        } else if (strcmp(DO, "degrade") == 0) {
                (void) snprintf(reply->reason, sizeof reply->reason, "its cache will be cold");
                return MIGMGR_DEGRADED;
        } else if (strcmp(DO, "estimate") == 0) {
                reply->bytes = 12345;
                reply->usec[MIGMGR_PRECOPY] = 1000000;
                reply->usec[MIGMGR_DRAIN] = 7000;
                reply->usec[MIGMGR_INTAKE] = 500;
        } else if (strcmp(DO, "retry") == 0)
                return MIGMGR_RETRY;
        else if (strcmp(DO, "reset") == 0)
                return MIGMGR_RESET;
        else if (strcmp(DO, "wait") == 0) {
                reply->wait_ms = WAIT_MS;
                return MIGMGR_WAIT;
        }
        return content;
}

static void __attribute__((constructor)) on_load(void)
{
        struct migmgr_reply reply = {.size = sizeof reply};

        if (misbehave("load", &reply, MIGMGR_YES) == MIGMGR_NO)
                abort(); /* it could do what it must not */
}

static int match(const struct migmgr_device *device, struct migmgr_reply *reply)
{
        return misbehave("match", reply, MIGMGR_YES);
}

static int describe(const struct migmgr_device *device, struct migmgr_reply *reply)
{
        (void) reply->fact(reply, "state-version", "1");
        return misbehave("describe", reply, 0);
}

static int estimate(const struct migmgr_device *device, struct migmgr_reply *reply)
{
        reply->bytes = UINT64_MAX;
        reply->usec[MIGMGR_DRAIN] = UINT64_MAX;
        return misbehave("estimate", reply, 0);
}

static int check(const struct migmgr_device *source, const struct migmgr_device *destination,
                 struct migmgr_reply *reply)
{
        return misbehave("check", reply, MIGMGR_YES);
}

static int before(const struct migmgr_device *device, const struct migmgr_transition *transition,
                  struct migmgr_reply *reply)
{
        if (strcmp(DO, "wait") == 0 && transition->waited_ms >= WAIT_MS)
                return MIGMGR_YES;
        return misbehave("before", reply, MIGMGR_YES);
}

static int after(const struct migmgr_device *device, const struct migmgr_transition *transition,
                 struct migmgr_reply *reply)
{
        return misbehave("after", reply, MIGMGR_YES);
}

static int on_error(const struct migmgr_device *device, const struct migmgr_transition *transition,
                    struct migmgr_reply *reply)
{
        return misbehave("on_error", reply, MIGMGR_GIVE_UP);
}

#ifdef PHASE
#define WHEN                     \
        {                        \
                [PHASE] = BUDGET \
        }
#else
#define WHEN \
        {    \
        }
#endif

#ifndef NO_SYMBOL
MIGMGR_PLUGIN = {
        .abi = ABI,
        .size = SIZE,
        .name = NAME,
        .version = "0",
        .before_ms = WHEN,
        .after_ms = WHEN,
        .error_ms = WHEN,
#ifndef NO_MATCH
        .match = match,
#endif
        .describe = describe,
#ifndef NO_CHECK
        .check = check,
#endif
        .before = before,
        .after = after,
        .on_error = on_error,
        .estimate = estimate,
};
#endif
