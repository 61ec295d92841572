/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker.h"

#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "broker-line.h"
#include "broker-rules.h"
#include "broker-session.h"
#include "common/clock.h"
#include "common/log.h"
#include "vfio-user-client.h"

/* Commands of the server that have no answer of the VMM, in time or not. */
#define SERVER_COMMANDS_MAX 64
/* What a VMM that does not read is sent at most. */
#define UNSENT_MAX (4 * 1024 * 1024)

/* A command of the VMM, until its answer. */
typedef struct Command Command;
struct Command {
        Command *next;
        Broker *broker;
        VfioUserMessage *request;
        uint64_t arrived_usec;
        size_t bytes;  /* that it and its reply take */
        bool answered; /* the VMM has its answer, wants none, or is gone */
        bool unknown;  /* ... and does not know what came of it */
};

typedef struct CommandList {
        Command *first, **last;
        uint32_t n;
        size_t bytes;
} CommandList;

/* A command of the server, until the VMM's answer. */
typedef struct ServerCommand ServerCommand;
struct ServerCommand {
        ServerCommand *next;
        VfioUserHeader header; /* as the server sent it */
        VfioUserDmaAccess access;
        bool twin;        /* the server's socket on which it came */
        BrokerLine *line; /* the VMM's on which it went */
        uint16_t id;      /* ... as this */
        uint64_t arrived_usec;
        bool answered; /* for the VMM, which was too late */
};

/* A command of our own that makes the server have what the VMM wants. */
typedef struct Repair {
        Broker *broker;
        VfioUserMessage *command;
} Repair;

struct Broker {
        struct event_base *base;
        struct event *accept, *tick;
        int listen_fd;
        char *path;
        dev_t dev;
        ino_t ino;
        BrokerWanted wanted;
        BrokerUnmap unmap;
        void *userdata;
        /* the server */
        VfioUserClient *client; /* NULL: no connection */
        char *server_text;      /* what it said of itself, NULL: no server was ever here */
        uint16_t server_minor;
        BrokerLimits server_limits;
        bool held;     /* the device stands */
        bool resuming; /* it takes a state in */
        /* the VMM */
        BrokerLine *main, *twin;
        uint64_t accepted_usec;
        VfioUserMessage *version; /* waits for a server */
        bool negotiated;
        BrokerLimits vmm_limits;
        uint64_t lost_usec;   /* since when it has no server; 0: it has one */
        uint64_t wanted_usec; /* when the daemon was told so */
        const char *broken;   /* what the last one did wrong, and was logged */
        CommandList waiting, flying;
        ServerCommand *server_commands;
        uint32_t n_server_commands;
        uint16_t next_id;
        /* what it has set up */
        Session *session;
        Repair *repair; /* under way */
};

static void pump(Broker *broker);
static void repair_next(Broker *broker);
static void wake(Broker *broker, uint64_t at_usec);

/* ---- lists --------------------------------------------------------------------------------------------------- */

static void list_add(CommandList *list, Command *command)
{
        command->next = NULL;
        *list->last = command;
        list->last = &command->next;
        list->n++;
        list->bytes += command->bytes;
}

static void list_take(CommandList *list, Command **place)
{
        Command *command = *place;

        *place = command->next;
        if (!command->next)
                list->last = place;
        list->n--;
        list->bytes -= command->bytes;
}

static void command_free(Command *command)
{
        vfio_user_message_free(command->request);
        free(command);
}

/* ---- to the VMM ---------------------------------------------------------------------------------------------- */

static void answer(Broker *broker, const VfioUserHeader *command, int error)
{
        VfioUserMessage *reply;

        if (!broker->main || command->flags & VFIO_USER_NO_REPLY)
                return;
        reply = vfio_user_message_answer(command, error);
        if (reply)
                broker_line_send(broker->main, reply);
}

static void answer_command(Command *command, int error)
{
        if (command->answered)
                return;
        answer(command->broker, &command->request->header, error);
        command->answered = command->unknown = true;
}

/* A VMM that can wait no longer, or that is read no further, is left to the kernel's buffers. */
static void set_reading(Broker *broker)
{
        if (broker->main)
                broker_line_set_reading(broker->main, broker->waiting.n < BROKER_COMMANDS_MAX &&
                                                              broker->waiting.bytes < BROKER_BYTES_MAX &&
                                                              broker_line_unsent(broker->main) < UNSENT_MAX);
}

