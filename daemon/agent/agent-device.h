/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A device as the agent's programs see it, whoever answers for it: open it, read and set its state, reset it, move its
 * data. vfio-user-device.c speaks to a device's server, vfio-device.c to the kernel.
 *
 * The agent owns it. Each operation is answered once through its callback, from the loop, unless it is abandoned; at
 * most DEVICE_TRANSFERS_MAX transfers may be open at a time, any other operation stands alone. Nothing is retried and
 * nothing is decided here; what is judged is whether the other side keeps to its protocol.
 */

#include <event2/event.h>

#include "common/macros.h"
#include "daemon/core/device-identity.h"
#include "daemon/core/device-memory.h"
#include "daemon/core/device-state.h"

#define DEVICE_TRANSFERS_MAX 2             /* the device works on one while the other goes over the wire */
#define DEVICE_TRANSFER_MAX  (1024 * 1024) /* bytes */

typedef struct AgentDevice AgentDevice;

/* `status` 0 or a negative errno. */
typedef void (*DeviceDone)(void *userdata, int status);
typedef void (*DeviceGot)(void *userdata, int status, DeviceState state);
/* `size`: bytes that were read; 0: there is nothing more, or, while the device runs, nothing more now. */
typedef void (*DeviceRead)(void *userdata, int status, size_t size);
/* `words` is only there when `status` is 0, and until the return. */
typedef void (*DeviceReported)(void *userdata, int status, const void *words);
typedef void (*DeviceGone)(void *userdata, int status, const char *text);
/* What the device is about to become (`asked`: the SET is on its way) or was read to be. */
typedef void (*DeviceWatch)(void *userdata, DeviceState state, bool asked);

typedef struct DeviceFacts {
        /* VFIO_DEVICE_FEATURE_MIGRATION, DEVICE_DMA_LOGGING and what kind it is; no migration flags: it has none */
        uint32_t flags;
        DeviceState state;   /* UNKNOWN without migration */
        size_t transfer_max; /* bytes that one transfer may have */
        uint32_t n_memory;   /* what its VMM has told of, once; a broker knows better */
        DeviceMemory memory[DEVICE_MEMORY_MAX];
        DeviceIdentity identity;
} DeviceFacts;

typedef struct AgentDeviceOps {
        AgentDevice *(*free)(AgentDevice *device);
        int (*open)(AgentDevice *device, DeviceDone on_done, void *userdata);
        int (*get)(AgentDevice *device, DeviceGot on_got, void *userdata);
        int (*set)(AgentDevice *device, DeviceState state, DeviceDone on_done, void *userdata);
        int (*reset)(AgentDevice *device, DeviceDone on_done, void *userdata);
        int (*log_start)(AgentDevice *device, uint64_t page_size, DeviceDone on_done, void *userdata);
        int (*log_stop)(AgentDevice *device, DeviceDone on_done, void *userdata);
        int (*log_report)(AgentDevice *device, uint64_t address, uint64_t size, uint64_t page_size,
                          DeviceReported on_reported, void *userdata);
        int (*read)(AgentDevice *device, void *data, size_t size, DeviceRead on_read, void *userdata);
        int (*write)(AgentDevice *device, const void *data, size_t size, DeviceDone on_done, void *userdata);
        void (*abandon)(AgentDevice *device);
        void (*abandon_transfers)(AgentDevice *device);
        /* or NULL: */
        bool (*keeps)(AgentDevice *device, void *mapping, size_t size);
        uint64_t (*left)(const AgentDevice *device, bool *ret_initial);
        const char *(*explain)(const AgentDevice *device);
        DeviceState (*read_back)(const AgentDevice *device);
} AgentDeviceOps;

/* What every implementation has first. */
struct AgentDevice {
        const AgentDeviceOps *ops;
        DeviceFacts facts;
        DeviceGone on_gone;
        void *gone_userdata;
        DeviceWatch watch; /* or NULL */
        void *watch_userdata;
};

/* NULL is fine. What is open is not answered any more. */
static inline AgentDevice *agent_device_free(AgentDevice *device)
{
        return device ? device->ops->free(device) : NULL;
}

