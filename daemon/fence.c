/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fence.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/pidfd.h>
#include <sys/wait.h>

#define TEXT_MAX 256

extern char **environ;

struct Fence {
        pid_t pid;
        int fd;
        LoopIo *io;
        LoopTimer *timer;
        bool late;
        uint64_t usec;
        char name[128];
        FenceDone done;
        void *userdata;
};

static void on_timer(void *userdata)
{
        Fence *fence = userdata;

        fence->late = true;
        (void) kill(-fence->pid, SIGKILL); /* its end is told when it is there */
}

static void on_end(void *userdata)
{
        Fence *fence = userdata;
        char text[TEXT_MAX];
        int status;

        if (waitpid(fence->pid, &status, WNOHANG) != fence->pid)
                return;
        fence->pid = 0;
        fence->io = loop_io_free(fence->io);
        loop_timer_set(fence->timer, 0);
        if (fence->late)
                (void) snprintf(text, sizeof text, "%s did not end within %llu ms", fence->name,
                                (unsigned long long) (fence->usec / USEC_PER_MSEC));
        else if (WIFEXITED(status))
                (void) snprintf(text, sizeof text, "%s ended with status %d", fence->name,
                                WEXITSTATUS(status));
        else
                (void) snprintf(text, sizeof text, "%s was killed by signal %d", fence->name,
                                WTERMSIG(status));
        fence->done(fence->userdata, fence->late ? -ETIMEDOUT : status == 0 ? 0 : -EIO, text);
}

/* Ours, and what is added. */
static char **make_environment(const char *const *env)
{
        size_t n = 0, more = 0;
        char **all;

        while (environ[n])
                n++;
        while (env[more])
                more++;
        all = calloc(n + more + 1, sizeof *all);
        if (!all)
                return NULL;
        memcpy(all, environ, n * sizeof *all);
        memcpy(all + n, env, more * sizeof *all);
        return all;
}

/* It says what it has to say to our standard error, as we do. */
static int spawn(char *const *argv, char *const *env, pid_t *ret)
{
        posix_spawn_file_actions_t files;
        posix_spawnattr_t attr;
        sigset_t none, all;
        int r;

        (void) sigemptyset(&none);
        (void) sigfillset(&all);
        if (posix_spawn_file_actions_init(&files) != 0)
                return -ENOMEM;
        if (posix_spawnattr_init(&attr) != 0) {
                (void) posix_spawn_file_actions_destroy(&files);
                return -ENOMEM;
        }
        r = posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
        if (r == 0)
                r = posix_spawn_file_actions_adddup2(&files, STDERR_FILENO, STDOUT_FILENO);
        (void) posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
                                                       POSIX_SPAWN_SETSIGDEF);
        (void) posix_spawnattr_setpgroup(&attr, 0);
        (void) posix_spawnattr_setsigmask(&attr, &none);
        (void) posix_spawnattr_setsigdefault(&attr, &all);
        if (r == 0)
                r = posix_spawn(ret, argv[0], &files, &attr, argv, env);
        (void) posix_spawnattr_destroy(&attr);
        (void) posix_spawn_file_actions_destroy(&files);
        return -r;
}

Fence *fence_free(Fence *fence)
{
        if (!fence)
                return NULL;
        loop_io_free(fence->io);
        loop_timer_free(fence->timer);
        if (fence->fd >= 0)
                (void) close(fence->fd);
        free(fence);
        return NULL;
}

DEFINE_CLEANUP(Fence *, fence_free);

int fence_start(Loop *loop, char *const *argv, const char *const *env, uint64_t usec, FenceDone done,
                void *userdata, Fence **ret)
{
        _cleanup_(fence_freep) Fence *fence = calloc(1, sizeof *fence);
        _cleanup_(freep) char **all = make_environment(env);
        int r;

        if (!fence || !all) {
                free(TAKE_PTR(fence));
                return -ENOMEM;
        }
        *fence = (Fence){.fd = -1, .usec = usec, .done = done, .userdata = userdata};
        (void) snprintf(fence->name, sizeof fence->name, "%s", argv[0]);
        r = loop_timer_new(loop, on_timer, fence, &fence->timer);
        if (r >= 0)
                r = spawn(argv, all, &fence->pid);
        if (r < 0)
                return r;
        fence->fd = pidfd_open(fence->pid, 0);
        if (fence->fd < 0)
                return -errno;
        r = loop_io_new(loop, fence->fd, on_end, NULL, fence, &fence->io);
        if (r < 0)
                return r;
        loop_timer_set(fence->timer, usec);
        *ret = TAKE_PTR(fence);
        return 0;
}
