/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A connection to a QEMU monitor: commands that are answered later or not at all, and events.
 *
 * Owned by its adapter. QEMU is not trusted to answer: every command has a deadline, a late answer is dropped, a line
 * that is no JSON or longer than a MiB ends the connection. Callbacks come from the loop; the connection may be freed
 * in any of them.
 */

#include "common/json.h"
#include "daemon/loop.h"

typedef struct Qmp Qmp;

typedef struct QmpListener {
        /* Greeted and ready for commands. */
        void (*ready)(void *userdata);
        void (*event)(void *userdata, const char *name, json_object *data);
        /* The connection has ended, or could not be made. */
        void (*ended)(void *userdata, int status, const char *text);
} QmpListener;

/* `result` lives until the callback returns. `status`: 0; -EREMOTEIO: QEMU refused, in the words of `text`; -ETIMEDOUT;
 * or what ended the connection. */
typedef void (*QmpAnswer)(void *userdata, int status, json_object *result, const char *text);

/* Connects to the monitor at `path`. Does not wait: `ready` or `ended` follows. QEMU serves one client at a time on a
 * monitor, so a greeting that does not come within `greeting_usec` means that somebody else is there. */
int qmp_new(Loop *loop, const char *path, uint64_t greeting_usec, const QmpListener *listener, void *userdata,
            Qmp **ret) _must_check_;
/* Open commands are answered with -ECANCELED first. */
Qmp *qmp_free(Qmp *qmp);

/* Sends a command; `arguments` (or NULL) is taken over, `fd` (or -1) travels with it and stays the caller's. */
void qmp_execute(Qmp *qmp, const char *command, json_object *arguments, int fd, uint64_t deadline_usec,
                 QmpAnswer answer, void *userdata);

/* The same, out of band: QEMU obeys even when its main loop stands. Only if qmp_has_oob(). */
void qmp_execute_oob(Qmp *qmp, const char *command, json_object *arguments, uint64_t deadline_usec,
                     QmpAnswer answer, void *userdata);
bool qmp_has_oob(const Qmp *qmp);
bool qmp_is_ready(const Qmp *qmp);

/* Who listens there. */
int qmp_peer(const Qmp *qmp, pid_t *ret_pid) _must_check_;
