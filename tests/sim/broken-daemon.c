/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* migmgrd-broken: migmgrd with one barrier between devices left out, to see whether devices that write each other's memory
 * notice (tests/system/p2p.py). All of it is migmgrd's own, but for the table by which halves go: the linker gives whoever
 * asks for half_table the one below (--wrap). Which barrier the environment says: MIGMGR_BREAK. */

#include <stdio.h>

#include "daemon/core/half-table.h"

extern const HalfTable __real_half_table;
HalfTable __wrap_half_table;

static HalfStateDesc states[HALF_STATE_MAX];

/* Of a device that no VMM drives this asks nothing; a state without any act would wait for ever. */
#define ASKS_NOTHING DEVICE_ACT_GRACE

static const struct {
        const char *name;
        HalfState state;
} barriers[] = {
        {"p2p-grace", SOURCE_P2P_GRACE},
        {"stop-rest", SOURCE_STOP_REST},
        {"arrival-grace", DESTINATION_ARRIVE},
};

__attribute__((constructor)) static void break_table(void)
{
        const char *name = getenv("MIGMGR_BREAK");

        memcpy(states, __real_half_table.states, sizeof states);
        __wrap_half_table = __real_half_table;
        __wrap_half_table.states = states;
        for (size_t i = 0; name && i < ARRAY_SIZE(barriers); i++)
                if (streq(barriers[i].name, name)) {
                        states[barriers[i].state].device = ASKS_NOTHING;
                        return;
                }
        fputs("MIGMGR_BREAK: p2p-grace, stop-rest or arrival-grace\n", stderr);
        exit(EXIT_FAILURE);
}
