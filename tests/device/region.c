/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "region.h"

uint64_t region_size(const Device *d, uint32_t index)
{
        if (index == WORKER_REGION_MEMORY)
                return d->memory.size;
        if (!d->worker)
                return 0;
        switch (index) {
        case WORKER_REGION_REGISTERS: return WORKER_REGISTERS_SIZE;
        case WORKER_REGION_WINDOW: return WORKER_WINDOW_SIZE;
        case WORKER_REGION_MAILBOX: return d->mailbox ? WORKER_MAILBOX_SIZE : 0;
        case WORKER_REGION_CONFIG: return WORKER_CONFIG_SIZE;
        default: return 0;
        }
}

int region_file(const Device *d, uint32_t index)
{
        if (index == WORKER_REGION_WINDOW && d->worker)
                return d->worker->window_fd;
        return index == WORKER_REGION_MAILBOX && d->mailbox ? d->mailbox->fd : -1;
}

static bool region_has(const Device *d, uint32_t index, uint64_t offset, size_t n)
{
        uint64_t size = index < REGIONS ? region_size(d, index) : 0;

        /* A memory of no bytes is a region still. */
        return (size > 0 || index == WORKER_REGION_MEMORY) && offset <= size && n <= size - offset;
}

/* ---- registers ----------------------------------------------------------------------------------------------- */

#define REGISTERS_END (WORKER_REG_TICKS + 8)
#define SCRATCH_END   (WORKER_REG_SCRATCH + WORKER_SCRATCH_SIZE)

typedef enum Place {
        IN_REGISTER,
        IN_SCRATCH,
        IN_HOLE,
        ASTRIDE,
} Place;

static Place find_place(uint64_t offset, size_t n)
{
        uint64_t end = offset + n;

        if (offset < REGISTERS_END)
                return end <= (offset | 7) + 1 ? IN_REGISTER : ASTRIDE;
        if (offset < WORKER_REG_SCRATCH)
                return end <= WORKER_REG_SCRATCH ? IN_HOLE : ASTRIDE;
        if (offset < SCRATCH_END)
                return end <= SCRATCH_END ? IN_SCRATCH : ASTRIDE;
        return IN_HOLE;
}

static uint64_t get_register(const Worker *w, uint64_t offset)
{
        switch (offset & ~UINT64_C(7)) {
        case WORKER_REG_MAGIC: return WORKER_MAGIC;
        case WORKER_REG_RING: return w->s.ring;
        case WORKER_REG_DOORBELL: return w->s.doorbell;
        case WORKER_REG_DONE: return w->s.done;
        case WORKER_REG_CHAIN: return w->s.chain;
        case WORKER_REG_TICK_RING: return w->s.tick_ring;
        case WORKER_REG_TICK_PAGES: return w->s.tick_pages;
        case WORKER_REG_TICK_USEC: return w->s.tick_usec;
        case WORKER_REG_TICKS: return w->s.ticks;
        default: return 0;
        }
}

static int ring_doorbell(Worker *w, uint64_t value)
{
        if (value < w->s.doorbell || value - w->s.done > WORKER_SLOTS)
                return -EINVAL;
        w->s.doorbell = value;
        worker_kick(w);
        return 0;
}

static int set_tick_pages(Worker *w, uint64_t value)
{
        if (!worker_tick_pages_are_good(value))
                return -EINVAL;
        w->s.tick_pages = value;
        worker_wind(w);
        return 0;
}

/* What cannot be written stays as it is, without a word, as in most hardware. */
static int set_register(Worker *w, uint64_t offset, uint64_t value)
{
        switch (offset & ~UINT64_C(7)) {
        case WORKER_REG_DOORBELL: return ring_doorbell(w, value);
        case WORKER_REG_TICK_PAGES: return set_tick_pages(w, value);
        case WORKER_REG_RING: w->s.ring = value; break;
        case WORKER_REG_TICK_RING: w->s.tick_ring = value; break;
        case WORKER_REG_TICK_USEC:
                w->s.tick_usec = value;
                worker_wind(w);
                break;
        default: break;
        }
        return 0;
}

static int read_registers(const Worker *w, uint64_t offset, size_t n, uint8_t *to)
{
        uint64_t value;

        switch (find_place(offset, n)) {
        case IN_REGISTER:
                value = get_register(w, offset);
                memcpy(to, (const uint8_t *) &value + offset % 8, n);
                return 0;
        case IN_SCRATCH: memcpy(to, w->s.scratch + (offset - WORKER_REG_SCRATCH), n); return 0;
        case IN_HOLE: memset(to, 0, n); return 0;
        case ASTRIDE: break;
        }
        return -EINVAL;
}

static int write_registers(Worker *w, uint64_t offset, size_t n, const uint8_t *from)
{
        uint64_t value;

        switch (find_place(offset, n)) {
        case IN_REGISTER:
                value = get_register(w, offset);
                memcpy((uint8_t *) &value + offset % 8, from, n);
                return set_register(w, offset, value);
        case IN_SCRATCH: memcpy(w->s.scratch + (offset - WORKER_REG_SCRATCH), from, n); return 0;
        case IN_HOLE: return 0;
        case ASTRIDE: break;
        }
        return -EINVAL;
}

static bool is_peer(const Device *d, uint64_t offset, size_t n)
{
        return d->mailbox && offset == WORKER_REG_PEER && n == sizeof d->mailbox->s.peer;
}

/* ---- all of them --------------------------------------------------------------------------------------------- */

static int write_peer(Device *d, const uint8_t *from)
{
        uint64_t address;

        memcpy(&address, from, sizeof address);
        mailbox_set_peer(d->mailbox, address);
        return 0;
}

int region_read(const Device *d, uint32_t index, uint64_t offset, size_t n, uint8_t *to)
{
        if (!region_has(d, index, offset, n))
                return -EINVAL;
        if (n == 0)
                return 0;
        switch (index) {
        case WORKER_REGION_MEMORY: memcpy(to, d->memory.data + offset, n); return 0;
        case WORKER_REGION_REGISTERS:
                if (!is_peer(d, offset, n))
                        return read_registers(d->worker, offset, n, to);
                memcpy(to, &d->mailbox->s.peer, n);
                return 0;
        case WORKER_REGION_WINDOW: memcpy(to, d->worker->window + offset, n); return 0;
        case WORKER_REGION_MAILBOX: memcpy(to, d->mailbox->memory + offset, n); return 0;
        case WORKER_REGION_CONFIG: memcpy(to, d->worker->s.config + offset, n); return 0;
        default: return -EINVAL;
        }
}

int region_write(Device *d, uint32_t index, uint64_t offset, size_t n, const uint8_t *from)
{
        if (!region_has(d, index, offset, n))
                return -EINVAL;
        if (n == 0)
                return 0;
        switch (index) {
        case WORKER_REGION_MEMORY: memory_write(&d->memory, offset, from, n); return 0;
        case WORKER_REGION_REGISTERS:
                worker_remember(d->worker);
                return is_peer(d, offset, n) ? write_peer(d, from)
                                             : write_registers(d->worker, offset, n, from);
        case WORKER_REGION_WINDOW: memcpy(d->worker->window + offset, from, n); return 0;
        case WORKER_REGION_MAILBOX: memcpy(d->mailbox->memory + offset, from, n); return 0;
        case WORKER_REGION_CONFIG:
                memcpy(d->worker->s.config + offset, from, n);
                worker_correct_config(d->worker->s.config);
                return 0;
        default: return -EINVAL;
        }
}
