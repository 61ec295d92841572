/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a person can decide of a job that is in doubt, what comes of it, and why not: the words for what the rows of
 * HALF_RESOLVE in core/half-source.c and core/half-destination.c do. */

#include <stdio.h>

#include "core/half-table.h"
#include "job.h"

/* The first that fits is taken; `unless` are states of the half in which it does not. */
typedef enum Unless {
        ALWAYS,
        VMM_GONE,
        VMM_RESUMED,
        LINKED,
        NO_FENCE,
} Unless;

typedef struct Word {
        HalfState state;
        Resolve how;
        Unless when;
        const char *text;
} Word;

static const Word words[] = {
        {SOURCE_DOUBT, RESOLVE_RUN_HERE, VMM_GONE,
         "its VMM here is dead: there is nothing here that could run"},
        {SOURCE_DOUBT, RESOLVE_RUN_HERE, NO_FENCE,
         "takes the VM back: writes \"aborted\", has devices and vCPUs go on here where they stood at the handover, and has "
         "the other host discard what it has. Right only when the VM does not run there and never will: its VMM and its "
         "devices are dead, or the host is off. If that is wrong, the VM runs twice. What it has done there since the "
         "handover its memory here does not know"},
        {SOURCE_DOUBT, RESOLVE_RUN_HERE, ALWAYS,
         "runs fence-command, which must end with status 0; then takes the VM back: writes \"aborted\", has devices and vCPUs "
         "go on here where they stood at the handover, and has the other host discard what it has. What the VM has done "
         "there since the handover its memory here does not know"},
        {SOURCE_DOUBT, RESOLVE_DISCARD_HERE, VMM_GONE,
         "nothing is left here: ends the job as lost, and waits for no answer: nobody has said that the VM runs on the other "
         "host. A copy that this one still has is started when the two meet again"},
        {SOURCE_DOUBT, RESOLVE_DISCARD_HERE, VMM_RESUMED,
         "the VM has run here again since it was handed over: what the other host has is stale, and nobody may run that"},
        {SOURCE_DOUBT, RESOLVE_DISCARD_HERE, ALWAYS,
         "ends the VMM here, resets its devices, and tells the other host that there is no way back: it goes on with the VM, "
         "or starts its copy; if it has none the VM is lost. Right only when the VM runs there, or its whole copy stands "
         "there"},
        {SOURCE_ORPHAN, RESOLVE_RUN_HERE, ALWAYS,
         "its VMM here is dead: there is nothing here that could run"},
        {SOURCE_ORPHAN, RESOLVE_DISCARD_HERE, ALWAYS,
         "resets the devices here and has the other host start its copy, if that is whole; if it has none the VM is lost. Right "
         "only when the VM has not run here again after its state had gone out: else that copy is stale"},
        {SOURCE_UNSEEN, RESOLVE_RUN_HERE, ALWAYS,
         "its VMM here is dead: there is nothing here that could run"},
        {SOURCE_UNSEEN, RESOLVE_DISCARD_HERE, ALWAYS,
         "resets the devices here and has the other host start its copy. Right only when the VM has not run here again on the "
         "way back: else that copy is stale, and is to be discarded there (migctl resolve, on that host)"},
        {SOURCE_STUCK, RESOLVE_RUN_HERE, ALWAYS,
         "that is tried every second: look at the VMM, which does not resume the VM"},
        {SOURCE_STUCK, RESOLVE_DISCARD_HERE, ALWAYS,
         "its devices have run here again: what the other host has is stale. If the VMM is beyond help, end it"},
        {SOURCE_HELD, RESOLVE_RUN_HERE, ALWAYS,
         "has the VM go on here, without what the devices held that are named above; the job is then degraded"},
        {SOURCE_HELD, RESOLVE_DISCARD_HERE, ALWAYS,
         "its devices have run here again: what the other host has is stale. If this VM is of no more use, end its VMM"},
        {DESTINATION_READY, RESOLVE_RUN_HERE, LINKED,
         "the source is connected, and can say itself what is to become of the VM: migctl resolve or cancel there"},
        {DESTINATION_READY, RESOLVE_RUN_HERE, ALWAYS,
         "starts the copy that is here: writes \"destination\", with no way back. Right only when the source's host is gone "
         "for good and the VM has not run there again. If that is wrong, the VM runs twice, or from a stale memory"},
        {DESTINATION_READY, RESOLVE_DISCARD_HERE, ALWAYS,
         "ends the copy that is here and resets its devices; the source is told that there is none. If its VMM is dead, too, "
         "the VM is lost"},
        {DESTINATION_PROMISED, RESOLVE_RUN_HERE, VMM_GONE,
         "the copy's VMM here is dead: there is nothing here that could run"},
        {DESTINATION_PROMISED, RESOLVE_RUN_HERE, LINKED,
         "this host has promised the source not to start its copy, and the source is connected: migctl resolve there"},
        {DESTINATION_PROMISED, RESOLVE_RUN_HERE, ALWAYS,
         "starts the copy that is here, against the promise that was made to the source: writes \"destination\", with no way "
         "back. Right only when the source's host is gone for good and the VM has not run there again: it was about to. If "
         "that is wrong, the VM runs twice, or from a stale memory"},
        {DESTINATION_PROMISED, RESOLVE_DISCARD_HERE, ALWAYS,
         "ends the copy that is here and resets its devices; the source is told that there is none. If its VMM is dead, too, "
         "the VM is lost"},
        {DESTINATION_STALLED, RESOLVE_RUN_HERE, ALWAYS,
         "that is tried every second: look at the VMM, which does not start the vCPUs"},
        {DESTINATION_STALLED, RESOLVE_DISCARD_HERE, ALWAYS,
         "its devices run here, and there is no way back. If the VMM is beyond help, end it, and look again"},
        {DESTINATION_MAYBE, RESOLVE_RUN_HERE, ALWAYS,
         "its VMM here is gone: there is nothing here that could run"},
        {DESTINATION_MAYBE, RESOLVE_DISCARD_HERE, ALWAYS,
         "stops the devices here and tells the source that the VM does not run here and never will: if it is whole there, it "
         "goes on where it stood at the handover. What the VM has done here since its memory there does not know, while its "
         "disks and the network do. Don't boot it from its disks before the source has said what it has"},
};

