/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What the broker adds to one access: 64-byte reads of a region and 64-byte DMA reads by message, over a broker and
 * directly, in turns, by one client, with two servers of the same few lines; and 64-byte reads of a window that is mapped,
 * which the broker must not touch at all. Prints the times of a message there and back, of an access to the window, and at
 * last one JSON object.
 *
 *   broker-hop AGENT ROUNDS
 */

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#include "common/socket.h"
#include "daemon/agent/agent-protocol.h"
#include "daemon/agent/vfio-user-wire.h"

#define BATCH      200 /* messages in a row; so many of the one, then of the other */
#define ROUNDS_MAX 2000
#define SIZE       64
/* For a machine of two cores that does something else, too: four switches of process more. */
#define ADDED_MAX_USEC 60.0
/* Both ways the same memory is read; what differs is noise. */
#define ADDED_MAPPED_MAX_USEC 0.05
#define WINDOW                65536
#define LOOKS                 1000 /* into the window, for one sample */

typedef struct Wire {
        VfioUserHeader header;
        uint8_t payload[4096];
} Wire;

/* Filled by a server: how long each of its DMA reads took. */
typedef struct Shared {
        double dma_usec[BATCH];
} Shared;

static double now_usec(void)
{
        struct timespec now;

        (void) clock_gettime(CLOCK_MONOTONIC, &now);
        return (double) now.tv_sec * 1e6 + (double) now.tv_nsec / 1e3;
}

static void fail_or_go_on(bool good, const char *what)
{
        if (good)
                return;
        fprintf(stderr, "broker-hop: %s: %s\n", what, strerror(errno));
        exit(1);
}

/* ---- messages ------------------------------------------------------------------------------------------------ */

static bool recv_all(int fd, void *data, size_t size)
{
        for (uint8_t *p = data; size > 0;) {
                ssize_t n = recv(fd, p, size, 0);

                if (n <= 0)
                        return false;
                p += n;
                size -= (size_t) n;
        }
        return true;
}

static bool take(int fd, Wire *wire, int *ret_fd)
{
        size_t n_fds = 0;
        ssize_t n;

        if (ret_fd) {
                struct pollfd p = {fd, POLLIN, 0};

                (void) poll(&p, 1, -1);
                n = socket_recv(fd, &wire->header, sizeof wire->header, ret_fd, 1, &n_fds);
                if (n != sizeof wire->header)
                        return false;
        } else if (!recv_all(fd, &wire->header, sizeof wire->header)) {
                return false;
        }
        return wire->header.size <= sizeof *wire &&
               recv_all(fd, wire->payload, wire->header.size - sizeof wire->header);
}

static bool give(int fd, Wire *wire, size_t payload, const int *file)
{
        wire->header.size = (uint32_t) (sizeof wire->header + payload);
        return socket_send(fd, wire, wire->header.size, file, file ? 1 : 0) == 0;
}

/* ---- the server ---------------------------------------------------------------------------------------------- */

static size_t say_version(Wire *wire, int *ret_twin, int *ret_file)
{
        static const char text[] =
                "{\"capabilities\":{\"max_msg_fds\":8,\"twin_socket\":{\"supported\":true,\"fd_index\":0}}}";
        int pair[2];

        fail_or_go_on(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0, "socketpair");
        *ret_twin = pair[0];
        *ret_file = pair[1];
        memcpy(wire->payload + sizeof(VfioUserVersion), text, sizeof text);
        return sizeof(VfioUserVersion) + sizeof text;
}

static void read_memory(int twin, Shared *shared)
{
        Wire wire;

        for (size_t i = 0; i < BATCH; i++) {
                VfioUserDmaAccess access = {0x1000, SIZE};
                double start = now_usec();

                wire.header = (VfioUserHeader){.id = (uint16_t) i, .command = VFIO_USER_DMA_READ};
                memcpy(wire.payload, &access, sizeof access);
                fail_or_go_on(give(twin, &wire, sizeof access, NULL) && take(twin, &wire, NULL),
                              "a DMA read");
                shared->dma_usec[i] = now_usec() - start;
        }
}

