/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a host without plugins finds missing, of what another host says that it has. */

#include <stdio.h>

#include "daemon/plugin/plugins.h"
#include "test.h"

static void add(ManifestDevice *device, const char *name, const char *judges)
{
        char key[FACT_KEY_MAX + 1];

        assert_int_equal(manifest_add_plugin(device, name), 0);
        (void) snprintf(key, sizeof key, "%.31s.judges", name);
        assert_int_equal(manifest_add_fact(device, key, judges), 0);
}

static void test_who_judges_is_missing(void **state)
{
        json_object *findings = json_new_array();
        Manifest m;

        assert_int_equal(manifest_init(&m, 1), 0);
        add(&m.devices[0], "judge", "yes");
        add(&m.devices[0], "judge", "yes"); /* said twice */
        add(&m.devices[0], "recorder", "no");
        plugins_find_missing(NULL, &m.devices[0], findings);
        assert_string_equal(
                json_object_to_json_string_ext(findings,
                                               JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE),
                "[{\"weight\":\"refusal\",\"device\":\"\",\"property\":\"plugin judge\",\"source\":\"loaded\","
                "\"destination\":\"not loaded\",\"remedy\":\"install that plugin at the destination too, of that version, and start "
                "migmgrd there anew; or take it out at the source\"}]");
        manifest_deinit(&m);
        json_object_put(findings);
}

/* Its manifest was too long: who could judge is not known. */
static void test_of_whom_nothing_is_said_is_missing(void **state)
{
        json_object *findings = json_new_array();
        JsonReader reader = {.where = "findings"};
        Manifest m;

        assert_int_equal(manifest_init(&m, 1), 0);
        assert_int_equal(manifest_add_plugin(&m.devices[0], "judge"), 0);
        plugins_find_missing(NULL, &m.devices[0], findings);
        assert_int_equal(json_object_array_length(findings), 1);
        assert_string_equal(json_string(&reader, json_object_array_get_idx(findings, 0), "weight", true),
                            "refusal");
        assert_string_equal(json_string(&reader, json_object_array_get_idx(findings, 0), "source", true),
                            "too many facts to be sent");
        manifest_deinit(&m);
        json_object_put(findings);
}

/* As many as another host likes: it is refused, and what is told of that has an end. */
static void test_of_very_many_the_first_are_told(void **state)
{
        json_object *findings = json_new_array();
        Manifest m;

        assert_int_equal(manifest_init(&m, 64), 0);
        for (uint32_t i = 0; i < m.n_devices; i++) {
                for (uint32_t k = 0; k < MANIFEST_FACTS_MAX; k++) {
                        char name[MIGMGR_NAME_MAX + 1];

                        (void) snprintf(name, sizeof name, "p%u", k);
                        add(&m.devices[i], name, "yes");
                }
                plugins_find_missing(NULL, &m.devices[i], findings);
        }
        assert_int_equal(json_object_array_length(findings), 256);
        manifest_deinit(&m);
        json_object_put(findings);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_who_judges_is_missing),
                cmocka_unit_test(test_of_whom_nothing_is_said_is_missing),
                cmocka_unit_test(test_of_very_many_the_first_are_told),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