/* ---- the VMM's commands -------------------------------------------------------------------------------------- */

static bool changes_session(const VfioUserMessage *request)
{
        return request->header.command == VFIO_USER_DMA_MAP ||
               request->header.command == VFIO_USER_DMA_UNMAP ||
               request->header.command == VFIO_USER_DEVICE_SET_IRQS;
}

static void take_accepted(Broker *broker, Command *command)
{
        int r;

        if (!changes_session(command->request))
                return;
        r = session_accepted(broker->session, command->request, !command->unknown);
        if (r < 0)
                log_error(
                        NULL,
                        "what the VMM has set up can't be remembered, and not given to the server again: %s",
                        strerror(-r));
        if (command->unknown)
                repair_next(broker);
}

/* The reply as it came, under the number that the VMM gave. */
static void relay(Broker *broker, const Command *command, VfioUserMessage *reply)
{
        if (reply->n_fds > broker->vmm_limits.files_max) {
                answer(broker, &command->request->header, EMFILE);
                vfio_user_message_free(reply);
                return;
        }
        if (reply->n_fds > 0 && reply->header.command == VFIO_USER_DEVICE_GET_REGION_INFO)
                session_gives_region(broker->session, command->request, reply);
        reply->header.id = command->request->header.id;
        broker_line_send(broker->main, reply);
}

static void on_forwarded(void *userdata, int status, VfioUserMessage *reply)
{
        Command *command = userdata;
        Broker *broker = command->broker;

        for (Command **place = &broker->flying.first; *place; place = &(*place)->next)
                if (*place == command) {
                        list_take(&broker->flying, place);
                        break;
                }
        if (status == 0)
                take_accepted(broker, command);
        if (command->answered || !reply) {
                if (status < 0)
                        answer_command(command, -status);
                vfio_user_message_free(reply);
        } else {
                relay(broker, command, reply);
        }
        command_free(command);
        pump(broker);
}

/* `request` NULL: the VMM goes, and all that it has mapped with it. */
static void tell_unmap(Broker *broker, const VfioUserMessage *request)
{
        const BrokerMap *maps;
        uint32_t n_maps;

        if (!broker->unmap || !broker->client)
                return;
        n_maps = session_maps(broker->session, &maps);
        for (uint32_t i = 0; i < n_maps; i++)
                if (!request || session_unmaps(request, &maps[i]))
                        broker->unmap(broker->userdata, &maps[i]);
}

/* What we must know the outcome of is never sent without a reply. */
static void send_command(Broker *broker, Command *command)
{
        VfioUserMessage *request = command->request;
        bool no_reply = request->header.flags & VFIO_USER_NO_REPLY;
        VfioUserCall call = {
                .command = request->header.command,
                .out = {{request->payload, vfio_user_message_payload(request)}},
                .n_out = vfio_user_message_payload(request) > 0 ? 1 : 0,
                .on_raw = on_forwarded,
                .no_reply = no_reply && !changes_session(request),
                .fds = request->fds,
                .n_fds = request->n_fds,
                .userdata = command,
        };
        int r;

        /* We have just reset it; a reset now would end the loading. */
        if (broker->resuming && request->header.command == VFIO_USER_DEVICE_RESET) {
                answer(broker, &request->header, 0);
                command_free(command);
                return;
        }
        if (request->header.command == VFIO_USER_DMA_UNMAP)
                tell_unmap(broker, request);
        if (no_reply)
                command->answered = true;
        list_add(&broker->flying, command);
        r = vfio_user_client_call(broker->client, &call);
        if (r < 0)
                on_forwarded(command, r, NULL);
}

static bool has_room_to_fly(const Broker *broker)
{
        return broker->flying.n == 0 ||
               (broker->flying.n < BROKER_COMMANDS_MAX && broker->flying.bytes < BROKER_BYTES_MAX);
}

static void pump(Broker *broker)
{
        while (broker->waiting.first && broker->client && !broker->held && !broker->repair &&
               has_room_to_fly(broker)) {
                Command *command = broker->waiting.first;

                list_take(&broker->waiting, &broker->waiting.first);
                send_command(broker, command);
        }
        set_reading(broker);
}

