/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Every state that can be reached, in the order of its distance: what is violated is found by the shortest way. */

#include "invariants.h"

typedef struct Search {
        int (*list)(const World *w, Move *moves); /* what can be next */
        bool (*is_end)(const World *w);           /* from every state one of these must be in reach */
} Search;

/* Returns FINE or what was violated first. With `about` it prints the way there, and what was seen, under that name. */
int search(const Search *how, const char *about);

/* How many states the last one has met. */
uint32_t search_states(void);
