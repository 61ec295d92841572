/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The regions of a device, as its client reads and writes them by message. */

#include "device.h"

#define REGIONS 9 /* six BARs, ROM, configuration, VGA */

/* 0: there is none of this index, which is less than REGIONS. */
uint64_t region_size(const Device *d, uint32_t index);

/* What maps it, the device's; -1: by message only. */
int region_file(const Device *d, uint32_t index);

/* -EINVAL: not within the region, or across the registers of one. */
int region_read(const Device *d, uint32_t index, uint64_t offset, size_t n, uint8_t *to) _must_check_;
/* The same, and for values that a register refuses. */
int region_write(Device *d, uint32_t index, uint64_t offset, size_t n, const uint8_t *from) _must_check_;
