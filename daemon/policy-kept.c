/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "policy-kept.h"

#include <stdio.h>

#include "common/log.h"
#include "core/record.h"

/* As a file has it: "deadline-ms.drain" is a member of an object. */
static void add_value(json_object *set, PolicyKey key, uint64_t value)
{
        const PolicyKeyDesc *desc = policy_key(key);
        const char *dot = strchr(desc->name, '.'), *member = dot ? dot + 1 : desc->name;
        json_object *object = set;

        if (dot) {
                char group[32];

                (void) snprintf(group, sizeof group, "%.*s", (int) (dot - desc->name), desc->name);
                if (!json_object_object_get_ex(set, group, &object)) {
                        object = json_new_object();
                        json_add(set, group, object);
                }
        }
        if (desc->words[0])
                json_add_string(object, member, desc->words[value]);
        else
                json_add_number(object, member, (int64_t) value);
}

/* What is not as `without` has it, which is what holds when this rule is not there. */
static void add_rule(json_object *rules, const char *id, const PolicyView *view, const uint64_t *without)
{
        json_object *rule, *match, *set = json_new_object();

        for (PolicyKey key = 0; key < POLICY_KEY_MAX; key++)
                if (view->values[key] != without[key] && (!id || policy_key(key)->scope != POLICY_SCOPE_VM))
                        add_value(set, key, view->values[key]);
        if (json_object_object_length(set) == 0) {
                json_object_put(set);
                return;
        }
        rule = json_new_object();
        if (id) {
                match = json_new_object();
                json_add_string(match, "id", id);
                json_add(rule, "match", match);
        }
        json_add(rule, "set", set);
        json_append(rules, rule);
}

char *policy_keep(const PolicyRules *rules, const Manifest *vm)
{
        _cleanup_(json_object_putp) json_object *root = json_new_object();
        json_object *array = json_new_array();
        uint64_t standard[POLICY_KEY_MAX];
        PolicyView of_vm, of_device;
        char *text;

        for (PolicyKey key = 0; key < POLICY_KEY_MAX; key++)
                standard[key] = policy_key(key)->standard;
        policy_of_vm(rules, vm, &of_vm);
        add_rule(array, NULL, &of_vm, standard);
        for (uint32_t i = 0; i < vm->n_devices; i++) {
                policy_of_device(rules, vm, &vm->devices[i], &of_device);
                add_rule(array, vm->devices[i].id, &of_device, of_vm.values);
        }
        json_add(root, "rules", array);
        text = strdup(json_print(root, JSON_C_TO_STRING_PLAIN));
        if (!text)
                out_of_memory();
        return text;
}

int policy_kept_read(const char *text, PolicyRules *ret, char *ret_error)
{
        char description[POLICY_DESCRIPTION_MAX + 1];
        int r;

        *ret = (PolicyRules){};
        r = policy_read_text("record", text, strlen(text), RECORD_POLICY_MAX, ret, description, ret_error);
        if (r < 0)
                policy_rules_deinit(ret);
        return r;
}
