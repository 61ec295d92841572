/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A job: one migration as this daemon carries it out, with its half of the state machine (core/half.h).
 *
 * The half decides, the job does. Every event goes through job_post(): the half takes one step, and what it asks for is
 * performed: devices and VMM are commanded through the VM, records written, messages sent, the timer set. What comes
 * of that returns as the next event. Owned by the manager; files: job.c (events and effects), job-peer.c (messages),
 * job-data.c (data connections), job-measure.c (when and how long), job-check.c (what check reports), job-report.c (what people are
 * told), job-resolve.c (what a person can decide), job-history.c (what is kept of it).
 */

#include "common/outcome.h"
#include "core/check.h"
#include "core/half.h"
#include "peer/data-dial.h"
#include "fence.h"
#include "timeline.h"
#include "vm.h"

typedef struct Job Job;

typedef struct JobHooks {
        /* Sends to the other half; takes `message` over; it is lost when there is no connection. */
        void (*send)(void *userdata, Job *job, json_object *message);
        /* Something that others show has changed; `entered`: its half is in another state. */
        void (*changed)(void *userdata, Job *job, bool entered);
        void (*device_changed)(void *userdata, Job *job, uint32_t device);
        /* It is over for whoever asked for it; the record's end may still have to be acknowledged. */
        void (*finished)(void *userdata, Job *job);
        /* Both ends know the end: the job may be freed, from a clean stack. */
        void (*closed)(void *userdata, Job *job);
} JobHooks;

/* Plugins that are asked about a device's command; job-plugin.c. */
typedef struct JobPlug {
        Job *job;
        uint32_t index; /* the device's, in the plan */
        HalfEffect effect;
        HalfEvent event; /* the device's answer, which waits for them */
        uint64_t began_usec;
        DeviceState from;
        bool tried; /* again, as one of them advised */
        PluginCall call;
        Phase phase;
        uint64_t spent_usec[PLUGIN_CALL_MAX]; /* in this phase */
} JobPlug;

typedef struct JobDevice {
        int32_t vm_index; /* in the VM's definition */
        uint64_t bytes;   /* of its state that have moved */
        uint8_t token[HELLO_TOKEN_SIZE];
        bool has_token; /* destination: waits for its connection; source: was given it */
        DataDial *dial;
        DeviceProgram program;     /* what it was asked last */
        char text[AGENT_TEXT_MAX]; /* what it said last when something failed */
        bool noted;                /* in the history, with this state */
        DeviceState noted_state;
        JobPlug plug;
} JobDevice;

/* What is needed to say how long the blackout was, and who was waited for. */
typedef struct JobClock {
        uint64_t start_usec;  /* CLOCK_MONOTONIC: the job's time 0 */
        uint64_t state_usec;  /* the half's state was entered */
        uint64_t others_usec; /* the last answer in this state of anybody but a VMM */
        bool noted;           /* the state that is being left is in the timeline already */
        uint64_t blackout_start_usec, blackout_end_usec; /* 0: not yet */
        uint64_t vmm_only_usec;                          /* in the blackout: only a VMM was awaited */
        uint32_t reported;                               /* destination: spans that were sent already */
} JobClock;

/* What the operator bounds. 0: nothing. At both halves: PREPARE has them. */
typedef struct JobLimits {
        uint64_t bandwidth; /* bytes per second, of memory and device state together */
        uint64_t max_blackout_usec;
} JobLimits;

/* No number that is kept here is larger: JSON has signed ones. */
#define JOB_LIMIT_MAX INT64_MAX

struct Job {
        Job *next;
        const Host *host;
        const JobHooks *hooks;
        void *userdata;
        char id[UUID_TEXT_MAX + 1];
        char request_id[128]; /* of whoever asked; empty: none */
        Vm *vm;               /* NULL when the VM was unregistered after the end */
        char vm_uuid[UUID_TEXT_MAX + 1], vm_name[VM_NAME_MAX + 1];
        char peer[128];                    /* source: address; destination: host id of the source */
        uint64_t created_usec, ended_usec; /* CLOCK_REALTIME */
        JobLimits limits;

