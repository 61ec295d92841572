/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A kernel VFIO device by its directory in sysfs (common/sysfs-device.h): its open file, and the reset of its function.
 * Both may hang in the kernel: they are run by child.h. */

#include "child.h"

/* Opens the device as a VMM would, so that all that can be asked of it can be: by its own file and an iommufd where the
 * kernel has these, else by its group and a container. Only the device's file is left open; it holds the others. The text
 * says what it is. -EINVAL: no such path; -EBUSY: somebody has it. */
int vfio_open(const char *sysfs, ChildWork *work);

/* Resets its function, by whichever method the kernel has chosen (sysfs `reset_method`); the text names it. -EOPNOTSUPP: the
 * kernel has none. */
int vfio_reset_function(const char *sysfs, ChildWork *work);
