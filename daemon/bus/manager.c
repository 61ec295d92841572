/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* org.migmgr1.Manager */

#include <stdio.h>

#include "common/log.h"

#include "bus.h"

#define ACTION_MIGRATE "org.migmgr1.migrate"
#define ACTION_RESET   "org.migmgr1.reset-device"

Vm *bus_find_vm(Bus *bus, sd_bus_message *m, const char *name)
{
        Vm *vm = manager_find_vm(bus->manager, name);
        char text[256];

        if (vm && vm->registered)
                return vm;
        (void) snprintf(text, sizeof text,
                        "no VM \"%.100s\" is registered here; migctl list shows those that are", name);
        bus_reply_error(bus, m, OUTCOME_NO_SUCH_VM, text);
        return NULL;
}

/* ---- register ------------------------------------------------------------------------------------------------ */

typedef struct Waiting {
        Bus *bus;
        sd_bus_message *m;
} Waiting;

static Waiting *wait_for(Bus *bus, sd_bus_message *m)
{
        Waiting *waiting = malloc(sizeof *waiting);

        if (!waiting)
                out_of_memory();
        *waiting = (Waiting){bus, sd_bus_message_ref(m)};
        return waiting;
}

static void waiting_free(Waiting *waiting)
{
        sd_bus_message_unref(waiting->m);
        free(waiting);
}

static void on_registered(void *userdata, Outcome outcome, const char *text, Vm *vm)
{
        Waiting *waiting = userdata;
        char path[BUS_PATH_MAX];

        if (outcome == OUTCOME_NONE) {
                bus_vm_path(vm->definition->uuid, path);
                bus_reply(waiting->bus, waiting->m, "o", path);
        } else {
                bus_reply_error(waiting->bus, waiting->m, outcome, text);
        }
        waiting_free(waiting);
}

static void register_vm(Bus *bus, sd_bus_message *m)
{
        const char *definition;
        bool incoming = false;
        char text[JSON_TEXT_MAX];

        if (sd_bus_message_read(m, "s", &definition) < 0 || bus_read_options(m, NULL, &incoming, text) < 0) {
                bus_reply_error(bus, m, OUTCOME_INVALID_ARGUMENT, text);
                return;
        }
        manager_register(bus->manager, definition, incoming, on_registered, wait_for(bus, m));
}

static int method_register_vm(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
        return bus_authorise(userdata, m, ACTION_MANAGE, register_vm);
}

static void on_unregistered(void *userdata, Outcome outcome, const char *text)
{
        Waiting *waiting = userdata;

        if (outcome == OUTCOME_NONE)
                bus_reply(waiting->bus, waiting->m, "");
        else
                bus_reply_error(waiting->bus, waiting->m, outcome, text);
        waiting_free(waiting);
}

static void unregister_vm(Bus *bus, sd_bus_message *m)
{
        const char *name;
        Vm *vm;

        if (sd_bus_message_read(m, "s", &name) < 0)
                return;
        vm = bus_find_vm(bus, m, name);
        if (vm)
                manager_unregister(bus->manager, vm, on_unregistered, wait_for(bus, m));
}

static int method_unregister_vm(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
        return bus_authorise(userdata, m, ACTION_MANAGE, unregister_vm);
}

/* ---- check, migrate ------------------------------------------------------------------------------------------ */

/* The arguments that both have. NULL: an error was replied. */
static Vm *read_move(Bus *bus, sd_bus_message *m, const char **ret_destination, JobOptions *options)
{
        char text[JSON_TEXT_MAX];
        const char *name;

        if (sd_bus_message_read(m, "ss", &name, ret_destination) < 0 ||
            bus_read_options(m, options, NULL, text) < 0) {
                bus_reply_error(bus, m, OUTCOME_INVALID_ARGUMENT, text);
                return NULL;
        }
        return bus_find_vm(bus, m, name);
}

static void on_checked(void *userdata, Outcome outcome, const char *text, bool ok, json_object *report)
{
        Waiting *waiting = userdata;

        if (outcome == OUTCOME_NONE)
                bus_reply(waiting->bus, waiting->m, "bs", (int) ok,
                          json_print(report, JSON_C_TO_STRING_PLAIN));
        else
                bus_reply_error(waiting->bus, waiting->m, outcome, text);
        waiting_free(waiting);
}

static void check(Bus *bus, sd_bus_message *m)
{
        JobOptions options = {.check_only = true};
        const char *destination;
        Vm *vm = read_move(bus, m, &destination, &options);

        if (!vm)
                return;
        manager_check(bus->manager, vm, destination, &options, on_checked, wait_for(bus, m));
}

static int method_check(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
        return bus_authorise(userdata, m, ACTION_MIGRATE, check);
}

