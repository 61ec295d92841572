/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ask.h"

int ask_init(Ask *a)
{
        a->message = malloc(sizeof *a->message);
        return a->message ? 0 : -ENOMEM;
}

void ask_done(Ask *a)
{
        free(TAKE_PTR(a->message));
}

void ask_queue(Ask *a, bool write, uint64_t address, const uint8_t *data, size_t n)
{
        AskMessage *m = a->message;

        m->access = (VfioUserDmaAccess){.address = address, .count = n};
        m->header =
                (VfioUserHeader){.id = ++a->last_id,
                                 .command = write ? VFIO_USER_DMA_WRITE : VFIO_USER_DMA_READ,
                                 .size = (uint32_t) (sizeof m->header + sizeof m->access + (write ? n : 0))};
        if (write)
                memcpy(m->data, data, n);
        a->phase = ASK_QUEUED;
}

/* Of a write there are three in use: what libvfio-user wants repeats the request, the specification's table has a count of
 * four bytes, and QEMU sends nothing at all. */
static bool is_done_write(const Ask *a, const Connection *c)
{
        size_t size = connection_payload_received(c);

        if (size == sizeof(VfioUserDmaAccess))
                return memcmp(c->payload, &a->message->access, sizeof(VfioUserDmaAccess)) == 0;
        return size == 0 || size == sizeof(uint64_t) + sizeof(uint32_t);
}

static bool is_done_read(const Ask *a, const Connection *c)
{
        const VfioUserDmaAccess *access = &a->message->access;

        return connection_payload_received(c) == sizeof *access + access->count &&
               memcmp(c->payload, access, sizeof *access) == 0;
}

int ask_check(const Ask *a, const Connection *c, const uint8_t **ret_data, size_t *ret_n)
{
        const VfioUserHeader *h = &c->header, *asked = &a->message->header;
        bool write = asked->command == VFIO_USER_DMA_WRITE;

        if (a->phase != ASK_SENT || (h->flags & VFIO_USER_TYPE_MASK) != VFIO_USER_TYPE_REPLY ||
            h->id != asked->id || h->command != asked->command)
                return -EPROTO;
        if (h->flags & VFIO_USER_ERROR)
                return -EIO;
        if (!(write ? is_done_write(a, c) : is_done_read(a, c)))
                return -EPROTO;
        *ret_data = c->payload + sizeof a->message->access;
        *ret_n = write ? 0 : (size_t) a->message->access.count;
        return 0;
}
