/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "dma.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include "guard.h"

void dma_init(Dma *dma)
{
        *dma = (Dma){.n = 0};
        TAILQ_INIT(&dma->waiting);
}

void dma_clear(Dma *dma)
{
        dma_unmap_all(dma);
        free(TAKE_PTR(dma->maps));
        dma_init(dma);
}

/* ---- maps ---------------------------------------------------------------------------------------------------- */

/* The first map that ends behind `address`, or dma->n. */
static size_t find_index(const Dma *dma, uint64_t address)
{
        size_t low = 0, high = dma->n;

        while (low < high) {
                size_t middle = low + (high - low) / 2;
                const DmaMap *m = &dma->maps[middle];

                if (address - m->address < m->size || address < m->address)
                        high = middle;
                else
                        low = middle + 1;
        }
        return low;
}

DmaMap *dma_find(const Dma *dma, uint64_t address)
{
        size_t i = find_index(dma, address);

        return i < dma->n && dma->maps[i].address <= address ? &dma->maps[i] : NULL;
}

DmaMap *dma_find_exactly(const Dma *dma, uint64_t address, uint64_t size)
{
        DmaMap *m = dma_find(dma, address);

        return m && m->address == address && m->size == size ? m : NULL;
}

/* mmap() wants whole pages of the file. */
static uint64_t in_page(uint64_t offset)
{
        return offset % (uint64_t) sysconf(_SC_PAGESIZE);
}

static void map_done(DmaMap *m)
{
        uint64_t before = in_page(m->offset);

        if (m->data)
                (void) munmap(m->data - before, m->size + before);
        free(m->dirty);
}

static int look_at_file(DmaMap *m, int fd)
{
        struct stat st;

        if (fstat(fd, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode) || m->offset > (uint64_t) st.st_size ||
            m->size > (uint64_t) st.st_size - m->offset)
                return -EINVAL;
        m->device = st.st_dev;
        m->inode = st.st_ino;
        return 0;
}

static int map_file(DmaMap *m, int fd)
{
        int protection =
                (m->flags & DMA_READABLE ? PROT_READ : 0) | (m->flags & DMA_WRITEABLE ? PROT_WRITE : 0);
        uint64_t before = in_page(m->offset);
        void *data;

        if (m->size > SIZE_MAX - before)
                return -ENOMEM;
        data = mmap(NULL, (size_t) (m->size + before), protection, MAP_SHARED, fd,
                    (off_t) (m->offset - before));
        if (data == MAP_FAILED)
                return -errno;
        m->data = (uint8_t *) data + before;
        return 0;
}

static int map_log(DmaMap *m, uint64_t page_size)
{
        m->dirty = calloc(dma_bitmap_size(m->size, page_size), 1);
        return m->dirty ? 0 : -ENOMEM;
}

static int make_room(Dma *dma)
{
        size_t room = dma->room ? dma->room * 2 : 16;
        DmaMap *maps;

        if (dma->n == DMA_MAPS_MAX)
                return -ENOSPC;
        if (dma->n < dma->room)
                return 0;
        maps = realloc(dma->maps, room * sizeof *maps);
        if (!maps)
                return -ENOMEM;
        dma->maps = maps;
        dma->room = room;
        return 0;
}

static bool is_same(const DmaMap *a, const DmaMap *b, bool b_has_file)
{
        return a->address == b->address && a->size == b->size && a->offset == b->offset &&
               a->flags == b->flags && (a->data != NULL) == b_has_file && a->device == b->device &&
               a->inode == b->inode;
}

static int open_map(const Dma *dma, DmaMap *m, int fd)
{
        int r = 0;

        if (fd >= 0)
                r = map_file(m, fd);
        if (r == 0 && m->data && dma->log_page)
                r = map_log(m, dma->log_page);
        if (r < 0)
                map_done(m);
        return r;
}

