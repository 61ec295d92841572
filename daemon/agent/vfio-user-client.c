/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vfio-user-client.h"

#include <stdio.h>
#include <sys/socket.h>

#include "common/socket.h"

#define DISCARD_BYTES 65536
#define SEND_BUFFER   (2 * MIB)
#define REPLIES_MAX   256 /* that the server has not read; a real one waits for each */

typedef struct OpenCall OpenCall;
struct OpenCall {
        OpenCall *next;
        VfioUserCall call;
        uint16_t id;
        bool sent;
        bool abandoned;
        uint8_t *copy; /* of the payload, when its owner could not wait until all of it was out */
};

/* One socket: what is being read from it, and the replies that go out there. */
typedef struct Reader {
        int fd;
        struct event *event, *writable;
        VfioUserInput input;
        size_t n_payload;         /* bytes of the payload that are in */
        size_t n_total;           /* bytes of payload that the header announces */
        OpenCall *answers;        /* the call that it answers; NULL: to be dropped, or a command */
        VfioUserMessage *message; /* it goes to somebody as it is */
        VfioUserMessage *replies, **last_reply;
        uint32_t n_replies;
        size_t n_out; /* bytes of the first of them that are out */
} Reader;

struct VfioUserClient {
        struct event_base *base;
        Reader main, twin;
        OpenCall *calls, **last; /* in the order in which they were given */
        OpenCall *unsent;        /* the first of them that is not wholly out */
        size_t n_out;            /* bytes of it that are */
        uint32_t n_sent;         /* calls that are out and wait for a reply */
        uint32_t n_server;       /* the server's commands on the main socket that have no answer yet */
        bool serial;
        uint16_t next_id;
        size_t write_max;
        uint8_t *scrap; /* what is dropped goes here */
        VfioUserServerCommand on_command;
        void *command_userdata;
        VfioUserGone on_gone;
        void *userdata;
        uint32_t held; /* callbacks are on the stack: freed when the last of them has returned */
        bool dead;
};

static void on_readable(evutil_socket_t fd, short what, void *userdata);
static void on_twin_readable(evutil_socket_t fd, short what, void *userdata);
static void on_writable(evutil_socket_t fd, short what, void *userdata);
static void on_twin_writable(evutil_socket_t fd, short what, void *userdata);

/* ---- life ---------------------------------------------------------------------------------------------------- */

static int reader_init(Reader *reader, VfioUserClient *client, int fd, event_callback_fn readable,
                       event_callback_fn writable)
{
        if (evutil_make_socket_nonblocking(fd) < 0)
                return -errno;
        reader->fd = fd;
        reader->last_reply = &reader->replies;
        reader->event = event_new(client->base, fd, EV_READ | EV_PERSIST, readable, client);
        reader->writable = event_new(client->base, fd, EV_WRITE, writable, client);
        if (!reader->event || !reader->writable || event_add(reader->event, NULL) < 0)
                return -ENOMEM;
        return 0;
}

static void reader_deinit(Reader *reader)
{
        if (reader->event)
                event_free(reader->event);
        if (reader->writable)
                event_free(reader->writable);
        if (reader->fd >= 0)
                (void) close(reader->fd);
        vfio_user_input_reset(&reader->input);
        vfio_user_message_free(reader->message);
        while (reader->replies) {
                VfioUserMessage *reply = reader->replies;

                reader->replies = reply->next;
                vfio_user_message_free(reply);
        }
        *reader = (Reader){.fd = -1};
}

/* Takes a call out of the list; the caller frees it. */
static OpenCall *take_call(VfioUserClient *client, OpenCall **place)
{
        OpenCall *open = *place;

        *place = open->next;
        if (!open->next)
                client->last = place;
        if (client->unsent == open)
                client->unsent = open->next;
        client->n_sent -= open->sent;
        return open;
}

static void free_call(OpenCall *open)
{
        free(open->copy);
        free(open);
}

static void destroy(VfioUserClient *client)
{
        while (client->calls) {
                OpenCall *open = take_call(client, &client->calls);

                if (open->call.on_raw)
                        open->call.on_raw(open->call.userdata, -ECANCELED, NULL);
                free_call(open);
        }
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
        client->twin.fd = -1;
        client->last = &client->calls;
        client->on_gone = on_gone;
        client->userdata = userdata;
        client->next_id = 1;
        client->scrap = malloc(DISCARD_BYTES);
        if (!client->scrap)
                return -ENOMEM;
        /* The kernel counts its own bookkeeping in, and two messages may be on the way. */
        client->write_max = MAX(socket_grow_send_buffer(fd, SEND_BUFFER) / 8, (size_t) 65536);
        r = reader_init(&client->main, client, fd, on_readable, on_writable);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(client);
        return 0;
}

