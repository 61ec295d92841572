/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The acts of the side from which a QEMU leaves. */

#include <stdio.h>

#include "common/clock.h"
#include "qemu.h"

#define POLL_USEC     (5 * USEC_PER_MSEC)
#define PROGRESS_USEC (500 * USEC_PER_MSEC)
/* Without a limit of ours QEMU sends at 128 MiB/s, and the last pass runs in the blackout. */
#define BANDWIDTH         INT64_C(1099511627776)
#define BANDWIDTH_OF_QEMU (128 * MIB) /* its default */

#define DOWNTIME_MS_OF_QEMU 300
#define DOWNTIME_MS_MAX     2000000 /* of QEMU's downtime-limit */

/* Grace: devices go to P2P when the memory is nearly through and before QEMU finds that it is. So slow it can't find that,
 * whatever the guest does; */
#define BRAKED_BANDWIDTH   1024
#define BRAKED_DOWNTIME_MS 1
/* with so little left it is not worth while to look how fast the rest goes; */
#define REST_BYTES (64 * MIB)
/* and what is more goes out no faster than in so many seconds, so that whoever looks sees it come near its end. */
#define COME_NEAR_SECONDS 1
#define COME_NEAR_USEC    (20 * USEC_PER_MSEC)
/* A thread that is held must not keep the monitor from answering for longer. */
#define THREAD_HELD_USEC (150 * USEC_PER_MSEC)
#define HOLD_TRIES       3

/* ---- prepare ------------------------------------------------------------------------------------------------- */

static void on_parameters_set(Qemu *q, int status, json_object *result, const char *text)
{
        if (status < 0)
                qemu_done(q, status, "migrate-set-parameters: %s", text);
        else
                qemu_done(q, 0, "%s", "");
}

/* What whoever asked for the job allows. */
static int64_t bandwidth(const Qemu *q)
{
        uint64_t most = q->vmm.limits.bandwidth;

        return most > 0 ? (int64_t) MIN(most, (uint64_t) BANDWIDTH) : BANDWIDTH;
}

static int64_t downtime_ms(const Qemu *q)
{
        uint64_t most = q->vmm.limits.blackout_usec;

        return most > 0 ? (int64_t) MIN(MAX(most / USEC_PER_MSEC, 1), DOWNTIME_MS_MAX) : 0;
}

static void on_capabilities_set(Qemu *q, int status, json_object *result, const char *text)
{
        if (status < 0)
                qemu_done(q, status, "migrate-set-capabilities: %s", text);
        else if (q->vmm.limits.grace)
                qemu_set_speed(q, BRAKED_BANDWIDTH, BRAKED_DOWNTIME_MS, on_parameters_set);
        else
                qemu_set_speed(q, bandwidth(q), downtime_ms(q), on_parameters_set);
}

static void on_parameters(Qemu *q, int status, json_object *result, const char *text)
{
        JsonReader reader = {.where = "query-migrate-parameters"};

        if (status < 0) {
                qemu_done(q, status, "query-migrate-parameters: %s", text);
                return;
        }
        json_object_put(q->saved_parameters);
        q->saved_parameters = json_new_object();
        json_add_number(q->saved_parameters, "max-bandwidth",
                        json_number(&reader, result, "max-bandwidth", 0, INT64_MAX, 0));
        json_add_number(
                q->saved_parameters, "downtime-limit",
                json_number(&reader, result, "downtime-limit", 0, DOWNTIME_MS_MAX, DOWNTIME_MS_OF_QEMU));
        qemu_set_capabilities(q, true, on_capabilities_set);
}

static void on_capabilities(Qemu *q, int status, json_object *result, const char *text)
{
        if (status < 0) {
                qemu_done(q, status, "query-migrate-capabilities: %s", text);
                return;
        }
        json_object_put(q->saved_capabilities);
        q->saved_capabilities = json_object_get(result);
        q->saved = true;
        qemu_call(q, "query-migrate-parameters", NULL, -1, on_parameters);
}

static void prepare_connected(Qemu *q)
{
        qemu_doing(q, "its migration settings");
        qemu_call(q, "query-migrate-capabilities", NULL, -1, on_capabilities);
}

