/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What a fuzzer is called with, by libFuzzer or by replay.c. */

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
