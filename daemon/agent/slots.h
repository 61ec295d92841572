/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The memory in which the payloads of one stream lie: FRAME_SLOTS slots of FRAME_SLOT_SIZE bytes (daemon/peer/frame.h).
 *
 * Where both agents are on one host they map the same memory, a file that the source has made, so that what the source's
 * device puts into a slot the destination's device takes out of it, and nothing is copied between. Neither trusts the
 * other: a file that could become smaller under a mapping is not mapped, and what lies in a slot may change at any time,
 * so nothing but opaque payload does.
 */

#include "common/macros.h"
#include "daemon/peer/frame.h"

#define SLOTS_SIZE ((size_t) FRAME_SLOTS * FRAME_SLOT_SIZE)

/* Memory of our own; what is not touched costs nothing. -ENOMEM. */
int slots_new(uint8_t **ret) _must_check_;

/* The same, in a file that the other agent may map; `ret_fd` is the caller's to close. Negative errno. */
int slots_new_file(uint8_t **ret, int *ret_fd) _must_check_;

/* The other agent's file, to read from. -EINVAL: of another kind, not sealed or of the wrong size; or what mmap() says. The
 * file stays the caller's. */
int slots_map_file(int fd, const uint8_t **ret) _must_check_;

/* NULL is fine. */
void slots_free(const uint8_t *slots);
