/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* One vfio-user device, as a VMM sees it: the VMM's side of the protocol (QEMU's docs/interop/vfio-user.rst).
 *
 * Each device has a thread of its own that reads what comes from the server: replies, which it hands to who waits for
 * them, and DMA_READ and DMA_WRITE, which it serves from the guest's memory. Those come on the twin socket when the
 * server grants one, else among the replies. One access is open at a time: there is one vCPU.
 *
 * For the migration of the device itself there is nothing here. Whoever moves the devices (migmgr's agent) stands
 * between this socket and the server; all that a VMM has to do is to stop its vCPUs first, and to set up the device at
 * the destination before the state comes: DMA_MAP and SET_IRQS are no device state.
 */

#include "ram.h"

#define DEVICE_ID_MAX      63
#define DEVICE_VECTORS_MAX 2

typedef struct Device Device;

/* Connects to the server at `path`, which may only be about to listen: tried until `deadline_usec`, or until
 * `cancel_fd` is readable (-ECANCELED). Sets up the device: its regions, interrupts and memory. The memory is the
 * caller's and must outlive the device. On failure `text` says what went wrong. */
int device_new(const char *id, const char *path, Ram *ram, uint64_t deadline_usec, int cancel_fd,
               Device **ret, char *text, size_t text_size) _must_check_;
Device *device_free(Device *device);
DEFINE_CLEANUP(Device *, device_free);

/* Ends the connection: an access that is open fails, as all later ones. */
void device_disconnect(Device *device);

const char *device_id(const Device *device);

/* What the guest does with its device: an access as one message. Returns when it is answered, with the negative errno of
 * the answer or of what ended the connection. */
int device_read(Device *device, uint32_t region, uint64_t offset, void *ret, uint32_t n) _must_check_;
int device_write(Device *device, uint32_t region, uint64_t offset, const void *data, uint32_t n) _must_check_;

/* A posted write: it is not answered, and whether it was done can only be seen at the device. */
int device_post(Device *device, uint32_t region, uint64_t offset, const void *data, uint32_t n) _must_check_;

/* DEVICE_RESET. */
int device_reset(Device *device) _must_check_;

/* Gives it the mailbox of another device, at an address of its DMA: what the guest lets its devices do among themselves. Nothing
 * if one of the two has none. -EINVAL and what the server answers. */
int device_map_peer(Device *device, const Device *peer, uint64_t address) _must_check_;
/* That address; 0: there is none. */
uint64_t device_peer_address(const Device *device);

/* The mapping of the window; NULL: the server gave none, it is accessed like the other regions. */
volatile uint8_t *device_window(Device *device);

/* The eventfd of a vector, to wait for it. */
int device_interrupt_fd(const Device *device, unsigned vector);

/* Signals of that vector since the last call. */
uint64_t device_take_interrupts(Device *device, unsigned vector);

/* The same without taking them: what is pending there while nobody signals or takes. */
uint64_t device_pending_interrupts(Device *device, unsigned vector);

/* Signals that the guest has still to get from before the move. */
void device_add_interrupts(Device *device, unsigned vector, uint64_t n);
