/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Work that the kernel may keep for as long as it likes, in a process of its own: the helper goes on when its time is
 * up, and the child ends whenever the kernel lets it. */

#include "common/macros.h"

#define CHILD_TEXT_MAX 200

typedef struct ChildWork {
        int fd;                    /* comes back with the answer; -1: none */
        char text[CHILD_TEXT_MAX]; /* for people */
} ChildWork;

/* In the child. 0 or a negative errno. */
typedef int (*ChildRun)(const char *argument, ChildWork *work);

/* What `run` says, or -ETIMEDOUT after `usec`. The file in `ret` is the caller's. */
int child_run(ChildRun run, const char *argument, uint64_t usec, ChildWork *ret) _must_check_;
