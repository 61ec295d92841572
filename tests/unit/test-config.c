/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <errno.h>

#include "common/json.h"
#include "daemon/config.h"
#include "scratch.h"

/* A configuration directory, and what was read from it. */
typedef struct Rig {
        Scratch scratch;
        char file[128];
        Config config;
        char error[JSON_TEXT_MAX];
} Rig;

static void rig_init(Rig *rig)
{
        *rig = (Rig){.config = config_default};
        scratch_init(&rig->scratch);
        (void) snprintf(rig->file, sizeof rig->file, "%s/migmgrd.json", rig->scratch.dir);
        rig->config.config_file = rig->file;
}

static void forget_dir(Rig *rig)
{
        config_deinit(&rig->config);
}

static void rig_deinit(Rig *rig)
{
        forget_dir(rig);
        scratch_deinit(&rig->scratch);
}

static void rig_write(Rig *rig, const char *name, const char *text)
{
        if (strchr(name, '/') && mkdir(scratch_path(&rig->scratch, "migmgrd.d"), 0700) < 0)
                assert_int_equal(errno, EEXIST);
        scratch_write(&rig->scratch, name, text, strlen(text));
}

static int rig_read(Rig *rig)
{
        int r;

        forget_dir(rig);
        memset(rig->error, 0, sizeof rig->error);
        r = config_read(&rig->config, rig->error);
        assert_int_equal(r, rig->error[0] ? -EINVAL : 0);
        return r;
}

static void assert_times(const Config *config, uint64_t connect_usec, uint64_t doubt_usec)
{
        assert_int_equal(config->connect_usec, connect_usec);
        assert_int_equal(config->doubt_usec, doubt_usec);
}

/* ---- what is right ------------------------------------------------------------------------------------------- */

static void test_without_a_file_the_defaults_hold(void **state)
{
        Rig rig;

        rig_init(&rig);
        assert_int_equal(rig_read(&rig), 0);
        assert_times(&rig.config, 2000000, 10000000);
        rig_write(&rig, "migmgrd.json", "{}");
        assert_int_equal(rig_read(&rig), 0);
        assert_times(&rig.config, 2000000, 10000000);
        assert_ptr_equal(rig.config.vms_dir, config_default.vms_dir);
        assert_int_equal(rig.config.n_policies_dirs, 2);
        assert_non_null(strstr(rig.config.policies_dirs[0], "/lib/migmgr/policies.d"));
        assert_non_null(strstr(rig.config.policies_dirs[1], "/migmgr/policies.d"));
        rig_deinit(&rig);
}

static void test_every_key_sets_what_it_says_and_nothing_else(void **state)
{
        Rig rig;

        rig_init(&rig);
        rig_write(&rig, "migmgrd.json", "{\"connect-msec\":1}");
        assert_int_equal(rig_read(&rig), 0);
        assert_times(&rig.config, 1000, 10000000);
        rig_write(&rig, "migmgrd.json", "{\"doubt-msec\":3600000,\"vms-dir\":\"/v\"}");
        assert_int_equal(rig_read(&rig), 0);
        assert_times(&rig.config, 2000000, UINT64_C(3600000000));
        assert_string_equal(rig.config.vms_dir, "/v");
        rig_deinit(&rig);
}

static void test_addresses_to_listen_at_are_kept_in_order_and_the_last_file_counts(void **state)
{
        Rig rig;

        rig_init(&rig);
        rig_write(&rig, "migmgrd.json", "{\"listen\":[\"tcp://127.0.0.1:1\",\"unix:/a\"]}");
        assert_int_equal(rig_read(&rig), 0);
        assert_int_equal(rig.config.n_listen, 2);
        assert_string_equal(rig.config.listen[0], "tcp://127.0.0.1:1");
        assert_string_equal(rig.config.listen[1], "unix:/a");
        rig_write(&rig, "migmgrd.d/a.json", "{\"listen\":[\"tcp://[::1]:2\"]}");
        assert_int_equal(rig_read(&rig), 0);
        assert_int_equal(rig.config.n_listen, 1);
        assert_string_equal(rig.config.listen[0], "tcp://[::1]:2");
        rig_write(&rig, "migmgrd.d/b.json", "{\"listen\":[]}");
        assert_int_equal(rig_read(&rig), 0);
        assert_int_equal(rig.config.n_listen, 0);
        rig_deinit(&rig);
}