void qemu_prepare(Qemu *q)
{
        qemu_set_course(q, QEMU_COURSE_NONE);
        q->braked = q->vmm.limits.grace;
        q->graced = false;
        qemu_open_log(q);
        qemu_connect(q, false, prepare_connected);
}

/* ---- migrate ------------------------------------------------------------------------------------------------- */

static bool is_over(const Qemu *q)
{
        return qemu_migration_is(q, "failed") || qemu_migration_is(q, "failing") ||
               qemu_migration_is(q, "cancelled") || qemu_migration_is(q, "cancelling");
}

static void poll_progress(Qemu *q);
static void come_near(Qemu *q, json_object *ram);

static void on_progress(Qemu *q, int status, json_object *result, const char *text)
{
        JsonReader reader = {.where = "query-migrate"};
        json_object *ram = status == 0 ? json_member(&reader, result, "ram", json_type_object, false) : NULL;

        if (ram)
                q->vmm.listener->progress(
                        q->vmm.userdata, (uint64_t) json_number(&reader, ram, "transferred", 0, INT64_MAX, 0),
                        (uint64_t) json_number(&reader, ram, "total", 0, INT64_MAX, 0));
        if (ram && q->vmm.limits.grace && !q->graced && qemu_migration_is(q, "active"))
                come_near(q, ram);
        else
                qemu_poll(q, PROGRESS_USEC, poll_progress);
}

static void poll_progress(Qemu *q)
{
        qemu_call(q, "query-migrate", NULL, -1, on_progress);
}

/* ---- migrate, and hold it before it halts (grace) ---------------------------------------------------------------- */

/* All devices that have a PRE_COPY state are in it when QEMU's migration is active. Its memory goes out first; when little is
 * left it is braked, its migration thread is made to stand, and unbraked again: the devices are ours until VMM_ACT_HALT. */

/* For how long it may halt, in the end. */
static int64_t halt_ms(const Qemu *q)
{
        JsonReader reader = {.where = "query-migrate-parameters"};
        int64_t ms = downtime_ms(q);

        return ms > 0 ? ms
                      : json_number(&reader, q->saved_parameters, "downtime-limit", 1, DOWNTIME_MS_MAX,
                                    DOWNTIME_MS_OF_QEMU);
}

/* Unbraked, and not held: it comes to its end as it does without grace. */
static void on_unheld(Qemu *q, int status, json_object *result, const char *text)
{
        if (status < 0)
                qemu_done(q, status, "migrate-set-parameters: %s", text);
        else
                qemu_poll(q, PROGRESS_USEC, poll_progress);
}

static void go_on_unheld(Qemu *q)
{
        qemu_let_go(q);
        q->braked = false;
        qemu_set_speed(q, bandwidth(q), halt_ms(q), on_unheld);
}

static void on_held(Qemu *q, int status, json_object *result, const char *text)
{
        if (status == 0 && q->hold_stands)
                qemu_done(q, 0, "%s", "");
        else
                go_on_unheld(q);
}

/* It stands, and the monitor answers: QEMU may go as fast as it is allowed to, when it goes on. */
static void unbrake(Qemu *q)
{
        q->braked = false;
        qemu_poll(q, THREAD_HELD_USEC, go_on_unheld);
        qemu_set_speed(q, bandwidth(q), halt_ms(q), on_held);
}

static void on_monitor_answers(Qemu *q, int status, json_object *result, const char *text)
{
        if (q->hold_stands && status == 0)
                unbrake(q);
}

static void hold(Qemu *q);

static void hold_again(Qemu *q)
{
        qemu_let_go(q);
        if (--q->hold_tries > 0)
                qemu_poll(q, COME_NEAR_USEC, hold);
        else
                go_on_unheld(q);
}

/* It may stand where it holds a lock, the one that every vCPU and the monitor need: then it is let go at once. */
static void on_stands(Qemu *q)
{
        if (!q->hold_stands) {
                hold_again(q);
                return;
        }
        qemu_doing(q, "its migration stands; its monitor does not answer");
        qemu_poll(q, THREAD_HELD_USEC, hold_again);
        qemu_call(q, "query-status", NULL, -1, on_monitor_answers);
}

static void hold(Qemu *q)
{
        qemu_doing(q, "its migration thread is to stand");
        qemu_hold(q, on_stands);
}

