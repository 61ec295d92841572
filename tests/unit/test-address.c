/* SPDX-License-Identifier: LGPL-2.1-or-later */

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
                {"tcp://127.0.0.1:16524", false},
                {"tls://host", false},
                {"local", false},
                {"unix:unix:/a", false},
        };

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                const char *error = "untouched";
                int r = address_check(cases[i].text, &error);

                assert_int_equal(r, cases[i].good ? 0 : -EINVAL);
                assert_int_equal(strcmp(error, "untouched") == 0, cases[i].good);
                assert_true(error[0] != 0);
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
                cmocka_unit_test(test_the_longest_path_is_107_bytes),
                cmocka_unit_test(test_connecting_reaches_who_listens_there),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
