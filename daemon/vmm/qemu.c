/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qemu.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>

#include "common/clock.h"
#include "common/log.h"

#define GREETING_USEC (2 * USEC_PER_SEC)
#define RETRY_USEC    (10 * USEC_PER_MSEC)
/* Less than any deadline of a phase: an answer that is lost must leave time to look what came of the command. */
#define CALL_USEC (2 * USEC_PER_SEC)
#define OOB_USEC  (1 * USEC_PER_SEC)
/* QEMU has this long to quit when it is asked politely. */
#define QUIT_USEC (2 * USEC_PER_SEC)
/* No VM is away for longer than any deadline of ours. */
#define DOWNTIME_MS_MAX (24 * 3600 * 1000)
#define SEE_USEC        (1 * USEC_PER_SEC)
/* Between the end of a dying process's monitor and its own. */
#define DYING_USEC (200 * USEC_PER_MSEC)

#define SWITCHOVER_ACK "switchover-ack"

static void try_connect(Qemu *q);

/* ---- the act in hand ----------------------------------------------------------------------------------------- */

void qemu_doing(Qemu *q, const char *what)
{
        (void) snprintf(q->doing, sizeof q->doing, "%s", what);
}

bool qemu_migration_is(const Qemu *q, const char *status)
{
        return streq(q->migration, status);
}

static void forget_waiting(Qemu *q)
{
        q->serial++;
        q->on_migration = NULL;
        q->on_devices = NULL;
        q->connected = NULL;
        q->until_usec = 0;
        loop_timer_set(q->deadline, 0);
        loop_timer_set(q->poll, 0);
        loop_timer_set(q->connect_timer, 0);
        loop_timer_set(q->lingering, 0);
}

static void forget_act(Qemu *q)
{
        /* A QEMU that was asked for, and has not come, is not told to begin: nobody would know it. */
        if (q->act == VMM_ACT_START && q->pidfd < 0)
                helper_client_forget(q->vmm.helper, q);
        q->act = VMM_ACT_NONE;
        forget_waiting(q);
}

static void tell(Qemu *q)
{
        forget_act(q);
        q->vmm.listener->answered(q->vmm.userdata, q->step, q->status, q->text);
}

static void on_lingering(void *userdata)
{
        tell(userdata);
}

/* A process that dies closes its monitor a moment before it is gone. The difference decides what may be done next, so
 * what comes of an act whose monitor is lost is only said when the process is still there after that moment. */
static bool may_be_dying(const Qemu *q)
{
        return q->pidfd >= 0 && q->act != VMM_ACT_END &&
               (q->status == -ECONNRESET || q->status == -EPIPE || q->status == -ENOTCONN);
}

void qemu_done(Qemu *q, int status, const char *format, ...)
{
        va_list ap;

        if (q->act == VMM_ACT_NONE)
                return;
        q->status = status;
        va_start(ap, format);
        (void) vsnprintf(q->text, sizeof q->text, format, ap);
        va_end(ap);
        if (may_be_dying(q)) {
                forget_waiting(q);
                loop_timer_set(q->lingering, DYING_USEC);
        } else {
                tell(q);
        }
}

static void on_deadline(void *userdata)
{
        Qemu *q = userdata;

        qemu_done(q, -ETIMEDOUT, "QEMU did not get through with \"%s\" in time: %s",
                  vmm_act_to_string(q->act), q->doing);
}

static void on_poll(void *userdata)
{
        Qemu *q = userdata;

        q->polled(q);
}

void qemu_poll(Qemu *q, uint64_t usec, QemuStep step)
{
        q->polled = step;
        loop_timer_set(q->poll, usec);
}

/* ---- commands ------------------------------------------------------------------------------------------------ */

typedef struct Call {
        Qemu *q;
        uint32_t serial;
        QemuAnswer answer;
} Call;

static void on_answer(void *userdata, int status, json_object *result, const char *text)
{
        Call call = *(Call *) userdata;

        free(userdata);
        if (call.serial == call.q->serial)
                call.answer(call.q, status, result, text);
}

