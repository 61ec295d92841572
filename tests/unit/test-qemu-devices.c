/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a QEMU says of its devices, true or not. No QEMU, no monitor: the adapter's own struct, and a listener. */

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>

#include "daemon/vmm/qemu.h"
#include "test.h"

typedef struct Rig {
        Qemu q; /* first: what is given to the adapter */
        Definition definition;
        DeviceDefinition devices[3];
        uint32_t n_halted, n_resets, n_steps;
        char reset[DEVICE_ID_MAX + 1], text[JSON_TEXT_MAX];
} Rig;

/* ---- of the adapter's other files ------------------------------------------------------------------------------ */

bool qemu_migration_is(const Qemu *q, const char *status)
{
        return streq(q->migration, status);
}

void helper_client_ask(HelperClient *client, HelperRequest request, const char *const *strings,
                       size_t n_strings, HelperAnswer answer, void *userdata)
{
        fail();
}

/* ---- the rig --------------------------------------------------------------------------------------------------- */

static void on_halted(void *userdata, uint64_t usec)
{
        ((Rig *) userdata)->n_halted++;
}

static void on_reset(void *userdata, const char *vmm_device, const char *text)
{
        Rig *rig = userdata;

        rig->n_resets++;
        (void) snprintf(rig->reset, sizeof rig->reset, "%s", vmm_device);
        (void) snprintf(rig->text, sizeof rig->text, "%s", text);
}

static void on_step(Qemu *q)
{
        ((Rig *) q)->n_steps++;
}

static void begin(Rig *rig, QemuCourse course)
{
        static const VmmListener listener = {.halted = on_halted, .device_reset = on_reset};

        *rig = (Rig){.definition = {.devices = rig->devices, .n_devices = ARRAY_SIZE(rig->devices)}};
        /* The middle one is not QEMU's. */
        (void) snprintf(rig->devices[0].vmm_device, sizeof rig->devices[0].vmm_device, "v0");
        (void) snprintf(rig->devices[2].vmm_device, sizeof rig->devices[2].vmm_device, "v1");
        rig->q.vmm.definition = &rig->definition;
        rig->q.vmm.listener = &listener;
        rig->q.vmm.userdata = rig;
        rig->q.vmm.limits.p2p = true;
        rig->q.log_fd = -1;
        rig->q.on_devices = on_step;
        (void) snprintf(rig->q.migration, sizeof rig->q.migration, "active");
        qemu_set_course(&rig->q, course);
}

static void end(Rig *rig)
{
        free(rig->q.devices);
        if (rig->q.log_fd >= 0)
                (void) close(rig->q.log_fd);
}

static void say_raw(Rig *rig, const char *text)
{
        JsonReader reader = {.where = "test"};
        json_object *data = json_parse(&reader, text, strlen(text));

        qemu_on_device_event(&rig->q, data);
        json_object_put(data);
}

static void say(Rig *rig, const char *id, const char *state)
{
        char text[256];

        (void) snprintf(text, sizeof text,
                        "{\"device-id\":\"%s\",\"qom-path\":\"/x\",\"device-state\":\"%s\"}", id, state);
        say_raw(rig, text);
}

/* ---- tests ----------------------------------------------------------------------------------------------------- */

static void test_all_have_said_it_when_each_has(void **state)
{
        Rig rig;

        begin(&rig, QEMU_COURSE_LEAVING);
        assert_int_equal(rig.q.n_devices, 2);
        say(&rig, "v1", "pre-copy-p2p");
        say(&rig, "v1", "pre-copy-p2p");
        assert_false(qemu_all_said(&rig.q, QEMU_SAID_P2P));
        say(&rig, "v0", "running-p2p");
        assert_true(qemu_all_said(&rig.q, QEMU_SAID_P2P));
        assert_false(qemu_all_said(&rig.q, QEMU_SAID(DEVICE_STATE_STOP)));
        qemu_set_course(&rig.q, QEMU_COURSE_RUNNING);
        assert_false(qemu_all_said(&rig.q, QEMU_SAID_P2P));
        assert_int_equal(rig.n_steps, 3);
        end(&rig);
}

