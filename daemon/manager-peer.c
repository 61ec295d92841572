/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Other daemons: whom we dial, who dials us, and which job a message belongs to. And the destination's side of check. */

#include <stdio.h>

#include "common/clock.h"
#include "common/log.h"
#include "manager-internal.h"
#include "manifest-json.h"
#include "peer/address.h"

/* ---- we dial: the source's jobs ------------------------------------------------------------------------------ */

static bool goes_to(const Job *job, const Dialer *dialer)
{
        return !job->closed && job_side(job) == SIDE_SOURCE && streq(job->peer, dialer_address(dialer));
}

static void on_dialer_up(void *userdata, Dialer *dialer)
{
        Manager *manager = userdata;

        for (Job *job = manager->jobs, *next; job; job = next) {
                next = job->next;
                if (goes_to(job, dialer))
                        job_linked(job);
        }
}

static void on_dialer_message(void *userdata, Dialer *dialer, Message type, const char *id, json_object *body)
{
        Manager *manager = userdata;

        for (Job *job = manager->jobs; job; job = job->next)
                if (goes_to(job, dialer) && streq(job->id, id)) {
                        job_message(job, type, body);
                        return;
                }
}

static void on_dialer_down(void *userdata, Dialer *dialer, int status, const char *text)
{
        Manager *manager = userdata;

        for (Job *job = manager->jobs, *next; job; job = next) {
                next = job->next;
                if (goes_to(job, dialer))
                        job_cut(job, text);
        }
}

Dialer *manager_dialer(Manager *manager, const char *address)
{
        static const DialerListener listener = {on_dialer_up, on_dialer_message, on_dialer_down};
        Callee *callee;

        for (callee = manager->callees; callee; callee = callee->next)
                if (streq(dialer_address(callee->dialer), address))
                        return callee->dialer;
        callee = calloc(1, sizeof *callee);
        if (!callee)
                return NULL;
        if (dialer_new(manager->host->loop, address, manager->host->host_id, manager->host->boot_id,
                       &listener, manager, &callee->dialer) < 0) {
                free(callee);
                return NULL;
        }
        callee->next = manager->callees;
        manager->callees = callee;
        return callee->dialer;
}

void manager_drop_idle_dialers(Manager *manager)
{
        for (Callee **p = &manager->callees; *p;) {
                Callee *callee = *p;
                bool used = false;

                for (Job *job = manager->jobs; job; job = job->next)
                        used |= goes_to(job, callee->dialer);
                if (used) {
                        p = &callee->next;
                        continue;
                }
                *p = callee->next;
                dialer_free(callee->dialer);
                free(callee);
        }
}

/* ---- they dial us: the destination's jobs -------------------------------------------------------------------- */

static bool comes_from(const Job *job, const Link *link)
{
        return job_side(job) == SIDE_DESTINATION && streq(job->peer, link_host(link));
}

static void caller_free(Caller *caller)
{
        for (Caller **p = &caller->manager->callers; *p; p = &(*p)->next)
                if (*p == caller) {
                        *p = caller->next;
                        break;
                }
        link_free(caller->link);
        free(caller);
}

void manager_send(void *userdata, Job *job, json_object *message)
{
        Manager *manager = userdata;

        if (job_side(job) == SIDE_SOURCE) {
                Dialer *dialer = manager_dialer(manager, job->peer);

                if (dialer)
                        dialer_send(dialer, message);
                else
                        json_object_put(message);
                return;
        }
        for (Caller *caller = manager->callers; caller; caller = caller->next)
                if (link_is_up(caller->link) && comes_from(job, caller->link)) {
                        link_send(caller->link, message);
                        return;
                }
        json_object_put(message);
}

static void cut_jobs(Manager *manager, const Link *link, const char *text)
{
        for (Job *job = manager->jobs, *next; job; job = next) {
                next = job->next;
                if (comes_from(job, link))
                        job_cut(job, text);
        }
}

