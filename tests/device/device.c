/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "device.h"

static void task_timer(evutil_socket_t fd, short what, void *userdata);
static void worker_stopped(void *userdata);

int device_init(Device *d, DeviceConfig *config, struct event_base *base)
{
        *d = (Device){.config = *config, .state = DEVICE_STATE_RUNNING};
        *config = (DeviceConfig){0};
        d->timer = evtimer_new(base, task_timer, d);
        dma_init(&d->dma);
        irqs_init(&d->irqs);
        if (!d->timer)
                return -ENOMEM;
        if (d->config.worker) {
                d->worker = worker_new(base, &d->dma, &d->irqs, worker_stopped, d);
                if (!d->worker)
                        return -ENOMEM;
                worker_start(d->worker);
        }
        if (d->config.mailbox) {
                d->mailbox = mailbox_new(base, &d->dma, worker_stopped, d);
                if (!d->mailbox)
                        return -ENOMEM;
        }
        return memory_init(&d->memory, d->config.size, d->config.seed);
}

static void drop_data(Device *d)
{
        d->saver = saver_free(d->saver);
        d->loader = loader_free(d->loader);
}

void device_done(Device *d)
{
        drop_data(d);
        if (d->timer)
                event_free(TAKE_PTR(d->timer));
        d->worker = worker_free(d->worker);
        d->mailbox = mailbox_free(d->mailbox);
        irqs_clear(&d->irqs);
        dma_clear(&d->dma);
        memory_done(&d->memory);
        history_clear(&d->history);
        page_sums_done(&d->saved);
        page_sums_done(&d->loaded);
        device_config_done(&d->config);
}

static bool is_running(DeviceState s)
{
        return s == DEVICE_STATE_RUNNING || s == DEVICE_STATE_RUNNING_P2P || s == DEVICE_STATE_PRE_COPY ||
               s == DEVICE_STATE_PRE_COPY_P2P;
}

bool device_is_running(const Device *d)
{
        return is_running(d->state);
}

static bool is_quiet(DeviceState s)
{
        return s == DEVICE_STATE_RUNNING_P2P || s == DEVICE_STATE_PRE_COPY_P2P;
}

/* In a P2P state no device begins DMA to a peer, and some begin none at all. */
static bool works(const Device *d, DeviceState s)
{
        return is_running(s) && !(d->config.ndma && is_quiet(s));
}

static MailboxMode mailbox_mode(DeviceState s)
{
        if (!is_running(s))
                return MAILBOX_STANDS;
        return is_quiet(s) ? MAILBOX_TAKES : MAILBOX_SENDS;
}

/* As the state says, whatever was tried. */
static void set_worker(Device *d)
{
        if (d->mailbox)
                mailbox_set_mode(d->mailbox, mailbox_mode(d->state));
        if (!d->worker)
                return;
        if (works(d, d->state))
                worker_start(d->worker);
        else
                worker_halt(d->worker);
}

/* The one door. */
static void enter(Device *d, DeviceState state)
{
        d->state = state;
        set_worker(d);
        d->moved(d, d->userdata);
}

/* ---- arcs ---------------------------------------------------------------------------------------------------- */

static uint64_t appendix_size(const Device *d)
{
        return (d->worker ? WORKER_STATE_SIZE : 0) + (d->mailbox ? MAILBOX_STATE_SIZE : 0);
}

/* The device stands still from here on, the worker too. */
static void end_changes(Device *d)
{
        uint8_t *appendix = saver_finish(d->saver);

        if (d->worker)
                worker_save(d->worker, appendix);
        if (d->mailbox)
                mailbox_save(d->mailbox, appendix + WORKER_STATE_SIZE);
}

static int begin_saving(Device *d, bool pre_copy)
{
        d->saver = saver_new(&d->memory, appendix_size(d), pre_copy);
        if (!d->saver)
                return -ENOMEM;
        if (!pre_copy)
                end_changes(d);
        return 0;
}

static int begin_loading(Device *d)
{
        d->loader = loader_free(d->loader);
        d->loader = loader_new(&d->memory, appendix_size(d));
        d->load_dropped = false;
        return d->loader ? 0 : -ENOMEM;
}

static int end_loading(Device *d)
{
        if (!d->load_dropped || !loader_is_fresh(d->loader)) {
                const uint8_t *appendix;
                int r = loader_check(d->loader, &appendix);

                if (r == 0 && d->worker)
                        r = worker_load(d->worker, appendix);
                if (r < 0)
                        return r;
                if (d->mailbox)
                        mailbox_load(d->mailbox, appendix + WORKER_STATE_SIZE);
                loader_finish(d->loader, &d->loaded);
                d->stats.loads++;
        }
        d->loader = loader_free(d->loader);
        return 0;
}

