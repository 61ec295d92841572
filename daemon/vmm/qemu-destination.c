/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The acts of the side at which a QEMU arrives. It is started paused (-S) and must not be given `cont` before its
 * migration has completed: QEMU would say yes, forget -S and start by itself at the end. */

#include <stdio.h>

#include "common/clock.h"
#include "qemu.h"

#define POLL_USEC (5 * USEC_PER_MSEC)
#define CONT_USEC (2 * USEC_PER_SEC) /* as any command; with devices of its own as long as the act allows */
#define VCPUS_MAX 500                /* of which the helper can be told at once */
/* vCPUs that are held must not keep the monitor from answering for longer. */
#define VCPUS_HELD_USEC (150 * USEC_PER_MSEC)
#define HOLD_TRIES      3

/* ---- start --------------------------------------------------------------------------------------------------- */

static void on_start_status(Qemu *q, int status, json_object *result, const char *text)
{
        JsonReader reader = {.where = "query-status"};
        const char *run_state = status == 0 ? json_string(&reader, result, "status", true) : NULL;

        if (!run_state)
                qemu_done(q, status < 0 ? status : -EPROTO, "query-status: %s", text);
        else if (!streq(run_state, "inmigrate"))
                qemu_done(q, -ESTALE, "it should wait for its migration (inmigrate) but is %s", run_state);
        else
                qemu_done(q, 0, "%s", "");
}

static void on_start_capabilities(Qemu *q, int status, json_object *result, const char *text)
{
        if (status < 0)
                qemu_done(q, status, "migrate-set-capabilities: %s", text);
        else
                qemu_call(q, "query-status", NULL, -1, on_start_status);
}

static void start_connected(Qemu *q)
{
        qemu_set_capabilities(q, true, on_start_capabilities);
}

static void on_started(void *userdata, int status, int fd, pid_t pid, const char *text)
{
        Qemu *q = userdata;
        ProcessId id;

        if (fd >= 0)
                (void) close(fd);
        if (status < 0) {
                qemu_done(q, status, "%s cannot be started: %s", q->vmm.definition->argv[0], text);
                return;
        }
        if (process_id_read(pid, &id) < 0 || qemu_watch(q, &id) < 0) {
                qemu_done(q, -ECHILD, "%s ended at once; see its log in the runtime directory",
                          q->vmm.definition->argv[0]);
                return;
        }
        qemu_open_log(q);
        qemu_doing(q, "it was started; its monitor does not answer");
        qemu_connect(q, true, start_connected);
}

void qemu_start(Qemu *q)
{
        const Definition *definition = q->vmm.definition;
        const char *strings[DEFINITION_ARGV_MAX + 2] = {definition->uuid, definition->monitor};
        size_t n = 2;

        if (!definition->argv) {
                qemu_done(q, -EINVAL, "the definition has no incoming.argv");
                return;
        }
        for (char **arg = definition->argv; *arg; arg++)
                strings[n++] = *arg;
        qemu_set_course(q, QEMU_COURSE_NONE);
        q->continued = false;
        qemu_doing(q, "it was not started by the helper");
        helper_client_ask(q->vmm.helper, HELPER_START_VMM, strings, n, on_started, q);
}

/* ---- take in ------------------------------------------------------------------------------------------------- */

static void poll_paused(Qemu *q);

static void on_stopped_again(Qemu *q, int status, json_object *result, const char *text)
{
        qemu_done(q, -ESTALE, "its vCPUs ran before they were allowed to: somebody sent it \"cont\"%s%s",
                  status < 0 ? ", and it cannot be stopped: " : "", status < 0 ? text : "");
}

static void on_paused_status(Qemu *q, int status, json_object *result, const char *text)
{
        JsonReader reader = {.where = "query-status"};
        const char *run_state = status == 0 ? json_string(&reader, result, "status", true) : NULL;

        if (!run_state)
                qemu_done(q, status < 0 ? status : -EPROTO, "query-status: %s", text);
        else if (streq(run_state, "paused"))
                qemu_done(q, 0, "%s", "");
        else if (streq(run_state, "inmigrate"))
                qemu_poll(q, POLL_USEC, poll_paused);
        else if (streq(run_state, "running"))
                /* The source goes on when it hears of this: by then the copy must stand. */
                qemu_call(q, "stop", NULL, -1, on_stopped_again);
        else
                qemu_done(q, -ESTALE, "it should be paused but is %s", run_state);
}

static void poll_paused(Qemu *q)
{
        qemu_call(q, "query-status", NULL, -1, on_paused_status);
}

