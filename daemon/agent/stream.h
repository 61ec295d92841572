/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A device's state on its way: from the device to the data connection (out), or from the data connection to the device
 * (in), in frames (daemon/peer/frame.h).
 *
 * The agent's program owns a stream while one runs. Several transfers are under way at once, so that device, agent and
 * connection work at the same time; the buffers are bounded and exist only as long as the stream. `on_end` is called
 * once, from the loop; after it, or after stream_free(), the device's buffers are no longer touched.
 */

#include <event2/event.h>

#include "vfio-user-device.h"

typedef struct Stream Stream;

/* `status`: 0 when the end frame was sent, or accepted and everything written; else what went wrong, and `text` for
 * people. */
typedef void (*StreamEnd)(void *userdata, int status, const char *text);

/* `fd`, the data connection, stays the caller's and must outlive the stream. -ENOMEM. */
int stream_out_new(struct event_base *base, VfioUserDevice *device, int fd, StreamEnd on_end, void *userdata,
                   Stream **ret) _must_check_;
int stream_in_new(struct event_base *base, VfioUserDevice *device, int fd, StreamEnd on_end, void *userdata,
                  Stream **ret) _must_check_;
Stream *stream_free(Stream *stream);

/* Payload bytes that have been sent, or written to the device. */
uint64_t stream_bytes(const Stream *stream);
