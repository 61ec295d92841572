/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Where other daemons connect: <runtime>/peer.sock, and what migmgrd.json lists. Tells control from data connections by their first four bytes and
 * hands each to its owner. Owned by the manager. */

#include "hello.h"
#include "daemon/loop.h"

typedef struct Listener Listener;

typedef struct ListenerEvents {
        /* A control connection; takes over `fd`, on which nothing was read. */
        void (*control)(void *userdata, int fd);
        /* A data connection with a token. Returns whether it is one that is waited for, and then takes over `fd`. */
        bool (*data)(void *userdata, const Hello *hello, int fd);
} ListenerEvents;

int listener_new(Loop *loop, const char *address, const ListenerEvents *events, void *userdata,
                 Listener **ret) _must_check_;
Listener *listener_free(Listener *listener);
