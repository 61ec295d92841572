/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The guest's driver of one device: rounds of a few looks at the device as it stands, some commands posted one after the
 * other, and what comes of them. Every answer is known beforehand. */

#include <stdio.h>

#include "guest-memory.h"

#define RESULT_SIZE (WORKER_LENGTH_MAX + RAM_PAGE)
#define PIECE(i)    ((uint32_t) (i) *WORKER_WINDOW_PIECE_MAX) /* of the window, for each buffer */
static_assert(DRIVER_DEPTH * WORKER_WINDOW_PIECE_MAX == WORKER_GUEST_WINDOW_SIZE, "the whole half is used");

/* Results of the last buffers, and the source of the last, lie where the device reaches them by message only. */
#define FIRST_RESULT_BY_MESSAGE (DRIVER_DEPTH - 2)
#define FIRST_SOURCE_BY_MESSAGE (DRIVER_DEPTH - 1)

/* What is known to have happened must be seen within this; and what a device does within the second. Of the guest's own
 * time: it does not pass while the guest stands. */
#define LOST_USEC  (1 * UINT64_C(1000000))
#define STUCK_USEC (20 * UINT64_C(1000000))

/* Words of the window that are not yet written again, even by commands that are open. */
#define HISTORY (WORKER_WINDOW_WORDS - DRIVER_DEPTH)

#define CONFIG_FREE 0x40 /* from here on it is plain memory */

typedef enum DriverPhase {
        DRIVER_RESET,
        DRIVER_SETUP,
        DRIVER_SCRATCH,
        DRIVER_CONFIG,
        DRIVER_REGISTERS,
        DRIVER_TICKS,
        DRIVER_STILL,
        DRIVER_STILL_WAIT,
        DRIVER_POST,
        DRIVER_COLLECT,
        DRIVER_PHASE_MAX,
} DriverPhase;

/* One step of a driver. */
typedef struct Turn {
        Guest *g;
        Device *device;
        Driver *d;
} Turn;

typedef unsigned long long ull;

#define wrong(t, format, ...) guest_break((t)->g, "device %s: " format, device_id((t)->device), ##__VA_ARGS__)

#define TRY(step)                            \
        do {                                 \
                if ((step) == GUEST_BROKEN)  \
                        return GUEST_BROKEN; \
        } while (0)

static uint64_t draw(Turn *t)
{
        return guest_random(t->g, &t->d->random);
}

static GuestStep go_on(Turn *t, DriverPhase phase)
{
        SET(t->g, t->d->phase, phase);
        SET(t->g, t->d->waits_since_usec, guest_root(t->g)->clock_usec);
        return GUEST_WORKED;
}

static uint64_t waited_usec(const Turn *t)
{
        return guest_root(t->g)->clock_usec - t->d->waits_since_usec;
}

/* ---- accesses ------------------------------------------------------------------------------------------------ */

static GuestStep read_region(Turn *t, uint32_t region, uint64_t offset, void *ret, uint32_t n)
{
        int r = device_read(t->device, region, offset, ret, n);

        if (r < 0)
                return wrong(t, "reading %u bytes at %#llx of region %u: %s", n, (ull) offset, region,
                             strerror(-r));
        return GUEST_WORKED;
}

static GuestStep write_region(Turn *t, bool posted, uint32_t region, uint64_t offset, const void *data,
                              uint32_t n)
{
        int r = posted ? device_post(t->device, region, offset, data, n)
                       : device_write(t->device, region, offset, data, n);

        if (r < 0)
                return wrong(t, "writing %u bytes at %#llx of region %u: %s", n, (ull) offset, region,
                             strerror(-r));
        return GUEST_WORKED;
}

static GuestStep get(Turn *t, uint32_t reg, uint64_t *ret)
{
        return read_region(t, WORKER_REGION_REGISTERS, reg, ret, sizeof *ret);
}

static GuestStep put(Turn *t, bool posted, uint32_t reg, uint64_t value)
{
        return write_region(t, posted, WORKER_REGION_REGISTERS, reg, &value, sizeof value);
}

