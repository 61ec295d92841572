/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "control.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>
#include <sys/queue.h>

#include "listen.h"
#include "order.h"

#define LINE_MAX_BYTES   65536
#define OUTPUT_MAX_BYTES (4 * MIB) /* who does not read its answers gets no more of them */
#define BACKLOG          64

typedef struct ControlClient ControlClient;
struct ControlClient {
        Control *control;
        struct bufferevent *stream;
        bool quits;   /* and the process with it, when its answer is sent */
        bool leaving; /* when its answers are sent */
        LIST_ENTRY(ControlClient) entry;
};

struct Control {
        Fleet *fleet;
        char *path;
        struct evconnlistener *listener;
        LIST_HEAD(, ControlClient) clients;
};

static void client_leave(ControlClient *client)
{
        Control *c = client->control;

        if (client->quits)
                (void) event_base_loopbreak(c->fleet->base);
        fleet_unwatch(c->fleet);
        LIST_REMOVE(client, entry);
        bufferevent_free(client->stream);
        free(client);
}

static void answer(ControlClient *client, const char *line)
{
        _cleanup_(freep) char *reply = order_run(client->control->fleet, line, &client->quits);

        if (!reply)
                return;
        (void) evbuffer_add(bufferevent_get_output(client->stream), reply, strlen(reply));
        (void) evbuffer_add(bufferevent_get_output(client->stream), "\n", 1);
}

static void answer_lines(ControlClient *client)
{
        struct evbuffer *in = bufferevent_get_input(client->stream);
        struct evbuffer *out = bufferevent_get_output(client->stream);

        while (!client->quits && evbuffer_get_length(out) < OUTPUT_MAX_BYTES) {
                size_t n;
                _cleanup_(freep) char *line = evbuffer_readln(in, &n, EVBUFFER_EOL_LF);

                if (!line) {
                        if (evbuffer_get_length(in) > LINE_MAX_BYTES)
                                client_leave(client);
                        return;
                }
                answer(client, line);
        }
}

static void readable(struct bufferevent *stream, void *userdata)
{
        answer_lines(userdata);
}

/* All answers are sent. */
static void written(struct bufferevent *stream, void *userdata)
{
        ControlClient *client = userdata;

        if (client->quits || client->leaving)
                client_leave(client);
        else
                answer_lines(client);
}

static void ended(struct bufferevent *stream, short what, void *userdata)
{
        ControlClient *client = userdata;

        /* `echo ... | nc` has said everything and still wants to hear. */
        client->leaving = true;
        if (!(what & BEV_EVENT_EOF) || evbuffer_get_length(bufferevent_get_output(stream)) == 0)
                client_leave(client);
}

static void accepted(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address, int n,
                     void *userdata)
{
        Control *c = userdata;
        ControlClient *client = calloc(1, sizeof *client);
        struct bufferevent *stream =
                bufferevent_socket_new(c->fleet->base, fd, BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS);

        if (!client || !stream) {
                if (stream)
                        bufferevent_free(stream);
                else
                        (void) close(fd);
                free(client);
                return;
        }
        client->control = c;
        client->stream = stream;
        LIST_INSERT_HEAD(&c->clients, client, entry);
        bufferevent_setcb(stream, readable, written, ended, client);
        bufferevent_setwatermark(stream, EV_READ, 0, LINE_MAX_BYTES + 1);
        (void) bufferevent_enable(stream, EV_READ | EV_WRITE);
        fleet_watch(c->fleet);
}

int control_new(Fleet *fleet, const char *path, Control **ret_control)
{
        _cleanup_(control_freep) Control *c = calloc(1, sizeof *c);
        int fd;

        if (!c)
                return -ENOMEM;
        c->fleet = fleet;
        LIST_INIT(&c->clients);
        fd = listen_on(path, BACKLOG);
        if (fd < 0)
                return fd;
        c->path = strdup(path);
        c->listener = evconnlistener_new(fleet->base, accepted, c,
                                         LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, fd);
        if (!c->listener)
                (void) close(fd);
        if (!c->listener || !c->path)
                return -ENOMEM;
        *ret_control = TAKE_PTR(c);
        return 0;
}

Control *control_free(Control *c)
{
        if (!c)
                return NULL;
        while (!LIST_EMPTY(&c->clients))
                client_leave(LIST_FIRST(&c->clients));
        if (c->listener)
                evconnlistener_free(c->listener);
        if (c->path)
                (void) unlink(c->path);
        free(c->path);
        free(c);
        return NULL;
}
