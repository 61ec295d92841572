/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What happened to a device and when: the last HISTORY_MAX arcs, resets, arrivals and departures of a client. Tests
 * judge barriers and blackouts by it. Owned by the Device; it grows as it fills, because most devices have little of
 * it and there are many devices.
 */

#include "daemon/core/device-state.h"

#define HISTORY_MAX 1024

typedef enum HistoryKind {
        HISTORY_ARC,
        HISTORY_RESET,
        HISTORY_CONNECT,
        HISTORY_DISCONNECT,
        HISTORY_KIND_MAX,
        HISTORY_KIND_INVALID = -EINVAL,
} HistoryKind;

DECLARE_STRING_TABLE(HistoryKind, history_kind);

typedef struct HistoryEntry {
        uint64_t start_usec, end_usec; /* CLOCK_MONOTONIC */
        HistoryKind kind;
        DeviceState from, to; /* an arc that failed names the state it did not reach */
        int error;            /* errno, or 0 */
} HistoryEntry;

typedef struct History {
        HistoryEntry *entries;
        size_t size, n, first; /* a ring once size is HISTORY_MAX */
} History;

uint64_t history_now_usec(void);

/* Ends now. An entry that finds no memory is lost. */
void history_add(History *h, HistoryKind kind, uint64_t start_usec, DeviceState from, DeviceState to,
                 int error);
void history_clear(History *h);

/* The i-th oldest, i < h->n. */
const HistoryEntry *history_get(const History *h, size_t i);
