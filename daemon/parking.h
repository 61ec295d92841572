/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Connections to agents that outlive the daemon: they are parked in the file-descriptor store of whoever started it, systemd or
 * somebody who speaks its protocol (FDSTORE=1 in sd_notify(3)), and come back with the next start.
 *
 * All have one name. Names travel in the environment, and a long one for each of thousands would keep the service from
 * starting. To which agent a descriptor leads the kernel knows: it is the path at which it was connected.
 *
 * Beside them lies an index (parking-index.h): what is known of an agent that is not asked for anything, so that the next
 * daemon need not wake up thousands of processes to hear that nothing has happened.
 *
 * Nobody waits for the store, and nothing hangs on it: an agent that is not in it is found by its path. Without a store all of
 * this does nothing. Owned by main.
 */

#include "loop.h"
#include "parking-index.h"

typedef struct Parking Parking;

/* Takes what was parked, and keeps it out of the programs that are started. */
int parking_new(Loop *loop, Parking **ret) _must_check_;
/* A number that nobody has had before, no earlier daemon either. Not 0. */
uint64_t parking_number(Parking *parking);
/* What is parked stays there. */
Parking *parking_free(Parking *parking);

/* The connection to the agent at `path`, from now on the caller's to end; -1: none was parked. */
int parking_take(Parking *parking, const char *path);
/* What was noted of it, if nobody has said anything on it since; until parking_clear(). Not looked at: it need not make sense. */
bool parking_noted(Parking *parking, int fd, void *ret_note, size_t size);
/* All who may want one have asked: what is left leads nowhere, is closed, and leaves the store. */
void parking_clear(Parking *parking);

/* Has the store keep a connection, in a moment. It stays the caller's to end. */
void parking_put(Parking *parking, int fd);
/* What the next daemon may take for true of whom it leads to, until that says something: at most PARKING_NOTE_MAX bytes. */
void parking_note(Parking *parking, int fd, const void *note, size_t size);
/* ... and no more: before anything is said to him. */
void parking_forget(Parking *parking, int fd);
/* Ends it for both sides, and so it leaves the store. Closing would do neither. */
void parking_end(Parking *parking, int fd);
/* Closes it here only: the next daemon has it. */
void parking_leave(Parking *parking, int fd);

/* Waits, not for long, until the store has what it was given: of who has ended it takes nothing. */
void parking_settle(Parking *parking);

DEFINE_CLEANUP(Parking *, parking_free);
