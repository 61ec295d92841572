/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* All devices of the process and the one clock that makes them work. Owned by main().
 *
 * A device that works counts up every 10 ms while it runs. It works if it was started so, or while anybody watches,
 * which is to say that a control connection is open. One with a dirty-rate changes its pages too. When none has anything to do the clock stands still: a thousand
 * idle devices cause no wake-ups.
 */

#include "server.h"

typedef struct Fleet {
        struct event_base *base;
        Server **servers;
        size_t n;
        unsigned n_watchers; /* control connections */
        struct event *clock;
        uint64_t last_tick_usec;
} Fleet;

/* -ENOMEM. */
int fleet_init(Fleet *f, struct event_base *base) _must_check_;
void fleet_done(Fleet *f);

/* One more device, that listens. Moves what `config` owns out of it. -ENOMEM, or as listen_on(). */
int fleet_add(Fleet *f, DeviceConfig *config, ServerOnDisconnect on_disconnect) _must_check_;

/* NULL: there is none of this id. */
Server *fleet_get(const Fleet *f, const char *id);

void fleet_watch(Fleet *f);
void fleet_unwatch(Fleet *f);
