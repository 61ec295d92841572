/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The commands by which a VMM sets a device up: handlers for the table of commands. */

#include "client.h"

int set_up_map(Client *client) _must_check_;
int set_up_unmap(Client *client) _must_check_;
int set_up_region_info(Client *client) _must_check_;
int set_up_irq_info(Client *client) _must_check_;
int set_up_irqs(Client *client) _must_check_;
