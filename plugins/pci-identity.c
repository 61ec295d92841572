/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a PCI device of the kernel is, out of sysfs, and whether another one can be it. A device of another kind never takes
 * the state; of another firmware or board it may, or its driver refuses: that is said beforehand. */

#include <stdio.h>

#include "plugins/migmgr-plugin.h"

#define NAME "pci-identity"

/* What becomes a fact, under the same name; and what it means if the two hosts have not the same. */
static const struct {
        const char *name;
        int differs; /* enum migmgr_answer */
        const char *remedy;
} facts[] = {
        {"device", MIGMGR_NO, "take a device of the same vendor and device id at the destination"},
        {"subsystem", MIGMGR_NO, "take a device of the same subsystem ids at the destination"},
        {"class", MIGMGR_NO, "take a device of the same class at the destination"},
        {"driver", MIGMGR_NO, "bind both devices to the same VFIO driver"},
        {"revision", MIGMGR_DEGRADED,
         "take a device of the same revision, or see that its driver takes the state"},
        {"firmware", MIGMGR_DEGRADED,
         "flash the same firmware on both, or see that its driver takes the state"},
        {"board", MIGMGR_DEGRADED, "take the same board, or see that its driver takes the state"},
        {"sriov-parent", MIGMGR_YES, ""},
        {"numa-node", MIGMGR_YES, ""},
};

static const char *value_of(const struct migmgr_device *device, const char *name)
{
        if (strcmp(name, "driver") == 0)
                return device->driver[0] ? device->driver : NULL;
        return migmgr_attribute(device, name);
}

static int match(const struct migmgr_device *device, struct migmgr_reply *reply)
{
        return strcmp(device->type, "vfio") == 0 && migmgr_attribute(device, "device") ? MIGMGR_YES
                                                                                       : MIGMGR_NO;
}

static int describe(const struct migmgr_device *device, struct migmgr_reply *reply)
{
        for (size_t i = 0; i < sizeof facts / sizeof facts[0]; i++) {
                const char *value = value_of(device, facts[i].name);

                if (value && reply->fact(reply, facts[i].name, value) < 0)
                        return -1;
        }
        return 0;
}

/* A refusal at once, else the first thing that differs. What one side does not know is no difference: its device may not
 * be there yet. */
static int check(const struct migmgr_device *source, const struct migmgr_device *destination,
                 struct migmgr_reply *reply)
{
        int worst = MIGMGR_YES;

        for (size_t i = 0; i < sizeof facts / sizeof facts[0]; i++) {
                char key[64];

                if (facts[i].differs == MIGMGR_YES || (worst != MIGMGR_YES && facts[i].differs != MIGMGR_NO))
                        continue;
                (void) snprintf(key, sizeof key, NAME ".%s", facts[i].name);
                if (!migmgr_differs(source, destination, key, facts[i].name, reply))
                        continue;
                worst = facts[i].differs;
                (void) snprintf(reply->remedy, sizeof reply->remedy, "%s", facts[i].remedy);
                if (worst == MIGMGR_NO)
                        break;
        }
        return worst;
}

MIGMGR_PLUGIN = {
        .abi = MIGMGR_PLUGIN_ABI,
        .size = sizeof(struct migmgr_plugin),
        .name = NAME,
        .version = "1",
        .match = match,
        .describe = describe,
        .check = check,
};
