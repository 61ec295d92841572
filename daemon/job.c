/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job.h"

#include <stdio.h>

#include "common/clock.h"
#include "common/log.h"
#include "policy-kept.h"

static void look_at_change(Job *job);

/* ---- answers become events ----------------------------------------------------------------------------------- */

/* The plan's index of a device of the VM. */
static int32_t plan_index(const Job *job, uint32_t vm_index)
{
        for (uint32_t i = 0; i < job->n_devices; i++)
                if (job->devices[i].vm_index == (int32_t) vm_index)
                        return (int32_t) i;
        return -1;
}

/* What is told in the end is what went wrong first; what a device says later, when it is asked where it is, is only what
 * follows from that. */
static void note_text(Job *job, int32_t i, const char *text)
{
        if (job->half->failure.cause == HALF_CAUSE_NONE)
                (void) snprintf(job->devices[i].text, sizeof job->devices[i].text, "%s", text);
}

static bool moves_pages(const DeviceProgram *program)
{
        return program->n > 0 &&
               (program->ops[0].type == DEVICE_OP_SEND_PAGES || program->ops[0].type == DEVICE_OP_LOAD_PAGES);
}

static void on_device_answered(void *userdata, uint32_t vm_index, uint32_t step,
                               const AgentResultPacket *result)
{
        Job *job = userdata;
        int32_t i = plan_index(job, vm_index);
        HalfEvent event = {.type = HALF_RESULT,
                           .who = HALF_WHO_DEVICE,
                           .step = step,
                           .status = result->status,
                           .from = (DeviceState) result->from,
                           .to = (DeviceState) result->to,
                           .state = (DeviceState) result->state,
                           .was_reset = result->was_reset != 0,
                           .absent = result->status < 0 && device_nobody_listens(job->vm->devices[vm_index])};

        if (i < 0)
                return;
        event.device = (uint32_t) i;
        if (result->status < 0)
                note_text(job, i, result->text);
        if (result->bytes > 0 && !moves_pages(&job->devices[i].program))
                job->devices[i].bytes = result->bytes; /* pages are the VM's, and stand in the timeline */
        /* What it can do is known anew when its connection was made anew. */
        half_set_flags(job->half, (uint32_t) i, device_flags(job->vm->devices[vm_index]));
        job_measure_device(job, (uint32_t) i, result);
        if (!job_ask_after(job, &event))
                job_post(job, &event);
        job->hooks->device_changed(job->userdata, job, (uint32_t) i);
}

static void on_device_gone(void *userdata, uint32_t vm_index, int status, const char *text)
{
        Job *job = userdata;
        int32_t i = plan_index(job, vm_index);

        if (i < 0)
                return;
        note_text(job, i, text);
        job_post(job, &(HalfEvent){.type = HALF_DEVICE_GONE,
                                   .device = (uint32_t) i,
                                   .status = status,
                                   .state = DEVICE_STATE_UNKNOWN});
        job->hooks->device_changed(job->userdata, job, (uint32_t) i);
}

static void on_device_progress(void *userdata, uint32_t vm_index, uint64_t bytes)
{
        Job *job = userdata;
        int32_t i = plan_index(job, vm_index);

        if (i < 0 || moves_pages(&job->devices[i].program))
                return;
        job->devices[i].bytes = bytes;
        job->hooks->changed(job->userdata, job, false);
}

static void on_device_dirty(void *userdata, uint32_t vm_index, const AgentDirty *dirty, int fd)
{
        Job *job = userdata;

        if (job->plan.copies_pages)
                (void) close(fd); /* its agent has them, too */
        else
                vmm_take_dirty(job->vm->vmm, dirty->address, dirty->page_size, dirty->n_pages, fd);
}

