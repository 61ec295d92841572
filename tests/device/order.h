/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Orders from the control connection: one JSON object in, one out. The table of orders, and what each does to the
 * fleet.
 */

#include "fleet.h"

/* The answer to `line`, without newline; the caller frees it. NULL: out of memory. `ret_quit`: end the process when
 * the answer is sent. */
char *order_run(Fleet *fleet, const char *line, bool *ret_quit);
