/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "channel.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>

#include "common/clock.h"
#include "common/socket.h"

/* An access of a running guest. A server that needs longer is as good as dead; a VMM that has no such limit hangs
 * with it. */
#define CALL_USEC   (30 * USEC_PER_SEC)
#define LOOK_USEC   (50 * USEC_PER_MSEC) /* between looks at the cancel file */
#define SEND_BUFFER (2 * MIB)            /* libvfio-user loses a message that comes in pieces */
#define ERRNO_MAX   4095
#define FDS_ROOM    16
#define FAULT_MSEC  1 /* between looks whether vCPUs run again */

struct Channel {
        Ram *ram;
        int main, twin;
        pthread_t reader;
        bool has_reader;
        uint64_t deadline_usec;
        int cancel_fd;

        pthread_mutex_t lock; /* what follows */
        pthread_cond_t answered;
        ChannelCall *open;
        uint16_t id;
        bool done;
        int result, ended; /* `ended`: why, negative */

        pthread_mutex_t sending; /* a message at a time, each way has several senders */
        uint8_t *buffer;         /* the reader's: payload of a message */
};

/* ---- messages ------------------------------------------------------------------------------------------------ */

static int send_all(int fd, struct msghdr *msg)
{
        while (msg->msg_iovlen > 0) {
                ssize_t n = sendmsg(fd, msg, MSG_NOSIGNAL);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return errno == EPIPE ? -ECONNRESET : -errno;
                msg->msg_control = NULL; /* files go with the first byte */
                msg->msg_controllen = 0;
                while (msg->msg_iovlen > 0 && (size_t) n >= msg->msg_iov->iov_len) {
                        n -= (ssize_t) msg->msg_iov->iov_len;
                        msg->msg_iov++;
                        msg->msg_iovlen--;
                }
                if (msg->msg_iovlen > 0) {
                        msg->msg_iov->iov_base = (uint8_t *) msg->msg_iov->iov_base + n;
                        msg->msg_iov->iov_len -= (size_t) n;
                }
        }
        return 0;
}

/* Header and payload in one sendmsg(), as libvfio-user needs it. */
static int send_message(Channel *c, int fd, VfioUserHeader *header, const struct iovec *parts, const int *fds,
                        unsigned n_fds)
{
        union {
                struct cmsghdr align;
                char space[CMSG_SPACE(sizeof(int) * CHANNEL_FDS_MAX)];
        } control = {};
        struct iovec iov[1 + CHANNEL_PARTS_MAX] = {{header, sizeof *header}};
        struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 1 + CHANNEL_PARTS_MAX};
        int r;

        header->size = sizeof *header;
        for (unsigned i = 0; i < CHANNEL_PARTS_MAX; i++) {
                iov[1 + i] = parts ? parts[i] : (struct iovec){};
                header->size += (uint32_t) iov[1 + i].iov_len;
        }
        if (n_fds > 0)
                socket_put_fds(&msg, control.space, fds, n_fds);
        (void) pthread_mutex_lock(&c->sending);
        r = send_all(fd, &msg);
        (void) pthread_mutex_unlock(&c->sending);
        return r;
}

/* Of the files that come the first is kept. */
static int receive(int socket, void *data, size_t n, int *fd)
{
        uint8_t *to = data;

        while (n > 0) {
                union {
                        struct cmsghdr align;
                        char space[CMSG_SPACE(sizeof(int) * FDS_ROOM)];
                } control;
                struct iovec iov = {to, n};
                struct msghdr msg = {.msg_iov = &iov,
                                     .msg_iovlen = 1,
                                     .msg_control = control.space,
                                     .msg_controllen = sizeof control};
                ssize_t got = recvmsg(socket, &msg, MSG_CMSG_CLOEXEC);

                if (got < 0 && errno == EINTR)
                        continue;
                if (got < 0)
                        return -errno;
                if (got == 0)
                        return -ECONNRESET;
                (void) socket_take_fds(&msg, fd, *fd < 0);
                to += got;
                n -= (size_t) got;
        }
        return 0;
}

/* ---- what the server wants ----------------------------------------------------------------------------------- */

static int answer(Channel *c, int socket, const VfioUserHeader *command, int error, const struct iovec *parts)
{
        VfioUserHeader header = {
                .id = command->id, .command = command->command, .flags = VFIO_USER_TYPE_REPLY};

        if (command->flags & VFIO_USER_NO_REPLY)
                return 0;
        if (error < 0) {
                header.flags |= VFIO_USER_ERROR;
                header.error = (uint32_t) -error;
                parts = NULL;
        }
        return send_message(c, socket, &header, parts, NULL, 0);
}

