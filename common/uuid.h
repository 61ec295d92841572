/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* UUIDs as text: 36 characters, lower case. That is the only form that is stored, sent or compared. */

#include "macros.h"

#define UUID_TEXT_MAX 36

/* Whether `text` is a UUID in that form. */
bool uuid_is_valid(const char *text);

/* A random one (version 4). -errno when the kernel has no random numbers. */
int uuid_generate(char ret[UUID_TEXT_MAX + 1]) _must_check_;
