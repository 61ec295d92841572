/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The administrator's command that keeps the other host from running a VM (fence-command in migmgrd.json): a child in a
 * process group of its own, killed when its time is up. Owned by the job that asked for it. */

#include "loop.h"

typedef struct Fence Fence;

/* `status`: 0 when it has ended with status 0; else a negative errno, and `text` says how it ended. Called once. */
typedef void (*FenceDone)(void *userdata, int status, const char *text);

/* `argv` and `env`, what is added to our environment ("NAME=value"), both ended by NULL. -errno when it can't be started. */
int fence_start(Loop *loop, char *const *argv, const char *const *env, uint64_t usec, FenceDone done,
                void *userdata, Fence **ret) _must_check_;

/* Does not wait for it any more. The command goes on: half a fence is worse than one of which nobody hears. */
Fence *fence_free(Fence *fence);
