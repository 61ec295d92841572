/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <sys/stat.h>

#include "common/socket.h"
#include "scratch.h"

static void assert_modes(int fd)
{
        assert_true(fd >= 0);
        assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
        assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
}

/* "/ttt...t" of `size` bytes. */
static void make_path(char *path, size_t size)
{
        memset(path, 't', size);
        path[0] = '/';
        path[size] = 0;
}

/* ---- paths --------------------------------------------------------------------------------------------------- */

static void test_a_path_is_absolute_and_has_at_most_107_bytes(void **state)
{
        static const char *const bad[] = {"", "a", "./a", "unix:/a", "@a", " /a"};
        char path[256];

        for (size_t size = 1; size < sizeof path; size++) {
                make_path(path, size);
                assert_int_equal(socket_path_fits(path), size <= 107);
                if (size > 107) {
                        assert_int_equal(socket_listen(path, SOCK_STREAM), -ENAMETOOLONG);
                        assert_int_equal(socket_connect(path, SOCK_STREAM), -ENAMETOOLONG);
                }
        }
        for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
                assert_false(socket_path_fits(bad[i]));
}

/* ---- listening ----------------------------------------------------------------------------------------------- */

static void test_who_listens_is_found_and_named(void **state)
{
        static const int types[] = {SOCK_STREAM, SOCK_SEQPACKET};
        Scratch scratch;

        scratch_init(&scratch);
        for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
                const char *path = scratch_path(&scratch, "s");
                int listener = socket_listen(path, types[i]), near, far;
                struct stat st;
                char peer[SOCKET_PATH_MAX + 1];
                pid_t pid = 0;
                uid_t uid = (uid_t) -1;

                assert_modes(listener);
                assert_int_equal(stat(path, &st), 0);
                assert_int_equal(st.st_mode & 07777, 0600);
                near = socket_connect(path, types[i]);
                assert_modes(near);
                far = accept(listener, NULL, NULL);
                assert_true(far >= 0);
                assert_int_equal(socket_peer(far, &pid, &uid), 0);
                assert_int_equal(pid, getpid());
                assert_int_equal(uid, getuid());
                assert_int_equal(socket_peer_path(near, peer), 0);
                assert_string_equal(peer, path);
                assert_int_equal(socket_peer_path(far, peer), -ENOTCONN);
                (void) close(near);
                (void) close(far);
                (void) close(listener);
                assert_int_equal(unlink(path), 0);
        }
        scratch_deinit(&scratch);
}

static void test_a_socket_in_use_is_not_taken_away(void **state)
{
        Scratch scratch;
        const char *path;
        int listener, near;

        scratch_init(&scratch);
        path = scratch_path(&scratch, "s");
        listener = socket_listen(path, SOCK_SEQPACKET);
        assert_true(listener >= 0);
        assert_int_equal(socket_listen(path, SOCK_SEQPACKET), -EADDRINUSE);
        assert_int_equal(socket_listen(path, SOCK_STREAM), -EADDRINUSE);
        near = socket_connect(path, SOCK_SEQPACKET);
        assert_true(near >= 0);
        (void) close(near);
        (void) close(listener);
        scratch_deinit(&scratch);
}

static void test_a_listener_whose_queue_is_full_listens_all_the_same(void **state)
{
        Scratch scratch;
        int listener, near[200];
        size_t n = 0;

        scratch_init(&scratch);
        listener = socket_listen(scratch_path(&scratch, "s"), SOCK_STREAM);
        assert_true(listener >= 0);
        while (n < ARRAY_SIZE(near) && (near[n] = socket_connect(scratch.path, SOCK_STREAM)) >= 0)
                n++;
        assert_true(n < ARRAY_SIZE(near));
        assert_int_equal(socket_listen(scratch.path, SOCK_STREAM), -EADDRINUSE);
        while (n > 0)
                (void) close(near[--n]);
        (void) close(listener);
        scratch_deinit(&scratch);
}

