/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What people and programs are told about a job: state, error text, JSON, log lines. */

#include <stdio.h>

#include "common/log.h"
#include "core/half-table.h"
#include "job.h"
#include "manifest-json.h"

#define JSON_VERSION 1

Side job_side(const Job *job)
{
        return job->half->side;
}

JobState job_state(const Job *job)
{
        return half_job_state(job->half);
}

JobResult job_result(const Job *job)
{
        return half_result(job->half);
}

Phase job_phase(const Job *job)
{
        return half_phase(job->half);
}

const char *job_owner(const Job *job)
{
        return half_owner_text(job->half);
}

const char *job_device_mode(const Job *job, uint32_t device)
{
        return job->half->devices[device].flags & DEVICE_SUPERVISED ? "supervised" : "owned";
}

bool job_is_decided(const Job *job)
{
        HalfState state = job->half->state;

        return state == DESTINATION_DONE || state == SOURCE_DONE || state == SOURCE_RELEASE;
}

DeviceState job_device_state(const Job *job, uint32_t device)
{
        return job->half->devices[device].state;
}

/* ---- errors -------------------------------------------------------------------------------------------------- */

/* Where a person is asked, what to look at and what not to do. */
static const struct {
        HalfState state;
        const char *text;
} advice[] = {
        {SOURCE_DOUBT,
         "GO was sent and the destination has not said what it did: it may run the VM. Look at the "
         "destination first; the copy here stays paused, do not resume it by hand while the other may "
         "run. It settles by itself when the destination answers"},
        {SOURCE_ORPHAN,
         "the VMM here died after its state had gone out and before it was handed over: the "
         "destination may hold a complete copy, paused. Find out why it died, then decide whether "
         "that copy may start; nothing runs now"},
        {SOURCE_UNSEEN,
         "the VMM here died on the way back, and nobody saw whether it ran again: if the destination has a "
         "copy, it may be out of date. Find out, then decide; nothing runs now. It settles by itself when the "
         "destination says that it has none"},
        {SOURCE_STUCK,
         "the VM belongs to this host again, but its VMM does not resume it: look at the VMM. It is "
         "tried again every second"},
        {SOURCE_HELD,
         "the VM belongs to this host again and stands, for policy \"on-source-loss\" says pause. Reset or replace what has "
         "lost its state, if that is to be, then let the VM go on by its VMM: cont to QEMU's monitor, after migrate_cancel "
         "where a migration is under way; the job then ends degraded"},
        {DESTINATION_STALLED,
         "the VM belongs to this host and its devices run, but its vCPUs do not start: look at "
         "the VMM. It is tried again every second"},
        {DESTINATION_MAYBE,
         "the VM belonged to this host and may have run here, but its VMM is gone. If its memory "
         "matters more than what it may have done since, start it at the source by hand; else "
         "start it anew"},
};

static const char *doubt_text(HalfState state)
{
        for (size_t i = 0; i < ARRAY_SIZE(advice); i++)
                if (advice[i].state == state)
                        return advice[i].text;
        return NULL;
}

static Outcome outcome_of_who(HalfWho who)
{
        switch (who) {
        case HALF_WHO_DEVICE: return OUTCOME_DEVICE;
        case HALF_WHO_VMM: return OUTCOME_VMM;
        case HALF_WHO_PEER: return OUTCOME_PEER;
        case HALF_WHO_RECORD: return OUTCOME_STORE;
        case HALF_WHO_FENCE: break;
        case HALF_WHO_MAX:
        case HALF_WHO_INVALID: break;
        }
        return OUTCOME_FAILED;
}

