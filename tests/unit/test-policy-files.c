/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "daemon/policy-files.h"
#include "scratch.h"

/* Two folders, the second more important, and what was read from them. */
typedef struct Rig {
        Scratch scratch;
        char *dirs[2];
        PolicyFiles files;
        char error[JSON_TEXT_MAX];
} Rig;

static void rig_init(Rig *rig)
{
        *rig = (Rig){};
        scratch_init(&rig->scratch);
        for (int i = 0; i < 2; i++) {
                rig->dirs[i] = strdup(scratch_path(&rig->scratch, i == 0 ? "usr" : "etc"));
                assert_non_null(rig->dirs[i]);
        }
}

static void rig_make(Rig *rig)
{
        for (int i = 0; i < 2; i++)
                assert_int_equal(mkdir(rig->dirs[i], 0700), 0);
}

static void rig_deinit(Rig *rig)
{
        policy_files_deinit(&rig->files);
        for (int i = 0; i < 2; i++)
                free(rig->dirs[i]);
        scratch_deinit(&rig->scratch);
}

static void rig_write(Rig *rig, const char *name, const char *text)
{
        scratch_write(&rig->scratch, name, text, strlen(text));
}

/* A file with one rule for all, which sets `retry`. */
static void rig_retry(Rig *rig, const char *name, int retry)
{
        char text[128];

        (void) snprintf(text, sizeof text, "{\"rules\":[{\"set\":{\"retry\":%d}}]}", retry);
        rig_write(rig, name, text);
}

static int rig_read(Rig *rig)
{
        int r;

        rig->error[0] = 0;
        r = policy_files_reload(rig->dirs, 2, &rig->files, rig->error);
        assert_int_equal(r, rig->error[0] ? -EINVAL : 0);
        return r;
}

static uint64_t rig_value(Rig *rig)
{
        PolicyView view;

        policy_of_vm(&rig->files.rules, &(Manifest){}, &view);
        return view.values[POLICY_RETRY];
}

static void test_folders_that_are_not_there_hold_nothing(void **state)
{
        Rig rig;

        rig_init(&rig);
        assert_int_equal(rig_read(&rig), 0);
        assert_int_equal(rig.files.n, 0);
        assert_int_equal(rig.files.rules.n, 0);
        rig_deinit(&rig);
}

static void test_files_are_in_the_order_of_their_folders_and_then_of_their_names(void **state)
{
        static const char *const names[] = {"b", "d", "a", "c"};
        Rig rig;

        rig_init(&rig);
        rig_make(&rig);
        rig_retry(&rig, "usr/d.json", 2);
        rig_retry(&rig, "etc/c.json", 4);
        rig_retry(&rig, "etc/a.json", 3);
        rig_retry(&rig, "usr/b.json", 1);
        rig_write(&rig, "etc/.hidden.json", "no JSON");
        rig_write(&rig, "etc/c.json.bak", "no JSON");
        rig_write(&rig, "etc/.json", "no JSON");
        assert_int_equal(rig_read(&rig), 0);
        assert_int_equal(rig.files.n, 4);
        for (uint32_t i = 0; i < 4; i++) {
                assert_string_equal(rig.files.files[i].name, names[i]);
                assert_int_equal(rig.files.rules.rules[i].values[POLICY_RETRY], i + 1);
                assert_int_equal(rig.files.files[i].n_rules, 1);
                assert_null(rig.files.files[i].overrides);
                assert_string_equal(rig.files.rules.rules[i].file, rig.files.files[i].path);
                assert_ptr_equal(policy_files_find(&rig.files, names[i]), &rig.files.files[i]);
        }
        assert_int_equal(rig_value(&rig), 4);
        assert_null(policy_files_find(&rig.files, "a.json"));
        rig_deinit(&rig);
}

static void test_a_file_of_a_later_folder_stands_in_for_the_whole_other(void **state)
{
        Rig rig;

        rig_init(&rig);
        rig_make(&rig);
        rig_write(&rig, "usr/a.json", "what is overridden is not even read");
        rig_write(&rig, "etc/a.json", "{\"description\":\"ours\",\"rules\":[]}");
        assert_int_equal(rig_read(&rig), 0);
        assert_int_equal(rig.files.n, 1);
        assert_string_equal(rig.files.files[0].description, "ours");
        assert_string_equal(rig.files.files[0].path, scratch_path(&rig.scratch, "etc/a.json"));
        assert_string_equal(rig.files.files[0].overrides, scratch_path(&rig.scratch, "usr/a.json"));
        assert_string_equal(rig.files.files[0].text, "{\"description\":\"ours\",\"rules\":[]}");
        assert_int_equal(rig.files.rules.n, 0);
        rig_deinit(&rig);
}