/* The register must say that. */
static GuestStep expect(Turn *t, const char *name, uint32_t reg, uint64_t expected)
{
        uint64_t seen;

        TRY(get(t, reg, &seen));
        guest_see(t->g, seen);
        if (seen != expected)
                return wrong(t, "register %s: expected %#llx, seen %#llx", name, (ull) expected, (ull) seen);
        return GUEST_WORKED;
}

static GuestStep read_window(Turn *t, uint64_t offset, void *ret, uint32_t n)
{
        volatile uint8_t *window = device_window(t->device);

        if (!window)
                return read_region(t, WORKER_REGION_WINDOW, offset, ret, n);
        memcpy(ret, (const uint8_t *) window + offset, n);
        return GUEST_WORKED;
}

/* Writes to the guest's half, and remembers it. */
static GuestStep write_window(Turn *t, uint64_t offset, const void *data, uint32_t n)
{
        volatile uint8_t *window = device_window(t->device);

        guest_store(t->g, t->d->window_at + offset, data, n);
        if (!window)
                return write_region(t, false, WORKER_REGION_WINDOW, offset, data, n);
        memcpy((uint8_t *) window + offset, data, n);
        return GUEST_WORKED;
}

/* `what`, for a report, must be as it stands in the guest's memory. Says where it is not. */
static GuestStep compare(Turn *t, const char *what, const void *expected, const void *seen, size_t n)
{
        const uint8_t *a = expected, *b = seen;
        size_t at = 0;

        if (memcmp(a, b, n) == 0)
                return GUEST_WORKED;
        while (a[at] == b[at])
                at++;
        return wrong(t, "%s: byte %zu of %zu: expected %#04x, seen %#04x", what, at, n, a[at], b[at]);
}

/* ---- interrupts and ticks ------------------------------------------------------------------------------------ */

static GuestStep take_interrupts(Turn *t)
{
        SET(t->g, t->d->interrupts, t->d->interrupts + device_take_interrupts(t->device, WORKER_IRQ_DONE));
        if (t->d->interrupts > t->d->posted)
                return wrong(t, "%llu interrupts for %llu commands", (ull) t->d->interrupts,
                             (ull) t->d->posted);
        return GUEST_WORKED;
}

/* TICKS, after its interrupts were taken: there can't be more of them. */
static GuestStep read_ticks(Turn *t, uint64_t *ret)
{
        uint64_t n = device_take_interrupts(t->device, WORKER_IRQ_TICK);

        SET(t->g, t->d->tick_interrupts, t->d->tick_interrupts + n);
        TRY(get(t, WORKER_REG_TICKS, ret));
        guest_see(t->g, *ret);
        if (*ret < t->d->ticks)
                return wrong(t, "TICKS went back from %llu to %llu", (ull) t->d->ticks, (ull) *ret);
        if (t->d->tick_interrupts > *ret)
                return wrong(t, "%llu tick interrupts for %llu ticks", (ull) t->d->tick_interrupts,
                             (ull) *ret);
        SET(t->g, t->d->ticks, *ret);
        return GUEST_WORKED;
}

typedef struct TickPage {
        uint64_t tick, sum, end;
} TickPage;

static void read_tick_page(const Turn *t, unsigned i, TickPage *ret)
{
        const uint8_t *page = guest_at(t->g, t->d->tick_ring_at + i * RAM_PAGE);

        memcpy(&ret->tick, page + WORKER_TICK_AT, sizeof ret->tick);
        memcpy(&ret->sum, page + WORKER_TICK_SUM_AT, sizeof ret->sum);
        memcpy(&ret->end, page + WORKER_TICK_END_AT, sizeof ret->end);
}

/* The page that ticks i + 1, i + 1 + DRIVER_TICK_PAGES, ... write, read some time after tick `first` was there and
 * before tick `last` + 1 began. When only one of its ticks fits, all of the page must be of that one; else it may
 * be just being written. */
