/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "daemon/core/manifest.h"
#include "test.h"

static void test_a_manifest_has_room_for_its_devices_and_no_more_than_allowed(void **state)
{
        static const struct {
                uint32_t n;
                int expect;
        } cases[] = {{0, 0},         {1, 0},          {1023, 0},           {1024, 0},
                     {1025, -E2BIG}, {65536, -E2BIG}, {UINT32_MAX, -E2BIG}};

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                Manifest manifest = {.name = "untouched"};

                assert_int_equal(manifest_init(&manifest, cases[i].n), cases[i].expect);
                assert_string_equal(manifest.name, cases[i].expect < 0 ? "untouched" : "");
                if (cases[i].expect < 0)
                        continue;
                assert_int_equal(manifest.n_devices, cases[i].n);
                for (uint32_t k = 0; k < cases[i].n; k++) {
                        assert_string_equal(manifest.devices[k].id, "");
                        assert_int_equal(manifest.devices[k].migration_flags, 0);
                }
                manifest_deinit(&manifest);
                assert_null(manifest.devices);
                assert_int_equal(manifest.n_devices, 0);
                manifest_deinit(&manifest);
        }
}

static void test_devices_are_found_by_their_whole_id(void **state)
{
        static const struct {
                const char *id;
                int expect; /* index, -1: none */
        } cases[] = {{"nic", 0},  {"nic0", 1},    {"nic00", 2}, {"ni", -1},
                     {"NIC", -1}, {"nic000", -1}, {"", -1}};
        Manifest manifest;

        assert_int_equal(manifest_init(&manifest, 3), 0);
        for (uint32_t i = 0; i < 3; i++)
                memcpy(manifest.devices[i].id, cases[i].id, strlen(cases[i].id) + 1);
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
                assert_ptr_equal(manifest_find(&manifest, cases[i].id),
                                 cases[i].expect < 0 ? NULL : &manifest.devices[cases[i].expect]);
        manifest_deinit(&manifest);
        assert_null(manifest_find(&manifest, "nic"));
}

static void test_an_id_is_of_few_letters(void **state)
{
        char text[80];

        for (int c = 1; c < 256; c++) {
                bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                            c == '.' || c == '_' || c == '-';

                assert_int_equal(device_id_is_valid((char[]){(char) c, 0}), good);
                assert_int_equal(device_id_is_valid((char[]){'a', (char) c, 0}), good);
        }
        for (size_t n = 0; n < sizeof text; n++) {
                memset(text, 'a', n);
                text[n] = 0;
                assert_int_equal(device_id_is_valid(text), n >= 1 && n <= 64);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_manifest_has_room_for_its_devices_and_no_more_than_allowed),
                cmocka_unit_test(test_devices_are_found_by_their_whole_id),
                cmocka_unit_test(test_an_id_is_of_few_letters),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
