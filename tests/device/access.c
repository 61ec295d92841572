/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "access.h"

#define PCI_REGIONS    9
#define PCI_INTERRUPTS 5

int access_info(Client *client)
{
        VfioUserDeviceInfo info;
        uint8_t *reply;

        memcpy(&info, client->main.payload, sizeof info);
        if (info.argsz < sizeof info)
                return -EINVAL;
        info = (VfioUserDeviceInfo){.argsz = sizeof info,
                                    .flags = VFIO_USER_DEVICE_FLAG_RESET | VFIO_USER_DEVICE_FLAG_PCI,
                                    .num_regions = PCI_REGIONS,
                                    .num_irqs = PCI_INTERRUPTS};
        reply = client_reply(client, sizeof info);
        if (!reply)
                return -ENOMEM;
        memcpy(reply, &info, sizeof info);
        return 0;
}

/* The limit is what we said, not what the client said: so does libvfio-user, for regions. */
static int get_access(const Client *client, VfioUserRegionAccess *ret_access)
{
        const Device *d = client->device;

        memcpy(ret_access, client->main.payload, sizeof *ret_access);
        if (ret_access->region != 0 || ret_access->count > d->config.max_data ||
            !memory_has(&d->memory, ret_access->offset, ret_access->count))
                return -EINVAL;
        return 0;
}

static uint8_t *reply_access(Client *client, const VfioUserRegionAccess *a, size_t data_size)
{
        uint8_t *reply = client_reply(client, sizeof *a + data_size);

        if (!reply)
                return NULL;
        memcpy(reply, a, sizeof *a);
        return reply + sizeof *a;
}

int access_read(Client *client)
{
        VfioUserRegionAccess a;
        uint8_t *data;

        if (get_access(client, &a) < 0)
                return -EINVAL;
        data = reply_access(client, &a, a.count);
        if (!data)
                return -ENOMEM;
        memcpy(data, client->device->memory.data + a.offset, a.count);
        return 0;
}

int access_write(Client *client)
{
        VfioUserRegionAccess a;

        if (get_access(client, &a) < 0 || client_payload_size(client) - sizeof a < a.count)
                return -EINVAL;
        if (!reply_access(client, &a, 0))
                return -ENOMEM;
        memory_write(&client->device->memory, a.offset, client->main.payload + sizeof a, a.count);
        return 0;
}

int access_reset(Client *client)
{
        return device_reset(client->device);
}
