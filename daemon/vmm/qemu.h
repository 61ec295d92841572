/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The inside of the QEMU adapter, shared by its files: qemu.c (connection, acts, the process), qemu-facts.c (look),
 * qemu-source.c and qemu-destination.c, qemu-devices.c (what it says of its own devices), qemu-find.c (where they are),
 * qemu-hold.c (threads of it that stand). Nobody else includes this.
 *
 * One act at a time. What an act still waits for when a newer one begins is forgotten: its answers are recognised by
 * their serial number and dropped.
 */

#include "qmp.h"
#include "vmm.h"

typedef struct Qemu Qemu;

typedef void (*QemuStep)(Qemu *q);
typedef void (*QemuAnswer)(Qemu *q, int status, json_object *result, const char *text);

/* Which way its own devices go: what they say means different things. */
typedef enum QemuCourse {
        QEMU_COURSE_NONE,
        QEMU_COURSE_LEAVING, /* it migrates, and nothing has ended that yet */
        QEMU_COURSE_BACK, /* its migration is ended, and has it run again: only its log tells what comes of that */
        QEMU_COURSE_RUNNING, /* it was told to run, its devices being in STOP or RESUMING */
} QemuCourse;

/* A device of its own that the definition names. */
typedef struct QemuDevice {
        const char *id;            /* of the definition: its vmm-device */
        char name[64];             /* what its log calls it; empty: not known */
        uint32_t said;             /* QEMU_SAID() of what it was, since the course began */
        bool was_reset;            /* told already */
        bool exists;               /* as of the last VMM_ACT_LOOK, */
        DeviceIsolation isolation; /* and this, too */
} QemuDevice;

/* Sets of DeviceState, a bit each. */
#define QEMU_SAID(state) (UINT32_C(1) << (state))
#define QEMU_SAID_P2P    (QEMU_SAID(DEVICE_STATE_RUNNING_P2P) | QEMU_SAID(DEVICE_STATE_PRE_COPY_P2P))

typedef struct QemuFind QemuFind;

struct Qemu {
        Vmm vmm;
        Qmp *qmp;
        LoopTimer *connect_timer; /* tries again: the monitor is not there yet */
        QemuStep connected;       /* what goes on when it is there */
        int pidfd;
        LoopIo *pid_io;
        int memory_fd; /* our duplicate of the connection over which memory moves, or -1 */

        VmmAct act;
        uint32_t step, serial;
        uint64_t until_usec; /* of the act; USEC_INFINITY: none */
        LoopTimer *deadline, *poll, *lingering;
        QemuStep polled;
        QemuStep on_migration; /* the act in hand listens to MIGRATION events */
        QemuStep on_devices;   /* and to those of its devices */
        char migration[24];    /* status in the last MIGRATION event */
        char doing[96];        /* what the act waits for, for people */
        int status;            /* what came of the act in hand */
        char text[JSON_TEXT_MAX];

        VmmFound found;
        VmmSeen seen; /* never both */
        void *found_userdata;
        LoopTimer *lost; /* the two above are to be told that there is no monitor */
        int lost_status;
        char lost_text[JSON_TEXT_MAX];
        ProcessId was;

        uint32_t fact;                                      /* of VMM_ACT_LOOK */
        json_object *saved_capabilities, *saved_parameters; /* as they were before us */
        bool saved; /* this process saved them; another life of it may have changed them */

        QemuDevice *devices; /* made when first needed */
        uint32_t n_devices;
        QemuCourse course;
        bool stood;              /* the listener knows that the vCPUs stand */
        uint64_t completed_usec; /* CLOCK_MONOTONIC, of the last MIGRATION event that said so */
        bool continuing;         /* `cont` was sent and is not answered yet */
        bool continued;          /* it was answered: yes */
        int log_fd;              /* what it prints, if we have started it; else -1 */
        off_t log_from;          /* what is before was there before the course began */
        QemuFind *finds;
        uint32_t fact_device;

        QemuAnswer capabilities_set; /* who waits for that, */
        bool capabilities_on;        /* which way, */
        bool has_ack;                /* and whether it waits for an acknowledgement before it halts */

        int hold_fd; /* its migration thread stands, or its vCPUs, until this is closed; or -1 */
        LoopIo *hold_io;
        bool hold_asked, hold_stands;
        bool hold_ended; /* the vCPUs have ended, and were held to their end */
        bool has_kvm;
        uint32_t hold_tries;
        bool braked; /* it sends so slowly that it can't come to an end */
        bool graced; /* that has been tried, for this job */
};

