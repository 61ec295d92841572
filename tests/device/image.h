/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The migration data of an emulated device: a stream that says what it is and can be checked to the last bit.
 *
 *   header     magic, version, size of the memory, flags
 *   records    offset, length, checksum of the data; then the data: one page, the last one may be short
 *   end        offset of all ones, length 0, checksum of all headers before it
 *
 * Host byte order, as vfio-user. Every page is in the stream at least once; the last one counts. That makes a
 * pre-copy and the stop-copy after it one stream and one load.
 *
 * What else a device has is its appendix, of a size that both ends know: records too, at offsets from 2^63, made when the
 * device stands still and before the end.
 *
 * A Saver or a Loader is one such stream under way. Both are owned by the Device and point to its memory.
 */

#include "memory.h"

typedef struct Saver Saver;
typedef struct Loader Loader;

/* The checksum of every page of a saved or loaded memory; where that memory is now does not matter. */
typedef struct PageSums {
        uint32_t *sums; /* NULL: nothing was saved or loaded */
        uint64_t size;
} PageSums;

void page_sums_done(PageSums *p);
/* Takes the sums out of `from`. */
void page_sums_move(PageSums *p, PageSums *from);
/* Of the whole memory. The caller has asked for p->sums. */
uint32_t page_sums_total(const PageSums *p);

/* A stream from `memory`, with an appendix of so many bytes. With `pre_copy` the device goes on changing its memory meanwhile: it is watched, and after
 * the first pass the stream gives what has changed and pauses while nothing has, until saver_finish(). NULL: out of memory. */
Saver *saver_new(Memory *memory, uint64_t appendix_size, bool pre_copy);
Saver *saver_free(Saver *s);

/* The device stands still now: what has changed is read too, and then the end. Needed without `pre_copy` too. Returns where
 * the appendix has to be put, now. */
uint8_t *saver_finish(Saver *s);

/* Fills `buffer` as far as there is something; 0: nothing now, or nothing more. */
uint64_t saver_read(Saver *s, uint8_t *buffer, uint64_t n);

/* Nothing more comes from this stream, although it is not complete. */
void saver_cut(Saver *s);

/* True once, when the end has just been read; the sums are the caller's then. */
bool saver_completed(Saver *s, PageSums *ret_sums);

/* A stream into `memory`, from now on, with an appendix of so many bytes. NULL: out of memory. */
Loader *loader_new(Memory *memory, uint64_t appendix_size);
Loader *loader_free(Loader *l);

/* Takes in everything: a stream is judged at its end. */
void loader_write(Loader *l, const uint8_t *data, uint64_t n);

/* Whether all of one good stream came, and nothing after it: 0 and the appendix, which is the loader's, or -EINVAL. */
int loader_check(const Loader *l, const uint8_t **ret_appendix) _must_check_;
/* It was good, and nobody has found fault with the appendix. */
void loader_finish(Loader *l, PageSums *ret_sums);

/* Whether anything came at all. */
bool loader_is_fresh(const Loader *l);

DEFINE_CLEANUP(Saver *, saver_free);
DEFINE_CLEANUP(Loader *, loader_free);
