/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* DEVICE_FEATURE and migration data. Rules and error numbers are libvfio-user's; the states are those of the uAPI,
 * with P2P and PRE_COPY if the device has them. Handlers of the command table.
 */

#include "client.h"

int migration_feature(Client *client);
int migration_read(Client *client);
int migration_write(Client *client);
