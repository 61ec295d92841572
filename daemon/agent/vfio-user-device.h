/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The device behind a vfio-user server. */

#include "agent-device.h"

typedef struct VfioUserDevice VfioUserDevice;
typedef struct VfioUserClient VfioUserClient;

/* Takes over `fd`, a connection to the device's server on which nothing was said yet. Opening says VERSION and asks for the
 * features 1, 6 to 8 and 2. */
int vfio_user_device_new(struct event_base *base, int fd, DeviceGone on_gone, void *userdata,
                         AgentDevice **ret) _must_check_;

/* The same device, or NULL if it is none of these. */
VfioUserDevice *vfio_user_device_of(AgentDevice *device);

/* Who passes on another client's commands needs the connection, and what the server said at VERSION: its minor, and its
 * capabilities as text. */
VfioUserClient *vfio_user_device_client(VfioUserDevice *device);
const char *vfio_user_device_version(const VfioUserDevice *device, uint16_t *ret_minor);