/* Not where it has only just begun to send: then it is more often in a lock than not. */
static void hold_soon(Qemu *q)
{
        q->graced = true;
        q->hold_tries = HOLD_TRIES;
        qemu_poll(q, COME_NEAR_USEC, hold);
}

static void on_braked(Qemu *q, int status, json_object *result, const char *text)
{
        q->braked = status == 0;
        if (status < 0)
                qemu_done(q, status, "migrate-set-parameters: %s", text);
        else
                hold_soon(q);
}

static void on_unbraked(Qemu *q, int status, json_object *result, const char *text)
{
        q->braked = status < 0;
        if (status < 0)
                qemu_done(q, status, "migrate-set-parameters: %s", text);
        else
                qemu_poll(q, COME_NEAR_USEC, poll_progress);
}

/* What it can send of what is left in the time for which it may halt. */
static uint64_t near_bytes(const Qemu *q, json_object *ram)
{
        json_object *value = NULL;
        double mbps = json_object_object_get_ex(ram, "mbps", &value) ? json_object_get_double(value) : 0;
        double bytes = mbps * 125 * (double) halt_ms(q);

        return MAX(REST_BYTES, bytes > 0 && bytes < 1e15 ? (uint64_t) bytes : 0);
}

static void come_near(Qemu *q, json_object *ram)
{
        JsonReader reader = {.where = "query-migrate"};
        int64_t remaining = json_number(&reader, ram, "remaining", 0, INT64_MAX, 0);
        bool is_near = (uint64_t) remaining <= near_bytes(q, ram);

        if (is_near && q->braked)
                hold_soon(q);
        else if (is_near)
                qemu_set_speed(q, BRAKED_BANDWIDTH, BRAKED_DOWNTIME_MS, on_braked);
        else if (q->braked)
                qemu_set_speed(q, MIN(bandwidth(q), remaining / COME_NEAR_SECONDS), BRAKED_DOWNTIME_MS,
                               on_unbraked);
        else
                qemu_poll(q, COME_NEAR_USEC, poll_progress);
}

static void on_error_desc(Qemu *q, int status, json_object *result, const char *text)
{
        JsonReader reader = {.where = "query-migrate"};
        const char *desc = status == 0 ? json_string(&reader, result, "error-desc", false) : NULL;

        qemu_done(q, -EREMOTEIO, "its migration %s%s%s", q->migration, desc ? ": " : "", desc ? desc : "");
}

static void on_migrate_event(Qemu *q)
{
        if (qemu_migration_is(q, "pre-switchover"))
                qemu_done(q, 0, "%s", "");
        else if (is_over(q))
                qemu_call(q, "query-migrate", NULL, -1, on_error_desc);
        else if (qemu_migration_is(q, "active") && q->vmm.limits.grace && !q->graced)
                poll_progress(q);
}

/* All its devices are in P2P: its vCPUs stand, and what comes next need not be waited for. */
static void on_migrate_devices(Qemu *q)
{
        if (q->vmm.limits.push && qemu_all_said(q, QEMU_SAID_P2P))
                qemu_done(q, 0, "%s", "");
}

static void on_migrate(Qemu *q, int status, json_object *result, const char *text)
{
        if (status < 0) {
                qemu_done(q, status, "migrate: %s", text);
                return;
        }
        qemu_doing(q, "memory goes out; the guest may dirty it faster than the link takes it");
        if (!q->vmm.limits.grace)
                qemu_poll(q, PROGRESS_USEC, poll_progress);
}

static void migrate_passed(Qemu *q)
{
        q->migration[0] = 0;
        q->stood = false;
        qemu_set_course(q, QEMU_COURSE_LEAVING);
        q->on_migration = on_migrate_event;
        q->on_devices = on_migrate_devices;
        qemu_call(q, "migrate", qemu_argument("uri", "fd:migmgr"), -1, on_migrate);
}

void qemu_migrate(Qemu *q)
{
        qemu_pass_memory(q, migrate_passed);
}

/* ---- halt, seal ---------------------------------------------------------------------------------------------- */

