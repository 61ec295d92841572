/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What every part of the daemon may use: made by main, lives as long as the daemon. */

#include "config.h"
#include "helper-client.h"
#include "loop.h"
#include "parking.h"
#include "plugin/plugins.h"
#include "policy-files.h"
#include "store/store.h"

typedef struct Host {
        Config config;
        Loop *loop;
        HelperClient *helper;
        Parking *parking;
        Store *store;
        Plugins *plugins;
        PolicyFiles *
                policies; /* in force; they change as a whole, and a job that runs keeps what it began with */
        const char *host_id; /* never changes; what peers know us by */
        char boot_id[UUID_TEXT_MAX + 1];
} Host;