static void take_command(Broker *broker, VfioUserMessage *request)
{
        size_t reply_size;
        int error = broker_rules_command(request, &broker->server_limits, &reply_size);
        Command *command = error ? NULL : malloc(sizeof *command);

        if (!error && session_has_room(broker->session, request) < 0)
                error = ENOSPC;
        if (!error && !command)
                error = ENOMEM;
        if (error) {
                answer(broker, &request->header, error);
                vfio_user_message_free(request);
                free(command);
                return;
        }
        *command = (Command){.broker = broker,
                             .request = request,
                             .arrived_usec = clock_monotonic_usec(),
                             .bytes = sizeof *command + request->header.size + reply_size};
        list_add(&broker->waiting, command);
        wake(broker, command->arrived_usec + BROKER_ANSWER_USEC);
        pump(broker);
}

/* ---- VERSION ------------------------------------------------------------------------------------------------- */

static int add_twin(Broker *broker, VfioUserMessage *reply);

/* Returns NULL, or why the connection ends. */
static const char *answer_version(Broker *broker)
{
        BrokerServer server = {broker->server_minor, broker->server_text};
        VfioUserMessage *request = TAKE_PTR(broker->version), *reply;
        bool twin = false;
        int r = broker_rules_version(request, &server, &broker->vmm_limits, &twin, &reply);

        if (r == 0 && twin) {
                r = add_twin(broker, reply);
                if (r < 0)
                        vfio_user_message_free(reply);
        }
        if (r != 0)
                answer(broker, &request->header, r < 0 ? -r : r);
        else
                broker_line_send(broker->main, reply);
        vfio_user_message_free(request);
        broker->negotiated = r == 0;
        return r == 0 ? NULL : "it sent a VERSION that cannot be answered";
}

static const char *take_version(Broker *broker, VfioUserMessage *request)
{
        if (request->header.command != VFIO_USER_VERSION || request->header.flags & VFIO_USER_NO_REPLY ||
            broker->version) {
                answer(broker, &request->header, EINVAL);
                vfio_user_message_free(request);
                return "it did not begin with VERSION";
        }
        broker->version = request;
        return broker->client ? answer_version(broker) : NULL;
}

/* ---- the server's commands ----------------------------------------------------------------------------------- */

static void answer_server(Broker *broker, const VfioUserHeader *command, bool twin, int error)
{
        VfioUserMessage *reply;

        if (!broker->client || command->flags & VFIO_USER_NO_REPLY)
                return;
        reply = vfio_user_message_answer(command, error);
        if (reply)
                vfio_user_client_reply(broker->client, reply, twin);
}

static ServerCommand *take_server_command(Broker *broker, ServerCommand **place)
{
        ServerCommand *command = *place;

        *place = command->next;
        broker->n_server_commands--;
        return command;
}

/* A number that no other one has: the VMM may never answer one. */
static uint16_t new_id(Broker *broker)
{
        for (const ServerCommand *c = broker->server_commands; c;)
                if (c->id == broker->next_id) {
                        broker->next_id++;
                        c = broker->server_commands;
                } else {
                        c = c->next;
                }
        return broker->next_id++;
}

static int pass_on(Broker *broker, VfioUserMessage *message, bool twin)
{
        BrokerLine *line = broker->twin ? broker->twin : broker->main;
        ServerCommand *command, **last = &broker->server_commands;
        int error;

        if (!broker->negotiated)
                return EINVAL; /* nothing is mapped */
        error = broker_rules_server_command(message, &broker->vmm_limits);
        if (error)
                return error;
        if (broker->n_server_commands >= SERVER_COMMANDS_MAX || broker_line_unsent(line) >= UNSENT_MAX)
                return EBUSY;
        while (message->n_fds > 0)
                (void) close(message->fds[--message->n_fds]);
        if (message->header.flags & VFIO_USER_NO_REPLY) {
                broker_line_send(line, message);
                return 0;
        }
        command = malloc(sizeof *command);
        if (!command)
                return ENOMEM;
        *command = (ServerCommand){.header = message->header,
                                   .twin = twin,
                                   .line = line,
                                   .id = new_id(broker),
                                   .arrived_usec = clock_monotonic_usec()};
        memcpy(&command->access, message->payload, sizeof command->access);
        while (*last)
                last = &(*last)->next;
        *last = command;
        broker->n_server_commands++;
        message->header.id = command->id;
        wake(broker, command->arrived_usec + BROKER_ANSWER_USEC);
        broker_line_send(line, message);
        return 0;
}

