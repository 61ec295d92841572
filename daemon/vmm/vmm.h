/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* How the daemon reaches a VMM: one interface, one file for each adapter behind it.
 *
 * Owned by its VM. An act (daemon/core/half.h says what each means) is answered once through the listener with the
 * step that it was given; a newer act takes the place of an older one, which is then not answered. An adapter decides
 * nothing: it does what it is asked in its VMM's way and says what came of it, confirmed by the VMM and not assumed.
 */

#include "common/process-id.h"
#include "daemon/core/device-memory.h"
#include "daemon/core/half.h"
#include "daemon/definition.h"
#include "daemon/helper-client.h"
#include "daemon/loop.h"

typedef struct Vmm Vmm;

typedef struct VmmListener {
        void (*answered)(void *userdata, uint32_t step, int status, const char *text);
        /* Its process is gone. */
        void (*gone)(void *userdata);
        /* Source: the vCPUs stand since `usec` (CLOCK_MONOTONIC); the blackout has begun. Said again, up to VMM_ACT_END, where it
         * turns out to have begun sooner. */
        void (*halted)(void *userdata, uint64_t usec);
        /* Source: the vCPUs run, and nobody here asked for it. */
        void (*resumed)(void *userdata);
        void (*progress)(void *userdata, uint64_t done_bytes, uint64_t total_bytes);
        /* It has reset a device of its own behind our back: what that device held is lost. */
        void (*device_reset)(void *userdata, const char *vmm_device, const char *text);
} VmmListener;

/* What can be seen of the VMM right now, for a daemon that has restarted. */
typedef struct VmmSight {
        bool lives, runs, complete;
} VmmSight;
typedef void (*VmmSeen)(void *userdata, const VmmSight *sight);
/* `status`: 0 when the VM's process is there and answers. */
typedef void (*VmmFound)(void *userdata, int status, const char *text);

/* Where a device is that the VMM calls by a name of its own. */
typedef struct VmmDevice {
        int fd;            /* its file, if the VMM gives it away; taken over; else -1, and: */
        ProcessId process; /* who has it open */
        char sysfs[VMM_SYSFS_MAX +
                   1];     /* its directory, below /sys/bus/pci/devices or /sys/bus/mdev/devices */
        uint32_t n_memory; /* with a file: what the VMM has mapped for it */
        DeviceMemory memory[DEVICE_MEMORY_MAX];
} VmmDevice;
/* `status` 0, or a negative errno and `text`, for people. */
typedef void (*VmmDeviceFound)(void *userdata, int status, const VmmDevice *device, const char *text);

typedef struct VmmOps {
        void (*find)(Vmm *vmm, VmmFound found, void *userdata);
        void (*see)(Vmm *vmm, const ProcessId *was, VmmSeen seen, void *userdata);
        void (*act)(Vmm *vmm, VmmAct act, uint32_t step, uint64_t deadline_usec);
        void (*take_dirty)(Vmm *vmm, uint64_t address, uint64_t page_size, uint64_t pages, int fd);
        void (*give_memory)(Vmm *vmm, int fd);
        void (*cut_memory)(Vmm *vmm);
        Vmm *(*free)(Vmm *vmm);
        void (*find_device)(Vmm *vmm, const char *vmm_device, VmmDeviceFound found, void *userdata);
        void (*forget_device)(Vmm *vmm, void *userdata);
        DeviceIsolation (*isolation)(const Vmm *vmm,
                                     const DeviceDefinition *device); /* NULL: it never says */
} VmmOps;

/* What whoever asked for the job allows. 0: as the VMM thinks best. */
typedef struct VmmLimits {
        uint64_t bandwidth; /* bytes/s that its memory may take of the link */
        uint64_t blackout_usec;
        /* Its own devices are taken through the states together by us, not by it one after the other: */
        bool grace; /* VMM_ACT_MIGRATE ends, and its migration is held, when all can go to P2P while the vCPUs run */
        bool push; /* VMM_ACT_HALT and _ARRIVE end as soon as it has said of all that they are in P2P */
        bool p2p;  /* they all have the P2P states: whoever says RUNNING without them was reset */
} VmmLimits;