/* Connecting to any file is refused: that alone does not make it a socket that was left behind. */
static void test_a_file_that_is_no_socket_is_left_alone(void **state)
{
        Scratch scratch;
        struct stat st;

        scratch_init(&scratch);
        scratch_write(&scratch, "precious", "data", 4);
        assert_int_equal(socket_listen(scratch.path, SOCK_STREAM), -EADDRINUSE);
        assert_int_equal(stat(scratch.path, &st), 0);
        assert_int_equal(st.st_size, 4);
        assert_int_equal(symlink("precious", scratch_path(&scratch, "link")), 0);
        assert_int_equal(socket_listen(scratch.path, SOCK_STREAM), -EADDRINUSE);
        assert_int_equal(lstat(scratch.path, &st), 0);
        assert_int_equal(socket_listen(scratch.dir, SOCK_STREAM), -EADDRINUSE);
        scratch_deinit(&scratch);
}

/* What a daemon that was killed leaves behind. */
static void test_a_socket_that_nobody_listens_on_is_replaced(void **state)
{
        Scratch scratch;
        const char *path;
        int first, second, near;

        scratch_init(&scratch);
        path = scratch_path(&scratch, "s");
        first = socket_listen(path, SOCK_STREAM);
        assert_true(first >= 0);
        (void) close(first);
        assert_int_equal(socket_connect(path, SOCK_STREAM), -ECONNREFUSED);
        second = socket_listen(path, SOCK_STREAM);
        assert_true(second >= 0);
        near = socket_connect(path, SOCK_STREAM);
        assert_true(near >= 0);
        (void) close(near);
        (void) close(second);
        scratch_deinit(&scratch);
}

static void test_connecting_says_what_is_there(void **state)
{
        Scratch scratch;
        int listener, near[200];
        size_t n = 0;

        scratch_init(&scratch);
        assert_int_equal(socket_connect(scratch_path(&scratch, "absent"), SOCK_STREAM), -ENOENT);
        listener = socket_listen(scratch_path(&scratch, "s"), SOCK_STREAM);
        assert_true(listener >= 0);
        /* Nobody accepts: some day the queue is full, and that is said, not waited for. */
        while (n < ARRAY_SIZE(near) && (near[n] = socket_connect(scratch.path, SOCK_STREAM)) >= 0)
                n++;
        assert_true(n < ARRAY_SIZE(near));
        assert_int_equal(near[n], -EAGAIN);
        while (n > 0)
                (void) close(near[--n]);
        (void) close(listener);
        scratch_deinit(&scratch);
}

/* ---- packets ------------------------------------------------------------------------------------------------- */

static void make_pair(int fds[2])
{
        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
}

/* Whether the other end of a pipe is still open somewhere. */
static bool is_held(int pipe_in)
{
        char byte;

        return read(pipe_in, &byte, 1) < 0 && errno == EAGAIN;
}

static void test_packets_keep_their_bounds(void **state)
{
        uint8_t sent[4096], got[4096];
        size_t n_fds = 42;
        int s[2];

        for (size_t i = 0; i < sizeof sent; i++)
                sent[i] = (uint8_t) (i * 7 + i / 256);
        make_pair(s);
        assert_int_equal(socket_recv(s[1], got, sizeof got, NULL, 0, &n_fds), -EAGAIN);
        assert_int_equal(socket_send(s[0], sent, 1, NULL, 0), 0);
        assert_int_equal(socket_send(s[0], sent, sizeof sent, NULL, 0), 0);
        assert_int_equal(socket_send(s[0], sent, 3, NULL, 0), 0);
        assert_int_equal(socket_recv(s[1], got, sizeof got, NULL, 0, &n_fds), 1);
        assert_int_equal(n_fds, 0);
        assert_int_equal(socket_recv(s[1], got, sizeof got, NULL, 0, &n_fds), sizeof sent);
        assert_memory_equal(got, sent, sizeof sent);
        assert_int_equal(socket_recv(s[1], got, 2, NULL, 0, &n_fds), -EMSGSIZE);
        (void) close(s[0]);
        assert_int_equal(socket_recv(s[1], got, sizeof got, NULL, 0, &n_fds), 0);
        assert_int_equal(socket_send(s[1], sent, 1, NULL, 0), -EPIPE);
        (void) close(s[1]);
}

