/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The guest's memory as a device sees it: what its client has mapped for it, the transfers to and from there, and the log
 * of the pages that the device has written. Owned by the Device, and empty again when the client is gone.
 *
 * A map that came with a file is accessed directly. What has none is asked for, by a message to the client and one at a
 * time: a transfer that needs that takes time. The client may be a liar, so its sizes are checked here, and memory that
 * its file no longer has is memory that is not there.
 */

#include <sys/queue.h>
#include <sys/types.h>

#include "common/macros.h"

#define DMA_MAPS_MAX 65535 /* the protocol's default of max_dma_maps */
#define DMA_PAGE_MIN UINT64_C(4096)

enum {
        DMA_READABLE = 1 << 0, /* as on the wire */
        DMA_WRITEABLE = 1 << 1,
};

typedef struct DmaMap {
        uint64_t address, size;
        uint64_t offset;
        uint32_t flags;
        uint8_t *data; /* NULL: by message */
        dev_t device;  /* of the file */
        ino_t inode;
        uint8_t *dirty; /* one bit a page while there is a log; NULL: by message */
} DmaMap;

/* Some bytes to or from the guest's memory. Its owner fills in the first part and keeps it until it has ended. */
typedef struct DmaTransfer DmaTransfer;
struct DmaTransfer {
        uint64_t address;
        uint8_t *data;
        size_t n;
        bool write, by_message;
        void (*ended)(DmaTransfer *t, int r); /* if it took time */

        size_t at;         /* so much is done */
        bool active, last; /* has not ended; ends with the answer that it waits for */
        TAILQ_ENTRY(DmaTransfer) entry;
};

/* Who can ask the client: a Client. It answers with dma_answered(), but never from within. */
typedef struct DmaAsker {
        void (*ask)(void *userdata, bool write, uint64_t address, const uint8_t *data, size_t n);
        void *userdata;
        size_t max; /* of one message */
} DmaAsker;

typedef struct Dma {
        DmaMap *maps; /* in order of address */
        size_t n, room;
        uint64_t log_page; /* 0: there is no log */
        DmaAsker asker;
        bool asked;          /* an answer is to come */
        DmaTransfer *asking; /* who wants it; NULL: nobody any more */
        TAILQ_HEAD(, DmaTransfer) waiting;
} Dma;

void dma_init(Dma *dma);
/* The client is gone, and what it has mapped. Transfers end here, without a word to their owners. */
void dma_clear(Dma *dma);

/* ---- maps ---------------------------------------------------------------------------------------------------- */

/* `fd` stays the caller's; -1: by message. The same map again is one map. -EINVAL: what cannot be, or overlaps; -ENOSPC:
 * too many; -ENOMEM and what mmap() says. */
int dma_map(Dma *dma, uint64_t address, uint64_t size, uint64_t offset, uint32_t flags, int fd) _must_check_;
/* `map` is one of them. */
void dma_unmap(Dma *dma, DmaMap *map);
void dma_unmap_all(Dma *dma);

/* The map that this address lies in, or NULL. */
DmaMap *dma_find(const Dma *dma, uint64_t address);
/* The map of just this range, or NULL. */
DmaMap *dma_find_exactly(const Dma *dma, uint64_t address, uint64_t size);

/* ---- transfers ----------------------------------------------------------------------------------------------- */

#define DMA_UNDER_WAY 1

/* 0: done. DMA_UNDER_WAY: ended() will be called. -EFAULT: not all of it is mapped, or not for this. */
int dma_transfer(Dma *dma, DmaTransfer *t) _must_check_;

/* Ends it with what is out now. False: it has ended, and ended() is not called. True: an answer is waited for, and ended()
 * will say 0, if that was the last of it, or -ECANCELED. */
bool dma_transfer_cut(Dma *dma, DmaTransfer *t);
/* Nobody wants it any more: ended() is not called. */
void dma_transfer_drop(Dma *dma, DmaTransfer *t);

/* What the client answered: 0 and for a read the `n` bytes that were asked for, or an errno. */
void dma_answered(Dma *dma, int r, const uint8_t *data, size_t n);

/* ---- the log ------------------------------------------------------------------------------------------------- */

static inline bool dma_page_size_is_good(uint64_t page_size)
{
        return page_size >= DMA_PAGE_MIN && (page_size & (page_size - 1)) == 0;
}

/* The bytes of a bitmap for `size` bytes of memory: whole words of 64 bits. */
uint64_t dma_bitmap_size(uint64_t size, uint64_t page_size);

/* -EINVAL: the page size cannot be, or is not that of a log that there is. -ENOMEM. */
int dma_log_start(Dma *dma, uint64_t page_size) _must_check_;
void dma_log_stop(Dma *dma);

/* The bitmap of the first `length` bytes of the map at `address`, and clears it. Ask dma_log_check() first. */
void dma_log_take(Dma *dma, uint64_t address, uint64_t length, uint8_t *ret_bitmap);
/* -ENOENT: nothing is mapped there. -EINVAL: there is no log of this page size, or of this map, or the range is not a map or
 * its beginning. */
int dma_log_check(const Dma *dma, uint64_t address, uint64_t length, uint64_t page_size) _must_check_;