int dma_map(Dma *dma, uint64_t address, uint64_t size, uint64_t offset, uint32_t flags, int fd)
{
        DmaMap m = {.address = address, .size = size, .offset = offset, .flags = flags};
        size_t at = find_index(dma, address);
        int r = fd >= 0 ? look_at_file(&m, fd) : 0;

        if (r < 0)
                return r;
        if (size == 0 || address > UINT64_MAX - size || (flags & ~(uint32_t) (DMA_READABLE | DMA_WRITEABLE)))
                return -EINVAL;
        if (at < dma->n && is_same(&dma->maps[at], &m, fd >= 0))
                return 0;
        if (at < dma->n && dma->maps[at].address < address + size)
                return -EINVAL;
        r = make_room(dma);
        if (r == 0)
                r = open_map(dma, &m, fd);
        if (r < 0)
                return r;
        memmove(dma->maps + at + 1, dma->maps + at, (dma->n - at) * sizeof m);
        dma->maps[at] = m;
        dma->n++;
        return 0;
}

void dma_unmap(Dma *dma, DmaMap *map)
{
        map_done(map);
        dma->n--;
        memmove(map, map + 1, (dma->n - (size_t) (map - dma->maps)) * sizeof *map);
}

void dma_unmap_all(Dma *dma)
{
        while (dma->n > 0)
                map_done(&dma->maps[--dma->n]);
}

/* ---- the log ------------------------------------------------------------------------------------------------- */

static uint64_t pages_of(uint64_t size, uint64_t page_size)
{
        return size / page_size + (size % page_size != 0);
}

uint64_t dma_bitmap_size(uint64_t size, uint64_t page_size)
{
        return (pages_of(size, page_size) + 63) / 64 * 8;
}

static void note_pages(const Dma *dma, DmaMap *m, uint64_t address, size_t n)
{
        uint64_t offset = address - m->address;

        if (!m->dirty || n == 0)
                return;
        for (uint64_t p = offset / dma->log_page; p <= (offset + n - 1) / dma->log_page; p++)
                m->dirty[p / 8] |= (uint8_t) (1 << p % 8);
}

int dma_log_start(Dma *dma, uint64_t page_size)
{
        if (dma->log_page)
                return dma->log_page == page_size ? 0 : -EINVAL;
        if (!dma_page_size_is_good(page_size))
                return -EINVAL;
        dma->log_page = page_size;
        for (size_t i = 0; i < dma->n; i++)
                if (dma->maps[i].data && map_log(&dma->maps[i], page_size) < 0) {
                        dma_log_stop(dma);
                        return -ENOMEM;
                }
        return 0;
}

void dma_log_stop(Dma *dma)
{
        for (size_t i = 0; i < dma->n; i++)
                free(TAKE_PTR(dma->maps[i].dirty));
        dma->log_page = 0;
}

int dma_log_check(const Dma *dma, uint64_t address, uint64_t length, uint64_t page_size)
{
        const DmaMap *m = dma_find(dma, address);

        if (!dma->log_page || page_size != dma->log_page)
                return -EINVAL;
        if (!m)
                return -ENOENT;
        if (!m->dirty || address != m->address || length == 0 || length > m->size ||
            (length != m->size && length % page_size != 0))
                return -EINVAL;
        return 0;
}

void dma_log_take(Dma *dma, uint64_t address, uint64_t length, uint8_t *ret_bitmap)
{
        DmaMap *m = dma_find(dma, address);
        uint64_t pages = pages_of(length, dma->log_page), bytes = pages / 8;

        memset(ret_bitmap, 0, dma_bitmap_size(length, dma->log_page));
        memcpy(ret_bitmap, m->dirty, bytes);
        memset(m->dirty, 0, bytes);
        if (pages % 8 > 0) {
                uint8_t mask = (uint8_t) ((1 << pages % 8) - 1);

                ret_bitmap[bytes] = m->dirty[bytes] & mask;
                m->dirty[bytes] &= (uint8_t) ~mask;
        }
}

/* ---- transfers ----------------------------------------------------------------------------------------------- */

