/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A VM that is registered here, or for which a definition lies ready: its definition, presence, devices and VMM. Owned by
 * the manager; a job that moves it drives its devices and VMM and hears what they say. */

#include "core/check.h"
#include "device/device.h"
#include "host.h"
#include "measured.h"
#include "plugin/plugins.h"
#include "vmm/vmm.h"

typedef struct Vm Vm;
typedef struct VmReset VmReset;
typedef struct VmClearing VmClearing;

/* What the job in hand hears. `index` is that of the device in the definition. */
typedef struct VmListener {
        void (*device_gone)(void *userdata, uint32_t index, int status, const char *text);
        void (*device_progress)(void *userdata, uint32_t index, uint64_t bytes);
        void (*device_dirty)(void *userdata, uint32_t index, const AgentDirty *dirty, int fd);
        void (*vmm_answered)(void *userdata, uint32_t step, int status, const char *text);
        void (*vmm_gone)(void *userdata);
        void (*vmm_halted)(void *userdata, uint64_t usec);
        void (*vmm_resumed)(void *userdata);
        /* The VMM has reset that device behind our back. */
        void (*vmm_device_reset)(void *userdata, uint32_t index, const char *text);
        void (*vmm_progress)(void *userdata, uint64_t done_bytes, uint64_t total_bytes);
} VmListener;

/* Something that others show has changed. `index` -1: the VM, else a device. */
typedef void (*VmChanged)(void *userdata, Vm *vm, int32_t index);

/* All devices were tried; those that are open say so themselves. */
typedef void (*VmOpened)(void *userdata, Vm *vm);

#define VM_RESET_TEXT_MAX 512

/* A device was reset and runs: `text` says how; or why not. */
typedef void (*VmResetDone)(void *userdata, Vm *vm, uint32_t device, int status, const char *text);

struct Vm {
        Vm *next;
        const Host *host;
        Definition *definition;
        Presence presence;
        bool registered; /* false: only known from a file in vms.d, for as long as a peer asks about it */
        bool awaits_job; /* its record says that a job had not ended; who else wants it must wait for that one */
        Device **devices;
        PluginsView *views; /* of plugins, of each device: what they said when they were asked last */
        Vmm *vmm;
        Measured measured;          /* of its last good move from here */
        CheckPasses passes;         /* jobs that may bring it here */
        void *job;                  /* the job in hand (Job), or NULL */
        const VmListener *listener; /* its */
        LoopTimer *idle_timer;      /* devices opened only to answer a check are let go again */
        LoopTimer *again_timer; /* a device that a VMM uses has gone too soon to be opened again at once */
        uint32_t n_asking;      /* plugins are asked about its devices for a CHECK */
        uint32_t n_opening;    /* devices that are not open yet, nor given up, or that a job has taken over */
        uint32_t next_opening; /* the next one that is to be tried */
        uint32_t n_tried;      /* ... and those of them that are being tried */
        bool opens_supervised;
        VmOpened opened;
        void *opened_userdata;
        VmOpened found; /* as `opened`, of vm_find_devices(): whatever else is asked meanwhile */
        void *found_userdata;
        VmReset *resets; /* devices that are being reset */
        VmClearing *clearing;
        VmChanged changed;
        void *changed_userdata;
};

/* Takes `definition` over when it succeeds. */
int vm_new(const Host *host, Definition *definition, Presence presence, VmChanged changed, void *userdata,
           Vm **ret) _must_check_;
Vm *vm_free(Vm *vm);

/* Opens every device that is not; those that its VMM drives only if `supervised`, else one that a daemon before us has left open
 * is let go. */
void vm_open_devices(Vm *vm, bool supervised, VmOpened opened, void *userdata);
/* The same, those that its VMM drives left alone, after a start: nobody waits for it, and a job that wants the VM need not. */
void vm_find_devices(Vm *vm, VmOpened found, void *userdata);
/* Lets go of all of them. */
void vm_close_devices(Vm *vm);
/* Lets go of them after a while, unless a job has taken them. */
void vm_close_devices_later(Vm *vm);
void vm_keep_devices(Vm *vm);

/* What is known now. -ENOMEM. */
int vm_manifest(const Vm *vm, Manifest *ret) _must_check_;

/* The device of that id, or -1. */
int32_t vm_find_device(const Vm *vm, const char *id);

/* Nobody else may take it in hand now: a job has it, or will have it, or it is registered, looked at, or a device of it is
 * reset. */
bool vm_is_busy(const Vm *vm);

/* vm-plugins.c: what plugins are told of a device; texts are the VM's. */
typedef struct VmDescription {
        PluginDevice device;
        struct migmgr_text attributes[MIGMGR_ATTRIBUTES_MAX];
} VmDescription;

void vm_describe(const Vm *vm, uint32_t index, VmDescription *ret);
/* Whether there is a plugin that could be asked. */
bool vm_asks_plugins(const Vm *vm);
/* Has all plugins look at a device, into its view. `done` later, or not if the host's plugins_forget() is called with `userdata`
 * before. */
void vm_look_by_plugins(Vm *vm, uint32_t index, Side side, LoopCallback done, void *userdata);
/* Their facts and names. -E2BIG, -ENOMEM. */
int vm_add_said(const Vm *vm, uint32_t index, ManifestDevice *device) _must_check_;
void vm_forget_plugins(Vm *vm);
/* The most that those of this host may add to the blackout where all devices are asked at the same time, which is no bound: devices
 * that are asked in turns, or in different states of a phase, add theirs, and so do the destination's plugins. */
uint64_t vm_plugins_blackout_ms(const Vm *vm);

/* vm-reset.c: resets a device of a VM that is not busy, and has it run again. Answers once, later or at once; until then
 * the VM is busy. -ENOMEM. */
int vm_reset_device(Vm *vm, uint32_t device, VmResetDone done, void *userdata) _must_check_;

/* Why no job may use the device from now on, also after a restart; empty: one may. */
void vm_set_quarantine(Vm *vm, uint32_t device, const char *text);
/* The device is gone: who waits for its reset hears so. */
void vm_reset_gone(Vm *vm, uint32_t device, int status, const char *text);
void vm_end_resets(Vm *vm);

/* A job takes the VM in hand, or lets it go (NULL). */
void vm_set_job(Vm *vm, const VmListener *listener, void *job);
/* The job has ended: it lets the VM go, and the devices that the VMM drives. */
void vm_end_job(Vm *vm);

/* vm-gone.c: the VMM's process has ended. Our files of its own devices would keep these as it left them, and open: they are
 * reset, unless they stand in STOP, and closed. `done`, later or at once, when that is so, or after a second. */
int vm_clear_supervised(Vm *vm, LoopCallback done, void *userdata) _must_check_;
void vm_end_clearing(Vm *vm);
