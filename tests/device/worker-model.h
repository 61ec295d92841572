/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the worker of an emulated device is, for who drives one and for who is one: the layout of its registers, its
 * commands and what it writes into the guest's memory, and the sums over all of it. Pure: it needs nothing but libc, and
 * is linked into the device server and into the guest of the test VMM.
 *
 * A guest writes a command into slot (n - 1) % 64 of the ring in its memory and n to DOORBELL. The device does the
 * commands one by one and carries a sum over everything that each of them has read, the chain, from one to the next: a
 * byte that was lost or changed anywhere, once, shows in every later result. Ticks are pages that the device writes by
 * itself. Everything is little-endian, and hosts are.
 */

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- regions and interrupts ---------------------------------------------------------------------------------- */

#define WORKER_REGION_MEMORY    0 /* as every emulated device's, by message */
#define WORKER_REGION_REGISTERS 1 /* by message */
#define WORKER_REGION_WINDOW    2 /* by message, and mapped */
#define WORKER_REGION_MAILBOX   3 /* the same; of a device that has a mailbox */
#define WORKER_REGION_CONFIG    7

#define WORKER_REGISTERS_SIZE 4096
#define WORKER_WINDOW_SIZE    65536
#define WORKER_MAILBOX_SIZE   4096
#define WORKER_CONFIG_SIZE    256

#define WORKER_VENDOR 0x1d94
#define WORKER_DEVICE 0x0001
#define WORKER_CLASS  0x088000

#define WORKER_IRQ_INDEX 2 /* MSI-X */
#define WORKER_VECTORS   2
#define WORKER_IRQ_DONE  0 /* one signal for each command */
#define WORKER_IRQ_TICK  1 /* one for each tick */

/* ---- registers ----------------------------------------------------------------------------------------------- */

/* Offsets in region 1; each is a u64, only SCRATCH is longer. */
enum {
        WORKER_REG_MAGIC = 0x00, /* ro */
        WORKER_REG_RING = 0x08,  /* IOVA of the ring */
        WORKER_REG_DOORBELL =
                0x10,            /* commands ever posted; never less than it was, never more than DONE + 64 */
        WORKER_REG_DONE = 0x18,  /* ro: commands completed */
        WORKER_REG_CHAIN = 0x20, /* ro: after the last completed command */
        WORKER_REG_TICK_RING = 0x28,  /* IOVA of the tick pages */
        WORKER_REG_TICK_PAGES = 0x30, /* how many: a power of two */
        WORKER_REG_TICK_USEC = 0x38,  /* period; 0: none */
        WORKER_REG_TICKS = 0x40,      /* ro: ticks written */
        WORKER_REG_SCRATCH = 0x80,
        WORKER_REG_PEER =
                0x100, /* IOVA of the mailbox that letters go to, 0: none; of a device that has a mailbox */
};

#define WORKER_MAGIC          UINT64_C(0x72656b726f77676d) /* "mgworker" */
#define WORKER_SCRATCH_SIZE   64
#define WORKER_SLOTS          64
#define WORKER_LENGTH_MAX     65536
#define WORKER_TICK_PAGE      4096
#define WORKER_TICK_PAGES_MAX 4096

/* The first half of the window is the guest's to write. The second is the device's: the chain after command n is at
 * worker_window_word(n). */
#define WORKER_GUEST_WINDOW_SIZE 32768
#define WORKER_WINDOW_PIECE_MAX  4096
#define WORKER_WINDOW_WORDS      4096

static inline uint64_t worker_window_word(uint64_t seq)
{
        return WORKER_GUEST_WINDOW_SIZE + 8 * (seq % WORKER_WINDOW_WORDS);
}

/* ---- commands ------------------------------------------------------------------------------------------------ */

#define WORKER_BY_MESSAGE \
        UINT32_C(1) /* flag: the data goes by DMA_READ and DMA_WRITE, even where there is a map */

