/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a QEMU says of the devices that it drives itself. An event comes for each state that it has set. There is none for a
 * failure: what it can't set it resets, says RUNNING and goes on. That is recognised here by what is said where, and by what
 * it has printed. */

#include <stdio.h>

#include "common/clock.h"
#include "common/log.h"
#include "qemu.h"

#define LOG_READ_MAX (256 * 1024)

/* ---- the devices ----------------------------------------------------------------------------------------------- */

void qemu_make_devices(Qemu *q)
{
        const Definition *definition = q->vmm.definition;

        if (q->devices)
                return;
        q->devices = calloc(definition->n_devices + 1, sizeof *q->devices);
        if (!q->devices)
                out_of_memory();
        for (uint32_t i = 0; i < definition->n_devices; i++)
                if (definition->devices[i].vmm_device[0])
                        q->devices[q->n_devices++].id = definition->devices[i].vmm_device;
}

QemuDevice *qemu_device(Qemu *q, const char *id)
{
        qemu_make_devices(q);
        for (uint32_t i = 0; i < q->n_devices; i++)
                if (streq(q->devices[i].id, id))
                        return &q->devices[i];
        return NULL;
}

bool qemu_all_said(const Qemu *q, uint32_t states)
{
        for (uint32_t i = 0; i < q->n_devices; i++)
                if (!(q->devices[i].said & states))
                        return false;
        return q->n_devices > 0;
}

/* Where its log ends now. */
static off_t log_end(const Qemu *q)
{
        return q->log_fd >= 0 ? lseek(q->log_fd, 0, SEEK_END) : 0;
}

void qemu_set_course(Qemu *q, QemuCourse course)
{
        qemu_make_devices(q);
        /* On the way back, too: what fails there QEMU tells in no other way. */
        if (q->course != QEMU_COURSE_NONE)
                qemu_read_log(q);
        if (q->course != course)
                q->log_from = log_end(q);
        q->course = course;
        for (uint32_t i = 0; i < q->n_devices; i++) {
                q->devices[i].said = 0;
                q->devices[i].was_reset = false;
        }
}

void qemu_stands(Qemu *q)
{
        if (q->course != QEMU_COURSE_LEAVING || q->stood)
                return;
        q->stood = true;
        q->vmm.listener->halted(q->vmm.userdata, clock_monotonic_usec());
}

/* ---- what it says of them -------------------------------------------------------------------------------------- */

static void tell_reset(Qemu *q, QemuDevice *device, const char *text)
{
        if (device->was_reset)
                return;
        device->was_reset = true;
        q->vmm.listener->device_reset(q->vmm.userdata, device->id, text);
}

/* A migration that is set up, or that has failed or is being cancelled, has its devices run. One that goes on, never. */
static bool may_run_while_leaving(const Qemu *q)
{
        static const char *const when[] = {"",       "none",       "setup",    "failing",
                                           "failed", "cancelling", "cancelled"};

        for (size_t i = 0; i < ARRAY_SIZE(when); i++)
                if (qemu_migration_is(q, when[i]))
                        return true;
        return false;
}

static void on_running(Qemu *q, QemuDevice *device)
{
        if (q->course == QEMU_COURSE_LEAVING && !may_run_while_leaving(q))
                tell_reset(q, device, "QEMU says that it runs, where it was to be stopped: it was reset");
        else if (q->course == QEMU_COURSE_RUNNING && q->vmm.limits.p2p &&
                 !(device->said & QEMU_SAID(DEVICE_STATE_RUNNING_P2P)))
                tell_reset(q, device,
                           "QEMU says that it runs, but it was never in RUNNING_P2P: it was reset");
}

void qemu_on_device_event(Qemu *q, json_object *data)
{
        JsonReader reader = {.where = "VFIO_MIGRATION"};
        const char *id = json_string(&reader, data, "device-id", true);
        const char *name = json_string(&reader, data, "device-state", true);
        QemuDevice *device = id && name ? qemu_device(q, id) : NULL;
        DeviceState state;

        if (!device)
                return;
        /* QEMU 11: said of a device when its vCPUs stand already. */
        if (streq(name, "pre-copy-p2p-prepare")) {
                qemu_stands(q);
                return;
        }
        state = device_state_from_string(name);
        if ((int) state < 0 || state > DEVICE_STATE_PRE_COPY_P2P)
                return;
        if (state == DEVICE_STATE_RUNNING)
                on_running(q, device);
        else if (QEMU_SAID(state) & QEMU_SAID_P2P)
                qemu_stands(q);
        device->said |= QEMU_SAID(state);
        if (q->on_devices)
                q->on_devices(q);
}

/* ---- what it prints -------------------------------------------------------------------------------------------- */

static void on_log(void *userdata, int status, int fd, pid_t pid, const char *text)
{
        Qemu *q = userdata;

        if (q->log_fd >= 0)
                (void) close(q->log_fd);
        q->log_fd = fd;
        q->log_from = log_end(q);
}

void qemu_open_log(Qemu *q)
{
        const char *strings[] = {q->vmm.definition->uuid};

        qemu_make_devices(q);
        if (q->n_devices > 0)
                helper_client_ask(q->vmm.helper, HELPER_VMM_LOG, strings, 1, on_log, q);
}

static void take_line(Qemu *q, const char *line)
{
        char text[JSON_TEXT_MAX];

        if (!strstr(line, "Resetting device"))
                return;
        for (uint32_t i = 0; i < q->n_devices; i++)
                if (q->devices[i].name[0] && strstr(line, q->devices[i].name)) {
                        (void) snprintf(text, sizeof text, "QEMU has printed: %.150s", line);
                        tell_reset(q, &q->devices[i], text);
                }
}

void qemu_read_log(Qemu *q)
{
        _cleanup_(freep) char *text = NULL;
        ssize_t n;

        if (q->log_fd < 0)
                return;
        text = malloc(LOG_READ_MAX + 1);
        if (!text)
                out_of_memory();
        n = pread(q->log_fd, text, LOG_READ_MAX, q->log_from);
        if (n <= 0)
                return;
        q->log_from += n;
        text[n] = 0;
        for (char *rest = text, *line; (line = strsep(&rest, "\r\n"));)
                take_line(q, line);
}
