/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The registry: VMs, jobs and connections to other daemons, and who belongs to whom. What the bus asks comes in here;
 * what peers say is led to the job it is about. Owned by main. */

#include "job.h"
#include "peer/dialer.h"
#include "peer/listener.h"

typedef struct Manager Manager;

/* What the bus shows. */
typedef struct ManagerHooks {
        void (*vm_added)(void *userdata, Vm *vm);
        void (*vm_removed)(void *userdata, Vm *vm);
        void (*vm_changed)(void *userdata, Vm *vm, int32_t device);
        /* Once: what was there before the start is found, or given up. */
        void (*started)(void *userdata);
        void (*job_added)(void *userdata, Job *job);
        void (*job_removed)(void *userdata, Job *job);
        void (*job_changed)(void *userdata, Job *job, bool entered);
        void (*job_device_changed)(void *userdata, Job *job, uint32_t device);
} ManagerHooks;

int manager_new(const Host *host, Manager **ret) _must_check_;
Manager *manager_free(Manager *manager);
void manager_set_hooks(Manager *manager, const ManagerHooks *hooks, void *userdata);

/* Reads what the store knows, takes up the jobs that had not ended, and listens for peers. */
int manager_start(Manager *manager) _must_check_;

/* `outcome` NONE and the VM, or what is wrong. */
typedef void (*ManagerRegistered)(void *userdata, Outcome outcome, const char *text, Vm *vm);

/* `incoming`: the VM is to come here. Else it must be here: its monitor answers, its devices can be reached. */
void manager_register(Manager *manager, const char *definition, bool incoming, ManagerRegistered registered,
                      void *userdata);

/* NONE, or what is wrong. BUSY, too, as long as another host may not know how a job of the VM has ended: at once when it is not
 * connected, else when it has not said so for a moment. */
typedef void (*ManagerUnregistered)(void *userdata, Outcome outcome, const char *text);
void manager_unregister(Manager *manager, Vm *vm, ManagerUnregistered unregistered, void *userdata);

/* NONE, or what is wrong, with `ret_text` (JSON_TEXT_MAX bytes). */
Outcome manager_cancel(Manager *manager, Job *job, char *ret_text);
Outcome manager_resolve(Manager *manager, Job *job, Resolve how, char *ret_text);

/* The job, when the outcome is NONE; else what is wrong. Now, or when the job with which the VM has just come here is over. */
typedef void (*ManagerBegun)(void *userdata, Outcome outcome, const char *text, Job *job);
void manager_migrate(Manager *manager, Vm *vm, const char *destination, const JobOptions *options,
                     ManagerBegun begun, void *userdata);

/* Resets a device of a VM that is here and that no job moves; its state is lost. `done` is called when the outcome is NONE. */
Outcome manager_reset(Manager *manager, Vm *vm, const char *device, VmResetDone done, void *userdata,
                      char *ret_text);

/* `report`: what job_report() makes, NULL when the outcome is not NONE; lives until the callback returns. */
typedef void (*ManagerChecked)(void *userdata, Outcome outcome, const char *text, bool ok,
                               json_object *report);
void manager_check(Manager *manager, Vm *vm, const char *destination, const JobOptions *options,
                   ManagerChecked checked, void *userdata);

/* By UUID or name; NULL. */
Vm *manager_find_vm(Manager *manager, const char *name);
Vm *manager_find_uuid(Manager *manager, const char *uuid);
Job *manager_find_job(Manager *manager, const char *id);
Vm *manager_first_vm(Manager *manager);

/* What its record says of a job that is not taken up again yet, as JSON; NULL: there is none of that UUID. */
json_object *manager_show_pickup(Manager *manager, const char *job);

/* Those of this run and of earlier ones that are still known, newest first: [job_summary()], or what a record says. */
json_object *manager_list_jobs(Manager *manager);