static GuestStep check_tick_page(Turn *t, unsigned i, const TickPage *page, uint64_t first, uint64_t last)
{
        uint64_t k = first > i ? (first - i - 1) / DRIVER_TICK_PAGES * DRIVER_TICK_PAGES + i + 1 : 0;
        uint64_t next = k > 0 ? k + DRIVER_TICK_PAGES : i + 1;
        uint64_t address = ram_address(t->g->ram, guest_at(t->g, t->d->tick_ring_at + i * RAM_PAGE));
        bool fits = (page->tick == k || (page->tick >= next && page->tick <= last)) &&
                    (page->end == k || (page->end >= next && page->end <= last));

        if (fits && last < next)
                fits = page->sum == (k > 0 ? worker_tick_sum(k, address) : 0);
        if (!fits)
                return wrong(t, "tick page %u: expected tick %llu of %llu, seen %llu, %llu, sum %#llx", i,
                             (ull) k, (ull) first, (ull) page->tick, (ull) page->end, (ull) page->sum);
        return GUEST_WORKED;
}

/* All of them. `still`: none is being written. */
static GuestStep check_tick_pages(Turn *t, bool still)
{
        TickPage pages[DRIVER_TICK_PAGES];
        uint64_t first, last;

        TRY(read_ticks(t, &first));
        for (unsigned i = 0; i < DRIVER_TICK_PAGES; i++)
                read_tick_page(t, i, &pages[i]);
        TRY(read_ticks(t, &last));
        if (still && last != first)
                return wrong(t, "ticks went on when they were off: %llu, then %llu", (ull) first, (ull) last);
        for (unsigned i = 0; i < DRIVER_TICK_PAGES; i++)
                TRY(check_tick_page(t, i, &pages[i], first, still ? last : last + 1));
        return GUEST_WORKED;
}

/* ---- commands ------------------------------------------------------------------------------------------------ */

static WorkerSlot *slot_of(const Turn *t, uint64_t n)
{
        return guest_at(t->g, t->d->ring_at + worker_slot_address(0, n));
}

static unsigned buffer_of(uint64_t n)
{
        return (unsigned) ((n - 1) % DRIVER_DEPTH);
}

static GuestStep check_slot(Turn *t, uint64_t n)
{
        const WorkerSlot *slot = slot_of(t, n);

        if (!worker_slot_is_good(slot, n))
                return wrong(t, "slot of command %llu: it is of command %llu", (ull) n, (ull) slot->seq);
        return GUEST_WORKED;
}

/* What command n left in memory and in the window. */
static GuestStep check_data(Turn *t, uint64_t n, uint64_t chain)
{
        const DriverBuffer *buffer = &t->d->buffers[buffer_of(n)];
        const WorkerSlot *slot = slot_of(t, n);
        const uint8_t *result_at = guest_at(t->g, buffer->result_at);
        const WorkerResult *result = (const WorkerResult *) result_at;
        uint8_t window[WORKER_WINDOW_PIECE_MAX];
        WorkerResult expected = {n, chain, result->ticks, slot->length, {}};
        char what[64];

        TRY(check_slot(t, n));
        (void) snprintf(what, sizeof what, "result of command %llu", (ull) n);
        TRY(compare(t, what, &expected, result, sizeof expected));
        worker_transform(chain, guest_at(t->g, buffer->source_at), t->g->buffer, slot->length);
        (void) snprintf(what, sizeof what, "data of command %llu", (ull) n);
        TRY(compare(t, what, t->g->buffer, result_at + sizeof expected, slot->length));
        TRY(read_window(t, slot->window_offset, window, slot->window_length));
        (void) snprintf(what, sizeof what, "window piece of command %llu", (ull) n);
        return compare(t, what, guest_at(t->g, t->d->window_at + slot->window_offset), window,
                       slot->window_length);
}

