/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "manager-internal.h"

#include <search.h>
#include <stdio.h>

#include "common/clock.h"
#include "common/log.h"

/* ---- VMs ----------------------------------------------------------------------------------------------------- */

Vm *manager_first_vm(Manager *manager)
{
        return manager->vms;
}

/* There may be thousands, and each change of a device looks for its VM. */
static int by_uuid(const void *a, const void *b)
{
        return strcmp(((const Vm *) a)->definition->uuid, ((const Vm *) b)->definition->uuid);
}

static int by_name(const void *a, const void *b)
{
        return strcmp(((const Vm *) a)->definition->name, ((const Vm *) b)->definition->name);
}

static Vm *find_alike(void *const *root, const Definition *definition,
                      int (*compare)(const void *, const void *))
{
        Vm key = {.definition = (Definition *) definition};
        Vm **found = tfind(&key, root, compare);

        return found ? *found : NULL;
}

Vm *manager_find_uuid(Manager *manager, const char *uuid)
{
        Definition key = {};

        if (strlen(uuid) >= sizeof key.uuid)
                return NULL;
        memcpy(key.uuid, uuid, strlen(uuid));
        return find_alike(&manager->by_uuid, &key, by_uuid);
}

Vm *manager_find_vm(Manager *manager, const char *name)
{
        Vm *vm = manager_find_uuid(manager, name);
        Definition key = {};

        if (vm || strlen(name) >= sizeof key.name)
                return vm;
        memcpy(key.name, name, strlen(name));
        return find_alike(&manager->by_name, &key, by_name);
}

static void on_vm_changed(void *userdata, Vm *vm, int32_t device)
{
        Manager *manager = userdata;

        if (vm->registered && manager->hooks)
                manager->hooks->vm_changed(manager->hooks_userdata, vm, device);
}

int manager_add_vm(Manager *manager, Definition *definition, Presence presence, Vm **ret)
{
        Vm *vm;
        int r = vm_new(manager->host, definition, presence, on_vm_changed, manager, &vm);

        if (r < 0)
                return r;
        vm->next = manager->vms;
        manager->vms = vm;
        if (!tsearch(vm, &manager->by_uuid, by_uuid) || !tsearch(vm, &manager->by_name, by_name))
                out_of_memory();
        *ret = vm;
        return 0;
}

void manager_show_vm(Manager *manager, Vm *vm)
{
        vm->registered = true;
        if (manager->hooks)
                manager->hooks->vm_added(manager->hooks_userdata, vm);
}

/* Its jobs that still wait for an acknowledgement need it no more. */
void manager_drop_vm(Manager *manager, Vm *vm)
{
        /* While it can still be found: what is announced as gone is looked at once more. */
        if (vm->registered && manager->hooks)
                manager->hooks->vm_removed(manager->hooks_userdata, vm);
        for (Job *job = manager->jobs; job; job = job->next)
                if (job->vm == vm)
                        job->vm = NULL;
        (void) tdelete(vm, &manager->by_uuid, by_uuid);
        (void) tdelete(vm, &manager->by_name, by_name);
        for (Vm **p = &manager->vms; *p; p = &(*p)->next)
                if (*p == vm) {
                        *p = vm->next;
                        break;
                }
        vm_free(vm);
}

/* ---- register ------------------------------------------------------------------------------------------------ */

typedef struct Registration {
        Manager *manager;
        Vm *vm;
        bool incoming;
        ManagerRegistered registered;
        void *userdata;
        Outcome outcome; /* when it failed */
        char text[JSON_TEXT_MAX];
} Registration;

static void on_registration_failed(void *userdata)
{
        Registration *reg = userdata;

        if (reg->vm) {
                vm_close_devices(reg->vm);
                manager_drop_vm(reg->manager, reg->vm);
        }
        reg->registered(reg->userdata, reg->outcome, reg->text, NULL);
        free(reg);
}

