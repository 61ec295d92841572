/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>

#include "common/socket.h"
#include "daemon/peer/address.h"
#include "scratch.h"

static void test_an_address_is_unix_and_an_absolute_path(void **state)
{
        static const struct {
                const char *text;
                bool good;
        } cases[] = {
                {"unix:/run/migmgr/peer.sock", true},
                {"unix:/", true},
                {"unix:", false},
                {"unix:peer.sock", false},
                {"unix:./peer.sock", false},
                {"unix:@abstract", false},
                {"unix: /a", false},
                {" unix:/a", false},
                {"UNIX:/a", false},
                {"unix", false},
                {"", false},
                {"/run/migmgr/peer.sock", false},
                {"tls://host", false},
                {"tls://127.0.0.1:16524", false},
                {"local", false},
                {"unix:unix:/a", false},
                {"unix:/a b~", true},
                /* what a terminal would obey, and what is no text */
                {"unix:/a\x1b[2J", false},
                {"unix:/a\n", false},
                {"unix:/a\x7f", false},
                {"unix:/a\xc2\x9b", false},
                {"unix:/a\xff", false},
                {"tcp://127.0.0.1\x1b:1", false},
                {"tls://\x1b", false},
        };

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                const char *error = "untouched";
                int r = address_check(cases[i].text, &error);

                assert_int_equal(r, cases[i].good ? 0 : -EINVAL);
                assert_int_equal(strcmp(error, "untouched") == 0, cases[i].good);
                assert_true(error[0] != 0);
        }
}

static void test_tcp_is_a_literal_loopback_address_and_a_port(void **state)
{
        static const char *const good[] = {"tcp://127.0.0.1:16525", "tcp://127.0.0.1:1",
                                           "tcp://127.255.255.254:65535", "tcp://[::1]:16525",
                                           "tcp://[0:0:0:0:0:0:0:1]:7"};
        static const char *const far[] = {
                "tcp://192.168.0.1:16525",   "tcp://128.0.0.1:1", "tcp://126.255.255.255:1",
                "tcp://0.0.0.0:1",           "tcp://[::]:1",      "tcp://[fe80::1]:1",
                "tcp://[::ffff:127.0.0.1]:1"};
        static const char *const bad[] = {
                "tcp://",
                "tcp://:1",
                "tcp://127.0.0.1",
                "tcp://127.0.0.1:",
                "tcp://127.0.0.1:0",
                "tcp://127.0.0.1:65536",
                "tcp://127.0.0.1:99999",
                "tcp://127.0.0.1:100000",
                "tcp://127.0.0.1:+1",
                "tcp://127.0.0.1: 1",
                "tcp://127.0.0.1:1 ",
                "tcp://127.0.0.1:1/",
                "tcp://127.1:1",
                "tcp://127.0.0.01:1",
                "tcp://localhost:1",
                "tcp://[127.0.0.1]:1",
                "tcp://::1:1",
                "tcp://[]:1",
                "tcp://[::1]1",
                "tcp://[::1:1",
                "tcp:127.0.0.1:1",
                "tcp://127.0.0.1:1:1",
                "TCP://127.0.0.1:1",
        };
        char text[400] = "tcp://127.0.0.1:";
        const char *error;

        for (size_t i = 0; i < ARRAY_SIZE(good); i++)
                assert_int_equal(address_check(good[i], &error), 0);
        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                assert_int_equal(address_check(bad[i], &error), -EINVAL);
                assert_null(strstr(error, "TLS"));
        }
        /* The reason is another one: what is missing is TLS. */
        for (size_t i = 0; i < ARRAY_SIZE(far); i++) {
                assert_int_equal(address_check(far[i], &error), -EINVAL);
                assert_non_null(strstr(error, "TLS is needed"));
        }
        memset(text + strlen(text), '1', 300);
        assert_int_equal(address_check(text, &error), -EINVAL);
}

static bool has_no_delay(int fd)
{
        int on = 0;
        socklen_t size = sizeof on;

        assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, &size), 0);
        return on;
}

static void wait_until(int fd, short what)
{
        struct pollfd p = {.fd = fd, .events = what};

        assert_int_equal(poll(&p, 1, 5000), 1);
}

static void test_over_tcp_both_ends_send_without_delay(void **state)
{
        static const char *const hosts[] = {"127.0.0.1", "127.1.2.3"};

        for (size_t i = 0; i < ARRAY_SIZE(hosts); i++) {
                char text[64];
                int listener = -EADDRINUSE, near, far;
                char c = 'x';

                for (int port = 20000 + getpid() % 10000; listener == -EADDRINUSE; port++) {
                        (void) snprintf(text, sizeof text, "tcp://%s:%d", hosts[i], port);
                        listener = address_listen(text);
                }
                assert_true(listener >= 0);
                assert_int_equal(address_listen(text), -EADDRINUSE);
                near = address_connect(text);
                wait_until(listener, POLLIN);
                far = accept(listener, NULL, NULL);
                assert_true(near >= 0 && far >= 0);
                assert_true(has_no_delay(near) && has_no_delay(far));
                wait_until(near, POLLOUT);
                assert_int_equal(send(near, &c, 1, 0), 1);
                wait_until(far, POLLIN);
                assert_int_equal(recv(far, &c, 1, 0), 1);
                (void) close(listener);
                (void) close(far);
                (void) close(near);
                /* Its connections linger, and do not keep the next one from listening. */
                listener = address_listen(text);
                assert_true(listener >= 0);
                (void) close(listener);
        }
}

/* What is taken must fit where addresses are kept. */
static void test_the_longest_path_is_107_bytes(void **state)
{
        for (size_t size = 1; size < 300; size++) {
                char text[512] = "unix:/";
                const char *error;

                memset(text + 6, 'p', size - 1);
                assert_int_equal(address_check(text, &error), size <= 107 ? 0 : -EINVAL);
                if (size <= 107)
                        assert_true(strlen(text) <= ADDRESS_MAX);
        }
}

static void test_connecting_reaches_who_listens_there(void **state)
{
        char text[ADDRESS_MAX + 1];
        Scratch scratch;
        int listener, near, far;

        scratch_init(&scratch);
        (void) snprintf(text, sizeof text, "unix:%.100s", scratch_path(&scratch, "peer.sock"));
        assert_int_equal(address_connect(text), -ENOENT);
        listener = socket_listen(scratch.path, SOCK_STREAM);
        assert_true(listener >= 0);
        near = address_connect(text);
        far = accept(listener, NULL, NULL);
        assert_true(near >= 0 && far >= 0);
        (void) close(near);
        (void) close(far);
        (void) close(listener);
        assert_int_equal(address_connect(text), -ECONNREFUSED);
        scratch_deinit(&scratch);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_an_address_is_unix_and_an_absolute_path),
                cmocka_unit_test(test_tcp_is_a_literal_loopback_address_and_a_port),
                cmocka_unit_test(test_over_tcp_both_ends_send_without_delay),
                cmocka_unit_test(test_the_longest_path_is_107_bytes),
                cmocka_unit_test(test_connecting_reaches_who_listens_there),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
