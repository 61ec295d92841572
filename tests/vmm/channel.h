/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A connection to a vfio-user server: commands out and their replies in, and what the server asks of the guest's memory.
 *
 * A thread reads both sockets. A call waits for its reply in the thread that makes it; there is one at a time. The
 * server is trusted no more than its messages: what answers nothing, or is too long, ends the connection, because the
 * stream is lost then.
 */

#include <sys/uio.h>

#include "daemon/agent/vfio-user-wire.h"
#include "ram.h"

#define CHANNEL_PARTS_MAX 2
#define CHANNEL_FDS_MAX   2

typedef struct Channel Channel;

typedef struct ChannelCall {
        VfioUserCommand command;
        struct iovec out[CHANNEL_PARTS_MAX]; /* payload */
        int fds[CHANNEL_FDS_MAX];            /* that travel with it; they stay the caller's */
        unsigned n_fds;
        void *reply; /* room for the reply's payload, */
        size_t room;
        size_t size; /* and how much came */
        bool wants_fd;
        int fd; /* the file that came with the reply, the caller's; -1: none */
} ChannelCall;

/* Connects, without any message. -ENOENT and -ECONNREFUSED: nobody listens, yet. The memory must outlive the channel. */
int channel_new(const char *path, Ram *ram, Channel **ret) _must_check_;
Channel *channel_free(Channel *channel);
DEFINE_CLEANUP(Channel *, channel_free);

/* Calls wait at most until then, or until `cancel_fd` is readable (-ECANCELED): while a device is set up. */
void channel_limit(Channel *channel, uint64_t deadline_usec, int cancel_fd);
/* Each call has its own time from now on. */
void channel_unlimit(Channel *channel);

/* Sends a command and waits for its reply. The negative errno of an error reply (0 and absurd values become -EIO);
 * -ETIMEDOUT, -ECONNRESET: the connection has ended. */
int channel_call(Channel *channel, ChannelCall *call) _must_check_;

/* Sends a command that is not to be answered. */
int channel_post(Channel *channel, const ChannelCall *call) _must_check_;

/* The server sends its commands on this socket. Takes over `fd`. Before the second call. */
void channel_set_twin(Channel *channel, int fd);

/* Ends the connection. From any thread. */
void channel_shutdown(Channel *channel);
