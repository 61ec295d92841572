/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "dirty.h"

#include <endian.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "agent-protocol.h"

#define PAGE_MIN UINT64_C(4096)

/* One reading under way. */
typedef struct Reading {
        VfioUserDevice *device;
        const Broker *broker;
        BrokerMap map;   /* that was asked about */
        uint64_t *words; /* what the device answers */
        DeviceDone on_done;
        void *userdata;
} Reading;

typedef struct DirtyLog {
        Dirty dirty;
        Reading reading;
} DirtyLog;

static uint64_t pages_of(uint64_t size, uint64_t page_size)
{
        return size / page_size + (size % page_size != 0);
}

static size_t bytes_of(uint64_t n_pages)
{
        return (size_t) ((n_pages + 63) / 64 * sizeof(uint64_t));
}

int dirty_new(const Broker *broker, Dirty **ret)
{
        DirtyLog *log = calloc(1, sizeof *log);
        const BrokerMap *maps;
        uint32_t n_maps = broker_maps(broker, &maps);

        if (!log)
                return -ENOMEM;
        log->dirty.page_size = PAGE_MIN;
        for (uint32_t i = 0; i < n_maps; i++)
                while (pages_of(maps[i].size, log->dirty.page_size) > AGENT_DIRTY_PAGES_MAX)
                        log->dirty.page_size *= 2;
        *ret = &log->dirty;
        return 0;
}

Dirty *dirty_free(Dirty *dirty)
{
        DirtyLog *log = (DirtyLog *) dirty;

        if (!log)
                return NULL;
        for (uint32_t i = 0; i < dirty->n; i++)
                free(dirty->ranges[i].bitmap);
        free(dirty->ranges);
        free(log->reading.words);
        free(log);
        return NULL;
}

/* ---- reading ------------------------------------------------------------------------------------------------- */

/* Adds what was read of one mapping. A mapping that was there before has its range. */
static int add(Dirty *dirty, const BrokerMap *map, const uint64_t *words)
{
        uint64_t n_pages = pages_of(map->size, dirty->page_size);
        DirtyRange *range = NULL;

        for (uint32_t i = 0; i < dirty->n && !range; i++)
                if (dirty->ranges[i].address == map->address && dirty->ranges[i].n_pages == n_pages)
                        range = &dirty->ranges[i];
        if (!range) {
                DirtyRange *ranges = realloc(dirty->ranges, (dirty->n + 1) * sizeof *ranges);

                if (!ranges)
                        return -ENOMEM;
                dirty->ranges = ranges;
                range = &ranges[dirty->n];
                *range = (DirtyRange){
                        .address = map->address, .n_pages = n_pages, .bitmap = calloc(1, bytes_of(n_pages))};
                if (!range->bitmap)
                        return -ENOMEM;
                dirty->n++;
        }
        for (size_t i = 0; i < bytes_of(n_pages) / sizeof *words; i++) {
                range->bitmap[i] |= words[i];
                range->any |= words[i] != 0;
        }
        /* Beyond the mapping's end there is nothing that the guest owns. */
        if (n_pages % 64 != 0)
                range->bitmap[n_pages / 64] &= (UINT64_C(1) << (n_pages % 64)) - 1;
        return 0;
}

static int ask(DirtyLog *log, uint64_t from);

static void answer(DirtyLog *log, int status)
{
        Reading reading = log->reading;

        log->reading = (Reading){};
        free(reading.words);
        reading.on_done(reading.userdata, status);
}

static void on_report(void *userdata, int status)
{
        DirtyLog *log = userdata;
        Reading *reading = &log->reading;

        if (status == 0)
                status = add(&log->dirty, &reading->map, reading->words);
        if (status == 0)
                status = ask(log, reading->map.address + 1);
        if (status != 0)
                answer(log, MIN(status, 0));
}

/* 0: the next mapping, from that address on, was asked about. 1: there is none. */
static int ask(DirtyLog *log, uint64_t from)
{
        Reading *r = &log->reading;
        const BrokerMap *maps;
        uint32_t n_maps = broker_maps(r->broker, &maps);

        for (uint32_t i = 0; i < n_maps; i++) {
                uint64_t n_pages = pages_of(maps[i].size, log->dirty.page_size);

                if (maps[i].fd < 0 || maps[i].address < from)
                        continue;
                if (n_pages > AGENT_DIRTY_PAGES_MAX)
                        return -E2BIG; /* it was mapped after the log began */
                r->map = maps[i];
                free(r->words);
                r->words = calloc(1, bytes_of(n_pages));
                if (!r->words)
                        return -ENOMEM;
                return vfio_user_device_log_report(r->device, r->map.address, r->map.size,
                                                   log->dirty.page_size, r->words, bytes_of(n_pages),
                                                   on_report, log);
        }
        return 1;
}

int dirty_read(Dirty *dirty, VfioUserDevice *device, const Broker *broker, DeviceDone on_done, void *userdata)
{
        DirtyLog *log = (DirtyLog *) dirty;
        int r;

        free(log->reading.words); /* of one that was abandoned */
        log->reading =
                (Reading){.device = device, .broker = broker, .on_done = on_done, .userdata = userdata};
        r = ask(log, 0);
        if (r != 0) {
                free(log->reading.words);
                log->reading = (Reading){};
        }
        return r;
}

/* ---- what was read ------------------------------------------------------------------------------------------- */

static bool is_set(const DirtyRange *range, uint64_t page)
{
        return range->bitmap[page / 64] & (UINT64_C(1) << (page % 64));
}

bool dirty_next(const Dirty *dirty, uint32_t i, uint64_t max, uint64_t *at, uint64_t *ret_address,
                uint64_t *ret_size)
{
        const DirtyRange *range = &dirty->ranges[i];
        uint64_t from;

        while (*at < range->n_pages && !is_set(range, *at))
                *at += *at % 64 == 0 && range->bitmap[*at / 64] == 0 ? 64 : 1;
        if (*at >= range->n_pages)
                return false;
        from = *at;
        do
                ++*at;
        while (*at < range->n_pages && is_set(range, *at) && (*at - from + 1) * dirty->page_size <= max);
        *ret_address = range->address + from * dirty->page_size;
        *ret_size = (*at - from) * dirty->page_size;
        return true;
}

int dirty_file(const Dirty *dirty, uint32_t i)
{
        const DirtyRange *range = &dirty->ranges[i];
        _cleanup_(closep) int fd = memfd_create("dirty-pages", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        size_t size = bytes_of(range->n_pages);

        if (fd < 0)
                return -errno;
        for (size_t k = 0; k < size / sizeof(uint64_t); k++)
                range->bitmap[k] = htole64(range->bitmap[k]);
        for (size_t done = 0; done < size;) {
                ssize_t n = pwrite(fd, (const uint8_t *) range->bitmap + done, size - done, (off_t) done);

                if (n < 0)
                        return -errno;
                done += (size_t) n;
        }
        for (size_t k = 0; k < size / sizeof(uint64_t); k++)
                range->bitmap[k] = le64toh(range->bitmap[k]);
        if (fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
                return -errno;
        return TAKE_FD(fd);
}