/* The device's half of the window, for command n, one of the last HISTORY. */
static GuestStep check_window_word(Turn *t, uint64_t n)
{
        const uint64_t *history = guest_at(t->g, t->d->history_at);
        uint64_t expected = history[n % WORKER_WINDOW_WORDS], seen;

        TRY(read_window(t, worker_window_word(n), &seen, sizeof seen));
        if (seen != expected)
                return wrong(t, "window word of command %llu: expected %#llx, seen %#llx", (ull) n,
                             (ull) expected, (ull) seen);
        return GUEST_WORKED;
}

/* Command n, the next after `done`, has been signalled. */
static GuestStep check_command(Turn *t, uint64_t n)
{
        Driver *d = t->d;
        DriverBuffer *buffer = &d->buffers[buffer_of(n)];
        const WorkerSlot *slot = slot_of(t, n);
        const WorkerResult *result = guest_at(t->g, buffer->result_at);
        uint64_t *history = guest_at(t->g, d->history_at);
        uint64_t chain;

        TRY(check_slot(t, n));
        chain = worker_chain(d->chain, slot, guest_at(t->g, buffer->source_at),
                             guest_at(t->g, d->window_at + slot->window_offset), d->scratch);
        TRY(check_data(t, n, chain));
        if (result->ticks < d->result_ticks)
                return wrong(t, "command %llu was done at tick %llu, the one before at tick %llu", (ull) n,
                             (ull) result->ticks, (ull) d->result_ticks);
        SET(t->g, d->result_ticks, result->ticks);
        SET(t->g, d->ticks, MAX(d->ticks, d->result_ticks));
        SET(t->g, history[n % WORKER_WINDOW_WORDS], chain);
        SET(t->g, buffer->chain, chain);
        SET(t->g, d->chain, chain);
        SET(t->g, d->bytes, d->bytes + slot->length);
        guest_see(t->g, chain);
        TRY(check_window_word(t, n));
        return check_window_word(t, n - draw(t) % MIN(n, HISTORY));
}

static uint32_t draw_length(Turn *t)
{
        uint64_t kind = draw(t) % 16;

        if (kind < 8)
                return (uint32_t) (draw(t) % 256);
        if (kind < 14)
                return (uint32_t) (draw(t) % RAM_PAGE);
        return (uint32_t) (draw(t) % (WORKER_LENGTH_MAX + 1));
}

static uint64_t draw_delay_usec(Turn *t)
{
        uint64_t kind = draw(t) % 64;

        if (kind == 0)
                return draw(t) % 50000;
        return kind < 8 ? draw(t) % 5000 : 0;
}

/* `n` bytes that nothing else has. */
static void fill(Turn *t, uint64_t n)
{
        uint64_t x = draw(t) | 1;

        for (uint64_t i = 0; i < n; i += sizeof x) {
                x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
                memcpy(t->g->buffer + i, &x, MIN(n - i, sizeof x));
        }
}

/* A posted write has no answer, so it is looked for now and then. */
static GuestStep ring(Turn *t, uint64_t n)
{
        TRY(put(t, draw(t) % 4 != 0, WORKER_REG_DOORBELL, n));
        return draw(t) % 4 == 0 ? expect(t, "DOORBELL", WORKER_REG_DOORBELL, n) : GUEST_WORKED;
}

/* Writes the next command, and its number to DOORBELL: at once, or with a later one. */
static GuestStep post(Turn *t)
{
        Driver *d = t->d;
        uint64_t n = d->posted + 1;
        unsigned i = buffer_of(n);
        DriverBuffer *buffer = &d->buffers[i];
        WorkerSlot slot = {.seq = n, .window_offset = PIECE(i)};

        /* What a device has written is looked at once more before it goes, so that none of its pages is lost unseen
         * because it had been read before the VM moved. */
        if (n > DRIVER_DEPTH)
                TRY(check_data(t, n - DRIVER_DEPTH, buffer->chain));
        slot.flags = draw(t) % 4 == 0 ? WORKER_BY_MESSAGE : 0;
        slot.length = draw_length(t);
        slot.source = ram_address(t->g->ram, guest_at(t->g, buffer->source_at));
        slot.destination = ram_address(t->g->ram, guest_at(t->g, buffer->result_at));
        slot.window_length = (uint32_t) (draw(t) % (draw(t) % 8 == 0 ? WORKER_WINDOW_PIECE_MAX + 1 : 128));
        slot.delay_usec = draw_delay_usec(t);
        fill(t, slot.window_length);
        TRY(write_window(t, slot.window_offset, t->g->buffer, slot.window_length));
        fill(t, slot.length);
        guest_store(t->g, buffer->source_at, t->g->buffer, slot.length);
        SET(t->g, *slot_of(t, n), slot);
        SET(t->g, d->posted, n);
        if (n == d->batch_end || draw(t) % 2)
                TRY(ring(t, n));
        return n == d->batch_end ? go_on(t, DRIVER_COLLECT) : GUEST_WORKED;
}