static inline const DeviceFacts *agent_device_facts(const AgentDevice *device)
{
        return &device->facts;
}

static inline void agent_device_watch(AgentDevice *device, DeviceWatch watch, void *userdata)
{
        device->watch = watch;
        device->watch_userdata = userdata;
}

static inline void agent_device_see(const AgentDevice *device, DeviceState state, bool asked)
{
        if (device->watch)
                device->watch(device->watch_userdata, state, asked);
}

/* The facts are there when `on_done` says 0. */
static inline _must_check_ int agent_device_open(AgentDevice *device, DeviceDone on_done, void *userdata)
{
        return device->ops->open(device, on_done, userdata);
}

static inline _must_check_ int agent_device_get(AgentDevice *device, DeviceGot on_got, void *userdata)
{
        return device->ops->get(device, on_got, userdata);
}

static inline _must_check_ int agent_device_set(AgentDevice *device, DeviceState state, DeviceDone on_done,
                                                void *userdata)
{
        return device->ops->set(device, state, on_done, userdata);
}

/* What the device read right behind the SET that has just been answered with 0; UNKNOWN: it was not looked at then. */
static inline DeviceState agent_device_read_back(const AgentDevice *device)
{
        return device->ops->read_back ? device->ops->read_back(device) : DEVICE_STATE_UNKNOWN;
}

static inline _must_check_ int agent_device_reset(AgentDevice *device, DeviceDone on_done, void *userdata)
{
        return device->ops->reset(device, on_done, userdata);
}

/* The device notes the pages that it writes, in steps of `page_size`, or no longer. */
static inline _must_check_ int agent_device_log_start(AgentDevice *device, uint64_t page_size,
                                                      DeviceDone on_done, void *userdata)
{
        return device->ops->log_start(device, page_size, on_done, userdata);
}

static inline _must_check_ int agent_device_log_stop(AgentDevice *device, DeviceDone on_done, void *userdata)
{
        return device->ops->log_stop(device, on_done, userdata);
}

/* Which these were since it was asked last, for one mapping and with START's page size: a bit for each page, in u64
 * words. Several may be open, and are not abandoned: each is answered, if need be when the device is freed. */
static inline _must_check_ int agent_device_log_report(AgentDevice *device, uint64_t address, uint64_t size,
                                                       uint64_t page_size, DeviceReported on_reported,
                                                       void *userdata)
{
        return device->ops->log_report(device, address, size, page_size, on_reported, userdata);
}

/* `data` must stay until the answer. `size` at most the facts' transfer_max. */
static inline _must_check_ int agent_device_read(AgentDevice *device, void *data, size_t size,
                                                 DeviceRead on_read, void *userdata)
{
        return device->ops->read(device, data, size, on_read, userdata);
}

static inline _must_check_ int agent_device_write(AgentDevice *device, const void *data, size_t size,
                                                  DeviceDone on_done, void *userdata)
{
        return device->ops->write(device, data, size, on_done, userdata);
}

/* Nobody waits for what is open any more. Buffers that were given are no longer touched, but see below. */
static inline void agent_device_abandon(AgentDevice *device)
{
        device->ops->abandon(device);
}

/* The same for reads and writes of data alone. */
static inline void agent_device_abandon_transfers(AgentDevice *device)
{
        device->ops->abandon_transfers(device);
}

/* After that: a call that can't be interrupted may still work in this mapping. It is the device's then, and unmapped when
 * that call returns. */
static inline bool agent_device_keeps(AgentDevice *device, void *mapping, size_t size)
{
        return device->ops->keeps && device->ops->keeps(device, mapping, size);
}

/* Bytes that it says a pre-copy has left, as of the last read; `ret_initial`: some of them are those without which the
 * destination should not be left. 0 where it does not say. */
static inline uint64_t agent_device_left(const AgentDevice *device, bool *ret_initial)
{
        *ret_initial = false;
        return device->ops->left ? device->ops->left(device, ret_initial) : 0;
}

/* More than errno says about the last failure, or "". */
static inline const char *agent_device_explain(const AgentDevice *device)
{
        return device->ops->explain ? device->ops->explain(device) : "";
}