static void on_begun(void *userdata, Outcome outcome, const char *text, Job *job)
{
        Waiting *waiting = userdata;
        char path[BUS_PATH_MAX];

        if (outcome == OUTCOME_NONE) {
                bus_job_path(job->id, path);
                bus_reply(waiting->bus, waiting->m, "o", path);
        } else {
                bus_reply_error(waiting->bus, waiting->m, outcome, text);
        }
        waiting_free(waiting);
}

static void migrate(Bus *bus, sd_bus_message *m)
{
        JobOptions options = {};
        const char *destination;
        Vm *vm = read_move(bus, m, &destination, &options);

        if (vm)
                manager_migrate(bus->manager, vm, destination, &options, on_begun, wait_for(bus, m));
}

static int method_migrate(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
        return bus_authorise(userdata, m, ACTION_MIGRATE, migrate);
}

/* ---- reset ----------------------------------------------------------------------------------------------------- */

static void on_reset(void *userdata, Vm *vm, uint32_t device, int status, const char *text)
{
        Waiting *waiting = userdata;
        const char *state = device_state_to_string(device_state(vm->devices[device])), *id;
        char full[BUS_TEXT_MAX];

        id = device_id(vm->devices[device]);
        if (status == 0) {
                bus_reply(waiting->bus, waiting->m, "ss", state, text);
        } else {
                (void) snprintf(full, sizeof full, "VM %.100s, device %s: not reset: %.400s; its state is %s",
                                vm->definition->name, id, text, state);
                bus_reply_error(waiting->bus, waiting->m, OUTCOME_DEVICE, full);
        }
        waiting_free(waiting);
}

static void reset_device(Bus *bus, sd_bus_message *m)
{
        const char *name, *device;
        char text[JSON_TEXT_MAX];
        Waiting *waiting;
        Outcome outcome;
        Vm *vm;

        if (sd_bus_message_read(m, "ss", &name, &device) < 0)
                return;
        vm = bus_find_vm(bus, m, name);
        if (!vm)
                return;
        waiting = wait_for(bus, m);
        outcome = manager_reset(bus->manager, vm, device, on_reset, waiting, text);
        if (outcome != OUTCOME_NONE) {
                bus_reply_error(bus, m, outcome, text);
                waiting_free(waiting);
        }
}

static int method_reset_device(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
        return bus_authorise(userdata, m, ACTION_RESET, reset_device);
}

/* ---- history ------------------------------------------------------------------------------------------------- */

static void reply_history_error(Waiting *waiting, const char *text)
{
        char full[BUS_TEXT_MAX];

        (void) snprintf(full, sizeof full, "%.200s/history.db cannot be read: %.300s",
                        waiting->bus->host->config.state_dir, text);
        bus_reply_error(waiting->bus, waiting->m, OUTCOME_STORE, full);
}

static void reply_job(Bus *bus, sd_bus_message *m, json_object *json)
{
        bus_reply(bus, m, "s", json_print(json, JSON_C_TO_STRING_PLAIN));
}

/* As long as there is the job itself, that says more than what was read. */
static void on_job_found(void *userdata, int status, const char *text, const char *report, const char *list)
{
        Waiting *waiting = userdata;
        _cleanup_(json_object_putp) json_object *json = NULL;
        const char *id = "";
        Job *job;

        (void) sd_bus_message_rewind(waiting->m, true);
        (void) sd_bus_message_read(waiting->m, "s", &id);
        job = manager_find_job(waiting->bus->manager, id);
        if (job)
                json = job_to_json(job);
        else if (report)
                json = job_of_history(report, list);
        if (job)
                json_add(json, "steps", job_steps_of_history(list));
        if (json)
                reply_job(waiting->bus, waiting->m, json);
        else if (status < 0 || report)
                reply_history_error(waiting, status < 0 ? text : "what it has of this job is damaged");
        else
                bus_reply_error(waiting->bus, waiting->m, OUTCOME_NO_SUCH_JOB,
                                "no job of that UUID is known here; migctl history lists those that are");
        waiting_free(waiting);
}

/* The disk is asked only about what is not known without it. */
static int method_get_job(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
        _cleanup_(json_object_putp) json_object *json = NULL;
        Bus *bus = userdata;
        const char *id;
        Job *job;
        int r = sd_bus_message_read(m, "s", &id);

        if (r < 0)
                return r;
        job = manager_find_job(bus->manager, id);
        json = manager_show_pickup(bus->manager, id);
        if (json) {
                json_add(json, "steps", json_new_array());
                reply_job(bus, m, json);
        } else if (job && !job->restored) {
                json = job_to_json(job);
                json_add(json, "steps", json_object_get(job->steps));
                reply_job(bus, m, json);
        } else {
                store_find_job(bus->host->store, id, on_job_found, wait_for(bus, m));
        }
        return 1;
}

static void on_jobs_listed(void *userdata, int status, const char *text, const char *list, const char *none)
{
        Waiting *waiting = userdata;

        if (status < 0)
                reply_history_error(waiting, text);
        else
                bus_reply(waiting->bus, waiting->m, "s", list);
        waiting_free(waiting);
}

