/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What plugins say of a VM's devices, and what they are told of them. */

#include <stdio.h>

#include "vm.h"

static void add_attribute(VmDescription *description, const char *name, const char *value)
{
        PluginDevice *device = &description->device;

        if (value[0] && device->n_attributes < MIGMGR_ATTRIBUTES_MAX)
                description->attributes[device->n_attributes++] = (struct migmgr_text){name, value};
}

void vm_describe(const Vm *vm, uint32_t index, VmDescription *ret)
{
        const Device *device = vm->devices[index];
        const ManifestDevice *known = device_known(device);
        const DeviceIdentity *identity = device_identity(device);
        const char *type = device_type_to_string(device_type(device));

        *ret = (VmDescription){
                .device = {.vm = vm->definition->uuid,
                           .id = device_id(device),
                           .type = type ? type : "",
                           .driver = known->driver,
                           .attributes = ret->attributes,
                           .config_size = MIN(identity->n_config, (uint32_t) DEVICE_CONFIG_MAX),
                           .config = identity->config}};
        add_attribute(ret, "sysfs", device_sysfs(device));
        add_attribute(ret, "device", known->device);
        add_attribute(ret, "subsystem", known->subsystem);
        for (uint32_t i = 0; i < known->n_facts; i++)
                add_attribute(ret, known->facts[i].key, known->facts[i].value);
}

/* One that has nothing to ask costs nothing. */
bool vm_asks_plugins(const Vm *vm)
{
        return !plugins_are_none(vm->host->plugins);
}

void vm_look_by_plugins(Vm *vm, uint32_t index, Side side, LoopCallback done, void *userdata)
{
        VmDescription description;

        plugins_view_deinit(&vm->views[index]);
        vm_describe(vm, index, &description);
        plugins_look(vm->host->plugins, &description.device, side, &vm->views[index], done, userdata);
}

/* What the device itself says of its state is better. */
static void take_estimate(const PluginsView *view, ManifestDevice *device)
{
        for (Phase p = 0; p < PHASE_MAX; p++)
                if (plugin_phase_is_blackout(p))
                        device->estimate_usec +=
                                MIN(view->usec[p], (uint64_t) INT64_MAX - device->estimate_usec);
        if (device->state_bytes == 0)
                device->state_bytes = MIN(view->bytes, (uint64_t) INT64_MAX);
}

int vm_add_said(const Vm *vm, uint32_t index, ManifestDevice *device)
{
        const ManifestDevice *said = &vm->views[index].said;
        int r = 0;

        for (uint32_t i = 0; i < said->n_facts && r == 0; i++)
                r = manifest_add_fact(device, said->facts[i].key, said->facts[i].value);
        for (uint32_t i = 0; i < said->n_plugins && r == 0; i++)
                r = manifest_add_plugin(device, said->plugins[i]);
        take_estimate(&vm->views[index], device);
        return r;
}

void vm_forget_plugins(Vm *vm)
{
        for (uint32_t i = 0; vm->views && i < vm->definition->n_devices; i++)
                plugins_view_deinit(&vm->views[i]);
        free(vm->views);
        vm->views = NULL;
}

uint64_t vm_plugins_blackout_ms(const Vm *vm)
{
        uint64_t sum = 0;

        for (Phase p = 0; p < PHASE_MAX; p++) {
                uint32_t most = 0;

                for (uint32_t i = 0; i < vm->definition->n_devices; i++)
                        most = MAX(most, plugins_phase_ms(&vm->views[i], p));
                if (plugin_phase_is_blackout(p))
                        sum += most;
        }
        return sum;
}
