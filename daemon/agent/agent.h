/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* migmgr-agent: one process that holds one device.
 *
 * It listens for a commander (agent-protocol.h), runs one command at a time and keeps what a daemon that died has left:
 * the connection to the device, the half-read stream, the outcome of the last command. It never gives up by itself;
 * it ends when a program says CLOSE.
 */

#include <event2/event.h>

#include "common/macros.h"

typedef struct Agent Agent;

/* `listen_fd`: the SOCK_SEQPACKET socket on which commanders connect; taken over. */
int agent_new(struct event_base *base, int listen_fd, Agent **ret) _must_check_;
Agent *agent_free(Agent *agent);
