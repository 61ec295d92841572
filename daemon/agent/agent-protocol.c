/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent-protocol.h"

#include "common/socket.h"

static const size_t sizes[] = {
        [AGENT_OPEN] = sizeof(AgentOpen),         [AGENT_ATTACH] = sizeof(AgentAttach),
        [AGENT_RUN] = sizeof(AgentRun),           [AGENT_STOP] = sizeof(AgentStop),
        [AGENT_HELLO] = sizeof(AgentHelloPacket), [AGENT_RESULT] = sizeof(AgentResultPacket),
        [AGENT_PROGRESS] = sizeof(AgentProgress), [AGENT_GONE] = sizeof(AgentGone),
        [AGENT_DIRTY] = sizeof(AgentDirty),       [AGENT_BROKER] = sizeof(AgentBroker),
        [AGENT_WANTED] = sizeof(AgentWanted),     [AGENT_IDENTITY] = sizeof(AgentIdentity),
        [AGENT_FILES] = sizeof(AgentFiles),       [AGENT_GREET] = sizeof(AgentGreet),
};

size_t agent_packet_size(AgentPacketType type)
{
        return (size_t) type < ARRAY_SIZE(sizes) ? sizes[type] : 0;
}

static bool is_text(const char *text, size_t max)
{
        return memchr(text, 0, max) != NULL;
}

/* 0 or a negative errno, of which there are so many: it can be negated, and has a text. */
static bool is_status(int32_t status)
{
        return status <= 0 && status >= -4095;
}

static bool is_job(const char *job)
{
        return job[0] == 0 || (is_text(job, UUID_TEXT_MAX + 1) && uuid_is_valid(job));
}

static bool run_is_sane(const AgentRun *run)
{
        if (run->n_ops == 0 || run->n_ops > DEVICE_PROGRAM_MAX || !is_job(run->job) || run->job[0] == 0)
                return false;
        for (uint32_t i = 0; i < run->n_ops; i++)
                if (run->ops[i].type >= DEVICE_OP_MAX || run->ops[i].from >= DEVICE_STATE_MAX ||
                    run->ops[i].to >= DEVICE_STATE_MAX)
                        return false;
        return true;
}

static bool open_is_sane(const AgentOpen *open)
{
        return open->kernel <= 1 && open->supervised <= open->kernel && open->n_memory <= DEVICE_MEMORY_MAX &&
               device_memory_is_sane(open->memory, open->n_memory);
}

static bool dirty_is_sane(const AgentDirty *dirty)
{
        return dirty->page_size >= 4096 && (dirty->page_size & (dirty->page_size - 1)) == 0 &&
               dirty->n_pages > 0 && dirty->n_pages <= AGENT_DIRTY_PAGES_MAX &&
               dirty->n_pages <= (UINT64_MAX - dirty->address) / dirty->page_size;
}

static bool identity_is_sane(const DeviceIdentity *identity)
{
        return identity->n_config <= DEVICE_CONFIG_MAX && identity->windows < DEVICE_WINDOWS_MAX;
}

bool agent_packet_is_sane(const AgentPacket *packet)
{
        switch ((AgentPacketType) packet->head.type) {
        case AGENT_OPEN: return open_is_sane(&packet->open);
        case AGENT_STOP:
        case AGENT_PROGRESS:
        case AGENT_WANTED: return true;
        case AGENT_ATTACH: return is_job(packet->attach.job) && packet->attach.job[0] != 0;
        case AGENT_RUN: return run_is_sane(&packet->run);
        case AGENT_HELLO:
                return is_job(packet->hello.job) && packet->hello.state < DEVICE_STATE_MAX &&
                       identity_is_sane(&packet->hello.identity);
        case AGENT_GREET: return packet->greet.greeting != 0;
        case AGENT_RESULT:
                return packet->result.state < DEVICE_STATE_MAX && packet->result.from < DEVICE_STATE_MAX &&
                       packet->result.to < DEVICE_STATE_MAX && packet->result.op <= DEVICE_PROGRAM_MAX &&
                       is_status(packet->result.status) && is_text(packet->result.text, AGENT_TEXT_MAX);
        case AGENT_DIRTY: return dirty_is_sane(&packet->dirty);
        case AGENT_FILES: return packet->files.first <= 1 && packet->files.n <= AGENT_FILES_MAX;
        case AGENT_BROKER:
                return is_text(packet->broker.path, sizeof packet->broker.path) &&
                       socket_path_fits(packet->broker.path);
        case AGENT_IDENTITY: return identity_is_sane(&packet->identity.identity);
        case AGENT_GONE: return is_status(packet->gone.status) && is_text(packet->gone.text, AGENT_TEXT_MAX);
        }
        return false;
}

int agent_packet_send(int socket, AgentPacket *packet, int fd)
{
        packet->head.magic = AGENT_MAGIC;
        return socket_send(socket, packet, agent_packet_size(packet->head.type), &fd, fd >= 0 ? 1 : 0);
}

int agent_packet_recv(int socket, AgentPacket *packet, int *ret_fd)
{
        _cleanup_(closep) int fd = -1;
        size_t n_fds = 0;
        ssize_t n = socket_recv(socket, packet, sizeof *packet, &fd, 1, &n_fds);

        if (n < 0)
                return (int) n;
        if (n == 0)
                return 0;
        if ((size_t) n < sizeof packet->head || packet->head.magic != AGENT_MAGIC ||
            (size_t) n != agent_packet_size(packet->head.type) || !agent_packet_is_sane(packet))
                return -EBADMSG;
        *ret_fd = TAKE_FD(fd);
        return 1;
}