static Call *new_call(Qemu *q, QemuAnswer answer)
{
        Call *call = malloc(sizeof *call);

        if (!call)
                out_of_memory();
        *call = (Call){q, q->serial, answer};
        return call;
}

void qemu_call(Qemu *q, const char *command, json_object *arguments, int fd, QemuAnswer answer)
{
        if (!q->qmp || !qmp_is_ready(q->qmp)) {
                json_object_put(arguments);
                answer(q, -ENOTCONN, NULL, "QEMU's monitor is not connected");
                return;
        }
        qmp_execute(q->qmp, command, arguments, fd, CALL_USEC, on_answer, new_call(q, answer));
}

bool qemu_has_oob(const Qemu *q)
{
        return q->qmp && qmp_is_ready(q->qmp) && qmp_has_oob(q->qmp);
}

void qemu_call_oob(Qemu *q, const char *command, json_object *arguments, QemuAnswer answer)
{
        qmp_execute_oob(q->qmp, command, arguments, OOB_USEC, on_answer, new_call(q, answer));
}

json_object *qemu_argument(const char *key, const char *value)
{
        json_object *object = json_new_object();

        json_add_string(object, key, value);
        return object;
}

static void send_capabilities(Qemu *q)
{
        /* The last one where there are devices of its own that pre-copy: it halts when the other QEMU has them in RESUMING and
         * has loaded what they send first, which else would be done in the blackout. */
        static const char *const names[] = {"events", "return-path", "pause-before-switchover",
                                            SWITCHOVER_ACK};
        json_object *arguments = json_new_object(), *list = json_new_array();
        bool on = q->capabilities_on;

        for (size_t i = 0; i < ARRAY_SIZE(names) - (q->has_ack ? 0 : 1); i++) {
                json_object *one = json_new_object();

                json_add_string(one, "capability", names[i]);
                json_add_bool(one, "state", on);
                json_append(list, one);
        }
        json_add(arguments, "capabilities", list);
        qemu_call(q, "migrate-set-capabilities", arguments, -1, q->capabilities_set);
}

static void on_its_capabilities(Qemu *q, int status, json_object *result, const char *text)
{
        bool is_list = status == 0 && json_object_is_type(result, json_type_array);

        for (size_t i = 0; is_list && i < json_object_array_length(result); i++) {
                JsonReader reader = {.where = "query-migrate-capabilities"};
                const char *name =
                        json_string(&reader, json_object_array_get_idx(result, i), "capability", true);

                q->has_ack |= name && streq(name, SWITCHOVER_ACK);
        }
        send_capabilities(q);
}

/* One that QEMU does not know would have it refuse the others, too. */
void qemu_set_capabilities(Qemu *q, bool on, QemuAnswer answer)
{
        q->capabilities_on = on;
        q->capabilities_set = answer;
        q->has_ack = false;
        qemu_make_devices(q);
        if (q->n_devices > 0)
                qemu_call(q, "query-migrate-capabilities", NULL, -1, on_its_capabilities);
        else
                send_capabilities(q);
}

void qemu_set_speed(Qemu *q, int64_t bandwidth, int64_t downtime_ms, QemuAnswer answer)
{
        json_object *arguments = json_new_object();

        json_add_number(arguments, "max-bandwidth", bandwidth);
        if (downtime_ms > 0)
                json_add_number(arguments, "downtime-limit", downtime_ms);
        qemu_call(q, "migrate-set-parameters", arguments, -1, answer);
}

/* ---- the monitor --------------------------------------------------------------------------------------------- */

/* Calls that were open on a connection that is freed are never answered: whoever frees it begins anew. */
static void drop_monitor(Qemu *q)
{
        q->serial++;
        q->qmp = qmp_free(q->qmp);
}

/* The monitor is there, whoever else waited for it. */
static void tell_found(Qemu *q)
{
        VmmFound found = q->found;

        q->found = NULL;
        if (!found)
                return;
        q->vmm.asked = false;
        found(q->found_userdata, 0, "");
}