static void test_without_devices_nothing_is_said(void **state)
{
        Rig rig;

        begin(&rig, QEMU_COURSE_NONE);
        free(rig.q.devices);
        rig.q.devices = NULL;
        rig.q.n_devices = 0;
        rig.definition.n_devices = 0;
        qemu_set_course(&rig.q, QEMU_COURSE_LEAVING);
        say(&rig, "v0", "running");
        assert_false(qemu_all_said(&rig.q, QEMU_SAID_P2P));
        assert_int_equal(rig.n_resets, 0);
        end(&rig);
}

static void test_the_blackout_begins_with_the_first_of_them_and_once(void **state)
{
        static const char *const first[] = {"pre-copy-p2p", "running-p2p", "pre-copy-p2p-prepare"};

        for (size_t i = 0; i < ARRAY_SIZE(first); i++) {
                Rig rig;

                begin(&rig, QEMU_COURSE_LEAVING);
                say(&rig, "v0", "pre-copy");
                assert_int_equal(rig.n_halted, 0);
                say(&rig, "v1", first[i]);
                assert_int_equal(rig.n_halted, 1);
                say(&rig, "v0", "pre-copy-p2p");
                qemu_stands(&rig.q);
                assert_int_equal(rig.n_halted, 1);
                end(&rig);

                begin(&rig, QEMU_COURSE_RUNNING);
                say(&rig, "v1", first[i]);
                assert_int_equal(rig.n_halted, 0);
                end(&rig);
        }
}

static void test_a_reset_is_seen_by_where_running_is_said(void **state)
{
        static const struct {
                QemuCourse course;
                const char *migration, *said; /* with a blank between states */
                bool p2p, is_reset;
        } rows[] = {
                {QEMU_COURSE_LEAVING, "active", "pre-copy running", true, true},
                {QEMU_COURSE_LEAVING, "active", "pre-copy pre-copy-p2p running", true, true},
                {QEMU_COURSE_LEAVING, "active", "running-p2p running", false, true},
                {QEMU_COURSE_LEAVING, "pre-switchover", "pre-copy pre-copy-p2p stop-copy running", true,
                 true},
                {QEMU_COURSE_LEAVING, "device", "stop running", true, true},
                {QEMU_COURSE_LEAVING, "completed", "stop-copy running", true, true},
                {QEMU_COURSE_LEAVING, "active", "pre-copy pre-copy-p2p stop-copy stop", true, false},
                /* It could not be brought to PRE_COPY, and does not migrate. */
                {QEMU_COURSE_LEAVING, "setup", "running", true, false},
                {QEMU_COURSE_LEAVING, "failed", "pre-copy pre-copy-p2p stop-copy running", true, false},
                {QEMU_COURSE_LEAVING, "failing", "stop-copy running", true, false},
                {QEMU_COURSE_LEAVING, "cancelling", "pre-copy running", true, false},
                {QEMU_COURSE_LEAVING, "cancelled", "pre-copy running", true, false},
                {QEMU_COURSE_RUNNING, "completed", "running-p2p running", true, false},
                {QEMU_COURSE_RUNNING, "completed", "running", true, true},
                {QEMU_COURSE_RUNNING, "completed", "running", false, false},
                {QEMU_COURSE_NONE, "cancelled", "running", true, false},
                {QEMU_COURSE_NONE, "active", "stop running", true, false},
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                char said[128], *rest = said, *one;
                Rig rig;

                begin(&rig, rows[i].course);
                rig.q.vmm.limits.p2p = rows[i].p2p;
                (void) snprintf(rig.q.migration, sizeof rig.q.migration, "%s", rows[i].migration);
                (void) snprintf(said, sizeof said, "%s", rows[i].said);
                while ((one = strsep(&rest, " ")))
                        say(&rig, "v1", one);
                if (rig.n_resets != rows[i].is_reset)
                        print_error("%s: %s\n", rows[i].migration, rows[i].said);
                assert_int_equal(rig.n_resets, rows[i].is_reset);
                assert_string_equal(rig.reset, rows[i].is_reset ? "v1" : "");
                say(&rig, "v1", "running");
                assert_true(rig.n_resets <= 1);
                end(&rig);
        }
}

