/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "dirty.h"

#include <endian.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "agent-protocol.h"

#define PAGE_MIN UINT64_C(4096)

typedef struct DirtyLog {
        Dirty dirty;
        uint32_t open;      /* questions that are not answered */
        int status;         /* the first that went wrong */
        bool freed;         /* ... by its owner: goes with the last answer */
        DeviceDone on_done; /* who waits, or NULL */
        void *userdata;
} DirtyLog;

/* One question. */
typedef struct Asked {
        DirtyLog *log;
        DirtyRange place; /* that it is about; without a bitmap */
} Asked;

static uint64_t pages_of(uint64_t size, uint64_t page_size)
{
        return size / page_size + (size % page_size != 0);
}

static size_t bytes_of(uint64_t n_pages)
{
        return (size_t) ((n_pages + 63) / 64 * sizeof(uint64_t));
}

int dirty_new(const AgentDevice *device, const Broker *broker, Dirty **ret)
{
        const DeviceFacts *facts = agent_device_facts(device);
        DirtyLog *log = calloc(1, sizeof *log);
        const BrokerMap *maps;
        uint32_t n_maps = broker_maps(broker, &maps);

        if (!log)
                return -ENOMEM;
        log->dirty.page_size = PAGE_MIN;
        for (uint32_t i = 0; i < n_maps; i++)
                while (pages_of(maps[i].size, log->dirty.page_size) > AGENT_DIRTY_PAGES_MAX)
                        log->dirty.page_size *= 2;
        for (uint32_t i = 0; i < facts->n_memory; i++)
                while (pages_of(facts->memory[i].size, log->dirty.page_size) > AGENT_DIRTY_PAGES_MAX)
                        log->dirty.page_size *= 2;
        *ret = &log->dirty;
        return 0;
}

static void destroy(DirtyLog *log)
{
        for (uint32_t i = 0; i < log->dirty.n; i++)
                free(log->dirty.ranges[i].bitmap);
        free(log->dirty.ranges);
        free(log);
}

Dirty *dirty_free(Dirty *dirty)
{
        DirtyLog *log = (DirtyLog *) dirty;

        if (!log)
                return NULL;
        log->freed = true;
        log->on_done = NULL;
        if (log->open == 0)
                destroy(log);
        return NULL;
}

int dirty_others_add(DirtyOthers *others, const AgentFile *files, uint32_t n)
{
        AgentFile *all = realloc(others->files, (others->n + n) * sizeof *all + 1);

        if (!all)
                return -ENOMEM;
        memcpy(all + others->n, files, n * sizeof *files);
        others->files = all;
        others->n += n;
        return 0;
}

void dirty_others_clear(DirtyOthers *others)
{
        free(others->files);
        *others = (DirtyOthers){};
}

/* ---- reading ------------------------------------------------------------------------------------------------- */

/* Where a mapping is and what it maps. The descriptor's number says neither: it may be another file's tomorrow. */
static int place_of(const BrokerMap *map, uint64_t page_size, DirtyRange *ret)
{
        struct stat st;

        if (fstat(map->fd, &st) < 0)
                return -errno;
        *ret = (DirtyRange){.address = map->address,
                            .n_pages = pages_of(map->size, page_size),
                            .size = map->size,
                            .offset = map->offset,
                            .dev = st.st_dev,
                            .ino = st.st_ino};
        return 0;
}

static bool same_place(const DirtyRange *a, const DirtyRange *b)
{
        return a->address == b->address && a->size == b->size && a->offset == b->offset && a->dev == b->dev &&
               a->ino == b->ino;
}

