/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* From the data connection to the device. */

#include <sys/socket.h>

#include "common/crc32c.h"
#include "common/socket.h"
#include "stream-internal.h"

static uint32_t slot_of(const Stream *stream, const Buffer *buffer)
{
        return (uint32_t) ((size_t) (buffer->payload - stream->slots) / FRAME_SLOT_SIZE);
}

/* One byte to the source. What it has not read of them is so little that there is room. */
static void say(Stream *stream, uint8_t byte)
{
        if (send(stream->fd, &byte, 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno == EAGAIN)
                stream_end(stream, -EPROTO, "the source does not take our answers");
}

static void on_device_written(void *userdata, int status)
{
        Buffer *buffer = userdata;
        Stream *stream = buffer->stream;

        stream->transfers--;
        if (stream->status != 0)
                return;
        if (status < 0) {
                /* Whatever RESUMING -> STOP says later: a real driver took bad data in after refusing the write. */
                stream_end(stream, status, "the device refused to take its state");
                return;
        }
        if (--buffer->parts == 0 && buffer->done == buffer->size) {
                buffer->use = BUFFER_FREE;
                stream->bytes += buffer->size;
                if (stream->memory == MEMORY_SHARED && !stream->at_end)
                        say(stream, (uint8_t) (FRAME_RETURN + slot_of(stream, buffer)));
        }
        stream->pump(stream);
}

static void write_to_device(Stream *stream)
{
        size_t chunk = agent_device_facts(stream->device)->transfer_max;

        while (stream->tail != stream->head && stream->transfers < DEVICE_TRANSFERS_MAX) {
                Buffer *buffer = &stream->buffers[stream->tail % STREAM_BUFFERS];
                size_t size = MIN(buffer->size - buffer->done, chunk);
                int r;

                if (buffer->use != BUFFER_FULL)
                        return;
                r = agent_device_write(stream->device, buffer->payload + buffer->done, size,
                                       on_device_written, buffer);
                if (r < 0) {
                        stream_end(stream, r, "the device cannot be given its state");
                        return;
                }
                stream->transfers++;
                buffer->parts++;
                buffer->done += size;
                if (buffer->done == buffer->size)
                        stream->tail++;
        }
}

/* Reads up to `size` bytes. Returns 1 when all are in, 0 when more must come. A file that comes with them is kept. */
static int recv_piece(Stream *stream, uint8_t *to, size_t size, size_t *done)
{
        union {
                struct cmsghdr align;
                char space[CMSG_SPACE(sizeof(int))];
        } control;
        struct iovec iov = {to + *done, size - *done};
        struct msghdr msg = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control.space,
                             .msg_controllen = sizeof control.space};
        ssize_t n = recvmsg(stream->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

        if (n > 0)
                (void) socket_take_fds(&msg, &stream->slots_fd, stream->slots_fd < 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return 0;
        if (n <= 0) {
                stream_end(stream, n < 0 ? device_cut_status(errno) : -DEVICE_E_CUT,
                           "the data connection ended before the end frame");
                return 0;
        }
        *done += (size_t) n;
        return *done == size;
}

/* The source's memory instead of ours, which is empty. */
static void take_memory(Stream *stream)
{
        const uint8_t *slots;
        bool taken = slots_map_file(stream->slots_fd, &slots) == 0;

        if (taken) {
                stream_set_slots(stream, (uint8_t *) slots);
                stream->memory = MEMORY_SHARED;
        }
        say(stream, taken ? FRAME_MEMORY_TAKEN : FRAME_MEMORY_REFUSED);
}

/* A source that uses a slot again which was not returned would change state that the device has not taken. */
static bool is_in_use(const Stream *stream, uint32_t slot)
{
        for (size_t i = 0; i < STREAM_BUFFERS; i++)
                if (stream->buffers[i].use != BUFFER_FREE && slot_of(stream, &stream->buffers[i]) == slot)
                        return true;
        return false;
}

/* Part of the stream is in the buffer at the head. */
static void take_buffer(Stream *stream, Buffer *buffer)
{
        buffer->size = stream->frame.length;
        buffer->done = 0;
        buffer->parts = 0;
        buffer->use = BUFFER_FULL;
        stream->offset += stream->frame.length;
        stream->n_header = 0;
        stream->head++;
        write_to_device(stream);
}

/* Returns whether a frame of that type is due. */
static bool take_frame(Stream *stream)
{
        const Frame *frame = &stream->frame;
        Buffer *buffer = &stream->buffers[stream->head % STREAM_BUFFERS];

        switch (frame->type) {
        case FRAME_DATA:
                if (stream->memory != MEMORY_OWN)
                        return false;
                buffer->use = BUFFER_FILLING;
                buffer->size = buffer->done = 0;
                return true;
        case FRAME_END: stream->at_end = true; return true;
        case FRAME_ERROR: stream_end(stream, -ECANCELED, "the other side gave up"); return true;
        case FRAME_MARK:
                if (stream->marked)
                        return false;
                stream->marked = true;
                stream->owed = FRAME_MARK;
                stream->n_header = 0;
                return true;
        case FRAME_MEMORY:
                if (!stream->may_share)
                        return false;
                stream->may_share = false;
                stream->owed = FRAME_MEMORY;
                stream->n_header = 0;
                return true;
        case FRAME_SLOT:
                if (stream->memory != MEMORY_SHARED || is_in_use(stream, frame->slot))
                        return false;
                buffer->payload = stream->slots + (size_t) frame->slot * FRAME_SLOT_SIZE;
                take_buffer(stream, buffer);
                return true;
        case FRAME_PAGES: return false;
        }
        return false;
}

static void take_header(Stream *stream)
{
        if (frame_decode(stream->header, &stream->frame) < 0 || stream->frame.offset != stream->offset)
                stream_end(stream, -EBADMSG, "the other side sent a frame that makes no sense");
        else if (!take_frame(stream))
                stream_end(stream, -EBADMSG,
                           "the other side sent what was not due: memory, a second mark, or a slot in use");
}

static void take_payload(Stream *stream, Buffer *buffer)
{
        if (crc32c(buffer->payload, stream->frame.length) != stream->frame.crc) {
                stream_end(stream, -EBADMSG, "a frame's checksum is wrong: the state was damaged on the way");
                return;
        }
        take_buffer(stream, buffer);
}

/* First all that came before is in the device, and nothing else is read. Returns whether there is nothing to wait for. */
static bool answer(Stream *stream)
{
        if (stream->owed == 0)
                return true;
        if (stream->tail != stream->head || stream->transfers > 0)
                return false;
        if (stream->owed == FRAME_MARK)
                say(stream, FRAME_ACK);
        else
                take_memory(stream);
        stream->owed = 0;
        return true;
}

/* Reads what there is, as far as there are buffers. */
static void read_frames(Stream *stream)
{
        while (stream->status == 0 && !stream->at_end) {
                Buffer *buffer = &stream->buffers[stream->head % STREAM_BUFFERS];

                if (!answer(stream) || buffer->use == BUFFER_FULL) {
                        (void) event_del(stream->readable); /* until the device has taken something */
                        return;
                }
                if (stream->n_header < FRAME_HEADER_SIZE) {
                        if (recv_piece(stream, stream->header, FRAME_HEADER_SIZE, &stream->n_header) == 0)
                                return;
                        take_header(stream);
                        continue;
                }
                if (recv_piece(stream, buffer->payload, stream->frame.length, &buffer->done) == 0)
                        return;
                take_payload(stream, buffer);
        }
}

static void pump_in(Stream *stream)
{
        if (!event_pending(stream->readable, EV_READ, NULL))
                (void) event_add(stream->readable, NULL);
        read_frames(stream);
        if (stream->status != 0)
                return;
        write_to_device(stream);
        if (stream->at_end)
                (void) event_del(stream->readable);
        if (stream->at_end && stream->tail == stream->head && stream->transfers == 0)
                stream_end(stream, 0, "");
}

int stream_in_new(struct event_base *base, AgentDevice *device, int fd, StreamEnd on_end, void *userdata,
                  Stream **ret)
{
        int r = stream_new(base, device, fd, pump_in, on_end, userdata, ret);

        if (r >= 0)
                (*ret)->may_share = true;
        return r;
}
