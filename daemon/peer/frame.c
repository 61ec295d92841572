/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "frame.h"

#include <endian.h>

static const uint8_t magic[4] = {'M', 'G', 'D', '1'};

void frame_encode(const Frame *frame, uint8_t ret[FRAME_HEADER_SIZE])
{
        uint16_t type = htole16((uint16_t) frame->type), reserved = 0;
        uint64_t offset = htole64(frame->offset);
        uint32_t length = htole32(frame->length);
        uint32_t last = htole32(frame->type == FRAME_SLOT ? frame->slot : frame->crc);

        memcpy(ret, magic, 4);
        memcpy(ret + 4, &type, 2);
        memcpy(ret + 6, &reserved, 2);
        memcpy(ret + 8, &offset, 8);
        memcpy(ret + 16, &length, 4);
        memcpy(ret + 20, &last, 4);
}

int frame_decode(const uint8_t header[FRAME_HEADER_SIZE], Frame *ret)
{
        uint16_t type, reserved;
        uint64_t offset;
        uint32_t length, last;

        memcpy(&type, header + 4, 2);
        memcpy(&reserved, header + 6, 2);
        memcpy(&offset, header + 8, 8);
        memcpy(&length, header + 16, 4);
        memcpy(&last, header + 20, 4);
        type = le16toh(type);
        length = le32toh(length);
        last = le32toh(last);

        if (memcmp(header, magic, 4) != 0 || reserved != 0)
                return -EBADMSG;
        switch (type) {
        case FRAME_DATA:
        case FRAME_PAGES:
                if (length == 0 || length > FRAME_PAYLOAD_MAX)
                        return -EBADMSG;
                break;
        case FRAME_SLOT:
                if (length == 0 || length > FRAME_SLOT_SIZE || last >= FRAME_SLOTS)
                        return -EBADMSG;
                break;
        case FRAME_END:
        case FRAME_ERROR:
        case FRAME_MARK:
        case FRAME_MEMORY:
                if (length != 0 || last != 0)
                        return -EBADMSG;
                break;
        default: return -EBADMSG;
        }
        *ret = (Frame){.type = type, .offset = le64toh(offset), .length = length};
        *(type == FRAME_SLOT ? &ret->slot : &ret->crc) = last;
        return 0;
}
