/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vm.h"

#include <stdio.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>

#include "common/clock.h"
#include "common/log.h"
#include "identity.h"

/* A check is normally followed by PREPARE at once, and a check alone by nothing. */
#define IDLE_USEC (30 * USEC_PER_SEC)
/* How long a connection to a device has to last to be made again at once. */
#define STEADY_USEC USEC_PER_SEC
/* Devices that are being opened at a time. */
#define OPEN_AT_ONCE 16

/* ---- what devices and VMM say -------------------------------------------------------------------------------- */

static void on_device_back(void *userdata, uint32_t index, int status, const char *text)
{
        Vm *vm = userdata;

        if (status < 0)
                log_warning(
                        LOG_ABOUT(.vm = vm->definition->name, .device = vm->definition->devices[index].id),
                        "the device cannot be reached again: %s", text);
        vm->changed(vm->changed_userdata, vm, (int32_t) index);
}

/* A VMM uses the device, and no job has it in hand: it must not wait for one. */
static void open_again(Vm *vm, uint32_t index)
{
        Device *device = vm->devices[index];

        if (!vm->job && vm->presence == PRESENCE_HERE && !device_is_open(device) &&
            !device_is_opening(device))
                device_open(device, on_device_back, vm);
}

static void on_again(void *userdata)
{
        Vm *vm = userdata;

        for (uint32_t i = 0; i < vm->definition->n_devices; i++)
                if (vm->definition->devices[i].broker[0])
                        open_again(vm, i);
}

/* Once: a server that is not there then is asked for again when the VMM waits for it. One that goes as soon as it has come
 * gets a pause: that may go on for ever. */
static void come_again(Vm *vm, uint32_t index)
{
        if (clock_monotonic_usec() - device_opened_usec(vm->devices[index]) > STEADY_USEC)
                open_again(vm, index);
        else
                loop_timer_set(vm->again_timer, STEADY_USEC);
}

static void on_device_wanted(void *userdata, uint32_t index)
{
        open_again(userdata, index);
}

static void on_device_gone(void *userdata, uint32_t index, int status, const char *text)
{
        Vm *vm = userdata;

        log_warning(LOG_ABOUT(.vm = vm->definition->name, .device = vm->definition->devices[index].id),
                    "the device is gone: %s", text);
        if (vm->job)
                vm->listener->device_gone(vm->job, index, status, text);
        vm_reset_gone(vm, index, status, text);
        vm->changed(vm->changed_userdata, vm, (int32_t) index);
        if (vm->definition->devices[index].broker[0])
                come_again(vm, index);
}

static void on_device_progress(void *userdata, uint32_t index, uint64_t bytes)
{
        Vm *vm = userdata;

        if (vm->job)
                vm->listener->device_progress(vm->job, index, bytes);
}

static void on_device_dirty(void *userdata, uint32_t index, const AgentDirty *dirty, int fd)
{
        Vm *vm = userdata;

        if (vm->job)
                vm->listener->device_dirty(vm->job, index, dirty, fd);
        else
                (void) close(fd);
}

static void on_device_changed(void *userdata, uint32_t index)
{
        Vm *vm = userdata;

        vm->changed(vm->changed_userdata, vm, (int32_t) index);
}

static void on_vmm_answered(void *userdata, uint32_t step, int status, const char *text)
{
        Vm *vm = userdata;

        if (vm->job)
                vm->listener->vmm_answered(vm->job, step, status, text);
}

/* First that the VMM is gone, which decides what follows; then what went with it. */
static void on_cleared(void *userdata)
{
        Vm *vm = userdata;

        if (vm->job)
                vm->listener->vmm_gone(vm->job);
        else
                log_warning(LOG_ABOUT(.vm = vm->definition->name), "the VM's process has ended");
        for (uint32_t i = 0; i < vm->definition->n_devices; i++)
                if (vm->job && device_is_supervised(vm->devices[i]))
                        vm->listener->device_gone(vm->job, i, -ENODEV, "it has gone with its VMM");
        vm->changed(vm->changed_userdata, vm, -1);
}

static void on_vmm_gone(void *userdata)
{
        Vm *vm = userdata;

        if (vm_clear_supervised(vm, on_cleared, vm) < 0)
                out_of_memory();
}

