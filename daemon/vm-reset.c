/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A device of a VM that nobody moves is reset: its agent looks where it is, resets it, and sees that it runs again.
 *
 * One of the kernel that does not take that has its function reset, by the helper, and is opened anew. When that does not help
 * either nobody is to rely on it: it is in quarantine, and no job takes it, until a reset has gone well. */

#include <stdio.h>

#include "common/log.h"
#include "vm.h"

/* The agent keeps the deadline by itself; this much later nobody believes in it any more. */
#define LATE_USEC USEC_PER_SEC
/* The helper waits for the kernel for so long, and may have others to serve before. */
#define FUNCTION_USEC (12 * USEC_PER_SEC)

typedef enum Rung {
        RUNG_LOOK,
        RUNG_RESET,    /* by the device's own file */
        RUNG_FUNCTION, /* by its function, in sysfs */
        RUNG_SEE,      /* ... and what that has brought */
} Rung;

struct VmReset {
        VmReset *next;
        Vm *vm;
        uint32_t device;
        Rung rung;
        char text[VM_RESET_TEXT_MAX]; /* what has failed, and then how it was done */
        LoopTimer *timer;
        VmResetDone done;
        void *userdata;
};

static Device *device_of(const VmReset *reset)
{
        return reset->vm->devices[reset->device];
}

static const char *by_its_file(const VmReset *reset)
{
        return device_flags(device_of(reset)) & DEVICE_KERNEL ? "VFIO_DEVICE_RESET" : "DEVICE_RESET";
}

/* Answers, and forgets it. */
static void end(VmReset *reset, int status, const char *text)
{
        Vm *vm = reset->vm;
        VmResetDone done = reset->done;
        void *userdata = reset->userdata;
        uint32_t device = reset->device;
        char kept[VM_RESET_TEXT_MAX];

        (void) snprintf(kept, sizeof kept, "%s", text);
        for (VmReset **p = &vm->resets; *p; p = &(*p)->next)
                if (*p == reset) {
                        *p = reset->next;
                        break;
                }
        device_forget(
                vm->devices[device]); /* an agent whose device is gone answers all the same, after that */
        helper_client_forget(vm->host->helper, reset);
        loop_timer_free(reset->timer);
        free(reset);
        done(userdata, vm, device, status, kept);
        if (device_is_supervised(vm->devices[device]) && !vm->job)
                device_close(vm->devices[device]);
        else if (vm->presence != PRESENCE_HERE)
                vm_close_devices_later(vm);
}

static void reset_it(VmReset *reset, const char *method)
{
        log_warning(LOG_ABOUT(.vm = reset->vm->definition->name, .device = device_id(device_of(reset))),
                    "the device was reset, by %s: its state is lost", method);
        vm_set_quarantine(reset->vm, reset->device, "");
        end(reset, 0, method);
}

static void give_up(VmReset *reset, int status)
{
        char text[VM_RESET_TEXT_MAX];

        log_error(LOG_ABOUT(.vm = reset->vm->definition->name, .device = device_id(device_of(reset))),
                  "the device can't be reset, and no job takes it: %s", reset->text);
        vm_set_quarantine(reset->vm, reset->device, reset->text);
        (void) snprintf(text, sizeof text, "%.380s; it is in quarantine", reset->text);
        end(reset, status, text);
}

static void add_text(VmReset *reset, const char *what, const char *text)
{
        size_t n = strlen(reset->text);

        (void) snprintf(reset->text + n, sizeof reset->text - n, "%s%s: %.150s", n > 0 ? "; " : "", what,
                        text);
}

static void run(VmReset *reset, DeviceAct act);

static void on_function_reset(void *userdata, int status, int fd, pid_t pid, const char *text)
{
        VmReset *reset = userdata;

        if (fd >= 0)
                (void) close(fd);
        if (status < 0) {
                add_text(reset, "reset of its function", text);
                give_up(reset, status);
                return;
        }
        (void) snprintf(reset->text, sizeof reset->text, "its function's reset (%.100s)", text);
        reset->rung = RUNG_SEE;
        run(reset, DEVICE_ACT_LOOK);
}

