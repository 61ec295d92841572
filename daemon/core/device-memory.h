/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Memory that a VMM has mapped for a device of its own, at the device's addresses (IOVA), in bytes. */

#include <stdbool.h>
#include <stdint.h>

#define DEVICE_MEMORY_MAX 32 /* ranges of one device: as many as one packet to its agent holds, and plenty */

typedef struct DeviceMemory {
        uint64_t address, size;
} DeviceMemory;

/* Whole pages of 4 KiB, not empty, and not beyond the end of the addresses. */
static inline bool device_memory_is_sane(const DeviceMemory *memory, uint32_t n)
{
        for (uint32_t i = 0; i < n; i++)
                if (memory[i].size == 0 || ((memory[i].address | memory[i].size) & 4095) ||
                    memory[i].address > UINT64_MAX - memory[i].size)
                        return false;
        return true;
}