        Half *half;
        Plan plan;
        char *policy; /* owned; what the plan took from policies, for the record */
        HalfEffects effects;
        HalfEvent *queue; /* events that came while one was being performed */
        uint32_t n_queue, queue_room;
        bool performing, finished, closed;
        bool error_noted; /* in the history */
        HalfState seen_state;
        LoopTimer *timer, *timeout, *blackout_timer, *post_timer;
        bool watches_blackout;

        uint32_t n_devices;
        JobDevice *devices;
        const char **ids; /* of the devices, in the plan's order */
        uint8_t memory_token[HELLO_TOKEN_SIZE];
        bool has_memory_token, wants_memory;
        DataDial *memory_dial;
        uint32_t n_dialing, connect_step;

        uint64_t vmm_done_bytes, vmm_total_bytes;
        Fence *fence; /* that runs, or has run last */
        uint32_t fence_step;
        uint32_t n_writes; /* of its record, that have not ended */
        char fence_text[JSON_TEXT_MAX];
        char vmm_text[JSON_TEXT_MAX], peer_text[JSON_TEXT_MAX], record_text[JSON_TEXT_MAX];
        json_object *findings;               /* of check, from both sides */
        json_object *steps;                  /* that it took in this run of the daemon */
        bool restored;                       /* it took others before */
        uint32_t more_findings;              /* that the destination has, and has not sent */
        json_object *peer_host;              /* what it is, or NULL: it did not look */
        char peer_device[DEVICE_ID_MAX + 1]; /* what FAILED named */
        bool peer_lost;                      /* STARTED says that devices have lost their state */
        uint64_t predicted_usec;

        Timeline timeline;
        JobClock clock;
};

typedef struct JobOptions {
        uint64_t timeout_usec; /* 0: none */
        JobLimits limits;
        bool check_only;
        const char *request_id; /* or NULL */
} JobOptions;

/* A job that moves `vm` to `address`, or only asks whether it could. It starts with job_start(). */
int job_new_source(const Host *host, const JobHooks *hooks, void *userdata, Vm *vm, const char *address,
                   const JobOptions *options, Job **ret) _must_check_;

/* The other half, for PREPARE from host `source_id`. -EBADMSG: the message makes no sense; `ret_text` (JSON_TEXT_MAX
 * bytes) says why. */
int job_new_destination(const Host *host, const JobHooks *hooks, void *userdata, Vm *vm,
                        const char *source_id, const char *id, json_object *prepare, char *ret_text,
                        Job **ret) _must_check_;

/* A job that a record tells of, after a restart, with what can be seen of its VM. `superseded`: the VM has had a newer
 * job since. */
int job_new_restored(const Host *host, const JobHooks *hooks, void *userdata, Vm *vm, const Record *record,
                     const VmmSight *sight, bool superseded, Job **ret) _must_check_;

Job *job_free(Job *job);

/* Begins. `linked`: there is a control connection. */
void job_start(Job *job, bool linked);

void job_linked(Job *job);
void job_cut(Job *job, const char *text);
void job_message(Job *job, Message type, json_object *body);

/* A data connection with a token. Takes `fd` over and returns true if it is one of this job's. */
bool job_data(Job *job, const Hello *hello, int fd);

/* 0, or HALF_E_TOO_LATE. */
int job_cancel(Job *job) _must_check_;

/* A person's word. 0, or HALF_E_FORBIDDEN. */
int job_resolve(Job *job, Resolve how) _must_check_;

/* job-resolve.c: whether that may be said now; and what would come of it, or why not. */
bool job_may_resolve(const Job *job, Resolve how);
const char *job_resolve_text(const Job *job, Resolve how);
/* It has ended, as the word says, but the other half has not acknowledged that and is not connected; then, for a person says that its
 * host is gone for good: as if it had. The half has no part in it: no owner changes. */
