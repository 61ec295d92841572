/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Notes on parked connections, in memory that outlives the daemon however it ends: a file without a name (memfd_create(2)), which
 * is parked beside them. A note is for the next daemon, and bound to its socket (SO_COOKIE in socket(7)), not to the number that a
 * process has for it.
 *
 * Each daemon writes an index of its own, from the start, and takes the notes from the one of the daemon before. Owned by the parking.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/macros.h"

#define PARKING_NOTE_MAX 232

typedef struct ParkingIndex ParkingIndex;

/* An empty one, to be written. -errno. */
int parking_index_new(ParkingIndex **ret) _must_check_;
/* That of a daemon before, to be read once: whoever opens it next, because this daemon's own has not come as far as to the store,
 * gets -EBADMSG. So does who opens what is no index, or one that somebody could make shorter while it is read, or of another
 * version. Takes `fd` over, also when it fails. */
int parking_index_open(int fd, ParkingIndex **ret) _must_check_;
/* Its file lives on in whoever has it, too. */
ParkingIndex *parking_index_free(ParkingIndex *index);

/* Its file, to be parked. */
int parking_index_fd(const ParkingIndex *index);

/* The note on a socket that we have as `fd`, instead of the one before. It holds at once, and whole, or not at all: also when the
 * process is killed meanwhile. At most PARKING_NOTE_MAX bytes. Of a descriptor with a very large number none is kept. */
void parking_index_put(ParkingIndex *index, int fd, const void *note, size_t size);
/* From now on there is none. */
void parking_index_remove(ParkingIndex *index, int fd);

/* Copies the note on a socket, if there is one of just that size. Whose bytes these are nobody has looked at. */
bool parking_index_find(const ParkingIndex *index, int fd, void *ret_note, size_t size);

DEFINE_CLEANUP(ParkingIndex *, parking_index_free);
