/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <sys/stat.h>

#include "common/file.h"
#include "scratch.h"

static void test_a_file_is_read_whole_up_to_its_limit(void **state)
{
        static const size_t maxima[] = {0, 1, 2, 4095, 4096, 4097, 65536};
        static char data[65536 + 2];
        Scratch scratch;

        for (size_t i = 0; i < sizeof data; i++)
                data[i] = (char) (i * 31 + i / 256);
        scratch_init(&scratch);
        for (size_t i = 0; i < ARRAY_SIZE(maxima); i++)
                for (size_t size = maxima[i] ? maxima[i] - 1 : 0; size <= maxima[i] + 1; size++) {
                        char *text = (char *) "untouched";
                        size_t got = 42;
                        int r;

                        scratch_write(&scratch, "file", data, size);
                        r = file_read(scratch_path(&scratch, "file"), maxima[i], &text, &got);
                        assert_int_equal(r, size > maxima[i] ? -EFBIG : 0);
                        if (r < 0) {
                                assert_string_equal(text, "untouched");
                                assert_int_equal(got, 42);
                                continue;
                        }
                        assert_int_equal(got, size);
                        assert_memory_equal(text, data, size);
                        assert_int_equal(text[size], 0);
                        free(text);
                }
        scratch_deinit(&scratch);
}

static void test_what_is_no_regular_file_is_refused_at_once(void **state)
{
        Scratch scratch;
        char *text = NULL;
        size_t size;

        scratch_init(&scratch);
        assert_int_equal(file_read(scratch_path(&scratch, "absent"), 10, &text, &size), -ENOENT);
        assert_int_equal(file_read(scratch.dir, 10, &text, &size), -EINVAL);
        assert_int_equal(file_read("/dev/zero", 10, &text, &size), -EINVAL);
        /* nobody writes to it: who opened it to wait would wait for ever */
        assert_int_equal(mkfifo(scratch_path(&scratch, "fifo"), 0600), 0);
        assert_int_equal(file_read(scratch.path, 10, &text, &size), -EINVAL);
        assert_null(text);
        scratch_deinit(&scratch);
}

/* Files of /proc say that they are empty. */
static void test_a_file_is_as_long_as_what_can_be_read_of_it(void **state)
{
        char *text;
        size_t size;

        assert_int_equal(file_read("/proc/self/stat", 4096, &text, &size), 0);
        assert_true(size > 0 && strlen(text) == size);
        free(text);
        assert_int_equal(file_read("/proc/self/stat", 4, &text, &size), -EFBIG);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_file_is_read_whole_up_to_its_limit),
                cmocka_unit_test(test_what_is_no_regular_file_is_refused_at_once),
                cmocka_unit_test(test_a_file_is_as_long_as_what_can_be_read_of_it),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
