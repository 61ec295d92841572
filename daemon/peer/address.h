/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Where a migmgrd listens: unix:/path, or tcp://ADDRESS:PORT on the loopback, which is for tests: nobody is authenticated
 * there and nothing is encrypted, and whoever may open a socket on this machine may say what a migmgrd says. */

#include "common/macros.h"

#define ADDRESS_MAX 127

/* Whether `text` is an address; -EINVAL else, with the reason in `ret_error` (a constant). */
int address_check(const char *text, const char **ret_error) _must_check_;

/* Connects without waiting. Returns the descriptor (non-blocking, close-on-exec). Over TCP it may still be connecting:
 * what is sent gets -EAGAIN until it is writable. -EAGAIN: the queue of a UNIX socket is full just now. */
int address_connect(const char *text) _must_check_;

/* Listens there. Returns the descriptor (non-blocking, close-on-exec); -EADDRINUSE when somebody does already. */
int address_listen(const char *text) _must_check_;
