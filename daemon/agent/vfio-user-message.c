/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vfio-user-message.h"

#include <sys/socket.h>

#include "common/socket.h"

#define PIECES_MAX 4

VfioUserMessage *vfio_user_message_new(size_t payload)
{
        VfioUserMessage *message = malloc(sizeof *message + payload);

        if (!message)
                return NULL;
        message->next = NULL;
        message->n_fds = 0;
        message->header = (VfioUserHeader){.size = (uint32_t) (sizeof message->header + payload)};
        return message;
}

static void close_all(int *fds, uint32_t *n_fds)
{
        while (*n_fds > 0)
                (void) close(fds[--*n_fds]);
}

VfioUserMessage *vfio_user_message_free(VfioUserMessage *message)
{
        if (!message)
                return NULL;
        close_all(message->fds, &message->n_fds);
        free(message);
        return NULL;
}

VfioUserMessage *vfio_user_message_answer(const VfioUserHeader *command, int error)
{
        VfioUserMessage *message = vfio_user_message_new(0);

        if (!message)
                return NULL;
        message->header.id = command->id;
        message->header.command = command->command;
        message->header.flags = VFIO_USER_TYPE_REPLY | (error ? VFIO_USER_ERROR : 0);
        message->header.error = (uint32_t) error;
        return message;
}

/* ---- in ------------------------------------------------------------------------------------------------------ */

void vfio_user_input_reset(VfioUserInput *input)
{
        close_all(input->fds, &input->n_fds);
        input->n_header = 0;
        input->lost_fds = false;
}

static void take_files(VfioUserInput *input, struct msghdr *msg)
{
        size_t room = VFIO_USER_FDS_MAX - input->n_fds;
        size_t n = socket_take_fds(msg, input->fds + input->n_fds, room);

        input->n_fds += MIN(n, room);
        input->lost_fds |= n > room || (msg->msg_flags & MSG_CTRUNC);
}

int vfio_user_input_read(VfioUserInput *input, int fd)
{
        union {
                struct cmsghdr align;
                char space[CMSG_SPACE(sizeof(int) * (VFIO_USER_FDS_MAX + 1))];
        } control;
        struct iovec iov = {(uint8_t *) &input->header + input->n_header,
                            sizeof input->header - input->n_header};
        struct msghdr msg = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control.space,
                             .msg_controllen = sizeof control};
        ssize_t n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

        if (n <= 0)
                return n < 0 ? -errno : -ECONNRESET;
        if (msg.msg_controllen > 0)
                take_files(input, &msg);
        input->n_header += (size_t) n;
        return input->n_header == sizeof input->header;
}

VfioUserMessage *vfio_user_input_take(VfioUserInput *input)
{
        VfioUserMessage *message = vfio_user_message_new(input->header.size - sizeof input->header);

        if (!message)
                return NULL;
        message->header = input->header;
        memcpy(message->fds, input->fds, input->n_fds * sizeof input->fds[0]);
        message->n_fds = input->n_fds;
        input->n_fds = 0;
        return message;
}

/* ---- out ----------------------------------------------------------------------------------------------------- */

ssize_t vfio_user_send(int fd, const struct iovec *pieces, size_t n_pieces, size_t done, const int *fds,
                       uint32_t n_fds)
{
        union {
                struct cmsghdr align;
                char space[CMSG_SPACE(sizeof(int) * VFIO_USER_FDS_MAX)];
        } control;
        struct iovec iov[PIECES_MAX];
        struct msghdr msg = {.msg_iov = iov, .msg_iovlen = n_pieces};
        size_t skip = done;
        ssize_t n;

        for (size_t i = 0; i < n_pieces; i++) {
                size_t cut = MIN(skip, pieces[i].iov_len);

                iov[i] = (struct iovec){(uint8_t *) pieces[i].iov_base + cut, pieces[i].iov_len - cut};
                skip -= cut;
        }
        if (n_fds > 0 && done == 0) {
                memset(&control, 0, sizeof control);
                socket_put_fds(&msg, control.space, fds, n_fds);
        }
        do
                n = sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
        while (n < 0 && errno == EINTR);
        return n < 0 ? -errno : n;
}
