/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* After a start: the VMs that are known, their agents and VMMs found again, and every job that had not ended taken up
 * where its record says (core/half-states.c has the table). */

#include <dirent.h>
#include <stdio.h>

#include "common/file.h"
#include "common/log.h"
#include "manager-internal.h"

struct Pickup {
        Manager *manager;
        Record record;
        char *policy; /* the record's */
        bool superseded, contradicted;
        VmmSight sight;
        Pickup *next;
};

/* ---- files in vms.d ------------------------------------------------------------------------------------------ */

static void on_file_stored(void *userdata, int status, const char *text)
{
        if (status < 0)
                log_error(NULL, "a definition from vms.d can't be written to the database: %s", text);
}

static void take_file(Manager *manager, const char *path)
{
        _cleanup_(definition_freep) Definition *definition = NULL;
        _cleanup_(freep) char *text = NULL;
        char error[JSON_TEXT_MAX];
        size_t size;
        Vm *vm;
        int r = file_read(path, DEFINITION_TEXT_MAX, &text, &size);

        if (r >= 0) {
                (void) snprintf(error, sizeof error, "out of memory");
                r = definition_parse(text, size, &definition, error);
        } else {
                (void) snprintf(error, sizeof error, "%s", strerror(-r));
        }
        if (r < 0) {
                log_error(NULL, "%s: %s", path, error);
                return;
        }
        if (manager_find_vm(manager, definition->uuid) || manager_find_vm(manager, definition->name))
                return;
        r = manager_add_vm(manager, definition, PRESENCE_AWAY, &vm);
        if (r < 0)
                return;
        definition = NULL; /* the VM's now */
        log_info(LOG_ABOUT(.vm = vm->definition->name), "registered from %s, away", path);
        store_put_vm(manager->host->store, vm->definition->uuid, vm->definition->text, PRESENCE_AWAY,
                     on_file_stored, NULL);
        manager_show_vm(manager, vm);
}

static int is_json(const struct dirent *entry)
{
        size_t n = strlen(entry->d_name);

        return entry->d_name[0] != '.' && n > 5 && streq(entry->d_name + n - 5, ".json");
}

void manager_look_at_files(Manager *manager)
{
        const char *dir = manager->host->config.vms_dir;
        struct dirent **names = NULL;
        char path[8192];
        int n = scandir(dir, &names, is_json, alphasort);

        for (int i = 0; i < n; i++) {
                (void) snprintf(path, sizeof path, "%s/%s", dir, names[i]->d_name);
                take_file(manager, path);
                free(names[i]);
        }
        free(names);
}

/* ---- VMs that are here ---------------------------------------------------------------------------------------- */

static void on_here_vmm(void *userdata, int status, const char *text)
{
        Vm *vm = userdata;

        if (status < 0)
                log_warning(LOG_ABOUT(.vm = vm->definition->name),
                            "the VM should be here, but its VMM at %s: %s", definition_place(vm->definition),
                            text);
}

static void say_found(Manager *manager)
{
        uint32_t n = 0, n_open = 0;

        for (const Vm *vm = manager->vms; vm; vm = vm->next)
                for (uint32_t i = 0; vm->presence == PRESENCE_HERE && i < vm->definition->n_devices; i++) {
                        n++;
                        n_open += device_is_open(vm->devices[i]);
                }
        log_info(NULL, "%u of %u devices found again", n_open, n);
}

static void on_found(void *userdata, Vm *vm)
{
        Manager *manager = userdata;

        if (--manager->n_finding > 0)
                return;
        say_found(manager);
        if (manager->hooks)
                manager->hooks->started(manager->hooks_userdata);
}

static bool is_picked_up(const Vm *vm, const Pickup *list)
{
        for (const Pickup *p = list; p; p = p->next)
                if (streq(p->record.vm, vm->definition->uuid) && !p->superseded)
                        return true;
        return false;
}

/* At once: agents answer while the next VMs are read. And not when the VMM has answered: it may be waiting for a device itself, and
 * by then a job may have asked for them, whose place this would take. */
static void find_again(Manager *manager, Vm *vm)
{
        if (vm->presence != PRESENCE_HERE || is_picked_up(vm, manager->pickups))
                return;
        manager->n_finding++;
        vm_find_devices(vm, on_found, manager);
        vmm_find(vm->vmm, on_here_vmm, vm);
}

/* ---- what the store knows ------------------------------------------------------------------------------------ */

static int take_vm(void *userdata, const char *text, Presence presence)
{
        Manager *manager = userdata;
        _cleanup_(definition_freep) Definition *definition = NULL;
        char error[JSON_TEXT_MAX];
        Vm *vm;
        int r = definition_parse(text, strlen(text), &definition, error);

        if (r == -EINVAL) {
                /* Written by another version, or damaged: the others must not suffer. */
                log_error(NULL, "a registered VM is left out: %s; register it again", error);
                return 0;
        }
        if (r >= 0 &&
            (manager_find_uuid(manager, definition->uuid) || manager_find_vm(manager, definition->name))) {
                log_error(NULL, "a registered VM is left out: another one is VM %s or has its UUID %s",
                          definition->name, definition->uuid);
                return 0;
        }
        if (r >= 0)
                r = manager_add_vm(manager, definition, (int) presence < 0 ? PRESENCE_AWAY : presence, &vm);
        if (r < 0)
                return r;
        definition = NULL; /* the VM's now */
        manager_show_vm(manager, vm);
        find_again(manager, vm);
        return 0;
}

