/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Data frames: how the state of one device travels over its data connection, from agent to agent.
 *
 * 24 bytes of header, little-endian, then the payload. A stream is data frames in order of their offsets and one end
 * frame whose offset is the number of bytes sent. A mark may stand between data frames: when the device has taken what
 * came before it, the receiver says so with the one byte FRAME_ACK. After a stream, pages of the VM's memory may follow,
 * and an end frame whose offset is their number of bytes. docs/wire.md.
 *
 *   offset size
 *        0    4  magic "MGD1"
 *        4    2  type: data 1, end 2, error 3, mark 4, pages 5
 *        6    2  reserved, 0
 *        8    8  offset of the payload in the stream; of pages, the address at which the device sees them
 *       16    4  length of the payload, at most 1 MiB; 0 for end, error and mark
 *       20    4  CRC-32C of the payload, 0 for an empty one
 */

#include "common/macros.h"

#define FRAME_HEADER_SIZE 24
#define FRAME_PAYLOAD_MAX (1024 * 1024)
#define FRAME_ACK         0x06

typedef enum FrameType {
        FRAME_DATA = 1,
        FRAME_END = 2,
        FRAME_ERROR = 3, /* the sender gives up */
        FRAME_MARK = 4,
        FRAME_PAGES = 5,
} FrameType;

typedef struct Frame {
        FrameType type;
        uint64_t offset;
        uint32_t length;
        uint32_t crc;
} Frame;

void frame_encode(const Frame *frame, uint8_t ret[FRAME_HEADER_SIZE]);

/* -EBADMSG: wrong magic, type or reserved bits, a data frame without payload or one that is too long, an end or error
 * frame with payload. */
int frame_decode(const uint8_t header[FRAME_HEADER_SIZE], Frame *ret) _must_check_;
