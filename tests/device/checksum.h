/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* CRC-32C (Castagnoli), fast enough to go over every byte that a device saves or loads.
 *
 * The emulated device has a checksum of its own and shares none with the daemon: what one computes wrongly the other
 * then finds.
 */

#include <stddef.h>
#include <stdint.h>

/* The checksum of what `crc` covers followed by `data`; start with 0. */
uint32_t checksum_add(uint32_t crc, const void *data, size_t n);

/* The checksum of a followed by b, from theirs and b's length: pages that were checked one by one, and some again,
 * become the checksum of the whole without a second pass. */
uint32_t checksum_join(uint32_t a, uint32_t b, uint64_t b_length);