/* No interrupt for what is open. */
static GuestStep wait_for_command(Turn *t)
{
        uint64_t done;

        if (waited_usec(t) < LOST_USEC)
                return GUEST_WAITS;
        TRY(get(t, WORKER_REG_DONE, &done));
        TRY(take_interrupts(t));
        if (done > t->d->interrupts)
                return wrong(t, "%llu interrupts for %llu commands that are done: one is lost",
                             (ull) t->d->interrupts, (ull) done);
        if (waited_usec(t) > STUCK_USEC)
                return wrong(t, "command %llu is not done", (ull) t->d->done + 1);
        return GUEST_WAITS;
}

static GuestStep collect(Turn *t)
{
        Driver *d = t->d;
        uint64_t done;

        TRY(take_interrupts(t));
        if (d->interrupts == d->done)
                return wait_for_command(t);
        TRY(get(t, WORKER_REG_DONE, &done));
        if (done < d->interrupts || done > d->posted)
                return wrong(t, "%llu interrupts, DONE is %llu, %llu were posted", (ull) d->interrupts,
                             (ull) done, (ull) d->posted);
        TRY(check_command(t, d->done + 1));
        SET(t->g, d->done, d->done + 1);
        if (d->done < d->posted)
                return go_on(t, DRIVER_COLLECT);
        TRY(expect(t, "CHAIN", WORKER_REG_CHAIN, d->chain));
        return go_on(t, DRIVER_SCRATCH);
}

/* ---- looks at a device without commands ---------------------------------------------------------------------- */

static GuestStep check_scratch(Turn *t)
{
        uint8_t seen[WORKER_SCRATCH_SIZE];

        TRY(read_region(t, WORKER_REGION_REGISTERS, WORKER_REG_SCRATCH, seen, sizeof seen));
        return compare(t, "SCRATCH", t->d->scratch, seen, sizeof seen);
}

static GuestStep write_scratch(Turn *t)
{
        fill(t, WORKER_SCRATCH_SIZE);
        ram_store(t->g->ram, t->d->scratch, t->g->buffer, WORKER_SCRATCH_SIZE);
        return write_region(t, draw(t) % 2, WORKER_REGION_REGISTERS, WORKER_REG_SCRATCH, t->d->scratch,
                            WORKER_SCRATCH_SIZE);
}

/* All in one message: found in pieces, or not at all, it was torn or lost on the way. */
static GuestStep do_scratch(Turn *t)
{
        TRY(check_scratch(t));
        TRY(write_scratch(t));
        TRY(check_scratch(t));
        return go_on(t, DRIVER_CONFIG);
}

static GuestStep do_config(Turn *t)
{
        uint8_t seen[WORKER_CONFIG_SIZE];
        uint32_t value = (uint32_t) draw(t);
        uint32_t at = (uint32_t) (CONFIG_FREE + draw(t) % (WORKER_CONFIG_SIZE - CONFIG_FREE) / 4 * 4);

        ram_store(t->g->ram, t->d->config + at, &value, sizeof value);
        TRY(write_region(t, false, WORKER_REGION_CONFIG, at, &value, sizeof value));
        TRY(read_region(t, WORKER_REGION_CONFIG, 0, seen, sizeof seen));
        TRY(compare(t, "config space", t->d->config, seen, sizeof seen));
        return go_on(t, DRIVER_REGISTERS);
}

