/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The helper is root and obeys what comes here. */

#include <fcntl.h>
#include <sys/socket.h>

#include "daemon/helper/helper-protocol.h"
#include "test.h"

#define TEXT_MAX (HELPER_PACKET_MAX - sizeof(HelperHead))

static void make_pair(int s[2])
{
        static const int room = 4 * HELPER_PACKET_MAX;

        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, s), 0);
        assert_int_equal(setsockopt(s[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof room), 0);
}

static HelperPacket *new_packet(HelperRequest request)
{
        HelperPacket *p = calloc(1, sizeof *p);

        assert_non_null(p);
        p->head.magic = HELPER_MAGIC;
        p->head.request = request;
        return p;
}

/* What the receiver says of `size` bytes of it; `got` may be NULL. */
static int exchange(const HelperPacket *p, size_t size, HelperPacket *got)
{
        HelperPacket *room = got ? got : new_packet(HELPER_KILL);
        int s[2], fd = 42, r;

        make_pair(s);
        assert_int_equal(send(s[0], p, size, 0), size);
        r = helper_packet_recv(s[1], room, &fd);
        assert_int_equal(fd, r == 1 ? -1 : 42);
        (void) close(s[0]);
        (void) close(s[1]);
        if (!got)
                free(room);
        return r;
}

/* ---- what is right --------------------------------------------------------------------------------------------- */

static void test_strings_come_as_they_were_added(void **state)
{
        static const char *const strings[] = {"/usr/bin/qemu", "", "a b\n\xff", "", "-S"};
        HelperPacket *p = new_packet(HELPER_START_VMM), *got = new_packet(HELPER_KILL);
        const char *read[HELPER_STRINGS_MAX] = {};
        int s[2], fd = 42;

        p->head = (HelperHead){.request = HELPER_START_VMM, .id = 7, .status = -EIO, .pid = INT64_MAX};
        for (size_t i = 0; i < ARRAY_SIZE(strings); i++)
                assert_int_equal(helper_packet_add(p, strings[i]), 0);
        make_pair(s);
        assert_int_equal(helper_packet_send(s[0], p, -1), 0);
        assert_int_equal(helper_packet_recv(s[1], got, &fd), 1);
        assert_int_equal(fd, -1);
        assert_int_equal(got->head.id, 7);
        assert_int_equal(got->head.status, -EIO);
        assert_true(got->head.pid == INT64_MAX);
        assert_int_equal(got->head.n_strings, ARRAY_SIZE(strings));
        helper_packet_strings(got, read);
        for (size_t i = 0; i < ARRAY_SIZE(strings); i++)
                assert_string_equal(read[i], strings[i]);
        assert_null(read[ARRAY_SIZE(strings)]);
        assert_int_equal(helper_packet_recv(s[1], got, &fd), -EAGAIN);
        (void) close(s[0]);
        assert_int_equal(helper_packet_recv(s[1], got, &fd), 0);
        (void) close(s[1]);
        free(p);
        free(got);
}

static void test_a_packet_may_be_without_strings(void **state)
{
        HelperPacket *p = new_packet(HELPER_KILL);

        assert_int_equal(exchange(p, sizeof p->head, NULL), 1);
        free(p);
}

/* ---- limits ---------------------------------------------------------------------------------------------------- */

static void test_strings_fit_to_the_last_byte(void **state)
{
        char *text = malloc(TEXT_MAX + 1);
        HelperPacket *got = new_packet(HELPER_KILL);

        assert_non_null(text);
        for (size_t more = 0; more < 2; more++) {
                HelperPacket *p = new_packet(HELPER_START_VMM);

                memset(text, 'x', TEXT_MAX);
                text[TEXT_MAX - 1 - 5 + more] = 0; /* "tail" and its end are 5 bytes */
                assert_int_equal(helper_packet_add(p, text), 0);
                assert_int_equal(helper_packet_add(p, "tail"), more ? -E2BIG : 0);
                assert_int_equal(p->head.n_strings, more ? 1 : 2);
                assert_int_equal(exchange(p, sizeof p->head + p->n_text, got), 1);
                assert_int_equal(got->n_text, more ? TEXT_MAX - 4 : TEXT_MAX);
                free(p);
        }
        free(got);
        free(text);
}

static void test_there_are_at_most_512_strings(void **state)
{
        HelperPacket *p = new_packet(HELPER_START_VMM);

        for (size_t i = 0; i < HELPER_STRINGS_MAX; i++)
                assert_int_equal(helper_packet_add(p, ""), 0);
        assert_int_equal(helper_packet_add(p, ""), -E2BIG);
        assert_int_equal(p->n_text, HELPER_STRINGS_MAX);
        assert_int_equal(exchange(p, sizeof p->head + p->n_text, NULL), 1);
        p->text[p->n_text++] = 0; /* one more, by somebody else's code */
        p->head.n_strings++;
        assert_int_equal(exchange(p, sizeof p->head + p->n_text, NULL), -EBADMSG);
        free(p);
}

