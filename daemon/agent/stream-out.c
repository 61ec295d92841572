/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* From the device to the data connection. */

#include <stdio.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "common/clock.h"
#include "common/crc32c.h"
#include "common/socket.h"
#include "stream-internal.h"

/* While a device runs it is asked so often whether there is something new, */
#define TICK_USEC (20 * USEC_PER_MSEC)
/* and over such a time its rate is taken. */
#define WINDOW_USEC (100 * USEC_PER_MSEC)
/* No link is faster; and times a second, in microseconds, it is still a number. */
#define BANDWIDTH_MAX (UINT64_C(1) << 40)

static void pump_out(Stream *stream);

/* ---- from the device ----------------------------------------------------------------------------------------- */

/* What is left of it nobody knows: there may be no end to it. */
static void end_too_large(Stream *stream)
{
        (void) snprintf(
                stream->bound_text, sizeof stream->bound_text,
                "the device has given %llu bytes of state, and more: policy \"max-state-mib\" allows %llu MiB",
                (unsigned long long) stream->given_bytes, (unsigned long long) (stream->most_bytes / MIB));
        stream_end(stream, -EFBIG, stream->bound_text);
}

static void on_device_read(void *userdata, int status, size_t size)
{
        Buffer *buffer = userdata;
        Stream *stream = buffer->stream;

        stream->transfers--;
        if (stream->status != 0)
                return;
        if (status < 0) {
                stream_end(stream, status, "the device refused to give its state");
                return;
        }
        stream->given_bytes += size;
        if (stream->most_bytes > 0 && stream->given_bytes > stream->most_bytes) {
                end_too_large(stream);
                return;
        }
        if (size > 0 && stream->at_end) {
                stream_end(stream, -EPROTO, "the device gave more state after its end");
                return;
        }
        /* More is asked for where there was enough: a reply is as long as was asked for, however little there is. */
        stream->chunk = size == buffer->asked ? MIN(2 * size, (size_t) FRAME_SLOT_SIZE)
                                              : MAX(size, (size_t) STREAM_CHUNK_FIRST);
        buffer->size = size;
        buffer->done = 0;
        buffer->use = BUFFER_FULL;
        stream->precopy.empty = size == 0;
        stream->precopy.tokens -= (int64_t) size;
        if (size == 0 && buffer->last)
                stream->at_end = true;
        stream->pump(stream);
}

/* While the device runs it is asked again when the next tick comes, and no faster than is allowed. */
static bool must_wait(Stream *stream)
{
        Precopy *p = &stream->precopy;

        if (!p->under_way)
                return false;
        if (p->limits.bandwidth > 0 && p->tokens <= 0) {
                p->held_back = true;
                return true;
        }
        return p->empty || p->held;
}

/* What comes from now on is to lie in memory that both agents map: first all that lies in our own has to go out. */
static bool wants_to_share(const Stream *stream)
{
        return stream->may_share && stream->offset >= STREAM_SHARED_FROM && !stream->at_end;
}

static void fill_from_device(Stream *stream)
{
        size_t chunk_max = stream->memory == MEMORY_SHARED ? FRAME_SLOT_SIZE : STREAM_CHUNK_MAX;
        size_t most = MIN(agent_device_facts(stream->device)->transfer_max, chunk_max);

        while (!stream->at_end && stream->transfers < DEVICE_TRANSFERS_MAX && stream->status == 0 &&
               !must_wait(stream) && !wants_to_share(stream)) {
                Buffer *buffer = &stream->buffers[stream->head % STREAM_BUFFERS];
                size_t chunk = MIN(stream->chunk, most);
                int r;

                if (buffer->use != BUFFER_FREE)
                        return;
                r = agent_device_read(stream->device, buffer->payload, chunk, on_device_read, buffer);
                if (r < 0) {
                        stream_end(stream, r, "the device cannot be asked for its state");
                        return;
                }
                buffer->use = BUFFER_FILLING;
                buffer->last = !stream->precopy.under_way;
                buffer->asked = chunk;
                stream->transfers++;
                stream->head++;
        }
}

/* ---- to the data connection ---------------------------------------------------------------------------------- */

/* Sends what is left of header and payload, and with its first byte the file that is offered. Returns 1 when all is out, 0
 * when the connection is full. */
static int send_piece(Stream *stream, const uint8_t *header, const uint8_t *payload, size_t size,
                      size_t *done)
{
        union {
                struct cmsghdr align;
                char space[CMSG_SPACE(sizeof(int))];
        } control = {};
        size_t in_header = *done < FRAME_HEADER_SIZE ? FRAME_HEADER_SIZE - *done : 0;
        size_t in_payload = *done > FRAME_HEADER_SIZE ? *done - FRAME_HEADER_SIZE : 0;
        struct iovec iov[2] = {
                {(void *) (header + FRAME_HEADER_SIZE - in_header), in_header},
                {size > 0 ? (void *) (payload + in_payload) : NULL, size - in_payload},
        };
        struct msghdr msg = {.msg_iov = iov, .msg_iovlen = size > 0 ? 2 : 1};
        ssize_t n;

        if (stream->slots_fd >= 0 && *done == 0)
                socket_put_fds(&msg, control.space, &stream->slots_fd, 1);
        n = sendmsg(stream->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
                (void) event_add(stream->writable, NULL);
                return 0;
        }
        if (n < 0) {
                stream_end(stream, device_cut_status(errno), "the data connection broke");
                return 0;
        }
        *done += (size_t) n;
        return *done == FRAME_HEADER_SIZE + size;
}