static int read_filter(sd_bus_message *m, StoreFilter *filter)
{
        const char *key, *value;
        int r = sd_bus_message_enter_container(m, 'a', "{sv}");

        while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
                r = sd_bus_message_read(m, "s", &key);
                if (r >= 0 && streq(key, "since-usec")) {
                        r = sd_bus_message_read(m, "v", "t", &filter->since_usec);
                } else if (r >= 0 && (streq(key, "vm") || streq(key, "result"))) {
                        r = sd_bus_message_read(m, "v", "s", &value);
                        if (r >= 0 && streq(key, "vm"))
                                (void) snprintf(filter->vm, sizeof filter->vm, "%s", value);
                        else if (r >= 0)
                                (void) snprintf(filter->result, sizeof filter->result, "%s", value);
                } else if (r >= 0) {
                        r = -EINVAL;
                }
                if (r >= 0)
                        r = sd_bus_message_exit_container(m);
        }
        return r < 0 || filter->since_usec > INT64_MAX ? -EINVAL : 0;
}

static int method_list_history(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
        Bus *bus = userdata;
        StoreFilter filter = {};

        if (read_filter(m, &filter) < 0)
                bus_reply_error(bus, m, OUTCOME_INVALID_ARGUMENT,
                                "the options are \"vm\" (s), \"since-usec\" (t) and \"result\" (s)");
        else
                store_list_jobs(bus->host->store, &filter, on_jobs_listed, wait_for(bus, m));
        return 1;
}

static int method_list_jobs(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
        Bus *bus = userdata;
        _cleanup_(json_object_putp) json_object *jobs = manager_list_jobs(bus->manager);

        bus_reply(bus, m, "s", json_print(jobs, JSON_C_TO_STRING_PLAIN));
        return 1;
}

static int method_list_plugins(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
        Bus *bus = userdata;
        _cleanup_(json_object_putp) json_object *plugins = plugins_to_json(bus->host->plugins);

        bus_reply(bus, m, "s", json_print(plugins, JSON_C_TO_STRING_PLAIN));
        return 1;
}

static int get_version(sd_bus *b, const char *path, const char *interface, const char *property,
                       sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
        return sd_bus_message_append(reply, "s", PACKAGE_VERSION);
}

static int get_host_id(sd_bus *b, const char *path, const char *interface, const char *property,
                       sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
        Bus *bus = userdata;

        return sd_bus_message_append(reply, "s", bus->host->host_id);
}

static const sd_bus_vtable vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_PROPERTY("Version", "s", get_version, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("HostId", "s", get_host_id, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_METHOD_WITH_ARGS("RegisterVM", SD_BUS_ARGS("s", definition, "a{sv}", options),
                                SD_BUS_RESULT("o", vm), method_register_vm, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("UnregisterVM", SD_BUS_ARGS("s", vm), SD_BUS_NO_RESULT, method_unregister_vm,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Check", SD_BUS_ARGS("s", vm, "s", destination, "a{sv}", options),
                                SD_BUS_RESULT("b", ok, "s", report), method_check,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Migrate", SD_BUS_ARGS("s", vm, "s", destination, "a{sv}", options),
                                SD_BUS_RESULT("o", job), method_migrate, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("ResetDevice", SD_BUS_ARGS("s", vm, "s", device),
                                SD_BUS_RESULT("s", state, "s", method), method_reset_device,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("ListJobs", SD_BUS_NO_ARGS, SD_BUS_RESULT("s", jobs), method_list_jobs,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("ListHistory", SD_BUS_ARGS("a{sv}", options), SD_BUS_RESULT("s", jobs),
                                method_list_history, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("GetJob", SD_BUS_ARGS("s", job), SD_BUS_RESULT("s", report), method_get_job,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("ListPlugins", SD_BUS_NO_ARGS, SD_BUS_RESULT("s", plugins),
                                method_list_plugins, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("ListPolicies", SD_BUS_NO_ARGS, SD_BUS_RESULT("s", policies),
                                bus_list_policies, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("ShowPolicy", SD_BUS_ARGS("s", name), SD_BUS_RESULT("s", path, "s", text),
                                bus_show_policy, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("CheckPolicy", SD_BUS_ARGS("s", file, "s", text),
                                SD_BUS_RESULT("b", ok, "s", error), bus_check_policy,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("ExplainPolicy", SD_BUS_ARGS("s", vm, "s", device),
                                SD_BUS_RESULT("s", report), bus_explain_policy, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("ReloadPolicies", SD_BUS_NO_ARGS, SD_BUS_NO_RESULT, bus_reload_policies,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_VTABLE_END,
};

int bus_add_manager(Bus *bus)
{
        return sd_bus_add_object_vtable(bus->bus, NULL, BUS_ROOT, BUS_NAME ".Manager", vtable, bus);
}
