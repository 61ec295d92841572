/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* One plugin and its process: started, watched, ended, started anew. Everything that it says is bounded and judged here;
 * nothing that it does costs more than the time of a call. */

#include "daemon/core/plugin-verdict.h"
#include "daemon/loop.h"
#include "plugin-protocol.h"

/* A function that has not returned within this is not going to. */
#define PLUGIN_HANG_USEC (1 * USEC_PER_SEC)
/* Loading it. */
#define PLUGIN_LOAD_USEC (5 * USEC_PER_SEC)
/* How long its process is left ended: twice as long each time, up to the second; from the start again when it has lived
 * for the third. */
#define PLUGIN_BACK_OFF_USEC     (100 * USEC_PER_MSEC)
#define PLUGIN_BACK_OFF_MAX_USEC (30 * USEC_PER_SEC)
#define PLUGIN_STEADY_USEC       (10 * USEC_PER_SEC)

typedef struct Plugin Plugin;

typedef enum PluginState {
        PLUGIN_STATE_STARTING,
        PLUGIN_STATE_READY,
        PLUGIN_STATE_ENDED,   /* to be started anew after a while */
        PLUGIN_STATE_REFUSED, /* it can't be loaded, and will not be */
        PLUGIN_STATE_MAX,
        PLUGIN_STATE_INVALID = -EINVAL,
} PluginState;

DECLARE_STRING_TABLE(PluginState, plugin_state);

/* The answer, when `end` is one; `text`: what is wrong, when it is none. Both live as long as the call. */
typedef void (*PluginAnswered)(void *userdata, Plugin *plugin, PluginEnd end, const PluginAnswer *answer,
                               const char *text);

/* `fd`, taken over, is the file: looked at, and read-only. `file` is its name without the folder. `trouble`: it must not be
 * loaded, and why; else NULL. -ENOMEM. */
int plugin_new(Loop *loop, const char *host_program, const char *file, int fd, const char *trouble,
               Plugin **ret) _must_check_;
/* Calls that wait are forgotten. */
Plugin *plugin_free(Plugin *plugin);

/* Asks. Answered once, later, at the latest after `budget_usec`. `urgent`: before all that only wait. The packet's id is set
 * here. */
void plugin_ask(Plugin *plugin, PluginPacket *packet, uint64_t budget_usec, bool urgent,
                PluginAnswered answered, void *userdata);

/* Nobody waits for what was asked with that userdata any more. */
void plugin_forget(Plugin *plugin, const void *userdata);

/* Its name; that of its file without ".so" when it has not been loaded yet. */
const char *plugin_name(const Plugin *plugin);
const char *plugin_file(const Plugin *plugin);
PluginState plugin_state(const Plugin *plugin);
/* What it has said of itself; zero when it has not been loaded yet. */
const PluginHello *plugin_hello(const Plugin *plugin);
/* Why it is not ready, or why it ended last; or "". */
const char *plugin_text(const Plugin *plugin);
uint32_t plugin_restarts(const Plugin *plugin);
/* It may not be used, ever: another one has its name. */
void plugin_refuse(Plugin *plugin, const char *text);

/* Called when it has said HELLO. */
void plugin_on_ready(Plugin *plugin, void (*ready)(void *userdata, Plugin *plugin), void *userdata);
