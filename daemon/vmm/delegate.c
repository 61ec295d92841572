/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The adapter for a VMM that implements org.migmgr1.Delegate: an act is a method, and what has come of it is read back. */

#include "delegate.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>

#include "common/clock.h"

/* Between the end of a dying process's connection to the bus and its own. */
#define DYING_USEC (200 * USEC_PER_MSEC)

/* What each act is at a delegate. */
typedef struct ActDesc {
        const char *method;
        DelegateState state; /* in which it must be then, for this job */
        bool source;         /* of Prepare */
        bool state_decides;  /* whatever came of the call */
} ActDesc;

static const ActDesc descs[VMM_ACT_MAX] = {
        [VMM_ACT_PREPARE] = {"Prepare", DELEGATE_STATE_RUNNING, .source = true},
        [VMM_ACT_MIGRATE] = {"Save", DELEGATE_STATE_RUNNING},
        [VMM_ACT_HALT] = {"Pause", DELEGATE_STATE_PAUSED},
        [VMM_ACT_SEAL] = {"Seal", DELEGATE_STATE_SEALED},
        [VMM_ACT_RESUME] = {"Resume", DELEGATE_STATE_RUNNING, .state_decides = true},
        [VMM_ACT_END] = {"Discard", DELEGATE_STATE_NONE, .state_decides = true},
        [VMM_ACT_START] = {"Prepare", DELEGATE_STATE_INCOMING},
        [VMM_ACT_TAKE_IN] = {"Load", DELEGATE_STATE_COMPLETE},
        [VMM_ACT_VERIFY] = {NULL, DELEGATE_STATE_COMPLETE},
        [VMM_ACT_RUN] = {"Start", DELEGATE_STATE_RUNNING, .state_decides = true},
};

/* ---- the act in hand ----------------------------------------------------------------------------------------- */

static void forget_waiting(Delegate *d)
{
        delegate_stop(&d->talk);
        loop_timer_set(d->deadline, 0);
        loop_timer_set(d->patience, 0);
        loop_timer_set(d->lingering, 0);
}

static void forget_act(Delegate *d)
{
        d->act = VMM_ACT_NONE;
        forget_waiting(d);
}

static void tell(Delegate *d)
{
        if (d->act == VMM_ACT_END && d->status == 0)
                delegate_unwatch(d); /* it has no VM any more, and may stay for the next */
        forget_act(d);
        d->vmm.listener->answered(d->vmm.userdata, d->step, d->status, d->text);
}

static void on_lingering(void *userdata)
{
        tell(userdata);
}

/* As with QEMU: a process that dies leaves the bus a moment before it is gone, and the difference decides what may be
 * done next. */
static void done(Delegate *d, int status, const char *format, ...) _printf_(3, 4);

static void done(Delegate *d, int status, const char *format, ...)
{
        char text[sizeof d->text]; /* what is formatted may be in d->text */
        va_list ap;

        if (d->act == VMM_ACT_NONE)
                return;
        d->status = status;
        va_start(ap, format);
        (void) vsnprintf(text, sizeof text, format, ap);
        va_end(ap);
        memcpy(d->text, text, sizeof text);
        if (status == -ECONNRESET && d->pidfd >= 0) {
                forget_waiting(d);
                loop_timer_set(d->lingering, DYING_USEC);
        } else {
                tell(d);
        }
}

void delegate_gone(Delegate *d)
{
        vmm_cut_memory(&d->vmm);
        delegate_drop_dirty(d);
        if (d->act == VMM_ACT_END)
                done(d, 0, "%s", "");
        else
                forget_act(d);
        d->vmm.listener->gone(d->vmm.userdata);
}

static void on_deadline(void *userdata)
{
        Delegate *d = userdata;

        /* Whether the vCPUs stand is not known; the time in which they may have stood is counted. */
        if (d->act == VMM_ACT_HALT)
                d->vmm.listener->halted(d->vmm.userdata, d->asked_usec);
        done(d, -ETIMEDOUT, "%s: no answer in time; see whether the VM's delegate, process %d, hangs",
             d->act == VMM_ACT_SEAL && d->dirty ? "TakeDirtyPages" : d->talk.asked, (int) d->vmm.process.pid);
}

/* ---- what came of it ----------------------------------------------------------------------------------------- */

static void on_state(DelegateTalk *talk, int status, const char *text)
{
        Delegate *d = talk->delegate;
        const ActDesc *desc = &descs[d->act];
        bool ours = streq(talk->job, d->vmm.job);

        if (status < 0) {
                done(d, status, "%s", text);
                return;
        }
        /* A VM that runs, or is none, may never have heard of this job: it was refused, or turned back before. */
        if (talk->state == desc->state &&
            (ours || d->act == VMM_ACT_RESUME || talk->state == DELEGATE_STATE_NONE)) {
                done(d, 0, "%s", "");
                return;
        }
        done(d, d->status < 0 ? d->status : -ESTALE, "%s%sit should be %s but is %s%s; see its log", d->text,
             d->text[0] ? "; " : "", delegate_state_to_string(desc->state),
             delegate_state_to_string(talk->state), ours ? "" : ", for another job");
}

