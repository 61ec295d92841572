/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The broker towards the server: its commands (DMA by message), which go to the VMM, and the VMM's answers. */

#include "broker-internal.h"
#include "common/clock.h"

void broker_answer_server(Broker *broker, const VfioUserHeader *command, bool twin, int error)
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

void broker_end_server_commands(Broker *broker)
{
        while (broker->server_commands) {
                ServerCommand *command = take_server_command(broker, &broker->server_commands);

                if (!command->answered)
                        broker_answer_server(broker, &command->header, command->twin, EINVAL);
                free(command);
        }
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
        broker_wake(broker, command->arrived_usec + BROKER_ANSWER_USEC);
        broker_line_send(line, message);
        return 0;
}

void broker_on_server_command(void *userdata, VfioUserMessage *message, bool twin)
{
        Broker *broker = userdata;
        int error = pass_on(broker, message, twin);

        if (error) {
                broker_answer_server(broker, &message->header, twin, error);
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
                broker_answer_server(broker, &command->header, command->twin,
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
                        broker_answer_server(broker, &command->header, command->twin, ENOMEM);
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

const char *broker_take_reply(Broker *broker, BrokerLine *line, VfioUserMessage *reply)
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
