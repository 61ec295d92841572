/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client.h"

#include <sys/socket.h>

#include "command.h"
#include "spoil.h"

#define MESSAGE_EXTRA 32    /* the largest fixed part, as libvfio-user counts it */
#define MESSAGE_MIN   65536 /* a message without data may be so long, however little data is allowed */
#define ANSWER_MAX    sizeof(AskMessage)
#define CHATS         3
#define CHAT_BYTES    64

static void main_ready(evutil_socket_t fd, short what, void *userdata);
static void twin_ready(evutil_socket_t fd, short what, void *userdata);
static void delay_over(evutil_socket_t fd, short what, void *userdata);
static void take_up(Client *client);

Client *client_new(Device *device, struct event_base *base, int fd,
                   void (*gone)(Client *client, void *userdata), void *userdata)
{
        size_t message_max = MAX(device->config.max_data, (uint64_t) MESSAGE_MIN) + MESSAGE_EXTRA;
        _cleanup_(client_freep) Client *client = calloc(1, sizeof *client);

        if (!client) {
                (void) close(fd);
                return NULL;
        }
        client->device = device;
        client->main = client->twin = (Connection){.fd = -1, .out_fd = -1, .next_out_fd = -1};
        client->main.fd = fd;
        client->reply_fd = -1;
        client->gone = gone;
        client->userdata = userdata;
        client->max_data = MIN(device->config.max_data, (uint64_t) VFIO_USER_DATA_MAX);
        if (connection_init(&client->main, base, fd, message_max, main_ready, client) < 0)
                return NULL;
        client->timer = evtimer_new(base, delay_over, client);
        if (!client->timer)
                return NULL;
        connection_wait(&client->main, EV_READ);
        return TAKE_PTR(client);
}

Client *client_free(Client *client)
{
        if (!client)
                return NULL;
        if (client->timer)
                event_free(client->timer);
        connection_done(&client->main);
        connection_done(&client->twin);
        closep(&client->reply_fd);
        ask_done(&client->ask);
        free(client->reply);
        free(client);
        return NULL;
}

int client_set_twin(Client *client, int fd)
{
        return connection_init(&client->twin, event_get_base(client->timer), fd, ANSWER_MAX, twin_ready,
                               client);
}

int client_take_fd(Client *client, unsigned i)
{
        return i < CONNECTION_FDS_MAX ? TAKE_FD(client->main.fds[i]) : -1;
}

static Connection *chat_connection(Client *client)
{
        return client->twin.fd >= 0 ? &client->twin : &client->main;
}

/* Whether a fault holds the client up: then its leaving must be noticed although nothing is read. */
static bool is_held(const Client *client)
{
        return client->phase == CLIENT_HELD || (client->phase == CLIENT_BUSY && client->device->task.hung);
}

static bool asks_on_main(const Client *client)
{
        return client->twin.fd < 0 && client->ask.phase != ASK_NONE;
}

/* On its way, or answered next on that socket. */
static bool ask_is_out(const Client *client)
{
        return client->ask.phase == ASK_SENDING || client->ask.phase == ASK_SENT;
}

/* What the conversation of the device needs there, beside the client's own. */
static short wanted_of_asking(const Client *client)
{
        if (client->ask.phase == ASK_NONE)
                return 0;
        return client->ask.phase == ASK_SENT ? EV_READ : EV_WRITE;
}

static short wanted_of_busy(const Client *client)
{
        if (is_held(client))
                return EV_CLOSED;
        if (client->ask.phase == ASK_NONE)
                return 0;
        if (!asks_on_main(client))
                return EV_CLOSED;
        return client->stashed ? wanted_of_asking(client) & EV_WRITE : wanted_of_asking(client);
}