static uint64_t ring_address(const Turn *t)
{
        return ram_address(t->g->ram, guest_at(t->g, t->d->ring_at));
}

static uint64_t tick_ring_address(const Turn *t)
{
        return ram_address(t->g->ram, guest_at(t->g, t->d->tick_ring_at));
}

static GuestStep do_registers(Turn *t)
{
        TRY(take_interrupts(t));
        switch (draw(t) % 5) {
        case 0: TRY(expect(t, "MAGIC", WORKER_REG_MAGIC, WORKER_MAGIC)); break;
        case 1: TRY(expect(t, "RING", WORKER_REG_RING, ring_address(t))); break;
        case 2: TRY(expect(t, "TICK_RING", WORKER_REG_TICK_RING, tick_ring_address(t))); break;
        case 3: TRY(expect(t, "TICK_PAGES", WORKER_REG_TICK_PAGES, DRIVER_TICK_PAGES)); break;
        case 4: TRY(expect(t, "TICK_USEC", WORKER_REG_TICK_USEC, DRIVER_TICK_USEC)); break;
        }
        TRY(expect(t, "DOORBELL", WORKER_REG_DOORBELL, t->d->posted));
        TRY(expect(t, "DONE", WORKER_REG_DONE, t->d->done));
        return go_on(t, DRIVER_TICKS);
}

static GuestStep start_round(Turn *t)
{
        SET(t->g, t->d->batch_end, t->d->posted + 1 + draw(t) % DRIVER_DEPTH);
        return go_on(t, DRIVER_POST);
}

static GuestStep do_ticks(Turn *t)
{
        TRY(check_tick_pages(t, false));
        return draw(t) % 8 == 0 ? go_on(t, DRIVER_STILL) : start_round(t);
}

/* Ticks are off for a moment: now nothing may be missing. */
static GuestStep do_still(Turn *t)
{
        TRY(put(t, false, WORKER_REG_TICK_USEC, 0));
        return go_on(t, DRIVER_STILL_WAIT);
}

static GuestStep do_still_wait(Turn *t)
{
        uint64_t ticks;

        TRY(read_ticks(t, &ticks));
        if (t->d->tick_interrupts < ticks && waited_usec(t) < LOST_USEC)
                return GUEST_WAITS;
        if (t->d->tick_interrupts < ticks)
                return wrong(t, "%llu tick interrupts for %llu ticks: some are lost",
                             (ull) t->d->tick_interrupts, (ull) ticks);
        TRY(check_tick_pages(t, true));
        TRY(put(t, false, WORKER_REG_TICK_USEC, DRIVER_TICK_USEC));
        return start_round(t);
}

/* ---- the first ----------------------------------------------------------------------------------------------- */

static GuestStep do_reset(Turn *t)
{
        int r = device_reset(t->device);

        if (r < 0)
                return wrong(t, "DEVICE_RESET: %s", strerror(-r));
        /* Of nothing that this guest asked for. */
        for (unsigned i = 0; i < DEVICE_VECTORS_MAX; i++)
                (void) device_take_interrupts(t->device, i);
        TRY(expect(t, "MAGIC", WORKER_REG_MAGIC, WORKER_MAGIC));
        TRY(expect(t, "DONE", WORKER_REG_DONE, 0));
        TRY(expect(t, "TICKS", WORKER_REG_TICKS, 0));
        TRY(expect(t, "CHAIN", WORKER_REG_CHAIN, 0));
        return go_on(t, DRIVER_SETUP);
}

/* From here on it writes into its peer, so no device is reset any more. */
static GuestStep set_peer(Turn *t)
{
        uint64_t address = device_peer_address(t->device);

        if (address == 0)
                return GUEST_WORKED;
        for (unsigned i = 0; i < t->g->n_devices; i++)
                if (guest_driver(t->g, i)->phase == DRIVER_RESET)
                        return GUEST_WAITS;
        return put(t, false, WORKER_REG_PEER, address);
}

