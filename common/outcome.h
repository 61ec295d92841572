/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The one table of what can come of a request: results of jobs and errors of calls, each with its D-Bus name, its exit
 * status of migctl and the line of documentation. Daemon, migctl and the man page use it; a test walks it. */

#include "macros.h"

/* Exit statuses of migctl. */
enum {
        EXIT_DONE = 0,
        EXIT_FAILED = 1,
        EXIT_USAGE = 2,
        EXIT_TIMEOUT = 3,
        EXIT_DENIED = 4,
        EXIT_NOT_FOUND = 5,
        EXIT_REFUSED = 6,
        EXIT_CANCELLED = 7,
        EXIT_UNREACHABLE = 8,
        EXIT_IN_DOUBT = 9,
        EXIT_DEGRADED = 10,
        EXIT_LOST = 11,
        EXIT_BUSY = 12,
        EXIT_INTERRUPTED = 130, /* as a shell says it of what SIGINT has ended */
};

/* Errors, of calls and in a job's Error property. */
typedef enum Outcome {
        OUTCOME_NONE,
        OUTCOME_FAILED,
        OUTCOME_INVALID_ARGUMENT,
        OUTCOME_BAD_DEFINITION,
        OUTCOME_BAD_DESTINATION,
        OUTCOME_BAD_POLICY,
        OUTCOME_DENIED,
        OUTCOME_NO_SUCH_VM,
        OUTCOME_NO_SUCH_DEVICE,
        OUTCOME_NO_SUCH_JOB,
        OUTCOME_NO_SUCH_POLICY,
        OUTCOME_BUSY,
        OUTCOME_TOO_LATE,
        OUTCOME_FORBIDDEN,
        OUTCOME_INCOMPATIBLE,
        OUTCOME_P2P, /* ... which is only that devices may write to each other */
        OUTCOME_DEVICE,
        OUTCOME_VMM,
        OUTCOME_PEER,
        OUTCOME_STORE,
        OUTCOME_TIMEOUT,
        OUTCOME_CANCELLED,
        OUTCOME_IN_DOUBT,
        OUTCOME_UNREACHABLE,
        OUTCOME_MAX,
        OUTCOME_INVALID = -EINVAL,
} Outcome;

typedef struct OutcomeInfo {
        const char *name; /* D-Bus: "org.migmgr1.Error." and this; NULL: not an error of the bus */
        int exit;
        const char *doc;
} OutcomeInfo;

#define OUTCOME_BUS_PREFIX "org.migmgr1.Error."

/* NULL outside the enum. */
const OutcomeInfo *outcome_info(Outcome outcome);

/* From a D-Bus error name; OUTCOME_INVALID for one that is not ours. */
Outcome outcome_from_bus(const char *name);

/* The exit status for a job's result, by its name ("done", "failed", ...); EXIT_FAILED for one that is not known. */
int outcome_exit_of_result(const char *result);

typedef struct ResultInfo {
        const char *name;
        int exit;
        const char *doc;
} ResultInfo;

/* The results of jobs, in order; NULL behind the last. */
const ResultInfo *outcome_result(size_t index);
