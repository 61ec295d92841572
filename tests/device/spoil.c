/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "spoil.h"

/* The same garbage each time: a client that trips over it does so again tomorrow. */
static void fill_with_garbage(uint8_t *message, size_t size)
{
        uint32_t x = 0x2545f491;

        for (size_t i = 0; i < size; i++) {
                x = x * 1664525 + 1013904223;
                message[i] = (uint8_t) (x >> 24);
        }
}

static size_t make_error(VfioUserHeader *h, uint32_t error)
{
        h->flags = VFIO_USER_TYPE_REPLY | VFIO_USER_ERROR;
        h->error = error;
        h->size = sizeof *h;
        return h->size;
}

size_t spoil_reply(FaultKind kind, uint8_t *message, size_t size)
{
        VfioUserHeader h;

        memcpy(&h, message, sizeof h);
        if (kind == FAULT_SHORT) {
                size = sizeof h + (size - sizeof h) / 2;
                h.size = (uint32_t) size;
        } else if (kind == FAULT_BAD_ID) {
                h.id ^= 0x5555;
        } else if (kind == FAULT_BAD_COMMAND) {
                h.command ^= 0x40;
        } else if (kind == FAULT_BAD_TYPE) {
                h.flags = (h.flags & ~(uint32_t) VFIO_USER_TYPE_MASK) | VFIO_USER_TYPE_COMMAND;
        } else if (kind == FAULT_BAD_SIZE_BIG) {
                h.size = 1 << 30;
        } else if (kind == FAULT_BAD_SIZE_SMALL) {
                h.size = 8;
        } else if (kind == FAULT_ERROR_ZERO) {
                size = make_error(&h, 0);
        } else if (kind == FAULT_ERROR_HUGE) {
                size = make_error(&h, 99999);
        }
        memcpy(message, &h, sizeof h);
        if (kind == FAULT_GARBAGE)
                fill_with_garbage(message, size);
        return kind == FAULT_TRUNCATED ? size / 2 : size;
}