/* A new connection of the same host displaces the old one: whatever is still in that came before a restart or a cut. */
static void on_caller_up(void *userdata, Link *link)
{
        Caller *caller = userdata;
        Manager *manager = caller->manager;

        for (Caller *other = manager->callers, *next; other; other = next) {
                next = other->next;
                if (other != caller && link_is_up(other->link) &&
                    streq(link_host(other->link), link_host(link))) {
                        cut_jobs(manager, other->link, "the source has connected anew");
                        caller_free(other);
                }
        }
        for (Job *job = manager->jobs, *next; job; job = next) {
                next = job->next;
                if (comes_from(job, link))
                        job_linked(job);
        }
}

static void on_caller_down(void *userdata, Link *link, int status, const char *text)
{
        Caller *caller = userdata;
        Manager *manager = caller->manager;
        bool was_up = link_host(link)[0] != 0;

        if (was_up)
                cut_jobs(manager, link, text);
        caller_free(caller);
}

/* ---- check, at the destination ------------------------------------------------------------------------------- */

struct Inquiry;

/* One device of it, while plugins are asked. */
typedef struct Look {
        struct Inquiry *inquiry;
        Vm *vm;
        uint32_t device;
} Look;

/* One CHECK while its facts are gathered. The link may go meanwhile: then nobody is answered. */
typedef struct Inquiry {
        Manager *manager;
        char host[UUID_TEXT_MAX + 1]; /* who asks */
        char job[UUID_TEXT_MAX + 1];
        char vm[UUID_TEXT_MAX + 1];
        Manifest source;
        bool waited;            /* for the job before; not again */
        json_object *from_them; /* plugins' findings */
        Look *looks;            /* one for each device; owned */
} Inquiry;

static void inquiry_free(Inquiry *inquiry)
{
        manifest_deinit(&inquiry->source);
        json_object_put(inquiry->from_them);
        free(inquiry->looks);
        free(inquiry);
}

/* Of more than a person would read, the first; all of a VM with a thousand devices would not go into one message. */
#define FINDINGS_SENT 100

/* `mine`: what this host is, if it was looked at. */
static void answer_inquiry(Inquiry *inquiry, json_object *findings, const Manifest *mine)
{
        json_object *message = link_message(MESSAGE_CHECKED, inquiry->job), *report = json_new_object();
        size_t n = json_object_array_length(findings);
        Vm *vm = manager_find_uuid(inquiry->manager, inquiry->vm);
        bool ok = !findings_json_first_refusal(findings);

        if (vm)
                check_note_answer(&vm->passes, inquiry->host, inquiry->job, ok, clock_monotonic_usec());
        json_add_bool(report, "ok", ok);
        json_add(report, "findings", findings_json_first(findings, FINDINGS_SENT));
        json_add_number(report, "more", n > FINDINGS_SENT ? (int64_t) n - FINDINGS_SENT : 0);
        json_object_put(findings);
        if (mine)
                json_add(message, "manifest", manifest_to_json(mine));
        json_add(message, "report", report);
        for (Caller *caller = inquiry->manager->callers; caller; caller = caller->next)
                if (link_is_up(caller->link) && streq(link_host(caller->link), inquiry->host)) {
                        link_send(caller->link, message);
                        message = NULL;
                        break;
                }
        json_object_put(message);
        inquiry_free(inquiry);
}

static void answer_one_finding(Inquiry *inquiry, FindingId id, const char *source, const char *destination)
{
        json_object *array = json_new_array();
        Findings findings = {};

        if (findings_add(&findings, id, "", source, destination) < 0)
                out_of_memory();
        findings_to_json(&findings, array);
        findings_deinit(&findings);
        answer_inquiry(inquiry, array, NULL);
}