static int take_quarantine(void *userdata, const char *uuid, const char *device, const char *reason)
{
        Vm *vm = manager_find_uuid(userdata, uuid);
        int32_t i = vm ? vm_find_device(vm, device) : -1;

        if (i >= 0)
                device_set_quarantine(vm->devices[i], reason);
        return 0;
}

static int take_history(void *userdata, const char *job, const char *summary, const char *report)
{
        _cleanup_(json_object_putp) json_object *parsed = NULL;
        JsonReader reader = {.where = "history"};
        const char *uuid;
        Vm *vm;

        manager_add_history(userdata, job, summary);
        parsed = json_parse(&reader, report, strlen(report));
        uuid = json_string(&reader, parsed, "vm", false);
        vm = uuid ? manager_find_uuid(userdata, uuid) : NULL;
        if (vm)
                measured_take(&vm->measured, parsed);
        return 0;
}

/* ---- jobs that had not ended --------------------------------------------------------------------------------- */

static int take_record(void *userdata, const Record *record)
{
        Manager *manager = userdata;
        Pickup *pickup;

        /* Damaged: no peer can ask about a job that has no such name. */
        if (!uuid_is_valid(record->job)) {
                log_error(LOG_ABOUT(.vm = record->vm), "a record is left out: its job \"%.40s\" is no UUID",
                          record->job);
                return 0;
        }
        pickup = calloc(1, sizeof *pickup);
        if (!pickup)
                return -ENOMEM;
        *pickup = (Pickup){.manager = manager, .record = *record, .next = manager->pickups};
        pickup->record.policy = pickup->policy = strdup(record->policy);
        if (!pickup->policy) {
                free(pickup);
                return -ENOMEM;
        }
        manager->pickups = pickup;
        return 0;
}

static void pickup_free(Pickup *pickup)
{
        free(pickup->policy);
        free(pickup);
}

bool manager_knows_all(const Manager *manager)
{
        for (const Pickup *p = manager->pickups; p; p = p->next)
                if (!p->contradicted)
                        return false;
        return true;
}

/* Only when every job is known again may a peer ask about one: "never heard of it" would be a lie. */
static void pickup_done(Pickup *pickup)
{
        Manager *manager = pickup->manager;
        Pickup **p = &manager->pickups;

        while (*p != pickup)
                p = &(*p)->next;
        *p = pickup->next;
        pickup_free(pickup);
        if (manager_knows_all(manager) && manager_listen(manager) < 0)
                log_error(NULL, "no VM can come here; start migmgrd again when that has been put right");
}

void manager_free_pickups(Manager *manager)
{
        while (manager->pickups) {
                Pickup *pickup = manager->pickups;

                manager->pickups = pickup->next;
                pickup_free(pickup);
        }
}

/* What is known before anybody has been asked: the record. */
static json_object *pickup_to_json(const Pickup *pickup)
{
        const Record *record = &pickup->record;
        const Vm *vm = manager_find_uuid(pickup->manager, record->vm);
        json_object *o = json_new_object(), *error = json_new_object();

        json_add_string(o, "job", record->job);
        json_add_string(o, "vm", record->vm);
        json_add_string(o, "name", vm ? vm->definition->name : record->vm);
        json_add_string(o, "half", side_to_string(record->side));
        json_add_string(o, "peer", record->peer);
        json_add_string(o, "state", "restoring");
        json_add_string(o, "owner", owner_to_string(record->owner));
        json_add_number(o, "created_usec", (int64_t) record->created_usec);
        json_add_string(
                error, "text",
                pickup->contradicted
                        ? "another job's record says that it has the same VM in hand: this one is left alone, "
                          "see " MIGMGR_DOC_DIR "/in-doubt.md"
                        : "migmgrd was started again, and is finding out where devices and VMM are; ask again");
        json_add(o, "error", error);
        return o;
}

void manager_list_pickups(const Manager *manager, json_object *array)
{
        for (const Pickup *p = manager->pickups; p; p = p->next)
                json_append(array, pickup_to_json(p));
}

static const Pickup *find_pickup(const Manager *manager, const char *job)
{
        for (const Pickup *p = manager->pickups; p; p = p->next)
                if (streq(p->record.job, job))
                        return p;
        return NULL;
}

json_object *manager_show_pickup(Manager *manager, const char *job)
{
        const Pickup *pickup = find_pickup(manager, job);

        return pickup ? pickup_to_json(pickup) : NULL;
}

bool manager_has_pickup(const Manager *manager, const char *job)
{
        return find_pickup(manager, job) != NULL;
}

