/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Linux's sample driver of mediated devices, serial ports of which there are two types: mtty-1 with one port, mtty-2 with
 * two. A state of the one is not taken by the other. */

#include <stdio.h>

#include "plugins/migmgr-plugin.h"

#define NAME "mtty"

/* Of the state, as samples/vfio-mdev/mtty.c of Linux 6.8 to 6.12 writes it. */
#define STATE_VERSION "1.0"

/* With one port 60 were seen. */
#define STATE_BYTES 128

static int match(const struct migmgr_device *device, struct migmgr_reply *reply)
{
        const char *type = migmgr_attribute(device, "mdev-type");

        return strcmp(device->type, "vfio") == 0 && type && strncmp(type, "mtty-", 5) == 0 ? MIGMGR_YES
                                                                                           : MIGMGR_NO;
}

static int describe(const struct migmgr_device *device, struct migmgr_reply *reply)
{
        if (reply->fact(reply, "type", migmgr_attribute(device, "mdev-type")) < 0)
                return -1;
        return reply->fact(reply, "state-version", STATE_VERSION);
}

static int estimate(const struct migmgr_device *device, struct migmgr_reply *reply)
{
        reply->bytes = STATE_BYTES;
        return 0;
}

static int check(const struct migmgr_device *source, const struct migmgr_device *destination,
                 struct migmgr_reply *reply)
{
        static const struct {
                const char *key, *remedy;
        } must[] = {
                {NAME ".type", "make an mdev of the same type at the destination"},
                {NAME ".state-version", "use kernels whose mtty writes the same version"},
        };

        for (size_t i = 0; i < sizeof must / sizeof must[0]; i++) {
                if (!migmgr_differs(source, destination, must[i].key, must[i].key, reply))
                        continue;
                (void) snprintf(reply->remedy, sizeof reply->remedy, "%s", must[i].remedy);
                return MIGMGR_NO;
        }
        return MIGMGR_YES;
}

MIGMGR_PLUGIN = {
        .abi = MIGMGR_PLUGIN_ABI,
        .size = sizeof(struct migmgr_plugin),
        .name = NAME,
        .version = "1",
        .match = match,
        .describe = describe,
        .check = check,
        .estimate = estimate,
};
