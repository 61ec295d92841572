/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A stream between two devices of this test: through shared memory, and where that can't be had through the connection;
 * and each side alone, with somebody at the other end who does not keep to docs/wire.md. */

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "common/crc32c.h"
#include "common/socket.h"
#include "daemon/agent/slots.h"
#include "daemon/agent/stream.h"
#include "daemon/peer/frame.h"
#include "fake-device.h"
#include "test.h"

#define STATE_SIZE (9 * FRAME_SLOT_SIZE + 4711)
#define ROUNDS     100000 /* of the loop, each as soon as it can be: what has not come by then does not come */

static struct event_base *base;

/* ---- a stream, and who is at its other end ----------------------------------------------------------------------- */

typedef struct End {
        FakeDevice fake;
        Stream *stream;
        int fd;
        bool ended;
        int status;
} End;

static void on_end(void *userdata, int status, const char *text)
{
        End *end = userdata;

        end->ended = true;
        end->status = status;
}

static void end_init(End *end, bool out, size_t size, int fd)
{
        *end = (End){.fd = fd};
        fake_device_init(&end->fake, base, size, out);
        assert_int_equal((out ? stream_out_new : stream_in_new)(base, &end->fake.device, fd, on_end, end,
                                                                &end->stream),
                         0);
}

static void end_deinit(End *end)
{
        stream_free(end->stream);
        fake_device_deinit(&end->fake);
        (void) close(end->fd);
}

/* Until it has ended or, without one, nothing happens any more. */
static void run(const End *end)
{
        for (int i = 0; i < (end ? ROUNDS : 50) && !(end && end->ended); i++)
                (void) event_base_loop(base, EVLOOP_NONBLOCK);
}

static void pair(int fds[2])
{
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
}

static void say_with(int fd, Frame frame, const void *payload, int file)
{
        uint8_t bytes[FRAME_HEADER_SIZE + 64];

        frame_encode(&frame, bytes);
        if (payload)
                memcpy(bytes + FRAME_HEADER_SIZE, payload, frame.length);
        assert_int_equal(socket_send(fd, bytes, FRAME_HEADER_SIZE + (payload ? frame.length : 0), &file,
                                     file >= 0 ? 1 : 0),
                         0);
}

static void say(int fd, Frame frame)
{
        say_with(fd, frame, NULL, -1);
}

/* What has been said by then; a file that came first is closed, or given. */
static size_t hear(int fd, void *bytes, size_t max, int *ret_file)
{
        int file = -1;
        size_t n_files = 0;
        ssize_t n;

        run(NULL);
        n = socket_recv(fd, bytes, max, &file, 1, &n_files);
        if (ret_file)
                *ret_file = n_files > 0 ? file : -1;
        else if (n_files > 0)
                (void) close(file);
        return n < 0 ? 0 : (size_t) n;
}

static void assert_says(int fd, uint8_t byte)
{
        uint8_t bytes[8];

        assert_int_equal(hear(fd, bytes, sizeof bytes, NULL), 1);
        assert_int_equal(bytes[0], byte);
}

/* ---- both ends ------------------------------------------------------------------------------------------------- */

/* Passes on what is said, and no files, as something in the middle would. */
static size_t pass(int from, int to)
{
        uint8_t bytes[65536];
        ssize_t n = recv(from, bytes, sizeof bytes, MSG_DONTWAIT);

        for (ssize_t done = 0; done < n;) {
                ssize_t sent = send(to, bytes + done, (size_t) (n - done), MSG_DONTWAIT | MSG_NOSIGNAL);

                done += MAX(sent, 0);
                if (sent < 0)
                        (void) event_base_loop(base, EVLOOP_NONBLOCK);
        }
        return (size_t) MAX(n, 0);
}

static void check_arrived(End *out, End *in, size_t size)
{
        assert_true(in->ended && in->status == 0);
        assert_true(out->ended && out->status == 0);
        assert_int_equal(in->fake.at, size);
        assert_memory_equal(in->fake.state, out->fake.state, size);
        assert_true(stream_bytes(in->stream) == size && stream_bytes(out->stream) == size);
}

