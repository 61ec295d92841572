/* SPDX-License-Identifier: LGPL-2.1-or-later */
#define _GNU_SOURCE 1 /* F_DUPFD_CLOEXEC */
#include "set-up.h"

#include <fcntl.h>

#include "logging.h"
#include "region.h"

/* ---- memory -------------------------------------------------------------------------------------------------- */

int set_up_map(Client *client)
{
        int fd = client->main.n_fds > 0 ? client->main.fds[0] : -1;
        VfioUserDmaMap m;

        memcpy(&m, client->main.payload, sizeof m);
        if (m.argsz < sizeof m || client->main.n_fds > 1)
                return -EINVAL;
        if (!client_reply(client, 0))
                return -ENOMEM;
        return dma_map(&client->device->dma, m.address, m.size, m.offset, m.flags, fd);
}

static int unmap_all(Client *client, const VfioUserDmaUnmap *u)
{
        if (u->address != 0 || u->size != 0)
                return -EINVAL;
        dma_unmap_all(&client->device->dma);
        return 0;
}

/* The log of the map goes with it, and so comes in the reply: a bitmap and its header behind the request's fixed part. */
static int reply_with_bitmap(Client *client, const VfioUserDmaUnmap *u)
{
        VfioUserDmaUnmap head = *u;
        VfioUserDmaBitmap b;
        uint64_t size;
        uint8_t *reply;
        int r;

        if (client_payload_size(client) < sizeof head + sizeof b)
                return -EINVAL;
        memcpy(&b, client->main.payload + sizeof head, sizeof b);
        r = dma_log_check(&client->device->dma, u->address, u->size, b.page_size);
        if (r < 0)
                return r;
        size = dma_bitmap_size(u->size, b.page_size);
        if (b.size < size || size > LOGGING_BITMAP_MAX || u->argsz < sizeof head + sizeof b + size)
                return -EINVAL;
        reply = client_reply(client, (size_t) (sizeof head + sizeof b + size));
        if (!reply)
                return -ENOMEM;
        b.size = size;
        head.argsz = (uint32_t) (sizeof head + sizeof b + size);
        memcpy(reply, &head, sizeof head);
        memcpy(reply + sizeof head, &b, sizeof b);
        dma_log_take(&client->device->dma, u->address, u->size, reply + sizeof head + sizeof b);
        return 0;
}

static int reply_plainly(Client *client, const VfioUserDmaUnmap *u)
{
        VfioUserDmaUnmap head = *u;
        uint8_t *reply = client_reply(client, sizeof head);

        if (!reply)
                return -ENOMEM;
        head.argsz = sizeof head;
        memcpy(reply, &head, sizeof head);
        return 0;
}

int set_up_unmap(Client *client)
{
        VfioUserDmaUnmap u;
        DmaMap *map;
        int r;

        memcpy(&u, client->main.payload, sizeof u);
        if (u.argsz < sizeof u || u.flags == (VFIO_USER_UNMAP_DIRTY | VFIO_USER_UNMAP_ALL) ||
            (u.flags & ~(uint32_t) (VFIO_USER_UNMAP_DIRTY | VFIO_USER_UNMAP_ALL)) != 0)
                return -EINVAL;
        if (u.flags == VFIO_USER_UNMAP_ALL) {
                r = reply_plainly(client, &u);
                return r < 0 ? r : unmap_all(client, &u);
        }
        map = dma_find_exactly(&client->device->dma, u.address, u.size);
        if (!map)
                return -ENOENT;
        r = u.flags == VFIO_USER_UNMAP_DIRTY ? reply_with_bitmap(client, &u) : reply_plainly(client, &u);
        if (r == 0)
                dma_unmap(&client->device->dma, map);
        return r;
}

/* ---- regions ------------------------------------------------------------------------------------------------- */

/* As libvfio-user: who has no room for the capability gets none, nor the file, but hears how much it needs. */
static int reply_with_file(Client *client, VfioUserRegionInfo info)
{
        VfioUserRegionSparse sparse = {.id = VFIO_USER_REGION_CAP_SPARSE,
                                       .version = 1,
                                       .nr_areas = 1,
                                       .offset = 0,
                                       .size = info.size};
        uint8_t *reply;

        info.flags |= VFIO_USER_REGION_FLAG_MMAP | VFIO_USER_REGION_FLAG_CAPS;
        info.argsz = sizeof info + sizeof sparse;
        info.cap_offset = sizeof info;
        client->reply_fd = fcntl(region_file(client->device, info.index), F_DUPFD_CLOEXEC, 0);
        reply = client_reply(client, sizeof info + sizeof sparse);
        if (client->reply_fd < 0 || !reply)
                return -ENOMEM;
        memcpy(reply, &info, sizeof info);
        memcpy(reply + sizeof info, &sparse, sizeof sparse);
        return 0;
}

