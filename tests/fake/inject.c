/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A library for LD_PRELOAD that counts the calls of a program by kind, and at one of them kills it, kills all of its host, or
 * has the call fail. Which one is said by a file that the processes of one host and the test have mapped
 * (tests/system/inject.py writes it), named by MIGMGR_INJECT; the test may change it at any time, so that start-up is counted
 * or not. Calls are counted of all processes of that host whose program has the name that is in there.
 *
 * A call is known by its number, or by its *place*: a number made of the return addresses on its stack (hash_of()), each as file and
 * offset, so that it is the same in each process of a build. Which places there were before a call was hit is told, too, and where a
 * process has died after it.
 *
 * A power cut takes with it what was written and not synced. So of each database file a copy is kept as it was when it was
 * synced last, beside the file that is mapped, which the test puts in its place after the death of a host. There is another
 * boot id then, too. */

#include <dlfcn.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "common/macros.h"

/* In the order of KINDS in tests/system/inject.py. */
typedef enum { SYNC, STORE, SEND, RECEIVE, CONNECT, ALLOCATE, OPEN, FORK, POLL, N_KINDS } Kind;

typedef enum { COUNT, KILL_BEFORE, KILL_AFTER, HOST_BEFORE, HOST_AFTER, PLACES, FAIL, FAIL_PLACE } Action;

#define MAX_PROCESSES 64
#define MAX_PLACES    16384
#define MAX_DEPTH     64
#define MAX_STACK     6144
#define LIBRARY_DEPTH 2
#define OWN_DEPTH     4

typedef struct Place {
        uint64_t hash; /* 0: none yet */
        uint32_t kind, calls;
} Place;

typedef struct Control {
        uint32_t armed, kind, action, error;
        uint64_t at; /* the call that is hit, from 1; with FAIL_PLACE the place, whose first call is */
        char program[32];
        uint64_t counts[16];
        uint32_t hits, n_processes;
        /* Whose call was hit; by which signal a process of this host has died since, of those that mean a bug. */
        int32_t victim, signal;
        int32_t processes[MAX_PROCESSES]; /* of this host; any number of these may have ended */
        /* Of the call that failed, and of that death, the innermost first: "file+0xoffset\n"... */
        char stack[MAX_STACK], death[MAX_STACK];
        uint32_t n_places, full; /* how many there are, and whether there was room for all */
        Place places[MAX_PLACES];
} Control;

static Control *control;
static const char *control_path;

static void map_control(void)
{
        const char *path = getenv("MIGMGR_INJECT");
        void *p = MAP_FAILED;
        int fd;

        if (!path)
                return;
        fd = (int) syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
        if (fd >= 0)
                p = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        (void) syscall(SYS_close, fd);
        if (p == MAP_FAILED)
                return;
        control_path = path;
        control = p;
        control->processes[__atomic_fetch_add(&control->n_processes, 1, __ATOMIC_SEQ_CST) % MAX_PROCESSES] =
                getpid();
}

/* ---- death ------------------------------------------------------------------------------------------------------ */

/* A number may be another's by now: only who was started with our file in its environment is of this host. */
static bool is_ours(pid_t pid)
{
        char path[32], text[16384];
        ssize_t n;
        int fd;

        (void) snprintf(path, sizeof path, "/proc/%d/environ", (int) pid);
        fd = (int) syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
        if (fd < 0)
                return false;
        n = syscall(SYS_read, fd, text, sizeof text);
        (void) syscall(SYS_close, fd);
        return n > 0 && memmem(text, (size_t) n, control_path, strlen(control_path) + 1);
}

__attribute__((noreturn)) static void die(bool with_host)
{
        pid_t self = (pid_t) syscall(SYS_getpid);

        for (size_t i = 0; with_host && i < MAX_PROCESSES; i++) {
                pid_t pid = control->processes[i];

                if (pid > 0 && pid != self && is_ours(pid))
                        (void) syscall(SYS_kill, pid, SIGKILL);
        }
        for (;;)
                (void) syscall(SYS_kill, self, SIGKILL);
}

