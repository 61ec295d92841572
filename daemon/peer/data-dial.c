/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "data-dial.h"

#include <stdio.h>
#include <sys/socket.h>

#include "address.h"
#include "common/clock.h"

#define AGAIN_USEC (2 * USEC_PER_MSEC)

struct DataDial {
        Loop *loop;
        char address[ADDRESS_MAX + 1];
        Hello hello;
        uint64_t until_usec;
        int fd;
        LoopIo *io;
        LoopTimer *timer;
        DataDialed dialed;
        void *userdata;
};

DataDial *data_dial_free(DataDial *dial)
{
        if (!dial)
                return NULL;
        loop_io_free(dial->io);
        loop_timer_free(dial->timer);
        if (dial->fd >= 0)
                (void) close(dial->fd);
        free(dial);
        return NULL;
}

static void finish(DataDial *dial, int status)
{
        int fd = status == 0 ? TAKE_FD(dial->fd) : -1;

        dial->io = loop_io_free(dial->io);
        loop_timer_set(dial->timer, 0);
        dial->dialed(dial->userdata, dial->hello.index, dial->hello.kind, status, fd);
}

static void on_answer(void *userdata)
{
        DataDial *dial = userdata;
        uint8_t answer;
        ssize_t n = recv(dial->fd, &answer, 1, MSG_DONTWAIT);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return;
        if (n < 0)
                finish(dial, -errno);
        else if (n == 0)
                finish(dial, -ECONNRESET);
        else
                finish(dial, answer == HELLO_TAKEN ? 0 : -EACCES);
}

static int say_hello(DataDial *dial)
{
        uint8_t bytes[HELLO_SIZE];
        ssize_t n;

        hello_encode(&dial->hello, bytes);
        n = send(dial->fd, bytes, sizeof bytes, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
                loop_io_want_write(dial->io); /* it is still connecting */
                return 0;
        }
        if (n < 0)
                return -errno;
        return n == sizeof bytes ? 0 : -EIO;
}

static void on_connected(void *userdata)
{
        DataDial *dial = userdata;
        int r = say_hello(dial);

        if (r < 0)
                finish(dial, r);
}

static int connect_now(DataDial *dial)
{
        int r;

        dial->fd = address_connect(dial->address);
        if (dial->fd < 0)
                return dial->fd;
        r = loop_io_new(dial->loop, dial->fd, on_answer, on_connected, dial, &dial->io);
        return r < 0 ? r : say_hello(dial);
}

/* Many devices dial at once, and a listener's queue is short: who finds it full comes again. */
static void on_timer(void *userdata)
{
        DataDial *dial = userdata;
        uint64_t now = clock_monotonic_usec();
        int r = -ETIMEDOUT;

        if (now < dial->until_usec && dial->fd < 0)
                r = connect_now(dial);
        if (r >= 0)
                loop_timer_set(dial->timer, dial->until_usec - now);
        else if (r == -EAGAIN)
                loop_timer_set(dial->timer, AGAIN_USEC);
        else
                finish(dial, r);
}

int data_dial_new(Loop *loop, const char *address, const Hello *hello, uint64_t deadline_usec,
                  DataDialed dialed, void *userdata, DataDial **ret)
{
        DataDial *dial = calloc(1, sizeof *dial);
        int r;

        if (!dial)
                return -ENOMEM;
        *dial = (DataDial){.loop = loop,
                           .hello = *hello,
                           .until_usec = clock_monotonic_usec() + deadline_usec,
                           .fd = -1,
                           .dialed = dialed,
                           .userdata = userdata};
        (void) snprintf(dial->address, sizeof dial->address, "%s", address);
        r = loop_timer_new(loop, on_timer, dial, &dial->timer);
        if (r < 0) {
                free(dial);
                return r;
        }
        loop_timer_soon(dial->timer);
        *ret = dial;
        return 0;
}
