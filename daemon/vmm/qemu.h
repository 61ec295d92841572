/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The inside of the QEMU adapter, shared by its files: qemu.c (connection, acts, the process), qemu-facts.c (look),
 * qemu-source.c and qemu-destination.c. Nobody else includes this.
 *
 * One act at a time. What an act still waits for when a newer one begins is forgotten: its answers are recognised by
 * their serial number and dropped.
 */

#include "qmp.h"
#include "vmm.h"

typedef struct Qemu Qemu;

typedef void (*QemuStep)(Qemu *q);
typedef void (*QemuAnswer)(Qemu *q, int status, json_object *result, const char *text);

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
void qemu_run(Qemu *q);
