/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What a client can do to a device besides migrating it: ask what it is, read and write its memory, reset it.
 *
 * The information is what libvfio-user says of every PCI device. Region 0 is the whole memory, by messages only; the
 * other regions and the interrupts are named and empty. Handlers of the command table.
 */

#include "client.h"

int access_info(Client *client);
int access_read(Client *client);
int access_write(Client *client);
int access_reset(Client *client);
