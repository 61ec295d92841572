/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "delegate-internal.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/eventfd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/string-table.h"
#include "dirty-pages.h"

#define PROGRESS_USEC (200 * USEC_PER_MSEC)
#define TOLD_TO_FAIL  "it was told to fail"

static const char *const state_names[] = {
        [STATE_NONE] = "none",     [STATE_RUNNING] = "running",   [STATE_PAUSED] = "paused",
        [STATE_SEALED] = "sealed", [STATE_INCOMING] = "incoming", [STATE_COMPLETE] = "complete",
};

static const char *const method_names[] = {
        [METHOD_PREPARE] = "Prepare", [METHOD_SAVE] = "Save",       [METHOD_LOAD] = "Load",
        [METHOD_PAUSE] = "Pause",     [METHOD_SEAL] = "Seal",       [METHOD_RESUME] = "Resume",
        [METHOD_START] = "Start",     [METHOD_DISCARD] = "Discard",
};

DECLARE_STRING_TABLE(Method, method);
DEFINE_STRING_TABLE(Method, method, method_names);

/* ---- answers ------------------------------------------------------------------------------------------------- */

_printf_(3, 4) static int refuse(sd_bus_message *m, const char *error, const char *format, ...)
{
        char name[128], text[DELEGATE_TEXT_MAX];
        va_list ap;

        va_start(ap, format);
        (void) vsnprintf(text, sizeof text, format, ap);
        va_end(ap);
        (void) snprintf(name, sizeof name, DELEGATE_INTERFACE ".Error.%s", error);
        return sd_bus_reply_method_errorf(m, name, "%s", text);
}

static int refuse_state(Delegate *d, sd_bus_message *m)
{
        return refuse(m, "State", "%s is not possible: the VM is in state '%s', the job is '%s'%s",
                      sd_bus_message_get_member(m), state_names[d->state], d->job,
                      d->over ? ", which is over" : "");
}

static int answer(const Call *call, Method method, sd_bus_message *m)
{
        if (call->error[0])
                return refuse(m, "Failed", "%s", call->error);
        if (method == METHOD_PAUSE)
                return sd_bus_reply_method_return(m, "t", call->usec);
        return sd_bus_reply_method_return(m, NULL);
}

/* Unless a fault withholds it. */
static void answer_all(Delegate *d, Method method)
{
        Call *call = &d->calls[method];

        if (streq(d->faults.hang, method_names[method]))
                return;
        for (unsigned i = 0; i < call->n_waiting; i++) {
                (void) answer(call, method, call->waiting[i]);
                sd_bus_message_unref(call->waiting[i]);
        }
        call->n_waiting = 0;
}

/* What has been begun has ended: `error` is NULL, or says what went wrong. */
static void call_end(Delegate *d, Method method, const char *error)
{
        Call *call = &d->calls[method];

        if (!call->begun || call->ended)
                return;
        call->ended = true;
        (void) snprintf(call->error, sizeof call->error, "%s", error ? error : "");
        if (method == METHOD_PREPARE && error)
                d->over = true;
        if (error)
                log_warning(LOG_ABOUT(.job = d->job), "%s failed: %s", method_names[method], error);
        else
                log_info(LOG_ABOUT(.job = d->job), "%s is done: %s", method_names[method],
                         state_names[d->state]);
        answer_all(d, method);
}

/* ---- what threads tell --------------------------------------------------------------------------------------- */

static void finish_setup(Delegate *d)
{
        char text[SETUP_TEXT_MAX];
        int r = setup_end(TAKE_PTR(d->setup), &d->vm, text);

        if (r < 0)
                d->state = STATE_NONE;
        call_end(d, METHOD_PREPARE, r < 0 ? text : NULL);
}

static void abandon_setup(Delegate *d)
{
        char text[SETUP_TEXT_MAX];

        if (d->setup)
                (void) setup_end(TAKE_PTR(d->setup), NULL, text);
}

