/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "common/socket.h"
#include "stream-internal.h"

/* Two frames: the other agent takes one while the next is being read. More falls out of the processor's cache when many
 * devices stream at a time. */
#define SEND_BUFFER (2 * STREAM_CHUNK_MAX)

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
        StreamEnd on_end = stream->on_end;

        if (stream->status == 0 && !(stream->precopy.under_way && stream->precopy.converged && on_end)) {
                stream->pump(stream);
                return;
        }
        stream->on_end = NULL;
        if (on_end)
                on_end(stream->userdata, MIN(stream->status, 0), stream->text);
}

void stream_end(Stream *stream, int status, const char *text)
{
        if (stream->status != 0)
                return;
        stream->status = status < 0 ? status : 1;
        stream->text = text;
        (void) event_del(stream->readable);
        (void) event_del(stream->writable);
        if (stream->precopy.tick)
                (void) event_del(stream->precopy.tick);
        event_active(stream->kick, EV_TIMEOUT, 0);
}

Stream *stream_free(Stream *stream)
{
        struct event *events[] = {stream ? stream->readable : NULL, stream ? stream->writable : NULL,
                                  stream ? stream->kick : NULL, stream ? stream->precopy.tick : NULL};

        if (!stream)
                return NULL;
        if (stream->transfers > 0)
                agent_device_abandon_transfers(stream->device);
        for (size_t i = 0; i < ARRAY_SIZE(events); i++)
                if (events[i])
                        event_free(events[i]);
        if (!agent_device_keeps(stream->device, stream->slots, SLOTS_SIZE))
                slots_free(stream->slots);
        if (stream->slots_fd >= 0)
                (void) close(stream->slots_fd);
        free(stream);
        return NULL;
}

DEFINE_CLEANUP(Stream *, stream_free);

uint64_t stream_bytes(const Stream *stream)
{
        return stream->bytes;
}

int stream_new(struct event_base *base, AgentDevice *device, int fd, void (*pump)(Stream *), StreamEnd on_end,
               void *userdata, Stream **ret)
{
        _cleanup_(stream_freep) Stream *stream = calloc(1, sizeof *stream);
        uint8_t *slots;

        if (!stream)
                return -ENOMEM;
        stream->slots_fd = -1;
        stream->device = device;
        stream->fd = fd;
        stream->chunk = STREAM_CHUNK_FIRST;
        stream->pump = pump;
        stream->text = "";
        stream->on_end = on_end;
        stream->userdata = userdata;
        stream->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_event, stream);
        stream->writable = event_new(base, fd, EV_WRITE, on_event, stream);
        stream->kick = event_new(base, -1, 0, on_kick, stream);
        if (!stream->readable || !stream->writable || !stream->kick)
                return -ENOMEM;
        for (size_t i = 0; i < STREAM_BUFFERS; i++)
                stream->buffers[i].stream = stream;
        if (slots_new(&slots) < 0)
                return -ENOMEM;
        stream_set_slots(stream, slots);
        (void) socket_grow_send_buffer(fd, SEND_BUFFER);
        if (evutil_make_socket_nonblocking(fd) < 0 || event_add(stream->readable, NULL) < 0)
                return -ENOMEM;
        event_active(stream->kick, EV_TIMEOUT, 0);
        *ret = TAKE_PTR(stream);
        return 0;
}

void stream_set_slots(Stream *stream, uint8_t *slots)
{
        slots_free(stream->slots);
        stream->slots = slots;
        for (size_t i = 0; i < STREAM_BUFFERS; i++)
                stream->buffers[i].payload = slots + i * FRAME_SLOT_SIZE;
}