/* From the moment in which the VM stood, not from that in which we heard of it. */
static void watch_blackout(Job *job)
{
        uint64_t most = job->plan.max_blackout_usec, usec = job_blackout_usec(job);

        if (most > 0 && usec > 0 && !job->watches_blackout) {
                job->watches_blackout = true;
                loop_timer_set(job->blackout_timer, usec < most ? most - usec : 1);
        }
}

static void on_blackout(void *userdata)
{
        job_post(userdata, &(HalfEvent){.type = HALF_BLACKOUT});
}

static void on_vmm_answered(void *userdata, uint32_t step, int status, const char *text)
{
        Job *job = userdata;

        if (status < 0)
                (void) snprintf(job->vmm_text, sizeof job->vmm_text, "%s", text);
        if (step == job->half->step)
                job_measure_vmm(job, status);
        if (job->half->state == SOURCE_CHECK_HERE) {
                /* That the VMM can't be asked is a finding, not a failure. */
                job->vm->vmm->facts.status = status;
                (void) snprintf(job->vm->vmm->facts.text, sizeof job->vm->vmm->facts.text, "%.199s", text);
                status = 0;
        }
        job_post(job, &(HalfEvent){.type = HALF_RESULT, .who = HALF_WHO_VMM, .step = step, .status = status});
}

static void on_vmm_gone(void *userdata)
{
        job_post(userdata, &(HalfEvent){.type = HALF_VMM_GONE});
}

static void on_vmm_halted(void *userdata, uint64_t usec)
{
        job_measure_halted(userdata, usec);
        watch_blackout(userdata);
}

static void on_vmm_resumed(void *userdata)
{
        Job *job = userdata;

        log_warning(LOG_ABOUT(.vm = job->vm_name, .job = job->id), "the VMM has resumed the VM by itself");
        job_post(job, &(HalfEvent){.type = HALF_VMM_RESUMED});
}

static void on_vmm_device_reset(void *userdata, uint32_t vm_index, const char *text)
{
        Job *job = userdata;
        int32_t i = plan_index(job, vm_index);

        if (i < 0)
                return;
        note_text(job, i, text);
        job_post(job, &(HalfEvent){.type = HALF_DEVICE_RESET,
                                   .device = (uint32_t) i,
                                   .state = DEVICE_STATE_UNKNOWN,
                                   .from = DEVICE_STATE_UNKNOWN,
                                   .to = DEVICE_STATE_UNKNOWN});
        job->hooks->device_changed(job->userdata, job, (uint32_t) i);
}

static void on_vmm_progress(void *userdata, uint64_t done_bytes, uint64_t total_bytes)
{
        Job *job = userdata;

        job->vmm_done_bytes = done_bytes;
        job->vmm_total_bytes = total_bytes;
        job->hooks->changed(job->userdata, job, false);
}

static const VmListener vm_listener = {
        .device_gone = on_device_gone,
        .device_progress = on_device_progress,
        .device_dirty = on_device_dirty,
        .vmm_answered = on_vmm_answered,
        .vmm_gone = on_vmm_gone,
        .vmm_halted = on_vmm_halted,
        .vmm_resumed = on_vmm_resumed,
        .vmm_device_reset = on_vmm_device_reset,
        .vmm_progress = on_vmm_progress,
};

static void take_vm(Job *job)
{
        vmm_set_job(job->vm->vmm, job->id);
        vm_set_job(job->vm, &vm_listener, job);
}

/* A write answers to the step that asked for it; the job may have gone on since. */
typedef struct Write {
        Job *job;
        uint32_t step;
        Owner owner;
} Write;

static void on_recorded(void *userdata, int status, const char *text)
{
        Write *write = userdata;
        Job *job = write->job;

        job->n_writes--;
        if (status < 0) {
                (void) snprintf(job->record_text, sizeof job->record_text, "%s", text);
                log_error(LOG_ABOUT(.vm = job->vm_name, .job = job->id),
                          "the record \"%s\" cannot be written: %s; make room in %s",
                          owner_to_string(write->owner), text, job->host->config.state_dir);
        } else if (write->owner == OWNER_DONE && job->vm) {
                job->vm->presence = job_side(job) == SIDE_SOURCE ? PRESENCE_AWAY : PRESENCE_HERE;
        }
        job_post(job,
                 &(HalfEvent){
                         .type = HALF_RESULT, .who = HALF_WHO_RECORD, .step = write->step, .status = status});
        free(write);
}

