/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* UNIX sockets that can be listened on, whoever left something at their path. */

#include "common/macros.h"

#define LISTEN_PATH_MAX 107

/* A non-blocking socket that listens on `path`. Negative errno: -EADDRINUSE if somebody listens there already, or if
 * what is there is no socket. A socket that nobody listens on is removed. */
int listen_on(const char *path, int backlog) _must_check_;
