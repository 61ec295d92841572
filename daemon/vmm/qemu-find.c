/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Where a device of a QEMU is: which process has it open, and which directory of sysfs is its. Asked beside any act, and
 * several at a time. What QEMU says is not taken as a path: it is cut down to the device's name. */

#include <stdio.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/sysfs-device.h"
#include "qemu.h"

#define FIND_USEC (2 * USEC_PER_SEC)

struct QemuFind {
        QemuFind *next;
        Qemu *q;
        char id[DEVICE_ID_MAX + 1];
        VmmDeviceFound found;
        void *userdata;
        LoopTimer *timer;
        bool asked;    /* an answer of the monitor is awaited */
        bool fallback; /* `host` is asked for, `sysfsdev` says nothing */
        int status;    /* what the timer tells */
        char text[JSON_TEXT_MAX];
};

static void remove_find(Qemu *q, const QemuFind *find)
{
        for (QemuFind **p = &q->finds; *p; p = &(*p)->next)
                if (*p == find) {
                        *p = find->next;
                        return;
                }
}

/* Whoever is told may free all of this. An answer that is still awaited, which comes at the latest with the end of the
 * connection, frees what it belongs to. */
static void drop(QemuFind *find)
{
        remove_find(find->q, find);
        find->timer = loop_timer_free(find->timer);
        if (!find->asked)
                free(find);
}

static void tell(QemuFind *find, int status, const VmmDevice *device, const char *text)
{
        VmmDeviceFound found = find->found;
        void *userdata = find->userdata;

        drop(find);
        found(userdata, status, device, text);
}

static void on_timer(void *userdata)
{
        QemuFind *find = userdata;
        char text[sizeof find->text];

        memcpy(text, find->text, sizeof text);
        tell(find, find->status, NULL, text);
}

/* From the loop: it may be in the hands of whoever asks. */
static void fail_soon(QemuFind *find, int status, const char *text)
{
        find->status = status;
        (void) snprintf(find->text, sizeof find->text, "%s", text);
        loop_timer_soon(find->timer);
}

/* ---- its directory --------------------------------------------------------------------------------------------- */

static void ask(QemuFind *find);

static void tell_place(QemuFind *find, const char *said)
{
        Qemu *q = find->q;
        VmmDevice device = {.fd = -1, .process = q->vmm.process};
        QemuDevice *known = qemu_device(q, find->id);
        char text[JSON_TEXT_MAX];

        if (!sysfs_device_find(said, device.sysfs, sizeof device.sysfs) && !find->fallback) {
                find->fallback = true;
                ask(find);
                return;
        }
        if (!device.sysfs[0]) {
                (void) snprintf(text, sizeof text,
                                "QEMU's device %.64s is no vfio-pci device with a place in sysfs (\"%.60s\")",
                                find->id, said);
                tell(find, -ENODEV, NULL, text);
        } else if (q->pidfd < 0) {
                tell(find, -ENXIO, NULL, "the process of QEMU's monitor is not known");
        } else {
                if (known)
                        (void) snprintf(known->name, sizeof known->name, "%s",
                                        strrchr(device.sysfs, '/') + 1);
                tell(find, 0, &device, "");
        }
}

static void on_place(void *userdata, int status, json_object *result, const char *text)
{
        QemuFind *find = userdata;
        char why[JSON_TEXT_MAX];

        find->asked = false;
        if (!find->timer) { /* told, or forgotten, meanwhile */
                free(find);
                return;
        }
        if (status == -ECANCELED)
                return; /* the connection is made anew: asked again when it is there, or the time is up */
        if (status < 0) {
                (void) snprintf(why, sizeof why, "QEMU's device %.64s: %.100s", find->id, text);
                tell(find, status == -EREMOTEIO ? -ENODEV : status, NULL, why);
        } else {
                tell_place(find, json_object_is_type(result, json_type_string)
                                         ? json_object_get_string(result)
                                         : "");
        }
}

static void ask(QemuFind *find)
{
        json_object *arguments;
        char path[DEVICE_ID_MAX + 32];

        (void) snprintf(path, sizeof path, "/machine/peripheral/%s", find->id);
        arguments = qemu_argument("path", path);
        json_add_string(arguments, "property", find->fallback ? "host" : "sysfsdev");
        find->asked = true;
        qmp_execute(find->q->qmp, "qom-get", arguments, -1, FIND_USEC, on_place, find);
}

/* ---- the list -------------------------------------------------------------------------------------------------- */

void qemu_ask_finds(Qemu *q)
{
        for (QemuFind *find = q->finds; find; find = find->next)
                if (!find->asked && find->status == -ETIMEDOUT)
                        ask(find);
}

void qemu_fail_finds(Qemu *q, int status, const char *text)
{
        for (QemuFind *find = q->finds; find; find = find->next)
                fail_soon(find, status, text);
}

void qemu_find_device(Vmm *vmm, const char *vmm_device, VmmDeviceFound found, void *userdata)
{
        Qemu *q = (Qemu *) vmm;
        QemuFind *find = calloc(1, sizeof *find);

        if (!find || loop_timer_new(vmm->loop, on_timer, find, &find->timer) < 0)
                out_of_memory();
        find->next = q->finds;
        find->q = q;
        find->found = found;
        find->userdata = userdata;
        (void) snprintf(find->id, sizeof find->id, "%s", vmm_device);
        find->status = -ETIMEDOUT;
        (void) snprintf(find->text, sizeof find->text, "QEMU's monitor does not say where device %.64s is",
                        find->id);
        loop_timer_set(find->timer, FIND_USEC);
        q->finds = find;
        if (q->qmp && qmp_is_ready(q->qmp))
                ask(find);
        else
                qemu_want_monitor(q);
}

void qemu_forget_device(Vmm *vmm, void *userdata)
{
        Qemu *q = (Qemu *) vmm;

        for (QemuFind *find = q->finds, *next; find; find = next) {
                next = find->next;
                if (find->userdata == userdata)
                        drop(find);
        }
}

void qemu_free_finds(Qemu *q)
{
        while (q->finds)
                drop(q->finds);
}
