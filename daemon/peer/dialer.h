/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The control connection to one destination, made again as long as somebody wants it: the source dials, and redials for
 * every job that has not ended. One for each address, shared by the jobs that go there; owned by the manager. */

#include "link.h"

typedef struct Dialer Dialer;

typedef struct DialerListener {
        void (*up)(void *userdata, Dialer *dialer);
        void (*message)(void *userdata, Dialer *dialer, Message type, const char *job, json_object *body);
        /* A connection has ended, or could not be made. It is tried again by itself. */
        void (*down)(void *userdata, Dialer *dialer, int status, const char *text);
} DialerListener;

/* Dials at once. */
int dialer_new(Loop *loop, const char *address, const char *host_id, const char *boot_id,
               const DialerListener *listener, void *userdata, Dialer **ret) _must_check_;
Dialer *dialer_free(Dialer *dialer);

const char *dialer_address(const Dialer *dialer);
bool dialer_is_up(const Dialer *dialer);
/* Takes `message` over; it is lost when there is no connection. */
void dialer_send(Dialer *dialer, json_object *message);