static void on_ready(void *userdata)
{
        Qemu *q = userdata;
        QemuStep connected = q->connected;

        q->connected = NULL;
        tell_found(q);
        qemu_ask_finds(q);
        if (connected)
                connected(q);
}

static void on_event(void *userdata, const char *name, json_object *data)
{
        Qemu *q = userdata;
        JsonReader reader = {.where = "QEMU event"};
        const char *status;

        if (streq(name, "STOP")) {
                qemu_stands(q);
        } else if (streq(name, "RESUME")) {
                if (q->course != QEMU_COURSE_RUNNING && q->act != VMM_ACT_RESUME)
                        q->vmm.listener->resumed(q->vmm.userdata);
        } else if (streq(name, "VFIO_MIGRATION")) {
                qemu_on_device_event(q, data);
        } else if (streq(name, "MIGRATION")) {
                status = json_string(&reader, data, "status", true);
                (void) snprintf(q->migration, sizeof q->migration, "%s", status ? status : "");
                if (qemu_migration_is(q, "completed"))
                        q->completed_usec = clock_monotonic_usec();
                if (q->on_migration)
                        q->on_migration(q);
        }
}

/* Whoever waits for the monitor is told that there is none. From the loop: they may free this VM for it. */
static void give_up_monitor(Qemu *q, int status, const char *text)
{
        q->connected = NULL;
        loop_timer_set(q->connect_timer, 0);
        qemu_fail_finds(q, status, text);
        if (!q->found && !q->seen)
                return;
        q->lost_status = status;
        (void) snprintf(q->lost_text, sizeof q->lost_text, "%s", text);
        loop_timer_soon(q->lost);
}

static void on_lost(void *userdata)
{
        Qemu *q = userdata;
        VmmFound found = q->found;
        VmmSeen seen = q->seen;
        VmmSight sight = {.lives = q->pidfd >= 0};
        void *asker = q->found_userdata;
        char text[sizeof q->lost_text];

        q->found = NULL;
        q->seen = NULL;
        q->vmm.asked = false;
        memcpy(text, q->lost_text, sizeof text);
        if (seen)
                seen(asker, &sight);
        else if (found)
                found(asker, q->lost_status, text);
}

/* Nobody is there, or who is there does not talk as a QEMU does. Tried again only as long as whoever waits has time; an
 * act's own deadline ends it, and says more. */
static void no_monitor(Qemu *q, int status, const char *text)
{
        bool has_deadline = q->act != VMM_ACT_NONE && q->until_usec > 0;

        if (has_deadline || clock_monotonic_usec() < q->until_usec) {
                loop_timer_set(q->connect_timer, RETRY_USEC);
                return;
        }
        give_up_monitor(q, status, text);
        qemu_done(q, status, "%s: %s", q->vmm.definition->monitor, text);
}

static void on_ended(void *userdata, int status, const char *text)
{
        Qemu *q = userdata;

        drop_monitor(q);
        if (q->connected) {
                qemu_doing(q, text);
                no_monitor(q, status, text);
                return;
        }
        give_up_monitor(q, status, text);
        if (q->act != VMM_ACT_END)
                qemu_done(q, status, "%s", text);
}

/* Whoever listens there is the VM's process, also when it does not greet: it must be known to be ended, and seen when it
 * dies. */
static void watch_peer(Qemu *q)
{
        pid_t pid;
        ProcessId id;

        if (qmp_peer(q->qmp, &pid) == 0 && process_id_read(pid, &id) == 0 && qemu_watch(q, &id) < 0)
                log_warning(LOG_ABOUT(.vm = q->vmm.definition->name), "cannot watch QEMU's process %d",
                            (int) pid);
}

