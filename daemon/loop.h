/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The daemon's one event loop, and all there is of libevent outside the agents: timers, descriptors, work for a clean
 * stack, and the bus. Everything else in the daemon is called from here and returns at once. */

#include <systemd/sd-bus.h>

#include "common/macros.h"

typedef struct Loop Loop;
typedef struct LoopTimer LoopTimer;
typedef struct LoopIo LoopIo;

typedef void (*LoopCallback)(void *userdata);

int loop_new(Loop **ret) _must_check_;
Loop *loop_free(Loop *loop);

/* Runs until loop_quit(). */
int loop_run(Loop *loop) _must_check_;
void loop_quit(Loop *loop);

/* Calls `callback` once, after everything that runs now has returned. -ENOMEM. */
int loop_defer(Loop *loop, LoopCallback callback, void *userdata) _must_check_;

/* A timer that is not set. */
int loop_timer_new(Loop *loop, LoopCallback callback, void *userdata, LoopTimer **ret) _must_check_;
LoopTimer *loop_timer_free(LoopTimer *timer);
/* Rings once after `usec`; replaces what was set. 0: does not ring. */
void loop_timer_set(LoopTimer *timer, uint64_t usec);
/* Rings as soon as everything that runs now has returned: a timer of a microsecond would take a millisecond. */
void loop_timer_soon(LoopTimer *timer);

/* Watches a descriptor, which stays the caller's: calls back whenever it is readable, and, when asked for, writable. */
int loop_io_new(Loop *loop, int fd, LoopCallback on_readable, LoopCallback on_writable, void *userdata,
                LoopIo **ret) _must_check_;
LoopIo *loop_io_free(LoopIo *io);
/* Calls on_writable once when the descriptor takes data. */
void loop_io_want_write(LoopIo *io);

/* Serves the bus connection on the loop. `on_end` when it is gone. One per loop. */
int loop_attach_bus(Loop *loop, sd_bus *bus, LoopCallback on_end, void *userdata) _must_check_;

/* That connection, or NULL. */
sd_bus *loop_bus(Loop *loop);

/* Something was queued on the bus from outside its own callbacks. */
void loop_kick_bus(Loop *loop);

DEFINE_CLEANUP(Loop *, loop_free);
