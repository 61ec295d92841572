/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "loop.h"

#include <event2/event.h>
#include <poll.h>
#include <stddef.h>

#include "common/clock.h"

typedef struct Deferred {
        struct Deferred *next;
        LoopCallback callback;
        void *userdata;
} Deferred;

struct Loop {
        struct event_base *base;
        struct event *defer_event;
        Deferred *first, **last;
        sd_bus *bus;
        struct event *bus_event, *bus_timer;
        int bus_fd;
        short bus_what;
        LoopCallback on_bus_end;
        void *bus_userdata;
};

/* One allocation with its event: there are several for each of thousands of devices. */
struct LoopTimer {
        struct event *event;
        LoopCallback callback;
        void *userdata;
        _Alignas(max_align_t) unsigned char space[];
};

struct LoopIo {
        struct event *readable, *writable;
        LoopCallback on_readable, on_writable;
        void *userdata;
};

/* ---- deferred work ------------------------------------------------------------------------------------------- */

static void on_deferred(evutil_socket_t fd, short what, void *userdata)
{
        Loop *loop = userdata;
        Deferred *list = loop->first;

        loop->first = NULL;
        loop->last = &loop->first;
        while (list) {
                Deferred *d = list;

                list = d->next;
                d->callback(d->userdata);
                free(d);
        }
}

int loop_defer(Loop *loop, LoopCallback callback, void *userdata)
{
        Deferred *d = malloc(sizeof *d);

        if (!d)
                return -ENOMEM;
        *d = (Deferred){NULL, callback, userdata};
        *loop->last = d;
        loop->last = &d->next;
        event_active(loop->defer_event, EV_TIMEOUT, 0);
        return 0;
}

/* ---- life ---------------------------------------------------------------------------------------------------- */

Loop *loop_free(Loop *loop)
{
        if (!loop)
                return NULL;
        if (loop->bus_event)
                event_free(loop->bus_event);
        if (loop->bus_timer)
                event_free(loop->bus_timer);
        if (loop->defer_event)
                event_free(loop->defer_event);
        while (loop->first) {
                Deferred *d = loop->first;

                loop->first = d->next;
                free(d);
        }
        if (loop->base)
                event_base_free(loop->base);
        free(loop);
        return NULL;
}

int loop_new(Loop **ret)
{
        _cleanup_(loop_freep) Loop *loop = calloc(1, sizeof *loop);

        if (!loop)
                return -ENOMEM;
        loop->last = &loop->first;
        loop->bus_fd = -1;
        loop->base = event_base_new();
        if (!loop->base)
                return -ENOMEM;
        loop->defer_event = event_new(loop->base, -1, 0, on_deferred, loop);
        if (!loop->defer_event)
                return -ENOMEM;
        *ret = TAKE_PTR(loop);
        return 0;
}

int loop_run(Loop *loop)
{
        return event_base_dispatch(loop->base) < 0 ? -EIO : 0;
}

void loop_quit(Loop *loop)
{
        (void) event_base_loopbreak(loop->base);
}

/* ---- timers -------------------------------------------------------------------------------------------------- */

static void on_timer(evutil_socket_t fd, short what, void *userdata)
{
        LoopTimer *timer = userdata;

        timer->callback(timer->userdata);
}

int loop_timer_new(Loop *loop, LoopCallback callback, void *userdata, LoopTimer **ret)
{
        LoopTimer *timer = malloc(sizeof *timer + event_get_struct_event_size());

        if (!timer)
                return -ENOMEM;
        timer->event = (struct event *) (void *) timer->space;
        timer->callback = callback;
        timer->userdata = userdata;
        if (event_assign(timer->event, loop->base, -1, 0, on_timer, timer) < 0) {
                free(timer);
                return -ENOMEM;
        }
        *ret = timer;
        return 0;
}

LoopTimer *loop_timer_free(LoopTimer *timer)
{
        if (!timer)
                return NULL;
        (void) event_del(timer->event);
        free(timer);
        return NULL;
}

void loop_timer_set(LoopTimer *timer, uint64_t usec)
{
        struct timeval tv = {(time_t) (usec / USEC_PER_SEC), (suseconds_t) (usec % USEC_PER_SEC)};

        (void) event_del(timer->event);
        if (usec > 0)
                (void) event_add(timer->event, &tv);
}

