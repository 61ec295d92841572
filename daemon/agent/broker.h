/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The broker: lets a VMM use the device whose server has us as its only client.
 *
 * It listens for the VMM (one at a time) and passes its commands on, with their files and in the order in which they
 * came, between those of our own programs; the server's commands (DMA by message) go the other way. What the VMM has set
 * up at the server, its memory and its interrupts, is remembered and given again to a server whose connection had to be
 * made anew. While the device stands the VMM waits. The agent owns it, before and after the connection to the server.
 *
 * The VMM is not trusted: what breaks the framing ends its connection, what a client may not say is refused, and
 * nothing that it sends changes the framing towards the server.
 */

#include "agent-protocol.h"
#include "vfio-user-device.h"
#include "common/macros.h"

/* How long anybody who wants an answer waits here: a command of the VMM for its answer, however it was held or whatever the
 * server does, counted from its arrival; a command of the server for the VMM's answer; a VMM for a server. QEMU gives a
 * command up after 5 s (x-msg-timeout), and a reply that comes later desynchronises it: we must be done before, with
 * room for a busy host. */
#define BROKER_ANSWER_USEC (4 * USEC_PER_SEC)

/* What waits here, for the device to run or for a server, and what is under way at the server: more than a guest posts
 * in that time. When it is full the VMM's socket is not read, and the VMM waits in its own write. */
#define BROKER_COMMANDS_MAX 64
#define BROKER_BYTES_MAX    (2 * 1024 * 1024)

/* How often the daemon is told that a VMM waits for a server. */
#define BROKER_WANTED_USEC (500 * USEC_PER_MSEC)

typedef struct Broker Broker;

/* A VMM waits, and there is no connection to the server. */
typedef void (*BrokerWanted)(void *userdata);

/* Memory that the VMM has mapped for the device. */
typedef struct BrokerMap {
        uint64_t address, size, offset;
        uint32_t flags; /* as in DMA_MAP */
        int fd;         /* -1: by message */
} BrokerMap;

/* The VMM takes this memory away: called right before the server hears of it. */
typedef void (*BrokerUnmap)(void *userdata, const BrokerMap *map);

/* Takes over `listen_fd`, a listening SOCK_STREAM socket; `path` is its name, removed with the broker if it is still that
 * socket's. -ENOMEM. */
int broker_new(struct event_base *base, int listen_fd, const char *path, BrokerWanted wanted, void *userdata,
               Broker **ret) _must_check_;
Broker *broker_free(Broker *broker);

/* It is about to end: another one may take its place. Only what is still its own is removed. */
void broker_remove_path(const Broker *broker);
/* With the userdata of broker_new(). */
void broker_set_unmap(Broker *broker, BrokerUnmap unmap);

/* Whether the server has all that the VMM has set up, as far as it takes it: nothing is being given to it again. Until then
 * nobody should make the device run: it would write and interrupt into nothing. `settled` is called when that has come about,
 * with the userdata of broker_new(). */
bool broker_is_settled(const Broker *broker);
void broker_set_settled(Broker *broker, void (*settled)(void *userdata));

/* The device, behind a vfio-user server, and with it the connection to that: just opened, or NULL: it is about to go. Until the next call it stays there. */
void broker_set_device(Broker *broker, AgentDevice *device);

/* What the device is to become (`asked`: the SET is about to be sent) or was read to be. */
void broker_see_state(Broker *broker, DeviceState state, bool asked);

/* What the VMM has mapped, in order of address; without a broker (NULL) nothing. Good until the loop is entered again. */
uint32_t broker_maps(const Broker *broker, const BrokerMap **ret);

/* The files of the device's memory that the VMM was given, as many as there is room for; how many. */
uint32_t broker_regions(const Broker *broker, AgentFile *ret, uint32_t max);

/* The device stands: VMM traffic waits. What has arrived when that begins is sent first. */
void broker_set_held(Broker *broker, bool held);