static void test_what_is_no_event_of_a_device_of_ours_changes_nothing(void **state)
{
        static const char *const events[] = {
                "{}",
                "[]",
                "7",
                "{\"device-id\":\"v0\"}",
                "{\"device-state\":\"running\"}",
                "{\"device-id\":\"v0\",\"device-state\":7}",
                "{\"device-id\":[\"v0\"],\"device-state\":\"running\"}",
                "{\"device-id\":\"\",\"device-state\":\"running\"}",
                "{\"device-id\":\"v2\",\"device-state\":\"running\"}",
                "{\"device-id\":\"v0 \",\"device-state\":\"running\"}",
                "{\"device-id\":\"v0\",\"device-state\":\"\"}",
                "{\"device-id\":\"v0\",\"device-state\":\"unknown\"}",
                "{\"device-id\":\"v0\",\"device-state\":\"Running\"}",
                "{\"device-id\":\"v0\",\"device-state\":\"running-p2p-prepare\"}",
        };
        Rig rig;

        begin(&rig, QEMU_COURSE_LEAVING);
        for (size_t i = 0; i < ARRAY_SIZE(events); i++)
                say_raw(&rig, events[i]);
        qemu_on_device_event(&rig.q, NULL);
        assert_int_equal(rig.n_resets + rig.n_halted + rig.n_steps, 0);
        assert_int_equal(rig.q.devices[0].said | rig.q.devices[1].said, 0);
        end(&rig);
}

static void print(Rig *rig, const char *text)
{
        assert_int_equal(write(rig->q.log_fd, text, strlen(text)), strlen(text));
}

static void test_what_it_prints_is_read_from_where_the_course_began(void **state)
{
        Rig rig;

        begin(&rig, QEMU_COURSE_NONE);
        rig.q.log_fd = memfd_create("log", MFD_CLOEXEC);
        (void) snprintf(rig.q.devices[0].name, sizeof rig.q.devices[0].name, "0000:3b:00.1");
        (void) snprintf(rig.q.devices[1].name, sizeof rig.q.devices[1].name, "0000:3b:00.2");
        print(&rig, "qemu: 0000:3b:00.1: Recover state is ERROR. Resetting device\n");
        qemu_set_course(&rig.q, QEMU_COURSE_RUNNING);
        qemu_read_log(&rig.q);
        assert_int_equal(rig.n_resets, 0);
        print(&rig, "qemu: 0000:3b:00.1: something else\nResetting device of somebody else\n");
        qemu_read_log(&rig.q);
        assert_int_equal(rig.n_resets, 0);
        print(&rig,
              "qemu: 0000:3b:00.2: Failed setting device state to RUNNING. Recover state is ERROR. Resetting device: no");
        qemu_read_log(&rig.q);
        assert_int_equal(rig.n_resets, 1);
        assert_string_equal(rig.reset, "v1");
        assert_non_null(strstr(rig.text, "Failed setting device state to RUNNING"));
        qemu_read_log(&rig.q);
        assert_int_equal(rig.n_resets, 1);
        end(&rig);
}

static void test_what_was_printed_is_read_before_the_course_ends(void **state)
{
        Rig rig;

        begin(&rig, QEMU_COURSE_RUNNING);
        rig.q.log_fd = memfd_create("log", MFD_CLOEXEC);
        (void) snprintf(rig.q.devices[0].name, sizeof rig.q.devices[0].name, "0000:3b:00.1");
        print(&rig, "0000:3b:00.1: Resetting device\n");
        qemu_set_course(&rig.q, QEMU_COURSE_NONE);
        assert_int_equal(rig.n_resets, 1);
        end(&rig);
}

int main(void)
{
        static const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_all_have_said_it_when_each_has),
                cmocka_unit_test(test_without_devices_nothing_is_said),
                cmocka_unit_test(test_the_blackout_begins_with_the_first_of_them_and_once),
                cmocka_unit_test(test_a_reset_is_seen_by_where_running_is_said),
                cmocka_unit_test(test_what_is_no_event_of_a_device_of_ours_changes_nothing),
                cmocka_unit_test(test_what_it_prints_is_read_from_where_the_course_began),
                cmocka_unit_test(test_what_was_printed_is_read_before_the_course_ends),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
