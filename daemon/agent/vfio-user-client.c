/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vfio-user-client.h"

#include <stdio.h>
#include <sys/socket.h>

#include "common/socket.h"

#define CALLS_MAX     16
#define DISCARD_BYTES 65536
#define SEND_BUFFER   (2 * MIB)

typedef struct OpenCall {
        VfioUserCall call;
        uint16_t id;
        bool abandoned;
        uint8_t *copy; /* of the payload, when its owner could not wait until all of it was out */
} OpenCall;

/* What is being read from one socket. */
typedef struct Reader {
        int fd;
        struct event *event;
        VfioUserHeader header;
        size_t n_header;   /* bytes of the header that are in */
        size_t n_payload;  /* bytes of the payload that are in */
        size_t n_total;    /* bytes of payload that the header announces */
        OpenCall *answers; /* the call that it answers; NULL: to be dropped */
} Reader;

struct VfioUserClient {
        struct event_base *base;
        Reader main, twin;
        struct event *writable;
        OpenCall calls[CALLS_MAX]; /* in the order in which they were sent */
        uint32_t n_calls;
        uint32_t n_sent; /* of these, those that are out */
        size_t n_out;    /* bytes of the next one that are out */
        uint16_t next_id;
        int reply_fd;
        size_t write_max;
        uint8_t *scrap; /* what is dropped goes here */
        VfioUserGone on_gone;
        void *userdata;
        uint32_t held; /* callbacks are on the stack: freed when the last of them has returned */
        bool dead;
};

static void on_readable(evutil_socket_t fd, short what, void *userdata);
static void on_twin_readable(evutil_socket_t fd, short what, void *userdata);
static void on_writable(evutil_socket_t fd, short what, void *userdata);

/* ---- life ---------------------------------------------------------------------------------------------------- */

static int reader_init(Reader *reader, VfioUserClient *client, int fd, event_callback_fn callback)
{
        if (evutil_make_socket_nonblocking(fd) < 0)
                return -errno;
        reader->fd = fd;
        reader->event = event_new(client->base, fd, EV_READ | EV_PERSIST, callback, client);
        if (!reader->event || event_add(reader->event, NULL) < 0)
                return -ENOMEM;
        return 0;
}

static void reader_deinit(Reader *reader)
{
        if (reader->event)
                event_free(reader->event);
        if (reader->fd >= 0)
                (void) close(reader->fd);
        *reader = (Reader){.fd = -1};
}

static void destroy(VfioUserClient *client)
{
        for (uint32_t i = 0; i < client->n_calls; i++)
                free(client->calls[i].copy);
        if (client->writable)
                event_free(client->writable);
        free(client->scrap);
        free(client);
}

/* Whether it is still there. */
static bool let_go(VfioUserClient *client)
{
        bool dead = client->dead;

        if (--client->held == 0 && dead)
                destroy(client);
        return !dead;
}

VfioUserClient *vfio_user_client_free(VfioUserClient *client)
{
        if (!client)
                return NULL;
        reader_deinit(&client->main);
        reader_deinit(&client->twin);
        if (client->writable)
                (void) event_del(client->writable);
        if (client->reply_fd >= 0)
                (void) close(client->reply_fd);
        client->reply_fd = -1;
        client->dead = true;
        client->held++;
        (void) let_go(client);
        return NULL;
}

DEFINE_CLEANUP(VfioUserClient *, vfio_user_client_free);

int vfio_user_client_new(struct event_base *base, int fd, VfioUserGone on_gone, void *userdata,
                         VfioUserClient **ret)
{
        _cleanup_(vfio_user_client_freep) VfioUserClient *client = calloc(1, sizeof *client);
        int r;

        if (!client) {
                (void) close(fd);
                return -ENOMEM;
        }
        client->base = base;
        client->main.fd = fd;
        client->twin.fd = client->reply_fd = -1;
        client->on_gone = on_gone;
        client->userdata = userdata;
        client->next_id = 1;
        client->scrap = malloc(DISCARD_BYTES);
        client->writable = event_new(base, fd, EV_WRITE, on_writable, client);
        if (!client->scrap || !client->writable)
                return -ENOMEM;
        /* The kernel counts its own bookkeeping in, and two messages may be on the way. */
        client->write_max = MAX(socket_grow_send_buffer(fd, SEND_BUFFER) / 8, (size_t) 65536);
        r = reader_init(&client->main, client, fd, on_readable);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(client);
        return 0;
}

