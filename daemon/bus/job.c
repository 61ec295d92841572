/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* org.migmgr1.Job */

#include <stdio.h>

#include "bus.h"
#include "common/clock.h"
#include "common/log.h"

/* Progress is told ten times a second at most; a change of state at once. */
#define PROGRESS_USEC (100 * USEC_PER_MSEC)

/* What was told of a job last. */
typedef struct JobView JobView;
struct JobView {
        JobView *next;
        Bus *bus;
        Job *job;
        JobState state;
        Phase phase;
        uint64_t told_usec;
        LoopTimer *timer;
};

static JobView *find_view(Bus *bus, const Job *job)
{
        for (JobView *view = bus->views; view; view = view->next)
                if (view->job == job)
                        return view;
        return NULL;
}

/* ---- the object ---------------------------------------------------------------------------------------------- */

static int job_find(sd_bus *b, const char *path, const char *interface, void *userdata, void **ret,
                    sd_bus_error *error)
{
        Bus *bus = userdata;
        char own[BUS_PATH_MAX];

        for (JobView *view = bus->views; view; view = view->next) {
                bus_job_path(view->job->id, own);
                if (streq(own, path)) {
                        *ret = view;
                        return 1;
                }
        }
        return 0;
}

static int get_vm(sd_bus *b, const char *path, const char *interface, const char *property,
                  sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
        const Job *job = ((JobView *) userdata)->job;
        char vm_path[BUS_PATH_MAX];

        bus_vm_path(job->vm_uuid, vm_path); /* the VM may be unregistered by now */
        return sd_bus_message_append(reply, "o", vm_path);
}

static int get_text(sd_bus *b, const char *path, const char *interface, const char *property,
                    sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
        const Job *job = ((JobView *) userdata)->job;
        const char *text = "";

        if (streq(property, "State"))
                text = job_state_to_string(job_state(job));
        else if (streq(property, "Result"))
                text = job_result_to_string(job_result(job));
        else if (streq(property, "Phase"))
                text = phase_to_string(job_phase(job));
        else if (streq(property, "Owner"))
                text = job_owner(job);
        else if (streq(property, "Half"))
                text = side_to_string(job_side(job));
        else if (streq(property, "Peer"))
                text = job->peer;
        return sd_bus_message_append(reply, "s", text);
}

static int get_usec(sd_bus *b, const char *path, const char *interface, const char *property,
                    sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
        const Job *job = ((JobView *) userdata)->job;
        uint64_t usec = 0;

        if (streq(property, "PredictedBlackoutUsec"))
                usec = job->predicted_usec;
        else if (streq(property, "BlackoutUsec"))
                usec = job_blackout_usec(job);
        else if (streq(property, "CreatedUsec"))
                usec = job->created_usec;
        else if (streq(property, "EndedUsec"))
                usec = job->ended_usec;
        else if (streq(property, "MaxBlackoutUsec"))
                usec = job->plan.max_blackout_usec;
        return sd_bus_message_append(reply, "t", usec);
}

static int get_bandwidth(sd_bus *b, const char *path, const char *interface, const char *property,
                         sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
        return sd_bus_message_append(reply, "t", ((JobView *) userdata)->job->plan.bandwidth);
}

static int get_progress(sd_bus *b, const char *path, const char *interface, const char *property,
                        sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
        const Job *job = ((JobView *) userdata)->job;
        uint64_t bytes = 0;

        for (uint32_t i = 0; i < job->n_devices; i++)
                bytes += job->devices[i].bytes;
        return sd_bus_message_append(reply, "a{sv}", 4, "device-bytes", "t", bytes, "memory-bytes", "t",
                                     job->vmm_done_bytes, "memory-total-bytes", "t", job->vmm_total_bytes,
                                     "phase-index", "t", (uint64_t) job_phase(job));
}