static void finish_move(Delegate *d)
{
        const char *error = NULL;

        switch (move_state(d->move)) {
        case MOVE_GOING: return;
        case MOVE_CONVERGED: call_end(d, METHOD_SAVE, NULL); return;
        case MOVE_FAILED: error = move_text(d->move); break;
        case MOVE_COMPLETE: break;
        }
        if (!d->source) {
                if (!error && d->state == STATE_INCOMING)
                        d->state = STATE_COMPLETE;
                call_end(d, METHOD_LOAD, error);
                return;
        }
        if (!error)
                d->state = STATE_SEALED;
        call_end(d, METHOD_SAVE, error);
        call_end(d, METHOD_SEAL, error);
}

static void finish_pause(Delegate *d)
{
        Call *call = &d->calls[METHOD_PAUSE];

        if (!call->begun || call->ended || !vm_stands(d->vm, &call->usec))
                return;
        d->state = STATE_PAUSED;
        if (d->move)
                move_hurry(d->move);
        call_end(d, METHOD_PAUSE, NULL);
}

static int on_notified(sd_event_source *s, int fd, uint32_t events, void *userdata)
{
        Delegate *d = userdata;
        eventfd_t n;

        (void) eventfd_read(fd, &n);
        if (d->setup && setup_is_done(d->setup))
                finish_setup(d);
        if (d->vm)
                finish_pause(d);
        if (d->move)
                finish_move(d);
        return 0;
}

static int on_tick(sd_event_source *s, uint64_t usec, void *userdata)
{
        Delegate *d = userdata;
        uint64_t done, total;

        if (d->move && move_state(d->move) <= MOVE_CONVERGED) {
                move_progress(d->move, &done, &total);
                (void) sd_bus_emit_signal(d->bus, d->config->object_path, DELEGATE_INTERFACE, "Progress",
                                          "stt", d->job, done, total);
        }
        (void) sd_event_source_set_time(s, clock_monotonic_usec() + PROGRESS_USEC);
        return sd_event_source_set_enabled(s, SD_EVENT_ON);
}

/* ---- the methods --------------------------------------------------------------------------------------------- */

/* Each begins what it does, and ends it if it can, or answers by itself that it is refused. */
typedef int (*Begin)(Delegate *d, sd_bus_message *m);

static void begin_call(Delegate *d, Method method, sd_bus_message *m)
{
        Call *call = &d->calls[method];

        call->begun = true;
        call->ended = false;
        call->waiting[call->n_waiting++] = sd_bus_message_ref(m);
}

static int begin_prepare_source(Delegate *d, sd_bus_message *m)
{
        if (d->state != STATE_RUNNING)
                return refuse_state(d, m);
        begin_call(d, METHOD_PREPARE, m);
        call_end(d, METHOD_PREPARE, NULL);
        return 1;
}

static int begin_prepare_destination(Delegate *d, sd_bus_message *m)
{
        int r;

        if (d->state != STATE_NONE)
                return refuse_state(d, m);
        begin_call(d, METHOD_PREPARE, m);
        r = setup_new(&d->config->vm, d->notify_fd, &d->setup);
        if (r == 0)
                d->state = STATE_INCOMING;
        else
                call_end(d, METHOD_PREPARE, strerror(-r));
        return 1;
}

static int begin_prepare(Delegate *d, sd_bus_message *m)
{
        if (d->calls[METHOD_DISCARD].ended)
                return refuse_state(d, m);
        d->over = false;
        return d->source ? begin_prepare_source(d, m) : begin_prepare_destination(d, m);
}

/* The connection, the caller's. */
static int read_connection(sd_bus_message *m)
{
        int fd, r = sd_bus_message_read(m, "h", &fd);

        if (r < 0)
                return r;
        fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        return fd < 0 ? -errno : fd;
}

static int begin_move(Delegate *d, Method method, sd_bus_message *m)
{
        int fd = read_connection(m), r = fd;

        begin_call(d, method, m);
        d->move = move_free(d->move); /* one that has failed */
        if (fd >= 0)
                r = method == METHOD_SAVE ? move_out(d->vm, fd, &d->limits, d->notify_fd, &d->move)
                                          : move_in(d->vm, fd, d->notify_fd, &d->move);
        if (r < 0)
                call_end(d, method, strerror(-r));
        return 1;
}

static int begin_save(Delegate *d, sd_bus_message *m)
{
        int r;

        if (!d->source || d->over || (d->state != STATE_RUNNING && d->state != STATE_PAUSED))
                return refuse_state(d, m);
        r = begin_move(d, METHOD_SAVE, m);
        if (d->move) {
                move_never_converge(d->move, d->faults.never_converges);
                if (d->state == STATE_PAUSED)
                        move_hurry(d->move);
        }
        return r;
}

