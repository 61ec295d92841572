/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The worker of an emulated device: what it does by itself in the guest's memory, as worker-model.h says. Owned by the
 * Device, whose Dma and Irqs it uses; it knows nothing of clients.
 *
 * While it is let run it does the commands one at a time and in their order, and the ticks beside them. What needs an
 * answer of the client takes time: worker_stop() begins nothing more and says when nothing is out any more. What is half
 * done is then either finished or as if it had not begun, so that a command is done once, here or where the state goes.
 */

#include <event2/event.h>

#include "dma.h"
#include "irq.h"
#include "worker-model.h"

/* What moves to another host; besides it there is the window. */
typedef struct WorkerState {
        uint64_t ring, doorbell, done, chain;
        uint64_t tick_ring, tick_pages, tick_usec, ticks;
        uint8_t scratch[WORKER_SCRATCH_SIZE];
        uint8_t config[WORKER_CONFIG_SIZE];
        uint64_t tick_wait_usec;  /* until the next tick, while it stands */
        uint64_t delay_wait_usec; /* of the command that waits */
        uint64_t has_command;     /* 1: one waits, and has read all that follows */
        WorkerSlot slot;
        uint8_t piece[WORKER_WINDOW_PIECE_MAX];
        uint8_t source[WORKER_LENGTH_MAX];
} WorkerState;

#define WORKER_STATE_SIZE (sizeof(WorkerState) + WORKER_WINDOW_SIZE)

typedef enum WorkerStage {
        WORKER_IDLE,
        WORKER_READS_SLOT,
        WORKER_READS_SOURCE,
        WORKER_WAITS, /* for the end of the command's delay */
        WORKER_WRITES,
} WorkerStage;

typedef struct Worker {
        WorkerState s;
        uint8_t *window; /* mapped, and the client has it too */
        int window_fd;
        Dma *dma;
        const Irqs *irqs;

        bool running;   /* it is let */
        bool forgotten; /* the client has gone: it does nothing until the next one has set it up */
        WorkerStage stage;
        uint64_t delay_end_usec;
        struct event *timer; /* of the commands: the end of a delay, or there is something to do */
        DmaTransfer transfer;
        uint64_t new_chain;
        uint8_t result[sizeof(WorkerResult) + WORKER_LENGTH_MAX];

        uint64_t next_tick_usec;
        struct event *tick_timer;
        DmaTransfer tick_transfer;
        uint64_t tick[2]; /* what is written of the one that is under way */

        void (*stopped)(void *userdata); /* after worker_stop(): nothing is out any more */
        void *userdata;
} Worker;

/* NULL: out of memory or files. */
Worker *worker_new(struct event_base *base, Dma *dma, const Irqs *irqs, void (*stopped)(void *userdata),
                   void *userdata);
Worker *worker_free(Worker *w);

void worker_start(Worker *w);
/* Begins nothing more. True: nothing is out. False: stopped() will be called. */
bool worker_stop(Worker *w);
/* The same at once: an answer that is to come is nobody's. */
void worker_halt(Worker *w);
bool worker_is_still(const Worker *w);

/* As at first. It may go on running. */
void worker_reset(Worker *w);

/* The client has gone. What it had mapped is gone too, and commands that still wait must not fail for that. */
void worker_forget(Worker *w);
/* There is one again, and it has set the device up. */
void worker_remember(Worker *w);

/* 0, or a power of two that is not too large. */
bool worker_tick_pages_are_good(uint64_t pages);
/* What a client has written over and cannot, as it was. */
void worker_correct_config(uint8_t *config);

/* Something was written to the registers. */
void worker_kick(Worker *w);
/* TICK_USEC was written. */
void worker_wind(Worker *w);

/* The state of a worker that stands, WORKER_STATE_SIZE bytes. */
void worker_save(const Worker *w, uint8_t *to);
/* -EINVAL: no worker can be in such a state; nothing has changed. */
int worker_load(Worker *w, const uint8_t *from) _must_check_;