static void reset_function(VmReset *reset, int status)
{
        const char *sysfs[] = {device_sysfs(device_of(reset))};

        if (!sysfs[0][0]) {
                give_up(reset, status);
                return;
        }
        reset->rung = RUNG_FUNCTION;
        device_forget(device_of(reset));
        device_close(device_of(reset)); /* what it is to be opened as is another one */
        loop_timer_set(reset->timer, FUNCTION_USEC);
        helper_client_ask(reset->vm->host->helper, HELPER_RESET_FUNCTION, sysfs, 1, on_function_reset, reset);
}

static void failed(VmReset *reset, int status, const char *text)
{
        if (!(device_flags(device_of(reset)) & DEVICE_KERNEL)) {
                end(reset, status, text);
                return;
        }
        switch (reset->rung) {
        case RUNG_LOOK:
        case RUNG_RESET:
                add_text(reset, by_its_file(reset), text);
                reset_function(reset, status);
                break;
        case RUNG_FUNCTION:
        case RUNG_SEE:
                add_text(reset, "after it", text);
                give_up(reset, status);
                break;
        }
}

static void on_timer(void *userdata)
{
        failed(userdata, -ETIMEDOUT,
               ((VmReset *) userdata)->rung == RUNG_FUNCTION ? "migmgr-helper does not answer"
                                                             : "its agent does not answer");
}

static void on_answered(void *userdata, uint32_t index, uint32_t step, const AgentResultPacket *result)
{
        VmReset *reset = userdata;
        const char *state = device_state_to_string((DeviceState) result->state);

        if (result->status < 0)
                failed(reset, result->status, result->text);
        else if (reset->rung == RUNG_LOOK) {
                reset->rung = RUNG_RESET;
                run(reset, DEVICE_ACT_RESET);
        } else if (result->state != DEVICE_STATE_RUNNING)
                failed(reset, -EIO, state ? state : "unknown");
        else
                reset_it(reset, reset->rung == RUNG_SEE ? reset->text : by_its_file(reset));
}

/* As long as it may take when a job prepares it. 5 s when nobody can say. */
static uint64_t reset_usec(const VmReset *reset)
{
        Manifest manifest;
        PolicyView view;

        if (vm_manifest(reset->vm, &manifest) < 0)
                return 5 * USEC_PER_SEC;
        policy_of_device(&reset->vm->host->policies->rules, &manifest, &manifest.devices[reset->device],
                         &view);
        manifest_deinit(&manifest);
        return view.values[POLICY_DEADLINE + PHASE_PREPARE] * USEC_PER_MSEC;
}

static void run(VmReset *reset, DeviceAct act)
{
        Device *device = device_of(reset);
        uint64_t usec = reset_usec(reset);
        DeviceProgram program;

        if (device_program(act, device_state(device), device_flags(device), !device_is_open(device),
                           &program) < 0) {
                failed(reset, -EINVAL, "there is no way from this state to one in which it can be reset");
                return;
        }
        loop_timer_set(reset->timer, usec + LATE_USEC);
        /* No job's: any UUID will do. */
        device_run(device, reset->vm->definition->uuid, &program, &(TransferLimits){}, usec, false, 0,
                   on_answered, reset);
}

void vm_set_quarantine(Vm *vm, uint32_t device, const char *text)
{
        if (streq(device_quarantine(vm->devices[device]), text))
                return;
        device_set_quarantine(vm->devices[device], text);
        store_put_quarantine(vm->host->store, vm->definition->uuid, device_id(vm->devices[device]), text);
}

int vm_reset_device(Vm *vm, uint32_t device, VmResetDone done, void *userdata)
{
        VmReset *reset = malloc(sizeof *reset);
        int r;

        if (!reset)
                return -ENOMEM;
        *reset = (VmReset){.vm = vm, .device = device, .done = done, .userdata = userdata};
        r = loop_timer_new(vm->host->loop, on_timer, reset, &reset->timer);
        if (r < 0) {
                free(reset);
                return r;
        }
        reset->next = vm->resets;
        vm->resets = reset;
        run(reset, DEVICE_ACT_LOOK);
        return 0;
}

void vm_reset_gone(Vm *vm, uint32_t device, int status, const char *text)
{
        for (VmReset *reset = vm->resets; reset; reset = reset->next)
                if (reset->device == device) {
                        failed(reset, status, text);
                        return;
                }
}

void vm_end_resets(Vm *vm)
{
        while (vm->resets)
                end(vm->resets, -ECANCELED, "migmgrd ends");
}
