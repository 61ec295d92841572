/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The table of commands: which fault place a command has, in which states it is allowed, how long it is at least, and
 * who does it. Anything absent is refused.
 */

#include "client.h"

typedef struct Command {
        FaultPlace place;
        uint16_t states; /* one bit a state; elsewhere it is EINVAL */
        size_t payload_min;
        /* 0: client_reply() has the payload. DEVICE_UNDER_WAY: client_device_done() will be called. Else an errno. */
        int (*handle)(Client *client);
} Command;

/* NULL: there is no such command. */
const Command *command_get(uint16_t number);