static int begin_load(Delegate *d, sd_bus_message *m)
{
        if (d->source || d->state != STATE_INCOMING || !d->vm)
                return refuse_state(d, m);
        return begin_move(d, METHOD_LOAD, m);
}

static int begin_pause(Delegate *d, sd_bus_message *m)
{
        if (!d->source || d->over || d->state != STATE_RUNNING)
                return refuse_state(d, m);
        begin_call(d, METHOD_PAUSE, m);
        vm_stop(d->vm);
        return 1;
}

static int begin_seal(Delegate *d, sd_bus_message *m)
{
        if (!d->source || d->state != STATE_PAUSED || !d->move)
                return refuse_state(d, m);
        begin_call(d, METHOD_SEAL, m);
        move_seal(d->move);
        finish_move(d); /* it may have failed before */
        return 1;
}

/* Back to where it was: the guest runs, and nothing of this job goes on. */
static void go_back(Delegate *d)
{
        static const Method methods[] = {METHOD_SAVE, METHOD_PAUSE, METHOD_SEAL};

        for (size_t i = 0; i < ARRAY_SIZE(methods); i++)
                call_end(d, methods[i], "the VM goes on here");
        d->move = move_free(d->move);
        vm_run(d->vm);
        d->state = STATE_RUNNING;
        d->over = true;
}

static int begin_resume(Delegate *d, sd_bus_message *m)
{
        if (!d->source || !d->vm)
                return refuse_state(d, m);
        begin_call(d, METHOD_RESUME, m);
        go_back(d);
        call_end(d, METHOD_RESUME, NULL);
        return 1;
}

static int begin_start(Delegate *d, sd_bus_message *m)
{
        if (d->source || d->state != STATE_COMPLETE)
                return refuse_state(d, m);
        begin_call(d, METHOD_START, m);
        d->move = move_free(d->move);
        vm_run(d->vm);
        d->state = STATE_RUNNING;
        d->over = true;
        call_end(d, METHOD_START, NULL);
        return 1;
}

static int begin_discard(Delegate *d, sd_bus_message *m)
{
        /* A source that could still run is nobody's to throw away, nor is a destination that runs. */
        if (d->state == STATE_RUNNING || d->state == STATE_PAUSED)
                return refuse_state(d, m);
        begin_call(d, METHOD_DISCARD, m);
        abandon_setup(d);
        d->move = move_free(d->move);
        d->vm = vm_free(d->vm);
        d->state = STATE_NONE;
        d->over = true;
        call_end(d, METHOD_PREPARE, "the VM was discarded");
        call_end(d, METHOD_LOAD, "the VM was discarded");
        call_end(d, METHOD_DISCARD, NULL);
        return 1;
}

/* ---- calls --------------------------------------------------------------------------------------------------- */

static int read_options(sd_bus_message *m, MoveLimits *ret)
{
        int r = sd_bus_message_enter_container(m, 'a', "{sv}");

        *ret = (MoveLimits){};
        while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
                const char *key;

                r = sd_bus_message_read(m, "s", &key);
                if (r >= 0 && streq(key, "bandwidth"))
                        r = sd_bus_message_read(m, "v", "t", &ret->bandwidth);
                else if (r >= 0 && streq(key, "max-blackout-usec"))
                        r = sd_bus_message_read(m, "v", "t", &ret->max_blackout_usec);
                else if (r >= 0)
                        r = sd_bus_message_skip(m, "v"); /* of a newer migmgr */
                if (r >= 0)
                        r = sd_bus_message_exit_container(m);
        }
        return r < 0 ? r : sd_bus_message_exit_container(m);
}

/* Forgets the job before. Nobody waits for it any more: it was over. */
static void take_job(Delegate *d, const char *job, bool source, const MoveLimits *limits)
{
        for (Method method = 0; method < METHOD_MAX; method++)
                for (unsigned i = 0; i < d->calls[method].n_waiting; i++)
                        sd_bus_message_unref(d->calls[method].waiting[i]);
        memset(d->calls, 0, sizeof d->calls);
        (void) snprintf(d->job, sizeof d->job, "%s", job);
        d->source = source;
        d->over = false;
        d->limits = *limits;
}