/* It is the VM's own VMM or device that says so: the VM may be freed only when they have returned. */
static void registration_failed(Registration *reg, Outcome outcome, const char *text)
{
        reg->outcome = outcome;
        (void) snprintf(reg->text, sizeof reg->text, "%s", text);
        if (loop_defer(reg->manager->host->loop, on_registration_failed, reg) < 0)
                out_of_memory();
}

static void on_vm_stored(void *userdata, int status, const char *text)
{
        Registration *reg = userdata;
        char full[JSON_TEXT_MAX];

        if (status < 0) {
                (void) snprintf(full, sizeof full,
                                "the registration can't be written: %.150s; make room in %.60s", text,
                                reg->manager->host->config.state_dir);
                registration_failed(reg, OUTCOME_STORE, full);
                return;
        }
        log_info(LOG_ABOUT(.vm = reg->vm->definition->name), "registered, %s",
                 presence_to_string(reg->vm->presence));
        manager_show_vm(reg->manager, reg->vm);
        reg->registered(reg->userdata, OUTCOME_NONE, "", reg->vm);
        free(reg);
}

static void store_registration(Registration *reg)
{
        store_put_vm(reg->manager->host->store, reg->vm->definition->uuid, reg->vm->definition->text,
                     reg->vm->presence, on_vm_stored, reg);
}

static void on_registered_devices(void *userdata, Vm *vm)
{
        Registration *reg = userdata;
        char text[JSON_TEXT_MAX];

        for (uint32_t i = 0; i < vm->definition->n_devices; i++)
                if (!device_is_open(vm->devices[i]) && !device_is_supervised(vm->devices[i])) {
                        (void) snprintf(text, sizeof text, "VM %.60s, device %s: %.250s",
                                        vm->definition->name, device_id(vm->devices[i]),
                                        device_text(vm->devices[i]));
                        registration_failed(reg, OUTCOME_DEVICE, text);
                        return;
                }
        store_registration(reg);
}

static void on_registered_vmm(void *userdata, int status, const char *text)
{
        Registration *reg = userdata;
        char full[JSON_TEXT_MAX];

        if (status == 0 || (status == -ENOENT && reg->vm->vmm->may_come_later)) {
                vm_open_devices(reg->vm, false, on_registered_devices, reg);
                return;
        }
        (void) snprintf(
                full, sizeof full,
                "VM %.60s: its VMM at %.107s: %.200s; is it to come here? then register it with --incoming",
                reg->vm->definition->name, definition_place(reg->vm->definition), text);
        registration_failed(reg, OUTCOME_VMM, full);
}

/* Registered in the same words, and where it should be: whoever asks again has not heard the answer. */
static bool is_same(const Vm *vm, const Definition *definition, bool incoming)
{
        return vm->registered && definition_equal(vm->definition, definition) &&
               vm->presence == (incoming ? PRESENCE_AWAY : PRESENCE_HERE);
}

static void say_taken(const Vm *vm, const Definition *definition, char *ret_text)
{
        const char *name = vm->definition->name;

        if (!streq(vm->definition->uuid, definition->uuid))
                (void) snprintf(
                        ret_text, JSON_TEXT_MAX,
                        "another VM is called %.100s here, its uuid is %s; unregister it, or take another name",
                        name, vm->definition->uuid);
        else if (!vm->registered)
                (void) snprintf(ret_text, JSON_TEXT_MAX, "VM %.100s is being registered just now", name);
        else if (!definition_equal(vm->definition, definition))
                (void) snprintf(
                        ret_text, JSON_TEXT_MAX,
                        "a VM with this uuid is registered already, with another definition: %.100s; unregister it "
                        "first",
                        name);
        else
                (void) snprintf(ret_text, JSON_TEXT_MAX,
                                "VM %.100s is registered already, and is %s; %s, or unregister it first",
                                name, presence_to_string(vm->presence),
                                vm->presence == PRESENCE_HERE ? "it leaves by a migration"
                                                              : "it comes by a migration");
}

