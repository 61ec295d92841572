/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Says of every call that it was made and what it was about, in migmgrd's journal, and has nothing against anything. For people
 * who write a plugin, or wonder what a device is asked and when. */

#include <stdio.h>

#include "plugins/migmgr-plugin.h"

/* A line is written in much less. */
#define BUDGET_MS 20

static const char *const phases[MIGMGR_PHASES] = {
        "check",  "prepare",  "precopy",       "viommu-grace", "halt", "p2p-grace", "drain",
        "intake", "handover", "arrival-grace", "run-devices",  "run",  "release"};

static void record(const char *what, const struct migmgr_device *device, struct migmgr_reply *reply)
{
        char line[MIGMGR_TEXT_MAX];

        (void) snprintf(
                line, sizeof line,
                "%s: VM %s, device %.64s, %s, driver \"%.32s\", %u attributes, %u facts, %u bytes of config space",
                what, device->vm, device->id, device->type, device->driver, device->n_attributes,
                device->n_facts, device->config_size);
        reply->log(reply, line);
}

static int record_transition(const char *what, const struct migmgr_device *device,
                             const struct migmgr_transition *transition, struct migmgr_reply *reply)
{
        char line[MIGMGR_TEXT_MAX];

        (void) snprintf(line, sizeof line, "%s %s: VM %s, device %.64s, state %d to %d, error %d %.60s", what,
                        phases[transition->phase], device->vm, device->id, (int) transition->from,
                        (int) transition->to, (int) transition->error, transition->text);
        reply->log(reply, line);
        return MIGMGR_YES;
}

static int match(const struct migmgr_device *device, struct migmgr_reply *reply)
{
        record("match", device, reply);
        return MIGMGR_YES;
}

static int describe(const struct migmgr_device *device, struct migmgr_reply *reply)
{
        record("describe", device, reply);
        return 0;
}

static int estimate(const struct migmgr_device *device, struct migmgr_reply *reply)
{
        record("estimate", device, reply);
        return 0;
}

static int before(const struct migmgr_device *device, const struct migmgr_transition *transition,
                  struct migmgr_reply *reply)
{
        return record_transition("before", device, transition, reply);
}

static int after(const struct migmgr_device *device, const struct migmgr_transition *transition,
                 struct migmgr_reply *reply)
{
        return record_transition("after", device, transition, reply);
}

static int on_error(const struct migmgr_device *device, const struct migmgr_transition *transition,
                    struct migmgr_reply *reply)
{
        (void) record_transition("on_error", device, transition, reply);
        return MIGMGR_GIVE_UP;
}

#define EACH_PHASE                                                                                           \
        {                                                                                                    \
                [MIGMGR_PREPARE] = BUDGET_MS, [MIGMGR_PRECOPY] = BUDGET_MS,                                  \
                [MIGMGR_VIOMMU_GRACE] = BUDGET_MS, [MIGMGR_P2P_GRACE] = BUDGET_MS,                           \
                [MIGMGR_DRAIN] = BUDGET_MS, [MIGMGR_INTAKE] = BUDGET_MS, [MIGMGR_ARRIVAL_GRACE] = BUDGET_MS, \
                [MIGMGR_RUN_DEVICES] = BUDGET_MS                                                             \
        }

/* No check(): with one it would have to be on both hosts. */
MIGMGR_PLUGIN = {
        .abi = MIGMGR_PLUGIN_ABI,
        .size = sizeof(struct migmgr_plugin),
        .name = "recorder",
        .version = "1",
        .before_ms = EACH_PHASE,
        .after_ms = EACH_PHASE,
        .error_ms = EACH_PHASE,
        .match = match,
        .describe = describe,
        .before = before,
        .after = after,
        .on_error = on_error,
        .estimate = estimate,
};