static void on_server_command(void *userdata, VfioUserMessage *message, bool twin)
{
        Broker *broker = userdata;
        int error = pass_on(broker, message, twin);

        if (error) {
                answer_server(broker, &message->header, twin, error);
                vfio_user_message_free(message);
        }
}

/* Whatever the VMM says: the server gets a reply to what it asked, of the size that it expects. */
static void give_answer(Broker *broker, const ServerCommand *command, VfioUserMessage *reply)
{
        size_t size = vfio_user_message_payload(reply);
        bool is_read = command->header.command == VFIO_USER_DMA_READ;
        bool good = is_read ? size == sizeof command->access + command->access.count &&
                                      memcmp(reply->payload, &command->access, sizeof command->access) == 0
                            : size <= sizeof command->access;
        uint32_t error = reply->header.error;

        if (reply->header.flags & VFIO_USER_ERROR || !good) {
                answer_server(broker, &command->header, command->twin,
                              !(reply->header.flags & VFIO_USER_ERROR) ? EINVAL
                              : error == 0 || error > 4095             ? EIO
                                                                       : (int) error);
                vfio_user_message_free(reply);
                return;
        }
        /* QEMU answers DMA_WRITE with a bare header, the specification has 12 bytes, libvfio-user wants all 16. */
        if (!is_read && size != sizeof command->access) {
                vfio_user_message_free(reply);
                reply = vfio_user_message_new(sizeof command->access);
                if (!reply) {
                        answer_server(broker, &command->header, command->twin, ENOMEM);
                        return;
                }
        }
        memcpy(reply->payload, &command->access, sizeof command->access);
        while (reply->n_fds > 0)
                (void) close(reply->fds[--reply->n_fds]);
        reply->header.id = command->header.id;
        reply->header.command = command->header.command;
        reply->header.flags = VFIO_USER_TYPE_REPLY;
        reply->header.error = 0;
        vfio_user_client_reply(broker->client, reply, command->twin);
}

static const char *take_reply(Broker *broker, BrokerLine *line, VfioUserMessage *reply)
{
        for (ServerCommand **place = &broker->server_commands; *place; place = &(*place)->next) {
                ServerCommand *command = *place;

                if (command->id != reply->header.id || command->line != line)
                        continue;
                if (command->header.command != reply->header.command)
                        break;
                (void) take_server_command(broker, place);
                if (command->answered)
                        vfio_user_message_free(reply);
                else
                        give_answer(broker, command, reply);
                free(command);
                return NULL;
        }
        vfio_user_message_free(reply);
        return "it answered what the device's server did not ask";
}

/* ---- the VMM's connection ------------------------------------------------------------------------------------ */

static void drop_vmm(Broker *broker)
{
        broker->main = broker_line_free(broker->main);
        broker->twin = broker_line_free(broker->twin);
        broker->version = vfio_user_message_free(broker->version);
        broker->negotiated = false;
        broker->lost_usec = 0;
        while (broker->waiting.first) {
                Command *command = broker->waiting.first;

                list_take(&broker->waiting, &broker->waiting.first);
                command_free(command);
        }
        for (Command *command = broker->flying.first; command; command = command->next)
                command->answered = command->unknown = true;
        while (broker->server_commands) {
                ServerCommand *command = take_server_command(broker, &broker->server_commands);

                if (!command->answered)
                        answer_server(broker, &command->header, command->twin, EINVAL);
                free(command);
        }
        tell_unmap(broker, NULL);
        session_unwant(broker->session);
        repair_next(broker);
}

/* Each way to be wrong is said once: who does it for ever shall not fill the log. */
static void log_broken(Broker *broker, const char *text)
{
        if (broker->broken != text)
                log_warning(NULL, "broker %s: the VMM's connection is dropped: %s", broker->path, text);
        broker->broken = text;
}

static void on_line_gone(void *userdata, BrokerLine *line, const char *text)
{
        Broker *broker = userdata;

        if (text)
                log_broken(broker, text);
        drop_vmm(broker);
}

