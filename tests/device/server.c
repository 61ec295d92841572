/* SPDX-License-Identifier: LGPL-2.1-or-later */
#define _GNU_SOURCE 1 /* accept4 */
#include "server.h"

#include <sys/socket.h>

#include "listen.h"

#define ACCEPT_RETRY_USEC 100000

static void device_is_done(Device *d, int r);

static Server *server_of(Device *d)
{
        return (Server *) ((char *) d - offsetof(Server, device));
}

Server *server_new(DeviceConfig *config, ServerOnDisconnect on_disconnect, struct event_base *base,
                   void (*moved)(Device *d, void *userdata), void *userdata)
{
        _cleanup_(server_freep) Server *s = calloc(1, sizeof *s);

        if (!s)
                return NULL;
        s->base = base;
        s->on_disconnect = on_disconnect;
        s->fd = -1;
        if (device_init(&s->device, config, base) < 0)
                return NULL;
        s->device.done = device_is_done;
        s->device.moved = moved;
        s->device.userdata = userdata;
        return TAKE_PTR(s);
}

Server *server_free(Server *s)
{
        if (!s)
                return NULL;
        client_free(s->client);
        if (s->listener)
                event_free(s->listener);
        if (s->fd >= 0) {
                (void) unlink(s->device.config.socket_path);
                (void) close(s->fd);
        }
        device_done(&s->device);
        free(s);
        return NULL;
}

/* ---- clients ------------------------------------------------------------------------------------------------- */

static void device_is_done(Device *d, int r)
{
        client_device_done(server_of(d)->client, r);
}

static void note(Server *s, HistoryKind kind, DeviceState from)
{
        history_add(&s->device.history, kind, history_now_usec(), from, s->device.state, 0);
}

static void client_is_gone(Client *client, void *userdata)
{
        Server *s = userdata;
        DeviceState from = s->device.state;

        s->client = client_free(client);
        device_forget_client(&s->device);
        device_abandon(&s->device);
        if (s->on_disconnect == SERVER_RUNNING && from != DEVICE_STATE_RUNNING)
                device_force_running(&s->device);
        note(s, HISTORY_DISCONNECT, from);
        if (s->on_disconnect == SERVER_EXIT)
                (void) event_base_loopbreak(s->base);
        else
                (void) event_add(s->listener, NULL);
}

static void accept_again(evutil_socket_t fd, short what, void *userdata)
{
        Server *s = userdata;

        (void) event_add(s->listener, NULL);
}

/* No descriptor is free: asking at once, again and again, would take the others' time. */
static void pause_accepting(Server *s)
{
        struct timeval tv = {.tv_usec = ACCEPT_RETRY_USEC};

        (void) event_del(s->listener);
        (void) event_base_once(s->base, -1, EV_TIMEOUT, accept_again, s, &tv);
}

static void ready_to_accept(evutil_socket_t listening, short what, void *userdata)
{
        Server *s = userdata;
        int fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC);

        if (fd < 0) {
                if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
                        pause_accepting(s);
                return;
        }
        s->client = client_new(&s->device, s->base, fd, client_is_gone, s);
        if (!s->client)
                return;
        (void) event_del(s->listener);
        note(s, HISTORY_CONNECT, s->device.state);
}

/* ---- listening ----------------------------------------------------------------------------------------------- */

int server_listen(Server *s)
{
        _cleanup_(closep) int fd = listen_on(s->device.config.socket_path, 0);

        if (fd < 0)
                return fd;
        s->listener = event_new(s->base, fd, EV_READ | EV_PERSIST, ready_to_accept, s);
        s->fd = TAKE_FD(fd);
        return s->listener && event_add(s->listener, NULL) == 0 ? 0 : -ENOMEM;
}