/* ---- where a call comes from --------------------------------------------------------------------------------- */

/* The file that code belongs to, "" for the program itself; of this library NULL. */
static const char *file_of(const void *address, uintptr_t *offset)
{
        struct dl_find_object found;
        const char *name;

        if (_dl_find_object((void *) (uintptr_t) address, &found) < 0)
                return NULL;
        if ((uintptr_t) file_of >= (uintptr_t) found.dlfo_map_start &&
            (uintptr_t) file_of < (uintptr_t) found.dlfo_map_end)
                return NULL;
        *offset = (uintptr_t) address - (uintptr_t) found.dlfo_map_start;
        name = strrchr(found.dlfo_link_map->l_name, '/');
        return name ? name + 1 : found.dlfo_link_map->l_name;
}

static void mix(uint64_t *hash, const void *p, size_t n)
{
        for (const uint8_t *b = p; n > 0; b++, n--)
                *hash = (*hash ^ *b) * UINT64_C(0x100000001b3);
}

/* The place, never 0: the innermost calls of the program's own code, and the outermost of what they had a library do: how it
 * was entered, and what it was about. What happens further inside is the same to whoever called it, and what lies further out
 * than that has seldom a part in what is done about it. */
static uint64_t hash_of(void *const frames[], int n, Kind kind)
{
        uint64_t hash = UINT64_C(0xcbf29ce484222325), last[LIBRARY_DEPTH] = {0};
        int own = 0;

        for (int i = 0; i < n && own < OWN_DEPTH; i++) {
                uint64_t frame = UINT64_C(0xcbf29ce484222325);
                uintptr_t offset;
                const char *name = file_of(frames[i], &offset);

                if (!name || (own > 0 && *name))
                        continue;
                mix(&frame, name, strlen(name));
                mix(&frame, &offset, sizeof offset);
                if (*name) {
                        memmove(last, last + 1, sizeof last - sizeof *last);
                        last[LIBRARY_DEPTH - 1] = frame;
                } else {
                        own++;
                        mix(&hash, &frame, sizeof frame);
                }
        }
        mix(&hash, last, sizeof last);
        mix(&hash, &kind, sizeof kind);
        return hash ? hash : 1;
}

static void note_stack(char text[MAX_STACK])
{
        void *frames[MAX_DEPTH];
        int n = backtrace(frames, MAX_DEPTH);
        size_t used = 0;

        for (int i = 0; i < n && used < MAX_STACK; i++) {
                uintptr_t offset;
                const char *name = file_of(frames[i], &offset);

                if (name)
                        used += (size_t) snprintf(text + used, MAX_STACK - used, "%.40s+0x%lx\n",
                                                  *name ? name : program_invocation_short_name,
                                                  (unsigned long) offset);
        }
}

static void note_place(uint64_t hash, Kind kind)
{
        for (uint64_t i = 0; i < MAX_PLACES; i++) {
                Place *place = &control->places[(hash + i) % MAX_PLACES];
                uint64_t none = 0;

                if (__atomic_compare_exchange_n(&place->hash, &none, hash, false, __ATOMIC_SEQ_CST,
                                                __ATOMIC_SEQ_CST)) {
                        place->kind = kind;
                        (void) __atomic_add_fetch(&control->n_places, 1, __ATOMIC_SEQ_CST);
                } else if (none != hash) {
                        continue;
                }
                (void) __atomic_add_fetch(&place->calls, 1, __ATOMIC_SEQ_CST);
                return;
        }
        control->full = true;
}

/* Whether a call of this place is to fail. One after that is not looked at: it may be a consequence. */
static bool is_place(Kind kind)
{
        /* Looking at the stack must not look at its own calls. */
        static __thread bool looking __attribute__((tls_model("initial-exec")));
        bool wanted = control->action == PLACES || kind == control->kind;
        void *frames[MAX_DEPTH];
        uint64_t hash;

        if (looking || !wanted || __atomic_load_n(&control->hits, __ATOMIC_SEQ_CST) > 0)
                return false;
        looking = true;
        hash = hash_of(frames, backtrace(frames, MAX_DEPTH), kind);
        looking = false;
        note_place(hash, kind);
        return control->action == FAIL_PLACE && hash == control->at;
}

