/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Small files, whole. */

#include "macros.h"

/* Reads a regular file of at most `max` bytes. `ret` has a NUL behind its end and is the caller's to free. -EFBIG. */
int file_read(const char *path, size_t max, char **ret, size_t *ret_size) _must_check_;
