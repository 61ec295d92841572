/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A helper and the one agent that it starts, for a daemon in a fuzzer's hand, on the daemon's own loop. An honest agent does at once
 * what it is told, and well; of another one the fuzzer says every packet. */

#include "daemon/agent/agent-protocol.h"
#include "daemon/loop.h"

#define FAKE_AGENT_FLAGS \
        (DEVICE_MIGRATION_STOP_COPY | DEVICE_MIGRATION_P2P | DEVICE_MIGRATION_PRE_COPY | DEVICE_DMA_LOGGING)

typedef struct FakeAgent {
        Loop *loop;
        bool honest;
        int helper_fd, asker_fd; /* of the helper */
        int word_fd;             /* of the agent that it has started: where it is told to begin */
        int listen_fd, fd;       /* of the agent; fd -1: no daemon is connected */
        LoopIo *helper_io, *asker_io, *listen_io, *io;
        char path[SOCKET_PATH_MAX + 1];
        bool opened;
        DeviceState state;
        uint32_t seq; /* of the last OPEN or RUN */
} FakeAgent;

/* Listens as migmgr-helper in `dir`. `state`: in which the device is. */
void fake_agent_begin(FakeAgent *agent, Loop *loop, const char *dir, bool honest, DeviceState state);
void fake_agent_end(FakeAgent *agent);

/* Says a packet to the daemon, if one is connected. */
void fake_agent_say(FakeAgent *agent, AgentPacket *packet, int fd);
/* Its connection to the daemon ends. */
void fake_agent_hang_up(FakeAgent *agent);
