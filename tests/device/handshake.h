/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* VERSION: numbers and capabilities, ours and the client's, and the twin socket if it wants one. Handler of the
 * command table.
 */

#include "client.h"

int handshake_version(Client *client);
