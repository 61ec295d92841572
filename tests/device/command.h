/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The table of commands: which fault place a command has, in which states it is allowed, how long it is at least, and
 * who does it. Anything absent is refused.
 */

#include "client.h"

typedef enum CommandGroup {
        SERVED_BY_ALL,
        SET_UP_OF_ALL, /* served by all; a worker that is not strict serves it in all states */
        SET_UP,        /* the same, and only devices with a worker have it */
} CommandGroup;

typedef struct Command {
        FaultPlace place;
        uint16_t states; /* one bit a state; elsewhere it is EINVAL */
        CommandGroup group;
        size_t payload_min;
        /* 0: client_reply() has the payload. DEVICE_UNDER_WAY: client_device_done() will be called. Else an errno. */
        int (*handle)(Client *client);
} Command;

/* NULL: there is no such command. */
const Command *command_get(uint16_t number);

/* Whether a device takes it, in the state that it is in. */
bool command_is_served(const Command *c, const Device *d);
