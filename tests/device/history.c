/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "history.h"

#include <time.h>

#define HISTORY_START 16

static const char *const history_kind_names[HISTORY_KIND_MAX] = {
        [HISTORY_ARC] = "arc",
        [HISTORY_RESET] = "reset",
        [HISTORY_CONNECT] = "connect",
        [HISTORY_DISCONNECT] = "disconnect",
};

DEFINE_STRING_TABLE(HistoryKind, history_kind, history_kind_names);

uint64_t history_now_usec(void)
{
        struct timespec now;

        (void) clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t) now.tv_sec * USEC_PER_SEC + (uint64_t) now.tv_nsec / 1000;
}

static bool grow(History *h)
{
        size_t size = h->size ? MIN(h->size * 2, (size_t) HISTORY_MAX) : HISTORY_START;
        HistoryEntry *entries = realloc(h->entries, size * sizeof *entries);

        if (!entries)
                return false;
        h->entries = entries;
        h->size = size;
        return true;
}

void history_add(History *h, HistoryKind kind, uint64_t start_usec, DeviceState from, DeviceState to,
                 int error)
{
        HistoryEntry entry = {.start_usec = start_usec,
                              .end_usec = history_now_usec(),
                              .kind = kind,
                              .from = from,
                              .to = to,
                              .error = error};

        if (h->n < HISTORY_MAX) {
                if (h->n == h->size && !grow(h))
                        return;
                h->entries[h->n++] = entry;
                return;
        }
        h->entries[h->first] = entry;
        h->first = (h->first + 1) % HISTORY_MAX;
}

void history_clear(History *h)
{
        free(TAKE_PTR(h->entries));
        h->size = h->n = h->first = 0;
}

const HistoryEntry *history_get(const History *h, size_t i)
{
        return &h->entries[(h->first + i) % h->n];
}
