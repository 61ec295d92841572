/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Gives a process a systemd scope of its own, so that stopping or killing our service does not touch it. */

#include <sys/types.h>

#include "common/macros.h"

/* `name` without ".scope". Returns 0 when the scope is there, and at once where systemd does not run. Waits for
 * systemd's answer, at most two seconds. */
int scope_start(const char *name, const char *description, pid_t pid) _must_check_;
