/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a commander says to an agent, whose device's server is honest. An input is a list of packets, each of
 *
 *     what    one byte: AgentPacketType; 0: another commander connects, and this one hangs up
 *     how     one byte: HOW_*
 *     n       one byte: so many bytes follow, what is behind the head of the packet; missing ones are 0
 *
 * What the agent says must be packets as agent-protocol.h has them, of its own kinds; it answers no more than it was asked. */

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "daemon/agent/agent-protocol.h"
#include "daemon/agent/agent.h"
#include "fuzz.h"
#include "stage.h"

#define MUST(condition)                                             \
        do {                                                        \
                if (!(condition)) {                                 \
                        fprintf(stderr, "agent: %s\n", #condition); \
                        abort();                                    \
                }                                                   \
        } while (0)

enum {
        HOW_FILE = 1 << 0, /* with a file of the kind that belongs to it */
        HOW_WAIT = 1 << 1, /* all that follows from it happens before the next */
        HOW_RAW = 1 << 2,  /* so many bytes, whatever belongs to it */
};

typedef struct World {
        Stage stage;
        Agent *agent;
        struct sockaddr_un address;
        int fd;                   /* the commander's */
        int data_fd;              /* the other end of the last data connection */
        uint32_t asked, answered; /* OPEN and RUN; RESULT: of all commanders */
} World;

static void close_end(int *fd)
{
        if (*fd >= 0)
                (void) close(*fd);
        *fd = -1;
}

/* A name that the kernel chooses, of which nothing is left on disk. */
static int listen_anywhere(int type, struct sockaddr_un *ret)
{
        int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        socklen_t size = sizeof ret->sun_family;

        *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
        MUST(fd >= 0 && bind(fd, (struct sockaddr *) ret, size) == 0 && listen(fd, 4) == 0);
        size = sizeof *ret;
        MUST(getsockname(fd, (struct sockaddr *) ret, &size) == 0);
        return fd;
}

static int make_pair(int *ours)
{
        int pair[2];

        close_end(ours);
        MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
        *ours = pair[0];
        return pair[1];
}

/* ---- the commander ----------------------------------------------------------------------------------------------- */

static void connect_commander(World *w)
{
        close_end(&w->fd);
        w->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        MUST(w->fd >= 0);
        (void) connect(w->fd, (struct sockaddr *) &w->address,
                       offsetof(struct sockaddr_un, sun_path) + 6); /* a 0 and five digits */
}

static void take_packets(World *w)
{
        AgentPacket packet;
        int fd = -1, r;

        while (w->fd >= 0 && (r = agent_packet_recv(w->fd, &packet, &fd)) != -EAGAIN) {
                MUST(r != -EBADMSG && r != -EMSGSIZE);
                if (r <= 0) {
                        close_end(&w->fd);
                        return;
                }
                MUST(packet.head.type >= AGENT_HELLO && packet.head.type != AGENT_BROKER);
                MUST((packet.head.type == AGENT_DIRTY) == (fd >= 0));
                close_end(&fd);
                w->answered += packet.head.type == AGENT_RESULT;
                MUST(w->answered <= w->asked);
        }
}

static bool run(World *w)
{
        stage_run(&w->stage, true);
        take_packets(w);
        return !event_base_got_break(w->stage.base);
}

static int file_of(World *w, AgentPacketType type)
{
        struct sockaddr_un address;

        switch ((int) type) {
        case AGENT_OPEN: return make_pair(&w->stage.server.fd);
        case AGENT_ATTACH: return make_pair(&w->data_fd);
        case AGENT_BROKER: return listen_anywhere(SOCK_STREAM, &address);
        }
        return dup(w->fd);
}

static void say(World *w, uint8_t what, uint8_t how, const uint8_t *data, size_t size)
{
        AgentPacket packet = {.head = {AGENT_MAGIC, what}};
        int fd = how & HOW_FILE && w->fd >= 0 ? file_of(w, what) : -1;

        memcpy(packet.bytes + sizeof packet.head, data, size);
        if (what == AGENT_OPEN)
                packet.open.kernel = packet.open.supervised = 0; /* the kernel is not what this is about */
        w->asked += what == AGENT_OPEN || what == AGENT_RUN;
        if (how & HOW_RAW)
                (void) send(w->fd, &packet, MIN(size + 4, sizeof packet), MSG_NOSIGNAL | MSG_DONTWAIT);
        else if (agent_packet_size(what) > 0 && agent_packet_send(w->fd, &packet, fd) < 0)
                close_end(&w->fd);
        close_end(&fd);
}

static void perform(World *w, const uint8_t *data, size_t size)
{
        while (size >= 3) {
                uint8_t what = data[0], how = data[1];
                size_t n = MIN((size_t) data[2], size - 3);

                if (what == 0)
                        connect_commander(w);
                else
                        say(w, what, how, data + 3, n);
                if ((how & HOW_WAIT) && !run(w))
                        return; /* it was told to end */
                data += 3 + n;
                size -= 3 + n;
        }
        (void) run(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static World w;

        w = (World){.fd = -1, .data_fd = -1};
        stage_prepare(&w.stage);
        MUST(agent_new(w.stage.base, listen_anywhere(SOCK_SEQPACKET, &w.address), &w.agent) == 0);
        connect_commander(&w);
        (void) run(&w);
        perform(&w, data, size);
        agent_free(w.agent);
        stage_end(&w.stage);
        close_end(&w.fd);
        close_end(&w.data_fd);
        return 0;
}