int vfio_user_client_set_twin(VfioUserClient *client, int fd)
{
        client->twin.fd = fd;
        (void) socket_grow_send_buffer(fd, SEND_BUFFER);
        return reader_init(&client->twin, client, fd, on_twin_readable, on_twin_writable);
}

void vfio_user_client_set_handler(VfioUserClient *client, VfioUserServerCommand on_command, void *userdata)
{
        client->on_command = on_command;
        client->command_userdata = userdata;
}

void vfio_user_client_set_serial(VfioUserClient *client)
{
        client->serial = client->twin.fd < 0;
}

size_t vfio_user_client_write_max(const VfioUserClient *client)
{
        return client->write_max;
}

int vfio_user_client_take_fd(VfioUserClient *client)
{
        VfioUserInput *input = &client->main.input;
        int fd = input->n_fds > 0 ? input->fds[0] : -1;

        if (fd >= 0)
                input->fds[0] = input->fds[--input->n_fds];
        return fd;
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
        OpenCall **place = &client->calls;

        while (*place) {
                OpenCall *open = *place;
                bool half_out = open == client->unsent && client->n_out > 0;

                if (open->call.owner != owner) {
                        place = &open->next;
                        continue;
                }
                /* What has not begun to go out need not go at all. */
                if (!open->sent && !half_out) {
                        free_call(take_call(client, place));
                        continue;
                }
                open->abandoned = true;
                if (half_out && !open->copy && keep_copy(open) < 0)
                        (void) shutdown(client->main.fd, SHUT_RDWR); /* the loop will find out */
                place = &open->next;
        }
}

/* Whoever made the call hears what came of it. */
static void end_call(OpenCall *open, int status, size_t size, VfioUserMessage *reply)
{
        VfioUserCall call = open->call;
        bool abandoned = open->abandoned;

        free_call(open);
        if (call.on_raw)
                call.on_raw(call.userdata, status, reply);
        else if (!abandoned)
                call.on_reply(call.userdata, status, size);
}

/* The stream is at its end, or can't be trusted. The owner is told first: it knows more about its open calls than
 * they do. */
