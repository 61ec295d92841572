/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The broker towards the VMM: its connection, VERSION, and its commands on their way to the server and back. */

#include <sys/socket.h>

#include "broker-internal.h"
#include "common/clock.h"
#include "common/log.h"

/* ---- lists --------------------------------------------------------------------------------------------------- */

static void list_add(CommandList *list, Command *command)
{
        command->next = NULL;
        *list->last = command;
        list->last = &command->next;
        list->n++;
        list->bytes += command->bytes;
}

void broker_list_take(CommandList *list, Command **place)
{
        Command *command = *place;

        *place = command->next;
        if (!command->next)
                list->last = place;
        list->n--;
        list->bytes -= command->bytes;
}

void broker_command_free(Command *command)
{
        vfio_user_message_free(command->request);
        free(command);
}

/* ---- to the VMM ---------------------------------------------------------------------------------------------- */

void broker_answer_vmm(Broker *broker, const VfioUserHeader *command, int error)
{
        VfioUserMessage *reply;

        if (!broker->main || command->flags & VFIO_USER_NO_REPLY)
                return;
        reply = vfio_user_message_answer(command, error);
        if (reply)
                broker_line_send(broker->main, reply);
}

void broker_answer_command(Command *command, int error)
{
        if (command->answered)
                return;
        broker_answer_vmm(command->broker, &command->request->header, error);
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

/* A map that is not remembered is memory whose dirty pages nobody would ask for: better no agent than such a move. */
static void take_accepted(Broker *broker, Command *command)
{
        if (!changes_session(command->request))
                return;
        if (session_accepted(broker->session, command->request, !command->unknown) < 0)
                out_of_memory();
        if (command->unknown)
                broker_repair_next(broker);
}

/* The reply as it came, under the number that the VMM gave. */
static void relay(Broker *broker, const Command *command, VfioUserMessage *reply)
{
        if (reply->n_fds > broker->vmm_limits.files_max) {
                broker_answer_vmm(broker, &command->request->header, EMFILE);
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
                        broker_list_take(&broker->flying, place);
                        break;
                }
        if (status == 0)
                take_accepted(broker, command);
        if (command->answered || !reply) {
                if (status < 0)
                        broker_answer_command(command, -status);
                vfio_user_message_free(reply);
        } else {
                relay(broker, command, reply);
        }
        broker_command_free(command);
        broker_pump(broker);
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
                broker_answer_vmm(broker, &request->header, 0);
                broker_command_free(command);
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

void broker_send_first(Broker *broker)
{
        Command *command = broker->waiting.first;

        broker_list_take(&broker->waiting, &broker->waiting.first);
        send_command(broker, command);
}

static bool has_room_to_fly(const Broker *broker)
{
        return broker->flying.n == 0 ||
               (broker->flying.n < BROKER_COMMANDS_MAX && broker->flying.bytes < BROKER_BYTES_MAX);
}

void broker_pump(Broker *broker)
{
        while (broker->waiting.first && broker->client && !broker->held && !broker->repair &&
               has_room_to_fly(broker))
                broker_send_first(broker);
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
                broker_answer_vmm(broker, &request->header, error);
                vfio_user_message_free(request);
                free(command);
                return;
        }
        *command = (Command){.broker = broker,
                             .request = request,
                             .arrived_usec = clock_monotonic_usec(),
                             .bytes = sizeof *command + request->header.size + reply_size};
        list_add(&broker->waiting, command);
        broker_wake(broker, command->arrived_usec + BROKER_ANSWER_USEC);
        broker_pump(broker);
}

/* ---- VERSION ------------------------------------------------------------------------------------------------- */

static int add_twin(Broker *broker, VfioUserMessage *reply);

const char *broker_answer_version(Broker *broker)
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
                broker_answer_vmm(broker, &request->header, r < 0 ? -r : r);
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
                broker_answer_vmm(broker, &request->header, EINVAL);
                vfio_user_message_free(request);
                return "it did not begin with VERSION";
        }
        broker->version = request;
        return broker->client ? broker_answer_version(broker) : NULL;
}

/* ---- the VMM's connection ------------------------------------------------------------------------------------ */

void broker_drop_vmm(Broker *broker)
{
        broker->main = broker_line_free(broker->main);
        broker->twin = broker_line_free(broker->twin);
        broker->version = vfio_user_message_free(broker->version);
        broker->negotiated = false;
        broker->lost_usec = 0;
        while (broker->waiting.first) {
                Command *command = broker->waiting.first;

                broker_list_take(&broker->waiting, &broker->waiting.first);
                broker_command_free(command);
        }
        for (Command *command = broker->flying.first; command; command = command->next)
                command->answered = command->unknown = true;
        broker_end_server_commands(broker);
        tell_unmap(broker, NULL);
        session_unwant(broker->session);
        broker_repair_next(broker);
}

void broker_log_broken(Broker *broker, const char *text)
{
        if (broker->broken != text)
                log_warning(NULL, "broker %s: the VMM's connection is dropped: %s", broker->path, text);
        broker->broken = text;
}

static void on_line_gone(void *userdata, BrokerLine *line, const char *text)
{
        Broker *broker = userdata;

        if (text)
                broker_log_broken(broker, text);
        broker_drop_vmm(broker);
}

static const char *on_line_message(void *userdata, BrokerLine *line, VfioUserMessage *message)
{
        Broker *broker = userdata;
        bool is_reply = (message->header.flags & VFIO_USER_TYPE_MASK) == VFIO_USER_TYPE_REPLY;

        if (is_reply)
                return broker_take_reply(broker, line, message);
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
        broker_pump(userdata); /* it may be read again */
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

void broker_on_accept(evutil_socket_t socket, short what, void *userdata)
{
        Broker *broker = userdata;
        int fd = accept4(broker->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd < 0)
                return;
        /* One that has gone may not have been noticed, because it is not read. */
        if (broker->main && broker_line_is_closed(broker->main))
                broker_drop_vmm(broker);
        if (broker->main) {
                (void) close(fd);
                broker_log_broken(broker, "a second one came while the first is there");
                return;
        }
        if (broker_line_new(broker->base, fd, &line_hooks, broker, &broker->main) < 0)
                return;
        broker->accepted_usec = clock_monotonic_usec();
        broker->wanted_usec = 0;
        if (!broker->client)
                broker->lost_usec = broker->accepted_usec;
        broker_wake(broker, 0);
}