static void try_connect(Qemu *q)
{
        static const QmpListener listener = {on_ready, on_event, on_ended};
        int r = qmp_new(q->vmm.loop, q->vmm.definition->monitor, GREETING_USEC, &listener, q, &q->qmp);

        if (r < 0)
                no_monitor(q, r, strerror(-r));
        else if (q->pidfd < 0)
                watch_peer(q);
}

static void on_connect_timer(void *userdata)
{
        Qemu *q = userdata;

        if (!q->qmp && q->connected)
                try_connect(q);
}

void qemu_connect(Qemu *q, bool fresh, QemuStep step)
{
        q->connected = step;
        if (fresh)
                drop_monitor(q);
        if (q->qmp && qmp_is_ready(q->qmp)) {
                q->connected = NULL;
                step(q);
        } else if (!q->qmp) {
                try_connect(q);
        }
}

static void connect_only(Qemu *q)
{
}

void qemu_want_monitor(Qemu *q)
{
        if (!q->connected && !(q->qmp && qmp_is_ready(q->qmp)))
                qemu_connect(q, false, connect_only);
}

/* ---- its process --------------------------------------------------------------------------------------------- */

static void unwatch(Qemu *q)
{
        q->pid_io = loop_io_free(q->pid_io);
        if (q->pidfd >= 0)
                (void) close(q->pidfd);
        q->pidfd = -1;
}

static void on_process_gone(void *userdata)
{
        Qemu *q = userdata;

        unwatch(q);
        drop_monitor(q);
        vmm_cut_memory(&q->vmm);
        give_up_monitor(q, -ESRCH, "its process has ended");
        if (q->act == VMM_ACT_END)
                qemu_done(q, 0, "%s", "");
        else if (q->act != VMM_ACT_UNDO) /* that is answered by whoever holds it */
                forget_act(q);
        q->vmm.listener->gone(q->vmm.userdata);
}

int qemu_watch(Qemu *q, const ProcessId *id)
{
        int r;

        unwatch(q);
        q->pidfd = process_id_open(id);
        if (q->pidfd < 0)
                return q->pidfd;
        r = loop_io_new(q->vmm.loop, q->pidfd, on_process_gone, NULL, q, &q->pid_io);
        if (r < 0) {
                unwatch(q);
                return r;
        }
        q->vmm.process = *id;
        return 0;
}

/* It did not quit when asked: the helper ends it. Its pidfd tells when it is gone. */
static void kill_it(Qemu *q)
{
        qemu_doing(q, "it was killed, and is still there");
        helper_client_kill(q->vmm.helper, &q->vmm.process);
}

static void on_quit(Qemu *q, int status, json_object *result, const char *text)
{
        qemu_doing(q, "it was asked to quit");
        if (status < 0)
                kill_it(q);
}

/* What it says first of its own devices it says when one of them has taken an arc already: the vCPUs stood before. It knows
 * since when. */
static void on_downtime(Qemu *q, int status, json_object *result, const char *text)
{
        JsonReader reader = {.where = "query-migrate"};
        int64_t msec = status == 0 ? json_number(&reader, result, "downtime", 0, DOWNTIME_MS_MAX, 0) : 0;
        uint64_t usec = (uint64_t) msec * USEC_PER_MSEC;

        if (usec > 0 && usec < q->completed_usec)
                q->vmm.listener->halted(q->vmm.userdata, q->completed_usec - usec);
        qemu_call(q, "quit", NULL, -1, on_quit);
}

static void end_connected(Qemu *q)
{
        if (q->stood && q->n_devices > 0 && qemu_migration_is(q, "completed"))
                qemu_call(q, "query-migrate", NULL, -1, on_downtime);
        else
                qemu_call(q, "quit", NULL, -1, on_quit);
}

static void qemu_end(Qemu *q)
{
        vmm_cut_memory(&q->vmm);
        if (q->pidfd < 0) {
                qemu_done(q, 0, "%s", ""); /* there is none */
                return;
        }
        /* A QEMU that does not answer is killed all the same. */
        qemu_poll(q, QUIT_USEC, kill_it);
        qemu_connect(q, false, end_connected);
}

