/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A VMM has ended, and we hold duplicates of the files of its devices: gone it is when these are closed. One that had left
 * STOP is reset first, so that whoever opens the device next does not find what the VMM left. */

#include "common/log.h"
#include "vm.h"

/* All of them. Who hangs longer is left alone. */
#define CLEAR_USEC USEC_PER_SEC

struct VmClearing {
        Vm *vm;
        uint32_t n; /* devices that are awaited */
        LoopTimer *timer;
        LoopCallback done;
        void *userdata;
};

static void end(VmClearing *clearing)
{
        LoopCallback done = clearing->done;
        void *userdata = clearing->userdata;

        vm_end_clearing(clearing->vm);
        done(userdata);
}

static void close_one(VmClearing *clearing, uint32_t index)
{
        device_close(clearing->vm->devices[index]);
        if (--clearing->n == 0)
                end(clearing);
}

static void on_timer(void *userdata)
{
        VmClearing *clearing = userdata;
        Vm *vm = clearing->vm;

        for (uint32_t i = 0; i < vm->definition->n_devices; i++)
                if (device_is_supervised(vm->devices[i]) && device_is_open(vm->devices[i])) {
                        log_warning(
                                LOG_ABOUT(.vm = vm->definition->name,
                                          .device = vm->definition->devices[i].id),
                                "its VMM has ended, and it could not be reset within a second: a call hangs in the "
                                "kernel. Whoever opens it next has to reset it");
                        device_close(vm->devices[i]);
                }
        end(clearing);
}

static void run(VmClearing *clearing, uint32_t index, DeviceAct act, bool gone, DeviceAnswered answered)
{
        Device *device = clearing->vm->devices[index];
        DeviceProgram program;

        if (device_program(act, device_state(device), device_flags(device), gone, &program) < 0) {
                close_one(clearing, index);
                return;
        }
        /* No job's: any UUID will do. What it did for one is of no more use. */
        device_run(device, clearing->vm->definition->uuid, &program, &(TransferLimits){}, CLEAR_USEC, true, 0,
                   answered, clearing);
}

static void on_let_go(void *userdata, uint32_t index, uint32_t step, const AgentResultPacket *result)
{
        close_one(userdata, index);
}

static void on_cleared(void *userdata, uint32_t index, uint32_t step, const AgentResultPacket *result)
{
        VmClearing *clearing = userdata;

        if (result->status == 0) {
                close_one(clearing, index);
                return;
        }
        log_warning(LOG_ABOUT(.vm = clearing->vm->definition->name,
                              .device = clearing->vm->definition->devices[index].id),
                    "its VMM has ended, and it can't be reset: %s", result->text);
        run(clearing, index, DEVICE_ACT_CLEAR, true, on_let_go);
}

static void on_looked(void *userdata, uint32_t index, uint32_t step, const AgentResultPacket *result)
{
        run(userdata, index, DEVICE_ACT_CLEAR, false, on_cleared);
}

int vm_clear_supervised(Vm *vm, LoopCallback done, void *userdata)
{
        VmClearing *clearing;
        int r;

        if (vm->clearing)
                return 0; /* it tells of the same end */
        clearing = calloc(1, sizeof *clearing);
        if (!clearing)
                return -ENOMEM;
        *clearing = (VmClearing){.vm = vm, .done = done, .userdata = userdata};
        r = loop_timer_new(vm->host->loop, on_timer, clearing, &clearing->timer);
        if (r < 0) {
                free(clearing);
                return r;
        }
        vm->clearing = clearing;
        for (uint32_t i = 0; i < vm->definition->n_devices; i++)
                if (device_is_supervised(vm->devices[i]) && device_is_open(vm->devices[i]))
                        clearing->n++;
        if (clearing->n == 0) {
                end(clearing);
                return 0;
        }
        loop_timer_set(clearing->timer, CLEAR_USEC);
        for (uint32_t i = 0; i < vm->definition->n_devices; i++)
                if (device_is_supervised(vm->devices[i]) && device_is_open(vm->devices[i]))
                        run(clearing, i, DEVICE_ACT_LOOK, false, on_looked);
        return 0;
}

void vm_end_clearing(Vm *vm)
{
        if (!vm->clearing)
                return;
        loop_timer_free(vm->clearing->timer);
        free(vm->clearing);
        vm->clearing = NULL;
}