static Outcome outcome_of(const Job *job)
{
        const HalfFailure *f = &job->half->failure;

        switch (f->cause) {
        case HALF_CAUSE_NONE: return OUTCOME_NONE;
        case HALF_CAUSE_REFUSED:
                return job->more_findings == 0 && findings_json_refuse_for_p2p(job->findings)
                               ? OUTCOME_P2P
                               : OUTCOME_INCOMPATIBLE;
        case HALF_CAUSE_FAILED:
                if (f->who == HALF_WHO_PEER && job->peer_device[0])
                        return OUTCOME_DEVICE;
                return outcome_of_who(f->who);
        case HALF_CAUSE_DEADLINE: return outcome_of_who(f->who);
        case HALF_CAUSE_CANCELLED: return OUTCOME_CANCELLED;
        case HALF_CAUSE_TIMEOUT: return OUTCOME_TIMEOUT;
        case HALF_CAUSE_BLACKOUT: return OUTCOME_FAILED;
        case HALF_CAUSE_CUT: return OUTCOME_PEER;
        case HALF_CAUSE_DEVICE_GONE:
        case HALF_CAUSE_DEVICE_RESET: return OUTCOME_DEVICE;
        case HALF_CAUSE_VMM_GONE:
        case HALF_CAUSE_VMM_RESUMED: return OUTCOME_VMM;
        case HALF_CAUSE_PEER: return job->peer_device[0] ? OUTCOME_DEVICE : OUTCOME_PEER;
        case HALF_CAUSE_RESTART:
        case HALF_CAUSE_RESOLVED:
        case HALF_CAUSE_MAX:
        case HALF_CAUSE_INVALID: break;
        }
        return OUTCOME_FAILED;
}

static void first_refusal(const Job *job, char *ret, size_t size)
{
        JsonReader reader = {.where = "findings"};
        json_object *o = findings_json_first_refusal(job->findings);
        const char *device = json_string(&reader, o, "device", false);
        const char *property = json_string(&reader, o, "property", false);
        const char *here = json_string(&reader, o, "source", false),
                   *there = json_string(&reader, o, "destination", false);
        const char *remedy = json_string(&reader, o, "remedy", false);
        bool both = here && there && here[0] && there[0];

        if (!o || !property || !here || !there || !remedy) {
                (void) snprintf(ret, size, "%s",
                                job->peer_text[0] ? job->peer_text : "the other migmgrd refuses it");
                return;
        }
        (void) snprintf(ret, size, "%s%s%s is %s%s%s%s%s; %s", device && device[0] ? device : "the VM", ": ",
                        property, here, here[0] ? " at the source" : "", both ? " and " : "", there,
                        there[0] ? " at the destination" : "", remedy);
}

/* A participant has failed, or was too late. */
static void participant_text(const Job *job, char *ret, size_t size)
{
        const HalfFailure *f = &job->half->failure;
        const char *device = f->device < job->n_devices ? job->ids[f->device] : "";

        switch (f->who) {
        case HALF_WHO_DEVICE:
                if (f->cause != HALF_CAUSE_DEADLINE && !job->devices[f->device].text[0]) {
                        /* It was not even asked. */
                        (void) snprintf(ret, size, "device %s: there is no way on from its state, %s", device,
                                        device_state_to_string(job_device_state(job, f->device)));
                        return;
                }
                (void) snprintf(ret, size, "device %s: %s", device,
                                f->cause == HALF_CAUSE_DEADLINE ? "no answer in time"
                                                                : job->devices[f->device].text);
                return;
        case HALF_WHO_VMM:
                (void) snprintf(ret, size, "the VMM: %s%s%s",
                                f->cause == HALF_CAUSE_DEADLINE ? "no answer in time" : job->vmm_text,
                                f->of_both ? "; the destination: " : "", f->of_both ? job->peer_text : "");
                return;
        case HALF_WHO_PEER:
                (void) snprintf(ret, size, "the destination: %s",
                                job->peer_text[0] ? job->peer_text : "no answer in time");
                return;
        case HALF_WHO_RECORD:
                (void) snprintf(ret, size,
                                "the record can't be written: %s; make room in the state directory",
                                job->record_text);
                return;
        case HALF_WHO_FENCE:
                (void) snprintf(ret, size, "the other host is not fenced: %s", job->fence_text);
                return;
        case HALF_WHO_MAX:
        case HALF_WHO_INVALID: break;
        }
}