static const char *on_line_message(void *userdata, BrokerLine *line, VfioUserMessage *message)
{
        Broker *broker = userdata;
        bool is_reply = (message->header.flags & VFIO_USER_TYPE_MASK) == VFIO_USER_TYPE_REPLY;

        if (is_reply)
                return take_reply(broker, line, message);
        if (line == broker->twin) {
                vfio_user_message_free(message);
                return "it sent a command on the socket for the server's";
        }
        if (!broker->negotiated)
                return take_version(broker, message);
        take_command(broker, message);
        return NULL;
}

static void on_line_drained(void *userdata)
{
        pump(userdata); /* it may be read again */
}

static const BrokerLineHooks line_hooks = {on_line_message, on_line_gone, on_line_drained};

static int add_twin(Broker *broker, VfioUserMessage *reply)
{
        int fds[2], r;

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
                return -errno;
        r = broker_line_new(broker->base, fds[0], &line_hooks, broker, &broker->twin);
        if (r < 0) {
                (void) close(fds[1]);
                return r;
        }
        reply->fds[reply->n_fds++] = fds[1];
        return 0;
}

static void on_accept(evutil_socket_t socket, short what, void *userdata)
{
        Broker *broker = userdata;
        int fd = accept4(broker->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd < 0)
                return;
        /* One that has gone may not have been noticed, because it is not read. */
        if (broker->main && broker_line_is_closed(broker->main))
                drop_vmm(broker);
        if (broker->main) {
                (void) close(fd);
                log_broken(broker, "a second one came while the first is there");
                return;
        }
        if (broker_line_new(broker->base, fd, &line_hooks, broker, &broker->main) < 0)
                return;
        broker->accepted_usec = clock_monotonic_usec();
        broker->wanted_usec = 0;
        if (!broker->client)
                broker->lost_usec = broker->accepted_usec;
        wake(broker, 0);
}

/* ---- what the VMM has set up --------------------------------------------------------------------------------- */

static void on_repaired(void *userdata, int status, VfioUserMessage *reply)
{
        Repair *repair = userdata;
        Broker *broker = repair->broker;
        bool refused_for_now = status < 0 && broker->held;

        if (broker->repair == repair) { /* else it was of a connection that is no more */
                broker->repair = NULL;
                if (session_next_done(broker->session, repair->command, reply, !refused_for_now) < 0) {
                        log_broken(broker, "the device's server has other memory than what it has mapped");
                        drop_vmm(broker);
                }
                if (status < 0 && !refused_for_now)
                        log_warning(NULL,
                                    "broker %s: the device's server refuses what the VMM had set up: %s",
                                    broker->path, strerror(-status));
                /* libvfio-user takes no such command while it stands: again when it runs. */
                if (!refused_for_now)
                        repair_next(broker);
                pump(broker);
        }
        vfio_user_message_free(reply);
        vfio_user_message_free(repair->command);
        free(repair);
}

static int repair_begin(Broker *broker, VfioUserMessage *message)
{
        Repair *repair = malloc(sizeof *repair);
        VfioUserCall call;
        int r;

        if (!repair) {
                vfio_user_message_free(message);
                return -ENOMEM;
        }
        *repair = (Repair){broker, message};
        call = (VfioUserCall){.command = message->header.command,
                              .out = {{message->payload, vfio_user_message_payload(message)}},
                              .n_out = 1,
                              .on_raw = on_repaired,
                              .fds = message->fds,
                              .n_fds = message->n_fds,
                              .userdata = repair};
        r = vfio_user_client_call(broker->client, &call);
        if (r < 0) {
                vfio_user_message_free(message);
                free(repair);
                return r;
        }
        broker->repair = repair;
        return 0;
}

/* The VMM's commands wait until server and VMM agree. */
static void repair_next(Broker *broker)
{
        VfioUserMessage *message;
        int r;

        if (!broker->client || broker->repair)
                return;
        r = session_next(broker->session, broker->server_limits.files_max, &message);
        if (r == 0 && message)
                r = repair_begin(broker, message);
        if (r < 0)
                log_error(NULL, "broker %s: what the VMM had set up can't be given to the server: %s",
                          broker->path, strerror(-r));
}

uint32_t broker_maps(const Broker *broker, const BrokerMap **ret)
{
        *ret = NULL;
        return broker ? session_maps(broker->session, ret) : 0;
}

/* ---- the device ---------------------------------------------------------------------------------------------- */

