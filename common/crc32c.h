/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* CRC-32C (Castagnoli), the checksum of a data frame's payload. Uses the processor's instruction where it has one. */

#include <stddef.h>
#include <stdint.h>

/* Of `size` bytes; the empty message has 0. */
uint32_t crc32c(const void *data, size_t size);

/* The same without the instruction: for processors that lack it, and for the test that compares the two. */
uint32_t crc32c_portable(const void *data, size_t size);
