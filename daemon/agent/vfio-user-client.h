/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* One connection to a vfio-user server: messages out, replies in, nothing understood of what they mean.
 *
 * The agent owns it and runs it on its libevent loop. Calls are answered through callbacks in the order of the
 * server's replies. The server is not trusted: a reply that answers nothing, is of another command, longer than its
 * call allows or shorter than it must be ends the connection, because the stream can't be trusted any more; the client
 * then says so once, through `on_gone`. Open calls that are not abandoned in it are answered with that error.
 *
 * Commands of the server (DMA_READ, DMA_WRITE) go to a handler, whichever socket they came on. Without one they are
 * refused politely: nothing is mapped for the device.
 */

#include <event2/event.h>

#include "vfio-user-message.h"

typedef struct VfioUserClient VfioUserClient;

/* `status`: 0, or the negative errno of the server's error reply (0 and absurd values become -EIO), or what ended the
 * connection. `size`: bytes of payload, of which the first went to the call's head, the others to its data. */
typedef void (*VfioUserReply)(void *userdata, int status, size_t size);

/* The same, for a call that takes the reply as it comes. `reply`, the callee's, is there when `status` is 0 and the
 * server was to reply. Always called, and once: with -ECANCELED when the client is freed before. */
typedef void (*VfioUserRaw)(void *userdata, int status, VfioUserMessage *reply);

/* A command of the server; the callee's. `twin`: it came on the twin socket, and so must its answer go. */
typedef void (*VfioUserServerCommand)(void *userdata, VfioUserMessage *command, bool twin);

/* The connection has ended: `status` as errno, `text` for people. The client may be freed in it. */
typedef void (*VfioUserGone)(void *userdata, int status, const char *text);

typedef struct VfioUserCall {
        VfioUserCommand command;
        struct iovec out[3]; /* payload; must stay as it is until the reply */
        int n_out;
        void *head; /* room for the fixed part of the reply, */
        size_t head_size;
        void *data; /* and for what follows; both must stay until the reply */
        size_t data_size;
        size_t least;      /* a shorter payload is an error */
        const void *owner; /* for vfio_user_client_abandon() */
        VfioUserReply on_reply;
        VfioUserRaw on_raw; /* instead: head, data and least mean nothing */
        bool no_reply;      /* with on_raw only, called when the command is out */
        const int *fds;     /* go with it; must stay open until the reply */
        uint32_t n_fds;
        void *userdata;
} VfioUserCall;

/* Takes over `fd`. -ENOMEM. */
int vfio_user_client_new(struct event_base *base, int fd, VfioUserGone on_gone, void *userdata,
                         VfioUserClient **ret) _must_check_;
VfioUserClient *vfio_user_client_free(VfioUserClient *client);

/* Sends a command, behind all that were given before. -ENOMEM, -ENOTCONN. */
int vfio_user_client_call(VfioUserClient *client, const VfioUserCall *call) _must_check_;

/* Nobody waits for what `owner` has still open: replies are taken and dropped when they come. */
void vfio_user_client_abandon(VfioUserClient *client, const void *owner);

/* The first file that came with the last reply, or -1; it is the caller's then. */
int vfio_user_client_take_fd(VfioUserClient *client);

/* Who takes the server's commands; NULL: they are refused. */
void vfio_user_client_set_handler(VfioUserClient *client, VfioUserServerCommand on_command, void *userdata);
/* Sends the reply to one of them; takes `reply` over. */
void vfio_user_client_reply(VfioUserClient *client, VfioUserMessage *reply, bool twin);

/* One command at a time, and none while one of the server's on the main socket has no answer: libvfio-user takes the
 * next message there for that answer. Of no effect when there is a twin socket. */
void vfio_user_client_set_serial(VfioUserClient *client);

/* The server sends its own commands on this socket (twin_socket). Takes over `fd`. */
int vfio_user_client_set_twin(VfioUserClient *client, int fd) _must_check_;

/* Largest message that goes out in one piece, given the socket's buffer: libvfio-user loses the stream when the body
 * of a message comes in two. */
size_t vfio_user_client_write_max(const VfioUserClient *client);
