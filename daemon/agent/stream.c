/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "stream.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include "common/crc32c.h"
#include "common/socket.h"
#include "daemon/peer/frame.h"

/* Larger pieces save no more time, and a device server need not take more than 64 KiB in one. */
#define CHUNK_MAX (256 * 1024)
/* A reply is as long as was asked for, however little state there is: a small state must not pay for a large one. */
#define CHUNK_FIRST (16 * 1024)
#define BUFFERS     DEVICE_TRANSFERS_MAX
/* Two frames: the other agent takes one while the next is being read. More falls out of the processor's cache when many
 * devices stream at a time. */
#define SEND_BUFFER (2 * CHUNK_MAX)

typedef enum BufferUse {
        BUFFER_FREE,
        BUFFER_FILLING, /* out: being read from the device; in: being read from the connection */
        BUFFER_FULL,    /* out: waits to be sent; in: waits to be written, or is */
} BufferUse;

typedef struct Buffer {
        Stream *stream;
        BufferUse use;
        uint8_t *payload;
        size_t room, size;
        size_t done;    /* bytes of it that are sent, or handed to the device */
        uint32_t parts; /* in: writes that are not answered */
        uint8_t header[FRAME_HEADER_SIZE];
} Buffer;

struct Stream {
        VfioUserDevice *device;
        int fd;
        struct event *readable, *writable, *kick;
        Buffer buffers[BUFFERS];
        uint32_t head, tail; /* ring: filled at head, emptied at tail */
        uint32_t transfers;  /* open at the device */
        size_t chunk;        /* out: how much is asked for next */
        uint64_t offset;     /* of the next frame */
        uint64_t bytes;
        bool at_end;     /* out: the device has no more; in: the end frame is in */
        bool end_queued; /* out: the end frame is being sent */
        size_t n_header; /* in: bytes of the next header that are in; out: of the end frame that are out */
        uint8_t header[FRAME_HEADER_SIZE];
        Frame frame; /* in: whose payload is being read */
        int status;
        const char *text;
        StreamEnd on_end;
        void *userdata;
        void (*pump)(Stream *stream);
};

static void on_event(evutil_socket_t fd, short what, void *userdata)
{
        Stream *stream = userdata;

        if (stream->status == 0)
                stream->pump(stream);
}

/* The end is told from the loop: whoever is told may free the stream. */
static void on_kick(evutil_socket_t fd, short what, void *userdata)
{
        Stream *stream = userdata;

        if (stream->status == 1)
                stream->on_end(stream->userdata, 0, "");
        else if (stream->status < 0)
                stream->on_end(stream->userdata, stream->status, stream->text);
        else
                stream->pump(stream);
}

static void finish(Stream *stream, int status, const char *text)
{
        if (stream->status != 0)
                return;
        stream->status = status < 0 ? status : 1;
        stream->text = text;
        (void) event_del(stream->readable);
        (void) event_del(stream->writable);
        event_active(stream->kick, EV_TIMEOUT, 0);
}

Stream *stream_free(Stream *stream)
{
        if (!stream)
                return NULL;
        if (stream->transfers > 0)
                vfio_user_device_abandon(stream->device);
        if (stream->readable)
                event_free(stream->readable);
        if (stream->writable)
                event_free(stream->writable);
        if (stream->kick)
                event_free(stream->kick);
        for (size_t i = 0; i < BUFFERS; i++)
                free(stream->buffers[i].payload);
        free(stream);
        return NULL;
}

DEFINE_CLEANUP(Stream *, stream_free);

uint64_t stream_bytes(const Stream *stream)
{
        return stream->bytes;
}

static int stream_new(struct event_base *base, VfioUserDevice *device, int fd, void (*pump)(Stream *),
                      StreamEnd on_end, void *userdata, Stream **ret)
{
        _cleanup_(stream_freep) Stream *stream = calloc(1, sizeof *stream);

        if (!stream)
                return -ENOMEM;
        stream->device = device;
        stream->fd = fd;
        stream->chunk = CHUNK_FIRST;
        stream->pump = pump;
        stream->on_end = on_end;
        stream->userdata = userdata;
        stream->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_event, stream);
        stream->writable = event_new(base, fd, EV_WRITE, on_event, stream);
        stream->kick = event_new(base, -1, 0, on_kick, stream);
        if (!stream->readable || !stream->writable || !stream->kick)
                return -ENOMEM;
        for (size_t i = 0; i < BUFFERS; i++)
                stream->buffers[i].stream = stream;
        (void) socket_grow_send_buffer(fd, SEND_BUFFER);
        if (evutil_make_socket_nonblocking(fd) < 0 || event_add(stream->readable, NULL) < 0)
                return -ENOMEM;
        event_active(stream->kick, EV_TIMEOUT, 0);
        *ret = TAKE_PTR(stream);
        return 0;
}

