/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* org.migmgr1.Delegate: the VM as migmgr drives it (docs/dbus/org.migmgr1.Delegate.xml).
 *
 * Owns the VM of this process, when there is one. A method that takes time is begun and answered when a thread says
 * that it has ended; asked again meanwhile, it is not begun again, and all who asked get the same answer. So
 * migmgrd may die at any moment, come back and ask again.
 */

#include <systemd/sd-bus.h>
#include <systemd/sd-event.h>

#include "vm.h"

typedef struct DelegateConfig {
        const char *bus_address, *bus_name, *object_path;
        bool takes_dirty_pages;
        const char
                *isolated[VM_DEVICES_MAX + 1]; /* says that no other device reaches these; ends with NULL */
        unsigned n_isolated;
        unsigned n_kernel;
        struct {
                char id[DEVICE_ID_MAX + 1];
                int fd; /* open as long as this process lives */
        } kernel[VM_DEVICES_MAX];
        VmConfig vm;
} DelegateConfig;

/* What tests can't bring about otherwise. */
typedef struct DelegateFaults {
        char fail[32]; /* the next call of that method fails */
        char hang[32]; /* that method is not answered for now */
        bool never_converges;
        bool ignores_dirty_pages;
} DelegateFaults;

typedef struct Delegate Delegate;

/* `boots`: makes the VM and lets its guest run; takes as long as its device servers need, or until `cancel_fd` is
 * readable. Else there is none until Prepare(destination). Logs what goes wrong. The configuration outlives it. */
int delegate_new(sd_event *event, const DelegateConfig *config, bool boots, int cancel_fd,
                 Delegate **ret) _must_check_;
Delegate *delegate_free(Delegate *delegate);
DEFINE_CLEANUP(Delegate *, delegate_free);

/* For the control socket. */
const char *delegate_state(const Delegate *delegate);
const char *delegate_job(const Delegate *delegate);
Vm *delegate_vm(const Delegate *delegate); /* or NULL */
DelegateFaults *delegate_faults(Delegate *delegate);
/* After a change of them. */
void delegate_faults_changed(Delegate *delegate);

/* The VM goes on by itself, as a VMM's user may tell it to. -EINVAL: it does not stand, or is sealed. */
int delegate_resume_by_itself(Delegate *delegate) _must_check_;
