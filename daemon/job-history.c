/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What is kept of a job when it is over, and, should the daemon not live to see that, of how far it came. */

#include "common/clock.h"
#include "common/json.h"
#include "core/half-table.h"
#include "job.h"

/* Those that have changed since the step before. */
static json_object *changed_devices(Job *job)
{
        json_object *devices = json_new_object();

        for (uint32_t i = 0; i < job->n_devices; i++) {
                JobDevice *device = &job->devices[i];
                DeviceState state = job_device_state(job, i);

                if (device->noted && device->noted_state == state)
                        continue;
                device->noted = true;
                device->noted_state = state;
                json_add_string(devices, job->ids[i], device_state_to_string(state));
        }
        return devices;
}

void job_note_step(Job *job)
{
        _cleanup_(json_object_putp) json_object *step = json_new_object();
        StoreStep note = {.job = job->id, .side = job_side(job), .usec = clock_realtime_usec()};
        char error[1024];

        json_add_number(step, "usec", (int64_t) note.usec);
        json_add_string(step, "half", side_to_string(note.side));
        json_add_string(step, "step", half_state_to_string(job->half->state));
        json_add_string(step, "phase", phase_to_string(half_states[job->half->state].phase));
        json_add_string(step, "state", job_state_to_string(job_state(job)));
        json_add_string(step, "owner", job_owner(job));
        json_add_string(step, "record", owner_to_string(job->half->owner));
        json_add(step, "devices", changed_devices(job));
        if (job->half->failure.cause != HALF_CAUSE_NONE && !job->error_noted) {
                job->error_noted = true;
                (void) job_error(job, error, sizeof error);
                json_add_string(step, "error", error);
        }
        note.json = json_print(step, JSON_C_TO_STRING_PLAIN);
        store_put_step(job->host->store, &note);
        json_append(job->steps, json_object_get(step));
}

void job_note_end(Job *job)
{
        _cleanup_(json_object_putp) json_object *report = job_to_json(job), *summary = job_summary(job);

        store_put_job(job->host->store, &(StoreJob){.job = job->id,
                                                    .side = job_side(job),
                                                    .vm = job->vm_uuid,
                                                    .name = job->vm_name,
                                                    .result = job_result_to_string(job_result(job)),
                                                    .created_usec = job->created_usec,
                                                    .ended_usec = job->ended_usec,
                                                    .summary = json_print(summary, JSON_C_TO_STRING_PLAIN),
                                                    .report = json_print(report, JSON_C_TO_STRING_PLAIN)});
        if (job->vm)
                measured_take(&job->vm->measured, report);
}

json_object *job_steps_of_history(const char *list)
{
        JsonReader reader = {.where = "history"};
        json_object *steps = list ? json_parse(&reader, list, strlen(list)) : NULL;

        if (json_object_is_type(steps, json_type_array))
                return steps;
        json_object_put(steps);
        return json_new_array();
}

json_object *job_of_history(const char *report, const char *list)
{
        JsonReader reader = {.where = "history"};
        json_object *json = json_parse(&reader, report, strlen(report));

        if (!json_object_is_type(json, json_type_object)) {
                json_object_put(json);
                return NULL;
        }
        json_add(json, "steps", job_steps_of_history(list));
        return json;
}
