/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* One socket of the VMM, its connection or its twin: whole messages in and out, with their files.
 *
 * Owned by the broker. What is not a vfio-user message ends it; so does what the broker does not like. */

#include <event2/event.h>

#include "vfio-user-message.h"

typedef struct BrokerLine BrokerLine;

typedef struct BrokerLineHooks {
        /* A message is in; the callee's. Returns NULL, or what is wrong with it (a constant), for people. */
        const char *(*message)(void *userdata, BrokerLine *line, VfioUserMessage *message);
        /* The connection is at its end: closed by the VMM (`text` NULL) or broken by it. The line may be freed in it. */
        void (*gone)(void *userdata, BrokerLine *line, const char *text);
        /* What waited for the VMM to read is out. */
        void (*drained)(void *userdata);
} BrokerLineHooks;

/* Takes over `fd`. -ENOMEM. */
int broker_line_new(struct event_base *base, int fd, const BrokerLineHooks *hooks, void *userdata,
                    BrokerLine **ret) _must_check_;
BrokerLine *broker_line_free(BrokerLine *line);

/* Sends at once what the socket takes; takes `message` over. An end of the connection is heard of later. */
void broker_line_send(BrokerLine *line, VfioUserMessage *message);
/* Bytes that the VMM has not taken yet. */
size_t broker_line_unsent(const BrokerLine *line);

/* Whether it is read at all. */
void broker_line_set_reading(BrokerLine *line, bool reading);
/* Reads what has arrived, even if it is not read else. Returns false when the line is gone. */
bool broker_line_drain(BrokerLine *line);
/* The VMM has closed its end, whether that was read already or not. */
bool broker_line_is_closed(const BrokerLine *line);
