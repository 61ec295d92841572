/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The control socket: lines in, lines out, several clients, each an onlooker for whom the devices work. What a line
 * says is the business of order.h. Owned by main().
 */

#include "fleet.h"

typedef struct Control Control;

/* Listens. Fails as listen_on() does. */
int control_new(Fleet *fleet, const char *path, Control **ret_control) _must_check_;
/* Removes the path. */
Control *control_free(Control *c);

DEFINE_CLEANUP(Control *, control_free);