static void take_up(void *userdata)
{
        Pickup *pickup = userdata;
        const VmmSight *sight = &pickup->sight;
        Manager *manager = pickup->manager;
        Vm *vm = manager_find_vm(manager, pickup->record.vm);
        LogAbout about = {.job = pickup->record.job, .vm = pickup->record.vm};
        Job *job = NULL;
        int r;

        if (vm && !pickup->superseded)
                vm->awaits_job = false;
        r = vm ? job_new_restored(manager->host, &manager_job_hooks, manager, vm, &pickup->record, sight,
                                  pickup->superseded, &job)
               : -ENOENT;

        if (r < 0) {
                log_error(&about, "the record \"%s\" of this job can't be taken up: %s",
                          owner_to_string(pickup->record.owner), strerror(-r));
        } else {
                log_info(&about, "taken up again: the record says \"%s\", the VMM %s",
                         owner_to_string(pickup->record.owner),
                         !sight->lives ? "is gone"
                         : sight->runs ? "runs"
                                       : "stands");
                Dialer *dialer = NULL;

                manager_add_job(manager, job);
                if (job_side(job) == SIDE_SOURCE)
                        dialer = manager_dialer(manager, job->peer);
                job_start(job, dialer && dialer_is_up(dialer));
        }
        pickup_done(pickup);
}

/* One that has died while nobody looked has left us the files of its devices: gone it is when these are closed. */
static void on_pickup_seen(void *userdata, const VmmSight *sight)
{
        Pickup *pickup = userdata;
        Vm *vm = manager_find_vm(pickup->manager, pickup->record.vm);

        pickup->sight = *sight;
        if (sight->lives || !vm || pickup->superseded || vm->clearing ||
            vm_clear_supervised(vm, take_up, pickup) < 0)
                take_up(pickup);
}

static void on_pickup_devices(void *userdata, Vm *vm)
{
        Pickup *pickup = userdata;

        vmm_set_job(vm->vmm, pickup->record.job);
        vmm_see(vm->vmm, &pickup->record.vmm, on_pickup_seen, pickup);
}

static void pick_up(Pickup *pickup)
{
        Vm *vm = manager_find_vm(pickup->manager, pickup->record.vm);

        if (!vm || pickup->superseded) {
                /* Nothing of the VM is needed, only that the other half hears the end. */
                on_pickup_seen(pickup, &(VmmSight){});
                return;
        }
        vm->awaits_job = true;
        vm_open_devices(vm, true, on_pickup_devices, pickup);
}

/* Nobody else gets the VM either. */
static void stay_out(const Pickup *pickup)
{
        Vm *vm = manager_find_uuid(pickup->manager, pickup->record.vm);

        if (vm)
                vm->awaits_job = true;
}

static bool is_superseded(const Pickup *pickup, const Pickup *list)
{
        const Record *record = &pickup->record;
        RecordOthers others = {.has_newer = record->has_newer, .presence = record->presence};

        for (const Pickup *p = list; p; p = p->next)
                others.has_unended |=
                        p != pickup && streq(p->record.vm, record->vm) && !owner_is_final(p->record.owner);
        return owner_is_superseded(record->side, record->owner, &others);
}

/* Two jobs that both have a VM in hand nobody can have begun: what the records say of who runs it is worth nothing. No other
 * VM must suffer for that. */
static void find_contradictions(const Manager *manager)
{
        for (Pickup *p = manager->pickups; p; p = p->next)
                for (Pickup *other = p->next; other; other = other->next) {
                        if (p->superseded || other->superseded || !streq(p->record.vm, other->record.vm))
                                continue;
                        p->contradicted = other->contradicted = true;
                        log_error(
                                LOG_ABOUT(.vm = p->record.vm, .job = p->record.job),
                                "the records say that job %s has the same VM in hand: the database in %s is damaged; both are "
                                "left alone, see %s",
                                other->record.job, manager->host->config.state_dir,
                                MIGMGR_DOC_DIR "/in-doubt.md");
                }
}

/* Jobs first: whose VMs are theirs. */
int manager_start(Manager *manager)
{
        Store *store = manager->host->store;
        Pickup *next;
        int r = store_each_open_record(store, take_record, manager);

        for (Pickup *p = manager->pickups; p; p = p->next)
                p->superseded = is_superseded(p, manager->pickups);
        find_contradictions(manager);
        manager->n_finding = 1;
        if (r >= 0)
                r = store_each_vm(store, take_vm, manager);
        if (r >= 0)
                r = store_each_quarantine(store, take_quarantine, manager);
        if (r >= 0)
                r = store_each_history(store, HISTORY_KEEP, take_history, manager);
        if (r < 0)
                return r;
        manager_look_at_files(manager);
        for (Pickup *p = manager->pickups; p; p = next) {
                next = p->next;
                if (p->contradicted)
                        stay_out(p);
                else
                        pick_up(p);
        }
        on_found(manager, NULL);
        parking_clear(manager->host->parking);
        return !manager_knows_all(manager) || manager->n_listeners > 0 ? 0 : manager_listen(manager);
}
