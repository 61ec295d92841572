/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Threads of QEMU made to stand, by migmgr-helper. The one that migrates: QEMU then can't take its devices on while we do. Those
 * of its vCPUs: nothing of its guest is executed, whatever it is told. All others go on, and so its monitor. They go on by
 * themselves after a while, whatever becomes of us. */

#include <stdio.h>

#include "common/log.h"
#include "common/socket.h"
#include "qemu.h"

#define HOLD_ANSWER_USEC (600 * USEC_PER_MSEC) /* in which the helper says what became of it */

void qemu_let_go(Qemu *q)
{
        q->hold_asked = false; /* what comes is closed */
        q->hold_io = loop_io_free(q->hold_io);
        if (q->hold_fd >= 0)
                (void) close(q->hold_fd);
        q->hold_fd = -1;
        q->hold_stands = q->hold_ended = false;
}

static void go_on(Qemu *q)
{
        QemuStep step = q->polled;

        loop_timer_set(q->poll, 0);
        step(q);
}

static void not_held(Qemu *q, const char *text)
{
        log_warning(LOG_ABOUT(.vm = q->vmm.definition->name), "QEMU's %s not held: %s",
                    q->act == VMM_ACT_HOLD ? "vCPUs are" : "migration is", text);
        qemu_let_go(q);
        qemu_doing(q, text);
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
                bool ended = n == 1 && text[0] == HELPER_HOLD_ENDED;

                qemu_let_go(q); /* it has stood for as long as it may */
                q->hold_ended = ended;
                if (q->act == VMM_ACT_UNDO)
                        go_on(q);
        } else if (n == 1 && text[0] == HELPER_HOLD_STANDS) {
                q->hold_stands = true;
                go_on(q);
        } else {
                not_held(q, n > 1 ? text : "migmgr-helper gave up");
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

/* `strings` begin with room for the three that name the process. */
static void ask(Qemu *q, HelperRequest request, const char **strings, size_t n, QemuStep step)
{
        char pid[16], start[32];

        (void) snprintf(pid, sizeof pid, "%d", (int) q->vmm.process.pid);
        (void) snprintf(start, sizeof start, "%llu", (unsigned long long) q->vmm.process.start);
        strings[0] = pid;
        strings[1] = start;
        strings[2] = q->vmm.process.boot;
        q->hold_asked = true;
        qemu_poll(q, HOLD_ANSWER_USEC, step);
        helper_client_ask(q->vmm.helper, request, strings, n, on_hold, q);
}

void qemu_hold(Qemu *q, QemuStep step)
{
        const char *strings[3];

        ask(q, HELPER_HOLD, strings, ARRAY_SIZE(strings), step);
}

void qemu_hold_vcpus(Qemu *q, json_object *threads, QemuStep step)
{
        const char *strings[HELPER_STRINGS_MAX];
        size_t n = 4;

        /* With KVM each has something to do for QEMU before that says that it runs, and waits in the kernel for the guest; else
         * they execute the guest themselves. */
        strings[3] = q->has_kvm ? "kvm" : "still";
        for (size_t i = 0; i < json_object_array_length(threads) && n < ARRAY_SIZE(strings); i++)
                strings[n++] = json_print(json_object_array_get_idx(threads, i), JSON_C_TO_STRING_PLAIN);
        ask(q, HELPER_HOLD_VCPUS, strings, n, step);
}

void qemu_end_held(Qemu *q, QemuStep step)
{
        char byte = HELPER_HOLD_KILL;

        q->polled = step;
        /* One that is gone already: whoever held it says so. */
        if (!q->hold_stands || (q->pidfd >= 0 && socket_send(q->hold_fd, &byte, 1, NULL, 0) < 0))
                step(q);
}
