/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* All plugins of this host, and what they say of one device. Nothing here waits: answers come from the loop. */

#include "common/json.h"
#include "daemon/core/manifest.h"
#include "plugin.h"

#define PLUGINS_MAX 64
#define PLUGINS_FACTS_MAX \
        (MANIFEST_FACTS_MAX - 16) /* of one device; the rest is for what migmgrd knows itself */

typedef struct Plugins Plugins;

/* A device, as far as this host knows it; for the time of a call. Texts are copied by whoever keeps them. */
typedef struct PluginDevice {
        const char *vm, *id, *type, *driver;
        uint32_t n_attributes;
        const struct migmgr_text *attributes;
        uint32_t config_size;
        const uint8_t *config;
} PluginDevice;

/* What plugins say of one device, at one host. */
typedef struct PluginsView {
        ManifestDevice said; /* its facts and plugins only, as they go into the manifest */
        uint32_t n_plugins;
        Plugin *plugins[PLUGINS_MAX]; /* those whose it is, in the order of `said` */
        json_object *findings;        /* plugins that could not say; as findings_to_json() makes them */
        uint64_t bytes;               /* the most that one of them expects; 0: none does */
        uint64_t usec[PHASE_MAX];
        char estimator[MIGMGR_NAME_MAX + 1]; /* who does */
} PluginsView;

void plugins_view_deinit(PluginsView *view);

/* Starts what lies in `folder` as *.so, in the order of names. One that is not there is an empty one. `host_program` outlives
 * it. -ENOMEM; -EPERM, said why: the folder can't be read, or others may write it. */
int plugins_new(Loop *loop, const char *folder, const char *host_program, Plugins **ret) _must_check_;
Plugins *plugins_free(Plugins *plugins);

/* None: nobody needs to be asked. */
bool plugins_are_none(const Plugins *plugins);

/* Whose a device is, and what they know of it. `view` is empty, is filled in, and stays where it is until `done`, which is called
 * later; or until plugins_forget(). `side` is the one whose findings these are. */
void plugins_look(Plugins *plugins, const PluginDevice *device, Side side, PluginsView *view,
                  LoopCallback done, void *userdata);

/* Plugins that judge at the source and are not here, or of which the source says nothing: nobody can say what they would. Appended to `findings`, while these are few. */
void plugins_find_missing(const Plugins *plugins, const ManifestDevice *source, json_object *findings);

/* Whether the device of the source can become that of the destination, which asks: for each plugin of either that judges. What
 * speaks against it is appended to `findings`, which is kept until `done`, called later. */
void plugins_check(Plugins *plugins, const PluginDevice *device, const ManifestDevice *source,
                   const PluginsView *view, json_object *findings, LoopCallback done, void *userdata);

typedef struct PluginTransition {
        Side side;
        Phase phase;
        DeviceState from, to;
        int error;              /* negative errno */
        const char *text;       /* of the agent, when there is an error */
        uint64_t deadline_usec; /* of the device's whole command */
        uint64_t spent_usec;    /* on such calls in this phase already */
} PluginTransition;

/* What came of asking all of a device's plugins that have declared the phase. `text`: whose word it is, and why. */
typedef void (*PluginsDecided)(void *userdata, PluginVerdict verdict, const char *text, uint64_t took_usec);

/* Before or after a transition (PLUGIN_CALL_BEFORE, _AFTER), or after one that has failed (PLUGIN_CALL_ON_ERROR; `tried`: it
 * was tried again already). True: `decided` is called, later; false: nobody has to be asked. */
bool plugins_ask(Plugins *plugins, PluginCall call, const PluginDevice *device, const PluginsView *view,
                 const PluginTransition *transition, bool tried, PluginsDecided decided, void *userdata);

/* Nobody waits for what was asked with that userdata any more. */
void plugins_forget(Plugins *plugins, const void *userdata);

/* What the plugins of one device may take in a phase, in milliseconds. They are asked at the same time: of each
 * function the largest counts. */
uint32_t plugins_phase_ms(const PluginsView *view, Phase phase);

/* For people: [{"name", "version", "file", "state", "restarts", "phases", "text"}]. */
json_object *plugins_to_json(const Plugins *plugins);
