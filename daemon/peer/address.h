/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Where another migmgrd listens: unix:/path. */

#include "common/macros.h"

#define ADDRESS_MAX 127

/* Whether `text` is an address; -EINVAL else, with the reason in `ret_error` (a constant). */
int address_check(const char *text, const char **ret_error) _must_check_;

/* Connects without waiting. -EAGAIN: its queue is full just now. */
int address_connect(const char *text) _must_check_;