static void move(size_t size, size_t transfer_max)
{
        End out, in;
        int fds[2];

        pair(fds);
        end_init(&out, true, size, fds[0]);
        end_init(&in, false, size, fds[1]);
        in.fake.device.facts.transfer_max = transfer_max;
        run(&in);
        check_arrived(&out, &in, size);
        end_deinit(&out);
        end_deinit(&in);
}

static void test_state_of_any_size_arrives(void **state)
{
        static const size_t sizes[] = {
                0, 1, 16384, 16385, FRAME_SLOT_SIZE, FRAME_SLOTS * FRAME_SLOT_SIZE, STATE_SIZE};

        for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
                move(sizes[i], DEVICE_TRANSFER_MAX);
                move(sizes[i], 60000); /* less than a slot has */
        }
}

static void test_through_something_that_passes_no_files(void **state)
{
        int near[2], far[2];
        size_t passed = 0;
        End out, in;

        pair(near);
        pair(far);
        end_init(&out, true, STATE_SIZE, near[0]);
        end_init(&in, false, STATE_SIZE, far[1]);
        for (int i = 0; i < ROUNDS && !in.ended; i++) {
                (void) event_base_loop(base, EVLOOP_NONBLOCK);
                passed += pass(near[1], far[0]);
                (void) pass(far[0], near[1]);
        }
        check_arrived(&out, &in, STATE_SIZE);
        assert_true(passed > STATE_SIZE);
        end_deinit(&out);
        end_deinit(&in);
        (void) close(near[1]);
        (void) close(far[0]);
}

/* ---- a hostile source -------------------------------------------------------------------------------------------- */

/* One that says the first thing. */
static int begin_in(End *in, int file)
{
        int fds[2];

        pair(fds);
        end_init(in, false, STATE_SIZE, fds[0]);
        if (file >= 0)
                say_with(fds[1], (Frame){.type = FRAME_MEMORY}, NULL, file);
        return fds[1];
}

static int good_file(void)
{
        uint8_t *slots;
        int fd;

        assert_int_equal(slots_new_file(&slots, &fd), 0);
        slots_free(slots);
        return fd;
}

static int sealed(size_t size, int seals)
{
        int fd = memfd_create("slots", MFD_CLOEXEC | MFD_ALLOW_SEALING);

        assert_int_equal(ftruncate(fd, (off_t) size), 0);
        assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
        return fd;
}

static void test_a_file_that_could_shrink_is_refused(void **state)
{
        int both = F_SEAL_SHRINK | F_SEAL_GROW;
        const int files[] = {
                sealed(SLOTS_SIZE, 0),
                sealed(SLOTS_SIZE, F_SEAL_GROW),
                sealed(SLOTS_SIZE, F_SEAL_SHRINK),
                sealed(SLOTS_SIZE - 1, both),
                sealed(SLOTS_SIZE + 1, both),
                sealed(0, both),
                open("/dev/zero", O_RDWR),
                open("/proc/self/exe", O_RDONLY),
        };

        for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
                End in;
                int fd = begin_in(&in, files[i]);

                assert_says(fd, FRAME_MEMORY_REFUSED);
                /* ... and the state comes all the same. */
                say_with(fd, (Frame){.type = FRAME_DATA, .length = 4, .crc = crc32c("abcd", 4)}, "abcd", -1);
                say(fd, (Frame){.type = FRAME_END, .offset = 4});
                run(&in);
                assert_true(in.ended && in.status == 0 && in.fake.at == 4);
                assert_memory_equal(in.fake.state, "abcd", 4);
                end_deinit(&in);
                (void) close(fd);
                (void) close(files[i]);
        }
}