static void on_halt_status(Qemu *q, int status, json_object *result, const char *text)
{
        JsonReader reader = {.where = "query-status"};
        const char *run_state = status == 0 ? json_string(&reader, result, "status", true) : NULL;

        if (!run_state)
                qemu_done(q, status < 0 ? status : -EPROTO, "query-status: %s", text);
        else if (!streq(run_state, "finish-migrate"))
                qemu_done(q, -ESTALE,
                          "its vCPUs should stand (finish-migrate) but it is %s: somebody else steers it",
                          run_state);
        else
                qemu_done(q, 0, "%s", "");
}

/* While QEMU takes its devices on it may not answer: what it has said of all of them is enough. */
static void look_halted(Qemu *q)
{
        if (q->vmm.limits.push && qemu_all_said(q, QEMU_SAID_P2P))
                qemu_done(q, 0, "%s", "");
        else if (qemu_migration_is(q, "pre-switchover"))
                qemu_call(q, "query-status", NULL, -1, on_halt_status);
        else if (is_over(q))
                qemu_call(q, "query-migrate", NULL, -1, on_error_desc);
}

void qemu_halt(Qemu *q)
{
        q->on_migration = look_halted;
        q->on_devices = look_halted;
        qemu_doing(q, "its vCPUs are to stand");
        look_halted(q);
}

static void poll_postmigrate(Qemu *q);

/* After `completed` the status may still be finish-migrate for some milliseconds, in which `cont` would be refused. */
static void on_seal_status(Qemu *q, int status, json_object *result, const char *text)
{
        JsonReader reader = {.where = "query-status"};
        const char *run_state = status == 0 ? json_string(&reader, result, "status", true) : NULL;

        if (!run_state)
                qemu_done(q, status < 0 ? status : -EPROTO, "query-status: %s", text);
        else if (streq(run_state, "postmigrate"))
                qemu_done(q, 0, "%s", "");
        else if (streq(run_state, "finish-migrate"))
                qemu_poll(q, POLL_USEC, poll_postmigrate);
        else
                qemu_done(q, -ESTALE, "it should be in postmigrate but is %s", run_state);
}

static void poll_postmigrate(Qemu *q)
{
        qemu_call(q, "query-status", NULL, -1, on_seal_status);
}

static void on_continue(Qemu *q, int status, json_object *result, const char *text);

static void on_seal_event(Qemu *q)
{
        if (qemu_migration_is(q, "pre-switchover")) {
                qemu_doing(q, "the rest of the memory goes out");
                qemu_call(q, "migrate-continue", qemu_argument("state", "pre-switchover"), -1, on_continue);
        } else if (qemu_migration_is(q, "completed") && q->vmm.limits.push && q->n_devices > 0) {
                /* Nothing leads back from there but `cont`. What it does before postmigrate, for which the monitor would have
                 * to wait, is to stop its devices, one after the other: they are stopped by us, all at once. */
                qemu_done(q, 0, "%s", "");
        } else if (qemu_migration_is(q, "completed")) {
                qemu_doing(q, "its migration is completed, but it is not in postmigrate");
                poll_postmigrate(q);
        } else if (is_over(q)) {
                qemu_call(q, "query-migrate", NULL, -1, on_error_desc);
        }
}

static void on_continue(Qemu *q, int status, json_object *result, const char *text)
{
        /* While the last pass is being written QEMU may not answer at all: events tell, and the act's deadline. */
        if (status < 0 && status != -ETIMEDOUT)
                qemu_done(q, status, "migrate-continue: %s", text);
}

void qemu_seal(Qemu *q)
{
        q->on_migration = on_seal_event;
        qemu_doing(q, "its devices are not all at rest");
        on_seal_event(q);
}

/* ---- resume -------------------------------------------------------------------------------------------------- */

/* Whatever it was doing, the vCPUs must run again. A migration that has not ended is ended: its connection was cut
 * (which frees a QEMU that stands in a write), it is cancelled, and then QEMU goes on by itself. One that has completed
 * is undone by `cont`. Every answer is read over a connection of this act. */

static void poll_resumed(Qemu *q);

static void on_ignored(Qemu *q, int status, json_object *result, const char *text)
{
        qemu_poll(q, POLL_USEC, poll_resumed);
}

static void restore_settings(Qemu *q);