int vfio_user_client_set_twin(VfioUserClient *client, int fd)
{
        client->twin.fd = fd;
        return reader_init(&client->twin, client, fd, on_twin_readable);
}

size_t vfio_user_client_write_max(const VfioUserClient *client)
{
        return client->write_max;
}

int vfio_user_client_take_fd(VfioUserClient *client)
{
        return TAKE_FD(client->reply_fd);
}

/* A message that is half out must go out whole, though its owner wants the buffers back. */
static int keep_copy(OpenCall *open)
{
        size_t size = 0;

        for (int i = 0; i < open->call.n_out; i++)
                size += open->call.out[i].iov_len;
        open->copy = malloc(size);
        if (!open->copy)
                return -ENOMEM;
        size = 0;
        for (int i = 0; i < open->call.n_out; i++) {
                memcpy(open->copy + size, open->call.out[i].iov_base, open->call.out[i].iov_len);
                size += open->call.out[i].iov_len;
        }
        open->call.out[0] = (struct iovec){open->copy, size};
        open->call.n_out = 1;
        return 0;
}

void vfio_user_client_abandon(VfioUserClient *client, const void *owner)
{
        uint32_t n = client->n_sent + (client->n_out > 0 ? 1 : 0);

        for (uint32_t i = 0; i < n; i++) {
                OpenCall *open = &client->calls[i];

                if (open->call.owner != owner || open->abandoned)
                        continue;
                open->abandoned = true;
                if (i == client->n_sent && keep_copy(open) < 0)
                        (void) shutdown(client->main.fd, SHUT_RDWR); /* the loop will find out */
        }
        /* What has not begun to go out need not go at all. */
        for (uint32_t i = n; i < client->n_calls; i++)
                if (client->calls[i].call.owner != owner)
                        client->calls[n++] = client->calls[i];
        client->n_calls = n;
}

/* The stream is at its end, or can't be trusted. The owner is told first: it knows more about its open calls than
 * they do. */
static void give_up(VfioUserClient *client, int status, const char *text)
{
        client->held++;
        reader_deinit(&client->main);
        reader_deinit(&client->twin);
        (void) event_del(client->writable);
        client->on_gone(client->userdata, status, text);
        while (!client->dead && client->n_calls > 0) {
                OpenCall open = client->calls[0];

                memmove(client->calls, client->calls + 1, --client->n_calls * sizeof open);
                free(open.copy);
                if (!open.abandoned)
                        open.call.on_reply(open.call.userdata, status, 0);
        }
        (void) let_go(client);
}

/* ---- out ----------------------------------------------------------------------------------------------------- */

static size_t out_size(const VfioUserCall *call)
{
        size_t size = sizeof(VfioUserHeader);

        for (int i = 0; i < call->n_out; i++)
                size += call->out[i].iov_len;
        return size;
}

/* Sends what is left of a message, normally all of it at once. */
static ssize_t send_rest(int fd, const OpenCall *open, size_t skip)
{
        VfioUserHeader header = {
                .id = open->id,
                .command = (uint16_t) open->call.command,
                .size = (uint32_t) out_size(&open->call),
                .flags = VFIO_USER_TYPE_COMMAND,
        };
        struct iovec iov[4] = {{&header, sizeof header}};
        struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 1 + (size_t) open->call.n_out};
        ssize_t n;

        memcpy(iov + 1, open->call.out, (size_t) open->call.n_out * sizeof iov[0]);
        for (size_t i = 0; i < msg.msg_iovlen; i++) {
                size_t cut = MIN(skip, iov[i].iov_len);

                iov[i].iov_base = (uint8_t *) iov[i].iov_base + cut;
                iov[i].iov_len -= cut;
                skip -= cut;
        }
        do
                n = sendmsg(fd, &msg, MSG_NOSIGNAL);
        while (n < 0 && errno == EINTR);
        return n < 0 ? -errno : n;
}

