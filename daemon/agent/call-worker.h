/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A thread for calls that may block for as long as they like: what is asked of the kernel about a device.
 *
 * Calls are made one after the other, in the order in which they were given; each comes back to the event loop when it
 * has returned. Whoever does not want to wait leaves it: a call in the kernel can't be interrupted, so the thread is
 * left behind with it, and cleans up by itself if it ever comes back.
 */

#include <event2/event.h>

#include "common/macros.h"

typedef struct CallWorker CallWorker;

typedef struct WorkerCall WorkerCall;
struct WorkerCall {
        WorkerCall *next;
        void (*run)(WorkerCall *call);  /* in the thread; nothing but the call may be touched */
        void (*done)(WorkerCall *call); /* in the loop, after it; the call is its */
        void (*drop)(WorkerCall *call); /* instead, when the worker has been freed; anywhere */
};

/* -ENOMEM, or what pthread_create() says. */
int call_worker_new(struct event_base *base, CallWorker **ret) _must_check_;

/* No done() comes after that. `end` is called once when no call is under way any more: now, or later in the thread. */
CallWorker *call_worker_free(CallWorker *worker, void (*end)(void *userdata), void *userdata);

void call_worker_do(CallWorker *worker, WorkerCall *call);

/* Takes back a call that has not begun; it is the caller's again. false: it has. */
bool call_worker_withdraw(CallWorker *worker, WorkerCall *call);
