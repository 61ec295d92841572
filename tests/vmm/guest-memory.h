/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What stands in the guest's memory, and how the guest writes it. Only guest.c and guest-driver.c know of it.
 *
 * Page 0 is the Root. The Mirror, the last page that devices can map, repeats two numbers of it: one of the two
 * pages from another moment is found at the next step. Then come a Driver for each device and what it owns; the
 * rest is ballast: pages that are rewritten and read again, each against its version, so that memory is lost
 * nowhere.
 */

#include "guest.h"
#include "tests/device/worker-model.h"

#define GUEST_MAGIC       UINT64_C(0x74736575676d676d) /* "mgmguest" */
#define DRIVER_DEPTH      8                            /* buffers, and so commands that may be open */
#define DRIVER_TICK_PAGES 64                           /* tick pages */
#define DRIVER_TICK_USEC  2000

typedef struct Root {
        uint64_t magic, n_devices;
        uint64_t steps, chain; /* `chain`: over everything that was ever seen */
        uint64_t turn;         /* the driver whose step is next, or the ballast's */
        uint64_t clock_usec;   /* for how long the guest has run */
        uint64_t random;
        uint64_t mirror_at, drivers_at, versions_at, ballast_at; /* offsets in the memory */
        uint64_t ballast_pages, ballast_sum;                     /* sum: of all versions */
        uint64_t sweep_at, sweep_sum; /* the sweep that checks them, and the sum so far */
        char broken[GUEST_BROKEN_MAX];
} Root;

typedef struct Mirror {
        uint64_t steps, chain;
} Mirror;

/* A command's data at both ends, used again after DRIVER_DEPTH commands. */
typedef struct DriverBuffer {
        uint64_t source_at, result_at;
        uint64_t chain; /* after the command that used it last */
} DriverBuffer;

/* The guest's driver of one device. */
typedef struct Driver {
        uint64_t magic;
        uint64_t phase;                    /* DriverPhase */
        uint64_t posted, batch_end, done;  /* commands: written, to be written in this round, checked */
        uint64_t interrupts;               /* of vector 0, in all */
        uint64_t ticks, tick_interrupts;   /* TICKS, as far as it is known; of vector 1, in all */
        uint64_t result_ticks;             /* TICKS that the last checked command noted */
        uint64_t chain;                    /* what CHAIN must be after `done` */
        uint64_t waits_since_usec, random; /* by Root.clock_usec */
        uint64_t bytes;                    /* of data, in all */
        uint64_t ring_at, tick_ring_at;
        uint64_t history_at; /* the last WORKER_WINDOW_WORDS chains, for the device's half of the window */
        uint64_t window_at;  /* what stands in the guest's half */
        DriverBuffer buffers[DRIVER_DEPTH];
        uint8_t scratch[WORKER_SCRATCH_SIZE], config[WORKER_CONFIG_SIZE];
} Driver;
static_assert(sizeof(Driver) <= RAM_PAGE && sizeof(Root) <= RAM_PAGE, "one page each");

static inline void *guest_at(const Guest *g, uint64_t offset)
{
        return g->ram->base + offset;
}

static inline Root *guest_root(const Guest *g)
{
        return guest_at(g, 0);
}

static inline Driver *guest_driver(const Guest *g, unsigned i)
{
        return guest_at(g, guest_root(g)->drivers_at + i * RAM_PAGE);
}

/* The only ways in which the guest writes: the VMM sees each of them. */
#define SET(guest, where, value)                                           \
        do {                                                               \
                __typeof__(where) _value = (value);                        \
                ram_store((guest)->ram, &(where), &_value, sizeof _value); \
        } while (0)

static inline void guest_store(Guest *g, uint64_t offset, const void *data, size_t n)
{
        ram_store(g->ram, guest_at(g, offset), data, n);
}

/* A generator whose state is in the memory. */
static inline uint64_t guest_random(Guest *g, uint64_t *state)
{
        uint64_t x = *state;

        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        SET(g, *state, x);
        return x * UINT64_C(0x2545f4914f6cdd1d) >> 11;
}

/* Folds something that was seen into the chain over everything. */
static inline void guest_see(Guest *g, uint64_t value)
{
        Root *root = guest_root(g);

        SET(g, root->chain, worker_sum(root->chain, &value, sizeof value));
}

/* Remembers what is wrong. Returns GUEST_BROKEN. */
GuestStep guest_break(Guest *g, const char *format, ...) _printf_(2, 3);

/* Gives the driver its memory: `at` is where the next free byte is, `message_at` the same where devices go by
 * message. */
void driver_boot(Guest *g, unsigned i, uint64_t *at, uint64_t *message_at);
/* So much it takes at most. */
#define DRIVER_BYTES         (UINT64_C(1408) * 1024)
#define DRIVER_MESSAGE_BYTES (UINT64_C(256) * 1024)

GuestStep driver_step(Guest *g, unsigned i);