static void on_incoming_event(Qemu *q)
{
        if (qemu_migration_is(q, "completed"))
                poll_paused(q);
        else if (qemu_migration_is(q, "failed"))
                qemu_done(q, -EREMOTEIO,
                          "its incoming migration failed; see its log in the runtime directory");
}

static void on_incoming(Qemu *q, int status, json_object *result, const char *text)
{
        if (status < 0)
                qemu_done(q, status, "migrate-incoming: %s", text);
}

static void incoming_passed(Qemu *q)
{
        q->migration[0] = 0;
        q->on_migration = on_incoming_event;
        qemu_call(q, "migrate-incoming", qemu_argument("uri", "fd:migmgr"), -1, on_incoming);
}

void qemu_take_in(Qemu *q)
{
        if (q->memory_fd >= 0) /* else when it comes */
                qemu_pass_memory(q, incoming_passed);
}

/* ---- verify -------------------------------------------------------------------------------------------------- */

static void on_verify_migration(Qemu *q, int status, json_object *result, const char *text)
{
        JsonReader reader = {.where = "query-migrate"};
        const char *migration = status == 0 ? json_string(&reader, result, "status", false) : NULL;

        if (status < 0)
                qemu_done(q, status, "query-migrate: %s", text);
        else if (!migration || !streq(migration, "completed"))
                qemu_done(q, -ESTALE, "its migration should be completed but is %s",
                          migration ? migration : "not known");
        else
                poll_paused(q);
}

void qemu_verify(Qemu *q)
{
        qemu_call(q, "query-migrate", NULL, -1, on_verify_migration);
}

/* ---- hold ---------------------------------------------------------------------------------------------------- */

/* Before QEMU is told to run its vCPUs are made to stand, so that it takes its devices through their last arcs while its guest
 * executes nothing. One may stand where it holds the lock that the monitor needs: then it is let go at once, and held again. */

static void ask_for_vcpus(Qemu *q);

static void hold_again(Qemu *q)
{
        qemu_let_go(q);
        if (--q->hold_tries > 0)
                qemu_poll(q, POLL_USEC, ask_for_vcpus);
        else
                qemu_done(
                        q, -EBUSY,
                        "its vCPUs can't be held, as \"supervised-last-arc\" wants: %s; \"degraded\" does without it",
                        q->doing);
}

static void on_monitor_answers(Qemu *q, int status, json_object *result, const char *text)
{
        if (status == 0 && q->hold_stands)
                qemu_done(q, 0, "%s", "");
}

static void on_hold(Qemu *q)
{
        if (!q->hold_stands) {
                hold_again(q);
                return;
        }
        qemu_doing(q, "its vCPUs are held; its monitor does not answer");
        qemu_poll(q, VCPUS_HELD_USEC, hold_again);
        qemu_call(q, "query-status", NULL, -1, on_monitor_answers);
}

static void on_vcpus(Qemu *q, int status, json_object *result, const char *text)
{
        JsonReader reader = {.where = "query-cpus-fast"};
        json_object *threads = json_new_array();
        size_t n = status == 0 && json_object_is_type(result, json_type_array)
                           ? json_object_array_length(result)
                           : 0;

        for (size_t i = 0; i < n && i < VCPUS_MAX; i++)
                json_append(threads,
                            json_object_new_int64(json_number(&reader, json_object_array_get_idx(result, i),
                                                              "thread-id", 1, INT32_MAX, 0)));
        if (n == 0 || n > VCPUS_MAX || reader.failed)
                qemu_done(q, status < 0 ? status : -EPROTO, "query-cpus-fast: %s, of at most %d vCPUs: %s",
                          n > VCPUS_MAX ? "too many" : "no vCPUs", VCPUS_MAX,
                          reader.failed ? reader.text : text);
        else
                qemu_hold_vcpus(q, threads, on_hold);
        json_object_put(threads);
}

static void ask_for_vcpus(Qemu *q)
{
        qemu_doing(q, "its vCPUs are to be held");
        qemu_call(q, "query-cpus-fast", NULL, -1, on_vcpus);
}

static void on_kvm(Qemu *q, int status, json_object *result, const char *text)
{
        JsonReader reader = {.where = "query-kvm"};

        q->has_kvm = status == 0 && json_flag(&reader, result, "enabled", false);
        ask_for_vcpus(q);
}

static void hold_connected(Qemu *q)
{
        qemu_call(q, "query-kvm", NULL, -1, on_kvm);
}

