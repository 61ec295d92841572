/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "policy-rules.h"

#include <stdio.h>

/* ---- keys ----------------------------------------------------------------------------------------------------- */

#define DEADLINE(phase_name, msec)                                                         \
        {                                                                                  \
                .name = "deadline-ms." phase_name, .scope = POLICY_SCOPE_BOTH, .least = 1, \
                .most = 3600 * 1000, .standard = (msec),                                   \
                .help = "milliseconds that each participant may take in phase " phase_name \
        }

static const PolicyKeyDesc keys[POLICY_KEY_MAX] = {
        [POLICY_P2P] = {.name = "p2p",
                        .words = {"require", "isolate", "single", "accept-risk"},
                        .help = "what a device without the P2P states needs to be moved"},
        [POLICY_NDMA] = {.name = "ndma",
                         .words = {"none", "full"},
                         .help = "full: in its P2P states the device starts no DMA at all"},
        [POLICY_VIOMMU_GRACE] = {.name = "viommu-grace",
                                 .scope = POLICY_SCOPE_VM,
                                 .words = {"off", "auto", "require"},
                                 .standard = POLICY_AUTO,
                                 .help = "devices go to their P2P states while vCPUs still run"},
        [POLICY_PRECOPY] = {.name = "precopy",
                            .words = {"off", "auto", "require"},
                            .standard = POLICY_AUTO,
                            .help = "state goes out while the device runs"},
        [POLICY_PRECOPY_LIMIT_MSEC] = {.name = "precopy-limit.msec",
                                       .most = 3600 * 1000,
                                       .standard = 10000,
                                       .help = "... for at most so many milliseconds; 0: no limit"},
        [POLICY_PRECOPY_LIMIT_MIB] = {.name = "precopy-limit.mib",
                                      .most = 1024 * 1024,
                                      .help = "... or so many MiB; 0: no limit"},
        [POLICY_PRECOPY_LIMIT_RATE_KIB] = {.name = "precopy-limit.rate-kib",
                                           .most = 1024 * 1024 * 1024,
                                           .standard = 1024,
                                           .help = "... or until it gives less than so many KiB in a second"},
        [POLICY_RETRY] = {.name = "retry",
                          .most = 100,
                          .help = "times that a transition is tried anew which failed and moved nothing"},
        [POLICY_ON_ERROR] = {.name = "on-error",
                             .words = {"reset", "quarantine", "keep"},
                             .help = "what is done with a device that has failed and does not run"},
        [POLICY_ON_SOURCE_LOSS] =
                {.name = "on-source-loss",
                 .words = {"degraded-run", "pause"},
                 .help = "what the VM does at the source when the device has lost its state there"},
        [POLICY_AFTER_GRACE] = {.name = "after-grace",
                                .scope = POLICY_SCOPE_VM,
                                .words = {"back", "degraded"},
                                .help = "what a failure in phase arrival-grace leads to"},
        [POLICY_MAX_STATE_MIB] =
                {.name = "max-state-mib",
                 .most = 1024 * 1024,
                 .help = "a device with more state than so many MiB is not moved; 0: no limit"},
        [POLICY_MAX_BLACKOUT_MS] =
                {.name = "max-blackout-ms",
                 .scope = POLICY_SCOPE_VM,
                 .most = 3600 * 1000,
                 .help = "a VM that would stand still for longer is turned back; 0: no limit"},
        [POLICY_BANDWIDTH_MIB] = {.name = "bandwidth-mib",
                                  .scope = POLICY_SCOPE_VM,
                                  .most = 1024 * 1024,
                                  .help = "MiB a second of memory and state while the VM runs; 0: no limit"},
        [POLICY_ORDER] =
                {.name = "order",
                 .most = 255,
                 .help = "forward, devices with a lower number are asked before those with a higher one"},
        [POLICY_OPAQUE] = {.name = "opaque",
                           .scope = POLICY_SCOPE_VM,
                           .words = {"refuse", "allow"},
                           .help = "a VM with a device that is in no definition"},
        [POLICY_SUPERVISED_GRACE] = {.name = "supervised-grace",
                                     .scope = POLICY_SCOPE_VM,
                                     .words = {"off", "auto"},
                                     .standard = POLICY_AUTO,
                                     .help = "devices that QEMU drives are quieted while vCPUs still run"},
        [POLICY_SUPERVISED_PUSH] = {.name = "supervised-push",
                                    .scope = POLICY_SCOPE_VM,
                                    .words = {"off", "auto"},
                                    .standard = POLICY_AUTO,
                                    .help = "... and go through their last states together"},
        [POLICY_SUPERVISED_LAST_ARC] = {.name = "supervised-last-arc",
                                        .scope = POLICY_SCOPE_VM,
                                        .words = {"degraded", "back"},
                                        .help = "what a device of QEMU's that fails to run leads to"},
        [POLICY_DEADLINE + PHASE_CHECK] = DEADLINE("check", 5000),
        [POLICY_DEADLINE + PHASE_PREPARE] = DEADLINE("prepare", 5000),
        [POLICY_DEADLINE + PHASE_PRECOPY] = DEADLINE("precopy", 60000),
        [POLICY_DEADLINE + PHASE_VIOMMU_GRACE] = DEADLINE("viommu-grace", 5000),
        [POLICY_DEADLINE + PHASE_HALT] = DEADLINE("halt", 5000),
        [POLICY_DEADLINE + PHASE_P2P_GRACE] = DEADLINE("p2p-grace", 5000),
        [POLICY_DEADLINE + PHASE_DRAIN] = DEADLINE("drain", 60000),
        [POLICY_DEADLINE + PHASE_INTAKE] = DEADLINE("intake", 5000),
        [POLICY_DEADLINE + PHASE_HANDOVER] = DEADLINE("handover", 5000),
        [POLICY_DEADLINE + PHASE_ARRIVAL_GRACE] = DEADLINE("arrival-grace", 5000),
        [POLICY_DEADLINE + PHASE_RUN_DEVICES] = DEADLINE("run-devices", 5000),
        [POLICY_DEADLINE + PHASE_RUN] = DEADLINE("run", 5000),
        [POLICY_DEADLINE + PHASE_RELEASE] = DEADLINE("release", 5000),
};