/* What happened, without where. */
static void cause_text(const Job *job, char *ret, size_t size)
{
        const HalfFailure *f = &job->half->failure;
        const char *device = f->device < job->n_devices ? job->ids[f->device] : "";

        switch (f->cause) {
        case HALF_CAUSE_REFUSED: first_refusal(job, ret, size); return;
        case HALF_CAUSE_CANCELLED: (void) snprintf(ret, size, "cancelled"); return;
        case HALF_CAUSE_TIMEOUT: (void) snprintf(ret, size, "the job took longer than it was given"); return;
        case HALF_CAUSE_BLACKOUT:
                (void) snprintf(
                        ret, size,
                        "the blackout would have become longer than --max-blackout, or policy, allows");
                return;
        case HALF_CAUSE_CUT:
                (void) snprintf(ret, size, "no connection to the other migmgrd: %s", job->peer_text);
                return;
        case HALF_CAUSE_VMM_GONE: (void) snprintf(ret, size, "the VMM's process has ended"); return;
        case HALF_CAUSE_VMM_RESUMED:
                /* It does so when its migration fails, and the destination may know why. */
                (void) snprintf(ret, size, "the VMM has resumed the VM by itself%s%s",
                                job->peer_text[0] ? "; the destination: " : "", job->peer_text);
                return;
        case HALF_CAUSE_RESTART: (void) snprintf(ret, size, "migmgrd was restarted in the middle"); return;
        case HALF_CAUSE_RESOLVED:
                (void) snprintf(ret, size, "an operator has decided: %s",
                                resolve_to_string(job->half->resolved));
                return;
        case HALF_CAUSE_PEER:
                (void) snprintf(ret, size, "the other migmgrd has ended it%s%s",
                                job->peer_text[0] ? ": " : "", job->peer_text);
                return;
        case HALF_CAUSE_DEVICE_GONE:
                (void) snprintf(ret, size, "device %s: %s", device, job->devices[f->device].text);
                return;
        case HALF_CAUSE_DEVICE_RESET:
                (void) snprintf(ret, size, "device %s: its VMM has reset it: %s", device,
                                job->devices[f->device].text);
                return;
        case HALF_CAUSE_FAILED:
        case HALF_CAUSE_DEADLINE:
        case HALF_CAUSE_NONE:
        case HALF_CAUSE_MAX:
        case HALF_CAUSE_INVALID: participant_text(job, ret, size); return;
        }
}

static void lost_text(const Job *job, char *ret, size_t size)
{
        size_t n = 0;

        ret[0] = 0;
        for (uint32_t i = 0; i < job->n_devices && n < size; i++)
                if (half_device_is_lost(job->half, i))
                        n += (size_t) snprintf(ret + n, size - n, "%s%s%s", n ? ", " : "", job->ids[i],
                                               job->half->devices[i].dead        ? " (does not run)"
                                               : job->half->devices[i].was_reset ? " (reset by the VMM)"
                                               : job->half->devices[i].unplugged
                                                       ? " (the VMM's connection broke)"
                                                       : "");
}

