/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What a device says of itself when it is opened, beside its flags: read by its agent, judged elsewhere. Goes from agent to
 * daemon as it is. */

#include <stdint.h>

#define DEVICE_CONFIG_MAX 64 /* bytes of PCI config space: the header, with all that tells what it is */

typedef enum DeviceWindows {
        DEVICE_WINDOWS_UNKNOWN, /* it does not say */
        DEVICE_WINDOWS_NONE,    /* no BAR of it can be mapped: nobody can reach one but through its VMM */
        DEVICE_WINDOWS_SOME,
        DEVICE_WINDOWS_MAX,
} DeviceWindows;

typedef struct DeviceIdentity {
        uint64_t state_bytes; /* it would give so much if it were stopped now; 0: it does not say */
        uint32_t n_config;    /* bytes of `config` that could be read */
        uint32_t windows;     /* DeviceWindows */
        uint8_t config[DEVICE_CONFIG_MAX];
} DeviceIdentity;
