/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Every pair of states, asked for by us: what the kernel may hear, and when a data file is due. */

#include "daemon/agent/vfio-arc.h"
#include "test.h"

#define ALL (DEVICE_MIGRATION_STOP_COPY | DEVICE_MIGRATION_P2P | DEVICE_MIGRATION_PRE_COPY)

#define ERR      DEVICE_STATE_ERROR
#define STOP     DEVICE_STATE_STOP
#define RUN      DEVICE_STATE_RUNNING
#define COPY     DEVICE_STATE_STOP_COPY
#define LOAD     DEVICE_STATE_RESUMING
#define P2P      DEVICE_STATE_RUNNING_P2P
#define PRE      DEVICE_STATE_PRE_COPY
#define PRE_P2P  DEVICE_STATE_PRE_COPY_P2P
#define N_STATES DEVICE_STATE_UNKNOWN

static int judge(DeviceState from, DeviceState to, uint32_t flags, bool load_failed)
{
        const char *text = NULL;
        int r = vfio_arc_judge(&(VfioArc){from, to, flags, load_failed}, &text);

        assert_int_equal(r < 0, text != NULL);
        return r;
}

static void test_what_hangs_kernels_is_not_asked_for(void **state)
{
        static const uint32_t flags[] = {ALL, ALL & ~DEVICE_MIGRATION_P2P, ALL | DEVICE_SUPERVISED};

        for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
                assert_int_equal(judge(COPY, PRE, flags[i], false), -EINVAL);
                assert_int_equal(judge(COPY, PRE_P2P, flags[i], false), -EINVAL);
        }
}

static void test_only_a_reset_leaves_the_error_state(void **state)
{
        for (DeviceState other = STOP; other < N_STATES; other++) {
                assert_int_equal(judge(ERR, other, ALL, false), -EINVAL);
                assert_int_equal(judge(other, ERR, ALL, false), -EINVAL);
        }
        assert_int_equal(judge(RUN, DEVICE_STATE_UNKNOWN, ALL, false), -EINVAL);
        assert_int_equal(judge(DEVICE_STATE_UNKNOWN, RUN, ALL, false), -EINVAL);
}

static void test_states_that_it_does_not_have_are_not_asked_for(void **state)
{
        assert_int_equal(judge(RUN, P2P, DEVICE_MIGRATION_STOP_COPY, false), -EINVAL);
        assert_int_equal(judge(RUN, PRE, DEVICE_MIGRATION_STOP_COPY, false), -EINVAL);
        assert_int_equal(judge(RUN, STOP, 0, false), -EINVAL);
        assert_int_equal(judge(RUN, STOP, DEVICE_MIGRATION_STOP_COPY, false), 0);
}

static void test_of_a_load_that_has_failed_only_a_reset_is_the_end(void **state)
{
        for (DeviceState to = STOP; to < N_STATES; to++) {
                assert_int_equal(judge(LOAD, to, ALL, true), to == LOAD ? 0 : -EPERM);
                assert_int_equal(judge(LOAD, to, ALL, false), 0);
        }
        assert_int_equal(judge(STOP, P2P, ALL, true), 0); /* it has been reset since */
}

/* Rows: from; columns: to. */
static void test_of_what_its_vmm_drives_only_what_opens_and_ends_nothing(void **state)
{
        static const bool may[N_STATES][N_STATES] = {
                [STOP] = {[P2P] = true},    [RUN] = {[P2P] = true},
                [LOAD] = {[STOP] = true},   [P2P] = {[RUN] = true, [STOP] = true},
                [PRE] = {[PRE_P2P] = true}, [PRE_P2P] = {[PRE] = true, [COPY] = true},
                [COPY] = {[STOP] = true},
        };

        for (DeviceState from = STOP; from < N_STATES; from++)
                for (DeviceState to = STOP; to < N_STATES; to++) {
                        int r = judge(from, to, ALL | DEVICE_SUPERVISED, false);

                        if (from == to || may[from][to])
                                assert_int_equal(r, 0);
                        else
                                assert_true(r == -EPERM || (r == -EINVAL && from == COPY));
                        if (r == 0)
                                assert_false(vfio_arc_opens_data(&(VfioArc){.from = from, .to = to}));
                }
}

/* "data_fd" in the uAPI, and the table of what a kernel answers: a stream goes on within the saving states. */
static void test_when_a_data_file_is_due(void **state)
{
        for (DeviceState from = STOP; from < N_STATES; from++)
                for (DeviceState to = STOP; to < N_STATES; to++) {
                        VfioArc arc = {.from = from, .to = to};
                        bool saved = from == COPY || from == PRE || from == PRE_P2P;
                        bool saves = to == COPY || to == PRE || to == PRE_P2P;

                        assert_int_equal(vfio_arc_opens_data(&arc),
                                         (to == LOAD && from != LOAD) || (saves && !saved));
                        assert_int_equal(vfio_arc_keeps_data(&arc), from == to || (saved && saves));
                }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_what_hangs_kernels_is_not_asked_for),
                cmocka_unit_test(test_only_a_reset_leaves_the_error_state),
                cmocka_unit_test(test_states_that_it_does_not_have_are_not_asked_for),
                cmocka_unit_test(test_of_a_load_that_has_failed_only_a_reset_is_the_end),
                cmocka_unit_test(test_of_what_its_vmm_drives_only_what_opens_and_ends_nothing),
                cmocka_unit_test(test_when_a_data_file_is_due),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