static void test_folders_of_policies_stand_in_for_those_of_an_earlier_file(void **state)
{
        Rig rig;

        rig_init(&rig);
        rig_write(&rig, "migmgrd.json", "{\"policies-dirs\":[\"/a\",\"/b\",\"/c\"]}");
        assert_int_equal(rig_read(&rig), 0);
        assert_int_equal(rig.config.n_policies_dirs, 3);
        assert_string_equal(rig.config.policies_dirs[0], "/a");
        assert_string_equal(rig.config.policies_dirs[2], "/c");
        rig_write(&rig, "migmgrd.d/a.json", "{\"policies-dirs\":[]}");
        assert_int_equal(rig_read(&rig), 0);
        assert_int_equal(rig.config.n_policies_dirs, 0);
        rig_deinit(&rig);
}

static void test_files_beside_it_are_read_in_order_and_the_last_word_counts(void **state)
{
        Rig rig;

        rig_init(&rig);
        rig_write(&rig, "migmgrd.json", "{\"connect-msec\":1,\"doubt-msec\":7}");
        rig_write(&rig, "migmgrd.d/20-b.json", "{\"connect-msec\":3}");
        rig_write(&rig, "migmgrd.d/10-a.json", "{\"connect-msec\":2,\"vms-dir\":\"/w\"}");
        rig_write(&rig, "migmgrd.d/30-c.json.bak", "{\"connect-msec\":4}");
        rig_write(&rig, "migmgrd.d/.40-d.json", "no JSON");
        rig_write(&rig, "migmgrd.d/README", "no JSON");
        assert_int_equal(rig_read(&rig), 0);
        assert_times(&rig.config, 3000, 7000);
        assert_string_equal(rig.config.vms_dir, "/w");
        assert_int_equal(unlink(rig.file), 0);
        assert_int_equal(rig_read(&rig), 0); /* and they count without it */
        assert_times(&rig.config, 3000, 10000000);
        rig_deinit(&rig);
}

/* Written in an order that is not that of their names, and so many that no listing has them in order by chance. */
static void test_the_order_is_that_of_their_names_alone(void **state)
{
        Rig rig;

        rig_init(&rig);
        for (int i = 0; i < 32; i++) {
                char name[64], text[64];

                (void) snprintf(name, sizeof name, "migmgrd.d/%02d.json", (i * 11 + 5) % 32);
                (void) snprintf(text, sizeof text, "{\"connect-msec\":%d}", (i * 11 + 5) % 32 + 1);
                rig_write(&rig, name, text);
        }
        assert_int_equal(rig_read(&rig), 0);
        assert_times(&rig.config, 32000, 10000000);
        rig_deinit(&rig);
}

/* ---- what is wrong ------------------------------------------------------------------------------------------- */

static const struct {
        const char *text, *expect;
} wrong[] = {
        {"{\"listen\":\"tcp://127.0.0.1:1\"}", "listen"},
        {"{\"listen\":[1]}", "no text"},
        {"{\"listen\":[null]}", "no text"},
        {"{\"listen\":[\"tcp://10.0.0.1:1\"]}", "TLS is needed"},
        {"{\"listen\":[\"tcp://127.0.0.1:1\",\"nowhere\"]}", "nowhere"},
        {"{\"listen\":[\"unix:/1\",\"unix:/2\",\"unix:/3\",\"unix:/4\",\"unix:/5\",\"unix:/6\","
         "\"unix:/7\",\"unix:/8\",\"unix:/9\"]}",
         "more than 8"},
        {"{\"policies-dirs\":\"/a\"}", "\"policies-dirs\" is not of type array"},
        {"{\"policies-dirs\":[\"a\"]}", "\"policies-dirs\": a: it is no absolute path"},
        {"{\"policies-dirs\":[\"\"]}", "it is no absolute path"},
        {"{\"policies-dirs\":[{}]}", "no text"},
        {"{\"policies-dirs\":[\"/1\",\"/2\",\"/3\",\"/4\",\"/5\",\"/6\",\"/7\",\"/8\",\"/9\"]}",
         "\"policies-dirs\": more than 8 folders"},
        {"", "is not whole"},
        {"[]", "is not an object"},
        {"null\n", "is null"},
        {"{\"deadlines-msec\":{}}", "unknown key \"deadlines-msec\""},
        {"{\"connect-msec\":\"1\"}", "\"connect-msec\" is not of type int"},
        {"{\"connect-msec\":null}", "\"connect-msec\" is not of type int"},
        {"{\"connect-msec\":0}", "\"connect-msec\" is 0, not from 1 to 3600000"},
        {"{\"doubt-msec\":3600001}", "\"doubt-msec\" is 3600001, not from 1 to 3600000"},
        {"{\"doubt-msec\":0.5}", "\"doubt-msec\" is not of type int"},
        {"{\"vms-dir\":7}", "\"vms-dir\" is not of type string"},
        {"{\"vms-dir\":\"/a\\u0000b\"}", "\"vms-dir\" has a zero byte"},
};

