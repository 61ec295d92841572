/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "listener.h"

#include <sys/socket.h>

#include "address.h"
#include "common/clock.h"

#define FIRST_BYTES_USEC (5 * USEC_PER_SEC)
#define PEEK_USEC        (10 * USEC_PER_MSEC)
#define WAITING_MAX      2048 /* connections that have not said what they are */

typedef struct Guest Guest;
struct Guest {
        Guest *next;
        Listener *listener;
        int fd;
        LoopIo *io; /* until the first byte; the rest is looked for now and then */
        LoopTimer *timer;
        uint64_t until_usec;
};

struct Listener {
        Loop *loop;
        int fd;
        LoopIo *io;
        const ListenerEvents *events;
        void *userdata;
        Guest *guests;
        uint32_t n_guests;
};

static void guest_free(Guest *guest)
{
        Listener *listener = guest->listener;

        for (Guest **g = &listener->guests; *g; g = &(*g)->next)
                if (*g == guest) {
                        *g = guest->next;
                        break;
                }
        listener->n_guests--;
        loop_io_free(guest->io);
        loop_timer_free(guest->timer);
        if (guest->fd >= 0)
                (void) close(guest->fd);
        free(guest);
}

static void take_data(Guest *guest)
{
        Listener *listener = guest->listener;
        uint8_t bytes[HELLO_SIZE], answer = HELLO_REFUSED;
        Hello hello;
        int fd;

        /* Exactly these: what follows is the owner's, and may be QEMU's. */
        if (recv(guest->fd, bytes, sizeof bytes, MSG_DONTWAIT) != sizeof bytes ||
            hello_decode(bytes, &hello) < 0) {
                guest_free(guest);
                return;
        }
        fd = dup(guest->fd);
        if (fd >= 0 && listener->events->data(listener->userdata, &hello, fd))
                answer = HELLO_TAKEN;
        else if (fd >= 0)
                (void) close(fd);
        /* One byte fits into any socket; a sender that is gone will be missed by whoever waits for its data. */
        (void) send(guest->fd, &answer, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        guest_free(guest);
}

static void on_guest(void *userdata)
{
        Guest *guest = userdata;
        Listener *listener = guest->listener;
        uint8_t bytes[HELLO_SIZE];
        ssize_t n = recv(guest->fd, bytes, sizeof bytes, MSG_PEEK | MSG_DONTWAIT);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return;
        if (n <= 0) {
                guest_free(guest);
        } else if (n >= 4 && !hello_is_magic(bytes)) {
                listener->events->control(listener->userdata, TAKE_FD(guest->fd));
                guest_free(guest);
        } else if (n == HELLO_SIZE) {
                take_data(guest);
        } else {
                /* Peeking at too little again and again would keep the loop awake. */
                guest->io = loop_io_free(guest->io);
                loop_timer_set(guest->timer, PEEK_USEC);
        }
}

static void on_timer(void *userdata)
{
        Guest *guest = userdata;

        if (clock_monotonic_usec() >= guest->until_usec)
                guest_free(guest);
        else
                on_guest(guest);
}

static void on_accept(void *userdata)
{
        Listener *listener = userdata;
        int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        Guest *guest;

        if (fd < 0)
                return;
        guest = listener->n_guests < WAITING_MAX ? calloc(1, sizeof *guest) : NULL;
        if (!guest) {
                (void) close(fd);
                return;
        }
        *guest = (Guest){.next = listener->guests, .listener = listener, .fd = fd};
        listener->guests = guest;
        listener->n_guests++;
        guest->until_usec = clock_monotonic_usec() + FIRST_BYTES_USEC;
        if (loop_io_new(listener->loop, fd, on_guest, NULL, guest, &guest->io) < 0 ||
            loop_timer_new(listener->loop, on_timer, guest, &guest->timer) < 0) {
                guest_free(guest);
                return;
        }
        loop_timer_set(guest->timer, FIRST_BYTES_USEC);
}

Listener *listener_free(Listener *listener)
{
        if (!listener)
                return NULL;
        while (listener->guests)
                guest_free(listener->guests);
        loop_io_free(listener->io);
        if (listener->fd >= 0)
                (void) close(listener->fd);
        free(listener);
        return NULL;
}

DEFINE_CLEANUP(Listener *, listener_free);

int listener_new(Loop *loop, const char *address, const ListenerEvents *events, void *userdata,
                 Listener **ret)
{
        _cleanup_(listener_freep) Listener *listener = calloc(1, sizeof *listener);
        int r;

        if (!listener)
                return -ENOMEM;
        *listener = (Listener){.loop = loop, .events = events, .userdata = userdata};
        listener->fd = address_listen(address);
        if (listener->fd < 0)
                return listener->fd;
        r = loop_io_new(loop, listener->fd, on_accept, NULL, listener, &listener->io);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(listener);
        return 0;
}
