/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* One client of one device: its requests are taken up in order, one at a time, and each is followed through its
 * stages: check, fault, action, delay, conversation, reply. Owned by the Server, which frees it when told that it is
 * gone. Handlers see the request in `main` and leave the reply's payload with client_reply().
 *
 * Beside all that it is asked by the device for the guest's memory, on the twin socket or, without one, between the
 * client's own messages: while something is out there a command that comes meanwhile waits its turn.
 */

#include "ask.h"
#include "device.h"

typedef enum ClientPhase {
        CLIENT_RECEIVING,
        CLIENT_BUSY,     /* the device takes its time, or hangs in an arc */
        CLIENT_HELD,     /* a fault: nothing happens until it is released or leaves */
        CLIENT_CHATTING, /* we ask and it has to answer */
        CLIENT_SENDING,
        CLIENT_GONE,
} ClientPhase;

typedef struct ClientChat {
        VfioUserHeader header;
        VfioUserDmaAccess access;
} ClientChat;
static_assert(sizeof(ClientChat) == 32, "a DMA_READ");

typedef struct Client Client;
struct Client {
        Device *device; /* the Server's */
        ClientPhase phase;
        Connection main, twin;
        struct event *timer;
        bool negotiated; /* VERSION was accepted */
        bool closing;    /* after the reply */
        bool lost;       /* it has left while the device is busy for it: gone as soon as that has ended */
        bool stashed;    /* `main` holds a whole request, for later */
        uint64_t max_data;

        VfioUserHeader request;
        FaultKind fault; /* that this request met, if it is one of its reply */
        int result;
        uint64_t delay_usec;

        uint8_t *reply; /* header and payload */
        size_t reply_room, reply_payload_size;
        int reply_fd;

        ClientChat chat;
        unsigned chats; /* sent for this request */
        Ask ask;

        void (*gone)(Client *client, void *userdata); /* has to free it */
        void *userdata;
};

/* Takes `fd`, also when it fails. NULL: out of memory. */
Client *client_new(Device *device, struct event_base *base, int fd,
                   void (*gone)(Client *client, void *userdata), void *userdata);
Client *client_free(Client *client);

/* The device has ended what it was doing for this client. */
void client_device_done(Client *client, int r);

/* What a fault holds up goes on. */
void client_release(Client *client);

/* Closes the connection; what the device does meanwhile is ended first. */
void client_kick(Client *client);

/* For handlers: room for a reply payload of n bytes, not cleared. NULL: out of memory. */
uint8_t *client_reply(Client *client, size_t n);

/* For handlers: the reply's payload is the request's. -ENOMEM. */
int client_reply_request(Client *client) _must_check_;

/* For handlers: the request's payload. */
static inline size_t client_payload_size(const Client *client)
{
        return connection_payload_received(&client->main);
}

/* For the handler of VERSION: the client has negotiated, and the device may ask it. -ENOMEM. */
int client_accept(Client *client, uint64_t max_data) _must_check_;

/* For handlers: takes one of the files that came with the request, of which client->main.n_fds says how many there are.
 * -1: it is beyond those that we keep. */
int client_take_fd(Client *client, unsigned i);

/* For the handler of VERSION: takes our end of a twin socket, also when it fails. -ENOMEM. */
int client_set_twin(Client *client, int fd) _must_check_;

DEFINE_CLEANUP(Client *, client_free);
