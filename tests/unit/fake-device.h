/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A device that gives and takes state out of memory, for tests of streams. What is asked of it is answered from the loop, one
 * thing at a time; whoever asks for what no device allows is aborted. */

#include <event2/event.h>

#include "daemon/agent/agent-device.h"

typedef struct FakeTransfer {
        uint8_t *data;
        size_t size;
        DeviceRead on_read;
        DeviceDone on_done;
        void *userdata;
} FakeTransfer;

typedef struct FakeDevice {
        AgentDevice device;
        struct event *kick;
        uint8_t *state; /* what it gives, or has taken */
        size_t size, at;
        FakeTransfer open[DEVICE_TRANSFERS_MAX];
        uint32_t n_open;
        bool hangs;      /* answers nothing, for now */
        bool last_first; /* answers what was asked last first */
} FakeDevice;

static void fake_device_on_kick(evutil_socket_t fd, short what, void *userdata)
{
        FakeDevice *fake = userdata;
        uint32_t i = fake->last_first && fake->n_open > 0 ? fake->n_open - 1 : 0;
        FakeTransfer t = fake->open[i];
        size_t n = MIN(t.size, fake->size - fake->at);

        if (fake->hangs || fake->n_open == 0)
                return;
        fake->n_open--;
        memmove(&fake->open[i], &fake->open[i + 1], (fake->n_open - i) * sizeof t);
        if (fake->n_open > 0)
                event_active(fake->kick, EV_TIMEOUT, 0);
        if (t.on_read)
                memcpy(t.data, fake->state + fake->at, n);
        else
                memcpy(fake->state + fake->at, t.data, n);
        fake->at += n;
        if (t.on_read)
                t.on_read(t.userdata, 0, n);
        else
                t.on_done(t.userdata, n == t.size ? 0 : -ENOSPC);
}

static int fake_device_begin(AgentDevice *device, FakeTransfer transfer)
{
        FakeDevice *fake = (FakeDevice *) device;

        if (fake->n_open == DEVICE_TRANSFERS_MAX || transfer.size == 0 ||
            transfer.size > device->facts.transfer_max)
                abort();
        fake->open[fake->n_open++] = transfer;
        event_active(fake->kick, EV_TIMEOUT, 0);
        return 0;
}

static int fake_device_read(AgentDevice *device, void *data, size_t size, DeviceRead on_read, void *userdata)
{
        return fake_device_begin(
                device, (FakeTransfer){.data = data, .size = size, .on_read = on_read, .userdata = userdata});
}

static int fake_device_write(AgentDevice *device, const void *data, size_t size, DeviceDone on_done,
                             void *userdata)
{
        return fake_device_begin(device, (FakeTransfer){.data = (void *) data,
                                                        .size = size,
                                                        .on_done = on_done,
                                                        .userdata = userdata});
}

static void fake_device_abandon(AgentDevice *device)
{
        ((FakeDevice *) device)->n_open = 0;
}

/* `gives`: it has that much state; else it takes as much. */
static inline void fake_device_init(FakeDevice *fake, struct event_base *base, size_t size, bool gives)
{
        static const AgentDeviceOps ops = {.read = fake_device_read,
                                           .write = fake_device_write,
                                           .abandon_transfers = fake_device_abandon};

        *fake = (FakeDevice){.device = {.ops = &ops, .facts.transfer_max = DEVICE_TRANSFER_MAX},
                             .kick = event_new(base, -1, 0, fake_device_on_kick, fake),
                             .state = calloc(1, size + 1),
                             .size = size};
        for (size_t i = 0; gives && i < size; i++)
                fake->state[i] = (uint8_t) (i * 2654435761u >> 13);
}

static inline void fake_device_deinit(FakeDevice *fake)
{
        event_free(fake->kick);
        free(fake->state);
}
