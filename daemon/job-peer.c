/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What the two halves say to each other: messages out of effects, events out of messages (docs/wire.md). */

#include <stdio.h>

#include "common/log.h"
#include "job.h"
#include "manifest-json.h"
#include "peer/link.h"

/* ---- out ----------------------------------------------------------------------------------------------------- */

json_object *job_plan_json(const Job *job)
{
        json_object *plan = json_new_object(), *phases = json_new_array(), *devices = json_new_array();

        for (Phase p = 0; p < PHASE_MAX; p++) {
                json_object *phase = json_new_object();

                if (!job->plan.phases[p].planned) {
                        json_object_put(phase);
                        continue;
                }
                json_add_string(phase, "phase", phase_to_string(p));
                json_add_number(phase, "deadline_usec", (int64_t) job->plan.phases[p].deadline_usec);
                json_append(phases, phase);
        }
        for (uint32_t i = 0; i < job->n_devices; i++)
                json_append(devices, json_object_new_string(job->ids[i]));
        json_add(plan, "phases", phases);
        json_add(plan, "devices", devices);
        json_add_bool(plan, "logs_dma", job->plan.logs_dma);
        json_add_bool(plan, "copies_pages", job->plan.copies_pages);
        json_add_bool(plan, "p2p", job->plan.p2p);
        json_add_bool(plan, "grace", job->plan.grace);
        json_add_bool(plan, "push", job->plan.push);
        json_add_bool(plan, "hold_vcpus", job->plan.hold_vcpus);
        return plan;
}

static void add_manifest(Job *job, json_object *message)
{
        Manifest manifest;

        if (vm_manifest(job->vm, &manifest) < 0)
                out_of_memory();
        json_add(message, "manifest", manifest_to_json(&manifest));
        manifest_deinit(&manifest);
}

static void add_failure(const Job *job, json_object *message)
{
        const HalfFailure *f = &job->half->failure;
        char text[512];

        json_add_string(message, "cause", half_cause_to_string(f->cause));
        json_add_string(message, "who", half_who_to_string(f->who));
        if (f->who == HALF_WHO_DEVICE && f->device < job->n_devices)
                json_add_string(message, "device", job->ids[f->device]);
        json_add_string(message, "from", device_state_to_string(f->from));
        json_add_string(message, "to", device_state_to_string(f->to));
        json_add_string(message, "state", device_state_to_string(f->state));
        json_add_number(message, "errno", -f->status);
        (void) job_error(job, text, sizeof text);
        json_add_string(message, "text", text);
}

static void add_lost(const Job *job, json_object *message)
{
        json_object *lost = json_new_array();

        for (uint32_t i = 0; i < job->n_devices; i++)
                if (half_device_is_lost(job->half, i))
                        json_append(lost, json_object_new_string(job->ids[i]));
        json_add(message, "lost", lost);
}

void job_send(Job *job, const HalfEffect *effect)
{
        json_object *message = link_message(effect->message, job->id);

        switch (effect->message) {
        case MESSAGE_CHECK: add_manifest(job, message); break;
        case MESSAGE_PREPARE:
                json_add_string(message, "vm", job->vm_uuid);
                json_add(message, "plan", job_plan_json(job));
                json_add_number(message, "bandwidth", (int64_t) job->plan.bandwidth);
                json_add_number(message, "max_blackout_usec", (int64_t) job->plan.max_blackout_usec);
                break;
        case MESSAGE_PREPARED: job_add_tokens(job, message); break;
        case MESSAGE_BEGIN: json_add_string(message, "phase", phase_to_string(effect->phase)); break;
        case MESSAGE_REACHED:
                json_add_string(message, "phase", phase_to_string(effect->phase));
                job_add_measures(job, message);
                break;
        case MESSAGE_FAILED:
                json_add_string(message, "phase", phase_to_string(effect->phase));
                add_failure(job, message);
                break;
        case MESSAGE_READY: job_add_measures(job, message); break;
        case MESSAGE_GO: json_add_bool(message, "noway", effect->noway); break;
        case MESSAGE_STARTED:
                job_add_measures(job, message);
                add_lost(job, message);
                break;
        case MESSAGE_NOTSTARTED:
                json_add_string(message, "copy", effect->copy ? "kept" : "none");
                add_failure(job, message);
                break;
        case MESSAGE_MAYBE: add_failure(job, message); break;
        case MESSAGE_NONE:
        case MESSAGE_HELLO:
        case MESSAGE_CHECKED:
        case MESSAGE_ASK:
        case MESSAGE_ABORT:
        case MESSAGE_BUSY:
        case MESSAGE_UNKNOWN:
        case MESSAGE_END:
        case MESSAGE_ENDED:
        case MESSAGE_DONE:
        case MESSAGE_DONEACK:
        case MESSAGE_MAX:
        case MESSAGE_INVALID: break;
        }
        job->hooks->send(job->userdata, job, message);
}