/* Whether Prepare may have this job. 0: yes; else it is answered. */
static int accept_job(Delegate *d, sd_bus_message *m, const char *job)
{
        const char *side;
        MoveLimits limits;
        bool source;
        int r = sd_bus_message_read(m, "s", &side);

        if (r >= 0)
                r = read_options(m, &limits);
        if (r < 0)
                return r;
        source = streq(side, "source");
        if ((!source && !streq(side, "destination")) || !job[0] || strlen(job) >= DELEGATE_JOB_MAX)
                return sd_bus_reply_method_errorf(m, SD_BUS_ERROR_INVALID_ARGS, "job '%.*s', side '%s'",
                                                  DELEGATE_JOB_MAX, job, side);
        if (streq(job, d->job))
                return 0;
        if (d->job[0] && !d->over)
                return refuse(m, "Busy", "job '%s' is not over", d->job);
        if (d->state != (source ? STATE_RUNNING : STATE_NONE))
                return refuse_state(d, m);
        take_job(d, job, source, &limits);
        return 0;
}

/* A fault that is meant to come once. */
static bool fails(Delegate *d, sd_bus_message *m)
{
        if (!streq(d->faults.fail, sd_bus_message_get_member(m)))
                return false;
        d->faults.fail[0] = '\0';
        return true;
}

int delegate_on_call(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
        static const Begin begins[] = {
                [METHOD_PREPARE] = begin_prepare, [METHOD_SAVE] = begin_save,
                [METHOD_LOAD] = begin_load,       [METHOD_PAUSE] = begin_pause,
                [METHOD_SEAL] = begin_seal,       [METHOD_RESUME] = begin_resume,
                [METHOD_START] = begin_start,     [METHOD_DISCARD] = begin_discard,
        };
        Delegate *d = userdata;
        Method method = method_from_string(sd_bus_message_get_member(m));
        Call *call = &d->calls[method];
        const char *job;
        int r;

        if (!delegate_allows(m))
                return 1;
        r = sd_bus_message_read(m, "s", &job);
        if (r >= 0 && method == METHOD_PREPARE)
                r = accept_job(d, m, job);
        else if (r >= 0)
                r = streq(job, d->job) ? 0 : refuse(m, "Job", "the job is '%s'", d->job);
        if (r != 0)
                return r;
        if (call->n_waiting == WAITING_MAX)
                return refuse(m, "Busy", "%u callers wait for this already", WAITING_MAX);
        if (call->begun && (!call->ended || call->n_waiting > 0)) {
                call->waiting[call->n_waiting++] = sd_bus_message_ref(m);
                return 1;
        }
        /* Done is done; what has failed is tried anew. */
        if (call->ended && !call->error[0])
                return answer(call, method, m);
        if (fails(d, m)) {
                begin_call(d, method, m);
                call_end(d, method, TOLD_TO_FAIL);
                return 1;
        }
        return begins[method](d, m);
}

int delegate_on_get_state(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
        Delegate *d = userdata;

        if (!delegate_allows(m))
                return 1;
        return sd_bus_reply_method_return(m, "ss", state_names[d->state], d->job);
}

/* ---- devices of the kernel ----------------------------------------------------------------------------------- */

/* They do no DMA: the guest does not know of them. */
int delegate_on_device_file(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
        const DelegateConfig *config = ((Delegate *) userdata)->config;
        const char *device;
        int r;

        if (!delegate_allows(m))
                return 1;
        r = sd_bus_message_read(m, "s", &device);
        if (r < 0)
                return r;
        for (unsigned i = 0; i < config->n_kernel; i++)
                if (streq(config->kernel[i].id, device))
                        return sd_bus_reply_method_return(m, "ha(tt)", config->kernel[i].fd, 0);
        return refuse(m, "Failed", "there is no device '%.64s'", device);
}

/* ---- dirty pages --------------------------------------------------------------------------------------------- */