static void flush(VfioUserClient *client)
{
        while (client->n_sent < client->n_calls) {
                OpenCall *open = &client->calls[client->n_sent];
                ssize_t n = send_rest(client->main.fd, open, client->n_out);

                if (n == -EAGAIN) {
                        (void) event_add(client->writable, NULL);
                        return;
                }
                if (n < 0) {
                        give_up(client, (int) n, "cannot write to the device's server");
                        return;
                }
                client->n_out += (size_t) n;
                if (client->n_out < out_size(&open->call))
                        continue;
                client->n_out = 0;
                client->n_sent++;
        }
}

static void on_writable(evutil_socket_t fd, short what, void *userdata)
{
        flush(userdata);
}

int vfio_user_client_call(VfioUserClient *client, const VfioUserCall *call)
{
        OpenCall *open;

        if (client->main.fd < 0)
                return -ENOTCONN;
        if (client->n_calls == CALLS_MAX)
                return -ENOBUFS;
        open = &client->calls[client->n_calls++];
        *open = (OpenCall){.call = *call, .id = client->next_id++};
        /* From the loop, not from here: a caller does not expect to hear of the end of the connection in its call. */
        event_active(client->writable, EV_WRITE, 0);
        return 0;
}

/* ---- in ------------------------------------------------------------------------------------------------------ */

static int take_header(Reader *reader, VfioUserClient *client)
{
        union {
                struct cmsghdr align;
                char space[CMSG_SPACE(sizeof(int) * VFIO_USER_FDS_MAX)];
        } control;
        struct iovec iov = {(uint8_t *) &reader->header + reader->n_header,
                            sizeof reader->header - reader->n_header};
        struct msghdr msg = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control.space,
                             .msg_controllen = sizeof control};
        ssize_t n = recvmsg(reader->fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

        if (n <= 0)
                return n < 0 ? -errno : -ECONNRESET;
        for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
                size_t n_fds = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

                if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
                        continue;
                for (size_t i = 0; i < n_fds; i++) {
                        int fd;

                        memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
                        if (client->reply_fd >= 0)
                                (void) close(client->reply_fd);
                        client->reply_fd = fd;
                }
        }
        reader->n_header += (size_t) n;
        return 0;
}

static OpenCall *find_call(VfioUserClient *client, uint16_t id)
{
        for (uint32_t i = 0; i < client->n_sent; i++)
                if (client->calls[i].id == id)
                        return &client->calls[i];
        return NULL;
}

/* The header is in: does it make sense? NULL when it does, else what is wrong with it. */
static const char *judge_header(Reader *reader, VfioUserClient *client)
{
        const VfioUserHeader *h = &reader->header;
        uint32_t type = h->flags & VFIO_USER_TYPE_MASK;

        reader->answers = NULL;
        if (h->size < sizeof *h || h->size > VFIO_USER_MESSAGE_MAX)
                return "the device's server sent a message of impossible size";
        reader->n_total = h->size - sizeof *h;
        if (type == VFIO_USER_TYPE_COMMAND)
                return NULL;
        if (type != VFIO_USER_TYPE_REPLY)
                return "the device's server sent a message that is neither command nor reply";
        if (reader == &client->twin)
                return "the device's server replied on the socket for its own commands";
        reader->answers = find_call(client, h->id);
        if (!reader->answers)
                return "the device's server answered a question that was not asked";
        if (h->command != reader->answers->call.command)
                return "the device's server answered another command than was asked";
        if (h->flags & VFIO_USER_ERROR)
                return reader->n_total > 0 ? "the device's server sent an error with a payload" : NULL;
        if (reader->n_total < reader->answers->call.least)
                return "the device's server sent a reply that is too short";
        if (reader->n_total > reader->answers->call.head_size + reader->answers->call.data_size)
                return "the device's server sent a reply that is too long";
        return NULL;
}

/* Where the next byte of the payload goes, and how many may. */
static struct iovec payload_target(const Reader *reader, VfioUserClient *client)
{
        size_t left = reader->n_total - reader->n_payload;
        const VfioUserCall *call;