static void on_vmm_halted(void *userdata, uint64_t usec)
{
        Vm *vm = userdata;

        if (vm->job)
                vm->listener->vmm_halted(vm->job, usec);
}

static void on_vmm_resumed(void *userdata)
{
        Vm *vm = userdata;

        if (vm->job)
                vm->listener->vmm_resumed(vm->job);
}

/* Whom the VMM means, or -1. */
static int32_t find_vmm_device(const Vm *vm, const char *vmm_device)
{
        for (uint32_t i = 0; i < vm->definition->n_devices; i++)
                if (vmm_device[0] && streq(vm->definition->devices[i].vmm_device, vmm_device))
                        return (int32_t) i;
        return -1;
}

static void on_vmm_device_reset(void *userdata, const char *vmm_device, const char *text)
{
        Vm *vm = userdata;
        int32_t index = find_vmm_device(vm, vmm_device);

        log_warning(LOG_ABOUT(.vm = vm->definition->name,
                              .device = index < 0 ? vmm_device : vm->definition->devices[index].id),
                    "its VMM has reset it: %s", text);
        if (vm->job && index >= 0)
                vm->listener->vmm_device_reset(vm->job, (uint32_t) index, text);
}

static void on_vmm_progress(void *userdata, uint64_t done_bytes, uint64_t total_bytes)
{
        Vm *vm = userdata;

        if (vm->job)
                vm->listener->vmm_progress(vm->job, done_bytes, total_bytes);
}

bool vm_is_busy(const Vm *vm)
{
        return vm->job || vm->awaits_job || vm->opened || vm->n_asking > 0 || vm->resets || !vm->registered;
}

void vm_set_job(Vm *vm, const VmListener *listener, void *job)
{
        vm->listener = listener;
        vm->job = job;
        if (job)
                vm_keep_devices(vm);
}

void vm_end_job(Vm *vm)
{
        vm_set_job(vm, NULL, NULL);
        for (uint32_t i = 0; i < vm->definition->n_devices; i++)
                if (device_is_supervised(vm->devices[i]))
                        device_close(vm->devices[i]);
}

/* ---- devices ------------------------------------------------------------------------------------------------- */

int32_t vm_find_device(const Vm *vm, const char *id)
{
        for (uint32_t i = 0; i < vm->definition->n_devices; i++)
                if (streq(vm->definition->devices[i].id, id))
                        return (int32_t) i;
        return -1;
}

static void tell_found(Vm *vm)
{
        VmOpened found = vm->found;

        vm->found = NULL;
        if (found)
                found(vm->found_userdata, vm);
}

static void on_all_opened(void *userdata)
{
        Vm *vm = userdata;
        VmOpened opened = vm->opened;

        tell_found(vm);
        vm->opened = NULL;
        if (opened)
                opened(vm->opened_userdata, vm);
}

static void open_next(Vm *vm);

static bool is_awaited(const Vm *vm, const Device *device)
{
        return vm->opens_supervised || !device_is_supervised(device);
}

static void on_device_opened(void *userdata, uint32_t index, int status, const char *text)
{
        Vm *vm = userdata;

        if (status < 0)
                log_warning(
                        LOG_ABOUT(.vm = vm->definition->name, .device = vm->definition->devices[index].id),
                        "the device cannot be reached: %s", text);
        vm->changed(vm->changed_userdata, vm, (int32_t) index);
        if (vm->n_opening == 0)
                return;
        vm->n_tried--;
        if (--vm->n_opening == 0)
                on_all_opened(vm);
        else
                open_next(vm);
}

/* Each device's time begins when it is tried, and the helper starts one agent after the other. */
static void open_next(Vm *vm)
{
        uint32_t n = vm->definition->n_devices;

        /* Those before it that are passed over were never among the ones that are awaited. */
        while (vm->next_opening < n && vm->n_tried < OPEN_AT_ONCE) {
                Device *device = vm->devices[vm->next_opening++];

                if (!is_awaited(vm, device))
                        continue;
                vm->n_tried++;
                device_open(device, on_device_opened, vm);
        }
}