static bool buffer_make_room(Buffer *buffer, size_t size)
{
        if (buffer->room < size) {
                free(buffer->payload);
                buffer->room = 0;
                buffer->payload = malloc(size);
                if (!buffer->payload)
                        return false;
                buffer->room = size;
        }
        return true;
}

/* ---- out ----------------------------------------------------------------------------------------------------- */

static void on_device_read(void *userdata, int status, size_t size)
{
        Buffer *buffer = userdata;
        Stream *stream = buffer->stream;

        stream->transfers--;
        if (stream->status != 0)
                return;
        if (status < 0) {
                finish(stream, status, "the device refused to give its state");
                return;
        }
        if (size > 0 && stream->at_end) {
                finish(stream, -EPROTO, "the device gave more state after its end");
                return;
        }
        buffer->size = size;
        buffer->done = 0;
        buffer->use = BUFFER_FULL;
        if (size == 0)
                stream->at_end = true;
        stream->pump(stream);
}

static void fill_from_device(Stream *stream)
{
        size_t most = MIN(vfio_user_device_facts(stream->device)->transfer_max, (size_t) CHUNK_MAX);

        while (!stream->at_end && stream->status == 0) {
                Buffer *buffer = &stream->buffers[stream->head % BUFFERS];
                size_t chunk = MIN(stream->chunk, most);
                int r;

                if (buffer->use != BUFFER_FREE)
                        return;
                if (!buffer_make_room(buffer, chunk)) {
                        finish(stream, -ENOMEM, "out of memory");
                        return;
                }
                r = vfio_user_device_read(stream->device, buffer->payload, chunk, on_device_read, buffer);
                if (r < 0) {
                        finish(stream, r, "the device cannot be asked for its state");
                        return;
                }
                buffer->use = BUFFER_FILLING;
                stream->chunk = MIN(2 * chunk, most);
                stream->transfers++;
                stream->head++;
        }
}

/* Sends what is left of header and payload. Returns 1 when all is out, 0 when the connection is full. */
static int send_piece(Stream *stream, const uint8_t *header, const uint8_t *payload, size_t size,
                      size_t *done)
{
        size_t in_header = *done < FRAME_HEADER_SIZE ? FRAME_HEADER_SIZE - *done : 0;
        size_t in_payload = *done > FRAME_HEADER_SIZE ? *done - FRAME_HEADER_SIZE : 0;
        struct iovec iov[2] = {
                {(void *) (header + FRAME_HEADER_SIZE - in_header), in_header},
                {size > 0 ? (void *) (payload + in_payload) : NULL, size - in_payload},
        };
        struct msghdr msg = {.msg_iov = iov, .msg_iovlen = size > 0 ? 2 : 1};
        ssize_t n = sendmsg(stream->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
                (void) event_add(stream->writable, NULL);
                return 0;
        }
        if (n < 0) {
                finish(stream, -errno, "the data connection broke");
                return 0;
        }
        *done += (size_t) n;
        return *done == FRAME_HEADER_SIZE + size;
}

static bool send_buffers(Stream *stream)
{
        while (stream->tail != stream->head) {
                Buffer *buffer = &stream->buffers[stream->tail % BUFFERS];
                int r;

                if (buffer->use != BUFFER_FULL)
                        return false;
                if (buffer->size > 0) {
                        if (buffer->done == 0)
                                frame_encode(&(Frame){FRAME_DATA, stream->offset, (uint32_t) buffer->size,
                                                      crc32c(buffer->payload, buffer->size)},
                                             buffer->header);
                        do
                                r = send_piece(stream, buffer->header, buffer->payload, buffer->size,
                                               &buffer->done);
                        while (r == 0 && stream->status == 0 &&
                               !event_pending(stream->writable, EV_WRITE, NULL));
                        if (r == 0)
                                return false;
                        stream->offset += buffer->size;
                        stream->bytes = stream->offset;
                }
                buffer->use = BUFFER_FREE;
                stream->tail++;
        }
        return stream->at_end && stream->transfers == 0;
}

