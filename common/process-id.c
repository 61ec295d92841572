/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "process-id.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/syscall.h>

static int read_file(const char *path, char *text, size_t size)
{
        _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t n;

        if (fd < 0)
                return -errno;
        n = read(fd, text, size - 1);
        if (n < 0)
                return -errno;
        text[n] = 0;
        return 0;
}

int boot_id_read(char ret[UUID_TEXT_MAX + 1])
{
        char text[64];
        int r = read_file("/proc/sys/kernel/random/boot_id", text, sizeof text);

        if (r < 0)
                return r;
        text[UUID_TEXT_MAX] = 0;
        if (!uuid_is_valid(text))
                return -EBADMSG;
        memcpy(ret, text, UUID_TEXT_MAX + 1);
        return 0;
}

/* The name in brackets may hold anything, brackets too: fields are counted from the last one. */
static int parse_stat(const char *text, char *ret_state, uint64_t *ret_start)
{
        const char *p = strrchr(text, ')');
        unsigned long long start;
        char state;

        if (!p ||
            sscanf(p + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
                   &state, &start) != 2)
                return -EBADMSG;
        *ret_state = state;
        *ret_start = start;
        return 0;
}

static int read_id(pid_t pid, ProcessId *ret, bool *ret_zombie)
{
        ProcessId id = {.pid = pid};
        char path[32], text[1024], state;
        int r;

        if (pid <= 0)
                return -ESRCH;
        (void) snprintf(path, sizeof path, "/proc/%d/stat", (int) pid);
        r = read_file(path, text, sizeof text);
        if (r < 0)
                return -ESRCH;
        r = parse_stat(text, &state, &id.start);
        if (r < 0)
                return r;
        r = boot_id_read(id.boot);
        if (r < 0)
                return r;
        *ret = id;
        *ret_zombie = state == 'Z' || state == 'X';
        return 0;
}

int process_id_read(pid_t pid, ProcessId *ret)
{
        ProcessId id;
        bool zombie;
        int r = read_id(pid, &id, &zombie);

        if (r < 0)
                return r;
        if (zombie)
                return -ESRCH;
        *ret = id;
        return 0;
}

static bool is_same(const ProcessId *a, const ProcessId *b)
{
        return a->pid == b->pid && a->start == b->start && streq(a->boot, b->boot);
}

/* The first thread may be a zombie while others still run, or are about to stop: only the pidfd knows. */
static bool is_gone(int fd)
{
        struct pollfd p = {.fd = fd, .events = POLLIN};

        return poll(&p, 1, 0) > 0;
}

int process_id_open(const ProcessId *id)
{
        _cleanup_(closep) int fd = -1;
        ProcessId now;
        bool zombie;

        if (id->pid <= 0)
                return -ESRCH;
        fd = (int) syscall(SYS_pidfd_open, id->pid, 0);
        if (fd < 0)
                return -errno;
        /* Looked at after it was opened: the pid can't change its owner under an open pidfd without being seen. */
        if (read_id(id->pid, &now, &zombie) < 0 || !is_same(id, &now) || is_gone(fd))
                return -ESRCH;
        return TAKE_FD(fd);
}