/* ---- effects ------------------------------------------------------------------------------------------------- */

void job_run_device(Job *job, const HalfEffect *effect)
{
        Device *device = job->vm->devices[job->devices[effect->device].vm_index];

        if (effect->program.n > 0 && effect->program.ops[0].type == DEVICE_OP_LOG_START)
                device_tell_others(device, job->vm->devices, job->vm->definition->n_devices);
        device_run(device, job->id, &effect->program, &job->plan.devices[effect->device].limits,
                   effect->deadline_usec, effect->interrupt, effect->step, on_device_answered, job);
}

static void command_device(Job *job, const HalfEffect *effect)
{
        job->devices[effect->device].program = effect->program;
        if (!job_ask_before(job, effect))
                job_run_device(job, effect);
}

/* A VMM that had ended before the job began is not the one that it will be: after a restart that would pass for dead. One that
 * ends in the middle is written down. */
static bool is_of_job(const ProcessId *process, Owner owner)
{
        int fd;

        if (owner != OWNER_PREPARED)
                return true;
        fd = process_id_open(process);
        if (fd >= 0)
                (void) close(fd);
        return fd >= 0;
}

static void write_record(Job *job, const HalfEffect *effect)
{
        Write *write = malloc(sizeof *write);
        Record record = {.side = job_side(job),
                         .owner = effect->owner,
                         .noway = effect->noway,
                         .policy = job->policy,
                         .created_usec = job->created_usec};
        Presence presence = PRESENCE_INVALID;
        char text[sizeof record.reason];

        if (!write)
                out_of_memory(); /* what decides about a VM must be written */
        *write = (Write){job, effect->step, effect->owner};
        memcpy(record.job, job->id, sizeof record.job);
        memcpy(record.vm, job->vm_uuid, sizeof record.vm);
        memcpy(record.peer, job->peer, sizeof record.peer);
        if (job->vm && is_of_job(&job->vm->vmm->process, effect->owner))
                record.vmm = job->vm->vmm->process;
        if (owner_is_final(effect->owner)) {
                record.ended_usec = clock_realtime_usec();
                (void) job_error(job, text, sizeof text);
                memcpy(record.reason, text, sizeof text);
        }
        if (effect->owner == OWNER_DONE)
                presence = job_side(job) == SIDE_SOURCE ? PRESENCE_AWAY : PRESENCE_HERE;
        job->n_writes++;
        store_put_record(job->host->store, &record, presence, on_recorded, write);
}

static void on_fenced(void *userdata, int status, const char *text)
{
        Job *job = userdata;
        LogAbout about = {.vm = job->vm_name, .job = job->id};

        if (status < 0)
                log_error(&about, "the other host is not fenced: %s", text);
        else
                log_info(&about, "the other host is fenced: %s", text);
        (void) snprintf(job->fence_text, sizeof job->fence_text, "%s", text);
        job_post(job, &(HalfEvent){.type = HALF_RESULT,
                                   .who = HALF_WHO_FENCE,
                                   .step = job->fence_step,
                                   .status = status});
}

