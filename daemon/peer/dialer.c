/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "dialer.h"

#include <stdio.h>

#include "address.h"

/* A VM may stand still for want of an answer, and be settled as soon as the peer is back: it is not waited for much longer than
 * it takes. */
#define FIRST_USEC (50 * USEC_PER_MSEC)
#define LAST_USEC  (250 * USEC_PER_MSEC)

struct Dialer {
        Loop *loop;
        char address[ADDRESS_MAX + 1];
        const char *host_id, *boot_id;
        Link *link;
        LoopTimer *timer;
        uint64_t wait_usec;
        const DialerListener *listener;
        void *userdata;
};

const char *dialer_address(const Dialer *dialer)
{
        return dialer->address;
}

bool dialer_is_up(const Dialer *dialer)
{
        return dialer->link && link_is_up(dialer->link);
}

void dialer_send(Dialer *dialer, json_object *message)
{
        if (dialer_is_up(dialer))
                link_send(dialer->link, message);
        else
                json_object_put(message);
}

static void dial_later(Dialer *dialer)
{
        loop_timer_set(dialer->timer, dialer->wait_usec);
        dialer->wait_usec = MIN(dialer->wait_usec * 2, LAST_USEC);
}

static void on_up(void *userdata, Link *link)
{
        Dialer *dialer = userdata;

        dialer->wait_usec = FIRST_USEC;
        dialer->listener->up(dialer->userdata, dialer);
}

static void on_message(void *userdata, Link *link, Message type, const char *job, json_object *body)
{
        Dialer *dialer = userdata;

        dialer->listener->message(dialer->userdata, dialer, type, job, body);
}

static void on_down(void *userdata, Link *link, int status, const char *text)
{
        Dialer *dialer = userdata;
        char copy[JSON_TEXT_MAX];

        (void) snprintf(copy, sizeof copy, "%s: %s", dialer->address, text);
        dialer->link = link_free(dialer->link);
        dial_later(dialer);
        dialer->listener->down(dialer->userdata, dialer, status, copy);
}

static void dial(void *userdata)
{
        static const LinkListener listener = {on_up, on_message, on_down};
        Dialer *dialer = userdata;
        int fd = address_connect(dialer->address), r = fd;
        char text[JSON_TEXT_MAX];

        if (fd >= 0)
                r = link_new(dialer->loop, fd, dialer->host_id, dialer->boot_id, &listener, dialer,
                             &dialer->link);
        if (r >= 0)
                return;
        dial_later(dialer);
        (void) snprintf(text, sizeof text, "%s: %s", dialer->address, strerror(-r));
        dialer->listener->down(dialer->userdata, dialer, r, text);
}

Dialer *dialer_free(Dialer *dialer)
{
        if (!dialer)
                return NULL;
        link_free(dialer->link);
        loop_timer_free(dialer->timer);
        free(dialer);
        return NULL;
}

int dialer_new(Loop *loop, const char *address, const char *host_id, const char *boot_id,
               const DialerListener *listener, void *userdata, Dialer **ret)
{
        Dialer *dialer = calloc(1, sizeof *dialer);
        int r;

        if (!dialer)
                return -ENOMEM;
        *dialer = (Dialer){.loop = loop,
                           .host_id = host_id,
                           .boot_id = boot_id,
                           .wait_usec = FIRST_USEC,
                           .listener = listener,
                           .userdata = userdata};
        (void) snprintf(dialer->address, sizeof dialer->address, "%s", address);
        r = loop_timer_new(loop, dial, dialer, &dialer->timer);
        if (r < 0) {
                free(dialer);
                return r;
        }
        loop_timer_soon(dialer->timer); /* not from here: nobody expects to hear of it yet */
        *ret = dialer;
        return 0;
}