/* NONE: it is new, or `ret_same` is it. */
static Outcome check_new_vm(Manager *manager, const Definition *definition, bool incoming, Vm **ret_same,
                            char *ret_text)
{
        Vm *vm = manager_find_vm(manager, definition->uuid);

        if (!vm)
                vm = manager_find_vm(manager, definition->name);
        if (!vm)
                return OUTCOME_NONE;
        if (is_same(vm, definition, incoming)) {
                *ret_same = vm;
                return OUTCOME_NONE;
        }
        say_taken(vm, definition, ret_text);
        return OUTCOME_BUSY;
}

void manager_register(Manager *manager, const char *text, bool incoming, ManagerRegistered registered,
                      void *userdata)
{
        Registration *reg = malloc(sizeof *reg);
        _cleanup_(definition_freep) Definition *definition = NULL;
        char error[JSON_TEXT_MAX] = "out of memory";
        Outcome outcome = OUTCOME_FAILED;
        Vm *same = NULL;
        int r;

        if (!reg)
                out_of_memory();
        *reg = (Registration){
                .manager = manager, .incoming = incoming, .registered = registered, .userdata = userdata};
        r = definition_parse(text, strlen(text), &definition, error);
        if (r == 0)
                outcome = check_new_vm(manager, definition, incoming, &same, error);
        else if (r == -EINVAL)
                outcome = OUTCOME_BAD_DEFINITION;
        if (same) {
                free(reg);
                registered(userdata, OUTCOME_NONE, "", same);
                return;
        }
        if (outcome == OUTCOME_NONE)
                r = manager_add_vm(manager, definition, incoming ? PRESENCE_AWAY : PRESENCE_HERE, &reg->vm);
        if (outcome != OUTCOME_NONE || r < 0) {
                reg->vm = NULL;
                registration_failed(reg, outcome == OUTCOME_NONE ? OUTCOME_FAILED : outcome,
                                    r == -ENAMETOOLONG ? "the runtime directory's name is too long" : error);
                return;
        }
        definition = NULL; /* the VM's now */
        if (incoming)
                store_registration(reg);
        else
                vmm_find(reg->vm->vmm, on_registered_vmm, reg);
}

Outcome manager_say_busy(const Vm *vm, char *ret_text)
{
        const Job *job = vm->job;
        const char *name = vm->definition->name;

        if (job)
                (void) snprintf(ret_text, JSON_TEXT_MAX,
                                "VM %.100s has a job already: %s; wait for its end, or cancel it", name,
                                job->id);
        else
                (void) snprintf(ret_text, JSON_TEXT_MAX, "VM %.100s is in hand: %s; try again in a moment",
                                name,
                                vm->awaits_job    ? "a job that had not ended is being taken up again"
                                : !vm->registered ? "it is being registered"
                                : vm->resets      ? "a device of it is being reset"
                                : vm->opened      ? "another host checks whether it can come here"
                                                  : "its monitor is being asked");
        return OUTCOME_BUSY;
}

/* A job of the VM whose end the other half may not know, or NULL. That one holds a copy as long, or nothing but a question: were
 * the VM forgotten here, nobody would answer it after a restart. */
static const Job *find_owed(const Manager *manager, const Vm *vm)
{
        for (const Job *job = manager->jobs; job; job = job->next)
                if (job->vm == vm && job->finished && !job->closed && !job->half->check_only)
                        return job;
        return NULL;
}

static void say_owed(const Job *job, char *ret_text)
{
        uint64_t now = clock_realtime_usec(), since = job->ended_usec ? job->ended_usec : job->created_usec;

        (void) snprintf(
                ret_text, JSON_TEXT_MAX,
                "VM %.60s: job %s has ended (%s), and the other host, %.110s, has not acknowledged that for %llu s: it may "
                "hold a copy; it is told until it answers: see that migmgrd runs there and that the two reach each other; "
                "if that host is gone for good: migctl resolve %s",
                job->vm_name, job->id, job_result_to_string(job_result(job)), job->peer,
                (unsigned long long) (now > since ? (now - since) / USEC_PER_SEC : 0), job->id);
}

