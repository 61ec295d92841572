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

/* ---- prepare ------------------------------------------------------------------------------------------------- */

static void on_parameters_set(Qemu *q, int status, json_object *result, const char *text)
{
        if (status < 0)
                qemu_done(q, status, "migrate-set-parameters: %s", text);
        else
                qemu_done(q, 0, "%s", "");
}

static void on_capabilities_set(Qemu *q, int status, json_object *result, const char *text)
{
        const VmmLimits *limits = &q->vmm.limits;
        json_object *arguments;

        if (status < 0) {
                qemu_done(q, status, "migrate-set-capabilities: %s", text);
                return;
        }
        arguments = json_new_object();
        json_add_number(arguments, "max-bandwidth",
                        limits->bandwidth > 0 ? (int64_t) MIN(limits->bandwidth, (uint64_t) BANDWIDTH)
                                              : BANDWIDTH);
        if (limits->blackout_usec > 0)
                json_add_number(
                        arguments, "downtime-limit",
                        (int64_t) MIN(MAX(limits->blackout_usec / USEC_PER_MSEC, 1), DOWNTIME_MS_MAX));
        qemu_call(q, "migrate-set-parameters", arguments, -1, on_parameters_set);
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
        qemu_connect(q, false, prepare_connected);
}

/* ---- migrate ------------------------------------------------------------------------------------------------- */

static bool is_over(const Qemu *q)
{
        return qemu_migration_is(q, "failed") || qemu_migration_is(q, "failing") ||
               qemu_migration_is(q, "cancelled") || qemu_migration_is(q, "cancelling");
}

static void poll_progress(Qemu *q);

static void on_progress(Qemu *q, int status, json_object *result, const char *text)
{
        JsonReader reader = {.where = "query-migrate"};
        json_object *ram = status == 0 ? json_member(&reader, result, "ram", json_type_object, false) : NULL;

        if (ram)
                q->vmm.listener->progress(
                        q->vmm.userdata, (uint64_t) json_number(&reader, ram, "transferred", 0, INT64_MAX, 0),
                        (uint64_t) json_number(&reader, ram, "total", 0, INT64_MAX, 0));
        qemu_poll(q, PROGRESS_USEC, poll_progress);
}

static void poll_progress(Qemu *q)
{
        qemu_call(q, "query-migrate", NULL, -1, on_progress);
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
}

static void on_migrate(Qemu *q, int status, json_object *result, const char *text)
{
        if (status < 0) {
                qemu_done(q, status, "migrate: %s", text);
                return;
        }
        qemu_doing(q, "memory goes out; the guest may dirty it faster than the link takes it");
        qemu_poll(q, PROGRESS_USEC, poll_progress);
}

static void migrate_passed(Qemu *q)
{
        q->migration[0] = 0;
        q->on_migration = on_migrate_event;
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

void qemu_halt(Qemu *q)
{
        qemu_call(q, "query-status", NULL, -1, on_halt_status);
}

static void poll_postmigrate(Qemu *q);

/* After `completed` the status may still be finish-migrate for some milliseconds; until it is postmigrate QEMU could
 * go on by itself. */
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

static void on_seal_event(Qemu *q)
{
        if (qemu_migration_is(q, "completed")) {
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
        qemu_doing(q, "the rest of the memory goes out");
        qemu_call(q, "migrate-continue", qemu_argument("state", "pre-switchover"), -1, on_continue);
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

static void undo_migration(Qemu *q, const char *run_state, const char *migration)
{
        if (streq(migration, "setup") || streq(migration, "active") || streq(migration, "pre-switchover") ||
            streq(migration, "device") || streq(migration, "wait-unplug"))
                qemu_call(q, "migrate_cancel", NULL, -1, on_ignored);
        else if (streq(run_state, "postmigrate") || streq(run_state, "paused"))
                qemu_call(q, "cont", NULL, -1, on_ignored);
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
                                            streq(migration, "cancelled") || streq(migration, "completed")))
                restore_settings(q);
        else
                undo_migration(q, run_state, migration);
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
        if (qemu_has_oob(q))
                qemu_call_oob(q, "yank", yank_arguments(), on_yanked);
        else
                qemu_connect(q, true, query_resumed);
}