void loop_timer_soon(LoopTimer *timer)
{
        (void) event_del(timer->event);
        event_active(timer->event, EV_TIMEOUT, 0);
}

/* ---- descriptors --------------------------------------------------------------------------------------------- */

static void on_io_readable(evutil_socket_t fd, short what, void *userdata)
{
        LoopIo *io = userdata;

        io->on_readable(io->userdata);
}

static void on_io_writable(evutil_socket_t fd, short what, void *userdata)
{
        LoopIo *io = userdata;

        io->on_writable(io->userdata);
}

LoopIo *loop_io_free(LoopIo *io)
{
        if (!io)
                return NULL;
        if (io->readable)
                event_free(io->readable);
        if (io->writable)
                event_free(io->writable);
        free(io);
        return NULL;
}

int loop_io_new(Loop *loop, int fd, LoopCallback on_readable, LoopCallback on_writable, void *userdata,
                LoopIo **ret)
{
        LoopIo *io = calloc(1, sizeof *io);

        if (!io)
                return -ENOMEM;
        *io = (LoopIo){.on_readable = on_readable, .on_writable = on_writable, .userdata = userdata};
        io->readable = event_new(loop->base, fd, EV_READ | EV_PERSIST, on_io_readable, io);
        if (on_writable)
                io->writable = event_new(loop->base, fd, EV_WRITE, on_io_writable, io);
        if (!io->readable || (on_writable && !io->writable) || event_add(io->readable, NULL) < 0) {
                loop_io_free(io);
                return -ENOMEM;
        }
        *ret = io;
        return 0;
}

void loop_io_want_write(LoopIo *io)
{
        (void) event_add(io->writable, NULL);
}

/* ---- the bus ------------------------------------------------------------------------------------------------- */

static void bus_rearm(Loop *loop);

static void on_bus(evutil_socket_t fd, short what, void *userdata)
{
        Loop *loop = userdata;
        int r;

        do
                r = sd_bus_process(loop->bus, NULL);
        while (r > 0);
        if (r < 0) {
                loop->on_bus_end(loop->bus_userdata);
                return;
        }
        bus_rearm(loop);
}

/* After each step what it waits for may be something else. */
static void bus_rearm(Loop *loop)
{
        int fd = sd_bus_get_fd(loop->bus), events = sd_bus_get_events(loop->bus);
        uint64_t until = USEC_INFINITY;
        short what =
                (short) (EV_PERSIST | (events & POLLIN ? EV_READ : 0) | (events & POLLOUT ? EV_WRITE : 0));

        if (fd < 0 || events < 0)
                return; /* sd_bus_process() will say so */
        if (what != loop->bus_what || fd != loop->bus_fd) {
                (void) event_del(loop->bus_event);
                (void) event_assign(loop->bus_event, loop->base, fd, what, on_bus, loop);
                (void) event_add(loop->bus_event, NULL);
                loop->bus_what = what;
                loop->bus_fd = fd;
        }
        (void) event_del(loop->bus_timer);
        if (sd_bus_get_timeout(loop->bus, &until) >= 0 && until != USEC_INFINITY) {
                uint64_t now = clock_monotonic_usec(), wait = until > now ? until - now : 0;
                struct timeval tv = {(time_t) (wait / USEC_PER_SEC), (suseconds_t) (wait % USEC_PER_SEC)};

                (void) event_add(loop->bus_timer, &tv);
        }
}

sd_bus *loop_bus(Loop *loop)
{
        return loop->bus;
}

void loop_kick_bus(Loop *loop)
{
        if (loop->bus_timer)
                event_active(loop->bus_timer, EV_TIMEOUT, 0);
}

int loop_attach_bus(Loop *loop, sd_bus *bus, LoopCallback on_end, void *userdata)
{
        loop->bus = bus;
        loop->on_bus_end = on_end;
        loop->bus_userdata = userdata;
        loop->bus_event = event_new(loop->base, sd_bus_get_fd(bus), EV_READ | EV_PERSIST, on_bus, loop);
        loop->bus_timer = event_new(loop->base, -1, 0, on_bus, loop);
        if (!loop->bus_event || !loop->bus_timer || event_add(loop->bus_event, NULL) < 0)
                return -ENOMEM;
        loop->bus_what = EV_READ | EV_PERSIST;
        loop->bus_fd = sd_bus_get_fd(bus);
        loop_kick_bus(loop);
        return 0;
}