/* How much can be done at once at an address, of `n` bytes: up to the end of the map. 0: nothing. */
static size_t length_here(const DmaMap *m, uint64_t address, size_t n, bool write)
{
        if (!m || !(m->flags & (write ? DMA_WRITEABLE : DMA_READABLE)))
                return 0;
        return (size_t) MIN(n, m->size - (address - m->address));
}

/* Whether all of it is there, so that nothing is done by halves. */
static bool is_mapped(const Dma *dma, const DmaTransfer *t)
{
        size_t at = 0;

        if (t->address > UINT64_MAX - t->n)
                return false;
        while (at < t->n) {
                size_t n = length_here(dma_find(dma, t->address + at), t->address + at, t->n - at, t->write);

                if (n == 0)
                        return false;
                at += n;
        }
        return true;
}

static bool copy_here(const Dma *dma, DmaMap *m, DmaTransfer *t, uint64_t address, size_t n)
{
        uint8_t *there = m->data + (address - m->address);

        if (!t->write)
                return guard_copy(t->data + t->at, there, n);
        note_pages(dma, m, address, n);
        return guard_copy(there, t->data + t->at, n);
}

static void ask(Dma *dma, DmaTransfer *t, uint64_t address, size_t n)
{
        dma->asked = true;
        dma->asking = t;
        dma->asker.ask(dma->asker.userdata, t->write, address, t->data + t->at, n);
        t->at += n;
}

/* As far as it goes without waiting. */
static int go_on(Dma *dma, DmaTransfer *t)
{
        while (t->at < t->n) {
                uint64_t address = t->address + t->at;
                DmaMap *m = dma_find(dma, address);
                size_t n = length_here(m, address, t->n - t->at, t->write);

                if (n == 0)
                        return -EFAULT;
                if (m->data && !t->by_message) {
                        if (!copy_here(dma, m, t, address, n))
                                return -EFAULT;
                        t->at += n;
                        continue;
                }
                if (!dma->asker.ask || dma->asker.max == 0)
                        return -EFAULT;
                if (dma->asked)
                        TAILQ_INSERT_TAIL(&dma->waiting, t, entry);
                else
                        ask(dma, t, address, MIN(n, dma->asker.max));
                return DMA_UNDER_WAY;
        }
        return 0;
}

int dma_transfer(Dma *dma, DmaTransfer *t)
{
        int r;

        t->at = 0;
        t->last = false;
        if (!is_mapped(dma, t))
                return -EFAULT;
        r = go_on(dma, t);
        t->active = r == DMA_UNDER_WAY;
        return r;
}

bool dma_transfer_cut(Dma *dma, DmaTransfer *t)
{
        if (t->active && dma->asking == t)
                t->last = true;
        else
                dma_transfer_drop(dma, t);
        return t->active;
}

void dma_transfer_drop(Dma *dma, DmaTransfer *t)
{
        if (!t->active)
                return;
        t->active = false;
        if (dma->asking == t)
                dma->asking = NULL;
        else
                TAILQ_REMOVE(&dma->waiting, t, entry);
}

static void end_transfer(DmaTransfer *t, int r)
{
        t->active = false;
        t->ended(t, r);
}

static void take_answer(Dma *dma, DmaTransfer *t, int r)
{
        if (r == 0 && t->at < t->n && !t->last)
                TAILQ_INSERT_TAIL(&dma->waiting, t, entry); /* who waits comes first */
        else
                end_transfer(t, r == 0 && t->at < t->n ? -ECANCELED : r);
}

void dma_answered(Dma *dma, int r, const uint8_t *data, size_t n)
{
        DmaTransfer *t = TAKE_PTR(dma->asking);

        dma->asked = false;
        if (t && r == 0 && !t->write)
                memcpy(t->data + t->at - n, data, n);
        if (t)
                take_answer(dma, t, r);
        while (!dma->asked && (t = TAILQ_FIRST(&dma->waiting))) {
                TAILQ_REMOVE(&dma->waiting, t, entry);
                r = go_on(dma, t);
                if (r != DMA_UNDER_WAY)
                        end_transfer(t, r);
        }
}