static bool fits(const Job *job, const Word *word, Resolve how)
{
        const Half *half = job->half;

        if (word->state != half->state || word->how != how)
                return false;
        switch (word->when) {
        case ALWAYS: return true;
        case VMM_GONE: return half->vmm_gone;
        case VMM_RESUMED: return half->vmm_resumed;
        case LINKED: return half->linked;
        case NO_FENCE: return !job->plan.fence;
        }
        return false;
}

/* The same, of a job that has ended. */
static const char given_up_here[] =
        "the job has ended, and the VM is this host's; the other host is not told of it any longer, so that the VM can be "
        "unregistered. Right only when that host is gone for good: else it keeps a copy, or is in doubt, and nobody can tell "
        "it any more that the VM runs here";
static const char given_up_there[] =
        "the job has ended, and nothing of the VM is here; the other host is not told of it any longer, so that the VM can "
        "be unregistered. Right only when that host is gone for good: else it waits for ever for this one";

bool job_may_give_up(const Job *job, Resolve how)
{
        return job->finished && !job->closed && half_may_give_up(job->half, how);
}

void job_give_up(Job *job)
{
        job->closed = true;
        store_ack(job->host->store, job->id, job_side(job));
        loop_timer_set(job->timer, 0);
        loop_timer_soon(job->post_timer);
}

const char *job_resolve_text(const Job *job, Resolve how)
{
        if (job_may_give_up(job, how))
                return half_has_vm(job->half) ? given_up_here : given_up_there;
        for (size_t i = 0; i < ARRAY_SIZE(words); i++)
                if (fits(job, &words[i], how))
                        return words[i].text;
        return job->finished ? "the job has ended" : "there is nothing to decide: the job goes on by itself";
}

bool job_may_resolve(const Job *job, Resolve how)
{
        return job_may_give_up(job, how) || half_may_resolve(&half_table, &job->plan, job->half, how);
}

json_object *job_choices(const Job *job)
{
        json_object *choices = json_new_array();

        if (job_state(job) != JOB_STATE_IN_DOUBT && !job_may_resolve(job, RESOLVE_RUN_HERE) &&
            !job_may_resolve(job, RESOLVE_DISCARD_HERE))
                return choices;
        for (Resolve how = RESOLVE_RUN_HERE; how < RESOLVE_MAX; how++) {
                json_object *choice = json_new_object();

                json_add_string(choice, "how", resolve_to_string(how));
                json_add_bool(choice, "allowed", job_may_resolve(job, how));
                json_add_string(choice, "text", job_resolve_text(job, how));
                json_append(choices, choice);
        }
        return choices;
}
