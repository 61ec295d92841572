/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* How a device of the kernel is named by whoever writes a definition or asks the helper: its directory below
 * /sys/bus/pci/devices or /sys/bus/mdev/devices, as it stands there, with no way out of it. */

#include "macros.h"

#define SYSFS_DEVICE_MAX 255 /* bytes */

bool sysfs_device_is_valid(const char *path);

/* The same out of what a VMM was given for a device: "3b:00.2", "0000:3b:00.2", the UUID of a mediated device, or any path that
 * ends so. Else false, and "". */
bool sysfs_device_find(const char *said, char *ret, size_t size);

/* The last part of a valid path: what the bus calls it, a PCI address or a UUID. */
const char *sysfs_device_name(const char *path);