/* ---- memory -------------------------------------------------------------------------------------------------- */

/* QEMU has no way in: its facts say so. */
static void take_dirty(Vmm *vmm, uint64_t address, uint64_t page_size, uint64_t pages, int fd)
{
        (void) close(fd);
}

static void give_memory(Vmm *vmm, int fd)
{
        Qemu *q = (Qemu *) vmm;

        vmm_cut_memory(vmm);
        q->memory_fd = fd;
        if (q->act == VMM_ACT_TAKE_IN)
                qemu_take_in(q);
}

static void cut_memory(Vmm *vmm)
{
        Qemu *q = (Qemu *) vmm;

        if (q->memory_fd < 0)
                return;
        (void) shutdown(q->memory_fd, SHUT_RDWR);
        (void) close(q->memory_fd);
        q->memory_fd = -1;
}

static void on_passed(Qemu *q, int status, json_object *result, const char *text)
{
        QemuStep step = q->polled;

        if (status < 0)
                qemu_done(q, status, "getfd: %s", text);
        else
                step(q);
}

void qemu_pass_memory(Qemu *q, QemuStep step)
{
        if (q->memory_fd < 0) {
                qemu_done(q, -ENOTCONN, "there is no connection for the memory");
                return;
        }
        q->polled = step;
        qemu_call(q, "getfd", qemu_argument("fdname", "migmgr"), q->memory_fd, on_passed);
}

/* ---- what the VM asks ---------------------------------------------------------------------------------------- */

static void find(Vmm *vmm, VmmFound found, void *userdata)
{
        Qemu *q = (Qemu *) vmm;

        q->found = found;
        q->found_userdata = userdata;
        if (q->qmp && qmp_is_ready(q->qmp))
                tell_found(q);
        else
                qemu_want_monitor(q);
}

static void on_seen_migration(Qemu *q, int status, json_object *result, const char *text)
{
        JsonReader reader = {.where = "query-migrate"};
        const char *migration = status == 0 ? json_string(&reader, result, "status", false) : NULL;
        VmmSeen seen = q->seen;
        VmmSight sight = {.lives = true,
                          .complete = streq(q->doing, "paused") && migration && streq(migration, "completed"),
                          .runs = streq(q->doing, "running")};

        q->seen = NULL;
        q->vmm.asked = false;
        if (seen)
                seen(q->found_userdata, &sight);
}

static void on_seen_status(Qemu *q, int status, json_object *result, const char *text)
{
        JsonReader reader = {.where = "query-status"};
        const char *run_state = status == 0 ? json_string(&reader, result, "status", false) : NULL;

        qemu_doing(q, run_state ? run_state : "");
        qemu_call(q, "query-migrate", NULL, -1, on_seen_migration);
}

static void see_connected(Qemu *q)
{
        qemu_call(q, "query-status", NULL, -1, on_seen_status);
}

static void see(Vmm *vmm, const ProcessId *was, VmmSeen seen, void *userdata)
{
        Qemu *q = (Qemu *) vmm;

        /* Whoever answers at the monitor, it is not the VM of that record. It may be watched already: its devices were asked for. */
        if (was->pid > 0 &&
            (q->pidfd < 0 ? qemu_watch(q, was) < 0 : !process_id_equal(&q->vmm.process, was))) {
                vmm->asked = false;
                seen(userdata, &(VmmSight){});
                return;
        }
        q->seen = seen;
        q->found_userdata = userdata;
        q->until_usec =
                clock_monotonic_usec() + SEE_USEC; /* it may have been started a moment before we died */
        qemu_connect(q, true, see_connected);
}