/* Everything that the source claims and that can be judged is judged again here. */
static void judge(Inquiry *inquiry, Vm *vm)
{
        json_object *array = json_new_array();
        const PolicyRules *rules = &inquiry->manager->host->policies->rules;
        Findings findings = {};
        Manifest mine;

        if (vm_manifest(vm, &mine) < 0 || check_side(&inquiry->source, rules, SIDE_SOURCE, &findings) < 0 ||
            check_side(&mine, rules, SIDE_DESTINATION, &findings) < 0 ||
            check_pair(&inquiry->source, &mine, rules, &findings) < 0)
                out_of_memory();
        findings_to_json(&findings, array);
        findings_deinit(&findings);
        findings_take(inquiry->from_them, array);
        vm_close_devices_later(vm);
        answer_inquiry(inquiry, array, &mine);
        manifest_deinit(&mine);
}

static void on_plugins_checked(void *userdata)
{
        Look *look = userdata;

        if (--look->vm->n_asking == 0)
                judge(look->inquiry, look->vm);
}

/* What this host's plugins say of its device is known: does the source's fit? */
static void on_plugins_looked(void *userdata)
{
        const Look *look = userdata;
        Inquiry *inquiry = look->inquiry;
        const PluginsView *view = &look->vm->views[look->device];
        const ManifestDevice *theirs =
                manifest_find(&inquiry->source, device_id(look->vm->devices[look->device]));
        VmDescription description;

        findings_join(view->findings, inquiry->from_them);
        if (!theirs) {
                on_plugins_checked(userdata);
                return;
        }
        vm_describe(look->vm, look->device, &description);
        plugins_check(inquiry->manager->host->plugins, &description.device, theirs, view, inquiry->from_them,
                      on_plugins_checked, userdata);
}

/* The VM is busy until all have answered. */
static void ask_plugins(Inquiry *inquiry, Vm *vm)
{
        uint32_t n = vm_asks_plugins(vm) ? vm->definition->n_devices : 0;

        for (uint32_t i = 0; i < inquiry->source.n_devices; i++)
                plugins_find_missing(inquiry->manager->host->plugins, &inquiry->source.devices[i],
                                     inquiry->from_them);
        if (n == 0) {
                judge(inquiry, vm);
                return;
        }
        inquiry->looks = calloc(n, sizeof *inquiry->looks);
        if (!inquiry->looks)
                out_of_memory();
        vm->n_asking = n;
        for (uint32_t i = 0; i < n; i++) {
                inquiry->looks[i] = (Look){inquiry, vm, i};
                vm_look_by_plugins(vm, i, SIDE_DESTINATION, on_plugins_looked, &inquiry->looks[i]);
        }
}

static void on_inquiry_vmm(void *userdata, int status, const char *text)
{
        Inquiry *inquiry = userdata;
        Vm *vm = manager_find_vm(inquiry->manager, inquiry->vm);

        if (!vm) {
                inquiry_free(inquiry);
                return;
        }
        vm->vmm->facts.status = status;
        (void) snprintf(vm->vmm->facts.text, sizeof vm->vmm->facts.text, "%.199s", text);
        ask_plugins(inquiry, vm);
}

static void on_inquiry_devices(void *userdata, Vm *vm)
{
        Inquiry *inquiry = userdata;

        if (vm->definition->vmm == VMM_TYPE_NONE)
                ask_plugins(inquiry, vm);
        else
                vmm_find(vm->vmm, on_inquiry_vmm, inquiry);
}

static Vm *find_incoming(Manager *manager, const char *uuid)
{
        Vm *vm = manager_find_vm(manager, uuid);

        if (!vm) {
                manager_look_at_files(manager);
                vm = manager_find_vm(manager, uuid);
        }
        return vm;
}

/* Every device and the VMM of the VM are looked at, once it is free. */
static void look_at_vm(Inquiry *inquiry);

static void on_vm_free(void *userdata)
{
        Inquiry *inquiry = userdata;

        inquiry->waited = true;
        look_at_vm(inquiry);
}

/* The job before: it is over at the host that asks, else it would not, and is about to end here too, as soon as we have heard.
 * One waits for each VM only. */