static void run_fence(Job *job, const HalfEffect *effect)
{
        char vm[sizeof job->vm_name + 32], uuid[64], id[64], peer[sizeof job->peer + 32];
        const char *const env[] = {vm, uuid, id, peer, NULL};
        int r;

        (void) snprintf(vm, sizeof vm, "MIGMGR_VM=%s", job->vm_name);
        (void) snprintf(uuid, sizeof uuid, "MIGMGR_VM_UUID=%s", job->vm_uuid);
        (void) snprintf(id, sizeof id, "MIGMGR_JOB=%s", job->id);
        (void) snprintf(peer, sizeof peer, "MIGMGR_PEER=%s", job->peer);
        job->fence = fence_free(job->fence);
        job->fence_step = effect->step;
        r = fence_start(job->host->loop, job->host->config.fence, env, effect->deadline_usec, on_fenced, job,
                        &job->fence);
        if (r < 0) {
                char text[JSON_TEXT_MAX];

                (void) snprintf(text, sizeof text, "%.300s: %s", job->host->config.fence[0], strerror(-r));
                on_fenced(job, r, text);
        }
}

static void perform(Job *job, const HalfEffect *effect)
{
        switch (effect->type) {
        case HALF_EFFECT_DEVICE: command_device(job, effect); break;
        case HALF_EFFECT_VMM:
                vmm_act(job->vm->vmm, effect->vmm_act, effect->step, effect->deadline_usec);
                break;
        case HALF_EFFECT_RECORD: write_record(job, effect); break;
        case HALF_EFFECT_SEND: job_send(job, effect); break;
        case HALF_EFFECT_FENCE: run_fence(job, effect); break;
        case HALF_EFFECT_CONNECT: job_connect(job, effect); break;
        case HALF_EFFECT_TIMER: loop_timer_set(job->timer, effect->deadline_usec); break;
        case HALF_EFFECT_ACKED:
                job->closed = true;
                store_ack(job->host->store, job->id, job_side(job));
                break;
        case HALF_EFFECT_MAX: break;
        }
}

static int step(Job *job, const HalfEvent *event)
{
        int r;

        job_log_event(job, event);
        r = half_step(&half_table, &job->plan, job->half, event, &job->effects);
        for (uint32_t i = 0; r == 0 && i < job->effects.n; i++) {
                HalfEffect effect = job->effects.items[i];

                job_log_effect(job, &effect);
                perform(job, &effect);
        }
        look_at_change(job);
        return r;
}

static void push(Job *job, const HalfEvent *event)
{
        if (job->n_queue == job->queue_room) {
                uint32_t room = job->queue_room ? job->queue_room * 2 : 16;
                HalfEvent *queue = realloc(job->queue, room * sizeof *queue);

                if (!queue)
                        out_of_memory();
                job->queue = queue;
                job->queue_room = room;
        }
        job->queue[job->n_queue++] = *event;
}

/* Events are taken one at a time, in order: what an effect brings about at once waits until the effect is done.
 * Returns what came of the first. */
static int drain_queue(Job *job)
{
        int first = 0;

        job->performing = true;
        for (bool is_first = true; job->n_queue > 0; is_first = false) {
                HalfEvent event = job->queue[0];
                int r;

                memmove(job->queue, job->queue + 1, --job->n_queue * sizeof event);
                r = step(job, &event);
                if (is_first)
                        first = r;
        }
        job->performing = false;
        return first;
}

void job_post(Job *job, const HalfEvent *event)
{
        push(job, event);
        if (!job->performing)
                (void) drain_queue(job);
}

/* ---- what others are told ------------------------------------------------------------------------------------ */

/* What has failed and was not reset no job takes before somebody has reset it. */
static void quarantine_devices(Job *job)
{
        char text[AGENT_TEXT_MAX + 64];

        for (uint32_t i = 0; i < job->n_devices && job->vm; i++) {
                if (!half_device_is_quarantined(job->half, i))
                        continue;
                (void) snprintf(text, sizeof text,
                                "it failed in a job, and its policy says quarantine: %.180s",
                                job->devices[i].text[0] ? job->devices[i].text : "no answer");
                log_error(LOG_ABOUT(.vm = job->vm_name, .job = job->id, .device = job->ids[i]),
                          "%s; reset it: migctl reset", text);
                vm_set_quarantine(job->vm, job->devices[i].vm_index, text);
        }
}

