/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A vfio-user device as the agent's programs see it: open it, read and set its state, reset it, move its data.
 *
 * The agent owns it. Each operation is answered once through its callback, unless it is abandoned; at most
 * DEVICE_TRANSFERS_MAX transfers may be open at a time, any other operation stands alone. Nothing is retried and nothing
 * is decided here; the one thing that is judged is whether the server keeps to the protocol.
 */

#include <event2/event.h>

#include "daemon/core/device-state.h"

#define DEVICE_TRANSFERS_MAX 2             /* the device works on one while the other goes over the wire */
#define DEVICE_TRANSFER_MAX  (1024 * 1024) /* bytes */

typedef struct VfioUserDevice VfioUserDevice;
typedef struct VfioUserClient VfioUserClient;

/* `status` 0 or a negative errno. */
typedef void (*DeviceDone)(void *userdata, int status);
typedef void (*DeviceGot)(void *userdata, int status, DeviceState state);
/* `size`: bytes that were read; 0: there is nothing more. */
typedef void (*DeviceRead)(void *userdata, int status, size_t size);
/* `words` is only there when `status` is 0, and until the return. */
typedef void (*DeviceReported)(void *userdata, int status, const void *words);
typedef void (*DeviceGone)(void *userdata, int status, const char *text);

typedef struct DeviceFacts {
        uint32_t
                flags; /* VFIO_DEVICE_FEATURE_MIGRATION and DEVICE_DMA_LOGGING; 0: the server has no migration */
        DeviceState state;   /* UNKNOWN without migration */
        size_t transfer_max; /* bytes that one transfer may have */
} DeviceFacts;

/* Takes over `fd`, a connection to the device's server on which nothing was said yet. */
int vfio_user_device_new(struct event_base *base, int fd, DeviceGone on_gone, void *userdata,
                         VfioUserDevice **ret) _must_check_;
VfioUserDevice *vfio_user_device_free(VfioUserDevice *device);

/* What the device is about to become (`asked`: the SET is on its way) or was read to be. */
typedef void (*DeviceWatch)(void *userdata, DeviceState state, bool asked);
void vfio_user_device_watch(VfioUserDevice *device, DeviceWatch watch, void *userdata);

/* Who passes on another client's commands needs the connection, and what the server said at VERSION: its minor, and its
 * capabilities as text. */
VfioUserClient *vfio_user_device_client(VfioUserDevice *device);
const char *vfio_user_device_version(const VfioUserDevice *device, uint16_t *ret_minor);

/* VERSION, features 1, 6 to 8 and 2; the facts are there when `on_done` says 0. */
int vfio_user_device_open(VfioUserDevice *device, DeviceDone on_done, void *userdata) _must_check_;
const DeviceFacts *vfio_user_device_facts(const VfioUserDevice *device);

int vfio_user_device_get(VfioUserDevice *device, DeviceGot on_got, void *userdata) _must_check_;
int vfio_user_device_set(VfioUserDevice *device, DeviceState state, DeviceDone on_done,
                         void *userdata) _must_check_;
/* The device notes the pages that it writes, in steps of `page_size`, or no longer. */
int vfio_user_device_log_start(VfioUserDevice *device, uint64_t page_size, DeviceDone on_done,
                               void *userdata) _must_check_;
int vfio_user_device_log_stop(VfioUserDevice *device, DeviceDone on_done, void *userdata) _must_check_;
/* Which these were since it was asked last, for one mapping and with START's page size: a bit for each page, in u64
 * words. Several may be open, and are not abandoned: each is answered, if need be when the device is freed. */
int vfio_user_device_log_report(VfioUserDevice *device, uint64_t address, uint64_t size, uint64_t page_size,
                                DeviceReported on_reported, void *userdata) _must_check_;

int vfio_user_device_reset(VfioUserDevice *device, DeviceDone on_done, void *userdata) _must_check_;

/* `data` must stay until the answer. `size` at most the facts' transfer_max. */
int vfio_user_device_read(VfioUserDevice *device, void *data, size_t size, DeviceRead on_read,
                          void *userdata) _must_check_;
int vfio_user_device_write(VfioUserDevice *device, const void *data, size_t size, DeviceDone on_done,
                           void *userdata) _must_check_;

/* Nobody waits for what is open any more; the buffers given are no longer touched. */
void vfio_user_device_abandon(VfioUserDevice *device);
/* The same for reads and writes of data alone. */
void vfio_user_device_abandon_transfers(VfioUserDevice *device);