void vm_open_devices(Vm *vm, bool supervised, VmOpened opened, void *userdata)
{
        vm_keep_devices(vm); /* whoever asked before may have left it running */
        vm->opened = opened;
        vm->opened_userdata = userdata;
        vm->opens_supervised = supervised;
        vm->n_opening = vm->n_tried = 0;
        for (uint32_t i = 0; i < vm->definition->n_devices; i++) {
                if (is_awaited(vm, vm->devices[i])) {
                        vm->n_opening++;
                } else {
                        device_close(vm->devices[i]);
                        device_look(vm->devices[i]); /* all that can be known of it until its VMM lives */
                }
        }
        if (vm->n_opening == 0 && loop_defer(vm->host->loop, on_all_opened, vm) < 0)
                out_of_memory();
        vm->next_opening = 0;
        open_next(vm);
}

void vm_find_devices(Vm *vm, VmOpened found, void *userdata)
{
        vm->found = found;
        vm->found_userdata = userdata;
        for (uint32_t i = 0; i < vm->definition->n_devices; i++)
                if (!device_is_supervised(vm->devices[i]))
                        device_recall(vm->devices[i]);
        vm_open_devices(vm, false, NULL, NULL);
}

void vm_close_devices(Vm *vm)
{
        vm_keep_devices(vm);
        tell_found(vm);
        loop_timer_set(vm->again_timer, 0);
        vm->n_opening = 0;
        vm->opened = NULL;
        for (uint32_t i = 0; i < vm->definition->n_devices; i++)
                device_close(vm->devices[i]);
        vm->changed(vm->changed_userdata, vm, -1);
}

static void on_idle(void *userdata)
{
        Vm *vm = userdata;

        if (!vm->job)
                vm_close_devices(vm);
}

void vm_close_devices_later(Vm *vm)
{
        loop_timer_set(vm->idle_timer, IDLE_USEC);
}

void vm_keep_devices(Vm *vm)
{
        loop_timer_set(vm->idle_timer, 0);
}

/* ---- manifest ------------------------------------------------------------------------------------------------ */

static int add_identity(const Vm *vm, uint32_t i, ManifestDevice *device)
{
        const DeviceIdentity *identity = device_identity(vm->devices[i]);
        const DeviceDefinition *definition = &vm->definition->devices[i];
        int r = manifest_copy_known(device, device_known(vm->devices[i]));

        if (r == 0)
                r = identity_take_config(identity, device);
        device->state_bytes = MIN(identity->state_bytes, (uint64_t) INT64_MAX);
        device->isolation = identity_isolation(definition, identity, vmm_isolation(vm->vmm, definition));
        return r;
}

int vm_manifest(const Vm *vm, Manifest *ret)
{
        const Definition *definition = vm->definition;
        struct utsname host;
        struct statvfs disk;
        Manifest manifest;
        int r = manifest_init(&manifest, definition->n_devices);

        if (r < 0)
                return r;
        (void) snprintf(manifest.uuid, sizeof manifest.uuid, "%s", definition->uuid);
        (void) snprintf(manifest.name, sizeof manifest.name, "%s", definition->name);
        manifest.presence = vm->presence;
        manifest.can_start = definition->vmm != VMM_TYPE_QMP || definition->argv;
        if (uname(&host) == 0)
                (void) snprintf(manifest.kernel, sizeof manifest.kernel, "%.64s", host.release);
        (void) snprintf(manifest.daemon, sizeof manifest.daemon, "%s", PACKAGE_VERSION);
        if (statvfs(vm->host->config.state_dir, &disk) == 0)
                manifest.free_bytes = (int64_t) MIN((uint64_t) disk.f_bavail * disk.f_frsize, INT64_MAX);
        manifest.n_labels = definition->n_labels;
        if (definition->n_labels > 0)
                memcpy(manifest.labels, definition->labels, definition->n_labels * sizeof manifest.labels[0]);
        manifest.vmm = vm->vmm->facts;
        /* One that does not live yet will have what it is started with. */
        if (!manifest.vmm.machine[0])
                definition_find_machine(definition, manifest.vmm.machine, sizeof manifest.vmm.machine);
        for (uint32_t i = 0; i < definition->n_devices && r >= 0; i++) {
                ManifestDevice *device = &manifest.devices[i];

                (void) snprintf(device->id, sizeof device->id, "%s", definition->devices[i].id);
                device->type = definition->devices[i].type;
                device->migration_flags = device_flags(vm->devices[i]);
                device->state = device_state(vm->devices[i]);
                device->status = device_quarantine(vm->devices[i])[0]  ? MANIFEST_QUARANTINED
                                 : device_is_open(vm->devices[i])      ? 0
                                 : device_lacks_agent(vm->devices[i])  ? MANIFEST_NO_AGENT
                                 : device_is_forbidden(vm->devices[i]) ? -EACCES
                                                                       : -ENOTCONN;
                (void) snprintf(device->text, sizeof device->text, "%.199s",
                                device->status == MANIFEST_QUARANTINED ? device_quarantine(vm->devices[i])
                                                                       : device_text(vm->devices[i]));
                (void) snprintf(device->sysfs, sizeof device->sysfs, "%s", device_sysfs(vm->devices[i]));
                r = add_identity(vm, i, device);
                if (r == 0)
                        r = vm_add_said(vm, i, device);
        }
        if (r < 0) {
                manifest_deinit(&manifest);
                return r;
        }
        *ret = manifest;
        return 0;
}