static void finish(Job *job)
{
        job->finished = true;
        job->ended_usec = clock_realtime_usec();
        loop_timer_set(job->timeout, 0);
        loop_timer_set(job->blackout_timer, 0);
        job_forget_plugins(job);
        job_drop_data(job);
        quarantine_devices(job);
        /* A VM that is in doubt, or still ends, stays in hand: see vm_set_job() in the states behind this one. */
        if (!job->half->check_only)
                job_note_end(job);
        /* A newer one of the VM may be about to be taken up. */
        if (job->vm && job->vm->job == job)
                vm_end_job(job->vm);
        job->hooks->finished(job->userdata, job);
}

static void look_at_change(Job *job)
{
        HalfState state = job->half->state;
        bool entered = false;

        if (state != job->seen_state) {
                job_measure_state(job, state);
                watch_blackout(job);
                job_log_change(job, job->seen_state, state);
                if (!job->half->check_only)
                        job_note_step(job);
                job->seen_state = state;
                entered = true;
        }
        if (!job->finished && job_state(job) == JOB_STATE_FINISHED)
                finish(job);
        if (entered)
                job->hooks->changed(job->userdata, job,
                                    true); /* after its end was noted: it is told with it */
        if (job->closed || state == SOURCE_OVER || state == DESTINATION_OVER || state == SOURCE_LOST)
                loop_timer_soon(job->post_timer);
}

static void on_closed(void *userdata)
{
        Job *job = userdata;

        job->hooks->closed(job->userdata, job);
}

/* ---- from outside -------------------------------------------------------------------------------------------- */

static void on_timer(void *userdata)
{
        job_post(userdata, &(HalfEvent){.type = HALF_DEADLINE});
}

static void on_timeout(void *userdata)
{
        job_post(userdata, &(HalfEvent){.type = HALF_TIMEOUT});
}

int job_cancel(Job *job)
{
        push(job, &(HalfEvent){.type = HALF_CANCEL});
        return drain_queue(job);
}

int job_resolve(Job *job, Resolve how)
{
        push(job, &(HalfEvent){.type = HALF_RESOLVE, .resolve = how});
        return drain_queue(job);
}

void job_linked(Job *job)
{
        job_post(job, &(HalfEvent){.type = HALF_LINKED});
}

void job_cut(Job *job, const char *text)
{
        const HalfFailure *f = &job->half->failure;
        bool is_told =
                f->cause == HALF_CAUSE_FAILED || f->of_both; /* what the other side has said of its end */

        if (!is_told && (job->half->linked || job->half->state <= SOURCE_CHECK_THERE))
                (void) snprintf(job->peer_text, sizeof job->peer_text, "%s", text);
        job_post(job, &(HalfEvent){.type = HALF_CUT});
}

void job_start(Job *job, bool linked)
{
        job_measure_begin(job);
        if (linked)
                job_linked(job);
        job_post(job, &(HalfEvent){.type = HALF_START});
}

/* ---- life ---------------------------------------------------------------------------------------------------- */

/* A check ends as soon as there is nobody to ask, whatever its devices are still doing. */
static void forget_devices(Job *job)
{
        for (uint32_t i = 0; job->vm && i < job->vm->definition->n_devices; i++)
                device_forget_asker(job->vm->devices[i], job);
}

Job *job_free(Job *job)
{
        if (!job)
                return NULL;
        if (job->vm && job->vm->job == job)
                vm_set_job(job->vm, NULL, NULL);
        forget_devices(job);
        job_forget_plugins(job);
        job_drop_data(job);
        fence_free(job->fence);
        loop_timer_free(job->timer);
        loop_timer_free(job->timeout);
        loop_timer_free(job->blackout_timer);
        loop_timer_free(job->post_timer);
        half_effects_deinit(&job->effects);
        plan_deinit(&job->plan);
        free(job->policy);
        timeline_deinit(&job->timeline);
        json_object_put(job->findings);
        json_object_put(job->steps);
        json_object_put(job->peer_host);
        free(job->queue);
        for (uint32_t i = 0; job->ids && i < job->n_devices; i++)
                free((void *) job->ids[i]);
        free(job->ids);
        free(job->devices);
        free(job->half);
        free(job);
        return NULL;
}