int set_up_region_info(Client *client)
{
        const Device *d = client->device;
        VfioUserRegionInfo info;
        uint8_t *reply;
        uint32_t room;

        memcpy(&info, client->main.payload, sizeof info);
        if (info.argsz < sizeof info || info.index >= REGIONS)
                return -EINVAL;
        room = info.argsz;
        info = (VfioUserRegionInfo){
                .argsz = sizeof info, .index = info.index, .size = region_size(d, info.index)};
        if (info.size > 0)
                info.flags = VFIO_USER_REGION_FLAG_READ | VFIO_USER_REGION_FLAG_WRITE;
        if (region_file(d, info.index) >= 0 && room >= sizeof info + sizeof(VfioUserRegionSparse))
                return reply_with_file(client, info);
        if (region_file(d, info.index) >= 0) {
                info.flags |= VFIO_USER_REGION_FLAG_MMAP;
                info.argsz += (uint32_t) sizeof(VfioUserRegionSparse);
        }
        reply = client_reply(client, sizeof info);
        if (!reply)
                return -ENOMEM;
        memcpy(reply, &info, sizeof info);
        return 0;
}

/* ---- interrupts ---------------------------------------------------------------------------------------------- */

int set_up_irq_info(Client *client)
{
        VfioUserIrqInfo info;
        uint8_t *reply;

        memcpy(&info, client->main.payload, sizeof info);
        if (info.argsz < sizeof info || info.index >= IRQ_INDEXES)
                return -EINVAL;
        info = (VfioUserIrqInfo){.argsz = sizeof info,
                                 .flags = VFIO_USER_IRQ_FLAG_EVENTFD,
                                 .index = info.index,
                                 .count = irq_count(info.index)};
        reply = client_reply(client, sizeof info);
        if (!reply)
                return -ENOMEM;
        memcpy(reply, &info, sizeof info);
        return 0;
}

/* As many eventfds as interrupts, or none: then nobody hears these any more. */
static int set_eventfds(Client *client, const VfioUserSetIrqs *set)
{
        unsigned n = client->main.n_fds;

        if (n != 0 && n != set->count)
                return -EINVAL;
        for (unsigned i = 0; i < n; i++)
                if (!irq_is_eventfd(client->main.fds[i]))
                        return -EINVAL;
        for (unsigned i = 0; i < set->count; i++)
                irq_set(&client->device->irqs, set->index, set->start + i,
                        n > 0 ? client_take_fd(client, i) : -1);
        worker_remember(client->device->worker);
        return 0;
}

/* To try the way: as if the device had raised them. */
static int signal_some(Client *client, const VfioUserSetIrqs *set, const uint8_t *bools)
{
        for (unsigned i = 0; i < set->count; i++)
                if (!bools || bools[i])
                        irq_signal(&client->device->irqs, set->index, set->start + i);
        return 0;
}

static void disable(Client *client, uint32_t index)
{
        for (unsigned i = 0; i < irq_count(index); i++)
                irq_set(&client->device->irqs, index, i, -1);
}

/* No interrupt of ours can be masked: what asks for it is refused. */
int set_up_irqs(Client *client)
{
        size_t size = client_payload_size(client);
        VfioUserSetIrqs set;

        memcpy(&set, client->main.payload, sizeof set);
        if (set.argsz < sizeof set || set.index >= IRQ_INDEXES)
                return -EINVAL;
        if (!client_reply(client, 0))
                return -ENOMEM;
        if (set.flags == (VFIO_USER_IRQ_DATA_NONE | VFIO_USER_IRQ_ACTION_TRIGGER) && set.start == 0 &&
            set.count == 0) {
                disable(client, set.index);
                return 0;
        }
        if (set.count == 0 || set.start >= irq_count(set.index) ||
            set.count > irq_count(set.index) - set.start)
                return -EINVAL;
        switch (set.flags) {
        case VFIO_USER_IRQ_DATA_NONE | VFIO_USER_IRQ_ACTION_TRIGGER: return signal_some(client, &set, NULL);
        case VFIO_USER_IRQ_DATA_BOOL | VFIO_USER_IRQ_ACTION_TRIGGER:
                if (size - sizeof set < set.count)
                        return -EINVAL;
                return signal_some(client, &set, client->main.payload + sizeof set);
        case VFIO_USER_IRQ_DATA_EVENTFD | VFIO_USER_IRQ_ACTION_TRIGGER: return set_eventfds(client, &set);
        default: return -EINVAL;
        }
}