static void begin_control(Stream *stream, FrameType type)
{
        frame_encode(&(Frame){.type = type, .offset = stream->offset}, stream->header);
        stream->n_header = 0;
        stream->in_control = true;
}

/* Whether no frame without payload is left over. */
static bool send_control(Stream *stream)
{
        if (stream->in_control && send_piece(stream, stream->header, NULL, 0, &stream->n_header) == 1)
                stream->in_control = false;
        return !stream->in_control;
}

/* Between two data frames only. */
static bool send_mark(Stream *stream)
{
        Precopy *p = &stream->precopy;

        if (p->mark_wanted && !p->mark_sent && !stream->in_control) {
                begin_control(stream, FRAME_MARK);
                p->mark_sent = true;
        }
        return send_control(stream);
}

/* If something stands between that passes no files, the other agent says so. Nothing of ours is under way. */
static void offer_memory(Stream *stream)
{
        uint8_t *slots;

        stream->may_share = false;
        if (slots_new_file(&slots, &stream->slots_fd) < 0)
                return;
        stream_set_slots(stream, slots);
        stream->memory = MEMORY_OFFERED;
        begin_control(stream, FRAME_MEMORY);
        (void) send_control(stream);
}

static bool send_buffer(Stream *stream, Buffer *buffer)
{
        bool lend = stream->memory == MEMORY_SHARED;
        Frame frame = {.type = lend ? FRAME_SLOT : FRAME_DATA,
                       .offset = stream->offset,
                       .length = (uint32_t) buffer->size};
        int r;

        if (buffer->done == 0) {
                if (lend)
                        frame.slot = (uint32_t) (buffer - stream->buffers);
                else
                        frame.crc = crc32c(buffer->payload, buffer->size);
                frame_encode(&frame, buffer->header);
        }
        do
                r = send_piece(stream, buffer->header, buffer->payload, lend ? 0 : buffer->size,
                               &buffer->done);
        while (r == 0 && stream->status == 0 && !event_pending(stream->writable, EV_WRITE, NULL));
        if (r == 0)
                return false;
        buffer->use = lend ? BUFFER_LENT : BUFFER_FREE;
        stream->offset += buffer->size;
        stream->bytes = stream->offset;
        return true;
}

/* Returns whether everything that has come from the device is out. */
static bool send_buffers(Stream *stream)
{
        if (!send_control(stream) || stream->memory == MEMORY_OFFERED)
                return false;
        while (stream->tail != stream->head) {
                Buffer *buffer = &stream->buffers[stream->tail % STREAM_BUFFERS];

                if (buffer->use != BUFFER_FULL)
                        return false;
                if (buffer->done == 0 && !send_mark(stream))
                        return false;
                if (buffer->size == 0)
                        buffer->use = BUFFER_FREE;
                else if (!send_buffer(stream, buffer))
                        return false;
                stream->tail++;
        }
        return send_mark(stream);
}

/* What the other agent may say. */
static bool take_answer(Stream *stream, uint8_t answer)
{
        Precopy *p = &stream->precopy;
        uint32_t slot = (uint32_t) answer - FRAME_RETURN;

        if (stream->memory == MEMORY_OFFERED &&
            (answer == FRAME_MEMORY_TAKEN || answer == FRAME_MEMORY_REFUSED)) {
                stream->memory = answer == FRAME_MEMORY_TAKEN ? MEMORY_SHARED : MEMORY_OWN;
                (void) close(TAKE_FD(stream->slots_fd));
                return true;
        }
        if (answer == FRAME_ACK && p->mark_sent && !p->marked) {
                p->marked = true;
                return true;
        }
        if (slot < FRAME_SLOTS && stream->buffers[slot].use == BUFFER_LENT) {
                stream->buffers[slot].use = BUFFER_FREE;
                return true;
        }
        return false;
}

/* What comes else is the end of its side, or nonsense. */
static bool peer_is_there(Stream *stream)
{
        uint8_t answers[FRAME_SLOTS + 2];
        ssize_t n = recv(stream->fd, answers, sizeof answers, MSG_DONTWAIT);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return true;
        if (n <= 0)
                stream_end(stream, -DEVICE_E_CUT, "the other side closed the data connection");
        for (ssize_t i = 0; i < n; i++)
                if (!take_answer(stream, answers[i])) {
                        stream_end(stream, -EPROTO,
                                   "the other side says what is not due on the data connection");
                        return false;
                }
        return n > 0;
}

