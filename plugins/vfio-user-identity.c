/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What the device of a vfio-user server is, out of its PCI config space, and whether another one can be it. */

#include <stdio.h>

#include "plugins/migmgr-plugin.h"

#define NAME "vfio-user-identity"

/* Little-endian numbers in the head of PCI config space. */
enum {
        VENDOR = 0x00,
        DEVICE = 0x02,
        REVISION = 0x08,
        CLASS = 0x09,
        SUBSYSTEM_VENDOR = 0x2c,
        SUBSYSTEM = 0x2e,
        HEAD = 0x30
};

static const struct {
        const char *name;
        int differs; /* enum migmgr_answer */
        const char *remedy;
} facts[] = {
        {"device", MIGMGR_NO, "start a server for the same kind of device at the destination"},
        {"class", MIGMGR_NO, "start a server for the same kind of device at the destination"},
        {"subsystem", MIGMGR_NO, "start the server at the destination as the one at the source"},
        {"revision", MIGMGR_DEGRADED, "use the same version of the server on both hosts"},
};

static unsigned int get16(const struct migmgr_device *device, size_t at)
{
        return device->config[at] | (unsigned int) device->config[at + 1] << 8;
}

static int match(const struct migmgr_device *device, struct migmgr_reply *reply)
{
        return strcmp(device->type, "vfio-user") == 0 && device->config_size >= HEAD &&
                               get16(device, VENDOR) != 0xffff
                       ? MIGMGR_YES
                       : MIGMGR_NO;
}

static int describe(const struct migmgr_device *device, struct migmgr_reply *reply)
{
        const uint8_t *config = device->config;
        char text[16];

        (void) snprintf(text, sizeof text, "%04x:%04x", get16(device, VENDOR), get16(device, DEVICE));
        if (reply->fact(reply, "device", text) < 0)
                return -1;
        (void) snprintf(text, sizeof text, "%04x:%04x", get16(device, SUBSYSTEM_VENDOR),
                        get16(device, SUBSYSTEM));
        if (reply->fact(reply, "subsystem", text) < 0)
                return -1;
        (void) snprintf(text, sizeof text, "%02x%02x%02x", config[CLASS + 2], config[CLASS + 1],
                        config[CLASS]);
        if (reply->fact(reply, "class", text) < 0)
                return -1;
        (void) snprintf(text, sizeof text, "%02x", config[REVISION]);
        return reply->fact(reply, "revision", text);
}

static int check(const struct migmgr_device *source, const struct migmgr_device *destination,
                 struct migmgr_reply *reply)
{
        for (size_t i = 0; i < sizeof facts / sizeof facts[0]; i++) {
                char key[64];

                (void) snprintf(key, sizeof key, NAME ".%s", facts[i].name);
                if (!migmgr_differs(source, destination, key, facts[i].name, reply))
                        continue;
                (void) snprintf(reply->remedy, sizeof reply->remedy, "%s", facts[i].remedy);
                return facts[i].differs;
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
};