/* Sends a command of the act in hand. `arguments` may be NULL. */
void qemu_call(Qemu *q, const char *command, json_object *arguments, int fd, QemuAnswer answer);

/* The same out of band: answered even while QEMU stands in a write. Only over a monitor that can. */
bool qemu_has_oob(const Qemu *q);
void qemu_call_oob(Qemu *q, const char *command, json_object *arguments, QemuAnswer answer);

/* The act is done; does nothing when it is not in hand any more. */
void qemu_done(Qemu *q, int status, const char *format, ...) _printf_(3, 4);

/* Goes on with `step` when the monitor is connected. `fresh`: over a new connection, the old one closed: what decides
 * is read there. Tries as long as the act has time. */
void qemu_connect(Qemu *q, bool fresh, QemuStep step);

/* Calls `step` again after `usec`. */
void qemu_poll(Qemu *q, uint64_t usec, QemuStep step);

/* What it waits for from here on. */
void qemu_doing(Qemu *q, const char *what);

/* Whether the last MIGRATION event said this. */
bool qemu_migration_is(const Qemu *q, const char *status);

/* Learns whose monitor this is, and watches that process. */
int qemu_watch(Qemu *q, const ProcessId *id) _must_check_;

/* Hands the memory connection to QEMU as a file called "migmgr", then goes on. */
void qemu_pass_memory(Qemu *q, QemuStep step);

/* {"key": "value"} */
json_object *qemu_argument(const char *key, const char *value);

/* Sets the capabilities that both sides need. */
void qemu_set_capabilities(Qemu *q, bool on, QemuAnswer answer);

/* How fast it sends, and how long it may take for what is left when it halts (0: as it is). */
void qemu_set_speed(Qemu *q, int64_t bandwidth, int64_t downtime_ms, QemuAnswer answer);

/* ---- its own devices (qemu-devices.c) ---- */

/* Of the definition; made when first asked for. */
void qemu_make_devices(Qemu *q);
QemuDevice *qemu_device(Qemu *q, const char *id);
/* From here on they go this way, and have said nothing yet. */
void qemu_set_course(Qemu *q, QemuCourse course);
/* Event VFIO_MIGRATION. */
void qemu_on_device_event(Qemu *q, json_object *data);
/* Whether there are such devices, and all of them have said one of `states` (QEMU_SAID()). */
bool qemu_all_said(const Qemu *q, uint32_t states);
/* The vCPUs stand: the listener is told so once. */
void qemu_stands(Qemu *q);
/* Asks for the log of a QEMU that we have started; without it nothing is read there. */
void qemu_open_log(Qemu *q);
/* Looks there for devices that it has reset since the course began. */
void qemu_read_log(Qemu *q);

/* ---- where they are (qemu-find.c) ---- */

void qemu_find_device(Vmm *vmm, const char *vmm_device, VmmDeviceFound found, void *userdata);
void qemu_forget_device(Vmm *vmm, void *userdata);
/* The monitor is ready, or will not be. */
void qemu_ask_finds(Qemu *q);
void qemu_fail_finds(Qemu *q, int status, const char *text);
void qemu_free_finds(Qemu *q);
/* Without an act: the monitor is connected if it isn't. */
void qemu_want_monitor(Qemu *q);

/* ---- threads of it that stand (qemu-hold.c) ---- */

/* Goes on with `step` when it stands (hold_stands), or when it can't be made to in time. */
void qemu_hold(Qemu *q, QemuStep step);
/* It goes on; nothing happens when it does already. */
void qemu_let_go(Qemu *q);
/* The same for the threads of vCPUs, whose ids `threads` is a list of. */
void qemu_hold_vcpus(Qemu *q, json_object *threads, QemuStep step);
/* Ends it while they are held. What comes of it is in hold_ended when `step` goes on; at once when they are not held. */
void qemu_end_held(Qemu *q, QemuStep step);

/* The acts. */
void qemu_look(Qemu *q);
void qemu_prepare(Qemu *q);
void qemu_migrate(Qemu *q);
void qemu_halt(Qemu *q);
void qemu_seal(Qemu *q);
void qemu_resume(Qemu *q);
void qemu_start(Qemu *q);
void qemu_take_in(Qemu *q);
void qemu_verify(Qemu *q);
void qemu_hold_all(Qemu *q);
void qemu_arrive(Qemu *q);
void qemu_gate(Qemu *q);
void qemu_undo(Qemu *q);
void qemu_run(Qemu *q);
