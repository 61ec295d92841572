/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A device's state on its way: from the device to the data connection (out), or from the data connection to the device
 * (in), in frames (daemon/peer/frame.h). On one host much of it goes through memory that both agents map (slots.h).
 *
 * Several transfers are under way at once, so that device, agent and connection work at the same time; the buffers are
 * bounded and exist only as long as the stream. The end is told once, from the loop; the owner frees the stream then or
 * later. The data connection stays the owner's.
 *
 * A stream that begins with pre-copy is one with the stop-copy after it, as in the uAPI: it tells first that little is
 * left to send, goes on sending what the device changes, and is told to finish when the device is in STOP_COPY.
 */

#include <event2/event.h>

#include "agent-device.h"
#include "daemon/core/transfer-limits.h"

typedef struct Stream Stream;

/* `status`: 0, or a negative errno with what went wrong in `text`. */
typedef void (*StreamEnd)(void *userdata, int status, const char *text);

/* Everything that the device has, to its end: it is in STOP_COPY. -ENOMEM. */
int stream_out_new(struct event_base *base, AgentDevice *device, int fd, StreamEnd on_end, void *userdata,
                   Stream **ret) _must_check_;

/* What the device gives in PRE_COPY. `on_converged` is told when the destination has taken what there was at first and
 * little is left, or a limit is reached. -ENOMEM. */
int stream_precopy_new(struct event_base *base, AgentDevice *device, int fd, const TransferLimits *limits,
                       StreamEnd on_converged, void *userdata, Stream **ret) _must_check_;

/* It fails with -EFBIG when the device has given more than so many bytes; 0: however much it gives. */
void stream_bound(Stream *stream, uint64_t bytes);

/* A stream that has converged asks the device for nothing more, for now: what else the device is asked must not wait behind
 * that. */
void stream_hold(Stream *stream, bool hold);

/* The rest of a stream that has converged. What went wrong with it since is told now. */
void stream_finish(Stream *stream, StreamEnd on_end, void *userdata);

/* Everything that comes, up to the end frame, into the device: it is in RESUMING. -ENOMEM. */
int stream_in_new(struct event_base *base, AgentDevice *device, int fd, StreamEnd on_end, void *userdata,
                  Stream **ret) _must_check_;

/* What is under way is abandoned. NULL is fine. */
Stream *stream_free(Stream *stream);

/* Bytes of state that have passed. */
uint64_t stream_bytes(const Stream *stream);
