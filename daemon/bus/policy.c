/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* org.migmgr1.Manager: what is about policies. */

#include <stdio.h>

#include "bus.h"
#include "common/log.h"
#include "daemon/policy-report.h"

static int reply_json(Bus *bus, sd_bus_message *m, json_object *json)
{
        bus_reply(bus, m, "s", json_print(json, JSON_C_TO_STRING_PLAIN));
        json_object_put(json);
        return 1;
}

/* False: they were wrong when the daemon was started, and an error was replied. */
static bool are_in_force(Bus *bus, sd_bus_message *m)
{
        if (bus->host->policies->error[0])
                bus_reply_error(bus, m, OUTCOME_BAD_POLICY, bus->host->policies->error);
        return !bus->host->policies->error[0];
}

int bus_list_policies(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
        Bus *bus = userdata;

        if (!are_in_force(bus, m))
                return 1;
        return reply_json(bus, m, policy_report_list(bus->host->policies));
}

int bus_show_policy(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
        const PolicyFile *file;
        Bus *bus = userdata;
        const char *name;
        char text[256];
        int r = sd_bus_message_read(m, "s", &name);

        if (r < 0)
                return r;
        if (!are_in_force(bus, m))
                return 1;
        file = policy_files_find(bus->host->policies, name);
        if (file) {
                bus_reply(bus, m, "ss", file->path, file->text);
                return 1;
        }
        (void) snprintf(text, sizeof text,
                        "no policy \"%.100s\" is in force here; migctl policy list shows those that are",
                        name);
        bus_reply_error(bus, m, OUTCOME_NO_SUCH_POLICY, text);
        return 1;
}

static void check_policy(Bus *bus, sd_bus_message *m)
{
        char description[POLICY_DESCRIPTION_MAX + 1], error[JSON_TEXT_MAX] = "";
        const char *file, *text;
        PolicyRules rules = {};
        bool ok;

        if (sd_bus_message_read(m, "ss", &file, &text) < 0)
                return;
        ok = policy_read(file, text, strlen(text), &rules, description, error) >= 0;
        policy_rules_deinit(&rules);
        bus_reply(bus, m, "bs", (int) ok, error);
}

int bus_check_policy(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
        return bus_authorise(userdata, m, ACTION_MANAGE, check_policy);
}

static void explain(Bus *bus, sd_bus_message *m, const Manifest *manifest, const char *id)
{
        const ManifestDevice *device = *id ? manifest_find(manifest, id) : NULL;
        char text[BUS_TEXT_MAX];

        if (device || !*id) {
                (void) reply_json(bus, m,
                                  policy_report_explain(&bus->host->policies->rules, manifest, device));
                return;
        }
        (void) snprintf(text, sizeof text,
                        "VM %.100s has no device \"%.100s\"; migctl devices %.100s lists those that it has",
                        manifest->name, id, manifest->name);
        bus_reply_error(bus, m, OUTCOME_NO_SUCH_DEVICE, text);
}

int bus_explain_policy(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
        const char *name, *device;
        Bus *bus = userdata;
        Manifest manifest;
        Vm *vm;
        int r = sd_bus_message_read(m, "ss", &name, &device);

        if (r < 0)
                return r;
        vm = bus_find_vm(bus, m, name);
        if (!vm || !are_in_force(bus, m))
                return 1;
        r = vm_manifest(vm, &manifest);
        if (r < 0)
                return r;
        explain(bus, m, &manifest, device);
        manifest_deinit(&manifest);
        return 1;
}

static void reload_policies(Bus *bus, sd_bus_message *m)
{
        const Config *config = &bus->host->config;
        PolicyFiles *policies = bus->host->policies;
        char error[JSON_TEXT_MAX];

        if (policy_files_reload(config->policies_dirs, config->n_policies_dirs, policies, error) < 0) {
                bus_reply_error(bus, m, OUTCOME_BAD_POLICY, error);
                return;
        }
        log_info(NULL, "policies: %u files, %u rules", policies->n, policies->rules.n);
        bus_reply(bus, m, "");
}

int bus_reload_policies(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
        return bus_authorise(userdata, m, ACTION_MANAGE, reload_policies);
}
