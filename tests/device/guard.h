/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Copies from and to a client's file that the client can make shorter at any time: touching what is gone then is a SIGBUS,
 * and must not end a process with a thousand other devices.
 */

#include <stdbool.h>
#include <stddef.h>

/* Once, before anything is copied. */
void guard_init(void);

/* False: not all of it was there. Some may have been copied. */
bool guard_copy(void *to, const void *from, size_t n);
