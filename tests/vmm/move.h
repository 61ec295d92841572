/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Memory on its way, out or in, by a thread of its own.
 *
 * Out: all pages, then again and again those that were written meanwhile, until what is left would go out within the
 * blackout that is allowed; after that it is kept so small until the end. The end is when the VM is sealed: nobody
 * writes any more, and what is left goes out with what the VMM has of the devices.
 */

#include "vm.h"

typedef struct Move Move;

typedef enum MoveState {
        MOVE_GOING,
        MOVE_CONVERGED, /* out: what is left is little */
        MOVE_COMPLETE,  /* all is out, or in */
        MOVE_FAILED,
} MoveState;

typedef struct MoveLimits {
        uint64_t bandwidth;         /* bytes in a second while the vCPU runs; 0: no limit */
        uint64_t max_blackout_usec; /* 0: our own idea */
} MoveLimits;

/* Both take over `fd`, also when they fail. `notify_fd` is signalled with each new state. -ENOMEM. */
int move_out(Vm *vm, int fd, const MoveLimits *limits, int notify_fd, Move **ret) _must_check_;
int move_in(Vm *vm, int fd, int notify_fd, Move **ret) _must_check_;

/* Ends it and the connection, however far it is. The VM stays as it is. */
Move *move_free(Move *move);

/* Out: the vCPU stands. From now on it goes as fast as it can. */
void move_hurry(Move *move);

/* Out: all devices stand, too, and the last pages are marked. */
void move_seal(Move *move);

/* Out: it is never little enough (a fault for tests), or it is again. */
void move_never_converge(Move *move, bool never);

MoveState move_state(Move *move);
/* Of MOVE_FAILED, for people. */
const char *move_text(const Move *move);
/* Bytes: moved, pages that went again included, and of the memory. */
void move_progress(Move *move, uint64_t *ret_done, uint64_t *ret_total);