void broker_set_held(Broker *broker, bool held)
{
        if (broker->held == held)
                return;
        if (held && broker->main && broker_line_drain(broker->main) && broker->client && !broker->repair)
                while (broker->waiting.first) {
                        Command *command = broker->waiting.first;

                        list_take(&broker->waiting, &broker->waiting.first);
                        send_command(broker, command);
                }
        broker->held = held;
        if (!held) {
                repair_next(broker);
                pump(broker);
        }
}

void broker_see_state(Broker *broker, DeviceState state, bool asked)
{
        bool stands = state == DEVICE_STATE_STOP || state == DEVICE_STATE_STOP_COPY;

        if (state == DEVICE_STATE_UNKNOWN)
                return;
        /* Before it stands, and only when it surely runs. */
        if (stands)
                broker_set_held(broker, true);
        if (!asked || state == DEVICE_STATE_RESUMING)
                broker->resuming = state == DEVICE_STATE_RESUMING;
        if (!stands && !asked)
                broker_set_held(broker, false);
}

static void take_server(Broker *broker, VfioUserDevice *device)
{
        const char *text = vfio_user_device_version(device, &broker->server_minor);
        char *copy = strdup(text);

        if (!copy)
                abort();
        free(broker->server_text);
        broker->server_text = copy;
        broker_rules_limits(text, &broker->server_limits);
        broker->client = vfio_user_device_client(device);
        vfio_user_client_set_handler(broker->client, on_server_command, broker);
        vfio_user_client_set_serial(broker->client);
}

static void lose_server(Broker *broker)
{
        broker->client = NULL;
        broker->repair = NULL; /* it frees itself when the client says that it came to nothing */
        broker->held = broker->resuming = false;
        /* Nobody knows what came of these. */
        for (Command *command = broker->flying.first; command; command = command->next)
                answer_command(command, EIO);
        for (ServerCommand *command = broker->server_commands; command; command = command->next)
                command->answered = true;
        session_lose(broker->session);
        if (broker->main)
                broker->lost_usec = clock_monotonic_usec();
        broker->wanted_usec = 0;
        wake(broker, 0);
}

void broker_set_device(Broker *broker, VfioUserDevice *device)
{
        const char *text;

        if (!device) {
                if (broker->client)
                        lose_server(broker);
                return;
        }
        take_server(broker, device);
        broker->lost_usec = 0;
        broker->held = broker->resuming = false;
        repair_next(broker); /* before it is known to stand: some servers take it even so */
        broker_see_state(broker, vfio_user_device_facts(device)->state, false);
        text = broker->version ? answer_version(broker) : NULL;
        if (text) {
                log_broken(broker, text);
                drop_vmm(broker);
        }
        pump(broker);
}

/* ---- time ---------------------------------------------------------------------------------------------------- */

/* One timer: it never comes later than `at_usec`, and finds out by itself what is due. */
static void wake(Broker *broker, uint64_t at_usec)
{
        uint64_t now, left;
        struct timeval tv;

        if (at_usec > 0 && event_pending(broker->tick, EV_TIMEOUT, NULL))
                return; /* it comes before: nothing waits longer than what came just now */
        now = clock_monotonic_usec();
        left = at_usec > now ? at_usec - now : 0;
        tv = (struct timeval){(time_t) (left / USEC_PER_SEC), (suseconds_t) (left % USEC_PER_SEC)};
        (void) event_add(broker->tick, &tv);
}

static bool is_due(uint64_t since_usec, uint64_t now)
{
        return now >= since_usec + BROKER_ANSWER_USEC;
}

/* What is posted waits on: nobody would hear that it was dropped. */
static uint64_t expire_waiting(Broker *broker, uint64_t now)
{
        for (Command **place = &broker->waiting.first; *place;) {
                Command *command = *place;

                if (command->request->header.flags & VFIO_USER_NO_REPLY) {
                        place = &command->next;
                        continue;
                }
                if (!is_due(command->arrived_usec, now))
                        return command->arrived_usec + BROKER_ANSWER_USEC;
                list_take(&broker->waiting, place);
                answer_command(command, broker->held ? EBUSY : ETIMEDOUT);
                command_free(command);
        }
        return USEC_INFINITY;
}

static uint64_t expire_flying(Broker *broker, uint64_t now)
{
        for (Command *command = broker->flying.first; command; command = command->next) {
                if (command->answered)
                        continue;
                if (!is_due(command->arrived_usec, now))
                        return command->arrived_usec + BROKER_ANSWER_USEC;
                answer_command(command, ETIMEDOUT);
        }
        return USEC_INFINITY;
}