/* ---- in ------------------------------------------------------------------------------------------------------ */

/* What it says of itself, by which its device may be refused here, too: policies of both hosts count. It is not there when it
 * did not look. */
static void judge_theirs(Job *job, JsonReader *reader, json_object *body, const Manifest *mine,
                         Findings *findings)
{
        json_object *object = json_member(reader, body, "manifest", json_type_object, false);
        Manifest theirs = {};

        if (!object || manifest_from_json(reader, object, &theirs) < 0)
                return;
        if (check_pair(mine, &theirs, &job->host->policies->rules, findings) < 0)
                out_of_memory();
        json_object_put(job->peer_host);
        job->peer_host = job_host_json(&theirs);
        manifest_deinit(&theirs);
}

/* What an operator has taken upon himself is in the journal, too. */
static void log_risks(const Job *job, const Findings *findings)
{
        for (uint32_t i = 0; i < findings->n; i++)
                if (findings->items[i].id == FINDING_P2P_RISK)
                        log_warning(LOG_ABOUT(.vm = job->vm_name, .job = job->id,
                                              .device = findings->items[i].device),
                                    "%s: %s", findings->items[i].property, findings->items[i].remedy);
}

/* The source's own findings, its plugins' among them, and what the destination found: any of them refuses. */
static bool take_checked(Job *job, JsonReader *reader, json_object *body)
{
        json_object *report = json_member(reader, body, "report", json_type_object, true);
        bool ok = json_flag(reader, report, "ok", false);
        json_object *theirs = json_member(reader, report, "findings", json_type_array, true);
        Findings findings = {};
        Manifest manifest;

        if (vm_manifest(job->vm, &manifest) < 0 ||
            check_side(&manifest, &job->host->policies->rules, SIDE_SOURCE, &findings) < 0)
                out_of_memory();
        judge_theirs(job, reader, body, &manifest, &findings);
        findings_to_json(&findings, job->findings);
        job_add_plugin_findings(job);
        findings_take(theirs, job->findings);
        job->more_findings = (uint32_t) json_number(reader, report, "more", 0, INT32_MAX, 0);
        ok &= !findings_json_first_refusal(job->findings);
        if (ok && !job->half->check_only)
                log_risks(job, &findings);
        findings_deinit(&findings);
        manifest_deinit(&manifest);
        return ok;
}

static void take_text(Job *job, json_object *body)
{
        JsonReader reader = {.where = "message"};
        const char *text = json_string(&reader, body, "text", false);
        const char *device = json_string(&reader, body, "device", false);

        if (text)
                (void) log_printable(text, job->peer_text, sizeof job->peer_text);
        if (device && strlen(device) <= DEVICE_ID_MAX)
                (void) log_printable(device, job->peer_device, sizeof job->peer_device);
}

static DeviceState take_state(JsonReader *reader, json_object *body, const char *key)
{
        const char *text = json_string(reader, body, key, false);
        DeviceState state = text ? device_state_from_string(text) : DEVICE_STATE_UNKNOWN;

        return (int) state < 0 ? DEVICE_STATE_UNKNOWN : state;
}

static void take_failure(Job *job, JsonReader *reader, json_object *body, HalfEvent *event)
{
        take_text(job, body);
        event->from = take_state(reader, body, "from");
        event->to = take_state(reader, body, "to");
        event->state = take_state(reader, body, "state");
        event->status = -(int) json_number(reader, body, "errno", 0, 4095, EIO);
        for (uint32_t i = 0; i < job->n_devices; i++)
                if (streq(job->ids[i], job->peer_device))
                        event->device = i;
}

