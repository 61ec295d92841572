/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The guest: a program that works its devices as hard as it can and checks all that it sees.
 *
 * Everything that it knows is in the guest's memory (guest-memory.h): how far it is, what each device must answer
 * next, what must stand in every buffer. So it goes on wherever that memory and the devices are, and a page or a
 * device that is not what it was is found by the program itself, at the step that meets it. It then says what it
 * saw, and stops for good: the text is in the memory, too.
 *
 * A VMM runs it in micro-steps, each with at most a few accesses. Between two of them nothing is under way but what
 * the devices do by themselves.
 */

#include "device.h"

#define GUEST_DEVICES_MAX 16
#define GUEST_BROKEN_MAX  512

typedef struct Guest {
        Ram *ram;
        Device **devices; /* n_devices of them, the same at both ends */
        unsigned n_devices;
        uint8_t *buffer; /* for one step; nothing stays in it */
} Guest;

typedef enum GuestStep {
        GUEST_WORKED,
        GUEST_WAITS,  /* this step had nothing to do */
        GUEST_BROKEN, /* it has stopped for good */
} GuestStep;

/* What one device has done for its guest, in all. */
typedef struct GuestDeviceCount {
        uint64_t commands, interrupts, ticks, tick_interrupts, bytes;
} GuestDeviceCount;

/* `ram` and `devices` outlive it. -ENOMEM. */
int guest_init(Guest *guest, Ram *ram, Device **devices, unsigned n_devices) _must_check_;
void guest_done(Guest *guest);

/* Writes the program's first state into the memory. -ENOSPC: that is too small. */
int guest_boot(Guest *guest) _must_check_;

/* One micro-step. */
GuestStep guest_step(Guest *guest);

/* The guest has run, or waited for its devices, for so long: what it measures its patience with. */
void guest_pass(Guest *guest, uint64_t usec);

/* Of the memory, whatever runs meanwhile: for people and tests. */
uint64_t guest_steps(const Guest *guest);
uint64_t guest_chain(const Guest *guest);
void guest_count(const Guest *guest, unsigned device, GuestDeviceCount *ret);
/* What it found, empty when nothing; GUEST_BROKEN_MAX at most. */
void guest_broken(const Guest *guest, char ret[GUEST_BROKEN_MAX]);