/* All of region 2 may be mapped. */
static size_t say_region(Wire *wire, int *ret_file)
{
        VfioUserRegionInfo info = {.argsz = sizeof info, .flags = 7, .index = 2, .size = WINDOW};

        *ret_file = memfd_create("window", MFD_CLOEXEC);
        fail_or_go_on(*ret_file >= 0 && ftruncate(*ret_file, WINDOW) == 0, "a window");
        memcpy(wire->payload, &info, sizeof info);
        return sizeof info;
}

static void serve(int fd, Shared *shared)
{
        int twin = -1;
        Wire wire;

        while (take(fd, &wire, NULL)) {
                size_t size = wire.header.size - sizeof wire.header;
                VfioUserFeature feature;
                int file = -1;

                memcpy(&feature, wire.payload, sizeof feature);
                wire.header.flags = VFIO_USER_TYPE_REPLY;
                switch (wire.header.command) {
                case VFIO_USER_VERSION: size = say_version(&wire, &twin, &file); break;
                case VFIO_USER_DEVICE_GET_REGION_INFO: size = say_region(&wire, &file); break;
                case VFIO_USER_REGION_READ: size = sizeof(VfioUserRegionAccess) + SIZE; break;
                case VFIO_USER_REGION_WRITE:
                        size = sizeof(VfioUserRegionAccess);
                        read_memory(twin, shared);
                        wire.header.command = VFIO_USER_REGION_WRITE;
                        break;
                case VFIO_USER_DEVICE_FEATURE:
                        if (feature.flags & VFIO_USER_FEATURE_PROBE) {
                                wire.header.flags |= VFIO_USER_ERROR;
                                wire.header.error = EINVAL;
                                size = 0;
                                break;
                        }
                        memset(wire.payload + sizeof feature, 0, 8);
                        wire.payload[8] =
                                (feature.flags & VFIO_USER_FEATURE_MASK) == VFIO_USER_FEATURE_MIGRATION
                                        ? DEVICE_MIGRATION_STOP_COPY
                                        : DEVICE_STATE_RUNNING;
                        size = 16;
                        break;
                default: size = 0; break;
                }
                fail_or_go_on(give(fd, &wire, size, file >= 0 ? &file : NULL), "a reply");
                if (file >= 0)
                        (void) close(file);
        }
}