static Outcome describe_error(const Job *job, char *ret, size_t size)
{
        const HalfFailure *f = &job->half->failure;
        bool degraded = job_result(job) == JOB_RESULT_DEGRADED;
        char cause[512] = "", lost[512];
        Outcome outcome = outcome_of(job);
        size_t n;

        ret[0] = 0;
        /* What went wrong on the way (a restart, a VMM that died when it was not needed any more) is no error then. */
        if (job_result(job) == JOB_RESULT_DONE || (outcome == OUTCOME_NONE && !degraded))
                return OUTCOME_NONE;
        if (outcome != OUTCOME_NONE)
                cause_text(job, cause, sizeof cause);
        n = (size_t) snprintf(ret, size, "VM %s", job->vm_name);
        if (outcome != OUTCOME_NONE && n < size)
                n += (size_t) snprintf(ret + n, size - n, ", phase %s: %s",
                                       phase_to_string(half_states[f->in].phase), cause);
        /* It had begun to start and was ended while held: the policy "back". */
        if (job->half->ran && (job->half->owner == OWNER_PROMISED || job->half->owner == OWNER_DISCARDED) &&
            n < size)
                n += (size_t) snprintf(
                        ret + n, size - n,
                        "; its guest executed nothing at the destination, and devices that had run there for a moment "
                        "go on at the source from before that");
        if (degraded && n < size) {
                lost_text(job, lost, sizeof lost);
                n += (size_t) snprintf(ret + n, size - n,
                                       "%s these devices have lost their state, reset or replace them: %s",
                                       outcome == OUTCOME_NONE ? ":" : ";", lost);
                outcome = OUTCOME_DEVICE;
        }
        if (job_state(job) == JOB_STATE_IN_DOUBT) {
                const char *text = doubt_text(job->half->state);

                lost_text(job, lost, sizeof lost);
                if (job->half->state == SOURCE_HELD && lost[0] && n < size)
                        n += (size_t) snprintf(ret + n, size - n, "; these devices have lost their state: %s",
                                               lost);
                if (text && n < size)
                        n += (size_t) snprintf(ret + n, size - n, ". %s", text);
                /* Where the VMM itself is what is in doubt, what it said last tells where to look. */
                if (half_states[job->half->state].vmm != VMM_ACT_NONE && job->vmm_text[0] && n < size)
                        n += (size_t) snprintf(ret + n, size - n, ". It last said: %s", job->vmm_text);
                if (job->fence_text[0] && n < size)
                        n += (size_t) snprintf(ret + n, size - n, ". The fence: %s", job->fence_text);
                if (n < size)
                        (void) snprintf(
                                ret + n, size - n,
                                ". migctl resolve %s says what can be decided; IN DOUBT in migctl(1) at what to look",
                                job->id);
                return OUTCOME_IN_DOUBT;
        }
        if (job->half->state == SOURCE_LOST && n < size)
                (void) snprintf(ret + n, size - n,
                                ". The VM is lost: its VMM died and the destination has no copy");
        if (half_is_given_up(job->half) && n < size)
                (void) snprintf(
                        ret + n, size - n,
                        ". The VM was given up here, and nobody has said that it runs at the destination: a copy that is there "
                        "starts when the two meet again; if there is none, boot the VM from its disks");
        return outcome;
}

/* What it quotes may be foreign, or cut in the middle of a character. */
Outcome job_error(const Job *job, char *ret, size_t size)
{
        Outcome outcome = describe_error(job, ret, size);

        (void) log_printable(ret, ret, size);
        return outcome;
}

/* ---- JSON ---------------------------------------------------------------------------------------------------- */

/* Something is asked of the device in that phase, at either end, when all goes well. */
static bool is_in_phase(const Job *job, uint32_t device, Phase phase)
{
        for (HalfState s = 0; s < HALF_STATE_MAX; s++)
                if (half_states[s].phase == phase && half_states[s].job == JOB_STATE_RUNNING &&
                    plan_asks(&job->plan, half_states[s].device, device, job->half->devices[device].flags))
                        return true;
        return false;
}

/* The plan that the run has, with the devices of each phase. */
json_object *job_plan_report(const Job *job)
{
        json_object *plan = job_plan_json(job), *phases = NULL;

        (void) json_object_object_get_ex(plan, "phases", &phases);
        for (size_t i = 0, n = json_object_array_length(phases); i < n; i++) {
                JsonReader reader = {.where = "plan"};
                json_object *phase = json_object_array_get_idx(phases, i), *devices = json_new_array();
                Phase p = phase_from_string(json_string(&reader, phase, "phase", true));

                for (uint32_t k = 0; k < job->n_devices; k++)
                        if (is_in_phase(job, k, p))
                                json_append(devices, json_object_new_string(job->ids[k]));
                json_add(phase, "devices", devices);
        }
        json_add_number(plan, "predicted_blackout_usec", (int64_t) job->predicted_usec);
        return plan;
}

