/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Replies made wrong on purpose, the way broken or hostile servers make them. Pure: bytes in, bytes out.
 */

#include "daemon/agent/vfio-user-wire.h"
#include "fault.h"

/* Changes the reply of `size` bytes in place; returns how many of its bytes to send. Kinds that are not about the
 * bytes of a reply change nothing. */
size_t spoil_reply(FaultKind kind, uint8_t *message, size_t size);
