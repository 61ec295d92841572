/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The inside of the manager, shared by its files: manager.c (VMs and jobs), manager-peer.c (other daemons),
 * manager-start.c (what the store knew). Nobody else includes this. */

#include "manager.h"

/* Of jobs that are over this many are listed without asking the store. */
#define JOBS_KEEP    64
#define HISTORY_KEEP 64

/* A control connection that another daemon made. */
typedef struct Caller Caller;
struct Caller {
        Caller *next;
        Manager *manager;
        Link *link;
};

/* A connection to another daemon, and the jobs that go there by its address. */
typedef struct Callee Callee;
struct Callee {
        Callee *next;
        Dialer *dialer;
};

/* Somebody waits for a check's report. */
typedef struct Check Check;
struct Check {
        Check *next;
        Job *job;
        ManagerChecked checked;
        void *userdata;
};

typedef struct History History;
struct History {
        History *next;
        char id[UUID_TEXT_MAX + 1];
        char *text;           /* job_summary() of it */
        json_object *summary; /* the same, parsed; NULL: nobody has asked yet */
};

/* The record of a job that had not ended when migmgrd was started (manager-start.c). */
typedef struct Pickup Pickup;

/* Somebody wants a VM whose job is ending. */
typedef struct Wait Wait;

/* So long: a record is written, or a copy let go of, and then the job ends. */
#define WAIT_USEC (2 * USEC_PER_SEC)

struct Manager {
        const Host *host;
        Vm *vms;
        void *by_uuid, *by_name; /* trees of them (search.h) */
        Job *jobs;
        Caller *callers;
        Callee *callees;
        Listener *listeners[1 + CONFIG_LISTEN_MAX]; /* peer.sock, and what migmgrd.json lists */
        uint32_t n_listeners;
        Pickup *pickups;    /* records of jobs that are not taken up again yet */
        uint32_t n_finding; /* VMs whose devices are looked for after the start */
        Check *checks;
        Wait *waits;
        History *history; /* newest first */
        const ManagerHooks *hooks;
        void *hooks_userdata;
};

extern const JobHooks manager_job_hooks;

/* manager.c */
int manager_add_vm(Manager *manager, Definition *definition, Presence presence, Vm **ret) _must_check_;
void manager_show_vm(Manager *manager, Vm *vm);
void manager_drop_vm(Manager *manager, Vm *vm);
void manager_add_job(Manager *manager, Job *job);
void manager_drop_job(Manager *manager, Job *job);
/* The newest so far; the oldest make room for it. */
void manager_add_history(Manager *manager, const char *id, const char *summary);

/* VM has a job, or is in hand otherwise: who has it, and what to do. Returns BUSY. */
Outcome manager_say_busy(const Vm *vm, char *ret_text);

/* manager-begin.c */
/* Calls `run`, once, when the VM's job has ended, or both ends know that, or after WAIT_USEC. */
void manager_wait(Manager *manager, const Vm *vm, LoopCallback run, void *userdata);
bool manager_is_awaited(Manager *manager, const char *vm_uuid);
void manager_vm_is_free(Manager *manager, const char *vm_uuid);
/* The daemon ends: nobody waits any longer. */
void manager_end_waits(Manager *manager);

/* manager-peer.c */
int manager_listen(Manager *manager) _must_check_;
void manager_send(void *userdata, Job *job, json_object *message);
Dialer *manager_dialer(Manager *manager, const char *address);
void manager_drop_idle_dialers(Manager *manager);
void manager_free_peers(Manager *manager);

/* manager-start.c: definitions that lie in vms.d and are not registered yet. */
void manager_look_at_files(Manager *manager);
/* Appends what is known of jobs that are not taken up again yet. */
void manager_list_pickups(const Manager *manager, json_object *array);
/* Whether all of them are, but those that are left alone. */
bool manager_knows_all(const Manager *manager);
bool manager_has_pickup(const Manager *manager, const char *job);
void manager_free_pickups(Manager *manager);