/* What the device has to do for the arc to `to`. */
static int act(Device *d, DeviceState to)
{
        switch (to) {
        case DEVICE_STATE_PRE_COPY:
        case DEVICE_STATE_PRE_COPY_P2P: return d->saver ? 0 : begin_saving(d, true);
        case DEVICE_STATE_STOP_COPY:
                if (!d->saver)
                        return begin_saving(d, false);
                end_changes(d);
                return 0;
        case DEVICE_STATE_RESUMING: return begin_loading(d);
        case DEVICE_STATE_STOP:
                if (d->state == DEVICE_STATE_RESUMING)
                        return end_loading(d);
                d->saver = saver_free(d->saver);
                return 0;
        case DEVICE_STATE_RUNNING:
        case DEVICE_STATE_RUNNING_P2P: d->saver = saver_free(d->saver); return 0;
        case DEVICE_STATE_ERROR:
        case DEVICE_STATE_UNKNOWN:
        case DEVICE_STATE_MAX:
        case DEVICE_STATE_INVALID: break;
        }
        return -EINVAL;
}

static void note_arc(Device *d, DeviceState from, DeviceState to, int error)
{
        history_add(&d->history, HISTORY_ARC, d->task.start_usec, from, to, error);
}

static int take_arc(Device *d)
{
        DeviceState from = d->state, to = d->task.path[d->task.at];
        int r = act(d, to);

        if (r == 0) {
                if (d->worker && is_running(to) && !device_is_running(d))
                        worker_remember(d->worker); /* who lets it run has set it up */
                d->task.at++;
                enter(d, to);
        }
        note_arc(d, from, to, -r);
        return r;
}

/* The time of an arc is over: what comes of it. */
static int end_arc(Device *d)
{
        DeviceTask *t = &d->task;
        const Fault *f = &t->fault;

        t->stops_worker = t->stops_mailbox = false; /* they stand */
        if (f->kind == FAULT_EXIT)
                _exit(EXIT_FAILURE);
        if (f->kind == FAULT_HANG) {
                t->hung = true;
                return DEVICE_UNDER_WAY;
        }
        if (f->kind == FAULT_FAIL) {
                note_arc(d, d->state, t->path[t->at], f->error);
                return -f->error;
        }
        if (f->kind == FAULT_ERROR) {
                device_break(d, t->start_usec, f->error);
                return -f->error;
        }
        if (f->kind == FAULT_LIE) {
                t->n = t->at;
                note_arc(d, d->state, d->state, 0);
                return 0;
        }
        if (fault_spoils_reply(f->kind))
                d->spoiled = f->kind;
        return take_arc(d);
}

static bool is_awaited(const Device *d)
{
        return (d->task.stops_worker && !worker_is_still(d->worker)) ||
               (d->task.stops_mailbox && !mailbox_is_quiet(d->mailbox));
}

/* A worker that may not go on in the next state begins nothing more. */
static void quiesce(Device *d, DeviceState to)
{
        d->task.stops_worker = d->worker && works(d, d->state) && !works(d, to);
        d->task.stops_mailbox =
                d->mailbox && mailbox_mode(d->state) == MAILBOX_SENDS && mailbox_mode(to) != MAILBOX_SENDS;
        if (d->task.stops_worker)
                (void) worker_stop(d->worker);
}

/* The time of the arc is over; whether nothing is out any more. Letters are sent until now: the worst that the uAPI allows. */
static bool is_still(Device *d)
{
        if (d->task.stops_mailbox)
                (void) mailbox_quiet(d->mailbox);
        return !is_awaited(d);
}

static void wait_usec(Device *d, uint64_t usec)
{
        struct timeval tv = {.tv_sec = (time_t) (usec / USEC_PER_SEC),
                             .tv_usec = (suseconds_t) (usec % USEC_PER_SEC)};

        (void) evtimer_add(d->timer, &tv);
}

/* Goes on until the walk has ended or has to wait. */
static int walk(Device *d)
{
        DeviceTask *t = &d->task;
        int r = 0;

        while (r == 0 && t->at < t->n) {
                DeviceState to = t->path[t->at];
                uint64_t usec = d->config.arc_delay_usec[d->state][to];

                quiesce(d, to);
                t->start_usec = history_now_usec();
                t->fault = fault_list_take_arc(&d->config.faults, d->state, to);
                usec += t->fault.kind == FAULT_LATE ? t->fault.delay_usec : 0;
                usec += device_is_running(d) && !is_running(to) ? d->config.quiesce_usec : 0;
                if (usec > 0)
                        wait_usec(d, usec);
                if (usec > 0 || !is_still(d))
                        return DEVICE_UNDER_WAY;
                r = end_arc(d);
        }
        return r;
}

/* A walk that has ended where it should not leaves the device as it was. */
static int end_walk(Device *d, int r)
{
        if (r != DEVICE_UNDER_WAY)
                set_worker(d);
        return r;
}

int device_set_state(Device *d, DeviceState to)
{
        int n;

        d->task = (DeviceTask){.at = 0};
        d->spoiled = FAULT_NONE;
        n = arc_path(d->state, to, device_config_flags(&d->config), d->task.path);
        if (n < 0)
                return n;
        d->task.n = n;
        return end_walk(d, walk(d));
}