int delegate_on_take_dirty_pages(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
        Delegate *d = userdata;
        uint64_t address, page_size, pages;
        const char *job;
        int bitmap, r;

        if (!delegate_allows(m))
                return 1;
        r = sd_bus_message_read(m, "sttth", &job, &address, &page_size, &pages, &bitmap);
        if (r < 0)
                return r;
        if (!streq(job, d->job))
                return refuse(m, "Job", "the job is '%s'", d->job);
        if (!d->source || d->state != STATE_PAUSED || d->calls[METHOD_SEAL].begun || !d->move)
                return refuse_state(d, m);
        if (!d->config->takes_dirty_pages)
                return refuse(m, "Failed", "this VMM takes no dirty pages");
        if (fails(d, m))
                return refuse(m, "Failed", TOLD_TO_FAIL);
        if (d->faults.ignores_dirty_pages)
                return sd_bus_reply_method_return(m, NULL);
        r = dirty_pages_mark(d->vm->ram, address, page_size, pages, bitmap);
        return r < 0 ? refuse(m, "Failed", "pages at %#llx: %s", (unsigned long long) address, strerror(-r))
                     : sd_bus_reply_method_return(m, NULL);
}

/* ---- life ---------------------------------------------------------------------------------------------------- */

static int boot(Delegate *d, int cancel_fd)
{
        char text[DELEGATE_TEXT_MAX];
        int r = vm_new(&d->config->vm, cancel_fd, d->notify_fd, &d->vm, text, sizeof text);

        if (r < 0) {
                log_error(NULL, "%s", text);
                return r;
        }
        r = guest_boot(&d->vm->guest);
        if (r < 0) {
                log_error(NULL, "the guest needs more memory for so many devices");
                return r;
        }
        vm_run(d->vm);
        d->state = STATE_RUNNING;
        return 0;
}

static int add_sources(Delegate *d)
{
        int r = sd_event_add_io(d->event, &d->notified, d->notify_fd, EPOLLIN, on_notified, d);

        if (r >= 0)
                r = sd_event_add_time(d->event, &d->ticking, CLOCK_MONOTONIC, 0, 0, on_tick, d);
        return r;
}

int delegate_new(sd_event *event, const DelegateConfig *config, bool boots, int cancel_fd, Delegate **ret)
{
        _cleanup_(delegate_freep) Delegate *d = calloc(1, sizeof *d);
        int r;

        if (!d)
                return -ENOMEM;
        d->config = config;
        d->event = sd_event_ref(event);
        d->notify_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (d->notify_fd < 0)
                return -errno;
        r = boots ? boot(d, cancel_fd) : 0;
        if (r < 0)
                return r;
        r = add_sources(d);
        if (r >= 0)
                r = delegate_open_bus(d);
        if (r < 0) {
                log_error(NULL, "%s on %s: %s", config->bus_name, config->bus_address, strerror(-r));
                return r;
        }
        *ret = TAKE_PTR(d);
        return 0;
}

Delegate *delegate_free(Delegate *d)
{
        if (!d)
                return NULL;
        abandon_setup(d);
        (void) move_free(d->move);
        (void) vm_free(d->vm);
        take_job(d, "", false, &(MoveLimits){});
        sd_bus_flush_close_unref(d->bus);
        sd_event_source_unref(d->notified);
        sd_event_source_unref(d->ticking);
        sd_event_source_unref(d->reconnecting);
        sd_event_unref(d->event);
        closep(&d->notify_fd);
        free(d);
        return NULL;
}

/* ---- for the control socket ---------------------------------------------------------------------------------- */

const char *delegate_state(const Delegate *d)
{
        return state_names[d->state];
}

const char *delegate_job(const Delegate *d)
{
        return d->job;
}

Vm *delegate_vm(const Delegate *d)
{
        return d->vm;
}

DelegateFaults *delegate_faults(Delegate *d)
{
        return &d->faults;
}

void delegate_faults_changed(Delegate *d)
{
        if (d->move)
                move_never_converge(d->move, d->faults.never_converges);
        for (Method method = 0; method < METHOD_MAX; method++)
                if (d->calls[method].ended)
                        answer_all(d, method);
}

int delegate_resume_by_itself(Delegate *d)
{
        if (!d->source || d->over || d->state != STATE_PAUSED || d->calls[METHOD_SEAL].begun)
                return -EINVAL;
        go_back(d);
        return sd_bus_emit_signal(d->bus, d->config->object_path, DELEGATE_INTERFACE, "Resumed", "s", d->job);
}
