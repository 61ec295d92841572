/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* One vfio-user message in memory, as it travels, with its files; and how one gets in from a socket and out to one.
 *
 * Header and payload lie behind each other, so that what is only passed on is read into one buffer and sent from it. A
 * message is owned by one holder at a time and owns its files.
 */

#include <sys/types.h>
#include <sys/uio.h>

#include "vfio-user-wire.h"
#include "common/macros.h"

typedef struct VfioUserMessage VfioUserMessage;
struct VfioUserMessage {
        VfioUserMessage *next; /* for its holder's list */
        int fds[VFIO_USER_FDS_MAX];
        uint32_t n_fds;
        _Alignas(8) VfioUserHeader header;
        uint8_t payload[];
};
static_assert(offsetof(VfioUserMessage, payload) ==
                      offsetof(VfioUserMessage, header) + sizeof(VfioUserHeader),
              "sent as one piece");

/* With room for `payload` bytes; the header says its size and else nothing. NULL: out of memory. */
VfioUserMessage *vfio_user_message_new(size_t payload) _must_check_;
VfioUserMessage *vfio_user_message_free(VfioUserMessage *message);
DEFINE_CLEANUP(VfioUserMessage *, vfio_user_message_free);

static inline size_t vfio_user_message_payload(const VfioUserMessage *message)
{
        return message->header.size - sizeof message->header;
}

/* The answer to a command: a reply without payload, with that error (0: none). NULL: out of memory. */
VfioUserMessage *vfio_user_message_answer(const VfioUserHeader *command, int error) _must_check_;

/* The beginning of a message: its header and the files that came with it. */
typedef struct VfioUserInput {
        VfioUserHeader header;
        size_t n_header; /* bytes of it that are in */
        int fds[VFIO_USER_FDS_MAX];
        uint32_t n_fds;
        bool lost_fds; /* there were more files than fit here, or than this process may have open */
} VfioUserInput;

/* Returns 1 when the header is in, 0 when more must come, -EAGAIN, or what ended the connection. */
int vfio_user_input_read(VfioUserInput *input, int fd) _must_check_;
/* Closes its files and begins anew. */
void vfio_user_input_reset(VfioUserInput *input);
/* A message for the header that is in, with its files; the payload is still to be read. NULL: out of memory. */
VfioUserMessage *vfio_user_input_take(VfioUserInput *input) _must_check_;

/* Sends what is left of a message behind its first `done` bytes, in one piece if the socket takes it; the files go with
 * the first byte. Up to four pieces. Returns the number of bytes, or -EAGAIN and others. */
ssize_t vfio_user_send(int fd, const struct iovec *pieces, size_t n_pieces, size_t done, const int *fds,
                       uint32_t n_fds) _must_check_;