void qemu_hold_all(Qemu *q)
{
        q->hold_tries = HOLD_TRIES;
        qemu_connect(q, false, hold_connected);
}

/* ---- run ----------------------------------------------------------------------------------------------------- */

static void query_running(Qemu *q);
static void poll_running(Qemu *q);

/* Its devices are in P2P, all that can; the vCPUs start, and what the last arc makes of them is not known yet. */
static void look_arrived(Qemu *q)
{
        if (qemu_all_said(q, QEMU_SAID(DEVICE_STATE_RUNNING_P2P) | QEMU_SAID(DEVICE_STATE_RUNNING)))
                qemu_done(q, 0, "%s", "");
}

/* They were for coming here; whoever migrates the VM next finds it as it was started. */
static void on_capabilities_off(Qemu *q, int status, json_object *result, const char *text)
{
        qemu_set_course(q, QEMU_COURSE_NONE);
        qemu_done(q, 0, "%s", "");
}

static void on_running_status(Qemu *q, int status, json_object *result, const char *text)
{
        JsonReader reader = {.where = "query-status"};
        const char *run_state = status == 0 ? json_string(&reader, result, "status", true) : NULL;

        qemu_doing(q, run_state ? run_state : "its status cannot be read");
        if (!run_state || !streq(run_state, "running")) {
                qemu_poll(q, POLL_USEC, poll_running);
        } else if (q->act == VMM_ACT_ARRIVE) {
                qemu_done(q, 0, "%s", "");
        } else if (q->act == VMM_ACT_GATE) {
                qemu_read_log(q); /* what it has reset is told first */
                qemu_done(q, 0, "%s", "");
        } else {
                q->continued = false;
                qemu_set_capabilities(q, false, on_capabilities_off);
        }
}

static void query_running(Qemu *q)
{
        qemu_call(q, "query-status", NULL, -1, on_running_status);
}

static void poll_running(Qemu *q)
{
        qemu_connect(q, false, query_running);
}

/* Of whichever of the two acts is in hand now. */
static void on_cont(void *userdata, int status, json_object *result, const char *text)
{
        Qemu *q = userdata;

        q->continuing = false;
        q->continued = status == 0;
        if (q->act != VMM_ACT_ARRIVE && q->act != VMM_ACT_GATE && q->act != VMM_ACT_RUN)
                return;
        if (status == -EREMOTEIO)
                qemu_done(q, status, "cont: %s", text);
        else if (status == -ECANCELED)
                return; /* whoever has given the connection up goes on by itself */
        else if (status < 0)
                qemu_connect(q, true, query_running); /* whether it was heard is read over a new connection */
        else
                query_running(q);
}

/* QEMU takes its devices on before it answers, and may be asked once only: a second `cont` would be one too many where the
 * first has been heard and a person has paused the VM since. */
static void send_cont(Qemu *q)
{
        uint64_t now = clock_monotonic_usec(), patience = CONT_USEC;

        qemu_doing(q, "it was told to continue");
        if (q->continuing)
                return;
        if (q->n_devices > 0 && q->until_usec != USEC_INFINITY && q->until_usec > now)
                patience = MAX(patience, (q->until_usec - now) / 2);
        qemu_set_course(q, QEMU_COURSE_RUNNING);
        q->continuing = true;
        qmp_execute(q->qmp, "cont", NULL, -1, patience, on_cont, q);
}

void qemu_arrive(Qemu *q)
{
        q->on_devices = look_arrived;
        qemu_connect(q, false, send_cont);
}

static void on_undone(Qemu *q)
{
        if (q->hold_ended)
                qemu_done(q, 0, "%s", "");
        else
                qemu_done(q, -ESTALE, "its vCPUs were not held any more: its guest may run");
}

void qemu_undo(Qemu *q)
{
        if (q->hold_ended) {
                qemu_done(q, 0, "%s", "");
                return;
        }
        qemu_doing(q, "it was killed while its vCPUs are held, and these are still there");
        qemu_end_held(q, on_undone);
}

/* Once: what was said already is only looked at. */
static void begin_or_look(Qemu *q)
{
        if (q->continuing)
                qemu_doing(q, "it was told to continue");
        else if (q->continued)
                qemu_connect(q, false, query_running);
        else
                qemu_connect(q, false, send_cont);
}

void qemu_gate(Qemu *q)
{
        begin_or_look(q);
}

void qemu_run(Qemu *q)
{
        begin_or_look(q);
        q->continued = false; /* asked again, it says it again */
}