static short wanted_of_main(const Client *client)
{
        if (client->lost)
                return is_held(client) ? EV_CLOSED : 0;
        switch (client->phase) {
        case CLIENT_RECEIVING: return EV_READ | (asks_on_main(client) ? wanted_of_asking(client) : 0);
        case CLIENT_BUSY:
        case CLIENT_HELD: return wanted_of_busy(client);
        case CLIENT_SENDING:
                return EV_WRITE |
                       (asks_on_main(client) && !client->stashed ? wanted_of_asking(client) & EV_READ : 0);
        case CLIENT_CHATTING:
                if (client->twin.fd >= 0)
                        return EV_CLOSED;
                return client->main.out_left > 0 ? EV_WRITE : EV_READ;
        case CLIENT_GONE: break;
        }
        return 0;
}

static short wanted_of_twin(const Client *client)
{
        if (client->lost)
                return 0;
        if (client->phase == CLIENT_CHATTING && !ask_is_out(client))
                return client->twin.out_left > 0 ? EV_WRITE : EV_READ;
        return wanted_of_asking(client);
}

static void wait_for_all(Client *client)
{
        connection_wait(&client->main, wanted_of_main(client));
        if (client->twin.fd >= 0)
                connection_wait(&client->twin, wanted_of_twin(client));
}

static void violation(Client *client)
{
        client->device->stats.protocol_errors++;
}

/* The client has left, or what it says makes no sense any more. What the device does for it ends first all the same, but
 * waits for no answer. */
static void lose(Client *client)
{
        if (client->phase != CLIENT_BUSY || is_held(client)) {
                client->phase = CLIENT_GONE;
                return;
        }
        client->lost = true;
        client->ask.phase = ASK_NONE;
        device_forget_client(client->device);
}

/* The answer that the device waits for could only come behind a command that waits for the device. */
static bool is_deadlocked(const Client *client)
{
        return client->phase == CLIENT_BUSY && client->stashed && asks_on_main(client) &&
               client->ask.phase == ASK_SENT && device_waits_for_client(client->device);
}

/* The last thing that everybody does who was called from outside: the client may be freed here, and only here. */
static void settle(Client *client)
{
        if (is_deadlocked(client)) {
                violation(client);
                lose(client);
        }
        if (client->phase == CLIENT_GONE)
                client->gone(client, client->userdata);
        else
                wait_for_all(client);
}

/* ---- the reply ----------------------------------------------------------------------------------------------- */

uint8_t *client_reply(Client *client, size_t n)
{
        size_t size = sizeof(VfioUserHeader) + n;

        if (size > client->reply_room) {
                uint8_t *reply = realloc(client->reply, size);

                if (!reply)
                        return NULL;
                client->reply = reply;
                client->reply_room = size;
        }
        client->reply_payload_size = n;
        return client->reply + sizeof(VfioUserHeader);
}

int client_reply_request(Client *client)
{
        size_t n = client_payload_size(client);
        uint8_t *reply = client_reply(client, n);

        if (!reply)
                return -ENOMEM;
        memcpy(reply, client->main.payload, n);
        return 0;
}

static void next_request(Client *client)
{
        closep(&client->reply_fd); /* of a reply that nobody wanted */
        client->reply_fd = -1;
        client->phase = client->closing ? CLIENT_GONE : CLIENT_RECEIVING;
        if (client->phase == CLIENT_RECEIVING && client->stashed) {
                client->stashed = false;
                take_up(client);
        }
}

/* All that was given to the main socket is sent, or to the twin. */
static void note_sent(Client *client)
{
        if (client->ask.phase == ASK_SENDING)
                client->ask.phase = ASK_SENT;
}

static void go_on_sending(Client *client)
{
        int r = connection_flush(&client->main);

        if (r > 0 && client->twin.fd < 0)
                note_sent(client);
        if (r < 0)
                client->phase = CLIENT_GONE;
        else if (r > 0 && client->fault == FAULT_TRUNCATED)
                client->phase = CLIENT_HELD;
        else if (r > 0)
                next_request(client);
        else
                client->phase = CLIENT_SENDING;
}

