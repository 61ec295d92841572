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

/* A stream from `memory`. With `pre_copy` the device goes on changing its memory meanwhile: it is watched, and the
 * stream pauses after the first pass, until saver_finish(). NULL: out of memory. */
Saver *saver_new(Memory *memory, bool pre_copy);
Saver *saver_free(Saver *s);

/* The device stands still now: what has changed is read too, and then the end. */
void saver_finish(Saver *s);

/* Fills `buffer` as far as there is something; 0: nothing now, or nothing more. */
uint64_t saver_read(Saver *s, uint8_t *buffer, uint64_t n);

/* Nothing more comes from this stream, although it is not complete. */
void saver_cut(Saver *s);

/* True once, when the end has just been read; the sums are the caller's then. */
bool saver_completed(Saver *s, PageSums *ret_sums);

/* A stream into `memory`, from now on. NULL: out of memory. */
Loader *loader_new(Memory *memory);
Loader *loader_free(Loader *l);

/* Takes in everything: a stream is judged at its end. */
void loader_write(Loader *l, const uint8_t *data, uint64_t n);

/* Whether all of one good stream came, and nothing after it: 0 and the sums, or -EINVAL. */
int loader_finish(Loader *l, PageSums *ret_sums) _must_check_;

/* Whether anything came at all. */
bool loader_is_fresh(const Loader *l);

DEFINE_CLEANUP(Saver *, saver_free);
DEFINE_CLEANUP(Loader *, loader_free);
