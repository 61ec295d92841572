/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* One vfio-user stream socket: whole messages in, bytes out, and never more waiting than one in and two out. It knows the
 * header's size field and nothing else of the protocol. Owned by a Client, which has one, or two with a twin socket.
 */

#include <event2/event.h>

#include "common/macros.h"
#include "daemon/agent/vfio-user-wire.h"

#define CONNECTION_FDS_MAX 8 /* what we say in VERSION, as libvfio-user */

typedef struct Connection {
        int fd; /* -1: none */
        struct event *event;
        event_callback_fn ready;
        void *userdata;
        short waiting_for;
        size_t message_max;

        VfioUserHeader header;
        uint8_t *payload;
        size_t payload_size, received; /* room for the payload; bytes of the message so far */
        unsigned n_fds; /* files that came with the message; what is beyond the first ones is closed */
        int fds[CONNECTION_FDS_MAX]; /* the first ones, -1 where it was taken; closed with the message */

        const uint8_t *out;
        size_t out_left;
        int out_fd;
        const uint8_t *next_out; /* goes when `out` is gone */
        size_t next_out_left;
        int next_out_fd;
} Connection;

/* Takes `fd`, also when it fails; `ready` is called for what connection_wait() named. -ENOMEM. */
int connection_init(Connection *c, struct event_base *base, int fd, size_t message_max,
                    event_callback_fn ready, void *userdata) _must_check_;
void connection_done(Connection *c);

/* EV_READ, EV_WRITE, EV_CLOSED (the other end has left, whatever it had sent before) or 0. */
void connection_wait(Connection *c, short what);

/* 1: a whole message is in `header` and `payload`, until connection_next(). 0: not yet.
 * -EMSGSIZE: the header's size is impossible; the stream is lost. Else the peer is gone: -ECONNRESET, -ENOMEM. */
int connection_receive(Connection *c) _must_check_;
void connection_next(Connection *c);

static inline size_t connection_payload_received(const Connection *c)
{
        return c->received - sizeof(VfioUserHeader);
}

/* At most one more than what is being sent. The data must stay until it is sent, `fd` (-1: none) goes with the first byte and is then closed. */
void connection_send(Connection *c, const void *data, size_t n, int fd);
/* 1: all is sent. 0: the socket is full. Negative: the peer is gone. */
int connection_flush(Connection *c) _must_check_;
