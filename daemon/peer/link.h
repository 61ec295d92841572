/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* One control connection to another migmgrd: messages in, messages out.
 *
 * A message is a length (u32, little-endian, at most 1 MiB) and a JSON object with "type" and, but for HELLO, "job".
 * HELLO comes first, both ways. The peer is not trusted: what is no such message ends the connection. Owned by whoever
 * made it; may be freed in any callback.
 */

#include "common/json.h"
#include "common/uuid.h"
#include "daemon/core/message.h"
#include "daemon/loop.h"

#define LINK_VERSION     1
#define LINK_MESSAGE_MAX (1024 * 1024)

typedef struct Link Link;

typedef struct LinkListener {
        /* HELLO came: the other one is `host` (its id). */
        void (*up)(void *userdata, Link *link);
        /* `body` lives until the callback returns. */
        void (*message)(void *userdata, Link *link, Message type, const char *job, json_object *body);
        /* It has ended; nothing more comes. */
        void (*down)(void *userdata, Link *link, int status, const char *text);
} LinkListener;

/* Takes over `fd`. Says HELLO at once. */
int link_new(Loop *loop, int fd, const char *host_id, const char *boot_id, const LinkListener *listener,
             void *userdata, Link **ret) _must_check_;
Link *link_free(Link *link);

/* Who is at the other end; empty before `up`. */
const char *link_host(const Link *link);
bool link_is_up(const Link *link);

/* A message to be filled with members. */
json_object *link_message(Message type, const char *job);

/* Sends it; takes it over. Nothing is reported: a link that takes no messages goes down. */
void link_send(Link *link, json_object *message);
