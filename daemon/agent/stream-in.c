/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* From the data connection to the device. */

#include <sys/socket.h>

#include "common/crc32c.h"
#include "stream-internal.h"

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

/* Reads up to `size` bytes. Returns 1 when all are in, 0 when more must come. */
static int recv_piece(Stream *stream, uint8_t *to, size_t size, size_t *done)
{
        ssize_t n = recv(stream->fd, to + *done, size - *done, MSG_DONTWAIT);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return 0;
        if (n <= 0) {
                stream_end(stream, n < 0 ? -errno : -ECONNRESET,
                           "the data connection ended before the end frame");
                return 0;
        }
        *done += (size_t) n;
        return *done == size;
}

static void take_header(Stream *stream)
{
        Frame *frame = &stream->frame;
        Buffer *buffer = &stream->buffers[stream->head % STREAM_BUFFERS];

        if (frame_decode(stream->header, frame) < 0 || frame->offset != stream->offset) {
                stream_end(stream, -EBADMSG, "the other side sent a frame that makes no sense");
                return;
        }
        if (frame->type == FRAME_ERROR) {
                stream_end(stream, -ECANCELED, "the other side gave up");
                return;
        }
        if (frame->type == FRAME_END) {
                stream->at_end = true;
                return;
        }
        if (frame->type == FRAME_MARK && !stream->marked) {
                stream->marked = stream->ack_owed = true;
                stream->n_header = 0;
                return;
        }
        if (frame->type != FRAME_DATA) {
                stream_end(stream, -EBADMSG,
                           "the other side sent memory, or a second mark, where state was due");
                return;
        }
        if (!stream_make_room(buffer, frame->length)) {
                stream_end(stream, -ENOMEM, "out of memory");
                return;
        }
        buffer->use = BUFFER_FILLING;
        buffer->size = buffer->done = 0;
}

static void take_payload(Stream *stream, Buffer *buffer)
{
        if (crc32c(buffer->payload, stream->frame.length) != stream->frame.crc) {
                stream_end(stream, -EBADMSG, "a frame's checksum is wrong: the state was damaged on the way");
                return;
        }
        buffer->size = stream->frame.length;
        buffer->done = 0;
        buffer->parts = 0;
        buffer->use = BUFFER_FULL;
        stream->offset += stream->frame.length;
        stream->n_header = 0;
        stream->head++;
}

/* What came before a mark is in the device: the source is told so before anything else is read. Returns whether there
 * is nothing to wait for. */
static bool answer_mark(Stream *stream)
{
        static const uint8_t ack = FRAME_ACK;

        if (!stream->ack_owed)
                return true;
        if (stream->tail != stream->head || stream->transfers > 0)
                return false;
        if (send(stream->fd, &ack, 1, MSG_NOSIGNAL | MSG_DONTWAIT) != 1) {
                stream_end(stream, -EPROTO, "the source does not take its mark's answer");
                return false;
        }
        stream->ack_owed = false;
        return true;
}

/* Reads what there is, as far as there are buffers. */
static void read_frames(Stream *stream)
{
        while (stream->status == 0 && !stream->at_end) {
                Buffer *buffer = &stream->buffers[stream->head % STREAM_BUFFERS];

                if (!answer_mark(stream))
                        return;
                if (buffer->use == BUFFER_FULL) {
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
                write_to_device(stream);
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
        return stream_new(base, device, fd, pump_in, on_end, userdata, ret);
}