typedef struct Leave {
        Manager *manager;
        char vm[UUID_TEXT_MAX + 1];
        ManagerUnregistered unregistered;
        void *userdata;
} Leave;

static void leave_answer(Leave *leave, Outcome outcome, const char *text)
{
        leave->unregistered(leave->userdata, outcome, text);
        free(leave);
}

static void on_vm_deleted(void *userdata, int status, const char *text)
{
        Leave *leave = userdata;
        char full[JSON_TEXT_MAX] = "";

        if (status < 0) {
                (void) snprintf(
                        full, sizeof full,
                        "VM %s is unregistered, but still in the database, and comes back when migmgrd is started again: "
                        "%.200s; make room, start it again, and unregister it again",
                        leave->vm, text);
                log_error(NULL, "%s", full);
        }
        leave_answer(leave, status < 0 ? OUTCOME_STORE : OUTCOME_NONE, full);
}

/* Answered when that is durable: a VM of which one was told that it is gone must not come back. */
static void unregister_now(Leave *leave, Vm *vm)
{
        Manager *manager = leave->manager;
        const Job *owed = find_owed(manager, vm);
        char text[JSON_TEXT_MAX];

        if (vm_is_busy(vm) || vm->vmm->asked) {
                leave_answer(leave, manager_say_busy(vm, text), text);
                return;
        }
        if (owed) {
                say_owed(owed, text);
                leave_answer(leave, OUTCOME_BUSY, text);
                return;
        }
        log_info(LOG_ABOUT(.vm = vm->definition->name), "unregistered");
        store_delete_vm(manager->host->store, vm->definition->uuid, on_vm_deleted, leave);
        vm_close_devices(vm);
        manager_drop_vm(manager, vm);
}

static void on_may_leave(void *userdata)
{
        Leave *leave = userdata;
        Vm *vm = manager_find_uuid(leave->manager, leave->vm);

        if (vm)
                unregister_now(leave, vm);
        else /* whoever was quicker has unregistered it */
                leave_answer(leave, OUTCOME_NONE, "");
}

void manager_unregister(Manager *manager, Vm *vm, ManagerUnregistered unregistered, void *userdata)
{
        const Job *owed = find_owed(manager, vm);
        Leave *leave = malloc(sizeof *leave);

        if (!leave)
                out_of_memory();
        *leave = (Leave){.manager = manager, .unregistered = unregistered, .userdata = userdata};
        memcpy(leave->vm, vm->definition->uuid, sizeof leave->vm);
        /* It is on its way: whoever has just seen the VM arrive need not know. */
        if (!vm_is_busy(vm) && owed && owed->half->linked)
                manager_wait(manager, vm, on_may_leave, leave);
        else
                unregister_now(leave, vm);
}

/* ---- reset ----------------------------------------------------------------------------------------------------- */

Outcome manager_reset(Manager *manager, Vm *vm, const char *device, VmResetDone done, void *userdata,
                      char *ret_text)
{
        int32_t i = vm_find_device(vm, device);

        if (i < 0) {
                (void) snprintf(ret_text, JSON_TEXT_MAX,
                                "VM %.100s has no device \"%.64s\"; migctl devices lists those that it has",
                                vm->definition->name, device);
                return OUTCOME_NO_SUCH_DEVICE;
        }
        if (vm_is_busy(vm))
                return manager_say_busy(vm, ret_text);
        /* What a job has left in quarantine there no job would take again. */
        if (vm->presence != PRESENCE_HERE && !device_quarantine(vm->devices[i])[0]) {
                (void) snprintf(ret_text, JSON_TEXT_MAX,
                                "VM %.100s is away: its devices here are reset when it comes, not before",
                                vm->definition->name);
                return OUTCOME_INVALID_ARGUMENT;
        }
        if (vm_reset_device(vm, (uint32_t) i, done, userdata) < 0)
                out_of_memory();
        return OUTCOME_NONE;
}