/* Whether this call, the number-th of its kind, is the one. */
static bool is_it(Kind kind, uint64_t number)
{
        bool by_place = control->action == PLACES || control->action == FAIL_PLACE;

        if (by_place ? !is_place(kind) : kind != control->kind || number != control->at)
                return false;
        return __atomic_fetch_add(&control->hits, 1, __ATOMIC_SEQ_CST) == 0;
}

/* ---- what happens at a call ---------------------------------------------------------------------------------- */

/* Returns what is to be done after the call; FAIL, with errno set: nothing, but don't make it. */
static Action before(Kind kind)
{
        Action action;
        uint64_t number;

        if (!control || !__atomic_load_n(&control->armed, __ATOMIC_SEQ_CST) ||
            strcmp(program_invocation_short_name, control->program) != 0)
                return COUNT;
        number = __atomic_add_fetch(&control->counts[kind], 1, __ATOMIC_SEQ_CST);
        if (!is_it(kind, number))
                return COUNT;
        control->victim = (int32_t) syscall(SYS_getpid);
        action = (Action) control->action;
        if (action == KILL_BEFORE || action == HOST_BEFORE)
                die(action == HOST_BEFORE);
        if (action != FAIL && action != FAIL_PLACE)
                return action;
        note_stack(control->stack);
        errno = (int) control->error;
        return FAIL;
}

static void after(Action action)
{
        if (action == KILL_AFTER || action == HOST_AFTER)
                die(action == HOST_AFTER);
}

/* The handler is gone when it returns: then it dies of it. */
static void on_death(int sig)
{
        if (!control->hits || control->signal)
                return;
        control->signal = sig;
        note_stack(control->death);
}

__attribute__((constructor)) static void start(void)
{
        static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
        struct sigaction action = {.sa_handler = on_death, .sa_flags = (int) SA_RESETHAND};
        void *frame;

        (void) backtrace(&frame, 1); /* the first allocates */
        map_control();
        for (size_t i = 0; control && i < ARRAY_SIZE(signals); i++)
                (void) sigaction(signals[i], &action, NULL);
}