DEFINE_CLEANUP(Job *, job_free);

static int make_timers(Job *job)
{
        int r = loop_timer_new(job->host->loop, on_timer, job, &job->timer);

        if (r >= 0)
                r = loop_timer_new(job->host->loop, on_timeout, job, &job->timeout);
        if (r >= 0)
                r = loop_timer_new(job->host->loop, on_blackout, job, &job->blackout_timer);
        if (r >= 0)
                r = loop_timer_new(job->host->loop, on_closed, job, &job->post_timer);
        return r;
}

static int job_new(const Host *host, const JobHooks *hooks, void *userdata, Vm *vm, uint32_t n_devices,
                   Job **ret)
{
        _cleanup_(job_freep) Job *job = calloc(1, sizeof *job);
        int r;

        if (!job)
                return -ENOMEM;
        *job = (Job){.host = host,
                     .hooks = hooks,
                     .userdata = userdata,
                     .vm = vm,
                     .n_devices = n_devices,
                     .created_usec = clock_realtime_usec(),
                     .seen_state = HALF_STATE_INVALID,
                     .wants_memory = vm->vmm->has_memory};
        memcpy(job->vm_uuid, vm->definition->uuid, sizeof job->vm_uuid);
        memcpy(job->vm_name, vm->definition->name, sizeof job->vm_name);
        job->half = calloc(1, half_size(n_devices));
        job->devices = calloc(n_devices + 1, sizeof *job->devices);
        job->ids = calloc(n_devices + 1, sizeof *job->ids);
        job->findings = json_new_array();
        job->steps = json_new_array();
        if (!job->half || !job->devices || !job->ids)
                return -ENOMEM;
        r = half_effects_init(&job->effects, n_devices);
        if (r >= 0)
                r = make_timers(job);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(job);
        return 0;
}

static int set_device(Job *job, uint32_t i, int32_t vm_index)
{
        const Device *device = job->vm->devices[vm_index];

        job->devices[i].vm_index = vm_index;
        job->ids[i] = strdup(device_id(device));
        if (!job->ids[i])
                return -ENOMEM;
        half_set_device(job->half, i, device_flags(device), device_state(device));
        half_set_gone(job->half, i, !device_is_open(device));
        return 0;
}

static int set_all_devices(Job *job)
{
        int r = 0;

        for (uint32_t i = 0; i < job->n_devices && r >= 0; i++)
                r = set_device(job, i, (int32_t) i);
        return r;
}

static void tell_limits(const Job *job)
{
        vmm_set_limits(job->vm->vmm, &(VmmLimits){.bandwidth = job->plan.bandwidth_share,
                                                  .blackout_usec = job->plan.max_blackout_usec,
                                                  .grace = job->plan.grace,
                                                  .push = job->plan.push,
                                                  .p2p = job->plan.p2p});
}

/* What is known now, with the devices in the plan's order, which is the source's. */
static int job_manifest(const Job *job, Manifest *ret)
{
        Manifest manifest;
        ManifestDevice *sorted;
        int r = vm_manifest(job->vm, &manifest);

        if (r < 0)
                return r;
        sorted = calloc(job->n_devices + 1, sizeof *sorted);
        if (!sorted) {
                manifest_deinit(&manifest);
                return -ENOMEM;
        }
        for (uint32_t i = 0; i < job->n_devices; i++)
                sorted[i] = manifest.devices[job->devices[i].vm_index];
        free(manifest.devices);
        manifest.devices = sorted;
        *ret = manifest;
        return 0;
}

