/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "guest-memory.h"

#include <stdarg.h>
#include <stdio.h>

#define SWEEP_PAGES 16 /* of the ballast, checked in one step */
#define HALF        (RAM_PAGE / 2)

int guest_init(Guest *g, Ram *ram, Device **devices, unsigned n_devices)
{
        *g = (Guest){.ram = ram, .devices = devices, .n_devices = n_devices};
        g->buffer = malloc(WORKER_LENGTH_MAX);
        return g->buffer ? 0 : -ENOMEM;
}

void guest_done(Guest *g)
{
        free(g->buffer);
}

GuestStep guest_break(Guest *g, const char *format, ...)
{
        Root *root = guest_root(g);
        char text[GUEST_BROKEN_MAX] = "";
        int n = snprintf(text, sizeof text, "step %llu, ", (unsigned long long) root->steps);
        va_list ap;

        va_start(ap, format);
        (void) vsnprintf(text + n, sizeof text - (size_t) n, format, ap);
        va_end(ap);
        ram_store(g->ram, root->broken, text, sizeof text);
        return GUEST_BROKEN;
}

/* ---- ballast ------------------------------------------------------------------------------------------------- */

/* A page of version 0 was never written. */
static uint64_t ballast_word(uint64_t page, uint32_t version, unsigned which)
{
        uint64_t parts[] = {page, version, which};

        return version == 0 ? 0 : worker_sum(WORKER_SUM_START, parts, sizeof parts);
}

static void ballast_write(Guest *g, uint64_t page)
{
        Root *root = guest_root(g);
        uint32_t *versions = guest_at(g, root->versions_at);
        uint64_t at = root->ballast_at + page * RAM_PAGE;

        SET(g, versions[page], versions[page] + 1);
        SET(g, root->ballast_sum, root->ballast_sum + 1);
        if (page < root->sweep_at)
                SET(g, root->sweep_sum, root->sweep_sum + 1);
        for (unsigned i = 0; i < 2; i++) {
                uint64_t word = ballast_word(page, versions[page], i);

                guest_store(g, at + i * HALF, &word, sizeof word);
        }
}

static GuestStep ballast_check(Guest *g, uint64_t page)
{
        Root *root = guest_root(g);
        const uint32_t *versions = guest_at(g, root->versions_at);

        for (unsigned i = 0; i < 2; i++) {
                uint64_t word, expected = ballast_word(page, versions[page], i);

                memcpy(&word, guest_at(g, root->ballast_at + page * RAM_PAGE + i * HALF), sizeof word);
                if (word != expected)
                        return guest_break(
                                g, "memory page %llu is not of version %u: expected %#llx, seen %#llx",
                                (unsigned long long) (root->ballast_at / RAM_PAGE + page), versions[page],
                                (unsigned long long) expected, (unsigned long long) word);
        }
        return GUEST_WORKED;
}

/* Rewrites one page somewhere, after a look at what it was, and looks at the next few. At the end of a sweep the sum
 * over all versions shows whether the table itself is right. */
static GuestStep ballast_step(Guest *g)
{
        Root *root = guest_root(g);
        const uint32_t *versions = guest_at(g, root->versions_at);
        uint64_t page = guest_random(g, &root->random) % root->ballast_pages;

        if (ballast_check(g, page) == GUEST_BROKEN)
                return GUEST_BROKEN;
        ballast_write(g, page);
        for (unsigned i = 0; i < SWEEP_PAGES && root->sweep_at < root->ballast_pages; i++) {
                if (ballast_check(g, root->sweep_at) == GUEST_BROKEN)
                        return GUEST_BROKEN;
                SET(g, root->sweep_sum, root->sweep_sum + versions[root->sweep_at]);
                SET(g, root->sweep_at, root->sweep_at + 1);
        }
        if (root->sweep_at < root->ballast_pages)
                return GUEST_WAITS;
        if (root->sweep_sum != root->ballast_sum)
                return guest_break(g, "versions of memory pages: expected a sum of %llu, seen %llu",
                                   (unsigned long long) root->ballast_sum,
                                   (unsigned long long) root->sweep_sum);
        guest_see(g, root->sweep_sum);
        SET(g, root->sweep_at, 0);
        SET(g, root->sweep_sum, 0);
        return GUEST_WAITS;
}