static void on_reached_again(DelegateTalk *talk, int status, const char *text)
{
        if (status < 0)
                on_state(talk, status, text);
        else
                delegate_look(talk, false, on_state);
}

static void look_what_came(Delegate *d)
{
        loop_timer_set(d->patience, 0);
        delegate_reach(&d->talk, on_reached_again);
}

static void on_patience(void *userdata)
{
        Delegate *d = userdata;

        d->status = -ETIMEDOUT;
        (void) snprintf(d->text, sizeof d->text, "%s: no answer", descs[d->act].method);
        look_what_came(d);
}

static void take_stopped(Delegate *d, sd_bus_message *reply)
{
        uint64_t usec;

        if (sd_bus_message_read(reply, "t", &usec) >= 0)
                d->vmm.listener->halted(d->vmm.userdata,
                                        delegate_stopped(usec, d->asked_usec, clock_monotonic_usec()));
}

static void on_answer(DelegateTalk *talk, int status, sd_bus_message *reply, const char *text)
{
        Delegate *d = talk->delegate;
        const ActDesc *desc = &descs[d->act];

        d->status = status;
        (void) snprintf(d->text, sizeof d->text, "%s", text);
        if (status >= 0 && !sd_bus_message_has_signature(reply, d->act == VMM_ACT_HALT ? "t" : "")) {
                d->status = -EPROTO;
                (void) snprintf(d->text, sizeof d->text,
                                "%s: the answer has not the arguments that it should have", desc->method);
        }
        if (d->status >= 0 && d->act == VMM_ACT_HALT)
                take_stopped(d, reply);
        if (d->status >= 0 || desc->state_decides)
                look_what_came(d);
        else
                done(d, d->status, "%s", d->text);
}

/* ---- acts ---------------------------------------------------------------------------------------------------- */

static int append_option(sd_bus_message *message, const char *key, uint64_t value)
{
        return value > 0 ? sd_bus_message_append(message, "{sv}", key, "t", value) : 0;
}

/* Prepare's arguments behind the job. */
static int append_prepare(const Delegate *d, sd_bus_message *message)
{
        int r = sd_bus_message_append(message, "s", descs[d->act].source ? "source" : "destination");

        if (r >= 0)
                r = sd_bus_message_open_container(message, 'a', "{sv}");
        if (r >= 0)
                r = append_option(message, "bandwidth", d->vmm.limits.bandwidth);
        if (r >= 0)
                r = append_option(message, "max-blackout-usec", d->vmm.limits.blackout_usec);
        return r < 0 ? r : sd_bus_message_close_container(message);
}

static void call_method(Delegate *d)
{
        const ActDesc *desc = &descs[d->act];
        sd_bus_message *message = NULL;
        int r = delegate_message(d, desc->method, &message);

        if (r >= 0)
                r = sd_bus_message_append(message, "s", d->vmm.job);
        if (r >= 0 && (d->act == VMM_ACT_PREPARE || d->act == VMM_ACT_START))
                r = append_prepare(d, message);
        if (r >= 0 && (d->act == VMM_ACT_MIGRATE || d->act == VMM_ACT_TAKE_IN))
                r = sd_bus_message_append(message, "h", d->memory_fd);
        if (r < 0) {
                sd_bus_message_unref(message);
                done(d, r, "%s: it can't be called: %s", desc->method, strerror(-r));
                return;
        }
        if (desc->state_decides)
                loop_timer_set(d->patience, d->patience_usec);
        delegate_send(&d->talk, desc->method, message, on_answer);
}

static void seal(Delegate *d)
{
        if (d->dirty_status < 0)
                done(d, d->dirty_status, "%s", d->dirty_text);
        else if (!d->dirty) /* else when all are taken */
                call_method(d);
}

void delegate_dirty_over(Delegate *d)
{
        if (d->act == VMM_ACT_SEAL && !d->talk.slot)
                seal(d);
}

static void on_facts(DelegateTalk *talk, int status, const char *text)
{
        Delegate *d = talk->delegate;

        if (status >= 0) {
                d->vmm.facts = talk->facts;
                (void) snprintf(d->vmm.facts.run_state, sizeof d->vmm.facts.run_state, "%s",
                                delegate_state_to_string(talk->state));
        }
        done(d, status, "%s", text);
}

