/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The interrupts of a device: the eventfds that its client has given for them. Owned by the Device, and gone with the
 * client.
 */

#include "common/macros.h"

#define IRQ_INDEXES   5 /* INTx, MSI, MSI-X, ERR, REQ */
#define IRQ_COUNT_MAX 2

typedef struct Irqs {
        int fds[IRQ_INDEXES][IRQ_COUNT_MAX]; /* -1: nobody hears it */
} Irqs;

void irqs_init(Irqs *irqs);
/* Nobody hears anything any more. */
void irqs_clear(Irqs *irqs);

/* How many interrupts index < IRQ_INDEXES has. */
unsigned irq_count(unsigned index);

/* Whatever else is written to could take the eight bytes for something, or never take them. */
bool irq_is_eventfd(int fd);

/* Takes `fd`, which is one; -1: nobody hears it any more. */
void irq_set(Irqs *irqs, unsigned index, unsigned n, int fd);

/* Lost where nobody hears it. */
void irq_signal(const Irqs *irqs, unsigned index, unsigned n);