static void give_up(VfioUserClient *client, int status, const char *text)
{
        client->held++;
        reader_deinit(&client->main);
        reader_deinit(&client->twin);
        client->on_gone(client->userdata, status, text);
        while (!client->dead && client->calls)
                end_call(take_call(client, &client->calls), status, 0, NULL);
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

/* In serial mode nobody could tell when a command without a reply is through: it gets one, and nobody hears of it. */
static bool wants_no_reply(const VfioUserClient *client, const OpenCall *open)
{
        return open->call.no_reply && !client->serial;
}

/* Sends what is left of a message, normally all of it at once. */
static ssize_t send_call(const VfioUserClient *client, const OpenCall *open)
{
        VfioUserHeader header = {
                .id = open->id,
                .command = (uint16_t) open->call.command,
                .size = (uint32_t) out_size(&open->call),
                .flags = VFIO_USER_TYPE_COMMAND | (wants_no_reply(client, open) ? VFIO_USER_NO_REPLY : 0),
        };
        struct iovec iov[4] = {{&header, sizeof header}};

        memcpy(iov + 1, open->call.out, (size_t) open->call.n_out * sizeof iov[0]);
        return vfio_user_send(client->main.fd, iov, 1 + (size_t) open->call.n_out, client->n_out,
                              open->call.fds, open->call.n_fds);
}

static void call_is_out(VfioUserClient *client)
{
        OpenCall *open = client->unsent;

        client->n_out = 0;
        if (!wants_no_reply(client, open)) {
                client->unsent = open->next;
                client->n_sent++;
                open->sent = true;
                return;
        }
        for (OpenCall **place = &client->calls; *place; place = &(*place)->next)
                if (*place == open) {
                        end_call(take_call(client, place), 0, 0, NULL);
                        return;
                }
}

/* Returns 1 when a reply is out whole, 0 when there is none or not all of it is, or what went wrong. */
static int flush_reply(Reader *reader)
{
        VfioUserMessage *reply = reader->replies;
        struct iovec iov;
        ssize_t n;

        if (!reply)
                return 0;
        iov = (struct iovec){&reply->header, reply->header.size};
        n = vfio_user_send(reader->fd, &iov, 1, reader->n_out, NULL, 0);
        if (n < 0)
                return (int) n;
        reader->n_out += (size_t) n;
        if (reader->n_out < reply->header.size)
                return 0;
        reader->n_out = 0;
        reader->n_replies--;
        reader->replies = reply->next;
        if (!reader->replies)
                reader->last_reply = &reader->replies;
        vfio_user_message_free(reply);
        return 1;
}

static bool may_send_call(const VfioUserClient *client)
{
        return client->unsent && (!client->serial || (client->n_sent == 0 && client->n_server == 0));
}

/* Sends one thing, or what is left of it. Messages don't mix: what has begun goes on. */
static int flush_one(VfioUserClient *client, bool *ret_more)
{
        ssize_t n;
        int r;

        *ret_more = true;
        if (client->n_out == 0 && client->main.replies) {
                r = flush_reply(&client->main);
                if (r > 0 && client->n_server > 0)
                        client->n_server--;
                return MIN(r, 0);
        }
        if (client->n_out == 0 && !may_send_call(client)) {
                *ret_more = false;
                return 0;
        }
        n = send_call(client, client->unsent);
        if (n < 0)
                return (int) n;
        client->n_out += (size_t) n;
        if (client->n_out == out_size(&client->unsent->call))
                call_is_out(client);
        return 0;
}

static void flush(VfioUserClient *client)
{
        bool more = true;
        int r = 0;

        client->held++;
        while (more && r == 0 && client->main.fd >= 0)
                r = flush_one(client, &more);
        if (r == -EAGAIN && client->main.fd >= 0)
                (void) event_add(client->main.writable, NULL);
        else if (r < 0 && client->main.fd >= 0)
                give_up(client, r, "cannot write to the device's server");
        (void) let_go(client);
}

static void on_writable(evutil_socket_t fd, short what, void *userdata)
{
        flush(userdata);
}

static void on_twin_writable(evutil_socket_t fd, short what, void *userdata)
{
        VfioUserClient *client = userdata;
        int r = 1;

        while (r > 0 || (r == 0 && client->twin.replies))
                r = flush_reply(&client->twin);
        if (r == -EAGAIN)
                (void) event_add(client->twin.writable, NULL);
        else if (r < 0)
                give_up(client, r, "cannot answer the device's server");
}

/* An id that no open call has; one that is never answered may be very old. */
static uint16_t new_id(VfioUserClient *client)
{
        for (OpenCall *open = client->calls; open;)
                if (open->id == client->next_id) {
                        client->next_id++;
                        open = client->calls;
                } else {
                        open = open->next;
                }
        return client->next_id++;
}

int vfio_user_client_call(VfioUserClient *client, const VfioUserCall *call)
{
        OpenCall *open;

        if (client->main.fd < 0)
                return -ENOTCONN;
        open = malloc(sizeof *open);
        if (!open)
                return -ENOMEM;
        *open = (OpenCall){.call = *call, .id = new_id(client)};
        *client->last = open;
        client->last = &open->next;
        if (!client->unsent)
                client->unsent = open;
        /* From the loop, not from here: a caller does not expect to hear of the end of the connection in its call. */
        event_active(client->main.writable, EV_WRITE, 0);
        return 0;
}

void vfio_user_client_reply(VfioUserClient *client, VfioUserMessage *reply, bool twin)
{
        Reader *reader = twin ? &client->twin : &client->main;

        if (reader->fd < 0) {
                vfio_user_message_free(reply);
                return;
        }
        reply->next = NULL;
        *reader->last_reply = reply;
        reader->last_reply = &reply->next;
        reader->n_replies++;
        event_active(reader->writable, EV_WRITE, 0);
}

/* ---- in ------------------------------------------------------------------------------------------------------ */

static OpenCall *find_call(VfioUserClient *client, uint16_t id)
{
        for (OpenCall *open = client->calls; open && open != client->unsent; open = open->next)
                if (open->id == id)
                        return open;
        return NULL;
}

/* The header is in: does it make sense? NULL when it does, else what is wrong with it. */
static const char *judge_header(Reader *reader, VfioUserClient *client)
{
        const VfioUserHeader *h = &reader->input.header;
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
        if (reader->answers->call.on_raw)
                return NULL;
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

        if (reader->message)
                return (struct iovec){reader->message->payload + reader->n_payload, left};
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

static void answer_call(VfioUserClient *client, const OpenCall *answered, int status, size_t size,
                        VfioUserMessage *reply)
{
        for (OpenCall **place = &client->calls; *place; place = &(*place)->next)
                if (*place == answered) {
                        end_call(take_call(client, place), status, size, reply);
                        break;
                }
}

/* The server wants memory that is not there. */
static int refuse_command(Reader *reader, VfioUserClient *client)
{
        VfioUserMessage *reply = vfio_user_message_answer(&reader->input.header, EINVAL);

        if (!reply)
                return -ENOMEM;
        vfio_user_client_reply(client, reply, reader == &client->twin);
        return 0;
}

static int take_command(Reader *reader, VfioUserClient *client, const char **ret_text)
{
        _cleanup_(vfio_user_message_freep) VfioUserMessage *command = TAKE_PTR(reader->message);
        bool wants_reply = !(reader->input.header.flags & VFIO_USER_NO_REPLY);

        *ret_text = "the device's server does not read the answers to its own commands";
        if (reader->n_replies >= REPLIES_MAX)
                return -EPROTO;
        if (wants_reply && reader == &client->main)
                client->n_server++;
        if (command)
                client->on_command(client->command_userdata, TAKE_PTR(command), reader == &client->twin);
        else if (wants_reply)
                return refuse_command(reader, client);
        return 0;
}

/* The header is in and makes sense. What goes on as it is gets its own memory; the size was checked. */
static int begin_payload(Reader *reader, VfioUserClient *client)
{
        bool is_command = (reader->input.header.flags & VFIO_USER_TYPE_MASK) == VFIO_USER_TYPE_COMMAND;

        if (is_command ? !client->on_command : !reader->answers->call.on_raw)
                return 0;
        reader->message = vfio_user_input_take(&reader->input);
        return reader->message ? 0 : -ENOMEM;
}

/* A whole message is in. */
static int finish_message(Reader *reader, VfioUserClient *client, const char **ret_text)
{
        OpenCall *open = reader->answers;
        int r = 0, status = reply_status(&reader->input.header);
        size_t size = reader->n_payload;
        uint32_t type = reader->input.header.flags & VFIO_USER_TYPE_MASK;

        reader->input.n_header = 0;
        reader->n_payload = reader->n_total = 0;
        reader->answers = NULL;
        if (type == VFIO_USER_TYPE_COMMAND) {
                r = take_command(reader, client, ret_text);
        } else {
                VfioUserMessage *reply = TAKE_PTR(reader->message);

                if (status < 0)
                        reply = vfio_user_message_free(reply);
                answer_call(client, open, status, size, reply);
        }
        /* In serial mode the next one may go. */
        if (!client->dead && client->unsent && client->serial && client->main.fd >= 0)
                event_active(client->main.writable, EV_WRITE, 0);
        if (!client->dead)
                vfio_user_input_reset(&reader->input);
        return r;
}

/* Reads what is there, up to one message. Returns 1 when it is whole, 0 when it is not, or why the connection must end,
 * with the text for people. */
static int read_some(Reader *reader, VfioUserClient *client, const char **ret_text)
{
        int r;

        *ret_text = "the device's server closed the connection";
        if (reader->input.n_header < sizeof reader->input.header) {
                r = vfio_user_input_read(&reader->input, reader->fd);
                if (r <= 0)
                        return r;
                *ret_text = judge_header(reader, client);
                if (*ret_text)
                        return -EPROTO;
                *ret_text = "out of memory";
                r = begin_payload(reader, client);
                if (r < 0)
                        return r;
        } else if (reader->n_payload < reader->n_total) {
                r = take_payload(reader, client);
                if (r < 0)
                        return r;
        }
        if (reader->n_payload < reader->n_total)
                return 0;
        r = finish_message(reader, client, ret_text);
        return r < 0 ? r : 1;
}

/* One message at a time: where the next one is not there yet, which is the rule, looking for it costs a system call. */
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