static const QemuStep acts[VMM_ACT_MAX] = {
        [VMM_ACT_LOOK] = qemu_look,     [VMM_ACT_PREPARE] = qemu_prepare, [VMM_ACT_MIGRATE] = qemu_migrate,
        [VMM_ACT_HALT] = qemu_halt,     [VMM_ACT_SEAL] = qemu_seal,       [VMM_ACT_RESUME] = qemu_resume,
        [VMM_ACT_END] = qemu_end,       [VMM_ACT_START] = qemu_start,     [VMM_ACT_TAKE_IN] = qemu_take_in,
        [VMM_ACT_VERIFY] = qemu_verify, [VMM_ACT_HOLD] = qemu_hold_all,   [VMM_ACT_ARRIVE] = qemu_arrive,
        [VMM_ACT_GATE] = qemu_gate,     [VMM_ACT_UNDO] = qemu_undo,       [VMM_ACT_RUN] = qemu_run,
};

/* What is done between VMM_ACT_HOLD and VMM_ACT_RUN. */
static bool keeps_hold(VmmAct what)
{
        return what == VMM_ACT_ARRIVE || what == VMM_ACT_GATE || what == VMM_ACT_UNDO;
}

static void act(Vmm *vmm, VmmAct what, uint32_t step, uint64_t deadline_usec)
{
        Qemu *q = (Qemu *) vmm;

        forget_act(q);
        if (!keeps_hold(what))
                qemu_let_go(q);
        q->act = what;
        q->step = step;
        q->until_usec = deadline_usec > 0 ? clock_monotonic_usec() + deadline_usec : USEC_INFINITY;
        loop_timer_set(q->deadline, deadline_usec);
        qemu_doing(q, "its monitor is not there");
        acts[what](q);
}

/* ---- life ---------------------------------------------------------------------------------------------------- */

static Vmm *qemu_free(Vmm *vmm)
{
        Qemu *q = (Qemu *) vmm;

        if (q->vmm.helper)
                helper_client_forget(q->vmm.helper, q);
        qemu_free_finds(q);
        drop_monitor(q);
        unwatch(q);
        qemu_let_go(q);
        if (q->memory_fd >= 0)
                (void) close(q->memory_fd);
        if (q->log_fd >= 0)
                (void) close(q->log_fd);
        loop_timer_free(q->deadline);
        loop_timer_free(q->poll);
        loop_timer_free(q->lingering);
        loop_timer_free(q->connect_timer);
        loop_timer_free(q->lost);
        json_object_put(q->saved_capabilities);
        json_object_put(q->saved_parameters);
        free(q->devices);
        free(q);
        return NULL;
}

static DeviceIsolation qemu_isolation(const Vmm *vmm, const DeviceDefinition *device)
{
        const Qemu *q = (const Qemu *) vmm;

        for (uint32_t i = 0; i < q->n_devices; i++)
                if (device->vmm_device[0] && streq(q->devices[i].id, device->vmm_device))
                        return q->devices[i].isolation;
        return DEVICE_ISOLATION_UNKNOWN;
}

int vmm_qemu_new(Loop *loop, Vmm **ret)
{
        static const VmmOps ops = {find,
                                   see,
                                   act,
                                   take_dirty,
                                   give_memory,
                                   cut_memory,
                                   qemu_free,
                                   qemu_find_device,
                                   qemu_forget_device,
                                   qemu_isolation};
        Qemu *q = calloc(1, sizeof *q);
        int r;

        if (!q)
                return -ENOMEM;
        q->vmm.ops = &ops;
        q->vmm.has_memory = true;
        q->pidfd = q->memory_fd = q->log_fd = q->hold_fd = -1;
        r = loop_timer_new(loop, on_deadline, q, &q->deadline);
        if (r >= 0)
                r = loop_timer_new(loop, on_poll, q, &q->poll);
        if (r >= 0)
                r = loop_timer_new(loop, on_lingering, q, &q->lingering);
        if (r >= 0)
                r = loop_timer_new(loop, on_connect_timer, q, &q->connect_timer);
        if (r >= 0)
                r = loop_timer_new(loop, on_lost, q, &q->lost);
        if (r < 0) {
                (void) qemu_free(&q->vmm);
                return r;
        }
        *ret = &q->vmm;
        return 0;
}