struct Vmm {
        const VmmOps *ops;
        const Definition *definition;
        Loop *loop;
        HelperClient *helper;
        const VmmListener *listener;
        void *userdata;
        ManifestVmm facts;           /* as of the last VMM_ACT_LOOK; type is always there */
        ProcessId process;           /* pid 0: none, or not known */
        char job[UUID_TEXT_MAX + 1]; /* the job in hand, or the last one */
        VmmLimits limits;
        bool has_memory;     /* it moves memory over a connection that it must be given */
        bool may_come_later; /* a VM that is here may be registered before its VMM is there (-ENOENT) */
        bool asked;          /* vmm_find() or vmm_see() is under way: one at a time */
};

int vmm_new(Loop *loop, HelperClient *helper, const Definition *definition, const VmmListener *listener,
            void *userdata, Vmm **ret) _must_check_;

static inline Vmm *vmm_free(Vmm *vmm)
{
        return vmm ? vmm->ops->free(vmm) : NULL;
}

/* Whether the VM's process is here. Only when nothing else is being asked (`asked`). */
static inline void vmm_find(Vmm *vmm, VmmFound found, void *userdata)
{
        vmm->asked = true;
        vmm->ops->find(vmm, found, userdata);
}

/* The same for a process that is known from a record: it is the VM's only if it is exactly that one. */
static inline void vmm_see(Vmm *vmm, const ProcessId *was, VmmSeen seen, void *userdata)
{
        vmm->asked = true;
        vmm->ops->see(vmm, was, seen, userdata);
}

/* Of which job the acts are that follow, and what vmm_see() looks for. `job`: a UUID. */
static inline void vmm_set_job(Vmm *vmm, const char *job)
{
        memcpy(vmm->job, job, sizeof vmm->job);
}

/* For the job in hand; before VMM_ACT_PREPARE, VMM_ACT_START. */
static inline void vmm_set_limits(Vmm *vmm, const VmmLimits *limits)
{
        vmm->limits = *limits;
}

static inline void vmm_act(Vmm *vmm, VmmAct act, uint32_t step, uint64_t deadline_usec)
{
        vmm->ops->act(vmm, act, step, deadline_usec);
}

/* Source, between VMM_ACT_HALT and VMM_ACT_SEAL: a device has written to these pages of guest memory, and they are to be
 * sent with the rest. `fd`, which is taken over: a file of little-endian u64 words, bit i is the page at `address` +
 * i * `page_size`. What goes wrong is the answer of VMM_ACT_SEAL, which waits for it. Only where the facts say
 * `takes_dirty_pages`. */
static inline void vmm_take_dirty(Vmm *vmm, uint64_t address, uint64_t page_size, uint64_t pages, int fd)
{
        vmm->ops->take_dirty(vmm, address, page_size, pages, fd);
}

/* The connection over which memory goes out or comes in; takes over `fd`. */
static inline void vmm_give_memory(Vmm *vmm, int fd)
{
        vmm->ops->give_memory(vmm, fd);
}

/* Ends that connection for both VMMs, whatever they are doing with it. */
static inline void vmm_cut_memory(Vmm *vmm)
{
        vmm->ops->cut_memory(vmm);
}

/* Finds a device of the VMM, beside any act; answered once, at once or later, unless it is forgotten. NULL in `ops`: the
 * VMM has no devices of its own. */
void vmm_find_device(Vmm *vmm, const char *vmm_device, VmmDeviceFound found, void *userdata);
/* Whoever asked with that userdata is gone. */
void vmm_forget_device(Vmm *vmm, void *userdata);

/* What it has said, when it was looked at last, of who else can reach that device's BARs. */
static inline DeviceIsolation vmm_isolation(const Vmm *vmm, const DeviceDefinition *device)
{
        return vmm->ops->isolation ? vmm->ops->isolation(vmm, device) : DEVICE_ISOLATION_UNKNOWN;
}

/* The adapters. */
int vmm_none_new(Loop *loop, Vmm **ret) _must_check_;
int vmm_qemu_new(Loop *loop, Vmm **ret) _must_check_;
int vmm_delegate_new(Loop *loop, Vmm **ret) _must_check_;