bool job_may_give_up(const Job *job, Resolve how);
void job_give_up(Job *job);
/* [{"how", "allowed", "text"}]; empty when there is nothing to decide. */
json_object *job_choices(const Job *job);

/* What it looks like. */
Side job_side(const Job *job);
JobState job_state(const Job *job);
JobResult job_result(const Job *job);
Phase job_phase(const Job *job);
const char *job_owner(const Job *job);
/* What went wrong: the outcome, and a text that says which VM, which device, what, and what to do; or NONE and "". */
Outcome job_error(const Job *job, char *ret, size_t size);
uint64_t job_blackout_usec(const Job *job);
/* "owned", or "supervised": docs/dbus/org.migmgr1.Device.xml. */
const char *job_device_mode(const Job *job, uint32_t device);
DeviceState job_device_state(const Job *job, uint32_t device);
/* It is known where the VM runs, and where it does not: records and the processes that are left behind are all it waits
 * for. */
bool job_is_decided(const Job *job);
/* Everything, for `migctl show` and the history. */
json_object *job_to_json(const Job *job);
/* A line's worth of it. */
json_object *job_summary(const Job *job);
/* What check has to say: docs/dbus/org.migmgr1.Manager.xml. */
json_object *job_report(const Job *job);

/* ---- between the job's own files ----------------------------------------------------------------------------- */

void job_post(Job *job, const HalfEvent *event);

/* Of what is known of VM and devices now. */
int job_make_plan(Job *job) _must_check_;

/* Gives the device its command. */
void job_run_device(Job *job, const HalfEffect *effect);

/* job-plugin.c. True: plugins are asked first, and it goes on by itself. */
bool job_ask_before(Job *job, const HalfEffect *effect);
bool job_ask_after(Job *job, const HalfEvent *event);
void job_forget_plugins(Job *job);
/* What plugins of this side have against it. */
void job_add_plugin_findings(Job *job);

/* job-peer.c */
void job_send(Job *job, const HalfEffect *effect);
json_object *job_plan_json(const Job *job);

/* job-data.c */
void job_connect(Job *job, const HalfEffect *effect);
int job_make_tokens(Job *job) _must_check_;
void job_add_tokens(Job *job, json_object *message);
bool job_take_tokens(Job *job, json_object *message);
void job_drop_data(Job *job);

/* job-measure.c */
void job_measure_begin(Job *job);
void job_measure_state(Job *job, HalfState to);
void job_measure_device(Job *job, uint32_t device, const AgentResultPacket *result);
void job_measure_vmm(Job *job, int status);
void job_take_measures(Job *job, JsonReader *reader, json_object *message);
void job_measure_halted(Job *job, uint64_t usec);
/* Destination: what the source is told with READY, REACHED and STARTED. */
void job_add_measures(Job *job, json_object *message);
uint64_t job_vmm_only_usec(const Job *job);

/* job-history.c */
void job_note_step(Job *job);
void job_note_end(Job *job);
/* What the store has of a job that is over (store_find_job()), which may be anything: as job_to_json() has it, with its steps, or
 * NULL where the report is none; and the steps alone, none where they can't be read. `list` may be NULL. */
json_object *job_of_history(const char *report, const char *list);
json_object *job_steps_of_history(const char *list);
/* job-check.c */
/* How long the VM will stand still; 0: nobody knows. */
uint64_t job_predict(const Job *job, const Manifest *manifest);
/* What a host is, for the report. */
json_object *job_host_json(const Manifest *manifest);

/* job-report.c */
/* The plan that the run has, with the devices of each phase. */
json_object *job_plan_report(const Job *job);
void job_log_change(const Job *job, HalfState from, HalfState to);
/* With migmgrd --debug: what has come, and what the half asks for. */
void job_log_event(const Job *job, const HalfEvent *event);
void job_log_effect(const Job *job, const HalfEffect *effect);
