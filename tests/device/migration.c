/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "migration.h"

#include "logging.h"

#define OPERATIONS (VFIO_USER_FEATURE_GET | VFIO_USER_FEATURE_SET | VFIO_USER_FEATURE_PROBE)

static uint32_t feature_operations(const Device *d, uint32_t feature)
{
        if (!d->config.migration)
                return 0;
        if (feature == VFIO_USER_FEATURE_MIGRATION)
                return VFIO_USER_FEATURE_PROBE | VFIO_USER_FEATURE_GET;
        if (feature == VFIO_USER_FEATURE_MIG_DEVICE_STATE)
                return OPERATIONS;
        if (!d->worker)
                return 0;
        if (feature == VFIO_USER_FEATURE_DMA_LOGGING_START || feature == VFIO_USER_FEATURE_DMA_LOGGING_STOP)
                return VFIO_USER_FEATURE_PROBE | VFIO_USER_FEATURE_SET;
        if (feature == VFIO_USER_FEATURE_DMA_LOGGING_REPORT)
                return VFIO_USER_FEATURE_PROBE | VFIO_USER_FEATURE_GET;
        return 0;
}

static int get_feature(Client *client, VfioUserFeature f)
{
        const Device *d = client->device;
        VfioUserFeatureMigration flags = {.flags = device_config_flags(&d->config)};
        VfioUserFeatureState state = {
                .state = (uint32_t) d->state}; /* data_fd is 0, not -1, as in libvfio-user */
        bool wants_flags = (f.flags & VFIO_USER_FEATURE_MASK) == VFIO_USER_FEATURE_MIGRATION;
        uint8_t *reply;

        if ((f.flags & VFIO_USER_FEATURE_MASK) == VFIO_USER_FEATURE_DMA_LOGGING_REPORT)
                return logging_report(client, f);
        if (f.argsz < sizeof f + sizeof flags)
                return -EINVAL;
        reply = client_reply(client, sizeof f + sizeof flags);
        if (!reply)
                return -ENOMEM;
        f.argsz = sizeof f + sizeof flags;
        memcpy(reply, &f, sizeof f);
        memcpy(reply + sizeof f, wants_flags ? (const void *) &flags : &state, sizeof flags);
        return 0;
}

static int set_state(Client *client)
{
        VfioUserFeatureState state;
        int r;

        if (client_payload_size(client) < sizeof(VfioUserFeature) + sizeof state)
                return -EINVAL;
        memcpy(&state, client->main.payload + sizeof(VfioUserFeature), sizeof state);
        if (state.state >= ARC_STATES)
                return -EINVAL;
        r = client_reply_request(client);
        return r < 0 ? r : device_set_state(client->device, (DeviceState) state.state);
}

static int set_feature(Client *client, uint32_t feature)
{
        if (feature == VFIO_USER_FEATURE_DMA_LOGGING_START)
                return logging_start(client);
        if (feature == VFIO_USER_FEATURE_DMA_LOGGING_STOP)
                return logging_stop(client);
        return set_state(client);
}

int migration_feature(Client *client)
{
        VfioUserFeature f;
        uint32_t operations;

        memcpy(&f, client->main.payload, sizeof f);
        operations = f.flags & OPERATIONS;
        if (operations == 0 || (f.flags & ~(VFIO_USER_FEATURE_MASK | (uint32_t) OPERATIONS)) != 0)
                return -EINVAL;
        if (operations & ~feature_operations(client->device, f.flags & VFIO_USER_FEATURE_MASK))
                return -EINVAL;
        if (operations == VFIO_USER_FEATURE_GET)
                return get_feature(client, f);
        if (f.argsz < client_payload_size(client))
                return -EINVAL;
        /* The reply of PROBE and SET is the request. */
        if (operations & VFIO_USER_FEATURE_PROBE)
                return client_reply_request(client);
        return operations == VFIO_USER_FEATURE_SET ? set_feature(client, f.flags & VFIO_USER_FEATURE_MASK)
                                                   : -EINVAL;
}

/* ---- data ---------------------------------------------------------------------------------------------------- */

static int get_request(const Client *client, VfioUserMigData *ret_request)
{
        memcpy(ret_request, client->main.payload, sizeof *ret_request);
        if (ret_request->size > client->max_data ||
            ret_request->argsz < sizeof *ret_request + ret_request->size)
                return -EINVAL;
        return 0;
}

static void delay_by_size(Client *client, uint64_t usec_per_mib, uint64_t n)
{
        client->delay_usec += usec_per_mib * n / MIB;
}

/* The faults that are about the data. What is left of client->fault is about the reply. */
static uint64_t spoil_data(Client *client, uint8_t *data, uint64_t n, uint64_t wanted)
{
        FaultKind kind = client->fault;

        if (kind == FAULT_SHORT) {
                saver_cut(client->device->saver);
                n /= 2;
        } else if (kind == FAULT_CORRUPT && n > 0) {
                data[n / 2] ^= 0xff;
        } else if (kind == FAULT_ENDLESS) {
                memset(data + n, 0xee, wanted - n);
                n = wanted;
        } else {
                return n;
        }
        client->fault = FAULT_NONE;
        return n;
}

/* The message is as long as was asked for, whatever there is: libvfio-user pads so. */
int migration_read(Client *client)
{
        VfioUserMigData d;
        uint8_t *reply, *data;
        uint64_t n, wanted;

        if (get_request(client, &d) < 0)
                return -EINVAL;
        wanted = d.size;
        reply = client_reply(client, sizeof d + wanted);
        if (!reply)
                return -ENOMEM;
        data = reply + sizeof d;
        n = device_read_data(client->device, data, wanted);
        n = spoil_data(client, data, n, wanted);
        memset(data + n, 0, wanted - n);
        d = (VfioUserMigData){.argsz = (uint32_t) (sizeof d + n), .size = (uint32_t) n};
        memcpy(reply, &d, sizeof d);
        delay_by_size(client, client->device->config.read_delay_usec, n);
        return 0;
}

int migration_write(Client *client)
{
        VfioUserMigData d;

        if (get_request(client, &d) < 0 || client_payload_size(client) - sizeof d < d.size)
                return -EINVAL;
        if (!client_reply(client, 0))
                return -ENOMEM;
        device_write_data(client->device, client->main.payload + sizeof d, d.size);
        delay_by_size(client, client->device->config.write_delay_usec, d.size);
        return 0;
}
