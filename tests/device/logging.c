/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "logging.h"

#define RANGE_SIZE (2 * sizeof(uint64_t))

/* As libvfio-user: all that is mapped is logged, whatever the ranges are. */
int logging_start(Client *client)
{
        size_t size = client_payload_size(client);
        VfioUserFeatureLogStart start;
        int r;

        if (size < sizeof(VfioUserFeature) + sizeof start)
                return -EINVAL;
        memcpy(&start, client->main.payload + sizeof(VfioUserFeature), sizeof start);
        if ((size - sizeof(VfioUserFeature) - sizeof start) / RANGE_SIZE < start.n_ranges)
                return -EINVAL;
        r = client_reply_request(client);
        return r < 0 ? r : dma_log_start(&client->device->dma, start.page_size);
}

int logging_stop(Client *client)
{
        int r = client_reply_request(client);

        if (r == 0)
                dma_log_stop(&client->device->dma);
        return r;
}

int logging_report(Client *client, VfioUserFeature f)
{
        Dma *dma = &client->device->dma;
        VfioUserFeatureLogReport report;
        uint64_t bits, size;
        uint8_t *reply;
        int r;

        if (client_payload_size(client) < sizeof f + sizeof report)
                return -EINVAL;
        memcpy(&report, client->main.payload + sizeof f, sizeof report);
        r = dma_log_check(dma, report.address, report.size, report.page_size);
        if (r < 0)
                return r;
        bits = dma_bitmap_size(report.size, report.page_size);
        size = sizeof f + sizeof report + bits;
        if (bits > LOGGING_BITMAP_MAX || f.argsz < size)
                return -EINVAL;
        reply = client_reply(client, (size_t) size);
        if (!reply)
                return -ENOMEM;
        f.argsz = (uint32_t) size;
        memcpy(reply, &f, sizeof f);
        memcpy(reply + sizeof f, &report, sizeof report);
        dma_log_take(dma, report.address, report.size, reply + sizeof f + sizeof report);
        return 0;
}