static void test_an_offer_without_a_file_is_refused(void **state)
{
        int fds[2];
        End in;

        pair(fds);
        end_init(&in, false, STATE_SIZE, fds[0]);
        say(fds[1], (Frame){.type = FRAME_MEMORY});
        assert_says(fds[1], FRAME_MEMORY_REFUSED);
        assert_false(in.ended);
        end_deinit(&in);
        (void) close(fds[1]);
}

static void test_what_is_not_due_ends_the_stream(void **state)
{
        const Frame slot = {.type = FRAME_SLOT, .length = 1}, memory = {.type = FRAME_MEMORY},
                    data = {.type = FRAME_DATA, .length = 4, .crc = crc32c("abcd", 4)};
        const struct {
                bool offer;
                Frame frames[2];
        } rows[] = {
                {false, {slot}},                          /* there is no memory */
                {true, {memory}},                         /* a second offer */
                {true, {data}},                           /* the memory is not ours to write to */
                {true, {slot, {FRAME_SLOT, 1, 1}}},       /* the device has not taken what is in it */
                {true, {slot, {FRAME_SLOT, 2, 1, 0, 1}}}, /* a gap */
                {true, {{FRAME_SLOT, 0, 1, 0, 0}, {FRAME_PAGES, 1, 1}}},
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                int file = rows[i].offer ? good_file() : -1;
                End in;
                int fd = begin_in(&in, file);

                in.fake.hangs = true;
                for (size_t k = 0; k < 2 && rows[i].frames[k].type != 0; k++)
                        say_with(fd, rows[i].frames[k], rows[i].frames[k].type == FRAME_DATA ? "abcd" : NULL,
                                 -1);
                run(&in);
                assert_true(in.ended && in.status == -EBADMSG);
                end_deinit(&in);
                (void) close(fd);
                (void) close(file);
        }
}

/* What came before it lies in memory of our own, which goes then. */
static void test_an_offer_is_answered_when_the_device_has_what_came_before(void **state)
{
        int file = good_file();
        uint8_t bytes[8];
        End in;
        int fd = begin_in(&in, -1);

        in.fake.hangs = true;
        say_with(fd, (Frame){.type = FRAME_DATA, .length = 4, .crc = crc32c("abcd", 4)}, "abcd", -1);
        say_with(fd, (Frame){.type = FRAME_MEMORY, .offset = 4}, NULL, file);
        assert_int_equal(hear(fd, bytes, sizeof bytes, NULL), 0);
        in.fake.hangs = false;
        event_active(in.fake.kick, EV_TIMEOUT, 0);
        assert_says(fd, FRAME_MEMORY_TAKEN);
        assert_memory_equal(in.fake.state, "abcd", 4);
        end_deinit(&in);
        (void) close(fd);
        (void) close(file);
}

/* A slot is given back when the device has taken what is in it, and not before; by its number, for a device may take the
 * second first. */
static void test_slots_are_returned_when_the_device_has_them(void **state)
{
        int file = good_file();
        uint8_t bytes[8];
        End in;
        int fd = begin_in(&in, file);

        assert_says(fd, FRAME_MEMORY_TAKEN);
        in.fake.hangs = in.fake.last_first = true;
        say(fd, (Frame){.type = FRAME_SLOT, .offset = 0, .length = 1, .slot = 3});
        say(fd, (Frame){.type = FRAME_SLOT, .offset = 1, .length = 1, .slot = 1});
        assert_int_equal(hear(fd, bytes, sizeof bytes, NULL), 0);
        in.fake.hangs = false;
        event_active(in.fake.kick, EV_TIMEOUT, 0);
        assert_int_equal(hear(fd, bytes, sizeof bytes, NULL), 2);
        assert_true(bytes[0] == FRAME_RETURN + 1 && bytes[1] == FRAME_RETURN + 3);
        /* Then they may be used again. */
        say(fd, (Frame){.type = FRAME_SLOT, .offset = 2, .length = 1, .slot = 3});
        assert_says(fd, FRAME_RETURN + 3);
        end_deinit(&in);
        (void) close(fd);
        (void) close(file);
}

/* ---- a hostile destination --------------------------------------------------------------------------------------- */

