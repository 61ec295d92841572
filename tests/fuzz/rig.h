/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the daemon's parts need around them, in a fuzzer: a loop, a host without a helper and without plugins, and a directory of
 * its own that goes when the fuzzer ends. Logs nothing. */

#include <stdio.h>
#include <stdlib.h>

#include "daemon/host.h"

/* A fuzzer's world must not fail: what does is a bug in it. */
#define MUST(condition)                                           \
        do {                                                      \
                if (!(condition)) {                               \
                        fprintf(stderr, "rig: %s\n", #condition); \
                        abort();                                  \
                }                                                 \
        } while (0)

typedef struct Rig {
        const char *dir;
        Host host;
        PolicyFiles policies;
        LoopTimer *turn;
} Rig;

/* A directory for this process. */
const char *rig_dir(void);

/* The loop only. */
void rig_begin_loop(Rig *rig);
/* ... and all that a manager needs, with what is linked as a store (fake-store.c, or the real one) in `state_dir`. */
void rig_begin(Rig *rig, const char *state_dir);
void rig_end(Rig *rig);

/* Lets the loop turn until all has happened that does so by itself; timers that wait are not waited for. */
void rig_turn(Rig *rig);

/* The next line of an input, without its end; false: there is none. `text` is of `size` bytes and is walked along. */
bool rig_line(const char **text, size_t *size, const char **ret_line, size_t *ret_n);