static const char *const compat_how_names[COMPAT_HOW_MAX] = {
        [COMPAT_IGNORE] = "ignore",
        [COMPAT_EQUAL] = "equal",
        [COMPAT_AT_LEAST] = "at-least",
        [COMPAT_IN] = "in",
};

DEFINE_STRING_TABLE(CompatHow, compat_how, compat_how_names);

const PolicyKeyDesc *policy_key(PolicyKey key)
{
        return (int) key >= 0 && key < POLICY_KEY_MAX ? &keys[key] : NULL;
}

PolicyKey policy_key_from_string(const char *name)
{
        for (PolicyKey key = 0; key < POLICY_KEY_MAX; key++)
                if (streq(keys[key].name, name))
                        return key;
        return POLICY_KEY_INVALID;
}

void policy_value_text(PolicyKey key, uint64_t value, char *ret, size_t size)
{
        const char *word = keys[key].words[0] ? keys[key].words[value] : NULL;

        if (word)
                (void) snprintf(ret, size, "%s", word);
        else
                (void) snprintf(ret, size, "%llu", (unsigned long long) value);
}

/* ---- matching -------------------------------------------------------------------------------------------------- */

/* `*`: any characters, `?`: any one. Without backtracking further than to the last `*`: a pattern is somebody's input. */
static bool fits_pattern(const char *pattern, const char *text)
{
        const char *star = NULL, *from = NULL;

        while (*text) {
                if (*pattern == '*') {
                        star = ++pattern;
                        from = text;
                } else if (*pattern == '?' || (*pattern && *pattern == *text)) {
                        pattern++;
                        text++;
                } else if (star) {
                        pattern = star;
                        text = ++from;
                } else {
                        return false;
                }
        }
        while (*pattern == '*')
                pattern++;
        return *pattern == 0;
}

static bool has_wildcard(const char *pattern)
{
        return strchr(pattern, '*') || strchr(pattern, '?');
}

static bool fits_label(const PolicyMatch *match, const Manifest *vm)
{
        if (!match->label[0])
                return true;
        for (uint32_t i = 0; i < vm->n_labels; i++)
                if (streq(vm->labels[i].name, match->label) &&
                    (!match->label_value[0] || fits_pattern(match->label_value, vm->labels[i].value)))
                        return true;
        return false;
}

static bool fits_plugin(const PolicyMatch *match, const ManifestDevice *device)
{
        if (!match->plugin[0])
                return true;
        for (uint32_t i = 0; i < device->n_plugins; i++)
                if (streq(device->plugins[i], match->plugin))
                        return true;
        return false;
}

static bool fits_text(const char *pattern, const char *text)
{
        return !pattern[0] || fits_pattern(pattern, text);
}

