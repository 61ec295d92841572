/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The D-Bus API: org.migmgr1. The contract is docs/dbus/; a test compares the running daemon with it.
 *
 * A method reads its arguments, has the caller authorised, calls the manager, and replies, at once or later. Nothing is
 * decided here. Owned by main.
 */

#include "daemon/manager.h"

typedef struct Bus Bus;

/* Connects, takes the name and shows what the manager has. -EEXIST: another migmgrd has the name. */
int bus_new(const Host *host, Manager *manager, LoopCallback on_end, void *userdata, Bus **ret) _must_check_;
Bus *bus_free(Bus *bus);

/* ---- between the bus' own files ------------------------------------------------------------------------------ */

#define BUS_NAME     "org.migmgr1"
#define BUS_ROOT     "/org/migmgr1"
#define BUS_PATH_MAX 512
#define BUS_TEXT_MAX 1024

#define ACTION_MANAGE "org.migmgr1.manage"

struct Bus {
        const Host *host;
        Manager *manager;
        sd_bus *bus;
        struct JobView *views; /* job.c */
        bool heard;            /* somebody may know what there was a moment ago: changes of VMs are told */
};

/* A method whose caller may do it. Replies, or lets reply later; holds a reference as long as it needs one. */
typedef void (*BusMethod)(Bus *bus, sd_bus_message *m);

/* Has `method` called once the caller is known to be uid 0, us, or allowed by polkit; replies Denied else. Returns what
 * a vtable's handler returns. */
int bus_authorise(Bus *bus, sd_bus_message *m, const char *action, BusMethod method);

/* Replies with an error of ours. */
void bus_reply_error(Bus *bus, sd_bus_message *m, Outcome outcome, const char *text);
/* Replies as `types` and what follows say. */
void bus_reply(Bus *bus, sd_bus_message *m, const char *types, ...);

/* Options a{sv}: fills `options` and `incoming` where they are not NULL; an option that is not known is an error. */
int bus_read_options(sd_bus_message *m, JobOptions *options, bool *incoming, char *ret_text) _must_check_;

/* policy.c: methods of the manager about policies. */
int bus_list_policies(sd_bus_message *m, void *userdata, sd_bus_error *error);
int bus_show_policy(sd_bus_message *m, void *userdata, sd_bus_error *error);
int bus_check_policy(sd_bus_message *m, void *userdata, sd_bus_error *error);
int bus_explain_policy(sd_bus_message *m, void *userdata, sd_bus_error *error);
int bus_reload_policies(sd_bus_message *m, void *userdata, sd_bus_error *error);

/* manager.c: the VM of that name or UUID that is registered here, or NULL: an error was replied. */
Vm *bus_find_vm(Bus *bus, sd_bus_message *m, const char *name);

void bus_vm_path(const char *uuid, char ret[BUS_PATH_MAX]);
void bus_device_path(const char *uuid, const char *id, char ret[BUS_PATH_MAX]);
void bus_job_path(const char *id, char ret[BUS_PATH_MAX]);

int bus_add_manager(Bus *bus) _must_check_;
int bus_add_vms(Bus *bus) _must_check_;
int bus_add_devices(Bus *bus) _must_check_;
int bus_add_jobs(Bus *bus) _must_check_;
void bus_drop_views(Bus *bus);

/* Hooks of the manager. */
void bus_job_added(void *userdata, Job *job);
void bus_job_removed(void *userdata, Job *job);
void bus_job_changed(void *userdata, Job *job, bool entered);
void bus_job_device_changed(void *userdata, Job *job, uint32_t device);
void bus_vm_added(void *userdata, Vm *vm);
void bus_vm_removed(void *userdata, Vm *vm);
void bus_vm_changed(void *userdata, Vm *vm, int32_t device);
void bus_started(void *userdata);
