/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "parking-index.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* "MGI" and the version: of the layout here, and of what is noted. */
#define MAGIC       0x0149474Du
#define MAGIC_TAKEN 0u

/* By descriptor. What is not used takes no memory. */
#define SLOTS_MAX 65536u

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

typedef struct Slot {
        uint64_t cookie;
        uint32_t size; /* 0: there is no note */
        uint32_t reserved;
        uint8_t note[PARKING_NOTE_MAX];
} Slot;

static_assert(sizeof(Slot) == 248, "the layout that MAGIC stands for");

typedef struct File {
        uint32_t magic;
        uint32_t n; /* slots behind these have never been used, and reading them would take memory */
        Slot slots[SLOTS_MAX];
} File;

struct ParkingIndex {
        File *file;
        int fd;
        const Slot **by_cookie; /* to be read: those with a note */
        size_t n;
};

static bool cookie_of(int fd, uint64_t *ret)
{
        socklen_t size = sizeof *ret;

        return getsockopt(fd, SOL_SOCKET, SO_COOKIE, ret, &size) == 0 && size == sizeof *ret;
}

/* ---- writing ------------------------------------------------------------------------------------------------- */

static Slot *slot_of(const ParkingIndex *index, int fd)
{
        return fd >= 0 && (uint32_t) fd < SLOTS_MAX ? &index->file->slots[fd] : NULL;
}

void parking_index_remove(ParkingIndex *index, int fd)
{
        Slot *slot = slot_of(index, fd);

        /* Before anything else that the caller does. Another process reads it, but only after our death: what the compiler may
         * not reorder is enough. */
        if (slot && slot->size > 0)
                __atomic_store_n(&slot->size, 0, __ATOMIC_SEQ_CST);
}

void parking_index_put(ParkingIndex *index, int fd, const void *note, size_t size)
{
        Slot *slot = slot_of(index, fd);
        uint64_t cookie;

        parking_index_remove(index, fd);
        if (!slot || size > sizeof slot->note || !cookie_of(fd, &cookie))
                return;
        if (index->file->n <= (uint32_t) fd)
                __atomic_store_n(&index->file->n, (uint32_t) fd + 1, __ATOMIC_SEQ_CST);
        slot->cookie = cookie;
        memcpy(slot->note, note, size);
        __atomic_store_n(&slot->size, (uint32_t) size, __ATOMIC_SEQ_CST);
}

/* ---- reading ------------------------------------------------------------------------------------------------- */

static int by_cookie(const void *a, const void *b)
{
        uint64_t x = (*(const Slot *const *) a)->cookie, y = (*(const Slot *const *) b)->cookie;

        return x < y ? -1 : x > y;
}

static int sort(ParkingIndex *index)
{
        const Slot *slots = index->file->slots;
        size_t n_slots = MIN(index->file->n, SLOTS_MAX), n = 0;

        for (size_t i = 0; i < n_slots; i++)
                n += slots[i].size > 0;
        index->by_cookie = calloc(n + 1, sizeof *index->by_cookie);
        if (!index->by_cookie)
                return -ENOMEM;
        for (size_t i = 0; i < n_slots && index->n < n; i++)
                if (slots[i].size > 0)
                        index->by_cookie[index->n++] = &slots[i];
        qsort(index->by_cookie, index->n, sizeof *index->by_cookie, by_cookie);
        return 0;
}

bool parking_index_find(const ParkingIndex *index, int fd, void *ret_note, size_t size)
{
        Slot key;
        const Slot *wanted = &key, **found;

        if (size > PARKING_NOTE_MAX || !cookie_of(fd, &key.cookie))
                return false;
        found = bsearch(&wanted, index->by_cookie, index->n, sizeof *index->by_cookie, by_cookie);
        if (!found || (*found)->size != size)
                return false;
        memcpy(ret_note, (*found)->note, size);
        return true;
}

/* ---- life ---------------------------------------------------------------------------------------------------- */

int parking_index_fd(const ParkingIndex *index)
{
        return index->fd;
}

ParkingIndex *parking_index_free(ParkingIndex *index)
{
        if (!index)
                return NULL;
        if (index->file)
                (void) munmap(index->file, sizeof *index->file);
        (void) close(index->fd);
        free(index->by_cookie);
        free(index);
        return NULL;
}

/* Takes `fd` over, also when it fails. */
static int map(int fd, ParkingIndex **ret)
{
        _cleanup_(parking_index_freep) ParkingIndex *index = calloc(1, sizeof *index);
        void *file;

        if (!index) {
                (void) close(fd);
                return -ENOMEM;
        }
        index->fd = fd;
        file = mmap(NULL, sizeof *index->file, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (file == MAP_FAILED)
                return -errno;
        index->file = file;
        *ret = TAKE_PTR(index);
        return 0;
}

int parking_index_new(ParkingIndex **ret)
{
        int fd = memfd_create("migmgrd index", MFD_CLOEXEC | MFD_ALLOW_SEALING), r;

        if (fd < 0)
                return -errno;
        if (ftruncate(fd, sizeof(File)) < 0 || fcntl(fd, F_ADD_SEALS, SEALS) < 0) {
                r = -errno;
                (void) close(fd);
                return r;
        }
        r = map(fd, ret);
        if (r == 0)
                (*ret)->file->magic = MAGIC;
        return r;
}

int parking_index_open(int fd, ParkingIndex **ret)
{
        _cleanup_(parking_index_freep) ParkingIndex *index = NULL;
        int seals = fcntl(fd, F_GET_SEALS), r;
        struct stat st;

        if (seals < 0 || (seals & SEALS) != SEALS || fstat(fd, &st) < 0 || st.st_size != sizeof(File)) {
                (void) close(fd);
                return -EBADMSG;
        }
        r = map(fd, &index);
        if (r < 0)
                return r;
        if (__atomic_exchange_n(&index->file->magic, MAGIC_TAKEN, __ATOMIC_SEQ_CST) != MAGIC)
                return -EBADMSG;
        r = sort(index);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(index);
        return 0;
}
