/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Pages of the VM's memory that a device has written, on their way over its data connection: out of the source's memory
 * files and into the destination's, both of which the VMM has handed to the device's server with DMA_MAP.
 *
 * They are sent when every device stands and the VMM's own copy of the memory is complete over there, so that they are
 * the last word on what they hold. Nothing outside of what is mapped is read or written.
 */

#include "dirty.h"
#include "stream.h"

typedef struct Pages Pages;

/* The pages of `dirty` (NULL: none), and an end frame. -ENOMEM. */
int pages_out_new(struct event_base *base, int fd, const Dirty *dirty, const Broker *broker, StreamEnd on_end,
                  void *userdata, Pages **ret) _must_check_;

/* What comes, up to the end frame, into what the VMM here has mapped. -ENOMEM. */
int pages_in_new(struct event_base *base, int fd, const Broker *broker, StreamEnd on_end, void *userdata,
                 Pages **ret) _must_check_;
Pages *pages_free(Pages *pages);

/* Bytes of memory that have passed. */
uint64_t pages_bytes(const Pages *pages);
