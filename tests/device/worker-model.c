/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "worker-model.h"

#define PRIME UINT64_C(0x100000001b3)

uint64_t worker_sum(uint64_t sum, const void *data, size_t n)
{
        const uint8_t *p = data;

        for (size_t i = 0; i < n; i++)
                sum = (sum ^ p[i]) * PRIME;
        return sum;
}

bool worker_slot_is_good(const WorkerSlot *slot, uint64_t seq)
{
        return slot->seq == seq && (slot->flags & ~WORKER_BY_MESSAGE) == 0 &&
               slot->length <= WORKER_LENGTH_MAX && slot->window_length <= WORKER_WINDOW_PIECE_MAX &&
               slot->window_offset <= WORKER_GUEST_WINDOW_SIZE - slot->window_length &&
               slot->reserved[0] == 0 && slot->reserved[1] == 0;
}

uint64_t worker_chain(uint64_t old, const WorkerSlot *slot, const void *source, const void *window,
                      const void *scratch)
{
        uint64_t sum = worker_sum(WORKER_SUM_START, &old, sizeof old);

        sum = worker_sum(sum, &slot->seq, sizeof slot->seq);
        sum = worker_sum(sum, source, slot->length);
        sum = worker_sum(sum, window, slot->window_length);
        return worker_sum(sum, scratch, WORKER_SCRATCH_SIZE);
}

void worker_transform(uint64_t chain, const void *source, void *destination, size_t n)
{
        const uint8_t *from = source;
        uint8_t *to = destination;

        for (size_t i = 0; i < n; i++)
                to[i] = from[i] ^ (uint8_t) (chain >> (8 * (i % 8)));
}

uint64_t worker_tick_sum(uint64_t k, uint64_t address)
{
        return worker_sum(worker_sum(WORKER_SUM_START, &k, sizeof k), &address, sizeof address);
}

uint64_t worker_letter_sum(const WorkerLetter *letter)
{
        uint64_t sum = worker_sum(WORKER_SUM_START, &letter->seq, sizeof letter->seq);

        return worker_sum(sum, letter->data, sizeof letter->data);
}
