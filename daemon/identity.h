/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What a device is: the ids, driver and facts by which policies find it and by which the two hosts are compared. Out of
 * sysfs, for devices of the kernel, and out of the device's own config space. Nothing is judged here, and what can't be read
 * is left out: it is not known then.
 *
 * Facts, as policies name them, where they are known:
 *   class         PCI class, "020000"
 *   revision      PCI revision, "01"
 *   firmware      version, where a driver shows it: RDMA devices and NVMe, also of the physical function
 *   board         the board's id (mlx5: its PSID), where RDMA devices show it
 *   sriov-parent  PCI address of the physical function
 *   mdev-type     of a mediated device, "nvidia-259"
 *   parent-device PCI vendor and device of what it is mediated by, "10de:2236"
 *   parent-driver the driver of that
 *   numa-node     a number
 */

#include "core/device-identity.h"
#include "core/manifest.h"
#include "definition.h"

/* Reads driver, device, subsystem and facts of the device in directory `sysfs` (/sys/bus/...). `root`: where /sys is: "/sys",
 * or a test's copy of it. Facts that are there stay. -ENOMEM. */
int identity_read_sysfs(const char *root, const char *sysfs, ManifestDevice *device) _must_check_;

/* Takes what the config space says, as far as nothing better is known. -ENOMEM. */
int identity_take_config(const DeviceIdentity *identity, ManifestDevice *device) _must_check_;

/* Whether other devices can reach its BARs. `said`: what its VMM says of that. */
DeviceIsolation identity_isolation(const DeviceDefinition *definition, const DeviceIdentity *identity,
                                   DeviceIsolation said);