/* ---- life ---------------------------------------------------------------------------------------------------- */

Vm *vm_free(Vm *vm)
{
        if (!vm)
                return NULL;
        vm_end_resets(vm);
        vm_end_clearing(vm);
        for (uint32_t i = 0; vm->devices && i < vm->definition->n_devices; i++)
                device_free(vm->devices[i]);
        free(vm->devices);
        vm_forget_plugins(vm);
        vmm_free(vm->vmm);
        loop_timer_free(vm->idle_timer);
        loop_timer_free(vm->again_timer);
        measured_deinit(&vm->measured);
        definition_free(vm->definition);
        free(vm);
        return NULL;
}

DEFINE_CLEANUP(Vm *, vm_free);

static int make_devices(Vm *vm)
{
        static const DeviceListener listener = {
                .gone = on_device_gone,
                .progress = on_device_progress,
                .dirty = on_device_dirty,
                .changed = on_device_changed,
                .wanted = on_device_wanted,
        };
        DevicePlace place = {vm->definition,
                             vm->vmm,
                             vm->host->loop,
                             vm->host->helper,
                             vm->host->parking,
                             vm->host->config.runtime_dir,
                             vm->host->config.connect_usec};
        uint32_t n = vm->definition->n_devices;
        int r = 0;

        vm->devices = calloc(n + 1, sizeof *vm->devices);
        vm->views = calloc(n + 1, sizeof *vm->views);
        if (!vm->devices || !vm->views)
                return -ENOMEM;
        for (uint32_t i = 0; i < n && r >= 0; i++)
                r = device_new(&place, &vm->definition->devices[i], i, &listener, vm, &vm->devices[i]);
        return r;
}

int vm_new(const Host *host, Definition *definition, Presence presence, VmChanged changed, void *userdata,
           Vm **ret)
{
        static const VmmListener listener = {on_vmm_answered, on_vmm_gone,     on_vmm_halted,
                                             on_vmm_resumed,  on_vmm_progress, on_vmm_device_reset};
        _cleanup_(vm_freep) Vm *vm = calloc(1, sizeof *vm);
        int r;

        if (!vm)
                return -ENOMEM;
        *vm = (Vm){.host = host,
                   .definition = definition,
                   .presence = presence,
                   .changed = changed,
                   .changed_userdata = userdata};
        r = loop_timer_new(host->loop, on_idle, vm, &vm->idle_timer);
        if (r >= 0)
                r = loop_timer_new(host->loop, on_again, vm, &vm->again_timer);
        if (r >= 0)
                r = vmm_new(host->loop, host->helper, definition, &listener, vm, &vm->vmm);
        if (r >= 0)
                r = make_devices(vm);
        if (r < 0) {
                vm->definition = NULL; /* stays the caller's */
                for (uint32_t i = 0; vm->devices && i < definition->n_devices; i++)
                        device_free(vm->devices[i]);
                free(vm->devices);
                vm->devices = NULL;
                free(vm->views);
                vm->views = NULL;
                return r;
        }
        *ret = TAKE_PTR(vm);
        return 0;
}