/* Where the guest would have to bring the page first, nobody does while its vCPUs stand. */
static int wait_for_vcpus(Channel *c, int socket)
{
        struct pollfd end = {socket, 0};

        while (c->ram->vcpus_serve && __atomic_load_n(&c->ram->vcpus_stand, __ATOMIC_ACQUIRE))
                if (poll(&end, 1, FAULT_MSEC) > 0)
                        return -ECONNRESET;
        return 0;
}

/* A device's access to the guest's memory. */
static int serve(Channel *c, int socket, const VfioUserHeader *header, size_t size)
{
        VfioUserDmaAccess access;
        struct iovec parts[CHANNEL_PARTS_MAX] = {{&access, sizeof access}};
        bool is_read = header->command == VFIO_USER_DMA_READ;
        uint8_t *where;
        int r;

        if (!is_read && header->command != VFIO_USER_DMA_WRITE)
                return answer(c, socket, header, -ENOTSUP, NULL);
        if (size < sizeof access)
                return answer(c, socket, header, -EINVAL, NULL);
        memcpy(&access, c->buffer, sizeof access);
        if (access.count > VFIO_USER_DATA_MAX || size != sizeof access + (is_read ? 0 : access.count))
                return answer(c, socket, header, -EINVAL, NULL);
        where = ram_find(c->ram, access.address, access.count);
        if (!where)
                return answer(c, socket, header, -EFAULT, NULL);
        r = wait_for_vcpus(c, socket);
        if (r < 0)
                return r;
        if (is_read)
                parts[1] = (struct iovec){where, access.count};
        else
                ram_store(c->ram, where, c->buffer + sizeof access, access.count);
        return answer(c, socket, header, 0, parts);
}

/* ---- replies ------------------------------------------------------------------------------------------------- */

static int reply_error(const VfioUserHeader *header)
{
        if (!(header->flags & VFIO_USER_ERROR))
                return 0;
        return header->error > 0 && header->error <= ERRNO_MAX ? -(int) header->error : -EIO;
}

/* Hands the reply that is in the buffer to its call. */
static int deliver(Channel *c, const VfioUserHeader *header, size_t size, int *fd)
{
        ChannelCall *call;
        int r = -EPROTO;

        (void) pthread_mutex_lock(&c->lock);
        call = c->done ? NULL : c->open;
        if (call && header->id == c->id && header->command == call->command && size <= call->room) {
                c->result = reply_error(header);
                if (size > 0)
                        memcpy(call->reply, c->buffer, size);
                call->size = size;
                if (call->wants_fd)
                        call->fd = TAKE_FD(*fd);
                c->done = true;
                (void) pthread_cond_broadcast(&c->answered);
                r = 0;
        }
        (void) pthread_mutex_unlock(&c->lock);
        return r;
}

/* One message. */
static int read_message(Channel *c, int socket)
{
        _cleanup_(closep) int fd = -1;
        VfioUserHeader header;
        int r = receive(socket, &header, sizeof header, &fd);

        if (r < 0)
                return r;
        if (header.size < sizeof header || header.size > VFIO_USER_MESSAGE_MAX)
                return -EPROTO;
        r = receive(socket, c->buffer, header.size - sizeof header, &fd);
        if (r < 0)
                return r;
        switch (header.flags & VFIO_USER_TYPE_MASK) {
        case VFIO_USER_TYPE_COMMAND: return serve(c, socket, &header, header.size - sizeof header);
        case VFIO_USER_TYPE_REPLY: return deliver(c, &header, header.size - sizeof header, &fd);
        default: return -EPROTO;
        }
}

static void *reader(void *userdata)
{
        Channel *c = userdata;
        int r = 0;

        while (r >= 0) {
                /* The twin comes while this thread waits for the next message, behind the reply that brings it. */
                int twin = __atomic_load_n(&c->twin, __ATOMIC_ACQUIRE);
                struct pollfd fds[] = {{c->main, POLLIN}, {twin, POLLIN}};

                if (poll(fds, 2, twin < 0 ? (int) (LOOK_USEC / USEC_PER_MSEC) : -1) < 0) {
                        r = errno == EINTR ? 0 : -errno;
                        continue;
                }
                if (fds[1].revents)
                        r = read_message(c, twin);
                if (r >= 0 && fds[0].revents)
                        r = read_message(c, c->main);
        }
        channel_shutdown(c);
        (void) pthread_mutex_lock(&c->lock);
        c->ended = r;
        (void) pthread_cond_broadcast(&c->answered);
        (void) pthread_mutex_unlock(&c->lock);
        return NULL;
}

/* ---- calls --------------------------------------------------------------------------------------------------- */

static void sleep_until(Channel *c, uint64_t usec)
{
        struct timespec ts = {(time_t) (usec / USEC_PER_SEC), (long) (usec % USEC_PER_SEC * 1000)};

        (void) pthread_cond_timedwait(&c->answered, &c->lock, &ts);
}

