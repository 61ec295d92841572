/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The log of the pages that a device has written, as its client has it: features 6, 7 and 8. */

#include "client.h"

/* More than that is asked for in parts; it is that of two TiB of pages of 4 KiB. */
#define LOGGING_BITMAP_MAX (64 * MIB)

int logging_start(Client *client) _must_check_;
int logging_stop(Client *client) _must_check_;
int logging_report(Client *client, VfioUserFeature f) _must_check_;