        if (!reader->answers || reader->answers->abandoned)
                return (struct iovec){client->scrap, MIN(left, (size_t) DISCARD_BYTES)};
        call = &reader->answers->call;
        if (reader->n_payload < call->head_size)
                return (struct iovec){(uint8_t *) call->head + reader->n_payload,
                                      MIN(left, call->head_size - reader->n_payload)};
        return (struct iovec){(uint8_t *) call->data + (reader->n_payload - call->head_size), left};
}

static int take_payload(Reader *reader, VfioUserClient *client)
{
        struct iovec to = payload_target(reader, client);
        ssize_t n = recv(reader->fd, to.iov_base, to.iov_len, MSG_DONTWAIT);

        if (n <= 0)
                return n < 0 ? -errno : -ECONNRESET;
        reader->n_payload += (size_t) n;
        return 0;
}

static int reply_status(const VfioUserHeader *h)
{
        if (!(h->flags & VFIO_USER_ERROR))
                return 0;
        return h->error == 0 || h->error > 4095 ? -EIO : -(int) h->error;
}

static void answer_call(VfioUserClient *client, OpenCall *open, int status, size_t size)
{
        OpenCall copy = *open;
        uint32_t i = (uint32_t) (open - client->calls);

        memmove(open, open + 1, (--client->n_calls - i) * sizeof *open);
        client->n_sent--;
        free(copy.copy);
        if (!copy.abandoned)
                copy.call.on_reply(copy.call.userdata, status, size);
}

/* The server wants memory that is not there. Small enough to fit the socket; if it does not, the server does not read
 * and has itself to blame. */
static int refuse_command(const Reader *reader)
{
        VfioUserHeader reply = {
                .id = reader->header.id,
                .command = reader->header.command,
                .size = sizeof reply,
                .flags = VFIO_USER_TYPE_REPLY | VFIO_USER_ERROR,
                .error = EINVAL,
        };

        if (reader->header.flags & VFIO_USER_NO_REPLY)
                return 0;
        if (send(reader->fd, &reply, sizeof reply, MSG_NOSIGNAL | MSG_DONTWAIT) != sizeof reply)
                return -EPROTO;
        return 0;
}

/* A whole message is in. */
static int finish_message(Reader *reader, VfioUserClient *client, const char **ret_text)
{
        OpenCall *open = reader->answers;
        int status = reply_status(&reader->header);
        size_t size = reader->n_payload;
        bool is_command = (reader->header.flags & VFIO_USER_TYPE_MASK) == VFIO_USER_TYPE_COMMAND;

        if (is_command) {
                *ret_text = "the device's server does not read the answers to its own commands";
                if (refuse_command(reader) < 0)
                        return -EPROTO;
        }
        reader->n_header = reader->n_payload = 0;
        reader->answers = NULL;
        if (!is_command)
                answer_call(client, open, status, size);
        return 0;
}

/* Reads what is there, up to one message. Returns 0, or why the connection must end, with the text for people. */
static int read_some(Reader *reader, VfioUserClient *client, const char **ret_text)
{
        int r;

        *ret_text = "the device's server closed the connection";
        if (reader->n_header < sizeof reader->header) {
                r = take_header(reader, client);
                if (r < 0 || reader->n_header < sizeof reader->header)
                        return r;
                *ret_text = judge_header(reader, client);
                if (*ret_text)
                        return -EPROTO;
        } else if (reader->n_payload < reader->n_total) {
                r = take_payload(reader, client);
                if (r < 0)
                        return r;
        }
        return reader->n_payload == reader->n_total ? finish_message(reader, client, ret_text) : 0;
}

static void pump(Reader *reader, VfioUserClient *client)
{
        const char *text = "";
        int r = 0;

        client->held++;
        for (int i = 0; i < 64 && r == 0 && reader->fd >= 0; i++)
                r = read_some(reader, client, &text);
        if (let_go(client) && r < 0 && r != -EAGAIN && r != -EINTR && reader->fd >= 0)
                give_up(client, r, text);
}

static void on_readable(evutil_socket_t fd, short what, void *userdata)
{
        VfioUserClient *client = userdata;

        pump(&client->main, client);
}

static void on_twin_readable(evutil_socket_t fd, short what, void *userdata)
{
        VfioUserClient *client = userdata;

        pump(&client->twin, client);
}