/* The other agent has nothing to say: what comes is the end of its side, or nonsense. */
static bool peer_is_there(Stream *stream)
{
        uint8_t byte;
        ssize_t n = recv(stream->fd, &byte, 1, MSG_DONTWAIT);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return true;
        finish(stream, n > 0 ? -EPROTO : -ECONNRESET,
               n > 0 ? "the other side talks on the data connection"
                     : "the other side closed the data connection");
        return false;
}

static void pump_out(Stream *stream)
{
        if (!peer_is_there(stream))
                return;
        fill_from_device(stream);
        if (stream->status != 0 || !send_buffers(stream)) {
                if (stream->status == 0)
                        fill_from_device(stream); /* sending has made room */
                return;
        }
        if (!stream->end_queued) {
                frame_encode(&(Frame){FRAME_END, stream->offset, 0, 0}, stream->header);
                stream->end_queued = true;
        }
        if (send_piece(stream, stream->header, NULL, 0, &stream->n_header) == 1)
                finish(stream, 0, "");
}

int stream_out_new(struct event_base *base, VfioUserDevice *device, int fd, StreamEnd on_end, void *userdata,
                   Stream **ret)
{
        return stream_new(base, device, fd, pump_out, on_end, userdata, ret);
}

/* ---- in ------------------------------------------------------------------------------------------------------ */

static void on_device_written(void *userdata, int status)
{
        Buffer *buffer = userdata;
        Stream *stream = buffer->stream;

        stream->transfers--;
        if (stream->status != 0)
                return;
        if (status < 0) {
                /* Whatever RESUMING -> STOP says later: a real driver took bad data in after refusing the write. */
                finish(stream, status, "the device refused to take its state");
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
        size_t chunk = vfio_user_device_facts(stream->device)->transfer_max;

        while (stream->tail != stream->head && stream->transfers < DEVICE_TRANSFERS_MAX) {
                Buffer *buffer = &stream->buffers[stream->tail % BUFFERS];
                size_t size = MIN(buffer->size - buffer->done, chunk);
                int r;

                if (buffer->use != BUFFER_FULL)
                        return;
                r = vfio_user_device_write(stream->device, buffer->payload + buffer->done, size,
                                           on_device_written, buffer);
                if (r < 0) {
                        finish(stream, r, "the device cannot be given its state");
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
                finish(stream, n < 0 ? -errno : -ECONNRESET,
                       "the data connection ended before the end frame");
                return 0;
        }
        *done += (size_t) n;
        return *done == size;
}

static void take_header(Stream *stream)
{
        Frame *frame = &stream->frame;
        Buffer *buffer = &stream->buffers[stream->head % BUFFERS];

        if (frame_decode(stream->header, frame) < 0 || frame->offset != stream->offset) {
                finish(stream, -EBADMSG, "the other side sent a frame that makes no sense");
                return;
        }
        if (frame->type == FRAME_ERROR) {
                finish(stream, -ECANCELED, "the other side gave up");
                return;
        }
        if (frame->type == FRAME_END) {
                stream->at_end = true;
                return;
        }
        if (!buffer_make_room(buffer, frame->length)) {
                finish(stream, -ENOMEM, "out of memory");
                return;
        }
        buffer->use = BUFFER_FILLING;
        buffer->size = buffer->done = 0;
}

static void take_payload(Stream *stream, Buffer *buffer)
{
        if (crc32c(buffer->payload, stream->frame.length) != stream->frame.crc) {
                finish(stream, -EBADMSG, "a frame's checksum is wrong: the state was damaged on the way");
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

/* Reads what there is, as far as there are buffers. */
static void read_frames(Stream *stream)
{
        while (stream->status == 0 && !stream->at_end) {
                Buffer *buffer = &stream->buffers[stream->head % BUFFERS];

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
                finish(stream, 0, "");
}

int stream_in_new(struct event_base *base, VfioUserDevice *device, int fd, StreamEnd on_end, void *userdata,
                  Stream **ret)
{
        return stream_new(base, device, fd, pump_in, on_end, userdata, ret);
}
