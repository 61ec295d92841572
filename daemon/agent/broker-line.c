/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker-line.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "common/socket.h"

#define SEND_BUFFER (2 * MIB)

struct BrokerLine {
        int fd;
        struct event *readable, *writable;
        const BrokerLineHooks *hooks;
        void *userdata;
        VfioUserInput input;
        VfioUserMessage *message; /* whose payload is being read */
        size_t n_payload;
        VfioUserMessage *out, **last;
        size_t n_out;  /* bytes of the first of them that are out */
        size_t unsent; /* bytes of all */
        bool reading;
        bool *freed; /* told when it is freed in a hook */
};

/* ---- out ----------------------------------------------------------------------------------------------------- */

static void drop_out(BrokerLine *line)
{
        while (line->out) {
                VfioUserMessage *message = line->out;

                line->out = message->next;
                vfio_user_message_free(message);
        }
        line->last = &line->out;
        line->unsent = line->n_out = 0;
}

static void flush(BrokerLine *line)
{
        while (line->out) {
                VfioUserMessage *message = line->out;
                struct iovec iov = {&message->header, message->header.size};
                ssize_t n = vfio_user_send(line->fd, &iov, 1, line->n_out, message->fds, message->n_fds);

                if (n == -EAGAIN) {
                        (void) event_add(line->writable, NULL);
                        return;
                }
                if (n < 0) {
                        drop_out(line);
                        (void) shutdown(line->fd, SHUT_RDWR); /* reading finds out */
                        return;
                }
                line->n_out += (size_t) n;
                line->unsent -= (size_t) n;
                if (line->n_out < message->header.size)
                        continue;
                line->n_out = 0;
                line->out = message->next;
                if (!line->out)
                        line->last = &line->out;
                vfio_user_message_free(message);
        }
}

static void on_writable(evutil_socket_t fd, short what, void *userdata)
{
        BrokerLine *line = userdata;

        flush(line);
        if (!line->out)
                line->hooks->drained(line->userdata);
}

void broker_line_send(BrokerLine *line, VfioUserMessage *message)
{
        bool first = !line->out;

        message->next = NULL;
        *line->last = message;
        line->last = &message->next;
        line->unsent += message->header.size;
        if (first)
                flush(line);
}

size_t broker_line_unsent(const BrokerLine *line)
{
        return line->unsent;
}

/* ---- in ------------------------------------------------------------------------------------------------------ */

static const char *judge_header(const BrokerLine *line)
{
        const VfioUserHeader *h = &line->input.header;
        uint32_t type = h->flags & VFIO_USER_TYPE_MASK;

        if (h->size < sizeof *h || h->size > VFIO_USER_MESSAGE_MAX)
                return "it sent a message of impossible size";
        if (type != VFIO_USER_TYPE_COMMAND && type != VFIO_USER_TYPE_REPLY)
                return "it sent a message that is neither command nor reply";
        if (line->input.lost_fds)
                return "it sent more files with a message than can be taken";
        return NULL;
}

/* Returns 1 when a message was taken, 0 when it is not whole yet, or what ended the connection. Adds to `n_read`. */
static int read_some(BrokerLine *line, size_t *n_read, const char **ret_text)
{
        VfioUserMessage *message;

        *ret_text = NULL;
        if (!line->message) {
                int r = vfio_user_input_read(&line->input, line->fd);

                if (r <= 0)
                        return r;
                *n_read += sizeof line->input.header;
                *ret_text = judge_header(line);
                if (*ret_text)
                        return -EPROTO;
                line->message = vfio_user_input_take(&line->input);
                if (!line->message)
                        return -ENOMEM;
                line->n_payload = 0;
        } else {
                ssize_t n = recv(line->fd, line->message->payload + line->n_payload,
                                 vfio_user_message_payload(line->message) - line->n_payload, MSG_DONTWAIT);

                if (n <= 0)
                        return n < 0 ? -errno : -ECONNRESET;
                line->n_payload += (size_t) n;
                *n_read += (size_t) n;
        }
        if (line->n_payload < vfio_user_message_payload(line->message))
                return 0;
        vfio_user_input_reset(&line->input);
        message = TAKE_PTR(line->message);
        *ret_text = line->hooks->message(line->userdata, line, message);
        return *ret_text ? -EPROTO : 1;
}

/* Reads one message, or until `bytes` have come. Returns false when the line is gone. */
static bool pump(BrokerLine *line, size_t bytes)
{
        bool freed = false;
        const char *text = NULL;
        size_t n_read = 0;
        int r = 0;

        line->freed = &freed;
        while (r == 0 || (r > 0 && n_read < bytes)) {
                r = read_some(line, &n_read, &text);
                if (freed)
                        return false;
        }
        line->freed = NULL;
        if (r > 0 || r == -EAGAIN || r == -EINTR)
                return true;
        if (r == -ENOMEM)
                text = "out of memory";
        line->hooks->gone(line->userdata, line, text);
        return false;
}

static void on_readable(evutil_socket_t fd, short what, void *userdata)
{
        (void) pump(userdata, 0);
}

bool broker_line_drain(BrokerLine *line)
{
        int n = 0;

        if (ioctl(line->fd, FIONREAD, &n) < 0 || n <= 0)
                return true;
        return pump(line, (size_t) n);
}

void broker_line_set_reading(BrokerLine *line, bool reading)
{
        if (line->reading == reading)
                return;
        line->reading = reading;
        if (reading)
                (void) event_add(line->readable, NULL);
        else
                (void) event_del(line->readable);
}

bool broker_line_is_closed(const BrokerLine *line)
{
        struct pollfd p = {line->fd, POLLRDHUP, 0};

        return poll(&p, 1, 0) > 0;
}

/* ---- life ---------------------------------------------------------------------------------------------------- */

BrokerLine *broker_line_free(BrokerLine *line)
{
        if (!line)
                return NULL;
        if (line->freed)
                *line->freed = true;
        if (line->readable)
                event_free(line->readable);
        if (line->writable)
                event_free(line->writable);
        (void) close(line->fd);
        vfio_user_input_reset(&line->input);
        vfio_user_message_free(line->message);
        drop_out(line);
        free(line);
        return NULL;
}

DEFINE_CLEANUP(BrokerLine *, broker_line_free);

int broker_line_new(struct event_base *base, int fd, const BrokerLineHooks *hooks, void *userdata,
                    BrokerLine **ret)
{
        _cleanup_(broker_line_freep) BrokerLine *line = calloc(1, sizeof *line);

        if (!line) {
                (void) close(fd);
                return -ENOMEM;
        }
        line->fd = fd;
        line->hooks = hooks;
        line->userdata = userdata;
        line->last = &line->out;
        line->reading = true;
        line->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, line);
        line->writable = event_new(base, fd, EV_WRITE, on_writable, line);
        (void) socket_grow_send_buffer(fd, SEND_BUFFER);
        if (evutil_make_socket_nonblocking(fd) < 0 || !line->readable || !line->writable ||
            event_add(line->readable, NULL) < 0)
                return -ENOMEM;
        *ret = TAKE_PTR(line);
        return 0;
}