#define REAL(name)                     \
        static __typeof__(&name) real; \
        if (!real)                     \
        real = __extension__(__typeof__(&name)) dlsym(RTLD_NEXT, #name)

/* A function that returns `failed` where errno says why, and counts only under a condition. */
#define WRAP_IF(condition, kind, type, name, parameters, arguments, failed) \
        type name parameters                                                \
        {                                                                   \
                REAL(name);                                                 \
                Action action = (condition) ? before(kind) : COUNT;         \
                type r;                                                     \
                                                                            \
                if (action == FAIL)                                         \
                        return failed;                                      \
                r = real arguments;                                         \
                after(action);                                              \
                return r;                                                   \
        }

#define WRAP(kind, type, name, parameters, arguments, failed) \
        WRAP_IF(true, kind, type, name, parameters, arguments, failed)

/* ---- files --------------------------------------------------------------------------------------------------- */

static bool is_channel(int fd)
{
        struct stat st;
        int saved = errno;
        bool yes = control && control->armed && fstat(fd, &st) == 0 &&
                   (S_ISSOCK(st.st_mode) || S_ISFIFO(st.st_mode));

        errno = saved;
        return yes;
}

/* Its name below the state directory when it is a file of the database, else NULL. */
static const char *database_file(int fd, char path[4096])
{
        char link[32];
        const char *name;
        ssize_t n;

        (void) snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        n = syscall(SYS_readlinkat, AT_FDCWD, link, path, 4095);
        if (n <= 0)
                return NULL;
        path[n] = 0;
        name = strrchr(path, '/');
        return name && strncmp(name, "/migmgr.db", 10) == 0 ? name + 1 : NULL;
}

static bool is_database(int fd)
{
        char path[4096];
        int saved = errno;
        bool yes = control && database_file(fd, path) != NULL;

        errno = saved;
        return yes;
}

static void copy_file(int from, int to)
{
        char buffer[65536];
        off_t offset = 0;

        for (;;) {
                ssize_t n = syscall(SYS_pread64, from, buffer, sizeof buffer, offset);

                if (n <= 0 || syscall(SYS_pwrite64, to, buffer, n, offset) != n)
                        return;
                offset += n;
        }
}

/* What a power cut leaves of this file from now on. */
static void keep_synced(int fd)
{
        char path[4096], to[4224], part[4240];
        const char *name = control ? database_file(fd, path) : NULL;
        int copy;

        if (!name)
                return;
        (void) snprintf(to, sizeof to, "%.4000s.%.200s", control_path, name);
        (void) snprintf(part, sizeof part, "%s.part", to);
        copy = (int) syscall(SYS_openat, AT_FDCWD, part, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (copy < 0)
                return;
        copy_file(fd, copy);
        (void) syscall(SYS_close, copy);
        (void) rename(part, to);
}

#define WRAP_SYNC(name)                       \
        int name(int fd)                      \
        {                                     \
                REAL(name);                   \
                Action action = before(SYNC); \
                int r;                        \
                                              \
                if (action == FAIL)           \
                        return -1;            \
                r = real(fd);                 \
                if (r == 0)                   \
                        keep_synced(fd);      \
                after(action);                \
                return r;                     \
        }

WRAP_SYNC(fsync)
WRAP_SYNC(fdatasync)
WRAP_IF(is_database(fd), STORE, ssize_t, pwrite, (int fd, const void *p, size_t n, off_t o), (fd, p, n, o),
        -1)
WRAP_IF(is_database(fd), STORE, ssize_t, pwrite64, (int fd, const void *p, size_t n, off64_t o),
        (fd, p, n, o), -1)
WRAP_IF(is_database(fd), STORE, int, ftruncate, (int fd, off_t n), (fd, n), -1)
WRAP_IF(is_database(fd), STORE, int, ftruncate64, (int fd, off64_t n), (fd, n), -1)

/* Another boot id, if there is one. */
static const char *redirect(const char *path, char other[4096])
{
        if (!control || strcmp(path, "/proc/sys/kernel/random/boot_id") != 0)
                return path;
        (void) snprintf(other, 4096, "%.4000s.boot", control_path);
        return syscall(SYS_faccessat, AT_FDCWD, other, R_OK) == 0 ? other : path;
}

static mode_t mode_of(int flags, va_list ap)
{
        return flags & (O_CREAT | O_TMPFILE) ? va_arg(ap, mode_t) : 0;
}

#define WRAP_OPEN(name, parameters, directory)                                                 \
        int name parameters                                                                    \
        {                                                                                      \
                char other[4096];                                                              \
                Action action = before(OPEN);                                                  \
                mode_t mode;                                                                   \
                va_list ap;                                                                    \
                int fd;                                                                        \
                                                                                               \
                if (action == FAIL)                                                            \
                        return -1;                                                             \
                va_start(ap, flags);                                                           \
                mode = mode_of(flags, ap);                                                     \
                va_end(ap);                                                                    \
                fd = (int) syscall(SYS_openat, directory, redirect(path, other), flags, mode); \
                after(action);                                                                 \
                return fd;                                                                     \
        }

WRAP_OPEN(open, (const char *path, int flags, ...), AT_FDCWD)
WRAP_OPEN(open64, (const char *path, int flags, ...), AT_FDCWD)
WRAP_OPEN(openat, (int dir, const char *path, int flags, ...), dir)
WRAP_OPEN(openat64, (int dir, const char *path, int flags, ...), dir)
WRAP(OPEN, FILE *, fopen, (const char *path, const char *mode), (path, mode), NULL)
WRAP(OPEN, FILE *, fopen64, (const char *path, const char *mode), (path, mode), NULL)
WRAP(OPEN, int, socket, (int domain, int type, int protocol), (domain, type, protocol), -1)
WRAP(OPEN, int, socketpair, (int domain, int type, int protocol, int fds[2]), (domain, type, protocol, fds),
     -1)
WRAP(OPEN, int, eventfd, (unsigned int value, int flags), (value, flags), -1)
WRAP(OPEN, int, signalfd, (int fd, const sigset_t *set, int flags), (fd, set, flags), -1)
WRAP(OPEN, int, pipe2, (int fds[2], int flags), (fds, flags), -1)
WRAP(OPEN, int, memfd_create, (const char *name, unsigned int flags), (name, flags), -1)
WRAP(OPEN, int, epoll_create1, (int flags), (flags), -1)
WRAP(OPEN, int, dup, (int fd), (fd), -1)

/* ---- sockets ------------------------------------------------------------------------------------------------- */

WRAP(CONNECT, int, connect, (int fd, const struct sockaddr *a, socklen_t n), (fd, a, n), -1)
WRAP(CONNECT, int, accept4, (int fd, struct sockaddr *a, socklen_t *n, int flags), (fd, a, n, flags), -1)
WRAP(SEND, ssize_t, send, (int fd, const void *p, size_t n, int flags), (fd, p, n, flags), -1)
WRAP(SEND, ssize_t, sendto,
     (int fd, const void *p, size_t n, int flags, const struct sockaddr *a, socklen_t m),
     (fd, p, n, flags, a, m), -1)
WRAP(SEND, ssize_t, sendmsg, (int fd, const struct msghdr *m, int flags), (fd, m, flags), -1)
WRAP_IF(is_channel(fd), SEND, ssize_t, write, (int fd, const void *p, size_t n), (fd, p, n), -1)
WRAP_IF(is_channel(fd), SEND, ssize_t, writev, (int fd, const struct iovec *v, int n), (fd, v, n), -1)
WRAP(RECEIVE, ssize_t, recv, (int fd, void *p, size_t n, int flags), (fd, p, n, flags), -1)
WRAP(RECEIVE, ssize_t, recvmsg, (int fd, struct msghdr *m, int flags), (fd, m, flags), -1)
WRAP_IF(is_channel(fd), RECEIVE, ssize_t, read, (int fd, void *p, size_t n), (fd, p, n), -1)
WRAP_IF(is_channel(fd), RECEIVE, ssize_t, readv, (int fd, const struct iovec *v, int n), (fd, v, n), -1)
WRAP(POLL, int, epoll_ctl, (int fd, int op, int other, struct epoll_event *e), (fd, op, other, e), -1)

/* ---- memory and processes ------------------------------------------------------------------------------------ */

/* glibc's own: dlsym() may allocate. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);

#define WRAP_ALLOCATE(name, parameters, arguments) \
        void *name parameters                      \
        {                                          \
                Action action = before(ALLOCATE);  \
                void *p;                           \
                                                   \
                if (action == FAIL)                \
                        return NULL;               \
                p = __libc_##name arguments;       \
                after(action);                     \
                return p;                          \
        }

WRAP_ALLOCATE(malloc, (size_t size), (size))
WRAP_ALLOCATE(calloc, (size_t n, size_t size), (n, size))
WRAP_ALLOCATE(realloc, (void *old, size_t size), (old, size))

WRAP(FORK, pid_t, fork, (void), (), -1)
WRAP(FORK, int, posix_spawn,
     (pid_t *restrict pid, const char *restrict path, const posix_spawn_file_actions_t *restrict actions,
      const posix_spawnattr_t *restrict attributes, char *const argv[restrict],
      char *const environment[restrict]),
     (pid, path, actions, attributes, argv, environment), errno)
WRAP(FORK, int, pthread_create,
     (pthread_t *restrict thread, const pthread_attr_t *restrict attributes, void *(*run)(void *),
      void *restrict argument),
     (thread, attributes, run, argument), errno)