static uint64_t expire_server_commands(Broker *broker, uint64_t now)
{
        for (ServerCommand *command = broker->server_commands; command; command = command->next) {
                if (command->answered)
                        continue;
                if (!is_due(command->arrived_usec, now))
                        return command->arrived_usec + BROKER_ANSWER_USEC;
                answer_server(broker, &command->header, command->twin, ETIMEDOUT);
                command->answered = true;
        }
        return USEC_INFINITY;
}

/* A VMM without a server, and one that does not even begin. */
static uint64_t expire_vmm(Broker *broker, uint64_t now)
{
        uint64_t since = broker->lost_usec ? broker->lost_usec : broker->accepted_usec;

        if (!broker->main || (broker->negotiated && !broker->lost_usec))
                return USEC_INFINITY;
        if (is_due(since, now)) {
                if (broker->version)
                        answer(broker, &broker->version->header, ETIMEDOUT);
                log_broken(broker, broker->lost_usec ? "the device's server is gone" : "it does not begin");
                drop_vmm(broker);
                return USEC_INFINITY;
        }
        if (!broker->lost_usec)
                return since + BROKER_ANSWER_USEC;
        if (now >= broker->wanted_usec + BROKER_WANTED_USEC) {
                broker->wanted_usec = now;
                broker->wanted(broker->userdata);
        }
        return MIN(broker->wanted_usec + BROKER_WANTED_USEC, since + BROKER_ANSWER_USEC);
}

static void on_tick(evutil_socket_t fd, short what, void *userdata)
{
        Broker *broker = userdata;
        uint64_t now = clock_monotonic_usec();
        uint64_t next = MIN(MIN(expire_waiting(broker, now), expire_flying(broker, now)),
                            MIN(expire_server_commands(broker, now), expire_vmm(broker, now)));

        if (next != USEC_INFINITY)
                wake(broker, next);
        pump(broker);
}

/* ---- life ---------------------------------------------------------------------------------------------------- */

/* Only what is still ours: somebody may have put another one there. */
static void remove_path(const Broker *broker)
{
        struct stat st;

        if (broker->path && lstat(broker->path, &st) == 0 && st.st_dev == broker->dev &&
            st.st_ino == broker->ino)
                (void) unlink(broker->path);
}

void broker_set_unmap(Broker *broker, BrokerUnmap unmap)
{
        broker->unmap = unmap;
}

Broker *broker_free(Broker *broker)
{
        if (!broker)
                return NULL;
        broker->client = NULL;
        if (broker->session)
                drop_vmm(broker);
        remove_path(broker);
        if (broker->accept)
                event_free(broker->accept);
        if (broker->tick)
                event_free(broker->tick);
        (void) close(broker->listen_fd);
        session_free(broker->session);
        free(broker->server_text);
        free(broker->path);
        free(broker);
        return NULL;
}

DEFINE_CLEANUP(Broker *, broker_free);

int broker_new(struct event_base *base, int listen_fd, const char *path, BrokerWanted wanted, void *userdata,
               Broker **ret)
{
        _cleanup_(broker_freep) Broker *broker = calloc(1, sizeof *broker);
        struct stat st;
        int r;

        if (!broker) {
                (void) close(listen_fd);
                return -ENOMEM;
        }
        broker->base = base;
        broker->listen_fd = listen_fd;
        broker->wanted = wanted;
        broker->userdata = userdata;
        broker->waiting.last = &broker->waiting.first;
        broker->flying.last = &broker->flying.first;
        broker->path = strdup(path);
        broker->accept = event_new(base, listen_fd, EV_READ | EV_PERSIST, on_accept, broker);
        broker->tick = event_new(base, -1, 0, on_tick, broker);
        r = session_new(&broker->session);
        if (r < 0 || !broker->path || !broker->accept || !broker->tick ||
            evutil_make_socket_nonblocking(listen_fd) < 0 || event_add(broker->accept, NULL) < 0)
                return -ENOMEM;
        if (lstat(path, &st) == 0) {
                broker->dev = st.st_dev;
                broker->ino = st.st_ino;
        }
        *ret = TAKE_PTR(broker);
        return 0;
}