static bool will_be_free(const Inquiry *inquiry, const Vm *vm)
{
        const Job *job = vm->job;

        return job && !inquiry->waited && !manager_is_awaited(inquiry->manager, inquiry->vm) &&
               (job_is_decided(job) || job->half->state == SOURCE_GO ||
                (job_side(job) == SIDE_DESTINATION && streq(job->peer, inquiry->host)));
}

static void look_at_vm(Inquiry *inquiry)
{
        Vm *vm = find_incoming(inquiry->manager, inquiry->vm);

        if (!vm || !vm->registered)
                answer_one_finding(inquiry, FINDING_NOT_REGISTERED, "registered", "not registered");
        else if (will_be_free(inquiry, vm))
                manager_wait(inquiry->manager, vm, on_vm_free, inquiry);
        else if (vm_is_busy(vm) || vm->vmm->asked)
                answer_one_finding(inquiry, FINDING_BUSY, "none", "another job has this VM in hand");
        else if (vm->presence == PRESENCE_HERE)
                answer_one_finding(inquiry, FINDING_PRESENCE_BOTH, "here", "here");
        else
                vm_open_devices(vm, false, on_inquiry_devices, inquiry);
}

static void take_check(Caller *caller, const char *job, json_object *body)
{
        JsonReader reader = {.where = "CHECK"};
        Inquiry *inquiry = calloc(1, sizeof *inquiry);
        json_object *manifest = json_member(&reader, body, "manifest", json_type_object, true);

        if (!inquiry)
                out_of_memory();
        inquiry->manager = caller->manager;
        inquiry->from_them = json_new_array();
        memcpy(inquiry->host, link_host(caller->link), sizeof inquiry->host);
        memcpy(inquiry->job, job, sizeof inquiry->job);
        if (manifest_from_json(&reader, manifest, &inquiry->source) < 0) {
                answer_one_finding(inquiry, FINDING_MANIFEST, reader.text, "");
                return;
        }
        memcpy(inquiry->vm, inquiry->source.uuid, sizeof inquiry->vm);
        if (caller->manager->host->policies->error[0])
                answer_one_finding(inquiry, FINDING_POLICIES, "", caller->manager->host->policies->error);
        else
                look_at_vm(inquiry);
}

/* ---- prepare, at the destination ----------------------------------------------------------------------------- */

static void refuse_prepare(Link *link, const char *job, const char *text)
{
        json_object *message = link_message(MESSAGE_FAILED, job);

        json_add_string(message, "phase", phase_to_string(PHASE_PREPARE));
        json_add_string(message, "text", text);
        json_add_number(message, "errno", EBUSY);
        link_send(link, message);
}

/* CHECK has opened them, or has said why not. */
static bool all_open(const Vm *vm, char *ret_text)
{
        for (uint32_t i = 0; i < vm->definition->n_devices; i++) {
                const char *why = device_text(vm->devices[i]);

                if (device_is_open(vm->devices[i]) || device_is_supervised(vm->devices[i]))
                        continue;
                (void) snprintf(ret_text, JSON_TEXT_MAX, "VM %.60s, device %s: %.250s", vm->definition->name,
                                device_id(vm->devices[i]),
                                why[0] ? why : "it is not open at the destination any more; check once more");
                return false;
        }
        return true;
}