/* ---- jobs ---------------------------------------------------------------------------------------------------- */

Job *manager_find_job(Manager *manager, const char *id)
{
        for (Job *job = manager->jobs; job; job = job->next)
                if (streq(job->id, id))
                        return job;
        return NULL;
}

static void history_free(History *h)
{
        json_object_put(h->summary);
        free(h->text);
        free(h);
}

void manager_add_history(Manager *manager, const char *id, const char *summary)
{
        History *h = calloc(1, sizeof *h), **p;
        uint32_t n = 1;

        if (!h)
                out_of_memory();
        *h = (History){.next = manager->history, .text = strdup(summary)};
        (void) snprintf(h->id, sizeof h->id, "%s", id);
        if (!h->text)
                out_of_memory();
        manager->history = h;
        for (p = &h->next; *p && n < HISTORY_KEEP; p = &(*p)->next)
                n++;
        while (*p) {
                History *old = *p;

                *p = old->next;
                history_free(old);
        }
}

/* NULL: the row is damaged. It hides no other. */
static json_object *summary_of_history(History *h)
{
        JsonReader reader = {.where = "history"};

        if (!h->summary)
                h->summary = json_parse(&reader, h->text, strlen(h->text));
        return json_object_is_type(h->summary, json_type_object) ? json_object_get(h->summary) : NULL;
}

static int newest_first(const void *a, const void *b)
{
        JsonReader reader = {.where = "jobs"};
        int64_t left = json_number(&reader, *(json_object *const *) a, "created_usec", 0, INT64_MAX, 0);
        int64_t right = json_number(&reader, *(json_object *const *) b, "created_usec", 0, INT64_MAX, 0);

        return (left < right) - (left > right);
}

json_object *manager_list_jobs(Manager *manager)
{
        json_object *array = json_new_array(), *summary;

        for (Job *job = manager->jobs; job; job = job->next)
                if (!job->half->check_only)
                        json_append(array, job_summary(job));
        for (History *h = manager->history; h; h = h->next)
                if (!manager_find_job(manager, h->id) && (summary = summary_of_history(h)))
                        json_append(array, summary);
        manager_list_pickups(manager, array);
        json_object_array_sort(array, newest_first);
        return array;
}

void manager_add_job(Manager *manager, Job *job)
{
        Job **last = &manager->jobs;

        while (*last)
                last = &(*last)->next;
        *last = job;
        if (job->half->check_only)
                return;
        if (manager->hooks)
                manager->hooks->job_added(manager->hooks_userdata, job);
        if (job->vm)
                on_vm_changed(manager, job->vm, -1);
}

void manager_drop_job(Manager *manager, Job *job)
{
        for (Job **p = &manager->jobs; *p; p = &(*p)->next)
                if (*p == job) {
                        *p = job->next;
                        break;
                }
        if (!job->half->check_only && manager->hooks)
                manager->hooks->job_removed(manager->hooks_userdata, job);
        job_free(job);
}

static void on_job_changed(void *userdata, Job *job, bool entered)
{
        Manager *manager = userdata;

        if (!job->half->check_only && manager->hooks)
                manager->hooks->job_changed(manager->hooks_userdata, job, entered);
}

static void on_job_device_changed(void *userdata, Job *job, uint32_t device)
{
        Manager *manager = userdata;

        if (!job->half->check_only && manager->hooks)
                manager->hooks->job_device_changed(manager->hooks_userdata, job, device);
}