/* ---- the program --------------------------------------------------------------------------------------------- */

int guest_boot(Guest *g)
{
        const RamArea *high = &g->ram->areas[1], *message = &g->ram->areas[2];
        uint64_t at = RAM_PAGE, message_at = message->offset, end = high->offset + high->size - RAM_PAGE;
        Root *root = guest_root(g), first = {.magic = GUEST_MAGIC, .n_devices = g->n_devices};

        first.random = GUEST_MAGIC;
        first.chain = WORKER_SUM_START;
        first.mirror_at = end;
        first.drivers_at = at;
        at += g->n_devices * RAM_PAGE;
        first.versions_at = at;
        at += g->ram->pages * sizeof(uint32_t);
        if (at + g->n_devices * DRIVER_BYTES >= end || g->n_devices * DRIVER_MESSAGE_BYTES > message->size)
                return -ENOSPC;
        guest_store(g, 0, &first, sizeof first);
        for (unsigned i = 0; i < g->n_devices; i++)
                driver_boot(g, i, &at, &message_at);
        SET(g, root->ballast_at, at);
        SET(g, root->ballast_pages, (end - at) / RAM_PAGE);
        /* The other pages are zero until their turn comes. */
        for (uint64_t page = 0; page < root->ballast_pages; page += 2)
                ballast_write(g, page);
        guest_store(g, root->mirror_at, &(Mirror){.chain = root->chain}, sizeof(Mirror));
        return 0;
}

static GuestStep check_root(Guest *g)
{
        Root *root = guest_root(g);
        const Mirror *mirror;

        if (root->magic != GUEST_MAGIC || root->n_devices != g->n_devices)
                return guest_break(g, "the first page is not this guest's");
        mirror = guest_at(g, root->mirror_at);
        if (mirror->steps != root->steps || mirror->chain != root->chain)
                return guest_break(g, "two pages are of different moments: step %llu and step %llu",
                                   (unsigned long long) root->steps, (unsigned long long) mirror->steps);
        return GUEST_WORKED;
}

GuestStep guest_step(Guest *g)
{
        Root *root = guest_root(g);
        GuestStep step = root->broken[0] ? GUEST_BROKEN : check_root(g);
        uint64_t turn = root->turn;

        if (step == GUEST_BROKEN)
                return step;
        step = turn < g->n_devices ? driver_step(g, (unsigned) turn) : ballast_step(g);
        if (step == GUEST_BROKEN)
                return step;
        SET(g, root->turn, turn < g->n_devices ? turn + 1 : 0);
        SET(g, root->steps, root->steps + 1);
        guest_store(g, root->mirror_at, &(Mirror){root->steps, root->chain}, sizeof(Mirror));
        return step;
}

void guest_pass(Guest *g, uint64_t usec)
{
        Root *root = guest_root(g);

        SET(g, root->clock_usec, root->clock_usec + usec);
}

/* ---- for people ---------------------------------------------------------------------------------------------- */

uint64_t guest_steps(const Guest *g)
{
        return guest_root(g)->steps;
}

uint64_t guest_chain(const Guest *g)
{
        return guest_root(g)->chain;
}

void guest_count(const Guest *g, unsigned device, GuestDeviceCount *ret)
{
        const Driver *d = guest_driver(g, device);

        *ret = (GuestDeviceCount){d->done, d->interrupts, d->ticks, d->tick_interrupts, d->bytes};
}

void guest_broken(const Guest *g, char ret[GUEST_BROKEN_MAX])
{
        memcpy(ret, guest_root(g)->broken, GUEST_BROKEN_MAX);
        ret[GUEST_BROKEN_MAX - 1] = '\0';
}