static bool is_cancelled(const Channel *c)
{
        struct pollfd fd = {c->cancel_fd, POLLIN};

        return c->cancel_fd >= 0 && poll(&fd, 1, 0) > 0;
}

/* With the lock. */
static int wait_for_reply(Channel *c)
{
        uint64_t deadline_usec = MIN(c->deadline_usec, clock_monotonic_usec() + CALL_USEC);

        while (!c->done && !c->ended) {
                uint64_t now = clock_monotonic_usec();

                if (now >= deadline_usec)
                        return -ETIMEDOUT;
                if (is_cancelled(c))
                        return -ECANCELED;
                sleep_until(c, c->cancel_fd < 0 ? deadline_usec : MIN(deadline_usec, now + LOOK_USEC));
        }
        return c->done ? c->result : c->ended;
}

int channel_call(Channel *c, ChannelCall *call)
{
        VfioUserHeader header = {.command = (uint16_t) call->command};
        int r;

        call->fd = -1;
        (void) pthread_mutex_lock(&c->lock);
        header.id = ++c->id;
        c->open = call;
        c->done = false;
        (void) pthread_mutex_unlock(&c->lock);

        r = send_message(c, c->main, &header, call->out, call->fds, call->n_fds);

        (void) pthread_mutex_lock(&c->lock);
        if (r == 0)
                r = wait_for_reply(c);
        c->open = NULL;
        /* Its reply would come some time, and be taken for another's. */
        if (!c->done)
                channel_shutdown(c);
        (void) pthread_mutex_unlock(&c->lock);
        return r;
}

int channel_post(Channel *c, const ChannelCall *call)
{
        VfioUserHeader header = {.command = (uint16_t) call->command, .flags = VFIO_USER_NO_REPLY};

        (void) pthread_mutex_lock(&c->lock);
        header.id = ++c->id;
        (void) pthread_mutex_unlock(&c->lock);
        return send_message(c, c->main, &header, call->out, call->fds, call->n_fds);
}

/* ---- life ---------------------------------------------------------------------------------------------------- */

static int start_reader(Channel *c)
{
        int r = pthread_create(&c->reader, NULL, reader, c);

        if (r != 0)
                return -r;
        c->has_reader = true;
        return 0;
}

static void init_locks(Channel *c)
{
        pthread_condattr_t attributes;

        (void) pthread_mutex_init(&c->lock, NULL);
        (void) pthread_mutex_init(&c->sending, NULL);
        (void) pthread_condattr_init(&attributes);
        (void) pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        (void) pthread_cond_init(&c->answered, &attributes);
        (void) pthread_condattr_destroy(&attributes);
}

int channel_new(const char *path, Ram *ram, Channel **ret)
{
        _cleanup_(channel_freep) Channel *c = calloc(1, sizeof *c);
        int r;

        if (!c)
                return -ENOMEM;
        init_locks(c);
        c->ram = ram;
        c->twin = c->cancel_fd = -1;
        c->deadline_usec = USEC_INFINITY;
        c->main = socket_connect(path, SOCK_STREAM);
        if (c->main < 0)
                return c->main;
        if (fcntl(c->main, F_SETFL, 0) < 0)
                return -errno;
        (void) socket_grow_send_buffer(c->main, SEND_BUFFER);
        c->buffer = malloc(VFIO_USER_MESSAGE_MAX);
        if (!c->buffer)
                return -ENOMEM;
        r = start_reader(c);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(c);
        return 0;
}

Channel *channel_free(Channel *c)
{
        if (!c)
                return NULL;
        channel_shutdown(c);
        if (c->has_reader)
                (void) pthread_join(c->reader, NULL);
        closep(&c->main);
        closep(&c->twin);
        (void) pthread_cond_destroy(&c->answered);
        (void) pthread_mutex_destroy(&c->sending);
        (void) pthread_mutex_destroy(&c->lock);
        free(c->buffer);
        free(c);
        return NULL;
}

void channel_limit(Channel *c, uint64_t deadline_usec, int cancel_fd)
{
        c->deadline_usec = deadline_usec;
        c->cancel_fd = cancel_fd;
}

void channel_unlimit(Channel *c)
{
        channel_limit(c, USEC_INFINITY, -1);
}

void channel_set_twin(Channel *c, int fd)
{
        (void) socket_grow_send_buffer(fd, SEND_BUFFER);
        __atomic_store_n(&c->twin, fd, __ATOMIC_RELEASE);
}

void channel_shutdown(Channel *c)
{
        int twin = __atomic_load_n(&c->twin, __ATOMIC_ACQUIRE);

        (void) shutdown(c->main, SHUT_RDWR);
        if (twin >= 0)
                (void) shutdown(twin, SHUT_RDWR);
}
