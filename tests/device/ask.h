/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The one DMA_READ or DMA_WRITE that a device has under way with its client: the message, and whether what comes is its
 * answer. Owned by the Client, which sends it when its socket is free.
 */

#include "connection.h"
#include "worker-model.h"

#define ASK_DATA_MAX \
        (sizeof(WorkerResult) + WORKER_LENGTH_MAX) /* nothing that a worker transfers is longer */

typedef enum AskPhase {
        ASK_NONE,
        ASK_QUEUED,
        ASK_SENDING,
        ASK_SENT,
} AskPhase;

typedef struct AskMessage {
        VfioUserHeader header;
        VfioUserDmaAccess access;
        uint8_t data[ASK_DATA_MAX];
} AskMessage;

typedef struct Ask {
        AskPhase phase;
        uint16_t last_id;
        AskMessage *message;
} Ask;

/* -ENOMEM. */
int ask_init(Ask *a) _must_check_;
void ask_done(Ask *a);

/* Queues one; there is no other. n is at most ASK_DATA_MAX. */
void ask_queue(Ask *a, bool write, uint64_t address, const uint8_t *data, size_t n);

/* A whole message has come: 0 and the data of a read, `ret_n` bytes in the connection; -EIO: the client refuses; -EPROTO: it
 * is no answer to this. */
int ask_check(const Ask *a, const Connection *c, const uint8_t **ret_data, size_t *ret_n) _must_check_;
