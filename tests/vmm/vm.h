/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A virtual machine: memory, devices and one vCPU, a thread that runs the guest.
 *
 * All functions are called from one thread. The vCPU stops between two micro-steps only: an access that is open is
 * waited for, and what it brought is in the memory then. So what moves is the memory, the devices, and the
 * interrupts that the guest has not taken yet.
 */

#include "guest.h"
#include "tests/device/worker-model.h"

#define VM_DEVICES_MAX GUEST_DEVICES_MAX

typedef struct VmConfig {
        const char *uuid;
        uint64_t memory_bytes;
        unsigned n_devices;
        struct {
                char id[DEVICE_ID_MAX + 1];
                const char *path; /* of the server's socket */
        } devices[VM_DEVICES_MAX];
        bool viommu;           /* see Ram.vcpus_serve */
        uint64_t rest_usec;    /* between two steps of the guest */
        uint64_t connect_usec; /* how long servers that do not listen yet are waited for */
} VmConfig;

/* Where devices find each other's memory: the mailbox of device i. Behind the lower part of the guest's memory. */
#define VM_MAILBOX_ADDRESS(i) (UINT64_C(0xc0000000) + (i) *WORKER_MAILBOX_SIZE)

typedef struct Vcpu Vcpu;

typedef struct Vm {
        const VmConfig *config; /* outlives it */
        Ram *ram;
        Device *devices[VM_DEVICES_MAX];
        unsigned n_devices;
        Guest guest;
        Vcpu *vcpu;
} Vm;

/* Makes the VM, with its devices connected and set up, and its vCPU standing. Takes as long as the servers do;
 * -ECANCELED as soon as `cancel_fd` is readable. `notify_fd`, an eventfd, is signalled when the vCPU has stopped. On
 * failure `text` says what went wrong. */
int vm_new(const VmConfig *config, int cancel_fd, int notify_fd, Vm **ret, char *text,
           size_t size) _must_check_;

/* Ends it, whatever it is doing. */
Vm *vm_free(Vm *vm);
DEFINE_CLEANUP(Vm *, vm_free);

/* The vCPU runs. */
void vm_run(Vm *vm);

/* The vCPU stops soon, and notify_fd says when. */
void vm_stop(Vm *vm);

/* Whether it stands, and since when (CLOCK_MONOTONIC). */
bool vm_stands(Vm *vm, uint64_t *ret_usec);