/* Returns the path of its socket. */
static const char *start_server(const char *dir, const char *name, Shared *shared)
{
        static char paths[2][SOCKET_PATH_MAX + 1];
        static size_t n_paths;
        char *path = paths[n_paths++];
        int listener, fd;
        pid_t pid;

        (void) snprintf(path, sizeof paths[0], "%s/%s", dir, name);
        listener = socket_listen(path, SOCK_STREAM);
        fail_or_go_on(listener >= 0, path);
        pid = fork();
        fail_or_go_on(pid >= 0, "fork");
        if (pid == 0) {
                struct pollfd p = {listener, POLLIN, 0};

                (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
                (void) poll(&p, 1, -1);
                fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
                fail_or_go_on(fd >= 0, "accept");
                serve(fd, shared);
                _exit(0);
        }
        (void) close(listener);
        return path;
}

/* ---- the agent ----------------------------------------------------------------------------------------------- */

static int await_packet(int fd, AgentPacketType type, AgentPacket *ret)
{
        for (;;) {
                struct pollfd p = {fd, POLLIN, 0};
                int file = -1, r;

                (void) poll(&p, 1, 10000);
                r = agent_packet_recv(fd, ret, &file);
                if (r <= 0 || ret->head.type == (uint32_t) type)
                        return r;
        }
}

/* Returns the path where a VMM connects. */
static const char *start_agent(const char *program, const char *dir, const char *server, pid_t *ret_pid)
{
        static char broker[SOCKET_PATH_MAX + 1];
        AgentPacket packet = {.broker = {.head.type = AGENT_BROKER}}, got;
        char path[SOCKET_PATH_MAX + 1];
        int listener, fd;

        (void) snprintf(path, sizeof path, "%s/agent", dir);
        (void) snprintf(broker, sizeof broker, "%s/vmm", dir);
        listener = socket_listen(path, SOCK_SEQPACKET);
        fail_or_go_on(listener >= 0, path);
        *ret_pid = fork();
        fail_or_go_on(*ret_pid >= 0, "fork");
        if (*ret_pid == 0) {
                (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
                (void) dup2(listener, 3);
                (void) fcntl(3, F_SETFD, 0); /* it may have been 3 already */
                execl(program, program, "broker-hop", (char *) NULL);
                fail_or_go_on(false, program);
        }
        (void) close(listener);
        fd = socket_connect(path, SOCK_SEQPACKET);
        fail_or_go_on(fd >= 0 && await_packet(fd, AGENT_HELLO, &got) > 0, "the agent's greeting");
        listener = socket_listen(broker, SOCK_STREAM);
        fail_or_go_on(listener >= 0, broker);
        memcpy(packet.broker.path, broker, sizeof packet.broker.path);
        fail_or_go_on(agent_packet_send(fd, &packet, listener) == 0, "BROKER");
        (void) close(listener);
        listener = socket_connect(server, SOCK_STREAM);
        packet =
                (AgentPacket){.open = {.head.type = AGENT_OPEN, .seq = 1, .deadline_usec = 5 * USEC_PER_SEC}};
        fail_or_go_on(listener >= 0 && agent_packet_send(fd, &packet, listener) == 0, "OPEN");
        (void) close(listener);
        fail_or_go_on(await_packet(fd, AGENT_RESULT, &got) > 0 && got.result.status == 0, "the device");
        return broker;
}

/* ---- the client ---------------------------------------------------------------------------------------------- */

typedef struct Samples {
        double usec[ROUNDS_MAX * BATCH];
        size_t n;
} Samples;

typedef struct Client {
        const char *name;
        int fd, twin;
        const Shared *shared;
        const uint8_t *window;
        Samples reads, dma, looks;
} Client;

static void connect_client(Client *client, const char *path)
{
        static const char text[] =
                "{\"capabilities\":{\"max_msg_fds\":8,\"twin_socket\":{\"supported\":true}}}";
        Wire wire = {.header = {.command = VFIO_USER_VERSION}};

        client->fd = socket_connect(path, SOCK_STREAM);
        fail_or_go_on(client->fd >= 0 && fcntl(client->fd, F_SETFL, 0) == 0, path);
        memcpy(wire.payload + sizeof(VfioUserVersion), text, sizeof text);
        client->twin = -1;
        fail_or_go_on(give(client->fd, &wire, sizeof(VfioUserVersion) + sizeof text, NULL) &&
                              take(client->fd, &wire, &client->twin) && client->twin >= 0,
                      "VERSION");
}

static void map_window(Client *client)
{
        VfioUserRegionInfo info = {.argsz = sizeof info, .index = 2};
        Wire wire = {.header = {.command = VFIO_USER_DEVICE_GET_REGION_INFO}};
        int file = -1;

        memcpy(wire.payload, &info, sizeof info);
        fail_or_go_on(give(client->fd, &wire, sizeof info, NULL) && take(client->fd, &wire, &file) &&
                              file >= 0,
                      "REGION_INFO");
        client->window = mmap(NULL, WINDOW, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        fail_or_go_on(client->window != MAP_FAILED, "mmap");
        (void) close(file);
}

static void look(Client *client)
{
        uint8_t copy[SIZE];
        double start = now_usec();

        for (size_t i = 0; i < LOOKS; i++) {
                memcpy(copy, client->window + i * SIZE % WINDOW, SIZE);
                __asm__ volatile("" : : "r"(copy) : "memory"); /* it is really read each time */
        }
        client->looks.usec[client->looks.n++] = (now_usec() - start) / LOOKS;
}

static void read_region(Client *client)
{
        Wire wire;

        for (size_t i = 0; i < BATCH; i++) {
                VfioUserRegionAccess access = {0, 0, SIZE};
                double start = now_usec();

                wire.header = (VfioUserHeader){.id = (uint16_t) i, .command = VFIO_USER_REGION_READ};
                memcpy(wire.payload, &access, sizeof access);
                fail_or_go_on(give(client->fd, &wire, sizeof access, NULL) && take(client->fd, &wire, NULL) &&
                                      wire.header.size == sizeof wire.header + sizeof access + SIZE,
                              client->name);
                client->reads.usec[client->reads.n++] = now_usec() - start;
        }
}

/* A write at which the server reads a batch from us. */
static void answer_dma(Client *client)
{
        VfioUserRegionAccess access = {0, 0, 8};
        Wire wire = {.header = {.command = VFIO_USER_REGION_WRITE}};

        memcpy(wire.payload, &access, sizeof access);
        fail_or_go_on(give(client->fd, &wire, sizeof access + 8, NULL), client->name);
        for (size_t i = 0; i < BATCH; i++) {
                fail_or_go_on(take(client->twin, &wire, NULL), client->name);
                wire.header.flags = VFIO_USER_TYPE_REPLY;
                fail_or_go_on(give(client->twin, &wire, sizeof(VfioUserDmaAccess) + SIZE, NULL),
                              client->name);
        }
        fail_or_go_on(take(client->fd, &wire, NULL), client->name);
        memcpy(client->dma.usec + client->dma.n, client->shared->dma_usec, sizeof client->shared->dma_usec);
        client->dma.n += BATCH;
}

static int compare(const void *a, const void *b)
{
        const double *x = a, *y = b;

        return (*x > *y) - (*x < *y);
}

static double quantile(Samples *samples, double q)
{
        qsort(samples->usec, samples->n, sizeof samples->usec[0], compare);
        return samples->usec[(size_t) (q * (double) (samples->n - 1))];
}

static double report(const char *what, Samples *direct, Samples *brokered, char *json, size_t size)
{
        double d50 = quantile(direct, 0.5), d99 = quantile(direct, 0.99), b50 = quantile(brokered, 0.5),
               b99 = quantile(brokered, 0.99);

        printf("%-12s direct %7.3f us (p99 %7.3f)   broker %7.3f us (p99 %7.3f)   added %7.3f us, %zu each\n",
               what, d50, d99, b50, b99, b50 - d50, direct->n);
        (void) snprintf(json, size,
                        "\"%s\": {\"direct_usec\": %.3f, \"direct_p99_usec\": %.3f, \"broker_usec\": %.3f, "
                        "\"broker_p99_usec\": %.3f, \"added_usec\": %.3f}",
                        what, d50, d99, b50, b99, b50 - d50);
        return b50 - d50;
}

int main(int argc, char **argv)
{
        static Client clients[2] = {{.name = "direct"}, {.name = "broker"}};
        unsigned long rounds = argc == 3 ? strtoul(argv[2], NULL, 10) : 0;
        char dir[] = "/tmp/migmgr-XXXXXX", reads[1024], dma[512], looks[512];
        const char *paths[2], *broker;
        double added_read, added_dma, added_look;
        pid_t agent;
        bool holds;

        if (rounds < 1 || rounds > ROUNDS_MAX) {
                fprintf(stderr, "usage: broker-hop AGENT ROUNDS\n");
                return 2;
        }
        fail_or_go_on(mkdtemp(dir) != NULL, dir);
        for (size_t i = 0; i < 2; i++) {
                Shared *shared =
                        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

                fail_or_go_on(shared != MAP_FAILED, "mmap");
                clients[i].shared = shared;
                paths[i] = start_server(dir, clients[i].name, shared);
        }
        broker = start_agent(argv[1], dir, paths[1], &agent);
        connect_client(&clients[0], paths[0]);
        connect_client(&clients[1], broker);
        for (size_t k = 0; k < 2; k++)
                map_window(&clients[k]);
        for (unsigned long i = 0; i < rounds; i++)
                for (size_t k = 0; k < 2; k++) {
                        look(&clients[k]);
                        read_region(&clients[k]);
                        answer_dma(&clients[k]);
                }
        added_read = report("region_read", &clients[0].reads, &clients[1].reads, reads, sizeof reads);
        added_dma = report("dma_read", &clients[0].dma, &clients[1].dma, dma, sizeof dma);
        added_look = report("mapped", &clients[0].looks, &clients[1].looks, looks, sizeof looks);
        holds = added_read <= ADDED_MAX_USEC && added_dma <= ADDED_MAX_USEC &&
                added_look <= ADDED_MAPPED_MAX_USEC;
        (void) kill(agent, SIGKILL);
        (void) unlink(broker);
        for (size_t i = 0; i < 2; i++)
                (void) unlink(paths[i]);
        (void) snprintf(reads + strlen(reads), sizeof reads - strlen(reads), ", %s, %s", dma, looks);
        (void) snprintf(dma, sizeof dma, "%s/agent", dir);
        (void) unlink(dma);
        (void) rmdir(dir);
        printf("{\"rounds\": %lu, \"batch\": %d, %s, \"holds\": %s}\n", rounds, BATCH, reads,
               holds ? "true" : "false");
        return holds ? 0 : 1;
}