static void on_restored(Qemu *q, int status, json_object *result, const char *text)
{
        /* What they were is a courtesy to whoever comes next; the VM runs without it. */
        restore_settings(q);
}

static void restore_settings(Qemu *q)
{
        json_object *arguments;

        if (!q->saved) {
                /* An earlier life of this daemon knew. QEMU's own settings are the best guess. */
                q->saved = true;
                q->saved_parameters = json_new_object();
                json_add_number(q->saved_parameters, "max-bandwidth", BANDWIDTH_OF_QEMU);
                json_add_number(q->saved_parameters, "downtime-limit", DOWNTIME_MS_OF_QEMU);
                qemu_set_capabilities(q, false, on_restored);
        } else if (q->saved_capabilities) {
                arguments = json_new_object();
                json_add(arguments, "capabilities", TAKE_PTR(q->saved_capabilities));
                qemu_call(q, "migrate-set-capabilities", arguments, -1, on_restored);
        } else if (q->saved_parameters) {
                qemu_call(q, "migrate-set-parameters", TAKE_PTR(q->saved_parameters), -1, on_restored);
        } else {
                qemu_done(q, 0, "%s", "");
        }
}

/* After a migration that has completed its devices go the same way as at a destination. */
static void cont(Qemu *q, const char *run_state)
{
        if (streq(run_state, "postmigrate") && q->course != QEMU_COURSE_RUNNING)
                qemu_set_course(q, QEMU_COURSE_RUNNING);
        qemu_call(q, "cont", NULL, -1, on_ignored);
}

static void undo_migration(Qemu *q, const char *run_state, const char *migration)
{
        if (streq(migration, "setup") || streq(migration, "active") || streq(migration, "pre-switchover") ||
            streq(migration, "device") || streq(migration, "wait-unplug"))
                qemu_call(q, "migrate_cancel", NULL, -1, on_ignored);
        else if (streq(run_state, "postmigrate") || streq(run_state, "paused"))
                cont(q, run_state);
        else
                qemu_poll(q, POLL_USEC, poll_resumed);
}

static void on_resume_migration(Qemu *q, int status, json_object *result, const char *text)
{
        JsonReader reader = {.where = "query-migrate"};
        const char *migration = status == 0 ? json_string(&reader, result, "status", false) : NULL;
        char run_state[sizeof q->doing];

        (void) snprintf(run_state, sizeof run_state, "%s", q->doing);
        if (!migration)
                migration = "none";
        if (streq(run_state, "running") && (streq(migration, "none") || streq(migration, "failed") ||
                                            streq(migration, "cancelled") || streq(migration, "completed"))) {
                qemu_set_course(q, QEMU_COURSE_NONE);
                restore_settings(q);
        } else {
                undo_migration(q, run_state, migration);
        }
}

static void on_resume_status(Qemu *q, int status, json_object *result, const char *text)
{
        JsonReader reader = {.where = "query-status"};
        const char *run_state = status == 0 ? json_string(&reader, result, "status", true) : NULL;

        qemu_doing(q, run_state ? run_state : "its status cannot be read");
        if (!run_state)
                qemu_poll(q, POLL_USEC, poll_resumed);
        else
                qemu_call(q, "query-migrate", NULL, -1, on_resume_migration);
}

static void query_resumed(Qemu *q)
{
        qemu_call(q, "query-status", NULL, -1, on_resume_status);
}

static void poll_resumed(Qemu *q)
{
        qemu_connect(q, false, query_resumed);
}

static void on_yanked(Qemu *q, int status, json_object *result, const char *text)
{
        qemu_connect(q, true, query_resumed);
}

/* {"instances": [{"type": "migration"}]} */
static json_object *yank_arguments(void)
{
        json_object *arguments = json_new_object(), *list = json_new_array();

        json_append(list, qemu_argument("type", "migration"));
        json_add(arguments, "instances", list);
        return arguments;
}

void qemu_resume(Qemu *q)
{
        vmm_cut_memory(&q->vmm);
        qemu_set_course(q, QEMU_COURSE_BACK);
        if (qemu_has_oob(q))
                qemu_call_oob(q, "yank", yank_arguments(), on_yanked);
        else
                qemu_connect(q, true, query_resumed);
}
