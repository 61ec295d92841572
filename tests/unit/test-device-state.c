/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The oracle is the text of the uAPI, restated: the list of base arcs, the rule for combining them, and which states
 * need which feature. Every path that the code plans is compared with a search over all walks. */

#include <stdio.h>
#include <string.h>

#include "daemon/core/device-state.h"
#include "test.h"

#define STOP DEVICE_STATE_STOP
#define RUN  DEVICE_STATE_RUNNING
#define SC   DEVICE_STATE_STOP_COPY
#define RES  DEVICE_STATE_RESUMING
#define P2P  DEVICE_STATE_RUNNING_P2P
#define PC   DEVICE_STATE_PRE_COPY
#define PCP  DEVICE_STATE_PRE_COPY_P2P
#define N    8

typedef struct Arc {
        int from, to;
        bool with_p2p, without_p2p; /* RUNNING <-> STOP are arcs only of a device without P2P */
} Arc;

static const Arc arcs[] = {
        {RES, STOP, true, true},  {STOP, RES, true, true},  {STOP, SC, true, true},
        {SC, STOP, true, true},   {RUN, P2P, true, false},  {P2P, RUN, true, false},
        {P2P, STOP, true, false}, {STOP, P2P, true, false}, {RUN, STOP, false, true},
        {STOP, RUN, false, true}, {RUN, PC, true, true},    {PC, RUN, true, true},
        {PC, SC, false, true},    {PC, PCP, true, false},   {PCP, PC, true, false},
        {PCP, P2P, true, false},  {PCP, SC, true, false},   {P2P, PCP, true, false},
};

static bool saving(int s)
{
        return s == SC || s == PC || s == PCP;
}

static bool exists(int s, uint32_t flags)
{
        bool stop_copy = flags & 1, p2p = flags & 2, pre_copy = flags & 4;

        if (s == RUN)
                return true;
        return stop_copy && (s != P2P || p2p) && (s != PC || pre_copy) && (s != PCP || (p2p && pre_copy));
}

/* The shortest walk from the last state of `walk` to `to`; saving states may be passed only when the whole walk
 * stays inside the saving group. Returns its length in arcs, or 99. */
static int search(int *walk, int n, int to, uint32_t flags, int *best, int best_n)
{
        int at = walk[n - 1];

        if (at == to) {
                if (n - 1 < best_n) {
                        memcpy(best, walk, sizeof(int) * (size_t) n);
                        best_n = n - 1;
                }
                return best_n;
        }
        for (size_t i = 0; i < sizeof arcs / sizeof arcs[0]; i++) {
                bool seen = false, all_saving = saving(to);

                if (arcs[i].from != at || !((flags & 2) ? arcs[i].with_p2p : arcs[i].without_p2p))
                        continue;
                if (!exists(arcs[i].to, flags))
                        continue;
                for (int k = 0; k < n; k++) {
                        seen |= walk[k] == arcs[i].to;
                        all_saving &= saving(walk[k]);
                }
                if (seen || (arcs[i].to != to && saving(arcs[i].to) && !all_saving))
                        continue;
                walk[n] = arcs[i].to;
                best_n = search(walk, n + 1, to, flags, best, best_n);
        }
        return best_n;
}

static void test_every_path_is_the_shortest_that_the_uapi_allows(void **state)
{
        for (uint32_t flags = 1; flags < 8; flags += 2)
                for (int from = STOP; from < N; from++)
                        for (int to = STOP; to < N; to++) {
                                int walk[N + 1] = {from}, best[N + 1] = {0}, expected;
                                DeviceState path[DEVICE_PATH_MAX];
                                int n = device_state_path(from, to, flags, path);

                                if (!exists(from, flags) || !exists(to, flags)) {
                                        assert_int_equal(n, -EINVAL);
                                        continue;
                                }
                                expected = search(walk, 1, to, flags, best, 99);
                                /* The shortest walk from STOP_COPY to the pre-copy states is barred by name. */
                                if (from == SC && (to == PC || to == PCP))
                                        expected = -EINVAL;
                                if (n != expected)
                                        print_error("%d to %d with flags %u\n", from, to, flags);
                                assert_int_equal(n, expected);
                                for (int i = 0; i < n; i++)
                                        assert_int_equal(path[i], best[i + 1]);
                        }
}

static void test_arcs_that_hang_kernels_are_never_planned(void **state)
{
        DeviceState path[DEVICE_PATH_MAX];

        for (uint32_t flags = 0; flags < 8; flags++) {
                assert_int_equal(device_state_path(SC, PC, flags, path), -EINVAL);
                assert_int_equal(device_state_path(SC, PCP, flags, path), -EINVAL);
                for (int from = 0; from < N; from++)
                        for (int to = 0; to < N; to++) {
                                int n = device_state_path(from, to, flags, path), at = from;

                                for (int i = 0; i < n; at = path[i++])
                                        assert_false(at == SC && (path[i] == PC || path[i] == PCP));
                        }
        }
}

static void test_error_and_unknown_have_no_way_in_or_out(void **state)
{
        static const DeviceState outside[] = {
                DEVICE_STATE_ERROR,  DEVICE_STATE_UNKNOWN, DEVICE_STATE_MAX, DEVICE_STATE_MAX + 1, -1,
                DEVICE_STATE_INVALID};
        DeviceState path[DEVICE_PATH_MAX] = {42};

        for (size_t i = 0; i < sizeof outside / sizeof outside[0]; i++)
                for (int s = 0; s <= N; s++) {
                        assert_int_equal(device_state_path(outside[i], s, 7, path), -EINVAL);
                        assert_int_equal(device_state_path(s, outside[i], 7, path), -EINVAL);
                }
        assert_int_equal(path[0], 42);
}

static void test_a_device_without_migration_has_only_running(void **state)
{
        DeviceState path[DEVICE_PATH_MAX];

        assert_int_equal(device_state_path(RUN, RUN, 0, path), 0);
        for (int s = STOP; s < N; s++)
                if (s != RUN)
                        assert_int_equal(device_state_path(RUN, s, 0, path), -EINVAL);
}

static void test_names_are_those_of_qemu_and_round_trip(void **state)
{
        static const char *const names[] = {"error",     "stop",         "running",
                                            "stop-copy", "resuming",     "running-p2p",
                                            "pre-copy",  "pre-copy-p2p", "unknown"};

        for (int i = 0; i < DEVICE_STATE_MAX; i++) {
                assert_string_equal(device_state_to_string(i), names[i]);
                assert_int_equal(device_state_from_string(names[i]), i);
        }
        assert_null(device_state_to_string(-1));
        assert_null(device_state_to_string(DEVICE_STATE_MAX));
        assert_null(device_state_to_string(DEVICE_STATE_INVALID));
        assert_int_equal(device_state_from_string("Running"), DEVICE_STATE_INVALID);
        assert_int_equal(device_state_from_string(""), DEVICE_STATE_INVALID);
        assert_int_equal(device_state_from_string(NULL), DEVICE_STATE_INVALID);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_every_path_is_the_shortest_that_the_uapi_allows),
                cmocka_unit_test(test_arcs_that_hang_kernels_are_never_planned),
                cmocka_unit_test(test_error_and_unknown_have_no_way_in_or_out),
                cmocka_unit_test(test_a_device_without_migration_has_only_running),
                cmocka_unit_test(test_names_are_those_of_qemu_and_round_trip),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
