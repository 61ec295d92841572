/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What must never happen, in one place. The world calls these when something has changed; the first violation is kept in
 * World.bad. docs/ownership.md says why each holds.
 *
 *   doubled     the VM never runs on both sides
 *   stale       nothing runs a copy that the source has gone on without
 *   destroyed   a VMM is ended only when a better one exists
 *   no way back the source never runs again after vCPUs or a device have run at the destination
 *   unpaged     the destination never runs without what the source's device wrote into the VM's memory
 *   ungated     no VMM starts with a device of its own whose state was not accepted before
 *   not held    the source does not go on without what its device has lost, where policy has it stand
 *   untold      a device that its VMM has reset is in the result, wherever the VM goes on
 *   unrecorded  no device or vCPU of the destination moves before owner=destination is durable; owner=nobody is
 *               durable only while source device and VMM stand still; and nothing is said before it is written
 *   not owner   no device runs at a source that has given the VM up
 *   peers       of devices that are ours none runs in full while another stands, except where neither can be quiet: so all
 *               are in a grace phase before one goes past it, out and back. One with which something went wrong does not
 *               hold the others up on the way back, or where there is none
 *   unready     READY is said when every device has accepted its state and stands
 *   undirty     which pages a device has written is asked when it writes no more
 *   untrue      a source whose job ends as done, the VM has run at the destination
 *   error       a device leaves ERROR by a reset only
 *   untimed     who is waited for has a time
 *   no end      from every state an end can be reached in which one side runs the VM and both halves are finished,
 *               or a person is asked, or the VM is lost with its VMM; and nothing goes round in a circle by itself
 *   in vain     nothing is ever asked of a person that need not be
 */

#include "world.h"

enum {
        FINE,
        DOUBLED,
        STALE,
        DESTROYED_S,
        DESTROYED_D,
        AGAIN,
        UNRECORDED,
        UNPAGED,
        UNGATED,
        UNTOLD,
        MOVING_NOBODY,
        NOT_HELD,
        SAID_EARLY,
        NOT_OWNER,
        PEERS,
        UNREADY,
        UNDIRTY,
        UNTRUE,
        LEFT_ERROR,
        UNTIMED,
        NO_END,
        ROUND,
        ASKED_IN_VAIN,
        BAD_MAX
};

extern const char *const bad_names[BAD_MAX];

/* The destination has all there is of the VM. */
bool is_complete(const World *w);
bool device_may_move(const Daemon *d, uint32_t i);

void check_vmm_runs(World *w, int side);
void check_device_state(World *w, int side, uint32_t device, DeviceState was);
void check_vmm_ends(World *w, int side);
void check_vmm_begins(World *w);
void check_record(World *w, int side, Owner owner);
void check_message(World *w, int side, Message message);
void check_dirty(World *w, int side, uint32_t device);
void check_half(World *w, int side, HalfState was);
void check_all(World *w);
