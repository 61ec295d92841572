/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Starts a process that outlives us all: a VMM or an agent.
 *
 * Forked twice and put into a session of its own, under a keeper that waits for it (so that it never stays a zombie,
 * whatever PID 1 is) and does nothing else. Where systemd runs, it gets a scope of its own before it begins; no process
 * of ours is its parent, and killing all of ours leaves it alive.
 */

#include <sys/types.h>

#include "common/macros.h"

typedef struct Start {
        const char *const *argv; /* NULL-terminated; argv[0] is the program's absolute path */
        const char *scope;       /* name of the unit, without ".scope" */
        bool scope_by_pid; /* its pid is added: there may be one of that name that hangs in the kernel. Else that is refused. */
        const char *description;
        int keep_fd; /* becomes its descriptor 3, or -1 */
        int log_fd;  /* becomes stdout and stderr, or -1 for ours */
} Start;

/* Returns the pid of a process that waits to become the program, and the socket by which it is told to, as HELPER_START_VMM
 * has it (helper-protocol.h): whoever has that socket knows the pid, and nothing begins of which nobody knows. When all of
 * its copies are closed before the word is said the process ends. `ret_text` names what failed (a constant). */
int starter_start(const Start *start, pid_t *ret_pid, int *ret_socket, const char **ret_text) _must_check_;