static int get_devices(sd_bus *b, const char *path, const char *interface, const char *property,
                       sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
        const Job *job = ((JobView *) userdata)->job;
        char device[BUS_PATH_MAX];
        int r = sd_bus_message_open_container(reply, 'a', "(oss)");

        for (uint32_t i = 0; i < job->n_devices && r >= 0; i++) {
                bus_device_path(job->vm_uuid, job->ids[i], device);
                r = sd_bus_message_append(reply, "(oss)", device, job_device_mode(job, i),
                                          device_state_to_string(job_device_state(job, i)));
        }
        return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int get_error(sd_bus *b, const char *path, const char *interface, const char *property,
                     sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
        const Job *job = ((JobView *) userdata)->job;
        char text[1024], name[128] = "";
        Outcome outcome = job_error(job, text, sizeof text);
        const OutcomeInfo *info = outcome_info(outcome);

        if (outcome != OUTCOME_NONE && info->name)
                (void) snprintf(name, sizeof name, OUTCOME_BUS_PREFIX "%s", info->name);
        return sd_bus_message_append(reply, "(ss)", name, text);
}

static void cancel(Bus *bus, sd_bus_message *m)
{
        char text[JSON_TEXT_MAX];
        void *view = NULL;
        Outcome outcome = OUTCOME_NO_SUCH_JOB;

        /* It may have gone while the caller was authorised. */
        (void) snprintf(text, sizeof text, "the job is not known any more");
        if (job_find(bus->bus, sd_bus_message_get_path(m), NULL, bus, &view, NULL) > 0)
                outcome = manager_cancel(bus->manager, ((JobView *) view)->job, text);
        if (outcome == OUTCOME_NONE)
                bus_reply(bus, m, "");
        else
                bus_reply_error(bus, m, outcome, text);
}

static int method_cancel(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
        return bus_authorise(((JobView *) userdata)->bus, m, "org.migmgr1.cancel", cancel);
}

static void resolve(Bus *bus, sd_bus_message *m)
{
        char text[JSON_TEXT_MAX];
        void *view = NULL;
        const char *name = "";
        Resolve how;
        Outcome outcome = OUTCOME_NO_SUCH_JOB;

        (void) sd_bus_message_read(m, "s", &name);
        how = resolve_from_string(name);
        (void) snprintf(text, sizeof text, "the job is not known any more");
        if (how <= RESOLVE_NONE) {
                (void) snprintf(text, sizeof text, "\"%.60s\" is not \"run-here\" or \"discard-here\"", name);
                outcome = OUTCOME_INVALID_ARGUMENT;
        } else if (job_find(bus->bus, sd_bus_message_get_path(m), NULL, bus, &view, NULL) > 0) {
                outcome = manager_resolve(bus->manager, ((JobView *) view)->job, how, text);
        }
        if (outcome == OUTCOME_NONE)
                bus_reply(bus, m, "");
        else
                bus_reply_error(bus, m, outcome, text);
}

static int method_resolve(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
        return bus_authorise(((JobView *) userdata)->bus, m, "org.migmgr1.resolve", resolve);
}

#define TEXT(name) SD_BUS_PROPERTY(name, "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE)
#define USEC(name) SD_BUS_PROPERTY(name, "t", get_usec, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE)

static const sd_bus_vtable vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_PROPERTY("VM", "o", get_vm, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Half", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Peer", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("CreatedUsec", "t", get_usec, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("PredictedBlackoutUsec", "t", get_usec, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Bandwidth", "t", get_bandwidth, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("MaxBlackoutUsec", "t", get_usec, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        TEXT("State"),
        TEXT("Result"),
        TEXT("Phase"),
        TEXT("Owner"),
        USEC("BlackoutUsec"),
        USEC("EndedUsec"),
        SD_BUS_PROPERTY("Progress", "a{sv}", get_progress, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Devices", "a(oss)", get_devices, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Error", "(ss)", get_error, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_METHOD("Cancel", "", "", method_cancel, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Resolve", SD_BUS_ARGS("s", how), SD_BUS_NO_RESULT, method_resolve,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_SIGNAL_WITH_ARGS("PhaseReached", SD_BUS_ARGS("s", phase, "s", state), 0),
        SD_BUS_SIGNAL_WITH_ARGS("DeviceChanged", SD_BUS_ARGS("s", device, "s", state), 0),
        SD_BUS_VTABLE_END,
};

static int list_jobs(sd_bus *b, const char *prefix, void *userdata, char ***ret_nodes, sd_bus_error *error)
{
        Bus *bus = userdata;
        size_t n = 0, i = 0;
        char path[BUS_PATH_MAX], **nodes;

        for (JobView *view = bus->views; view; view = view->next)
                n++;
        nodes = calloc(n + 1, sizeof *nodes);
        if (!nodes)
                return -ENOMEM;
        for (JobView *view = bus->views; view; view = view->next) {
                bus_job_path(view->job->id, path);
                nodes[i] = strdup(path);
                if (!nodes[i++])
                        out_of_memory();
        }
        *ret_nodes = nodes;
        return 0;
}

/* ---- what has changed ---------------------------------------------------------------------------------------- */

static void tell(JobView *view)
{
        char path[BUS_PATH_MAX];

        loop_timer_set(view->timer, 0);
        view->told_usec = clock_monotonic_usec();
        view->state = job_state(view->job);
        view->phase = job_phase(view->job);
        bus_job_path(view->job->id, path);
        (void) sd_bus_emit_properties_changed(view->bus->bus, path, BUS_NAME ".Job", "State", "Result",
                                              "Phase", "Owner", "BlackoutUsec", "EndedUsec", "Progress",
                                              "Devices", "Error", NULL);
        loop_kick_bus(view->bus->host->loop);
}

static void on_tell_timer(void *userdata)
{
        tell(userdata);
}

void bus_job_changed(void *userdata, Job *job, bool entered)
{
        Bus *bus = userdata;
        JobView *view = find_view(bus, job);
        char path[BUS_PATH_MAX];
        uint64_t now = clock_monotonic_usec();

        if (!view)
                return;
        if (entered) {
                bus_job_path(job->id, path);
                (void) sd_bus_emit_signal(bus->bus, path, BUS_NAME ".Job", "PhaseReached", "ss",
                                          phase_to_string(job_phase(job)),
                                          half_state_to_string(job->half->state));
                loop_kick_bus(bus->host->loop);
        }
        if (view->state != job_state(job) || view->phase != job_phase(job) ||
            now - view->told_usec >= PROGRESS_USEC)
                tell(view);
        else
                loop_timer_set(view->timer, PROGRESS_USEC - (now - view->told_usec));
}

void bus_job_device_changed(void *userdata, Job *job, uint32_t device)
{
        Bus *bus = userdata;
        char path[BUS_PATH_MAX];

        bus_job_path(job->id, path);
        (void) sd_bus_emit_signal(bus->bus, path, BUS_NAME ".Job", "DeviceChanged", "ss", job->ids[device],
                                  device_state_to_string(job_device_state(job, device)));
        bus_job_changed(userdata, job, false);
}

void bus_job_added(void *userdata, Job *job)
{
        Bus *bus = userdata;
        JobView *view = calloc(1, sizeof *view);
        char path[BUS_PATH_MAX];

        if (!view)
                out_of_memory();
        *view = (JobView){.next = bus->views, .bus = bus, .job = job, .state = JOB_STATE_INVALID};
        if (loop_timer_new(bus->host->loop, on_tell_timer, view, &view->timer) < 0)
                out_of_memory();
        bus->views = view;
        bus_job_path(job->id, path);
        (void) sd_bus_emit_object_added(bus->bus, path);
        loop_kick_bus(bus->host->loop);
}

static void view_free(JobView *view)
{
        loop_timer_free(view->timer);
        free(view);
}

void bus_job_removed(void *userdata, Job *job)
{
        Bus *bus = userdata;
        char path[BUS_PATH_MAX];

        for (JobView **p = &bus->views; *p; p = &(*p)->next) {
                JobView *view = *p;

                if (view->job != job)
                        continue;
                bus_job_path(job->id, path);
                (void) sd_bus_emit_object_removed(bus->bus, path);
                *p = view->next;
                view_free(view);
                break;
        }
        loop_kick_bus(bus->host->loop);
}

void bus_drop_views(Bus *bus)
{
        while (bus->views) {
                JobView *view = bus->views;

                bus->views = view->next;
                view_free(view);
        }
}

int bus_add_jobs(Bus *bus)
{
        int r = sd_bus_add_fallback_vtable(bus->bus, NULL, BUS_ROOT "/job", BUS_NAME ".Job", vtable, job_find,
                                           bus);

        return r < 0 ? r : sd_bus_add_node_enumerator(bus->bus, NULL, BUS_ROOT "/job", list_jobs, bus);
}
