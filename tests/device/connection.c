/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "connection.h"

#include <sys/socket.h>
#include <sys/uio.h>

int connection_init(Connection *c, struct event_base *base, int fd, size_t message_max,
                    event_callback_fn ready, void *userdata)
{
        *c = (Connection){.fd = fd,
                          .message_max = message_max,
                          .ready = ready,
                          .userdata = userdata,
                          .out_fd = -1,
                          .next_out_fd = -1};
        c->event = event_new(base, fd, 0, ready, userdata);
        return c->event ? 0 : -ENOMEM;
}

void connection_done(Connection *c)
{
        if (c->event)
                event_free(TAKE_PTR(c->event));
        connection_next(c);
        free(TAKE_PTR(c->payload));
        closep(&c->out_fd);
        closep(&c->next_out_fd);
        closep(&c->fd);
        c->fd = c->out_fd = c->next_out_fd = -1;
}

void connection_wait(Connection *c, short what)
{
        if (c->waiting_for == what)
                return;
        (void) event_del(c->event);
        if (what) {
                (void) event_assign(c->event, event_get_base(c->event), c->fd, what | EV_PERSIST, c->ready,
                                    c->userdata);
                (void) event_add(c->event, NULL);
        }
        c->waiting_for = what;
}

/* ---- in ------------------------------------------------------------------------------------------------------ */

static void take_fds(Connection *c, struct msghdr *msg)
{
        for (struct cmsghdr *m = CMSG_FIRSTHDR(msg); m; m = CMSG_NXTHDR(msg, m)) {
                size_t n = (m->cmsg_len - CMSG_LEN(0)) / sizeof(int);

                if (m->cmsg_level != SOL_SOCKET || m->cmsg_type != SCM_RIGHTS)
                        continue;
                for (size_t i = 0; i < n; i++) {
                        int fd;

                        memcpy(&fd, CMSG_DATA(m) + i * sizeof fd, sizeof fd);
                        if (c->n_fds < CONNECTION_FDS_MAX)
                                c->fds[c->n_fds] = fd;
                        else
                                (void) close(fd);
                        c->n_fds++;
                }
        }
}

/* Reads up to n bytes of the message; never beyond it, so that files are always those of this message. */
static int receive_some(Connection *c, void *buffer, size_t n)
{
        union {
                struct cmsghdr align;
                char bytes[CMSG_SPACE(VFIO_USER_FDS_MAX * sizeof(int))];
        } control;
        struct iovec iov = {.iov_base = buffer, .iov_len = n};
        struct msghdr msg = {
                .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
        ssize_t r = recvmsg(c->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

        if (r < 0)
                return errno == EAGAIN || errno == EINTR ? 0 : -ECONNRESET;
        take_fds(c, &msg);
        if (r == 0)
                return -ECONNRESET;
        c->received += (size_t) r;
        return 1;
}

static int make_room(Connection *c, size_t n)
{
        uint8_t *payload;

        if (n <= c->payload_size)
                return 0;
        payload = realloc(c->payload, n);
        if (!payload)
                return -ENOMEM;
        c->payload = payload;
        c->payload_size = n;
        return 0;
}

int connection_receive(Connection *c)
{
        int r = 1;

        while (r > 0 && c->received < sizeof c->header)
                r = receive_some(c, (uint8_t *) &c->header + c->received, sizeof c->header - c->received);
        if (r <= 0)
                return r;
        if (c->header.size < sizeof c->header || c->header.size > c->message_max)
                return -EMSGSIZE;
        r = make_room(c, c->header.size - sizeof c->header);
        if (r < 0)
                return r;
        r = 1;
        while (r > 0 && c->received < c->header.size)
                r = receive_some(c, c->payload + connection_payload_received(c),
                                 c->header.size - c->received);
        return r;
}

void connection_next(Connection *c)
{
        for (unsigned i = 0; i < MIN(c->n_fds, CONNECTION_FDS_MAX); i++)
                closep(&c->fds[i]);
        c->received = 0;
        c->n_fds = 0;
}

/* ---- out ----------------------------------------------------------------------------------------------------- */

void connection_send(Connection *c, const void *data, size_t n, int fd)
{
        if (c->out_left > 0) {
                c->next_out = data;
                c->next_out_left = n;
                c->next_out_fd = fd;
        } else {
                c->out = data;
                c->out_left = n;
                c->out_fd = fd;
        }
}

static void turn_to_next(Connection *c)
{
        c->out = c->next_out;
        c->out_left = c->next_out_left;
        c->out_fd = TAKE_FD(c->next_out_fd);
        c->next_out_left = 0;
}

static ssize_t send_some(Connection *c)
{
        union {
                struct cmsghdr align;
                char bytes[CMSG_SPACE(sizeof(int))];
        } control = {0};
        struct iovec iov = {.iov_base = (void *) (uintptr_t) c->out, .iov_len = c->out_left};
        struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

        if (c->out_fd >= 0) {
                struct cmsghdr *m = &control.align;

                m->cmsg_level = SOL_SOCKET;
                m->cmsg_type = SCM_RIGHTS;
                m->cmsg_len = CMSG_LEN(sizeof(int));
                memcpy(CMSG_DATA(m), &c->out_fd, sizeof(int));
                msg.msg_control = &control;
                msg.msg_controllen = sizeof control;
        }
        return sendmsg(c->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
}

int connection_flush(Connection *c)
{
        while (c->out_left > 0) {
                ssize_t n = send_some(c);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return errno == EAGAIN ? 0 : -ECONNRESET;
                c->out += n;
                c->out_left -= (size_t) n;
                closep(&c->out_fd);
                c->out_fd = -1;
                if (c->out_left == 0 && c->next_out_left > 0)
                        turn_to_next(c);
        }
        return 1;
}
