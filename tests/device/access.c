/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "access.h"

#include "region.h"

int access_info(Client *client)
{
        VfioUserDeviceInfo info;
        uint8_t *reply;

        memcpy(&info, client->main.payload, sizeof info);
        if (info.argsz < sizeof info)
                return -EINVAL;
        info = (VfioUserDeviceInfo){.argsz = sizeof info,
                                    .flags = VFIO_USER_DEVICE_FLAG_RESET | VFIO_USER_DEVICE_FLAG_PCI,
                                    .num_regions = REGIONS,
                                    .num_irqs = IRQ_INDEXES};
        reply = client_reply(client, sizeof info);
        if (!reply)
                return -ENOMEM;
        memcpy(reply, &info, sizeof info);
        return 0;
}

/* The limit is what we said, not what the client said: so does libvfio-user, for regions. */
static int get_access(const Client *client, VfioUserRegionAccess *ret_access)
{
        memcpy(ret_access, client->main.payload, sizeof *ret_access);
        return ret_access->count <= client->device->config.max_data ? 0 : -EINVAL;
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
        return region_read(client->device, a.region, a.offset, a.count, data);
}

int access_write(Client *client)
{
        VfioUserRegionAccess a;

        if (get_access(client, &a) < 0 || client_payload_size(client) - sizeof a < a.count)
                return -EINVAL;
        if (!reply_access(client, &a, 0))
                return -ENOMEM;
        return region_write(client->device, a.region, a.offset, a.count, client->main.payload + sizeof a);
}

int access_reset(Client *client)
{
        return device_reset(client->device);
}