static int make_plan(Job *job, const PolicyRules *rules)
{
        char *policy;
        Manifest manifest;
        Plan plan;
        int r = job_manifest(job, &manifest);

        if (r < 0)
                return r;
        r = plan_build(&plan, &manifest, rules, job->host->config.doubt_usec);
        policy = policy_keep(rules, &manifest);
        if (r >= 0 && job->seen_state == HALF_STATE_INVALID)
                job->predicted_usec = job_predict(job, &manifest); /* it is told once */
        manifest_deinit(&manifest);
        if (r < 0) {
                free(policy);
                return r;
        }
        free(job->policy);
        job->policy = policy;
        plan_deinit(&job->plan);
        job->plan = plan;
        job->plan.fence = job->host->config.n_fence > 0;
        job->plan.fence_usec = job->host->config.fence_usec;
        plan_take_limits(&job->plan, job->limits.bandwidth, job->limits.max_blackout_usec);
        tell_limits(job);
        return 0;
}

int job_make_plan(Job *job)
{
        return make_plan(job, &job->host->policies->rules);
}

/* The rules in force now may be others, or none, where a file is wrong. */
static int make_restored_plan(Job *job, const char *kept)
{
        PolicyRules rules;
        char error[JSON_TEXT_MAX];
        int r;

        if (!kept[0])
                return job_make_plan(job);
        if (policy_kept_read(kept, &rules, error) < 0)
                log_error(
                        LOG_ABOUT(.vm = job->vm_name, .job = job->id),
                        "the policy in the record of this job can't be read, for the rest of it the defaults hold: %s",
                        error);
        r = make_plan(job, &rules);
        policy_rules_deinit(&rules);
        return r;
}

int job_new_source(const Host *host, const JobHooks *hooks, void *userdata, Vm *vm, const char *address,
                   const JobOptions *options, Job **ret)
{
        _cleanup_(job_freep) Job *job = NULL;
        int r = job_new(host, hooks, userdata, vm, vm->definition->n_devices, &job);

        if (r < 0)
                return r;
        r = uuid_generate(job->id);
        if (r < 0)
                return r;
        (void) snprintf(job->peer, sizeof job->peer, "%s", address);
        (void) snprintf(job->request_id, sizeof job->request_id, "%s",
                        options->request_id ? options->request_id : "");
        job->limits = options->limits;
        half_init(job->half, SIDE_SOURCE, job->n_devices, options->check_only);
        r = set_all_devices(job);
        if (r >= 0)
                r = job_make_plan(job);
        if (r < 0)
                return r;
        if (options->timeout_usec > 0)
                loop_timer_set(job->timeout, options->timeout_usec);
        take_vm(job);
        *ret = TAKE_PTR(job);
        return 0;
}

/* Devices pair by their id: the order is the source's. */
static int set_paired_devices(Job *job, JsonReader *reader, json_object *ids)
{
        int r = 0;

        for (uint32_t i = 0; i < job->n_devices && r >= 0; i++) {
                const char *id = json_object_get_string(json_object_array_get_idx(ids, i));
                int32_t vm_index = id ? vm_find_device(job->vm, id) : -1;

                if (vm_index < 0 || plan_index(job, (uint32_t) vm_index) >= 0) {
                        json_fail(reader, "device \"%.64s\" is not defined here, or twice", id ? id : "");
                        return -EBADMSG;
                }
                r = set_device(job, i, vm_index);
        }
        return r;
}