typedef struct WorkerSlot {
        uint64_t seq;
        uint32_t flags;
        uint32_t length; /* of the data at `source` and behind the result; at most WORKER_LENGTH_MAX */
        uint64_t source;
        uint64_t destination; /* of a WorkerResult and `length` bytes behind it */
        uint32_t window_offset;
        uint32_t window_length; /* at most WORKER_WINDOW_PIECE_MAX, within the guest's half */
        uint64_t delay_usec;    /* it takes at least so long */
        uint64_t reserved[2];   /* 0 */
} WorkerSlot;
static_assert(sizeof(WorkerSlot) == 64, "slot of the command ring");

/* Of command `seq`, which counts from 1. */
static inline uint64_t worker_slot_address(uint64_t ring, uint64_t seq)
{
        return ring + (seq - 1) % WORKER_SLOTS * sizeof(WorkerSlot);
}

typedef struct WorkerResult {
        uint64_t seq;
        uint64_t chain; /* after this command */
        uint64_t ticks; /* TICKS at that time */
        uint64_t length;
        uint64_t reserved[4]; /* 0 */
} WorkerResult;
static_assert(sizeof(WorkerResult) == 64, "result of a command");

/* The chain after a command that could not be done: its slot is not that of its number, or says what cannot be, or some
 * memory is not there. */
#define WORKER_CHAIN_BAD UINT64_MAX

/* Whether the slot is one of command `seq` that can be done, as far as the slot alone can tell. */
bool worker_slot_is_good(const WorkerSlot *slot, uint64_t seq);

/* The chain after a command of a good slot, which is done with this data: `source` is slot->length bytes, `window`
 * slot->window_length, `scratch` WORKER_SCRATCH_SIZE. */
uint64_t worker_chain(uint64_t old, const WorkerSlot *slot, const void *source, const void *window,
                      const void *scratch);

/* What stands behind the result: `n` bytes of source data, changed by the chain after the command. In place, too. */
void worker_transform(uint64_t chain, const void *source, void *destination, size_t n);

/* ---- ticks --------------------------------------------------------------------------------------------------- */

/* What tick k, which counts from 1, writes into its page, at these offsets. */
#define WORKER_TICK_AT     0    /* k */
#define WORKER_TICK_SUM_AT 8    /* worker_tick_sum() */
#define WORKER_TICK_END_AT 4088 /* k again */

/* `pages` is not 0. */
static inline uint64_t worker_tick_address(uint64_t tick_ring, uint64_t pages, uint64_t k)
{
        return tick_ring + (k - 1) % pages * WORKER_TICK_PAGE;
}

uint64_t worker_tick_sum(uint64_t k, uint64_t address);

/* ---- letters between devices --------------------------------------------------------------------------------- */

/* What a device writes into the mailbox of its peer, by DMA and whatever the guest does: letter after letter, counting from 1,
 * and of each the number last. At WORKER_MAILBOX_TAKEN stands how many the peer has taken; no more than WORKER_LETTERS are
 * out at a time. */
typedef struct WorkerLetter {
        uint64_t seq;
        uint64_t sum; /* worker_letter_sum() */
        uint64_t data[6];
} WorkerLetter;
static_assert(sizeof(WorkerLetter) == 64, "letter between devices");

#define WORKER_MAILBOX_TAKEN 0
#define WORKER_LETTERS       (WORKER_MAILBOX_SIZE / sizeof(WorkerLetter) - 1)

static inline uint64_t worker_letter_offset(uint64_t seq)
{
        return (1 + (seq - 1) % WORKER_LETTERS) * sizeof(WorkerLetter);
}

uint64_t worker_letter_sum(const WorkerLetter *letter);

/* ---- the sum ------------------------------------------------------------------------------------------------- */

#define WORKER_SUM_START UINT64_C(0xcbf29ce484222325)

/* FNV-1a, 64 bits: the sum of what `sum` covers followed by `data`; start with WORKER_SUM_START. */
uint64_t worker_sum(uint64_t sum, const void *data, size_t n);