static void send_reply(Client *client)
{
        VfioUserHeader h = {
                .id = client->request.id, .command = client->request.command, .flags = VFIO_USER_TYPE_REPLY};
        size_t n;

        if (client->request.flags & VFIO_USER_NO_REPLY) {
                next_request(client);
                return;
        }
        if (client->result < 0 && !client_reply(client, 0)) {
                client->phase = CLIENT_GONE;
                return;
        }
        h.flags |= client->result < 0 ? VFIO_USER_ERROR : 0;
        h.error = (uint32_t) -client->result;
        h.size = (uint32_t) (sizeof h + client->reply_payload_size);
        memcpy(client->reply, &h, sizeof h);
        n = spoil_reply(client->fault, client->reply, h.size);
        connection_send(&client->main, client->reply, n, client->result < 0 ? -1 : TAKE_FD(client->reply_fd));
        go_on_sending(client);
}

/* ---- conversation: the server asks, without being interested in what it hears ------------------------------------ */

static void go_on_chatting(Client *client)
{
        int r = connection_flush(chat_connection(client));

        if (r > 0)
                note_sent(client);
        else if (r < 0)
                client->phase = CLIENT_GONE;
}

static void chat(Client *client)
{
        if (client->chats == CHATS) {
                send_reply(client);
                return;
        }
        client->phase = CLIENT_CHATTING;
        if (ask_is_out(client))
                return; /* its answer leads back here */
        if (client->stashed) {
                violation(client);
                client->phase = CLIENT_GONE;
                return;
        }
        client->chat.header = (VfioUserHeader){
                .id = (uint16_t) client->chats, .command = VFIO_USER_DMA_READ, .size = sizeof client->chat};
        client->chat.access = (VfioUserDmaAccess){.address = client->chats * 4096u, .count = CHAT_BYTES};
        client->chats++;
        connection_send(chat_connection(client), &client->chat, sizeof client->chat, -1);
        go_on_chatting(client);
}

static bool is_answer(const Client *client, const Connection *c)
{
        const VfioUserHeader *h = &c->header;

        if ((h->flags & VFIO_USER_TYPE_MASK) != VFIO_USER_TYPE_REPLY || h->id != client->chat.header.id ||
            h->command != VFIO_USER_DMA_READ)
                return false;
        return (h->flags & VFIO_USER_ERROR) || h->size == sizeof client->chat + CHAT_BYTES;
}

/* ---- conversation of the device, which waits for the answers ------------------------------------------------- */

static void ask(void *userdata, bool write, uint64_t address, const uint8_t *data, size_t n)
{
        Client *client = userdata;

        /* Only queued, because whoever asks is in the middle of something. */
        ask_queue(&client->ask, write, address, data, n);
        wait_for_all(client);
}

int client_accept(Client *client, uint64_t max_data)
{
        if (client->device->worker && ask_init(&client->ask) < 0)
                return -ENOMEM;
        client->device->dma.asker = (DmaAsker){
                .ask = ask, .userdata = client, .max = (size_t) MIN(max_data, (uint64_t) ASK_DATA_MAX)};
        client->max_data = max_data;
        client->negotiated = true;
        return 0;
}

static void go_on_asking(Client *client)
{
        Connection *c = chat_connection(client);
        int r;

        if (client->ask.phase == ASK_QUEUED) {
                connection_send(c, client->ask.message, client->ask.message->header.size, -1);
                client->ask.phase = ASK_SENDING;
        }
        r = connection_flush(c);
        if (r > 0)
                note_sent(client);
        else if (r < 0)
                lose(client);
}

/* A whole message has come that should be the answer. */
static void take_answer(Client *client, Connection *c)
{
        const uint8_t *data = NULL;
        size_t n = 0;
        int r = ask_check(&client->ask, c, &data, &n);

        if (r == -EPROTO) {
                violation(client);
                lose(client);
                return;
        }
        client->ask.phase = ASK_NONE;
        dma_answered(&client->device->dma, r, data, n);
        connection_next(c);
        if (client->phase == CLIENT_CHATTING)
                chat(client);
}