static void test_one_wrong_file_leaves_everything_as_it_was(void **state)
{
        Rig rig;

        rig_init(&rig);
        rig_make(&rig);
        rig_retry(&rig, "usr/a.json", 1);
        assert_int_equal(rig_read(&rig), 0);
        rig_retry(&rig, "usr/a.json", 2);
        rig_write(&rig, "etc/b.json", "{\"rules\":[\n{\"set\":{\"retry\":1000}}]}");
        assert_int_equal(rig_read(&rig), -EINVAL);
        assert_non_null(strstr(rig.error, "etc/b.json:2: \"retry\" is 1000; allowed: "));
        assert_int_equal(rig.files.n, 1);
        assert_int_equal(rig_value(&rig), 1);
        rig_retry(&rig, "etc/b.json", 3);
        assert_int_equal(rig_read(&rig), 0);
        assert_int_equal(rig_value(&rig), 3);
        rig_retry(&rig, "etc/a.json", 4); /* in the place of the one that was first */
        assert_int_equal(rig_read(&rig), 0);
        assert_int_equal(rig_value(&rig), 3);
        rig_retry(&rig, "usr/z.json", 5);
        assert_int_equal(rig_read(&rig), 0);
        assert_int_equal(rig_value(&rig), 3);
        rig_deinit(&rig);
}

/* A daemon that was started with a wrong file says why nothing moves: what is wrong now, not what was first. */
static void test_where_nothing_is_in_force_the_newest_error_is_kept(void **state)
{
        Rig rig;

        rig_init(&rig);
        rig_make(&rig);
        rig_write(&rig, "usr/a.json", "[]");
        assert_int_equal(policy_files_read(rig.dirs, 2, &rig.files, rig.files.error), -EINVAL);
        assert_non_null(strstr(rig.files.error, "usr/a.json"));
        rig_retry(&rig, "usr/a.json", 1);
        rig_write(&rig, "usr/b.json", "[]");
        assert_int_equal(rig_read(&rig), -EINVAL);
        assert_non_null(strstr(rig.files.error, "usr/b.json"));
        rig_retry(&rig, "usr/b.json", 2);
        assert_int_equal(rig_read(&rig), 0);
        assert_string_equal(rig.files.error, "");
        rig_write(&rig, "usr/b.json", "[]"); /* from here on there is something in force */
        assert_int_equal(rig_read(&rig), -EINVAL);
        assert_string_equal(rig.files.error, "");
        rig_deinit(&rig);
}

static void test_what_cannot_be_read_is_not_passed_over(void **state)
{
        Rig rig;

        rig_init(&rig);
        rig_make(&rig);
        assert_int_equal(symlink("absent", scratch_path(&rig.scratch, "usr/a.json")), 0);
        assert_int_equal(rig_read(&rig), -EINVAL);
        assert_non_null(strstr(rig.error, "usr/a.json: "));
        assert_int_equal(unlink(scratch_path(&rig.scratch, "usr/a.json")), 0);
        assert_int_equal(mkdir(scratch_path(&rig.scratch, "usr/a.json"), 0700), 0);
        assert_int_equal(rig_read(&rig), -EINVAL);
        assert_non_null(strstr(rig.error, "usr/a.json: "));
        assert_int_equal(rmdir(scratch_path(&rig.scratch, "usr/a.json")), 0);
        rig_retry(&rig, "usr/a b.json", 1);
        assert_int_equal(rig_read(&rig), -EINVAL);
        assert_non_null(strstr(
                rig.error, "usr/a b.json: the name of a policy file is of A-Z a-z 0-9 . _ - and at most 64"));
        assert_int_equal(unlink(scratch_path(&rig.scratch, "usr/a b.json")), 0);
        assert_int_equal(rmdir(rig.dirs[0]), 0);
        rig_write(&rig, "usr", "");
        assert_int_equal(rig_read(&rig), -EINVAL);
        assert_non_null(strstr(rig.error, rig.dirs[0]));
        rig_deinit(&rig);
}

static void test_files_and_rules_are_bounded(void **state)
{
        Rig rig;

        rig_init(&rig);
        rig_make(&rig);
        for (int i = 0; i <= POLICY_FILES_MAX; i++) {
                char name[32];

                (void) snprintf(name, sizeof name, "%s/%03d.json", i % 2 ? "etc" : "usr", i);
                rig_retry(&rig, name, 1);
                if (i + 1 == POLICY_FILES_MAX)
                        assert_int_equal(rig_read(&rig), 0);
        }
        assert_int_equal(rig_read(&rig), -EINVAL);
        assert_non_null(strstr(rig.error, "more than 256 policy files"));
        assert_int_equal(rig.files.n, POLICY_FILES_MAX);
        assert_int_equal(rig.files.rules.n, POLICY_FILES_MAX);
        rig_deinit(&rig);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_folders_that_are_not_there_hold_nothing),
                cmocka_unit_test(test_files_are_in_the_order_of_their_folders_and_then_of_their_names),
                cmocka_unit_test(test_a_file_of_a_later_folder_stands_in_for_the_whole_other),
                cmocka_unit_test(test_one_wrong_file_leaves_everything_as_it_was),
                cmocka_unit_test(test_where_nothing_is_in_force_the_newest_error_is_kept),
                cmocka_unit_test(test_what_cannot_be_read_is_not_passed_over),
                cmocka_unit_test(test_files_and_rules_are_bounded),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