/* ---- pre-copy ------------------------------------------------------------------------------------------------ */

static void look_at_convergence(Stream *stream)
{
        Precopy *p = &stream->precopy;
        const TransferLimits *limits = &p->limits;
        bool initial, little;
        uint64_t left = agent_device_left(stream->device, &initial);

        if (!p->under_way || p->converged)
                return;
        /* Nothing came, and the device says that there is more: then it is about to come. */
        little = (p->empty && left == 0) || (p->slow && !initial);
        if (little)
                p->mark_wanted = true;
        if ((p->marked && little) ||
            (limits->precopy_usec > 0 && clock_monotonic_usec() - p->start_usec >= limits->precopy_usec) ||
            (limits->precopy_bytes > 0 && stream->bytes >= limits->precopy_bytes)) {
                p->converged = true;
                event_active(stream->kick, EV_TIMEOUT, 0);
        }
}

static void take_rate(Stream *stream, uint64_t now)
{
        Precopy *p = &stream->precopy;
        uint64_t usec = MIN(now - p->window_usec, USEC_PER_SEC);

        if (usec < WINDOW_USEC)
                return;
        p->slow = !p->held_back &&
                  (stream->bytes - p->window_bytes) * USEC_PER_SEC < p->limits.precopy_rate * usec;
        p->held_back = false;
        p->window_usec = now;
        p->window_bytes = stream->bytes;
}

static void on_tick(evutil_socket_t fd, short what, void *userdata)
{
        Stream *stream = userdata;
        Precopy *p = &stream->precopy;
        uint64_t now = clock_monotonic_usec();
        int64_t most = (int64_t) (p->limits.bandwidth * WINDOW_USEC / USEC_PER_SEC);

        /* What was not used is not saved up: a burst would be no limit. */
        p->tokens = MIN(p->tokens + (int64_t) (p->limits.bandwidth * MIN(now - p->tick_usec, USEC_PER_SEC) /
                                               USEC_PER_SEC),
                        most);
        p->tick_usec = now;
        take_rate(stream, now);
        p->empty = false;
        stream->pump(stream);
        look_at_convergence(stream);
}

static void pump_out(Stream *stream)
{
        bool all_out;

        if (!peer_is_there(stream))
                return;
        fill_from_device(stream);
        all_out = stream->status == 0 && send_buffers(stream);
        if (stream->status != 0)
                return;
        if (all_out && wants_to_share(stream))
                offer_memory(stream);
        fill_from_device(stream); /* sending has made room */
        look_at_convergence(stream);
        if (!all_out || !stream->at_end || stream->transfers > 0)
                return;
        if (!stream->end_sent) {
                begin_control(stream, FRAME_END);
                stream->end_sent = true;
        }
        if (send_control(stream))
                stream_end(stream, 0, "");
}

static bool is_unix(int fd)
{
        int domain;
        socklen_t size = sizeof domain;

        return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_UNIX;
}

int stream_out_new(struct event_base *base, AgentDevice *device, int fd, StreamEnd on_end, void *userdata,
                   Stream **ret)
{
        int r = stream_new(base, device, fd, pump_out, on_end, userdata, ret);

        if (r >= 0)
                (*ret)->may_share = is_unix(fd);
        return r;
}

int stream_precopy_new(struct event_base *base, AgentDevice *device, int fd, const TransferLimits *limits,
                       StreamEnd on_converged, void *userdata, Stream **ret)
{
        Stream *stream;
        Precopy *p;
        int r = stream_out_new(base, device, fd, on_converged, userdata, &stream);

        if (r < 0)
                return r;
        p = &stream->precopy;
        stream_bound(stream, limits->state_bytes);
        p->limits = *limits;
        p->limits.bandwidth = MIN(p->limits.bandwidth, BANDWIDTH_MAX);
        p->limits.precopy_rate = MIN(p->limits.precopy_rate, BANDWIDTH_MAX);
        p->under_way = true;
        p->start_usec = p->tick_usec = p->window_usec = clock_monotonic_usec();
        p->tokens = 1;
        p->tick = event_new(base, -1, EV_PERSIST, on_tick, stream);
        if (!p->tick || event_add(p->tick, &(struct timeval){.tv_usec = TICK_USEC}) < 0) {
                stream_free(stream);
                return -ENOMEM;
        }
        *ret = stream;
        return 0;
}

void stream_bound(Stream *stream, uint64_t bytes)
{
        stream->most_bytes = bytes;
}

void stream_hold(Stream *stream, bool hold)
{
        stream->precopy.held = hold;
        if (!hold)
                event_active(stream->kick, EV_TIMEOUT, 0);
}

void stream_finish(Stream *stream, StreamEnd on_end, void *userdata)
{
        stream->on_end = on_end;
        stream->userdata = userdata;
        stream->precopy.under_way = stream->precopy.mark_wanted = false;
        stream->precopy.empty = false;
        if (stream->precopy.tick)
                (void) event_del(stream->precopy.tick);
        event_active(stream->kick, EV_TIMEOUT, 0);
}