static json_object *devices_to_json(const Job *job)
{
        json_object *array = json_new_array();

        for (uint32_t i = 0; i < job->n_devices; i++) {
                json_object *o = json_new_object();

                json_add_string(o, "id", job->ids[i]);
                json_add_string(o, "mode", job_device_mode(job, i));
                json_add_string(o, "state", device_state_to_string(job_device_state(job, i)));
                json_add_number(o, "bytes", (int64_t) job->devices[i].bytes);
                json_add_bool(o, "lost", half_device_is_lost(job->half, i));
                json_append(array, o);
        }
        return array;
}

static void add_figures(const Job *job, json_object *o)
{
        uint64_t blackout = job_blackout_usec(job), vmm = MIN(job_vmm_only_usec(job), blackout);

        json_add_number(o, "predicted_blackout_usec", (int64_t) job->predicted_usec);
        json_add_number(o, "blackout_usec", (int64_t) blackout);
        json_add_number(o, "vmm_usec", (int64_t) vmm);
        json_add_number(o, "device_blackout_usec", (int64_t) (blackout - vmm));
        if (job->clock.blackout_start_usec > job->clock.start_usec)
                json_add_number(o, "blackout_start_usec",
                                (int64_t) (job->clock.blackout_start_usec - job->clock.start_usec));
}

/* What summary and report both begin with. */
static void add_head(const Job *job, json_object *o)
{
        json_add_string(o, "job", job->id);
        json_add_string(o, "vm", job->vm_uuid);
        json_add_string(o, "name", job->vm_name);
        json_add_string(o, "half", side_to_string(job_side(job)));
        json_add_string(o, "peer", job->peer);
        json_add_string(o, "state", job_state_to_string(job_state(job)));
        json_add_string(o, "result", job_result_to_string(job_result(job)));
        json_add_string(o, "phase", phase_to_string(job_phase(job)));
        json_add_string(o, "owner", job_owner(job));
        json_add_number(o, "created_usec", (int64_t) job->created_usec);
        json_add_number(o, "ended_usec", (int64_t) job->ended_usec);
}

json_object *job_summary(const Job *job)
{
        json_object *o = json_new_object();

        add_head(job, o);
        json_add_number(o, "blackout_usec", (int64_t) job_blackout_usec(job));
        return o;
}

/* Devices that were moved though they may have lost what others wrote to them, for a policy accepts that. */
static json_object *accepted_risks(const Job *job)
{
        json_object *array = json_new_array();
        bool touched = !job->half->check_only && job->half->failure.cause != HALF_CAUSE_REFUSED;
        JsonReader reader = {.where = "findings"};

        for (size_t i = 0; touched && i < json_object_array_length(job->findings); i++) {
                json_object *o = json_object_array_get_idx(job->findings, i);
                const char *property = json_string(&reader, o, "property", false);
                const char *device = json_string(&reader, o, "device", false);

                if (property && device && streq(property, finding_desc(FINDING_P2P_RISK)->property))
                        json_append(array, json_object_new_string(device));
        }
        return array;
}

json_object *job_to_json(const Job *job)
{
        json_object *o = json_new_object(), *error = json_new_object();
        char text[1024];
        Outcome outcome = job_error(job, text, sizeof text);
        const char *name = outcome_info(outcome)->name;

        json_add_number(o, "version", JSON_VERSION);
        add_head(job, o);
        json_add_number(o, "bandwidth", (int64_t) job->plan.bandwidth);
        json_add_number(o, "max_blackout_usec", (int64_t) job->plan.max_blackout_usec);
        add_figures(job, o);
        json_add_string(error, "name", name ? name : "");
        json_add_string(error, "text", text);
        json_add(o, "error", error);
        json_add(o, "choices", job_choices(job));
        json_add_string(o, "resolved", resolve_to_string(job->half->resolved));
        json_add(o, "devices", devices_to_json(job));
        json_add(o, "findings", json_object_get(job->findings));
        json_add_number(o, "more_findings", job->more_findings);
        json_add(o, "accepted_risks", accepted_risks(job));
        json_add(o, "plan", job_plan_json(job));
        json_add(o, "timeline", timeline_to_json(&job->timeline, 0, job->ids));
        return o;
}

