/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "stage.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "common/log.h"
#include "daemon/agent/vfio-user-message.h"

#define PIECE  4096
#define ROUNDS 8

/* A fuzzer's world must not fail: what does is a bug here. */
#define MUST(condition)                                             \
        do {                                                        \
                if (!(condition)) {                                 \
                        fprintf(stderr, "stage: %s\n", #condition); \
                        abort();                                    \
                }                                                   \
        } while (0)

/* ---- ends ---------------------------------------------------------------------------------------------------- */

static void end_close(StageEnd *end)
{
        if (end->fd >= 0)
                (void) close(end->fd);
        end->fd = -1;
        end->n_in = end->drop = 0;
}

void stage_say(StageEnd *end, uint16_t id, uint16_t command, uint32_t flags, const void *payload, size_t size)
{
        VfioUserHeader header = {id, command, (uint32_t) (sizeof header + size), flags, 0};
        struct iovec iov[2] = {{&header, sizeof header}, {(void *) payload, size}};
        struct msghdr msg = {.msg_iov = iov, .msg_iovlen = size > 0 ? 2 : 1};

        if (end->fd >= 0)
                (void) sendmsg(end->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Takes in what is there; files go to `twin`, if it wants one, or are closed. */
static void end_read(StageEnd *end, StageEnd *twin)
{
        union {
                struct cmsghdr align;
                char space[CMSG_SPACE(sizeof(int) * VFIO_USER_FDS_MAX)];
        } control;
        ssize_t n = 1;

        while (end->fd >= 0 && n > 0 && end->n_in < sizeof end->in) {
                struct iovec iov = {end->in + end->n_in, sizeof end->in - end->n_in};
                struct msghdr msg = {.msg_iov = &iov,
                                     .msg_iovlen = 1,
                                     .msg_control = control.space,
                                     .msg_controllen = sizeof control};
                size_t cut;

                n = recvmsg(end->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
                if (n <= 0)
                        break;
                for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c))
                        for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
                                int fd;

                                memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
                                if (twin && twin->fd < 0)
                                        twin->fd = fd;
                                else
                                        (void) close(fd);
                        }
                cut = MIN(end->drop, (size_t) n);
                end->drop -= cut;
                memmove(end->in + end->n_in, end->in + end->n_in + cut, (size_t) n - cut);
                end->n_in += (size_t) n - cut;
        }
        if (n == 0)
                end_close(end);
}

/* The next whole message: its header, with `payload` behind it; false: there is none. What is too long for us is
 * shortened. */
static bool end_take(StageEnd *end, VfioUserHeader *header, uint8_t payload[256])
{
        size_t in;

        if (end->n_in < sizeof *header)
                return false;
        memcpy(header, end->in, sizeof *header);
        MUST(header->size >=
             sizeof *header); /* whatever a fuzzer says to the one side, the other gets messages */
        MUST(header->size <= VFIO_USER_MESSAGE_MAX);
        if (header->size > sizeof end->in) {
                end->drop = header->size - end->n_in;
                in = end->n_in;
        } else if (end->n_in < header->size) {
                return false;
        } else {
                in = header->size;
        }
        memset(payload, 0, 256);
        memcpy(payload, end->in + sizeof *header, MIN(in - sizeof *header, (size_t) 256));
        memmove(end->in, end->in + in, end->n_in - in);
        end->n_in -= in;
        return true;
}

/* ---- honest ones --------------------------------------------------------------------------------------------- */

static void serve_version(Stage *stage, const VfioUserHeader *header)
{
        static const char twin[] =
                "\0\0\2\0{\"capabilities\":{\"max_msg_fds\":8,\"twin_socket\":{\"supported\":true,"
                "\"fd_index\":0}}}";
        static const char none[] = "\0\0\2\0{\"capabilities\":{\"max_msg_fds\":8}}";
        VfioUserMessage *m;
        struct iovec iov;
        int pair[2] = {-1, -1};

        if (stage->server_twin.fd != -2) {
                stage_say(&stage->server, header->id, VFIO_USER_VERSION, VFIO_USER_TYPE_REPLY, none,
                          sizeof none);
                return;
        }
        MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
        stage->server_twin.fd = pair[0];
        m = vfio_user_message_new(sizeof twin);
        MUST(m);
        memcpy(m->payload, twin, sizeof twin);
        m->header.id = header->id;
        m->header.command = VFIO_USER_VERSION;
        m->header.flags = VFIO_USER_TYPE_REPLY;
        m->fds[m->n_fds++] = pair[1];
        iov = (struct iovec){&m->header, m->header.size};
        MUST(vfio_user_send(stage->server.fd, &iov, 1, 0, m->fds, m->n_fds) == (ssize_t) m->header.size);
        vfio_user_message_free(m);
}

static void serve(Stage *stage)
{
        static const uint8_t zeros[8192];
        VfioUserHeader h;
        uint8_t payload[256];

        end_read(&stage->server, NULL);
        while (end_take(&stage->server, &h, payload)) {
                size_t size = MIN(h.size - sizeof h, sizeof payload);
                VfioUserRegionAccess access;
                VfioUserFeature feature;

                memcpy(&access, payload, sizeof access);
                memcpy(&feature, payload, sizeof feature);
                if ((h.flags & VFIO_USER_TYPE_MASK) == VFIO_USER_TYPE_REPLY || h.flags & VFIO_USER_NO_REPLY)
                        continue;
                if (h.command == VFIO_USER_VERSION) {
                        serve_version(stage, &h);
                } else if (h.command == VFIO_USER_DEVICE_FEATURE && (feature.flags & VFIO_USER_FEATURE_GET) &&
                           !(feature.flags & VFIO_USER_FEATURE_PROBE)) {
                        /* STOP_COPY alone, or where it was set to */
                        payload[8] = (feature.flags & VFIO_USER_FEATURE_MASK) == VFIO_USER_FEATURE_MIGRATION
                                             ? 1
                                             : stage->state;
                        stage_say(&stage->server, h.id, h.command, VFIO_USER_TYPE_REPLY, payload, 16);
                } else if (h.command == VFIO_USER_REGION_READ) {
                        stage_say(&stage->server, h.id, h.command, VFIO_USER_TYPE_REPLY, zeros,
                                  MIN(sizeof access + access.count, sizeof zeros));
                } else {
                        if (h.command == VFIO_USER_DEVICE_FEATURE &&
                            (feature.flags & VFIO_USER_FEATURE_MASK) == VFIO_USER_FEATURE_MIG_DEVICE_STATE)
                                stage->state = payload[8];
                        stage_say(&stage->server, h.id, h.command, VFIO_USER_TYPE_REPLY, payload, size);
                }
        }
}

/* The VMM reads what it is told, and answers what the server asks. */
static void serve_vmm(StageEnd *end, StageEnd *twin)
{
        VfioUserHeader h;
        uint8_t payload[256];

        end_read(end, twin);
        while (end_take(end, &h, payload))
                if ((h.flags & VFIO_USER_TYPE_MASK) == VFIO_USER_TYPE_COMMAND &&
                    !(h.flags & VFIO_USER_NO_REPLY))
                        stage_say(end, h.id, h.command, VFIO_USER_TYPE_REPLY, payload,
                                  h.command == VFIO_USER_DMA_READ
                                          ? MIN(16 + (size_t) payload[8], sizeof payload)
                                          : 0);
}

void stage_run(Stage *stage, bool server)
{
        for (int i = 0; i < ROUNDS; i++) {
                (void) event_base_loop(stage->base, EVLOOP_NONBLOCK);
                if (event_base_got_break(stage->base))
                        return;
                if (server)
                        serve(stage);
                else
                        end_read(&stage->server, NULL), stage->server.n_in = 0;
                serve_vmm(&stage->vmm, &stage->vmm_twin);
                serve_vmm(&stage->vmm_twin, NULL);
        }
}

void stage_send(Stage *stage, StageEnd *end, const uint8_t *data, size_t size)
{
        bool from_vmm = end == &stage->vmm || end == &stage->vmm_twin;

        while (size > 0 && end->fd >= 0) {
                ssize_t n = send(end->fd, data, MIN(size, (size_t) PIECE), MSG_NOSIGNAL | MSG_DONTWAIT);

                if (n <= 0)
                        break;
                data += n;
                size -= (size_t) n;
                stage_run(stage, from_vmm);
        }
}

/* ---- the stage ----------------------------------------------------------------------------------------------- */

static void on_gone(void *userdata, int status, const char *text)
{
        Stage *stage = userdata;

        stage->gone = true;
        if (stage->broker)
                broker_set_device(stage->broker, NULL);
}

static void on_opened(void *userdata, int status)
{
        Stage *stage = userdata;

        stage->opened = status == 0 ? 1 : status;
}

static void on_state(void *userdata, DeviceState state, bool asked)
{
        Stage *stage = userdata;

        broker_see_state(stage->broker, state, asked);
}

static void on_wanted(void *userdata)
{
}

static void no_log(LogLevel level, const LogAbout *about, const char *text)
{
}

static void open_device(Stage *stage)
{
        int pair[2];

        MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
        stage->server.fd = pair[0];
        MUST(vfio_user_device_new(stage->base, pair[1], on_gone, stage, &stage->device) == 0);
        MUST(agent_device_open(stage->device, on_opened, stage) == 0);
        while (stage->opened == 0)
                stage_run(stage, true);
        MUST(stage->opened == 1);
}

/* A name that the kernel chooses, of which nothing is left on disk. */
static void open_broker(Stage *stage)
{
        struct sockaddr_un sa = {.sun_family = AF_UNIX};
        socklen_t size = sizeof sa.sun_family;
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        MUST(fd >= 0 && bind(fd, (struct sockaddr *) &sa, size) == 0 && listen(fd, 4) == 0);
        size = sizeof sa;
        MUST(getsockname(fd, (struct sockaddr *) &sa, &size) == 0);
        MUST(broker_new(stage->base, fd, "/nowhere/at/all", on_wanted, stage, &stage->broker) == 0);
        stage->vmm.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        MUST(stage->vmm.fd >= 0 && connect(stage->vmm.fd, (struct sockaddr *) &sa, size) == 0);
        agent_device_watch(stage->device, on_state, stage);
        broker_set_device(stage->broker, stage->device);
        stage_run(stage, true);
}

void stage_prepare(Stage *stage)
{
        memset(stage, 0, sizeof *stage);
        stage->server.fd = stage->server_twin.fd = stage->vmm.fd = stage->vmm_twin.fd = -1;
        stage->state = DEVICE_STATE_RUNNING;
        log_set_sink(no_log);
        stage->base = event_base_new();
        MUST(stage->base);
}

void stage_begin(Stage *stage, bool server_twin, bool greeted, bool vmm_twin)
{
        static const char twin[] =
                "\0\0\2\0{\"capabilities\":{\"max_msg_fds\":8,\"twin_socket\":{\"supported\":true}}}";
        static const char none[] = "\0\0\2\0";

        stage_prepare(stage);
        stage->server_twin.fd = server_twin ? -2 : -1;
        open_device(stage);
        open_broker(stage);
        if (!greeted)
                return;
        stage_say(&stage->vmm, 1, VFIO_USER_VERSION, 0, vmm_twin ? twin : none, vmm_twin ? sizeof twin : 4);
        stage_run(stage, true);
        MUST((stage->vmm_twin.fd >= 0) == vmm_twin);
}

void stage_end(Stage *stage)
{
        if (stage->broker)
                broker_set_device(stage->broker, NULL);
        agent_device_free(stage->device);
        broker_free(stage->broker);
        event_base_free(stage->base);
        end_close(&stage->server);
        end_close(&stage->server_twin);
        end_close(&stage->vmm);
        end_close(&stage->vmm_twin);
}
