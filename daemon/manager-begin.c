/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What is begun and cancelled for callers on the bus, at once or when the job before has ended. */

#include <stdio.h>

#include "common/log.h"
#include "manager-internal.h"
#include "peer/address.h"

/* ---- waiting for a VM ---------------------------------------------------------------------------------------- */

struct Wait {
        Wait *next;
        Manager *manager;
        char vm[UUID_TEXT_MAX + 1];
        LoopTimer *timer;
        LoopCallback run;
        void *userdata;
};

static void on_wait(void *userdata)
{
        Wait *wait = userdata;
        LoopCallback run = wait->run;
        void *run_userdata = wait->userdata;

        for (Wait **p = &wait->manager->waits; *p; p = &(*p)->next)
                if (*p == wait) {
                        *p = wait->next;
                        break;
                }
        loop_timer_free(wait->timer);
        free(wait);
        run(run_userdata);
}

bool manager_is_awaited(Manager *manager, const char *vm_uuid)
{
        for (Wait *wait = manager->waits; wait; wait = wait->next)
                if (streq(wait->vm, vm_uuid))
                        return true;
        return false;
}

void manager_wait(Manager *manager, const Vm *vm, LoopCallback run, void *userdata)
{
        Wait *wait = malloc(sizeof *wait);

        if (!wait)
                out_of_memory();
        *wait = (Wait){.next = manager->waits, .manager = manager, .run = run, .userdata = userdata};
        memcpy(wait->vm, vm->definition->uuid, sizeof wait->vm);
        if (loop_timer_new(manager->host->loop, on_wait, wait, &wait->timer) < 0)
                out_of_memory();
        loop_timer_set(wait->timer, WAIT_USEC);
        manager->waits = wait;
}

void manager_vm_is_free(Manager *manager, const char *vm_uuid)
{
        for (Wait *wait = manager->waits; wait; wait = wait->next)
                if (streq(wait->vm, vm_uuid))
                        loop_timer_soon(wait->timer);
}

void manager_end_waits(Manager *manager)
{
        while (manager->waits)
                on_wait(manager->waits);
}

/* ---- migrate, check, cancel ---------------------------------------------------------------------------------- */

static Job *find_request(Manager *manager, const char *request_id)
{
        for (Job *job = manager->jobs; request_id && job; job = job->next)
                if (streq(job->request_id, request_id) && request_id[0])
                        return job;
        return NULL;
}

static Outcome begin(Manager *manager, Vm *vm, const char *destination, const JobOptions *options,
                     char *ret_text, Job **ret)
{
        const char *reason;
        Dialer *dialer;
        int r;

        if (address_check(destination, &reason) < 0) {
                (void) snprintf(ret_text, JSON_TEXT_MAX, "destination \"%.80s\": %s", destination, reason);
                return OUTCOME_BAD_DESTINATION;
        }
        if (manager->host->policies->error[0]) {
                (void) snprintf(ret_text, JSON_TEXT_MAX, "%.400s; correct it, then: migctl policy reload",
                                manager->host->policies->error);
                return OUTCOME_BAD_POLICY;
        }
        if (vm_is_busy(vm))
                return manager_say_busy(vm, ret_text);
        dialer = manager_dialer(manager, destination);
        r = dialer ? job_new_source(manager->host, &manager_job_hooks, manager, vm, destination, options, ret)
                   : -ENOMEM;
        if (r < 0) {
                (void) snprintf(ret_text, JSON_TEXT_MAX, "%s", strerror(-r));
                return OUTCOME_FAILED;
        }
        manager_add_job(manager, *ret);
        job_start(*ret, dialer_is_up(dialer));
        return OUTCOME_NONE;
}

static Outcome migrate_now(Manager *manager, Vm *vm, const char *destination, const JobOptions *options,
                           char *ret_text, Job **ret)
{
        Job *job = find_request(manager, options->request_id);

        if (!job)
                return begin(manager, vm, destination, options, ret_text, ret);
        if (!streq(job->vm_uuid, vm->definition->uuid) || !streq(job->peer, destination)) {
                (void) snprintf(ret_text, JSON_TEXT_MAX,
                                "request-id \"%.127s\" was used for VM %.100s to %.120s; take another one",
                                options->request_id, job->vm_name, job->peer);
                return OUTCOME_INVALID_ARGUMENT;
        }
        *ret = job;
        return OUTCOME_NONE;
}

static Outcome check_now(Manager *manager, Vm *vm, const char *destination, const JobOptions *options,
                         ManagerChecked checked, void *userdata, char *ret_text)
{
        Check *check = malloc(sizeof *check);
        Outcome outcome;
        Job *job;

        if (!check)
                out_of_memory();
        *check = (Check){manager->checks, NULL, checked, userdata};
        outcome = begin(manager, vm, destination, options, ret_text, &job);
        if (outcome != OUTCOME_NONE) {
                free(check);
                return outcome;
        }
        check->job = job;
        check->next = manager->checks;
        manager->checks = check;
        return OUTCOME_NONE;
}