/* ---- the log ------------------------------------------------------------------------------------------------- */

void job_log_change(const Job *job, HalfState from, HalfState to)
{
        const char *was = half_state_to_string(from);
        char text[1024];
        LogAbout about = {.job = job->id, .vm = job->vm_name, .phase = phase_to_string(job_phase(job))};
        JobState state = job_state(job);

        log_info(&about, "%s: %s -> %s", job->half->check_only ? "check" : "migration", was ? was : "begin",
                 half_state_to_string(to));
        if (state == JOB_STATE_IN_DOUBT) {
                (void) job_error(job, text, sizeof text);
                log_error(&about, "in doubt: %s", text);
        } else if (state == JOB_STATE_ROLLING_BACK && from < HALF_STATE_MAX && (int) from >= 0 &&
                   half_states[from].job == JOB_STATE_RUNNING) {
                (void) job_error(job, text, sizeof text);
                log_warning(&about, "rolling back: %s", text);
        }
}

/* ---- migmgrd --debug ----------------------------------------------------------------------------------------- */

static LogAbout about_device(const Job *job, bool device, uint32_t i)
{
        return (LogAbout){.job = job->id,
                          .vm = job->vm_name,
                          .phase = phase_to_string(job_phase(job)),
                          .device = device && i < job->n_devices ? job->ids[i] : NULL};
}

void job_log_event(const Job *job, const HalfEvent *event)
{
        bool result = event->type == HALF_RESULT;
        LogAbout about = about_device(job,
                                      event->type == HALF_DEVICE_GONE || event->type == HALF_DEVICE_RESET ||
                                              (result && event->who == HALF_WHO_DEVICE),
                                      event->device);
        const char *name = event->type == HALF_MESSAGE ? message_to_string(event->message)
                                                       : half_event_to_string(event->type);

        if (result)
                log_debug(&about, "event: %s has answered step %u of %u: %d", half_who_to_string(event->who),
                          event->step, job->half->step, event->status);
        else
                log_debug(&about, "event: %s", name);
}

void job_log_effect(const Job *job, const HalfEffect *effect)
{
        LogAbout about = about_device(job, effect->type == HALF_EFFECT_DEVICE, effect->device);

        switch (effect->type) {
        case HALF_EFFECT_DEVICE:
                log_debug(&about, "step %u: device: %s%s, in %llu ms", effect->step,
                          device_act_to_string(half_states[job->half->state].device),
                          effect->interrupt ? ", interrupted" : "",
                          (unsigned long long) (effect->deadline_usec / 1000));
                break;
        case HALF_EFFECT_VMM:
                log_debug(&about, "step %u: VMM: %s", effect->step, vmm_act_to_string(effect->vmm_act));
                break;
        case HALF_EFFECT_RECORD:
                log_debug(&about, "step %u: record: %s", effect->step, owner_to_string(effect->owner));
                break;
        case HALF_EFFECT_SEND: log_debug(&about, "says %s", message_to_string(effect->message)); break;
        case HALF_EFFECT_FENCE: log_debug(&about, "step %u: fences", effect->step); break;
        case HALF_EFFECT_CONNECT: log_debug(&about, "step %u: makes data connections", effect->step); break;
        case HALF_EFFECT_TIMER:
                log_debug(&about, "timer: %llu ms", (unsigned long long) (effect->deadline_usec / 1000));
                break;
        case HALF_EFFECT_ACKED: log_debug(&about, "both ends know the end"); break;
        case HALF_EFFECT_MAX: break;
        }
}