static void on_reached(DelegateTalk *talk, int status, const char *text)
{
        Delegate *d = talk->delegate;

        if (status == -ENOENT && d->act == VMM_ACT_END) {
                done(d, 0, "%s", ""); /* there is none */
                return;
        }
        if (status < 0) {
                done(d, status, "%s", text);
                return;
        }
        switch (d->act) {
        case VMM_ACT_LOOK: delegate_look(talk, true, on_facts); return;
        case VMM_ACT_VERIFY: look_what_came(d); return;
        case VMM_ACT_SEAL: seal(d); return;
        /* It has no devices of its own. */
        case VMM_ACT_HOLD:
        case VMM_ACT_ARRIVE:
        case VMM_ACT_GATE: done(d, 0, "%s", ""); return;
        case VMM_ACT_UNDO: done(d, -EOPNOTSUPP, "its vCPUs are not held"); return;
        case VMM_ACT_MIGRATE:
                if (d->memory_fd < 0) {
                        done(d, -ENOTCONN, "there is no connection for the memory");
                        return;
                }
                break;
        case VMM_ACT_TAKE_IN:
                if (d->memory_fd < 0) {
                        d->talk.asked = "Load waits for its connection"; /* when it comes */
                        return;
                }
                break;
        case VMM_ACT_PREPARE:
        case VMM_ACT_HALT:
        case VMM_ACT_RESUME:
        case VMM_ACT_END:
        case VMM_ACT_START:
        case VMM_ACT_RUN:
        case VMM_ACT_NONE:
        case VMM_ACT_MAX:
        case VMM_ACT_INVALID: break;
        }
        call_method(d);
}

static void act(Vmm *vmm, VmmAct what, uint32_t step, uint64_t deadline_usec)
{
        Delegate *d = (Delegate *) vmm;

        forget_act(d);
        d->act = what;
        d->step = step;
        d->status = 0;
        d->text[0] = 0;
        d->asked_usec = clock_monotonic_usec();
        d->patience_usec = deadline_usec / 2;
        loop_timer_set(d->deadline, deadline_usec);
        if (what == VMM_ACT_PREPARE || what == VMM_ACT_START || what == VMM_ACT_RESUME || what == VMM_ACT_END)
                delegate_drop_dirty(d);
        if (what == VMM_ACT_RESUME || what == VMM_ACT_END)
                vmm_cut_memory(vmm);
        if (what == VMM_ACT_LOOK)
                vmm->facts = (ManifestVmm){.type = VMM_TYPE_DELEGATE};
        delegate_reach(&d->talk, on_reached);
}

/* ---- memory -------------------------------------------------------------------------------------------------- */

static void give_memory(Vmm *vmm, int fd)
{
        Delegate *d = (Delegate *) vmm;

        vmm_cut_memory(vmm);
        d->memory_fd = fd;
        if (d->act == VMM_ACT_TAKE_IN)
                delegate_reach(&d->talk, on_reached);
}

static void cut_memory(Vmm *vmm)
{
        Delegate *d = (Delegate *) vmm;

        if (d->memory_fd < 0)
                return;
        (void) shutdown(d->memory_fd, SHUT_RDWR);
        (void) close(d->memory_fd);
        d->memory_fd = -1;
}

/* ---- life ---------------------------------------------------------------------------------------------------- */

static Vmm *delegate_free(Vmm *vmm)
{
        Delegate *d = (Delegate *) vmm;

        delegate_stop(&d->talk);
        delegate_stop(&d->asking);
        delegate_drop_dirty(d);
        delegate_drop_findings(d);
        sd_bus_slot_unref(d->owner_match);
        sd_bus_slot_unref(d->signal_match);
        delegate_unwatch(d);
        free(d->isolated);
        if (d->memory_fd >= 0)
                (void) close(d->memory_fd);
        loop_timer_free(d->deadline);
        loop_timer_free(d->patience);
        loop_timer_free(d->lingering);
        loop_timer_free(d->asking_timer);
        free(d);
        return NULL;
}

int vmm_delegate_new(Loop *loop, Vmm **ret)
{
        static const VmmOps ops = {delegate_find,       delegate_see,         act,
                                   delegate_take_dirty, give_memory,          cut_memory,
                                   delegate_free,       delegate_find_device, delegate_forget_device,
                                   delegate_isolation};
        Delegate *d = calloc(1, sizeof *d);
        int r;

        if (!d)
                return -ENOMEM;
        d->vmm.ops = &ops;
        d->vmm.has_memory = d->vmm.may_come_later = true;
        d->pidfd = d->memory_fd = -1;
        d->talk.delegate = d->asking.delegate = d;
        r = loop_timer_new(loop, on_deadline, d, &d->deadline);
        if (r >= 0)
                r = loop_timer_new(loop, on_patience, d, &d->patience);
        if (r >= 0)
                r = loop_timer_new(loop, on_lingering, d, &d->lingering);
        if (r >= 0)
                r = loop_timer_new(loop, delegate_on_asking_timer, d, &d->asking_timer);
        if (r < 0) {
                (void) delegate_free(&d->vmm);
                return r;
        }
        *ret = &d->vmm;
        return 0;
}