/* Adds what was read of one mapping. One that was there before has its range. */
static int add(Dirty *dirty, const DirtyRange *place, const uint64_t *words)
{
        uint64_t n_pages = place->n_pages;
        DirtyRange *range = NULL;

        for (uint32_t i = 0; i < dirty->n && !range; i++)
                if (same_place(&dirty->ranges[i], place))
                        range = &dirty->ranges[i];
        if (!range) {
                DirtyRange *ranges = realloc(dirty->ranges, (dirty->n + 1) * sizeof *ranges);

                if (!ranges)
                        return -ENOMEM;
                dirty->ranges = ranges;
                range = &ranges[dirty->n];
                *range = *place;
                range->bitmap = calloc(1, bytes_of(n_pages));
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

static void on_report(void *userdata, int status, const void *words)
{
        Asked *asked = userdata;
        DirtyLog *log = asked->log;
        DeviceDone on_done = log->on_done;

        if (status == 0 && !log->freed)
                status = add(&log->dirty, &asked->place, words);
        if (status < 0 && log->status == 0)
                log->status = status;
        free(asked);
        if (--log->open > 0)
                return;
        if (log->freed) {
                destroy(log);
                return;
        }
        log->on_done = NULL;
        if (on_done)
                on_done(log->userdata, log->status);
}

static int ask(DirtyLog *log, AgentDevice *device, const DirtyRange *place)
{
        Asked *asked;
        int r;

        if (place->n_pages > AGENT_DIRTY_PAGES_MAX)
                return -E2BIG; /* it was mapped after the log began */
        asked = malloc(sizeof *asked);
        if (!asked)
                return -ENOMEM;
        *asked = (Asked){log, *place};
        r = agent_device_log_report(device, place->address, place->size, log->dirty.page_size, on_report,
                                    asked);
        if (r < 0)
                free(asked);
        else
                log->open++;
        return r;
}

static void note_failure(DirtyLog *log, int r)
{
        if (r < 0 && log->status == 0)
                log->status = r;
}

/* What a device was told of when it was opened. */
static void note_memory(DirtyLog *log, AgentDevice *device)
{
        const DeviceFacts *facts = agent_device_facts(device);

        for (uint32_t i = 0; i < facts->n_memory; i++) {
                DirtyRange place = {.address = facts->memory[i].address,
                                    .n_pages = pages_of(facts->memory[i].size, log->dirty.page_size),
                                    .size = facts->memory[i].size,
                                    .no_file = true};

                note_failure(log, ask(log, device, &place));
        }
}

static bool is_others(const DirtyOthers *others, const DirtyRange *place)
{
        for (uint32_t i = 0; i < others->n; i++)
                if (others->files[i].dev == place->dev && others->files[i].ino == place->ino)
                        return true;
        return false;
}

static void note_map(DirtyLog *log, AgentDevice *device, const BrokerMap *map, const DirtyOthers *others)
{
        DirtyRange place;
        int r;

        if (map->fd < 0)
                return;
        r = place_of(map, log->dirty.page_size, &place);
        if (r < 0 || !is_others(others, &place))
                note_failure(log, r < 0 ? r : ask(log, device, &place));
}

void dirty_note(Dirty *dirty, AgentDevice *device, const BrokerMap *map, const DirtyOthers *others)
{
        note_map((DirtyLog *) dirty, device, map, others);
}

int dirty_read(Dirty *dirty, AgentDevice *device, const Broker *broker, const DirtyOthers *others,
               DeviceDone on_done, void *userdata)
{
        DirtyLog *log = (DirtyLog *) dirty;
        const BrokerMap *maps;
        uint32_t n_maps = broker_maps(broker, &maps);

        for (uint32_t i = 0; i < n_maps; i++)
                note_map(log, device, &maps[i], others);
        note_memory(log, device);
        if (log->open == 0)
                return log->status < 0 ? log->status : 1;
        log->on_done = on_done;
        log->userdata = userdata;
        return 0;
}

static bool is_mapped(const Dirty *dirty, const DirtyRange *range, const BrokerMap *maps, uint32_t n_maps)
{
        for (uint32_t i = 0; i < n_maps; i++) {
                DirtyRange place;

                if (maps[i].fd >= 0 && maps[i].address == range->address &&
                    place_of(&maps[i], dirty->page_size, &place) >= 0 && same_place(&place, range))
                        return true;
        }
        return false;
}

bool dirty_is_mapped(const Dirty *dirty, const Broker *broker)
{
        const BrokerMap *maps;
        uint32_t n_maps = broker_maps(broker, &maps);

        for (uint32_t i = 0; i < dirty->n; i++)
                if (dirty->ranges[i].any && !dirty->ranges[i].no_file &&
                    !is_mapped(dirty, &dirty->ranges[i], maps, n_maps))
                        return false;
        return true;
}

void dirty_abandon(Dirty *dirty)
{
        ((DirtyLog *) dirty)->on_done = NULL;
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
        *ret_size = MIN((*at - from) * dirty->page_size, range->size - from * dirty->page_size);
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
