/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "policy-report.h"

#include "common/log.h"

json_object *policy_report_list(const PolicyFiles *files)
{
        json_object *list = json_new_array();

        for (uint32_t i = 0; i < files->n; i++) {
                const PolicyFile *file = &files->files[i];
                json_object *o = json_new_object();

                json_add_string(o, "name", file->name);
                json_add_string(o, "path", file->path);
                json_add_string(o, "overrides", file->overrides ? file->overrides : "");
                json_add_string(o, "description", file->description);
                json_add_number(o, "rules", file->n_rules);
                json_append(list, o);
        }
        return list;
}

/* ---- explain --------------------------------------------------------------------------------------------------- */

/* All rules about the VM or the device, strongest first. */
typedef struct Strongest {
        const PolicyRules *rules;
        uint32_t n;
        uint32_t *order; /* owned */
} Strongest;

/* Each goes in front of those that it outweighs; of two that weigh the same the later one counts. */
static void find_strongest(const PolicyRules *rules, const Manifest *vm, const ManifestDevice *device,
                           Strongest *ret)
{
        *ret = (Strongest){.rules = rules, .order = calloc(rules->n + 1, sizeof *ret->order)};
        if (!ret->order)
                out_of_memory();
        for (uint32_t i = 0; i < rules->n; i++) {
                uint32_t weight = policy_match_weight(&rules->rules[i].match), at = ret->n;

                if (!policy_match_fits(&rules->rules[i].match, vm, device))
                        continue;
                for (; at > 0 && weight >= policy_match_weight(&rules->rules[ret->order[at - 1]].match); at--)
                        ret->order[at] = ret->order[at - 1];
                ret->order[at] = i;
                ret->n++;
        }
}

static void add_place(json_object *o, const PolicyRules *rules, uint32_t rule)
{
        bool is_rule = rule != POLICY_NO_RULE;

        json_add_string(o, "file", is_rule ? rules->rules[rule].file : "");
        json_add_number(o, "line", is_rule ? rules->rules[rule].line : 0);
}

static void add_value(json_object *o, const char *name, PolicyKey key, uint64_t value)
{
        char text[24];

        policy_value_text(key, value, text, sizeof text);
        if (policy_key(key)->words[0])
                json_add_string(o, name, text);
        else
                json_add_number(o, name, (int64_t) value);
}

static json_object *explain_key(const Strongest *strongest, const PolicyView *view, PolicyKey key)
{
        json_object *o = json_new_object(), *weaker = json_new_array();

        json_add_string(o, "key", policy_key(key)->name);
        add_value(o, "value", key, view->values[key]);
        add_place(o, strongest->rules, view->rules[key]);
        add_value(o, "default", key, policy_key(key)->standard);
        json_add_string(o, "help", policy_key(key)->help);
        for (uint32_t i = 0; i < strongest->n; i++) {
                const PolicyRule *rule = &strongest->rules->rules[strongest->order[i]];
                json_object *other;

                if (!rule->sets[key] || strongest->order[i] == view->rules[key])
                        continue;
                other = json_new_object();
                add_value(other, "value", key, rule->values[key]);
                add_place(other, strongest->rules, strongest->order[i]);
                json_append(weaker, other);
        }
        json_add(o, "weaker", weaker);
        return o;
}

static void add_compat(json_object *o, const PolicyCompat *compat)
{
        json_object *values = json_new_array();

        json_add_string(o, "how", compat_how_to_string(compat->how));
        for (uint32_t i = 0; i < compat->n_choices; i++)
                json_append(values, json_object_new_string(compat->choices[i]));
        json_add(o, "values", values);
}

static json_object *explain_compat(const Strongest *strongest, const PolicyView *view, uint32_t index)
{
        json_object *o = json_new_object(), *weaker = json_new_array();

        json_add_string(o, "fact", view->compat[index].fact);
        add_compat(o, &view->compat[index]);
        add_place(o, strongest->rules, view->compat_rules[index]);
        for (uint32_t i = 0; i < strongest->n; i++) {
                const PolicyRule *rule = &strongest->rules->rules[strongest->order[i]];

                for (uint32_t k = 0; k < rule->n_compat; k++) {
                        json_object *other;

                        if (strongest->order[i] == view->compat_rules[index] ||
                            !streq(rule->compat[k].fact, view->compat[index].fact))
                                continue;
                        other = json_new_object();
                        add_compat(other, &rule->compat[k]);
                        add_place(other, strongest->rules, strongest->order[i]);
                        json_append(weaker, other);
                }
        }
        json_add(o, "weaker", weaker);
        return o;
}

/* What rules were held against. */
static json_object *known(const Manifest *vm, const ManifestDevice *device)
{
        json_object *o = json_new_object(), *labels = json_new_object(), *plugins = json_new_array();

        for (uint32_t i = 0; i < vm->n_labels; i++)
                json_add_string(labels, vm->labels[i].name, vm->labels[i].value);
        json_add(o, "label", labels);
        for (uint32_t i = 0; device && i < device->n_plugins; i++)
                json_append(plugins, json_object_new_string(device->plugins[i]));
        if (device) {
                json_add_string(o, "id", device->id);
                json_add_string(o, "kind", device_type_to_string(device->type));
                json_add_string(o, "driver", device->driver);
                json_add_string(o, "device", device->device);
                json_add_string(o, "subsystem", device->subsystem);
        }
        json_add(o, "plugin", plugins);
        return o;
}

json_object *policy_report_explain(const PolicyRules *rules, const Manifest *vm, const ManifestDevice *device)
{
        json_object *o = json_new_object(), *explained = json_new_array(), *compat = json_new_array();
        PolicyScope other = device ? POLICY_SCOPE_VM : POLICY_SCOPE_DEVICE;
        Strongest strongest;
        PolicyView view;

        if (device)
                policy_of_device(rules, vm, device, &view);
        else
                policy_of_vm(rules, vm, &view);
        find_strongest(rules, vm, device, &strongest);
        for (PolicyKey key = 0; key < POLICY_KEY_MAX; key++)
                if (policy_key(key)->scope != other)
                        json_append(explained, explain_key(&strongest, &view, key));
        for (uint32_t i = 0; device && i < view.n_compat; i++)
                json_append(compat, explain_compat(&strongest, &view, i));
        free(strongest.order);
        json_add_string(o, "vm", vm->name);
        json_add_string(o, "device", device ? device->id : "");
        json_add(o, "known", known(vm, device));
        json_add(o, "keys", explained);
        json_add(o, "compat", compat);
        return o;
}
