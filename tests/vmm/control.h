/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A UNIX socket for people and tests: one JSON object a line, answered with one. It looks at the guest, and tells faults
 * that a real VMM can't be told to have.
 */

#include "delegate.h"

typedef struct Control Control;

/* Listens on `path`. The delegate outlives it. */
int control_new(sd_event *event, const char *path, Delegate *delegate, Control **ret) _must_check_;
Control *control_free(Control *control);
DEFINE_CLEANUP(Control *, control_free);
