/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Data frames: how the state of one device travels over its data connection, from agent to agent.
 *
 * 24 bytes of header, little-endian, then the payload. A stream is data frames in order of their offsets and one end
 * frame whose offset is the number of bytes sent. A mark may stand between data frames: when the device has taken what
 * came before it, the receiver says so with the one byte FRAME_ACK. After a stream, pages of the VM's memory may follow,
 * and an end frame whose offset is their number of bytes.
 *
 * On one host payloads need not go through the connection: once, between data frames, the sender may offer a memory file of
 * FRAME_SLOTS slots. If the receiver takes it, slot frames say from then on in which of them the next bytes of the stream
 * lie; the receiver returns each slot when the device has taken these. docs/wire.md.
 *
 *   offset size
 *        0    4  magic "MGD1"
 *        4    2  type: data 1, end 2, error 3, mark 4, pages 5, memory 6, slot 7
 *        6    2  reserved, 0
 *        8    8  offset of the payload in the stream; of pages, the address at which the device sees them
 *       16    4  length of the payload, at most 1 MiB; 0 for end, error, mark and memory
 *       20    4  CRC-32C of the payload, 0 for an empty one; slot: its number
 */

#include "common/macros.h"

#define FRAME_HEADER_SIZE 24
#define FRAME_PAYLOAD_MAX (1024 * 1024)
#define FRAME_SLOTS       4
#define FRAME_SLOT_SIZE   FRAME_PAYLOAD_MAX

/* What the receiver says, one byte each. */
enum {
        FRAME_MEMORY_TAKEN = 0x01,
        FRAME_MEMORY_REFUSED = 0x02,
        FRAME_ACK = 0x06,
        FRAME_RETURN = 0x10, /* and the slot's number */
};

typedef enum FrameType {
        FRAME_DATA = 1,
        FRAME_END = 2,
        FRAME_ERROR = 3, /* the sender gives up */
        FRAME_MARK = 4,
        FRAME_PAGES = 5,
        FRAME_MEMORY = 6,
        FRAME_SLOT = 7,
} FrameType;

typedef struct Frame {
        FrameType type;
        uint64_t offset;
        uint32_t length;
        uint32_t crc;
        uint32_t slot;
} Frame;

void frame_encode(const Frame *frame, uint8_t ret[FRAME_HEADER_SIZE]);

/* -EBADMSG: wrong magic, type or reserved bits, a payload where none may be, none where one must be, or one that is too
 * long, or a slot that does not exist. */
int frame_decode(const uint8_t header[FRAME_HEADER_SIZE], Frame *ret) _must_check_;