static void test_what_is_wrong_is_refused_with_file_and_key(void **state)
{
        static const char *const names[] = {"migmgrd.json", "migmgrd.d/10-a.json"};

        for (size_t f = 0; f < ARRAY_SIZE(names); f++)
                for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
                        Rig rig;

                        rig_init(&rig);
                        rig_write(&rig, names[f], wrong[i].text);
                        if (rig_read(&rig) == 0 || !strstr(rig.error, wrong[i].expect))
                                print_error("%s: \"%s\"\n", wrong[i].text, rig.error);
                        assert_non_null(strstr(rig.error, wrong[i].expect));
                        assert_non_null(strstr(rig.error, names[f]));
                        rig_deinit(&rig);
                }
}

static void test_one_wrong_file_among_others_is_enough(void **state)
{
        Rig rig;

        rig_init(&rig);
        rig_write(&rig, "migmgrd.json", "{\"connect-msec\":1}");
        rig_write(&rig, "migmgrd.d/10-a.json", "{\"connect-msec\":1x}");
        rig_write(&rig, "migmgrd.d/20-b.json", "{\"connect-msec\":2}");
        assert_int_equal(rig_read(&rig), -EINVAL);
        assert_non_null(strstr(rig.error, "10-a.json"));
        rig_deinit(&rig);
}

static void test_a_file_that_cannot_be_read_is_not_passed_over(void **state)
{
        Rig rig;

        rig_init(&rig);
        rig_write(&rig, "migmgrd.d/10-a.json", "{}");
        assert_int_equal(symlink("absent", scratch_path(&rig.scratch, "migmgrd.d/20-b.json")), 0);
        assert_int_equal(rig_read(&rig), -EINVAL);
        assert_non_null(strstr(rig.error, "20-b.json: "));
        assert_int_equal(unlink(rig.scratch.path), 0);
        assert_int_equal(mkdir(rig.scratch.path, 0700), 0);
        assert_int_equal(rig_read(&rig), -EINVAL);
        rig_deinit(&rig);
}

static void test_a_directory_that_cannot_be_read_is_not_passed_over(void **state)
{
        Rig rig;

        rig_init(&rig);
        rig_write(&rig, "migmgrd.json", "{}");
        scratch_write(&rig.scratch, "migmgrd.d", "", 0);
        assert_int_equal(rig_read(&rig), -EINVAL);
        assert_non_null(strstr(rig.error, "migmgrd.d: "));
        rig_deinit(&rig);
}

static void test_a_configuration_has_at_most_256_kib(void **state)
{
        char *text = malloc(256 * 1024 + 2);
        Rig rig;

        assert_non_null(text);
        rig_init(&rig);
        for (size_t over = 0; over < 2; over++) {
                memset(text, ' ', 256 * 1024 + 1);
                memcpy(text, "{}", 2);
                text[256 * 1024 + over] = 0;
                rig_write(&rig, "migmgrd.json", text);
                assert_int_equal(rig_read(&rig), over ? -EINVAL : 0);
        }
        free(text);
        rig_deinit(&rig);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_without_a_file_the_defaults_hold),
                cmocka_unit_test(test_every_key_sets_what_it_says_and_nothing_else),
                cmocka_unit_test(test_addresses_to_listen_at_are_kept_in_order_and_the_last_file_counts),
                cmocka_unit_test(test_folders_of_policies_stand_in_for_those_of_an_earlier_file),
                cmocka_unit_test(test_files_beside_it_are_read_in_order_and_the_last_word_counts),
                cmocka_unit_test(test_the_order_is_that_of_their_names_alone),
                cmocka_unit_test(test_what_is_wrong_is_refused_with_file_and_key),
                cmocka_unit_test(test_one_wrong_file_among_others_is_enough),
                cmocka_unit_test(test_a_file_that_cannot_be_read_is_not_passed_over),
                cmocka_unit_test(test_a_directory_that_cannot_be_read_is_not_passed_over),
                cmocka_unit_test(test_a_configuration_has_at_most_256_kib),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