int job_new_destination(const Host *host, const JobHooks *hooks, void *userdata, Vm *vm,
                        const char *source_id, const char *id, json_object *prepare, char *ret_text,
                        Job **ret)
{
        _cleanup_(job_freep) Job *job = NULL;
        JsonReader reader = {.where = "PREPARE"};
        json_object *plan = json_member(&reader, prepare, "plan", json_type_object, true);
        json_object *ids = json_member(&reader, plan, "devices", json_type_array, true);
        JobLimits limits = {
                .bandwidth = (uint64_t) json_number(&reader, prepare, "bandwidth", 0, JOB_LIMIT_MAX, 0),
                .max_blackout_usec =
                        (uint64_t) json_number(&reader, prepare, "max_blackout_usec", 0, JOB_LIMIT_MAX, 0)};
        size_t n = ids ? json_object_array_length(ids) : 0;
        int r = -EBADMSG;

        if (!reader.failed && n != vm->definition->n_devices)
                json_fail(&reader, "the source has %zu devices, the definition here %u", n,
                          vm->definition->n_devices);
        if (!reader.failed) {
                r = job_new(host, hooks, userdata, vm, (uint32_t) n, &job);
                if (r < 0)
                        return r;
                for (uint32_t i = 0; i < n; i++)
                        job->devices[i].vm_index = -1;
                memcpy(job->id, id, sizeof job->id);
                (void) snprintf(job->peer, sizeof job->peer, "%s", source_id);
                job->limits = limits;
                half_init(job->half, SIDE_DESTINATION, (uint32_t) n, false);
                r = set_paired_devices(job, &reader, ids);
        }
        if (r >= 0)
                r = job_make_plan(job);
        if (r >= 0) {
                /* How memory that devices write goes over is the source's to say: there it is known who takes it. */
                job->plan.copies_pages = json_flag(&reader, plan, "copies_pages", false);
                /* Its operator or ours may not want it; and what its devices can is known there. */
                job->plan.push &= json_flag(&reader, plan, "push", false);
                job->plan.hold_vcpus &= json_flag(&reader, plan, "hold_vcpus", false);
                job->plan.p2p = json_flag(&reader, plan, "p2p", false);
                tell_limits(job);
                r = job_make_tokens(job);
        }
        if (r < 0) {
                (void) snprintf(ret_text, JSON_TEXT_MAX, "%s", reader.failed ? reader.text : strerror(-r));
                return r;
        }
        take_vm(job);
        *ret = TAKE_PTR(job);
        return 0;
}

static bool any_device_ran(const Vm *vm, const Record *record, bool *ret_complete, bool *ret_all_run)
{
        bool ran = false;

        *ret_complete = *ret_all_run = true;
        for (uint32_t i = 0; i < vm->definition->n_devices; i++) {
                DeviceState state = device_state(vm->devices[i]);

                *ret_complete &= device_is_loaded(vm->devices[i], record->job);
                *ret_all_run &= state == DEVICE_STATE_RUNNING;
                ran |= half_device_may_have_run(device_flags(vm->devices[i]), state);
        }
        return ran;
}

int job_new_restored(const Host *host, const JobHooks *hooks, void *userdata, Vm *vm, const Record *record,
                     const VmmSight *sight, bool superseded, Job **ret)
{
        _cleanup_(job_freep) Job *job = NULL;
        bool complete, all_run;
        HalfSight seen = {.vmm_lives = sight->lives, .vmm_runs = sight->runs, .superseded = superseded};
        int r = job_new(host, hooks, userdata, vm, vm->definition->n_devices, &job);

        if (r < 0)
                return r;
        seen.device_ran = any_device_ran(vm, record, &complete, &all_run);
        seen.complete = sight->complete && complete;
        if (vm->definition->vmm == VMM_TYPE_NONE)
                seen.vmm_runs = all_run; /* a set of devices runs when its devices do */
        memcpy(job->id, record->job, sizeof job->id);
        memcpy(job->peer, record->peer, sizeof job->peer);
        job->created_usec = record->created_usec;
        job->restored = true;
        r = half_restore(&half_table, job->half, record->side, job->n_devices, record->owner, record->noway,
                         &seen);
        if (r >= 0)
                r = set_all_devices(job);
        if (r >= 0)
                r = make_restored_plan(job, record->policy);
        if (r < 0)
                return r;
        if (!superseded)
                take_vm(job);
        *ret = TAKE_PTR(job);
        return 0;
}
