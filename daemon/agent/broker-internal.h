/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The inside of the broker, shared by its files: broker.c (device, time, life), broker-vmm.c (the VMM and its commands),
 * broker-server.c (the server's commands). Nobody else includes this. */

#include "broker-line.h"
#include "broker-rules.h"
#include "broker-session.h"
#include "broker.h"
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
        void (*settled)(void *userdata);
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

/* broker.c */

/* One timer: it never comes later than `at_usec`, and finds out by itself what is due. */
void broker_wake(Broker *broker, uint64_t at_usec);
/* Gives the server what the VMM has set up and it has not, and takes the rest back. The VMM's commands wait until server
 * and VMM agree. */
void broker_repair_next(Broker *broker);

/* broker-vmm.c: commands of the VMM */

void broker_list_take(CommandList *list, Command **place);
void broker_command_free(Command *command);
/* If there is a VMM, and it wants an answer. */
void broker_answer_vmm(Broker *broker, const VfioUserHeader *command, int error);
/* The same, once for each command. What came of it the VMM does not know then. */
void broker_answer_command(Command *command, int error);
/* To the server, whether it may or not: who calls has looked. */
void broker_send_first(Broker *broker);
/* Sends what may go, and lets the VMM be read or not. */
void broker_pump(Broker *broker);

/* broker-vmm.c: its connection */

void broker_on_accept(evutil_socket_t socket, short what, void *userdata);
/* Returns NULL, or why the connection ends. */
const char *broker_answer_version(Broker *broker);
/* Each way to be wrong is said once: who does it for ever shall not fill the log. `text` must be a literal. */
void broker_log_broken(Broker *broker, const char *text);
/* Also when there is none. */
void broker_drop_vmm(Broker *broker);

/* broker-server.c */

void broker_on_server_command(void *userdata, VfioUserMessage *message, bool twin);
void broker_answer_server(Broker *broker, const VfioUserHeader *command, bool twin, int error);
/* The VMM's answer to a command of the server. Takes it over. Returns NULL, or why the VMM's connection ends. */
const char *broker_take_reply(Broker *broker, BrokerLine *line, VfioUserMessage *reply);
/* The VMM goes: nobody answers what is open. */
void broker_end_server_commands(Broker *broker);