/* ---- reset --------------------------------------------------------------------------------------------------- */

static void restore_memory(Device *d)
{
        memory_restore(&d->memory);
        if (d->worker)
                worker_reset(d->worker);
        if (d->mailbox)
                mailbox_reset(d->mailbox);
        if (!d->loader)
                return;
        if (begin_loading(d) < 0)
                device_break(d, d->task.start_usec, ENOMEM);
        else
                d->load_dropped = true;
}

static int end_reset(Device *d)
{
        DeviceState from = d->state;

        if (d->config.reset_mode == DEVICE_RESET_UAPI || from == DEVICE_STATE_ERROR) {
                drop_data(d);
                enter(d, DEVICE_STATE_RUNNING);
        }
        restore_memory(d);
        d->stats.resets++;
        history_add(&d->history, HISTORY_RESET, d->task.start_usec, from, d->state, 0);
        return 0;
}

int device_reset(Device *d)
{
        if ((d->config.reset_mode == DEVICE_RESET_LIBVFIO_USER || d->config.strict) &&
            (d->state == DEVICE_STATE_STOP || d->state == DEVICE_STATE_STOP_COPY))
                return -EINVAL;

        d->task = (DeviceTask){.is_reset = true, .start_usec = history_now_usec()};
        d->spoiled = FAULT_NONE;
        if (d->config.reset_delay_usec == 0)
                return end_reset(d);
        wait_usec(d, d->config.reset_delay_usec);
        return DEVICE_UNDER_WAY;
}

/* ---- what takes time ----------------------------------------------------------------------------------------- */

static int go_on(Device *d)
{
        int r = d->task.is_reset ? end_reset(d) : end_arc(d);

        return end_walk(d, r == 0 ? walk(d) : r); /* after a reset there is nothing to walk */
}

/* Not from within: whoever has brought the last answer is still busy with it. */
static void worker_stopped(void *userdata)
{
        Device *d = userdata;

        if ((d->task.stops_worker || d->task.stops_mailbox) && !evtimer_pending(d->timer, NULL))
                event_active(d->timer, EV_TIMEOUT, 1);
}

static void task_timer(evutil_socket_t fd, short what, void *userdata)
{
        Device *d = userdata;
        int r;

        if (!is_still(d))
                return; /* worker_stopped() comes back here */
        r = go_on(d);
        if (r != DEVICE_UNDER_WAY)
                d->done(d, r);
}

int device_release(Device *d)
{
        d->task.hung = false;
        d->task.fault.kind = FAULT_NONE;
        return go_on(d);
}

void device_abandon(Device *d)
{
        d->task.hung = false;
        d->spoiled = FAULT_NONE;
        set_worker(d);
}

/* ---- by force ------------------------------------------------------------------------------------------------ */

void device_break(Device *d, uint64_t start_usec, int error)
{
        DeviceState from = d->state;

        drop_data(d);
        enter(d, DEVICE_STATE_ERROR);
        history_add(&d->history, HISTORY_ARC, start_usec, from, DEVICE_STATE_ERROR, error);
}

void device_force_running(Device *d)
{
        bool half_loaded = d->loader != NULL;

        drop_data(d);
        if (half_loaded)
                restore_memory(d);
        enter(d, DEVICE_STATE_RUNNING);
}

/* ---- the client and the clock -------------------------------------------------------------------------------- */

void device_forget_client(Device *d)
{
        if (d->worker)
                worker_forget(d->worker);
        if (d->mailbox)
                mailbox_drop(d->mailbox);
        dma_clear(&d->dma);
        irqs_clear(&d->irqs);
        worker_stopped(d); /* an arc that waits for the worker goes on */
}

bool device_waits_for_client(const Device *d)
{
        return is_awaited(d) && !evtimer_pending(d->timer, NULL);
}

/* One page after the other, so that so many really are different ones; all of them at most, for more is the same. */
void device_dirty(Device *d, uint64_t usec)
{
        uint64_t pages = d->memory.size / MEMORY_PAGE;

        if (pages == 0)
                return;
        d->dirt_credit += usec * d->config.dirty_rate;
        for (uint64_t n = MIN(d->dirt_credit / USEC_PER_SEC, pages); n > 0; n--)
                memory_change(&d->memory, d->dirt_page++ % pages);
        d->dirt_credit %= USEC_PER_SEC;
}

/* ---- data ---------------------------------------------------------------------------------------------------- */

uint64_t device_read_data(Device *d, uint8_t *buffer, uint64_t n)
{
        uint64_t done = saver_read(d->saver, buffer, n);

        d->stats.saved_bytes += done;
        if (saver_completed(d->saver, &d->saved))
                d->stats.saves++;
        return done;
}

void device_write_data(Device *d, const uint8_t *data, uint64_t n)
{
        d->stats.loaded_bytes += n;
        loader_write(d->loader, data, n);
}