/* A call that came while the job before was ending. */
typedef struct Begin {
        Manager *manager;
        char vm[UUID_TEXT_MAX + 1];
        char *destination, *request_id; /* owned; the second may be NULL */
        JobOptions options;
        ManagerBegun begun; /* of the two, the one that is not NULL */
        ManagerChecked checked;
        void *userdata;
} Begin;

static void answer(const Begin *begin, Outcome outcome, const char *text, Job *job)
{
        if (begin->begun)
                begin->begun(begin->userdata, outcome, text, job);
        else if (outcome != OUTCOME_NONE)
                begin->checked(begin->userdata, outcome, text, false, NULL);
}

static Outcome begin_now(const Begin *begin, Vm *vm, char *ret_text, Job **ret)
{
        return begin->begun
                       ? migrate_now(begin->manager, vm, begin->destination, &begin->options, ret_text, ret)
                       : check_now(begin->manager, vm, begin->destination, &begin->options, begin->checked,
                                   begin->userdata, ret_text);
}

/* The job has ended, or takes too long for that. */
static void on_may_begin(void *userdata)
{
        Begin *begin = userdata;
        Vm *vm = manager_find_uuid(begin->manager, begin->vm);
        char text[JSON_TEXT_MAX] = "the VM was unregistered just now";
        Outcome outcome = OUTCOME_NO_SUCH_VM;
        Job *job = NULL;

        if (vm)
                outcome = begin_now(begin, vm, text, &job);
        answer(begin, outcome, text, job);
        free(begin->destination);
        free(begin->request_id);
        free(begin);
}

/* Strings that must outlive the call. */
static Begin *keep(const Begin *begin)
{
        Begin *kept = malloc(sizeof *kept);

        if (!kept)
                out_of_memory();
        *kept = *begin;
        kept->destination = strdup(begin->destination);
        kept->request_id = begin->request_id ? strdup(begin->request_id) : NULL;
        if (!kept->destination || (begin->request_id && !kept->request_id))
                out_of_memory();
        kept->options.request_id = kept->request_id;
        return kept;
}

/* A VM that has just arrived is known to run here before the record of that is durable: whoever sends it on at once need not
 * know. */
static void begin_or_wait(Begin *begin, Vm *vm)
{
        char text[JSON_TEXT_MAX];
        Job *job = NULL;
        Outcome outcome = begin_now(begin, vm, text, &job);

        if (outcome == OUTCOME_BUSY && vm->job && job_is_decided(vm->job))
                manager_wait(begin->manager, vm, on_may_begin, keep(begin));
        else
                answer(begin, outcome, text, job);
}

void manager_migrate(Manager *manager, Vm *vm, const char *destination, const JobOptions *options,
                     ManagerBegun begun, void *userdata)
{
        Begin begin = {.manager = manager,
                       .destination = (char *) destination,
                       .request_id = (char *) options->request_id,
                       .options = *options,
                       .begun = begun,
                       .userdata = userdata};

        memcpy(begin.vm, vm->definition->uuid, sizeof begin.vm);
        begin_or_wait(&begin, vm);
}

void manager_check(Manager *manager, Vm *vm, const char *destination, const JobOptions *options,
                   ManagerChecked checked, void *userdata)
{
        Begin begin = {.manager = manager,
                       .destination = (char *) destination,
                       .request_id = (char *) options->request_id,
                       .options = *options,
                       .checked = checked,
                       .userdata = userdata};

        memcpy(begin.vm, vm->definition->uuid, sizeof begin.vm);
        begin_or_wait(&begin, vm);
}

Outcome manager_resolve(Manager *manager, Job *job, Resolve how, char *ret_text)
{
        LogAbout about = {.vm = job->vm_name, .job = job->id};

        if (!job_may_resolve(job, how)) {
                (void) snprintf(ret_text, JSON_TEXT_MAX, "VM %.100s, %s is forbidden: %s", job->vm_name,
                                resolve_to_string(how), job_resolve_text(job, how));
                return OUTCOME_FORBIDDEN;
        }
        log_warning(&about, "an operator has decided: %s: %s", resolve_to_string(how),
                    job_resolve_text(job, how));
        if (job_may_give_up(job, how)) {
                job_give_up(job);
                return OUTCOME_NONE;
        }
        return job_resolve(job, how) == 0 ? OUTCOME_NONE : OUTCOME_FORBIDDEN;
}

Outcome manager_cancel(Manager *manager, Job *job, char *ret_text)
{
        if (job_side(job) == SIDE_DESTINATION) {
                (void) snprintf(ret_text, JSON_TEXT_MAX, "a job is cancelled at its source, host %s",
                                job->peer);
                return OUTCOME_TOO_LATE;
        }
        if (job->finished) {
                (void) snprintf(ret_text, JSON_TEXT_MAX, "the job has ended already: %s",
                                job_result_to_string(job_result(job)));
                return OUTCOME_TOO_LATE;
        }
        if (job_cancel(job) == 0)
                return OUTCOME_NONE;
        (void) snprintf(ret_text, JSON_TEXT_MAX, "the job is in phase %s, owner %s: too late to turn it back",
                        phase_to_string(job_phase(job)), job_owner(job));
        return OUTCOME_TOO_LATE;
}
