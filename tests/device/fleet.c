/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fleet.h"

#define TICK_USEC 10000
#define LATE_MAX_USEC \
        100000 /* of a tick that comes late, because others needed the time, no more is caught up */

static void tick(evutil_socket_t fd, short what, void *userdata);

int fleet_init(Fleet *f, struct event_base *base)
{
        *f = (Fleet){.base = base};
        f->clock = event_new(base, -1, EV_PERSIST, tick, f);
        return f->clock ? 0 : -ENOMEM;
}

void fleet_done(Fleet *f)
{
        for (size_t i = 0; i < f->n; i++)
                server_free(f->servers[i]);
        free(TAKE_PTR(f->servers));
        f->n = 0;
        if (f->clock)
                event_free(TAKE_PTR(f->clock));
}

static bool counts(const Fleet *f, const Device *d)
{
        return memory_has_counter(&d->memory) && (d->config.work || f->n_watchers > 0);
}

static bool works(const Fleet *f, const Device *d)
{
        return device_is_running(d) && (counts(f, d) || d->config.dirty_rate > 0);
}

static void wind(Fleet *f)
{
        struct timeval period = {.tv_usec = TICK_USEC};

        if (evtimer_pending(f->clock, NULL))
                return;
        f->last_tick_usec = history_now_usec();
        (void) event_add(f->clock, &period);
}

static void tick(evutil_socket_t fd, short what, void *userdata)
{
        Fleet *f = userdata;
        uint64_t now = history_now_usec(), passed = MIN(now - f->last_tick_usec, LATE_MAX_USEC);
        bool any = false;

        f->last_tick_usec = now;
        for (size_t i = 0; i < f->n; i++) {
                Device *d = &f->servers[i]->device;

                if (!works(f, d))
                        continue;
                if (counts(f, d))
                        memory_count(&d->memory);
                device_dirty(d, passed);
                any = true;
        }
        if (!any)
                (void) event_del(f->clock);
}

static void device_moved(Device *d, void *userdata)
{
        Fleet *f = userdata;

        if (works(f, d))
                wind(f);
}

int fleet_add(Fleet *f, DeviceConfig *config, ServerOnDisconnect on_disconnect)
{
        _cleanup_(server_freep) Server *s = server_new(config, on_disconnect, f->base, device_moved, f);
        Server **servers;
        int r;

        if (!s)
                return -ENOMEM;
        r = server_listen(s);
        if (r < 0)
                return r;
        servers = realloc(f->servers, (f->n + 1) * sizeof *servers);
        if (!servers)
                return -ENOMEM;
        f->servers = servers;
        device_moved(&s->device, f);
        f->servers[f->n++] = TAKE_PTR(s);
        return 0;
}

Server *fleet_get(const Fleet *f, const char *id)
{
        for (size_t i = 0; i < f->n; i++)
                if (streq(f->servers[i]->device.config.id, id))
                        return f->servers[i];
        return NULL;
}

void fleet_watch(Fleet *f)
{
        f->n_watchers++;
        wind(f);
}

void fleet_unwatch(Fleet *f)
{
        f->n_watchers--;
}
