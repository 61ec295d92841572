/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the administrator sets: options of the command line, then migmgrd.json and the files beside it. Read once at
 * start, owned by main, read-only after that. */

#include <stdint.h>

#include "common/macros.h"
#include "daemon/store/limits.h"

#define CONFIG_LISTEN_MAX        8
#define CONFIG_POLICIES_DIRS_MAX 8
#define CONFIG_FENCE_MAX         32

typedef struct Config {
        const char *runtime_dir; /* sockets */
        const char *state_dir;   /* records */
        const char *config_file; /* migmgrd.json; a directory NAME.d beside it adds to it */
        const char *vms_dir;     /* definitions, one file each; owned unless the default */
        const char *plugins_dir; /* *.so of plugins; owned unless the default */
        const char *plugin_host; /* the program in which one plugin runs */
        const char *bus_address; /* NULL: the system bus */
        uint32_t n_listen;
        char *listen[CONFIG_LISTEN_MAX]; /* addresses, beside peer.sock; owned */
        uint32_t n_fence;
        char *fence[CONFIG_FENCE_MAX + 1]; /* argv of the command that fences; owned */
        uint64_t fence_usec;               /* so long it may take */
        StoreLimits history;
        uint32_t n_policies_dirs;
        char *policies_dirs[CONFIG_POLICIES_DIRS_MAX]; /* of policy files, least important first; owned */
        uint64_t connect_usec; /* connecting to a device server and its VERSION answer */
        uint64_t doubt_usec;   /* GO without an answer for this long: the job is in doubt */
} Config;

extern const Config config_default;

/* Reads config_file, where there is one, and then DIR/NAME.d in the order of their names. -EINVAL: `ret_error`
 * (JSON_TEXT_MAX bytes) names file, key and value. */
int config_read(Config *config, char *ret_error);

/* Frees what was read, and what it says is the default again. */
void config_deinit(Config *config);