static void hear_ask(Client *client)
{
        Connection *c = chat_connection(client);
        int r = connection_receive(c);

        if (r > 0) {
                take_answer(client, c);
        } else if (r < 0) {
                violation(client);
                lose(client);
        }
}

/* As libvfio-user: the next message must be the answer. Without a twin socket a command that crosses ours is none. */
static void hear_answer(Client *client)
{
        Connection *c = chat_connection(client);
        int r = connection_receive(c);

        if (r > 0 && is_answer(client, c)) {
                connection_next(c);
                chat(client);
        } else if (r != 0) {
                violation(client);
                client->phase = CLIENT_GONE;
        }
}

/* ---- the request --------------------------------------------------------------------------------------------- */

static void answer(Client *client)
{
        client->device->stats.refused += client->result < 0;
        if (client->lost || client->fault == FAULT_DISCONNECT)
                client->phase = CLIENT_GONE;
        else if (client->fault == FAULT_CHATTER)
                chat(client);
        else
                send_reply(client);
}

static void finish(Client *client, int r)
{
        struct timeval tv = {.tv_sec = (time_t) (client->delay_usec / USEC_PER_SEC),
                             .tv_usec = (suseconds_t) (client->delay_usec % USEC_PER_SEC)};

        client->result = r;
        client->closing |= !client->negotiated;
        if (client->delay_usec == 0) {
                answer(client);
                return;
        }
        client->phase = CLIENT_BUSY;
        (void) evtimer_add(client->timer, &tv);
}

static void acted(Client *client, int r)
{
        Device *d = client->device;

        if (r == DEVICE_UNDER_WAY) {
                client->phase = CLIENT_BUSY;
                return;
        }
        if (d->spoiled)
                client->fault = d->spoiled;
        d->spoiled = FAULT_NONE;
        finish(client, r);
}

static void act(Client *client)
{
        int r = command_get(client->request.command)->handle(client);

        connection_next(&client->main);
        acted(client, r);
}

static void refuse(Client *client, int r)
{
        connection_next(&client->main);
        finish(client, r);
}

static void meet_fault(Client *client, const Fault *f)
{
        if (f->kind == FAULT_EXIT)
                _exit(EXIT_FAILURE);
        if (f->kind == FAULT_HANG) {
                client->phase = CLIENT_HELD;
                return;
        }
        if (f->kind == FAULT_FAIL || f->kind == FAULT_ERROR) {
                if (f->kind == FAULT_ERROR)
                        device_break(client->device, history_now_usec(), f->error);
                refuse(client, -f->error);
                return;
        }
        if (f->kind == FAULT_LATE)
                client->delay_usec = f->delay_usec;
        if (fault_spoils_reply(f->kind))
                client->fault = f->kind;
        act(client);
}

static bool is_allowed(const Client *client, const Command *command)
{
        if (!command || client_payload_size(client) < command->payload_min)
                return false;
        if (!client->negotiated)
                return client->request.command == VFIO_USER_VERSION && client->main.n_fds == 0;
        return client->request.command != VFIO_USER_VERSION && command_is_served(command, client->device);
}

static void take_up(Client *client)
{
        const Command *command;
        Fault fault;

        client->request = client->main.header;
        client->fault = FAULT_NONE;
        client->delay_usec = 0;
        client->chats = 0;
        client->reply_payload_size = 0;
        if ((client->request.flags & VFIO_USER_TYPE_MASK) != VFIO_USER_TYPE_COMMAND) {
                violation(client);
                client->closing = true;
                refuse(client, -EINVAL);
                return;
        }
        command = command_get(client->request.command);
        if (!is_allowed(client, command)) {
                refuse(client, -EINVAL);
                return;
        }
        fault = fault_list_take(&client->device->config.faults, command->place);
        meet_fault(client, &fault);
}

