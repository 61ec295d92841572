/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The inside of a stream, shared by its files: stream.c (life and end), stream-out.c, stream-in.c. Nobody else includes
 * this. */

#include "daemon/core/device-program.h"
#include "daemon/peer/frame.h"
#include "slots.h"
#include "stream.h"

/* Larger pieces save no more time, and a device server need not take more than 64 KiB in one. */
#define STREAM_CHUNK_MAX (256 * 1024)
/* A small state must not pay for a large one: neither for large buffers, */
#define STREAM_CHUNK_FIRST (16 * 1024)
/* ... nor for memory that is shared. */
#define STREAM_SHARED_FROM (512 * 1024)
/* The device works on two; two others are on their way. */
#define STREAM_BUFFERS FRAME_SLOTS

typedef enum BufferUse {
        BUFFER_FREE,
        BUFFER_FILLING, /* out: being read from the device; in: being read from the connection */
        BUFFER_FULL,    /* out: waits to be sent; in: waits to be written, or is */
        BUFFER_LENT,    /* out: the other agent reads it */
} BufferUse;

typedef struct Buffer {
        Stream *stream;
        BufferUse use;
        uint8_t *
                payload; /* a slot; in, where the memory is the other agent's, any slot, and only to be read */
        size_t size;
        size_t asked;   /* out: of the device */
        size_t done;    /* bytes of it that are sent, or handed to the device */
        uint32_t parts; /* in: writes that are not answered */
        bool last;      /* out: was asked for in STOP_COPY, where nothing means the end */
        uint8_t header[FRAME_HEADER_SIZE];
} Buffer;

#define STREAM_TEXT_MAX 128

/* Out: what is only there while the device runs. */
typedef struct Precopy {
        TransferLimits limits;
        struct event *tick;
        bool under_way;                      /* until stream_finish() */
        bool mark_wanted, mark_sent, marked; /* marked: the destination has taken what there was at first */
        bool empty;                          /* what was asked for last was nothing */
        bool slow;                           /* in the last window little came */
        bool held_back;                      /* ... but by us, for its bandwidth's sake */
        bool converged;
        bool held;
        uint64_t start_usec, tick_usec, window_usec; /* CLOCK_MONOTONIC */
        uint64_t window_bytes;
        int64_t tokens; /* bytes that may go out now */
} Precopy;

/* The memory of our buffers, and how far the two agents are with sharing it. */
typedef enum Memory {
        MEMORY_OWN,     /* payloads go over the connection */
        MEMORY_OFFERED, /* out: its frame is on the way, or not answered; nothing else goes before that */
        MEMORY_SHARED,
} Memory;

struct Stream {
        AgentDevice *device;
        int fd;
        Memory memory;
        bool may_share; /* no memory has been offered, and, out, the other agent may be on this host */
        uint8_t *slots;
        int slots_fd; /* out: while offered; in: a file that came with a header, or -1 */
        struct event *readable, *writable, *kick;
        Buffer buffers[STREAM_BUFFERS];
        uint32_t head, tail; /* ring: filled at head, emptied at tail */
        uint32_t transfers;  /* open at the device */
        size_t chunk;        /* out: how much is asked for next */
        uint64_t offset;     /* of the next frame */
        uint64_t bytes;
        uint64_t given_bytes, most_bytes; /* out: by the device; and how many it may give, 0: any */
        char bound_text[STREAM_TEXT_MAX];
        bool at_end;     /* out: the device has no more; in: the end frame is in */
        bool in_control; /* out: a frame without payload is being sent */
        bool end_sent;
        bool marked;     /* in: the mark has come */
        FrameType owed;  /* in: what came, a mark or memory, is not answered; or 0 */
        size_t n_header; /* in: bytes of the next header that are in; out: of the control frame that are out */
        uint8_t header[FRAME_HEADER_SIZE];
        Frame frame; /* in: whose payload is being read */
        Precopy precopy;
        int status; /* 0: it goes on; 1: it has ended well; or the negative errno */
        const char *text;
        StreamEnd on_end; /* NULL: told already, or there is nobody to be told now */
        void *userdata;
        void (*pump)(Stream *stream);
};

int stream_new(struct event_base *base, AgentDevice *device, int fd, void (*pump)(Stream *), StreamEnd on_end,
               void *userdata, Stream **ret) _must_check_;

/* The end, told from the loop. `text` must be a literal. */
void stream_end(Stream *stream, int status, const char *text);

/* Our buffers are in these from now on, which become the stream's. */
void stream_set_slots(Stream *stream, uint8_t *slots);
