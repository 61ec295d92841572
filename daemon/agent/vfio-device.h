/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A VFIO device of the kernel, by its open file.
 *
 * Every ioctl, read and write is made by a thread of its own (call-worker.h), so that a deadline is kept while the
 * kernel does not answer. What is refused before the kernel sees it: vfio-arc.h. Data files that a SET opens are in
 * this process's table and are closed with the state that they belong to. poll() on them says nothing, so it is not
 * asked; what is left of a pre-copy, VFIO_MIG_GET_PRECOPY_INFO says.
 */

#include "agent-device.h"

/* Takes over `fd`. `memory`: what its VMM has mapped for it. `supervised`: the VMM has the same file, and drives it. */
int vfio_device_new(struct event_base *base, int fd, bool supervised, const DeviceMemory *memory,
                    uint32_t n_memory, DeviceGone on_gone, void *userdata, AgentDevice **ret) _must_check_;