static void take_phase(JsonReader *reader, json_object *body, HalfEvent *event)
{
        const char *text = json_string(reader, body, "phase", true);

        event->phase = text ? phase_from_string(text) : PHASE_INVALID;
        if ((int) event->phase < 0)
                json_fail(reader, "unknown phase");
}

static void take_lost(Job *job, JsonReader *reader, json_object *body)
{
        json_object *lost = json_member(reader, body, "lost", json_type_array, false);

        for (size_t i = 0; lost && i < json_object_array_length(lost) && i < MANIFEST_DEVICES_MAX; i++) {
                const char *id = json_object_get_string(json_object_array_get_idx(lost, i));

                for (uint32_t k = 0; id && k < job->n_devices; k++)
                        if (streq(job->ids[k], id)) {
                                half_set_lost(job->half, k);
                                job->peer_lost = true;
                        }
        }
}

static void read_body(Job *job, JsonReader *reader, Message type, json_object *body, HalfEvent *event)
{
        const char *copy;

        switch (type) {
        case MESSAGE_CHECKED:
                if (job->half->state != SOURCE_CHECK_THERE)
                        break; /* said again, or late: what runs keeps its plan */
                event->refused = !take_checked(job, reader, body);
                /* What the plan rests on is known only now: devices and VMM have just been asked. */
                if (job_make_plan(job) < 0)
                        out_of_memory();
                break;
        case MESSAGE_PREPARED:
                if (!job_take_tokens(job, body))
                        json_fail(reader, "its tokens are not as they should be");
                break;
        case MESSAGE_BEGIN: take_phase(reader, body, event); break;
        case MESSAGE_REACHED:
                take_phase(reader, body, event);
                job_take_measures(job, reader, body);
                break;
        case MESSAGE_FAILED:
                take_phase(reader, body, event);
                take_failure(job, reader, body, event);
                break;
        case MESSAGE_READY: job_take_measures(job, reader, body); break;
        case MESSAGE_GO: event->noway = json_flag(reader, body, "noway", false); break;
        case MESSAGE_STARTED:
                job_take_measures(job, reader, body);
                take_lost(job, reader, body);
                break;
        case MESSAGE_NOTSTARTED:
                copy = json_string(reader, body, "copy", true);
                event->copy = copy && streq(copy, "kept");
                take_text(job, body);
                break;
        case MESSAGE_MAYBE: take_text(job, body); break;
        case MESSAGE_NONE:
        case MESSAGE_HELLO:
        case MESSAGE_CHECK:
        case MESSAGE_PREPARE:
        case MESSAGE_ASK:
        case MESSAGE_ABORT:
        case MESSAGE_BUSY:
        case MESSAGE_UNKNOWN:
        case MESSAGE_END:
        case MESSAGE_ENDED:
        case MESSAGE_DONE:
        case MESSAGE_DONEACK:
        case MESSAGE_MAX:
        case MESSAGE_INVALID: break;
        }
}

void job_message(Job *job, Message type, json_object *body)
{
        JsonReader reader = {.where = message_to_string(type)};
        HalfEvent event = {.type = HALF_MESSAGE,
                           .message = type,
                           .from = DEVICE_STATE_UNKNOWN,
                           .to = DEVICE_STATE_UNKNOWN,
                           .state = DEVICE_STATE_UNKNOWN};

        /* What only the other half may be told must change nothing here, tokens and lost devices included. */
        if (message_is_for_destination(type) != (job_side(job) == SIDE_DESTINATION))
                return;
        read_body(job, &reader, type, body, &event);
        if (reader.failed) {
                log_warning(LOG_ABOUT(.vm = job->vm_name, .job = job->id), "the other migmgrd: %s",
                            reader.text);
                (void) snprintf(job->peer_text, sizeof job->peer_text, "%s", reader.text);
                if (type == MESSAGE_CHECKED || type == MESSAGE_PREPARED)
                        event.refused = true;
                else
                        return; /* as if it had not come: the deadline stands */
        }
        job_post(job, &event);
}
