/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Which pages of the VM's memory a device has written, mapping by mapping, as its DMA log says.
 *
 * The agent owns it from the start of the log to its end. What is read is added to what was read before, so that nothing
 * is forgotten when a mapping goes while the log runs.
 */

#include <sys/types.h>

#include "agent-device.h"
#include "agent-protocol.h"
#include "broker.h"

typedef struct DirtyRange {
        uint64_t address, n_pages;
        uint64_t size, offset; /* the mapping as it was, */
        dev_t dev;             /* and its file */
        ino_t ino;
        bool no_file; /* its VMM has only told of the mapping; it stays, and its pages are the VMM's business */
        uint64_t *bitmap; /* owned; bit i: the page at address + i * page_size */
        bool any;         /* one of them is set */
} DirtyRange;

typedef struct Dirty {
        uint64_t page_size;
        uint32_t n;
        DirtyRange *ranges; /* owned */
} Dirty;

/* Files that are memory of other devices. What this one has written there is no memory of the VM: it is in their state. */
typedef struct DirtyOthers {
        AgentFile *files; /* owned */
        uint32_t n;
} DirtyOthers;

/* Adds some. -ENOMEM. */
int dirty_others_add(DirtyOthers *others, const AgentFile *files, uint32_t n) _must_check_;
void dirty_others_clear(DirtyOthers *others);

/* For a log that starts now, with pages so large that one answer tells of the largest mapping. -ENOMEM. */
int dirty_new(const AgentDevice *device, const Broker *broker, Dirty **ret) _must_check_;
Dirty *dirty_free(Dirty *dirty);

/* Reads the log for every mapping with a file, and for what the device itself was told of: what goes by message the VMM writes
 * itself, and knows. `on_done` is told
 * when all of it is in, and what was noted before too. Memory of other devices is left out. Returns 1 when there is nothing to wait for. */
int dirty_read(Dirty *dirty, AgentDevice *device, const Broker *broker, const DirtyOthers *others,
               DeviceDone on_done, void *userdata) _must_check_;

/* The same for one mapping that is about to go, while nobody waits: whatever goes wrong, dirty_read() says it. */
void dirty_note(Dirty *dirty, AgentDevice *device, const BrokerMap *map, const DirtyOthers *others);

/* Whether all that was written to is mapped still, or again, just as it was then: else its addresses mean nothing. */
bool dirty_is_mapped(const Dirty *dirty, const Broker *broker);

/* Nobody waits for dirty_read() any more. */
void dirty_abandon(Dirty *dirty);

/* The first run of such pages at or after page `*at` of a range, at most `max` bytes long, within its mapping; false:
 * there is none. Moves `*at` behind it. */
bool dirty_next(const Dirty *dirty, uint32_t range, uint64_t max, uint64_t *at, uint64_t *ret_address,
                uint64_t *ret_size);

/* The bitmap of a range in a file of its own, in little-endian words. */
int dirty_file(const Dirty *dirty, uint32_t range) _must_check_;
