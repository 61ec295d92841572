/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* QEMU's migration thread made to stand, by migmgr-helper: QEMU then can't take its devices on while we do. Its vCPUs and its
 * monitor go on. The thread goes on by itself after a while, whatever becomes of us. */

#include <stdio.h>

#include "common/log.h"
#include "common/socket.h"
#include "qemu.h"

#define HOLD_USEC (600 * USEC_PER_MSEC)

void qemu_let_go(Qemu *q)
{
        q->hold_asked = false; /* what comes is closed */
        q->hold_io = loop_io_free(q->hold_io);
        if (q->hold_fd >= 0)
                (void) close(q->hold_fd);
        q->hold_fd = -1;
        q->hold_stands = false;
}

static void go_on(Qemu *q)
{
        QemuStep step = q->polled;

        loop_timer_set(q->poll, 0);
        step(q);
}

static void not_held(Qemu *q, const char *text)
{
        log_warning(LOG_ABOUT(.vm = q->vmm.definition->name), "QEMU's migration is not held: %s", text);
        qemu_let_go(q);
        go_on(q);
}

/* One packet, and then the end. */
static void on_hold_readable(void *userdata)
{
        Qemu *q = userdata;
        char text[128] = "";
        size_t n_fds = 0;
        ssize_t n = socket_recv(q->hold_fd, text, sizeof text - 1, NULL, 0, &n_fds);

        if (n == -EAGAIN)
                return;
        if (q->hold_stands) {
                qemu_let_go(q); /* it has stood for as long as it may */
        } else if (n == 1 && text[0] == 0) {
                q->hold_stands = true;
                go_on(q);
        } else {
                not_held(q, n > 0 ? text : "migmgr-helper gave up");
        }
}

static void on_hold(void *userdata, int status, int fd, pid_t pid, const char *text)
{
        Qemu *q = userdata;

        if (!q->hold_asked || q->hold_fd >= 0) {
                if (fd >= 0)
                        (void) close(fd);
                return;
        }
        q->hold_asked = false;
        if (status < 0 || fd < 0) {
                not_held(q, status < 0 ? text : "migmgr-helper gave no file");
                return;
        }
        q->hold_fd = fd;
        status = loop_io_new(q->vmm.loop, fd, on_hold_readable, NULL, q, &q->hold_io);
        if (status < 0)
                not_held(q, strerror(-status));
}

void qemu_hold(Qemu *q, QemuStep step)
{
        char pid[16], start[32];
        const char *strings[] = {pid, start, q->vmm.process.boot};

        (void) snprintf(pid, sizeof pid, "%d", (int) q->vmm.process.pid);
        (void) snprintf(start, sizeof start, "%llu", (unsigned long long) q->vmm.process.start);
        q->hold_asked = true;
        qemu_poll(q, HOLD_USEC, step);
        helper_client_ask(q->vmm.helper, HELPER_HOLD, strings, 3, on_hold, q);
}
