/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Plugins beside what devices do: asked before a command, after it, and when it has failed. What follows from what they say is
 * decided in daemon/core/plugin-verdict.c. A device has one command at a time, so one of these at most is under way for it. */

#include <stdio.h>

#include "common/clock.h"
#include "common/log.h"
#include "job.h"
#include "manifest-json.h"

static JobDevice *device_of(Job *job, uint32_t i)
{
        return &job->devices[i];
}

static Device *vm_device_of(const JobDevice *d)
{
        return d->plug.job->vm->devices[d->vm_index];
}

static bool is_asked(const Job *job)
{
        return job->vm && vm_asks_plugins(job->vm) && plugin_half_asks(job->half);
}

void job_forget_plugins(Job *job)
{
        for (uint32_t i = 0; i < job->n_devices; i++)
                if (job->host->plugins)
                        plugins_forget(job->host->plugins, device_of(job, i));
}

/* ---- asking --------------------------------------------------------------------------------------------------- */

static uint64_t left_usec(const JobDevice *d)
{
        uint64_t spent = clock_monotonic_usec() - d->plug.began_usec;

        return d->plug.effect.deadline_usec > spent ? d->plug.effect.deadline_usec - spent : 1;
}

static bool ask(JobDevice *d, PluginCall call, PluginsDecided decided)
{
        Job *job = d->plug.job;
        VmDescription description;
        const DeviceProgram *program = &d->program;
        PluginTransition transition = {
                .side = job_side(job),
                .phase = half_phase(job->half),
                .from = call == PLUGIN_CALL_BEFORE ? device_state(vm_device_of(d)) : d->plug.from,
                .to = program->n > 0 && program->ops[program->n - 1].type == DEVICE_OP_SET
                              ? program->ops[program->n - 1].to
                              : device_state(vm_device_of(d)),
                .error = d->plug.event.status,
                .text = call == PLUGIN_CALL_ON_ERROR ? d->text : NULL,
                .deadline_usec = left_usec(d)};

        if (d->plug.phase != transition.phase)
                memset(d->plug.spent_usec, 0, sizeof d->plug.spent_usec);
        d->plug.phase = transition.phase;
        d->plug.call = call;
        transition.spent_usec = d->plug.spent_usec[call];
        vm_describe(job->vm, (uint32_t) d->vm_index, &description);
        return plugins_ask(job->host->plugins, call, &description.device, &job->vm->views[d->vm_index],
                           &transition, d->plug.tried, decided, d);
}

static void note(const JobDevice *d, const char *text)
{
        const Job *job = d->plug.job;

        log_warning(LOG_ABOUT(.vm = job->vm_name, .job = job->id, .device = job->ids[d->plug.index],
                              .phase = phase_to_string(d->plug.phase)),
                    "%s", text);
}

/* As an answer of the device: it has not done what was asked. */
static void refuse(JobDevice *d, const char *text)
{
        Job *job = d->plug.job;
        HalfEvent event = d->plug.event;

        note(d, text);
        if (job->half->failure.cause == HALF_CAUSE_NONE)
                (void) snprintf(d->text, sizeof d->text, "%s", text);
        event.status = -EPERM;
        job_post(job, &event);
}

static void run(JobDevice *d)
{
        Job *job = d->plug.job;
        HalfEffect effect = d->plug.effect;

        effect.program = d->program;
        effect.deadline_usec = left_usec(d);
        job_run_device(job, &effect);
}

/* ---- before --------------------------------------------------------------------------------------------------- */

static void on_before(void *userdata, PluginVerdict verdict, const char *text, uint64_t took_usec)
{
        JobDevice *d = userdata;
        const Job *job = d->plug.job;

        d->plug.spent_usec[PLUGIN_CALL_BEFORE] += took_usec;
        /* The job may have gone on without it; its answer is still owed. */
        if (verdict == PLUGIN_REFUSE || d->plug.effect.step != job->half->step)
                refuse(d, verdict == PLUGIN_REFUSE ? text : "the job did not wait for a plugin");
        else
                run(d);
}

bool job_ask_before(Job *job, const HalfEffect *effect)
{
        JobDevice *d = device_of(job, effect->device);

        if (!vm_asks_plugins(job->vm))
                return false;
        plugins_forget(job->host->plugins, d);
        d->plug.job = job;
        d->plug.index = effect->device;
        d->plug.effect = *effect;
        d->plug.began_usec = clock_monotonic_usec();
        d->plug.tried = false;
        d->plug.from = device_state(vm_device_of(d));
        d->plug.event = (HalfEvent){.type = HALF_RESULT,
                                    .who = HALF_WHO_DEVICE,
                                    .device = effect->device,
                                    .step = effect->step,
                                    .from = d->plug.from,
                                    .to = d->plug.from,
                                    .state = d->plug.from};
        return is_asked(job) && ask(d, PLUGIN_CALL_BEFORE, on_before);
}

/* ---- after ---------------------------------------------------------------------------------------------------- */

static void on_after(void *userdata, PluginVerdict verdict, const char *text, uint64_t took_usec)
{
        JobDevice *d = userdata;

        d->plug.spent_usec[PLUGIN_CALL_AFTER] += took_usec;
        if (verdict == PLUGIN_REFUSE)
                refuse(d, text);
        else
                job_post(d->plug.job, &d->plug.event);
}

/* From where the device is now. */
static bool plan_again(JobDevice *d, PluginVerdict verdict)
{
        const Device *device = vm_device_of(d);

        return plugin_half_program(d->plug.job->half, verdict, device_state(device), device_flags(device),
                                   &d->program) == 0;
}

static void on_advice(void *userdata, PluginVerdict verdict, const char *text, uint64_t took_usec)
{
        JobDevice *d = userdata;
        Job *job = d->plug.job;

        d->plug.spent_usec[PLUGIN_CALL_ON_ERROR] += took_usec;
        if (d->plug.effect.step == job->half->step && plan_again(d, verdict)) {
                note(d, text);
                d->plug.tried = true;
                run(d);
                return;
        }
        job_post(job, &d->plug.event);
}

static void on_looked(void *userdata)
{
        JobDevice *d = userdata;

        job_post(d->plug.job, &d->plug.event);
}

bool job_ask_after(Job *job, const HalfEvent *event)
{
        JobDevice *d = device_of(job, event->device);

        if (!vm_asks_plugins(job->vm) || event->step != d->plug.effect.step)
                return false;
        d->plug.event = *event;
        if (job->half->state == SOURCE_CHECK_HERE && event->status == 0) {
                vm_look_by_plugins(job->vm, (uint32_t) d->vm_index, SIDE_SOURCE, on_looked, d);
                return true;
        }
        if (!is_asked(job) || event->step != job->half->step)
                return false;
        return event->status == 0 ? ask(d, PLUGIN_CALL_AFTER, on_after)
                                  : ask(d, PLUGIN_CALL_ON_ERROR, on_advice);
}

void job_add_plugin_findings(Job *job)
{
        json_object *all = json_new_array();

        for (uint32_t i = 0; vm_asks_plugins(job->vm) && i < job->n_devices; i++)
                findings_join(job->vm->views[job->devices[i].vm_index].findings, all);
        findings_take(all, job->findings);
        json_object_put(all);
}
