/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* An emulated device: memory, migration state, and the arcs between states with their delays and faults; and, if it has
 * one, its worker and what a VMM has set up for it. It knows nothing of sockets. Each Server owns one and is told through
 * `done` when something that took time has ended.
 *
 * The device side of the uAPI, written from its text and sharing no code with the daemon that is tested with it.
 */

#include <event2/event.h>

#include "device-config.h"
#include "history.h"
#include "image.h"
#include "mailbox.h"
#include "worker.h"

typedef struct DeviceStats {
        uint64_t resets, saves, loads, saved_bytes, loaded_bytes;
        uint64_t refused;         /* commands answered with an error */
        uint64_t protocol_errors; /* of the client: what is no message, or comes at the wrong time */
} DeviceStats;

/* A transition or a reset that has not ended. */
typedef struct DeviceTask {
        DeviceState path[ARC_PATH_MAX];
        int at, n;
        bool is_reset, hung;
        bool stops_worker;   /* the arc does not end before what the worker has under way */
        bool stops_mailbox;  /* ... and a letter */
        uint64_t start_usec; /* of this arc, or of the reset */
        Fault fault;         /* of this arc */
} DeviceTask;

typedef struct Device Device;
struct Device {
        DeviceConfig config; /* delays and faults change later too */
        DeviceState state;
        Memory memory;
        Dma dma;
        Irqs irqs;
        Worker *worker;                  /* NULL: has none */
        Mailbox *mailbox;                /* NULL: has none */
        uint64_t dirt_page, dirt_credit; /* of dirty-rate: the next page, and what is due, in pages * usec */
        History history;
        DeviceStats stats;
        PageSums saved, loaded; /* of the last complete save and load */
        Saver *saver;           /* in the saving states */
        Loader *loader;         /* in RESUMING */
        bool load_dropped;      /* a reset took away what was to be loaded: RESUMING may be left without */
        FaultKind spoiled;      /* what an arc wants done to the reply; who sends it takes it */
        DeviceTask task;
        struct event *timer;
        void (*done)(Device *d, int r);
        void (*moved)(Device *d, void *userdata); /* to another state */
        void *userdata;                           /* of moved() */
};

/* From device_set_state(), device_reset(), device_release(): done() will be called. */
#define DEVICE_UNDER_WAY 1

/* Moves what `config` owns out of it. -ENOMEM. The caller sets the callbacks, and calls device_done() in any case. */
int device_init(Device *d, DeviceConfig *config, struct event_base *base) _must_check_;
void device_done(Device *d);

/* Walks to a state. 0: is there. DEVICE_UNDER_WAY. Else the errno; the device is where the last good arc ended, or in
 * ERROR. */
int device_set_state(Device *d, DeviceState to) _must_check_;

/* 0, DEVICE_UNDER_WAY, or -EINVAL where the reset mode refuses. */
int device_reset(Device *d) _must_check_;

/* The arc that hangs (`task.hung`) goes on; returns what device_set_state() would have. */
int device_release(Device *d) _must_check_;
/* It never ends, and nobody waits for it any more. Nothing, if none hangs. */
void device_abandon(Device *d);

/* To ERROR, by a fault; the rest is for the history. */
void device_break(Device *d, uint64_t start_usec, int error);

/* To RUNNING without any arc, as libvfio-user did of old when its client left. A half-taken-in state is dropped. */
void device_force_running(Device *d);

/* Its client has gone, and with it what it had set up. */
void device_forget_client(Device *d);

/* Whether what it is asked for waits for an answer of the client. */
bool device_waits_for_client(const Device *d);

/* It has run for so long since it was last told: what dirty-rate asks for. */
void device_dirty(Device *d, uint64_t usec);

/* Migration data; the caller has looked at the state. Reading gives 0 when there is nothing now, or nothing more. */
uint64_t device_read_data(Device *d, uint8_t *buffer, uint64_t n);
void device_write_data(Device *d, const uint8_t *data, uint64_t n);

/* Whether it runs and so changes its memory. */
bool device_is_running(const Device *d);