/* One that has read as far as the offer, which is the last thing that goes before its answer. */
static int begin_out(End *out)
{
        static uint8_t bytes[2 * FRAME_SLOT_SIZE];
        Frame frame = {};
        int fds[2], file = -1;

        pair(fds);
        end_init(out, true, STATE_SIZE, fds[0]);
        for (size_t n = 0; file < 0;) {
                size_t more = hear(fds[1], bytes + n, sizeof bytes - n, &file);

                assert_true(more > 0);
                n += more;
                if (file >= 0)
                        assert_int_equal(frame_decode(bytes + n - FRAME_HEADER_SIZE, &frame), 0);
        }
        assert_int_equal(frame.type, FRAME_MEMORY);
        /* Nobody can take it away from either. */
        assert_int_equal(ftruncate(file, 0), -1);
        (void) close(file);
        return fds[1];
}

static void test_nothing_goes_before_the_answer(void **state)
{
        uint8_t bytes[64];
        End out;
        int fd = begin_out(&out);

        assert_int_equal(hear(fd, bytes, sizeof bytes, NULL), 0);
        assert_false(out.ended);
        end_deinit(&out);
        (void) close(fd);
}

static void test_what_is_not_returned_is_not_used_again(void **state)
{
        uint8_t bytes[4096], first;
        End out;
        int fd = begin_out(&out);

        assert_int_equal(send(fd, "\1", 1, 0), 1);
        assert_int_equal(hear(fd, bytes, sizeof bytes, NULL), FRAME_SLOTS * FRAME_HEADER_SIZE);
        first = (uint8_t) (FRAME_RETURN + bytes[20]);
        assert_int_equal(hear(fd, bytes, sizeof bytes, NULL), 0);
        assert_false(out.ended); /* its deadline is its program's */
        assert_int_equal(send(fd, &first, 1, 0), 1);
        assert_int_equal(hear(fd, bytes, sizeof bytes, NULL), FRAME_HEADER_SIZE);
        assert_int_equal(FRAME_RETURN + bytes[20], first);
        end_deinit(&out);
        (void) close(fd);
}

static void test_answers_that_are_not_due_end_the_stream(void **state)
{
        static const char *rows[] = {
                "\x03",         /* no answer at all */
                "\x06",         /* to a mark that was not sent */
                "\x10",         /* to what was not lent */
                "\x01\x01",     /* a second time */
                "\x02\x01",     /* ... and another one */
                "\x02\x10",     /* returned, though refused */
                "\x01\x10\x10", /* returned twice */
                "\x01\x14",     /* there is no such slot */
                "\x01\x0f",
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                End out;
                int fd = begin_out(&out);

                for (const char *c = rows[i]; *c; c++) {
                        /* Each when the one before has been heard; what is lent again must not be what is returned. */
                        out.fake.hangs = c > rows[i];
                        assert_int_equal(send(fd, c, 1, 0), 1);
                        run(NULL);
                }
                run(&out);
                assert_true(out.ended && out.status == -EPROTO);
                end_deinit(&out);
                (void) close(fd);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_state_of_any_size_arrives),
                cmocka_unit_test(test_through_something_that_passes_no_files),
                cmocka_unit_test(test_a_file_that_could_shrink_is_refused),
                cmocka_unit_test(test_an_offer_without_a_file_is_refused),
                cmocka_unit_test(test_what_is_not_due_ends_the_stream),
                cmocka_unit_test(test_an_offer_is_answered_when_the_device_has_what_came_before),
                cmocka_unit_test(test_slots_are_returned_when_the_device_has_them),
                cmocka_unit_test(test_nothing_goes_before_the_answer),
                cmocka_unit_test(test_what_is_not_returned_is_not_used_again),
                cmocka_unit_test(test_answers_that_are_not_due_end_the_stream),
        };
        int r;

        base = event_base_new();
        r = cmocka_run_group_tests(tests, NULL, NULL);
        event_base_free(base);
        return r;
}