/* ---- hostile --------------------------------------------------------------------------------------------------- */

static void test_a_packet_cut_off_anywhere_is_refused(void **state)
{
        HelperPacket *p = new_packet(HELPER_START_AGENT);
        size_t whole;

        assert_int_equal(helper_packet_add(p, "/run/migmgr/agent/0123456789abcdef.sock"), 0);
        assert_int_equal(helper_packet_add(p, ""), 0);
        assert_int_equal(helper_packet_add(p, "name"), 0);
        whole = sizeof p->head + p->n_text;
        for (size_t size = 1; size < whole; size++)
                assert_int_equal(exchange(p, size, NULL), -EBADMSG);
        assert_int_equal(exchange(p, whole, NULL), 1);
        for (size_t size = whole + 1; size < whole + 10;
             size++) /* zeros: empty strings that nobody counted */
                assert_int_equal(exchange(p, size, NULL), -EBADMSG);
        free(p);
}

static void test_the_count_of_strings_is_true(void **state)
{
        static const uint32_t counts[] = {
                0, 1, 3, 4, HELPER_STRINGS_MAX, HELPER_STRINGS_MAX + 1, INT32_MAX, UINT32_MAX};
        HelperPacket *p = new_packet(HELPER_START_AGENT);

        assert_int_equal(helper_packet_add(p, "a"), 0);
        assert_int_equal(helper_packet_add(p, "b"), 0);
        for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
                p->head.n_strings = counts[i];
                assert_int_equal(exchange(p, sizeof p->head + p->n_text, NULL), -EBADMSG);
        }
        /* Two ends, and something behind them that has none. */
        p->head.n_strings = 2;
        p->text[p->n_text] = 'c';
        assert_int_equal(exchange(p, sizeof p->head + p->n_text + 1, NULL), -EBADMSG);
        free(p);
}

static void test_the_list_of_requests_is_closed(void **state)
{
        static const uint32_t requests[] = {0, 1, 10, HELPER_REQUEST_MAX, 1000, 0x80000001, UINT32_MAX};
        HelperPacket *p = new_packet(HELPER_KILL);

        for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
                p->head.request = requests[i];
                assert_int_equal(exchange(p, sizeof p->head, NULL),
                                 requests[i] >= 1 && requests[i] <= 10 ? 1 : -EBADMSG);
        }
        p->head.request = HELPER_KILL;
        for (int bit = 0; bit < 32; bit++) {
                p->head.magic = HELPER_MAGIC ^ 1u << bit;
                assert_int_equal(exchange(p, sizeof p->head, NULL), -EBADMSG);
        }
        free(p);
}

static void test_a_packet_that_is_larger_than_any_is_refused(void **state)
{
        HelperPacket *p = new_packet(HELPER_START_VMM);

        /* n_text, which is not sent, stands where the next bytes would be */
        assert_true(sizeof *p >= HELPER_PACKET_MAX + 8);
        assert_int_equal(exchange(p, HELPER_PACKET_MAX + 1, NULL), -EMSGSIZE);
        free(p);
}

static void test_a_file_comes_with_its_packet_and_is_closed_with_a_bad_one(void **state)
{
        for (int good = 0; good < 2; good++) {
                HelperPacket *packet = new_packet(good ? HELPER_CONNECT_DEVICE : 0);
                int s[2], p[2], fd = -1;
                char byte;

                make_pair(s);
                assert_int_equal(pipe2(p, O_NONBLOCK | O_CLOEXEC), 0);
                assert_int_equal(helper_packet_send(s[0], packet, p[1]), 0);
                (void) close(p[1]);
                assert_int_equal(helper_packet_recv(s[1], packet, &fd), good ? 1 : -EBADMSG);
                assert_int_equal(fd >= 0, good);
                assert_int_equal(read(p[0], &byte, 1), good ? -1 : 0); /* 0: nobody has it any more */
                if (fd >= 0)
                        (void) close(fd);
                (void) close(p[0]);
                (void) close(s[0]);
                (void) close(s[1]);
                free(packet);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_strings_come_as_they_were_added),
                cmocka_unit_test(test_a_packet_may_be_without_strings),
                cmocka_unit_test(test_strings_fit_to_the_last_byte),
                cmocka_unit_test(test_there_are_at_most_512_strings),
                cmocka_unit_test(test_a_packet_cut_off_anywhere_is_refused),
                cmocka_unit_test(test_the_count_of_strings_is_true),
                cmocka_unit_test(test_the_list_of_requests_is_closed),
                cmocka_unit_test(test_a_packet_that_is_larger_than_any_is_refused),
                cmocka_unit_test(test_a_file_comes_with_its_packet_and_is_closed_with_a_bad_one),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