static bool fits_device(const PolicyMatch *match, const ManifestDevice *device)
{
        return fits_text(match->kind, device_type_to_string(device->type)) &&
               fits_text(match->driver, device->driver) && fits_text(match->device, device->device) &&
               fits_text(match->subsystem, device->subsystem) && fits_text(match->id, device->id) &&
               fits_plugin(match, device);
}

bool policy_match_is_of_vm(const PolicyMatch *match)
{
        return !match->kind[0] && !match->driver[0] && !match->device[0] && !match->subsystem[0] &&
               !match->id[0] && !match->plugin[0];
}

bool policy_match_fits(const PolicyMatch *match, const Manifest *vm, const ManifestDevice *device)
{
        return fits_label(match, vm) &&
               (policy_match_is_of_vm(match) || (device && fits_device(match, device)));
}

uint32_t policy_match_weight(const PolicyMatch *match)
{
        const struct {
                bool named;
                uint32_t weight;
        } criteria[] = {
                {match->id[0] && !has_wildcard(match->id), 1 << 8},
                {match->id[0] && has_wildcard(match->id), 1 << 7},
                {match->subsystem[0], 1 << 6},
                {match->device[0] && !has_wildcard(match->device), 1 << 5},
                {match->device[0] && has_wildcard(match->device), 1 << 4},
                {match->plugin[0], 1 << 3},
                {match->driver[0], 1 << 2},
                {match->label[0], 1 << 1},
                {match->kind[0], 1 << 0},
        };
        uint32_t weight = 0;

        for (size_t i = 0; i < ARRAY_SIZE(criteria); i++)
                if (criteria[i].named)
                        weight |= criteria[i].weight;
        return weight;
}

/* ---- what follows ---------------------------------------------------------------------------------------------- */

static bool outweighs(const PolicyRules *rules, uint32_t rule, uint32_t other)
{
        return other == POLICY_NO_RULE || policy_match_weight(&rules->rules[rule].match) >=
                                                  policy_match_weight(&rules->rules[other].match);
}

static void take_compat(const PolicyRules *rules, uint32_t rule, PolicyView *view)
{
        for (uint32_t i = 0; i < rules->rules[rule].n_compat; i++) {
                const PolicyCompat *compat = &rules->rules[rule].compat[i];
                uint32_t k = 0;

                while (k < view->n_compat && !streq(view->compat[k].fact, compat->fact))
                        k++;
                if (k == POLICY_FACTS_MAX)
                        continue; /* the reader takes no more facts than that, of all rules together */
                if (k == view->n_compat)
                        view->compat_rules[view->n_compat++] = POLICY_NO_RULE;
                if (!outweighs(rules, rule, view->compat_rules[k]))
                        continue;
                view->compat[k] = *compat;
                view->compat_rules[k] = rule;
        }
}

static void take_rule(const PolicyRules *rules, uint32_t rule, PolicyView *view)
{
        bool of_vm = policy_match_is_of_vm(&rules->rules[rule].match);

        for (PolicyKey key = 0; key < POLICY_KEY_MAX; key++)
                if (rules->rules[rule].sets[key] && (of_vm || keys[key].scope != POLICY_SCOPE_VM) &&
                    outweighs(rules, rule, view->rules[key])) {
                        view->values[key] = rules->rules[rule].values[key];
                        view->rules[key] = rule;
                }
        take_compat(rules, rule, view);
}

void policy_of_vm(const PolicyRules *rules, const Manifest *vm, PolicyView *ret)
{
        *ret = (PolicyView){};
        for (PolicyKey key = 0; key < POLICY_KEY_MAX; key++) {
                ret->values[key] = keys[key].standard;
                ret->rules[key] = POLICY_NO_RULE;
        }
        for (uint32_t i = 0; i < rules->n; i++)
                if (policy_match_fits(&rules->rules[i].match, vm, NULL))
                        take_rule(rules, i, ret);
}

void policy_of_device(const PolicyRules *rules, const Manifest *vm, const ManifestDevice *device,
                      PolicyView *ret)
{
        policy_of_vm(rules, vm, ret);
        for (uint32_t i = 0; i < rules->n; i++)
                if (!policy_match_is_of_vm(&rules->rules[i].match) &&
                    policy_match_fits(&rules->rules[i].match, vm, device))
                        take_rule(rules, i, ret);
}

void policy_rules_deinit(PolicyRules *rules)
{
        for (uint32_t i = 0; i < rules->n; i++) {
                for (uint32_t k = 0; k < rules->rules[i].n_compat; k++)
                        free(rules->rules[i].compat[k].choices);
                free(rules->rules[i].file);
        }
        free(rules->rules);
        *rules = (PolicyRules){};
}
