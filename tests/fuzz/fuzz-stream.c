/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Bytes from the other agent, on a data connection. The first byte chooses whose they are, the source's or the destination's,
 * and the file that comes with the first of them. Whatever comes, the device gets no more than it allows (fake-device.h insists),
 * and every byte of it can be read. */

#include <sys/mman.h>
#include <sys/socket.h>

#include "common/socket.h"
#include "daemon/agent/slots.h"
#include "daemon/agent/stream.h"
#include "fuzz.h"
#include "tests/unit/fake-device.h"

#define WIRE_MAX   (64 * 1024)
#define STATE_SIZE (2 * 1024 * 1024 + 1)
#define ROUNDS     64 /* of the loop, for a piece */

enum {
        DESTINATION = 1 << 0, /* they answer what we send; else they are what we are sent */
        HANGS = 1 << 1,       /* our device answers nothing until all has come */
        FILE_SHIFT = 2,
        FILE_NONE = 0,
        FILE_GOOD = 1,
        FILE_UNSEALED = 2,
        FILE_EMPTY = 3,
};

static void on_end(void *userdata, int status, const char *text)
{
        *(bool *) userdata = true;
}

static int make_file(unsigned int kind)
{
        uint8_t *slots;
        int fd = -1;

        if (kind == FILE_NONE)
                return -1;
        if (kind == FILE_GOOD) {
                if (slots_new_file(&slots, &fd) < 0)
                        abort();
                slots_free(slots);
                return fd;
        }
        fd = memfd_create("slots", MFD_CLOEXEC);
        if (fd < 0 || ftruncate(fd, kind == FILE_UNSEALED ? (off_t) SLOTS_SIZE : 0) < 0)
                abort();
        return fd;
}

static void run(struct event_base *base, int fd, const bool *ended)
{
        static uint8_t scrap[WIRE_MAX];

        for (int i = 0; i < ROUNDS && !*ended; i++) {
                (void) event_base_loop(base, EVLOOP_NONBLOCK);
                (void) recv(fd, scrap, sizeof scrap, MSG_DONTWAIT);
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct event_base *base = event_base_new();
        uint8_t how = size > 0 ? data[0] : 0;
        int fds[2], file = make_file(how >> FILE_SHIFT & 3);
        bool out = how & DESTINATION, ended = false;
        FakeDevice fake;
        Stream *stream;

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) < 0)
                abort();
        fake_device_init(&fake, base, STATE_SIZE, out);
        if ((out ? stream_out_new : stream_in_new)(base, &fake.device, fds[0], on_end, &ended, &stream) < 0)
                abort();
        fake.hangs = how & HANGS;
        run(base, fds[1], &ended);
        if (size > 1 && size <= WIRE_MAX && !ended) {
                if (socket_send(fds[1], data + 1, size - 1, &file, file >= 0 ? 1 : 0) < 0)
                        abort();
                run(base, fds[1], &ended);
        }
        fake.hangs = false;
        event_active(fake.kick, EV_TIMEOUT, 0);
        run(base, fds[1], &ended);
        stream_free(stream);
        fake_device_deinit(&fake);
        for (int i = 0; i < 2; i++)
                (void) close(fds[i]);
        if (file >= 0)
                (void) close(file);
        event_base_free(base);
        return 0;
}
