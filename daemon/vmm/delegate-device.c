/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A kernel device of the VM, whose file its delegate gives away. Asked beside whatever else is under way, by as many as there
 * are devices. */

#include <fcntl.h>
#include <stdio.h>

#include "delegate.h"

struct DelegateFinding {
        DelegateTalk talk; /* first: it is what comes back */
        DelegateFinding *next;
        char device[DEVICE_ID_MAX + 1];
        VmmDeviceFound found;
        void *userdata;
};

static void unlink_finding(DelegateFinding *finding)
{
        for (DelegateFinding **p = &finding->talk.delegate->findings; *p; p = &(*p)->next)
                if (*p == finding) {
                        *p = finding->next;
                        return;
                }
}

static void finding_free(DelegateFinding *finding)
{
        unlink_finding(finding);
        delegate_stop(&finding->talk);
        free(finding);
}

static void answer(DelegateFinding *finding, int status, const VmmDevice *device, const char *text)
{
        VmmDeviceFound found = finding->found;
        void *userdata = finding->userdata;
        char kept[DELEGATE_TEXT_MAX];

        (void) snprintf(kept, sizeof kept, "%s", text); /* it may be the finding's own */
        finding_free(finding);
        found(userdata, status, device, kept);
}

static int read_memory(sd_bus_message *reply, VmmDevice *device, const char **ret_text)
{
        int r = sd_bus_message_enter_container(reply, 'a', "(tt)");
        uint64_t address, size;

        *ret_text = "DeviceFile: the answer is no (ha(tt))";
        while (r >= 0 && (r = sd_bus_message_read(reply, "(tt)", &address, &size)) > 0) {
                if (device->n_memory == DEVICE_MEMORY_MAX) {
                        *ret_text = "DeviceFile: more than 32 ranges of memory; join those that touch";
                        return -E2BIG;
                }
                device->memory[device->n_memory++] = (DeviceMemory){address, size};
        }
        if (r >= 0 && !device_memory_is_sane(device->memory, device->n_memory)) {
                *ret_text =
                        "DeviceFile: a range of memory is empty, no whole pages, or beyond the last address";
                return -EPROTO;
        }
        return r;
}

static void on_file(DelegateTalk *talk, int status, sd_bus_message *reply, const char *text)
{
        DelegateFinding *finding = (DelegateFinding *) talk;
        VmmDevice device = {.fd = -1, .process = talk->delegate->vmm.process};
        const char *wrong = "DeviceFile: the answer is no (ha(tt))";
        int fd, r = status;

        if (r < 0) {
                answer(finding, r, NULL, text);
                return;
        }
        r = sd_bus_message_has_signature(reply, "ha(tt)") ? sd_bus_message_read(reply, "h", &fd) : -EPROTO;
        if (r >= 0)
                r = read_memory(reply, &device, &wrong);
        if (r >= 0) {
                device.fd = fcntl(fd, F_DUPFD_CLOEXEC, 3); /* the message's own ends with it */
                wrong = "no descriptor is left for the device";
                r = device.fd < 0 ? -errno : 0;
        }
        answer(finding, MIN(r, 0), r < 0 ? NULL : &device, r < 0 ? wrong : "");
}

static void on_reached(DelegateTalk *talk, int status, const char *text)
{
        DelegateFinding *finding = (DelegateFinding *) talk;

        if (status < 0)
                answer(finding, status, NULL, text);
        else
                delegate_call(talk, DELEGATE_INTERFACE, "DeviceFile", on_file, "s", finding->device);
}

void delegate_find_device(Vmm *vmm, const char *vmm_device, VmmDeviceFound found, void *userdata)
{
        Delegate *d = (Delegate *) vmm;
        DelegateFinding *finding = calloc(1, sizeof *finding);

        if (!finding) {
                found(userdata, -ENOMEM, NULL, "out of memory");
                return;
        }
        *finding = (DelegateFinding){
                .talk = {.delegate = d}, .next = d->findings, .found = found, .userdata = userdata};
        (void) snprintf(finding->device, sizeof finding->device, "%s", vmm_device);
        d->findings = finding;
        delegate_reach(&finding->talk, on_reached);
}

void delegate_forget_device(Vmm *vmm, void *userdata)
{
        for (DelegateFinding *finding = ((Delegate *) vmm)->findings, *next; finding; finding = next) {
                next = finding->next;
                if (finding->userdata == userdata)
                        finding_free(finding);
        }
}

void delegate_drop_findings(Delegate *d)
{
        while (d->findings)
                finding_free(d->findings);
}
