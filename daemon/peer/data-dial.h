/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Makes one data or memory connection: connects, says the hello, waits for the byte that answers it. Owned by the job
 * that asked; freed by it, in the callback or before. */

#include "hello.h"
#include "daemon/loop.h"

typedef struct DataDial DataDial;

/* `fd` is the callee's when `status` is 0. */
typedef void (*DataDialed)(void *userdata, uint32_t index, HelloKind kind, int status, int fd);

int data_dial_new(Loop *loop, const char *address, const Hello *hello, uint64_t deadline_usec,
                  DataDialed dialed, void *userdata, DataDial **ret) _must_check_;
DataDial *data_dial_free(DataDial *dial);
