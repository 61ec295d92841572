/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A device of a VM that nobody moves is reset: its agent looks where it is, resets it, and sees that it runs again. */

#include <stdio.h>

#include "common/log.h"
#include "vm.h"

/* The agent keeps the deadline by itself; this much later nobody believes in it any more. */
#define GRACE_USEC USEC_PER_SEC

struct VmReset {
        VmReset *next;
        Vm *vm;
        uint32_t device;
        bool looked;
        LoopTimer *timer;
        VmResetDone done;
        void *userdata;
};

/* Answers, and forgets it. */
static void end(VmReset *reset, int status, const char *text)
{
        Vm *vm = reset->vm;
        VmResetDone done = reset->done;
        void *userdata = reset->userdata;
        uint32_t device = reset->device;

        for (VmReset **p = &vm->resets; *p; p = &(*p)->next)
                if (*p == reset) {
                        *p = reset->next;
                        break;
                }
        device_forget(
                vm->devices[device]); /* an agent whose device is gone answers all the same, after that */
        loop_timer_free(reset->timer);
        free(reset);
        done(userdata, vm, device, status, text);
}

static void on_timer(void *userdata)
{
        VmReset *reset = userdata;

        end(reset, -ETIMEDOUT, "its agent does not answer");
}

static void run(VmReset *reset, DeviceAct act);

static void on_answered(void *userdata, uint32_t index, uint32_t step, const AgentResultPacket *result)
{
        VmReset *reset = userdata;

        if (result->status < 0) {
                end(reset, result->status, result->text);
        } else if (!reset->looked) {
                reset->looked = true;
                run(reset, DEVICE_ACT_RESET);
        } else {
                log_warning(LOG_ABOUT(.vm = reset->vm->definition->name,
                                      .device = reset->vm->definition->devices[index].id),
                            "the device was reset: its state is lost");
                end(reset, 0, "");
        }
}

static void run(VmReset *reset, DeviceAct act)
{
        Device *device = reset->vm->devices[reset->device];
        uint64_t usec = reset->vm->host->config.policy.deadline_usec[PHASE_PREPARE];
        DeviceProgram program;

        if (device_program(act, device_state(device), device_flags(device), !device_is_open(device),
                           &program) < 0) {
                end(reset, -EINVAL, "there is no way from this state to one in which it can be reset");
                return;
        }
        loop_timer_set(reset->timer, usec + GRACE_USEC);
        /* No job's: any UUID will do. */
        device_run(device, reset->vm->definition->uuid, &program, &(TransferLimits){}, usec, false, 0,
                   on_answered, reset);
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
                        end(reset, status, text);
                        return;
                }
}

void vm_end_resets(Vm *vm)
{
        while (vm->resets)
                end(vm->resets, -ECANCELED, "migmgrd ends");
}
