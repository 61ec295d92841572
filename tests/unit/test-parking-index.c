/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What one daemon notes of a socket the next finds, once, and only that: nothing that is half written, removed, of another
 * socket, or from a file that is not to be trusted. */

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/parking-index.h"
#include "test.h"

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

typedef struct Rig {
        ParkingIndex *index;
        int a, b; /* two sockets */
} Rig;

static int set_up(void **state)
{
        static Rig rig;
        int fds[2];

        assert_return_code(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), errno);
        assert_int_equal(parking_index_new(&rig.index), 0);
        rig.a = fds[0];
        rig.b = fds[1];
        *state = &rig;
        return 0;
}

static int tear_down(void **state)
{
        Rig *rig = *state;

        parking_index_free(rig->index);
        (void) close(rig->a);
        (void) close(rig->b);
        return 0;
}

/* As the store gives it to the next daemon. */
static int handed_on(const Rig *rig)
{
        int fd = dup(parking_index_fd(rig->index));

        assert_return_code(fd, errno);
        return fd;
}

static ParkingIndex *next(const Rig *rig)
{
        ParkingIndex *index;

        assert_int_equal(parking_index_open(handed_on(rig), &index), 0);
        return index;
}

static void expect(const ParkingIndex *index, int fd, const char *note)
{
        char found[PARKING_NOTE_MAX] = "";

        if (!note) {
                for (size_t size = 0; size <= PARKING_NOTE_MAX; size++)
                        assert_false(parking_index_find(index, fd, found, size));
                return;
        }
        assert_true(parking_index_find(index, fd, found, strlen(note) + 1));
        assert_string_equal(found, note);
        assert_false(parking_index_find(index, fd, found, strlen(note)));
        assert_false(parking_index_find(index, fd, found, strlen(note) + 2));
}

static void note(Rig *rig, int fd, const char *text)
{
        parking_index_put(rig->index, fd, text, strlen(text) + 1);
}

static void test_a_note_is_found_by_its_socket(void **state)
{
        Rig *rig = *state;
        int other = dup(rig->a);
        ParkingIndex *index;

        note(rig, rig->a, "old");
        note(rig, rig->b, "b");
        note(rig, rig->a, "a");
        index = next(rig);
        expect(index, rig->a, "a");
        expect(index, rig->b, "b");
        expect(index, other, "a"); /* whatever number it has */
        (void) close(other);
        parking_index_free(index);
}

static void test_another_socket_of_the_same_number_has_none(void **state)
{
        Rig *rig = *state;
        ParkingIndex *index;
        int fds[2];

        note(rig, rig->a, "a");
        assert_return_code(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds), errno);
        assert_return_code(dup2(fds[0], rig->a), errno);
        index = next(rig);
        expect(index, rig->a, NULL);
        parking_index_free(index);
        (void) close(fds[0]);
        (void) close(fds[1]);
}

static void test_what_was_removed_is_gone(void **state)
{
        Rig *rig = *state;
        ParkingIndex *index;

        note(rig, rig->a, "a");
        note(rig, rig->b, "b");
        parking_index_remove(rig->index, rig->a);
        parking_index_remove(rig->index, rig->a);
        index = next(rig);
        expect(index, rig->a, NULL);
        expect(index, rig->b, "b");
        parking_index_free(index);
}

static void test_of_what_is_no_socket_or_too_long_there_is_none(void **state)
{
        Rig *rig = *state;
        char large[PARKING_NOTE_MAX + 1] = "";
        int file = dup(parking_index_fd(rig->index)), far = fcntl(rig->a, F_DUPFD, 65536);
        ParkingIndex *index;

        parking_index_put(rig->index, file, "x", 2);
        parking_index_put(rig->index, -1, "x", 2);
        parking_index_remove(rig->index, -1);
        if (far >= 0) { /* the limit of open files may be lower */
                note(rig, far, "far");
                parking_index_remove(rig->index, far);
                (void) close(far);
        }
        note(rig, rig->a, "a");
        parking_index_put(rig->index, rig->a, large, sizeof large);
        parking_index_put(rig->index, rig->b, large, sizeof large - 1);
        index = next(rig);
        expect(index, rig->a, NULL);
        assert_true(parking_index_find(index, rig->b, large, sizeof large - 1));
        assert_false(parking_index_find(index, rig->b, large, sizeof large));
        assert_false(parking_index_find(index, file, large, 2));
        parking_index_free(index);
        (void) close(file);
}