static void take_prepare(Caller *caller, const char *id, json_object *body)
{
        Manager *manager = caller->manager;
        JsonReader reader = {.where = "PREPARE"};
        const char *uuid = json_string(&reader, body, "vm", true);
        Vm *vm = uuid ? manager_find_vm(manager, uuid) : NULL;
        char text[JSON_TEXT_MAX] = "it can't be prepared";
        Job *job;

        if (reader.failed)
                (void) snprintf(text, sizeof text, "%s", reader.text);
        else if (!vm || !vm->registered || vm->presence != PRESENCE_AWAY)
                (void) snprintf(text, sizeof text,
                                "the VM is not registered at the destination, or is there already");
        else if (vm_is_busy(vm))
                (void) snprintf(text, sizeof text, "another job has this VM in hand at the destination");
        else if (manager_find_job(manager, id)) /* of another host: its record would be overwritten */
                (void) snprintf(text, sizeof text, "the destination knows a job of this UUID already");
        else if (!check_has_passed(&vm->passes, link_host(caller->link), id, clock_monotonic_usec()))
                (void) snprintf(
                        text, sizeof text,
                        "VM %.60s: this job has not passed the destination's check, or too long ago; check once more",
                        vm->definition->name);
        else if (all_open(vm, text) &&
                 job_new_destination(manager->host, &manager_job_hooks, manager, vm, link_host(caller->link),
                                     id, body, text, &job) == 0) {
                check_note_answer(&vm->passes, link_host(caller->link), id, false, 0); /* it serves once */
                manager_add_job(manager, job);
                job_start(job, true);
                return;
        }
        refuse_prepare(caller->link, id, text);
}

/* ---- messages to the destination ----------------------------------------------------------------------------- */

/* About a job that nobody here has a record of, nothing can be said; of one that is left alone, not even that. */
static void take_unknown(const Manager *manager, Link *link, Message type, const char *job)
{
        if (manager_has_pickup(manager, job))
                return;
        if (type == MESSAGE_ASK || type == MESSAGE_GO || type == MESSAGE_ABORT || type == MESSAGE_END ||
            type == MESSAGE_DONE)
                link_send(link, link_message(MESSAGE_UNKNOWN, job));
}

static void on_caller_message(void *userdata, Link *link, Message type, const char *id, json_object *body)
{
        Caller *caller = userdata;

        for (Job *job = caller->manager->jobs; job; job = job->next)
                if (!job->closed && comes_from(job, link) && streq(job->id, id)) {
                        job_message(job, type, body);
                        return;
                }
        if (type == MESSAGE_CHECK)
                take_check(caller, id, body);
        else if (type == MESSAGE_PREPARE)
                take_prepare(caller, id, body);
        else
                take_unknown(caller->manager, link, type, id);
}

static void on_control(void *userdata, int fd)
{
        static const LinkListener listener = {on_caller_up, on_caller_message, on_caller_down};
        Manager *manager = userdata;
        Caller *caller = calloc(1, sizeof *caller);

        if (!caller) {
                (void) close(fd);
                return;
        }
        caller->manager = manager;
        if (link_new(manager->host->loop, fd, manager->host->host_id, manager->host->boot_id, &listener,
                     caller, &caller->link) < 0) {
                free(caller);
                return;
        }
        caller->next = manager->callers;
        manager->callers = caller;
}

static bool on_data(void *userdata, const Hello *hello, int fd)
{
        Manager *manager = userdata;

        for (Job *job = manager->jobs; job; job = job->next)
                if (!job->closed && job_data(job, hello, fd))
                        return true;
        return false;
}

static int listen_at(Manager *manager, const char *address)
{
        static const ListenerEvents events = {on_control, on_data};
        int r = listener_new(manager->host->loop, address, &events, manager,
                             &manager->listeners[manager->n_listeners]);

        if (r < 0)
                log_error(NULL, "cannot listen for other daemons at %s: %s", address, strerror(-r));
        else
                manager->n_listeners++;
        return r;
}

int manager_listen(Manager *manager)
{
        const Config *config = &manager->host->config;
        char address[SOCKET_PATH_MAX + 32];
        int r;

        (void) snprintf(address, sizeof address, "unix:%s/peer.sock", config->runtime_dir);
        r = listen_at(manager, address);
        for (uint32_t i = 0; i < config->n_listen && r >= 0; i++)
                r = listen_at(manager, config->listen[i]);
        return r;
}

void manager_free_peers(Manager *manager)
{
        while (manager->callers)
                caller_free(manager->callers);
        while (manager->callees) {
                Callee *callee = manager->callees;

                manager->callees = callee->next;
                dialer_free(callee->dialer);
                free(callee);
        }
}