static void on_job_finished(void *userdata, Job *job)
{
        Manager *manager = userdata;
        char text[1024];
        JobResult result = job_result(job);
        LogAbout about = {.job = job->id, .vm = job->vm_name};

        if (job->half->check_only)
                return; /* answered when it is closed, from a clean stack */
        (void) job_error(job, text, sizeof text);
        if (result == JOB_RESULT_DONE)
                log_info(&about, "done, blackout %llu us", (unsigned long long) job_blackout_usec(job));
        else if (result == JOB_RESULT_DEGRADED || result == JOB_RESULT_LOST)
                log_error(&about, "%s: %s", job_result_to_string(result), text);
        else
                log_warning(&about, "%s: %s", job_result_to_string(result), text);
        if (job->vm)
                on_vm_changed(manager, job->vm, -1);
        manager_vm_is_free(manager, job->vm_uuid);
}

/* Those that have ended are kept to be looked at, but not for ever. */
static void forget_old_jobs(Manager *manager)
{
        json_object *json;
        uint32_t n = 0;

        for (Job *job = manager->jobs; job; job = job->next)
                n += job->closed && job->finished;
        for (Job *job = manager->jobs, *next; job && n > JOBS_KEEP; job = next) {
                next = job->next;
                if (!job->closed || !job->finished || job->n_writes > 0)
                        continue;
                json = job_summary(job);
                manager_add_history(manager, job->id, json_print(json, JSON_C_TO_STRING_PLAIN));
                json_object_put(json);
                manager_drop_job(manager, job);
                n--;
        }
}

static void answer_check(Manager *manager, Job *job)
{
        _cleanup_(json_object_putp) json_object *report = job_report(job);
        JobResult result = job_result(job);
        char text[1024];
        Outcome outcome = job_error(job, text, sizeof text);
        Check *check = NULL;

        for (Check **p = &manager->checks; *p; p = &(*p)->next)
                if ((*p)->job == job) {
                        check = *p;
                        *p = check->next;
                        break;
                }
        if (!check)
                return;
        if (result == JOB_RESULT_DONE || result == JOB_RESULT_REFUSED)
                check->checked(check->userdata, OUTCOME_NONE, "", result == JOB_RESULT_DONE, report);
        else
                check->checked(check->userdata, outcome, text, false, report);
        free(check);
}

/* From a clean stack: the job may be freed here. */
static void on_job_closed(void *userdata, Job *job)
{
        Manager *manager = userdata;

        job->closed = true;
        if (job->vm && !vm_is_busy(job->vm))
                manager_vm_is_free(manager, job->vm_uuid);
        if (job->half->check_only) {
                answer_check(manager, job);
                manager_drop_job(manager, job);
        } else {
                forget_old_jobs(manager);
        }
        manager_drop_idle_dialers(manager);
}

const JobHooks manager_job_hooks = {
        .send = manager_send,
        .changed = on_job_changed,
        .device_changed = on_job_device_changed,
        .finished = on_job_finished,
        .closed = on_job_closed,
};

/* ---- life ---------------------------------------------------------------------------------------------------- */

void manager_set_hooks(Manager *manager, const ManagerHooks *hooks, void *userdata)
{
        manager->hooks = hooks;
        manager->hooks_userdata = userdata;
}

int manager_new(const Host *host, Manager **ret)
{
        Manager *manager = calloc(1, sizeof *manager);

        if (!manager)
                return -ENOMEM;
        manager->host = host;
        *ret = manager;
        return 0;
}

/* Agents and VMMs stay; the next daemon finds them. */
Manager *manager_free(Manager *manager)
{
        if (!manager)
                return NULL;
        manager->hooks = NULL;
        manager_end_waits(manager);
        while (manager->n_listeners > 0)
                listener_free(manager->listeners[--manager->n_listeners]);
        manager_free_peers(manager);
        while (manager->jobs)
                manager_drop_job(manager, manager->jobs);
        manager_free_pickups(manager);
        while (manager->vms)
                manager_drop_vm(manager, manager->vms);
        while (manager->history) {
                History *h = manager->history;

                manager->history = h->next;
                history_free(h);
        }
        while (manager->checks) {
                Check *check = manager->checks;

                manager->checks = check->next;
                free(check);
        }
        free(manager);
        return NULL;
}
