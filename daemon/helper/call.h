/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A request that is being carried out, shared by the files that do so: requests.c, vfio-files.c, hold.c. */

#include "common/process-id.h"
#include "requests.h"

typedef struct Call {
        const HelperPlace *place;
        const char *strings[HELPER_STRINGS_MAX];
        uint32_t n_strings;
        HelperPacket *answer;
        int fd; /* to be sent with the answer */
} Call;

/* The answer's text; one that does not fit is left out. Returns `status`. */
int call_say(Call *call, int status, const char *text);

/* The same with values in it. */
int call_say_of(Call *call, int status, const char *format, ...) _printf_(3, 4);

/* The process that the first three strings name: pid, start time, boot id. -EINVAL. */
int call_process(Call *call, ProcessId *ret) _must_check_;

/* What forbids us to duplicate the files of `pid`, or to trace it, and what to add; says so. */
int call_say_forbidden(Call *call, int status, pid_t pid, const char *what);

/* vfio-files.c: a duplicate of the file of a VFIO device which a process has open. */
int call_duplicate(Call *call);

/* hold.c: QEMU's migration thread stands for as long as the file that is answered stays open. */
int call_hold(Call *call);
/* The same for threads that execute a guest. */
int call_hold_vcpus(Call *call);
/* A child that held a thread may have ended. */
void hold_reap(void);
