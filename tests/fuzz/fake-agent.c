/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fake-agent.h"

#include <sys/socket.h>
#include <sys/stat.h>

#include "daemon/helper/helper-protocol.h"
#include "rig.h"

static void drop(LoopIo **io, int *fd)
{
        *io = loop_io_free(*io);
        if (*fd >= 0)
                (void) close(*fd);
        *fd = -1;
}

/* ---- the agent ----------------------------------------------------------------------------------------------- */

void fake_agent_hang_up(FakeAgent *agent)
{
        drop(&agent->io, &agent->fd);
}

void fake_agent_say(FakeAgent *agent, AgentPacket *packet, int fd)
{
        if (agent->fd >= 0 && agent_packet_send(agent->fd, packet, fd) < 0)
                fake_agent_hang_up(agent);
}

static void say_hello(FakeAgent *agent, uint64_t greeting)
{
        fake_agent_say(agent,
                       &(AgentPacket){.hello = {.head.type = AGENT_HELLO,
                                                .opened = agent->opened,
                                                .flags = FAKE_AGENT_FLAGS,
                                                .state = (uint32_t) agent->state,
                                                .greeting = greeting}},
                       -1);
}

static void say_result(FakeAgent *agent, uint32_t n_ops)
{
        fake_agent_say(agent,
                       &(AgentPacket){.result = {.head.type = AGENT_RESULT,
                                                 .seq = agent->seq,
                                                 .op = n_ops,
                                                 .flags = FAKE_AGENT_FLAGS,
                                                 .state = (uint32_t) agent->state}},
                       -1);
}

static void run_program(FakeAgent *agent, const AgentRun *run)
{
        bool closes = false;

        for (uint32_t i = 0; i < run->n_ops; i++) {
                if (run->ops[i].type == DEVICE_OP_SET)
                        agent->state = (DeviceState) run->ops[i].to;
                if (run->ops[i].type == DEVICE_OP_RESET)
                        agent->state = DEVICE_STATE_RUNNING;
                closes |= run->ops[i].type == DEVICE_OP_CLOSE;
        }
        say_result(agent, run->n_ops);
        agent->opened &= !closes;
}

static void on_command(void *userdata)
{
        FakeAgent *agent = userdata;
        AgentPacket packet;
        int fd = -1, r = agent_packet_recv(agent->fd, &packet, &fd);

        if (fd >= 0)
                (void) close(fd);
        if (r == -EAGAIN)
                return;
        MUST(r != -EBADMSG); /* a daemon says only what makes sense */
        if (r <= 0) {
                fake_agent_hang_up(agent);
                return;
        }
        if (packet.head.type == AGENT_GREET && agent->honest)
                say_hello(agent, packet.greet.greeting);
        if (packet.head.type != AGENT_OPEN && packet.head.type != AGENT_RUN)
                return;
        agent->seq = packet.head.type == AGENT_OPEN ? packet.open.seq : packet.run.seq;
        if (!agent->honest)
                return;
        if (packet.head.type == AGENT_OPEN) {
                agent->opened = true;
                say_result(agent, 0);
        } else {
                run_program(agent, &packet.run);
        }
}

static void on_commander(void *userdata)
{
        FakeAgent *agent = userdata;
        int fd = accept4(agent->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd < 0)
                return;
        fake_agent_hang_up(agent);
        agent->fd = fd;
        MUST(loop_io_new(agent->loop, fd, on_command, NULL, agent, &agent->io) == 0);
        if (agent->honest)
                say_hello(agent, 0);
}

static void start_agent(FakeAgent *agent, const char *path)
{
        drop(&agent->listen_io, &agent->listen_fd);
        (void) snprintf(agent->path, sizeof agent->path, "%s", path);
        (void) unlink(path);
        agent->listen_fd = socket_listen(path, SOCK_SEQPACKET);
        MUST(agent->listen_fd >= 0);
        MUST(loop_io_new(agent->loop, agent->listen_fd, on_commander, NULL, agent, &agent->listen_io) == 0);
}

/* ---- the helper ---------------------------------------------------------------------------------------------- */

static void on_request(void *userdata)
{
        static HelperPacket request, answer;
        FakeAgent *agent = userdata;
        const char *strings[HELPER_STRINGS_MAX];
        int fd = -1, pair[2] = {-1, -1};

        if (helper_packet_recv(agent->asker_fd, &request, &fd) <= 0) {
                drop(&agent->asker_io, &agent->asker_fd);
                return;
        }
        helper_packet_strings(&request, strings);
        answer.head = (HelperHead){.request = request.head.request, .id = request.head.id};
        answer.n_text = 0;
        /* Any file will do: nobody but the agent looks at it. */
        MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
        if (request.head.request == HELPER_START_AGENT) {
                start_agent(agent, strings[0]);
                answer.head.pid = getpid();
                /* It takes the word to begin, and says by its end that it has begun. */
                MUST(shutdown(pair[1], SHUT_WR) == 0);
                if (agent->word_fd >= 0)
                        (void) close(agent->word_fd);
                agent->word_fd = pair[1];
                pair[1] = -1;
        }
        MUST(helper_packet_send(agent->asker_fd, &answer, pair[0]) == 0);
        for (int i = 0; i < 2 && pair[i] >= 0; i++)
                (void) close(pair[i]);
}

static void on_asker(void *userdata)
{
        FakeAgent *agent = userdata;

        drop(&agent->asker_io, &agent->asker_fd);
        agent->asker_fd = accept4(agent->helper_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (agent->asker_fd >= 0)
                MUST(loop_io_new(agent->loop, agent->asker_fd, on_request, NULL, agent, &agent->asker_io) ==
                     0);
}

void fake_agent_begin(FakeAgent *agent, Loop *loop, const char *dir, bool honest, DeviceState state)
{
        char path[SOCKET_PATH_MAX + 1];

        *agent = (FakeAgent){.loop = loop, .honest = honest, .state = state};
        agent->helper_fd = agent->asker_fd = agent->listen_fd = agent->fd = agent->word_fd = -1;
        (void) snprintf(path, sizeof path, "%s/agent", dir);
        MUST(mkdir(path, 0700) == 0 || errno == EEXIST);
        (void) snprintf(path, sizeof path, "%s/helper.sock", dir);
        (void) unlink(path);
        agent->helper_fd = socket_listen(path, SOCK_SEQPACKET);
        MUST(agent->helper_fd >= 0);
        MUST(loop_io_new(loop, agent->helper_fd, on_asker, NULL, agent, &agent->helper_io) == 0);
}

void fake_agent_end(FakeAgent *agent)
{
        fake_agent_hang_up(agent);
        drop(&agent->listen_io, &agent->listen_fd);
        drop(&agent->asker_io, &agent->asker_fd);
        drop(&agent->helper_io, &agent->helper_fd);
        if (agent->path[0])
                (void) unlink(agent->path);
}