/* The header says what cannot be: the rest of the stream cannot be found any more. */
static void refuse_stream(Client *client)
{
        violation(client);
        client->request = client->main.header;
        client->fault = FAULT_NONE;
        client->delay_usec = 0;
        client->closing = true;
        finish(client, -EINVAL);
}

static bool is_reply(const Client *client)
{
        return (client->main.header.flags & VFIO_USER_TYPE_MASK) == VFIO_USER_TYPE_REPLY;
}

static void receive_request(Client *client)
{
        int r = connection_receive(&client->main);

        if (r == 1 && asks_on_main(client) && is_reply(client)) {
                take_answer(client, &client->main);
        } else if (r == 1) {
                take_up(client);
        } else if (r == -EMSGSIZE) {
                refuse_stream(client);
        } else if (r < 0) {
                if (client->main.received > 0)
                        violation(client);
                client->phase = CLIENT_GONE;
        }
}

/* While another request is not done with. */
static void receive_beside(Client *client)
{
        int r = connection_receive(&client->main);

        if (r == 1 && is_reply(client)) {
                take_answer(client, &client->main);
        } else if (r == 1) {
                client->stashed = true;
        } else if (r < 0) {
                if (client->main.received > 0)
                        violation(client);
                lose(client);
        }
}

/* ---- called from outside ------------------------------------------------------------------------------------- */

static void main_writable(Client *client)
{
        if (client->phase == CLIENT_SENDING)
                go_on_sending(client);
        else if (client->phase == CLIENT_CHATTING)
                go_on_chatting(client);
        else
                go_on_asking(client);
}

static void main_readable(Client *client)
{
        if (client->phase == CLIENT_RECEIVING)
                receive_request(client);
        else if (client->phase == CLIENT_CHATTING && !ask_is_out(client))
                hear_answer(client);
        else if (client->phase == CLIENT_CHATTING)
                hear_ask(client);
        else
                receive_beside(client);
}

static void main_ready(evutil_socket_t fd, short what, void *userdata)
{
        Client *client = userdata;

        if (what & EV_CLOSED)
                lose(client);
        if (what & EV_WRITE)
                main_writable(client);
        /* What is wanted may be another thing now. */
        if (what & EV_READ & wanted_of_main(client))
                main_readable(client);
        settle(client);
}

static void twin_ready(evutil_socket_t fd, short what, void *userdata)
{
        Client *client = userdata;
        bool asking = client->phase != CLIENT_CHATTING || ask_is_out(client);

        if (asking && (what & EV_WRITE))
                go_on_asking(client);
        else if (asking)
                hear_ask(client);
        else if (what & EV_WRITE)
                go_on_chatting(client);
        else
                hear_answer(client);
        settle(client);
}

static void delay_over(evutil_socket_t fd, short what, void *userdata)
{
        answer(userdata);
        settle(userdata);
}

void client_device_done(Client *client, int r)
{
        acted(client, r);
        settle(client);
}

static void send_rest(Client *client)
{
        size_t sent = (size_t) (client->main.out - client->reply);

        client->fault = FAULT_NONE;
        connection_send(&client->main, client->main.out,
                        sizeof(VfioUserHeader) + client->reply_payload_size - sent, -1);
        go_on_sending(client);
}

void client_release(Client *client)
{
        if (!is_held(client))
                return;
        if (client->phase == CLIENT_BUSY)
                acted(client, device_release(client->device));
        else if (client->fault == FAULT_TRUNCATED)
                send_rest(client);
        else
                act(client);
        settle(client);
}

void client_kick(Client *client)
{
        if (client->phase == CLIENT_BUSY && !is_held(client)) {
                (void) shutdown(client->main.fd, SHUT_RDWR);
                return;
        }
        client->phase = CLIENT_GONE;
        settle(client);
}