static void test_an_end_that_is_gone_is_an_error_and_no_signal(void **state)
{
        int s[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s), 0);
        (void) close(s[0]);
        assert_int_equal(socket_send(s[1], "x", 1, NULL, 0), -EPIPE);
        (void) close(s[1]);
}

/* Each packet carries `n` write ends of one pipe; `max` are asked for. In the end nobody holds any. */
static void test_files_arrive_or_are_closed(void **state)
{
        for (size_t n = 0; n <= SOCKET_FDS_MAX; n++)
                for (size_t max = 0; max <= SOCKET_FDS_MAX; max++)
                        for (size_t room = 1; room <= 8; room += 7) { /* 1: the packet does not fit */
                                int s[2], p[2], fds[SOCKET_FDS_MAX], got[SOCKET_FDS_MAX];
                                size_t n_got = 42;
                                uint8_t packet[8] = {};
                                ssize_t r;

                                make_pair(s);
                                assert_int_equal(pipe2(p, O_NONBLOCK | O_CLOEXEC), 0);
                                for (size_t i = 0; i < n; i++)
                                        fds[i] = p[1];
                                assert_int_equal(socket_send(s[0], packet, 8, fds, n), 0);
                                (void) close(p[1]);
                                assert_int_equal(is_held(p[0]), n > 0);
                                r = socket_recv(s[1], packet, room, got, max, &n_got);
                                assert_int_equal(r, room < 8 ? -EMSGSIZE : 8);
                                if (r < 0)
                                        n_got = 0;
                                else
                                        assert_int_equal(n_got, MIN(n, max));
                                assert_int_equal(is_held(p[0]), n_got > 0);
                                for (size_t i = 0; i < n_got; i++) {
                                        assert_true(fcntl(got[i], F_GETFD) & FD_CLOEXEC);
                                        (void) close(got[i]);
                                }
                                assert_false(is_held(p[0]));
                                (void) close(p[0]);
                                (void) close(s[0]);
                                (void) close(s[1]);
                        }
}

static void test_more_files_than_allowed_are_not_sent(void **state)
{
        int s[2], fds[SOCKET_FDS_MAX + 1] = {0, 0, 0, 0, 0};

        make_pair(s);
        assert_int_equal(socket_send(s[0], "x", 1, fds, SOCKET_FDS_MAX + 1), -E2BIG);
        assert_int_equal(socket_recv(s[1], fds, sizeof fds, NULL, 0, NULL), -EAGAIN);
        (void) close(s[0]);
        (void) close(s[1]);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_path_is_absolute_and_has_at_most_107_bytes),
                cmocka_unit_test(test_who_listens_is_found_and_named),
                cmocka_unit_test(test_a_socket_in_use_is_not_taken_away),
                cmocka_unit_test(test_a_listener_whose_queue_is_full_listens_all_the_same),
                cmocka_unit_test(test_a_file_that_is_no_socket_is_left_alone),
                cmocka_unit_test(test_a_socket_that_nobody_listens_on_is_replaced),
                cmocka_unit_test(test_connecting_says_what_is_there),
                cmocka_unit_test(test_packets_keep_their_bounds),
                cmocka_unit_test(test_an_end_that_is_gone_is_an_error_and_no_signal),
                cmocka_unit_test(test_files_arrive_or_are_closed),
                cmocka_unit_test(test_more_files_than_allowed_are_not_sent),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
