/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Which process, for good: a pid alone is used again. Its start time and the boot it belongs to make it unique, so that
 * it can be written down and compared after a restart. */

#include <string.h>
#include <sys/types.h>

#include "uuid.h"

typedef struct ProcessId {
        pid_t pid;      /* 0: none */
        uint64_t start; /* clock ticks after boot: field 22 of /proc/PID/stat */
        char boot[UUID_TEXT_MAX + 1];
} ProcessId;

static inline bool process_id_equal(const ProcessId *a, const ProcessId *b)
{
        return a->pid == b->pid && a->start == b->start && strcmp(a->boot, b->boot) == 0;
}

/* The boot id of this host, into `ret`. */
int boot_id_read(char ret[UUID_TEXT_MAX + 1]) _must_check_;

/* Of a process that runs now. -ESRCH. */
int process_id_read(pid_t pid, ProcessId *ret) _must_check_;

/* A pidfd for exactly that process: readable when it is gone. -ESRCH when it is gone already (a zombie is gone), or
 * the pid is another's now. */
int process_id_open(const ProcessId *id) _must_check_;
