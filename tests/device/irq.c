/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "irq.h"

#include <poll.h>
#include <stdio.h>

#include "worker-model.h"

static const unsigned counts[IRQ_INDEXES] = {[WORKER_IRQ_INDEX] = WORKER_VECTORS, [3] = 1, [4] = 1};

void irqs_init(Irqs *irqs)
{
        for (unsigned i = 0; i < IRQ_INDEXES; i++)
                for (unsigned n = 0; n < IRQ_COUNT_MAX; n++)
                        irqs->fds[i][n] = -1;
}

void irqs_clear(Irqs *irqs)
{
        for (unsigned i = 0; i < IRQ_INDEXES; i++)
                for (unsigned n = 0; n < IRQ_COUNT_MAX; n++)
                        closep(&irqs->fds[i][n]);
        irqs_init(irqs);
}

unsigned irq_count(unsigned index)
{
        return counts[index];
}

bool irq_is_eventfd(int fd)
{
        static const char eventfd[] = "anon_inode:[eventfd]";
        char path[32], target[sizeof eventfd];
        ssize_t n;

        (void) snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        n = readlink(path, target, sizeof target);
        return n == sizeof eventfd - 1 && memcmp(target, eventfd, sizeof eventfd - 1) == 0;
}

void irq_set(Irqs *irqs, unsigned index, unsigned n, int fd)
{
        closep(&irqs->fds[index][n]);
        irqs->fds[index][n] = fd;
}

/* A counter that nobody reads can be full, and a write would wait for ever; that it does not block is not ours to change,
 * because the client has the same file. */
void irq_signal(const Irqs *irqs, unsigned index, unsigned n)
{
        struct pollfd p = {.fd = irqs->fds[index][n], .events = POLLOUT};
        uint64_t one = 1;

        if (p.fd < 0 || poll(&p, 1, 0) != 1 || !(p.revents & POLLOUT))
                return;
        if (write(p.fd, &one, sizeof one) < 0)
                return; /* somebody else has filled it */
}