static void test_it_is_taken_once(void **state)
{
        Rig *rig = *state;
        ParkingIndex *index;

        note(rig, rig->a, "a");
        parking_index_free(next(rig));
        assert_int_equal(parking_index_open(handed_on(rig), &index), -EBADMSG);
}

static void __attribute__((noreturn))
write_for_ever(ParkingIndex *index, const Rig *rig, unsigned char notes[2][PARKING_NOTE_MAX])
{
        for (size_t i = 0;; i++) {
                parking_index_put(index, rig->a, notes[i % 2], PARKING_NOTE_MAX);
                if (i == 100)
                        (void) write(rig->b, "", 1);
        }
}

/* A daemon that is killed anywhere in a long row of notes leaves one of them, whole, or none. */
static void test_a_killed_writer_leaves_a_whole_note_or_none(void **state)
{
        Rig *rig = *state;
        unsigned char notes[2][PARKING_NOTE_MAX], found[PARKING_NOTE_MAX];
        uint32_t n_found = 0;

        for (size_t i = 0; i < 2; i++)
                memset(notes[i], (int) i + 1, sizeof notes[i]);
        for (int round = 0; round < 200; round++) {
                ParkingIndex *index, *before;
                pid_t pid;

                assert_int_equal(parking_index_new(&index), 0);
                pid = fork();
                assert_return_code(pid, errno);
                if (pid == 0)
                        write_for_ever(index, rig, notes);
                assert_int_equal(read(rig->a, found, sizeof found), 1);
                assert_return_code(kill(pid, SIGKILL), errno);
                assert_int_equal(waitpid(pid, NULL, 0), pid);
                assert_int_equal(parking_index_open(dup(parking_index_fd(index)), &before), 0);
                if (parking_index_find(before, rig->a, found, sizeof found)) {
                        n_found++;
                        assert_memory_equal(found, notes[found[0] == 2], sizeof found);
                }
                parking_index_free(before);
                parking_index_free(index);
        }
        assert_true(n_found > 0);
}

static void test_no_other_file_is_taken(void **state)
{
        Rig *rig = *state;
        ParkingIndex *index;
        struct stat st;
        int fd;

        assert_return_code(fstat(parking_index_fd(rig->index), &st), errno);
        for (int i = 0; i < 4; i++) {
                /* empty; of the right size, but not sealed; too short; sealed, and full of zeros */
                off_t size = i == 0 ? 0 : i == 2 ? st.st_size - 1 : st.st_size;

                fd = memfd_create("no index", MFD_CLOEXEC | MFD_ALLOW_SEALING);
                assert_return_code(fd, errno);
                assert_return_code(ftruncate(fd, size), errno);
                if (i >= 2)
                        assert_return_code(fcntl(fd, F_ADD_SEALS, SEALS), errno);
                assert_int_equal(parking_index_open(fd, &index), -EBADMSG);
                assert_int_equal(fcntl(fd, F_GETFD), -1); /* it was closed */
        }
        assert_int_equal(parking_index_open(dup(rig->a), &index), -EBADMSG);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        const struct CMUnitTest tests[] = {
                T(test_a_note_is_found_by_its_socket),
                T(test_another_socket_of_the_same_number_has_none),
                T(test_what_was_removed_is_gone),
                T(test_of_what_is_no_socket_or_too_long_there_is_none),
                T(test_it_is_taken_once),
                T(test_a_killed_writer_leaves_a_whole_note_or_none),
                T(test_no_other_file_is_taken),
        };

        return cmocka_run_group_tests_name("parking-index", tests, NULL, NULL);
}