static GuestStep do_setup(Turn *t)
{
        uint8_t config[WORKER_CONFIG_SIZE];
        uint16_t id[2];
        static const uint16_t bus_master = 0x0006;
        GuestStep step = set_peer(t);

        if (step != GUEST_WORKED)
                return step;
        TRY(write_region(t, false, WORKER_REGION_CONFIG, 4, &bus_master, sizeof bus_master));
        TRY(read_region(t, WORKER_REGION_CONFIG, 0, config, sizeof config));
        memcpy(id, config, sizeof id);
        if (id[0] != WORKER_VENDOR || id[1] != WORKER_DEVICE)
                return wrong(t, "it is a %04x:%04x", id[0], id[1]);
        ram_store(t->g->ram, t->d->config, config, sizeof config);
        memset(t->g->buffer, 0, WORKER_WINDOW_PIECE_MAX);
        for (unsigned i = 0; i < DRIVER_DEPTH; i++)
                TRY(write_window(t, PIECE(i), t->g->buffer, WORKER_WINDOW_PIECE_MAX));
        TRY(write_scratch(t));
        TRY(put(t, false, WORKER_REG_RING, ring_address(t)));
        TRY(put(t, false, WORKER_REG_TICK_RING, tick_ring_address(t)));
        TRY(put(t, false, WORKER_REG_TICK_PAGES, DRIVER_TICK_PAGES));
        TRY(put(t, false, WORKER_REG_TICK_USEC, DRIVER_TICK_USEC));
        return go_on(t, DRIVER_SCRATCH);
}

/* Never across the border between two areas: for a device they are not neighbours. */
static uint64_t take_memory(const Guest *g, uint64_t *at, uint64_t size)
{
        uint64_t border = g->ram->areas[1].offset, start = *at;

        if (start < border && start + size > border)
                start = border;
        *at = start + size;
        return start;
}

void driver_boot(Guest *g, unsigned i, uint64_t *at, uint64_t *message_at)
{
        Driver first = {.magic = GUEST_MAGIC, .random = GUEST_MAGIC * (2 * i + 3)};

        first.ring_at = take_memory(g, at, WORKER_SLOTS * sizeof(WorkerSlot));
        first.tick_ring_at = take_memory(g, at, DRIVER_TICK_PAGES * RAM_PAGE);
        first.history_at = take_memory(g, at, WORKER_WINDOW_WORDS * sizeof(uint64_t));
        first.window_at = take_memory(g, at, WORKER_GUEST_WINDOW_SIZE);
        for (unsigned b = 0; b < DRIVER_DEPTH; b++) {
                first.buffers[b].source_at =
                        take_memory(g, b < FIRST_SOURCE_BY_MESSAGE ? at : message_at, WORKER_LENGTH_MAX);
                first.buffers[b].result_at =
                        take_memory(g, b < FIRST_RESULT_BY_MESSAGE ? at : message_at, RESULT_SIZE);
        }
        guest_store(g, guest_root(g)->drivers_at + i * RAM_PAGE, &first, sizeof first);
}

GuestStep driver_step(Guest *g, unsigned i)
{
        static GuestStep (*const steps[])(Turn *) = {
                [DRIVER_RESET] = do_reset,
                [DRIVER_SETUP] = do_setup,
                [DRIVER_SCRATCH] = do_scratch,
                [DRIVER_CONFIG] = do_config,
                [DRIVER_REGISTERS] = do_registers,
                [DRIVER_TICKS] = do_ticks,
                [DRIVER_STILL] = do_still,
                [DRIVER_STILL_WAIT] = do_still_wait,
                [DRIVER_POST] = post,
                [DRIVER_COLLECT] = collect,
        };
        Turn t = {g, g->devices[i], guest_driver(g, i)};

        if (t.d->magic != GUEST_MAGIC || t.d->phase >= DRIVER_PHASE_MAX)
                return wrong(&t, "the page of its driver is something else");
        return steps[t.d->phase](&t);
}
