/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "daemon/core/plan.h"
#include "test.h"

#define DEVICES_MAX 4

/* A policy in which no two values are alike. */
static Policy make_policy(void)
{
        Policy policy = {.connect_usec = 1, .doubt_usec = 2, .retries = 3};

        for (Phase p = 0; p < PHASE_MAX; p++)
                policy.deadline_usec[p] = 100 + (uint64_t) p;
        return policy;
}

static Plan build(VmmType vmm, uint32_t n, const uint32_t *flags)
{
        ManifestDevice devices[DEVICES_MAX] = {};
        Manifest manifest = {.vmm.type = vmm, .n_devices = n, .devices = devices};
        Policy policy = make_policy();
        Plan plan;

        for (uint32_t i = 0; i < n; i++)
                devices[i].migration_flags = flags[i];
        memset(&plan, 0xee, sizeof plan);
        plan_build(&plan, &manifest, &policy);
        return plan;
}

static const struct {
        VmmType vmm;
        uint32_t n, flags[DEVICES_MAX];
        uint32_t n_p2p;
} cases[] = {
        {VMM_TYPE_NONE, 0, {}, 0},          {VMM_TYPE_QMP, 0, {}, 0},         {VMM_TYPE_NONE, 1, {1}, 0},
        {VMM_TYPE_NONE, 1, {3}, 1},         {VMM_TYPE_QMP, 2, {1, 5}, 0},     {VMM_TYPE_QMP, 2, {5, 7}, 1},
        {VMM_TYPE_QMP, 4, {3, 1, 7, 2}, 3}, {VMM_TYPE_NONE, 3, {0, 0, 0}, 0},
};

static void test_a_plan_counts_its_devices_and_those_that_know_p2p(void **state)
{
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                Plan plan = build(cases[i].vmm, cases[i].n, cases[i].flags);

                assert_int_equal(plan.n_devices, cases[i].n);
                assert_int_equal(plan.n_p2p, cases[i].n_p2p);
        }
}

/* Only three phases may be missing, each for its own reason. */
static void test_a_phase_is_left_out_only_when_nobody_has_anything_to_do_in_it(void **state)
{
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                Plan plan = build(cases[i].vmm, cases[i].n, cases[i].flags);

                for (Phase p = 0; p < PHASE_MAX; p++) {
                        bool expect = true;

                        if (p == PHASE_PRECOPY) /* the VMM's memory */
                                expect = cases[i].vmm == VMM_TYPE_QMP;
                        else if (p == PHASE_ARRIVAL_GRACE)
                                expect = cases[i].n_p2p > 0;
                        else if (p ==
                                 PHASE_VIOMMU_GRACE) /* only with `ndma: full`, which nobody can claim yet */
                                expect = false;
                        assert_int_equal(plan.phases[p].planned, expect);
                }
        }
}

static void test_a_plan_takes_its_times_from_the_policy(void **state)
{
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                Plan plan = build(cases[i].vmm, cases[i].n, cases[i].flags);

                for (Phase p = 0; p < PHASE_MAX; p++)
                        assert_int_equal(plan.phases[p].deadline_usec, 100 + p);
                assert_int_equal(plan.retries, 3);
                assert_int_equal(plan.doubt_usec, 2);
        }
}

/* docs/vm-definition.md: 5 s a participant and phase, 2 s to connect, 60 s drain and pre-copy, retries 0, in doubt after 10 s. */
static void test_the_defaults_are_those_that_were_agreed(void **state)
{
        for (Phase p = 0; p < PHASE_MAX; p++)
                assert_int_equal(policy_default.deadline_usec[p],
                                 p == PHASE_DRAIN || p == PHASE_PRECOPY ? 60000000 : 5000000);
        assert_int_equal(policy_default.connect_usec, 2000000);
        assert_int_equal(policy_default.doubt_usec, 10000000);
        assert_int_equal(policy_default.retries, 0);
}

/* Memory that devices write is moved by a VMM that takes it, else by their agents; what is not written, by nobody. */
static void test_who_moves_what_devices_write(void **state)
{
        static const uint32_t writes[] = {1, 1 | DEVICE_HAS_DMA | DEVICE_DMA_LOGGING};

        for (int dma = 0; dma < 2; dma++)
                for (int takes = 0; takes < 2; takes++) {
                        Manifest manifest = {.vmm = {.type = VMM_TYPE_QMP, .takes_dirty_pages = takes},
                                             .n_devices = 2,
                                             .devices =
                                                     (ManifestDevice[2]){{.migration_flags = 7},
                                                                         {.migration_flags = writes[dma]}}};
                        Plan plan;

                        plan_build(&plan, &manifest, &policy_default);
                        assert_int_equal(plan.logs_dma, dma);
                        assert_int_equal(plan.copies_pages, dma && !takes);
                }
}

/* Half of the phase's time at most: the rest of the way needs some, too. */
static void test_a_pre_copy_ends_before_its_phase_does(void **state)
{
        static const struct {
                uint64_t limit, deadline, expect;
        } limits[] = {{10, 60, 10}, {30, 60, 30}, {31, 60, 30}, {0, 60, 30}, {1000, 60, 30}};

        for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
                Policy policy = policy_default;
                Manifest manifest = {.vmm.type = VMM_TYPE_NONE};
                Plan plan;

                policy.limits.precopy_usec = limits[i].limit;
                policy.deadline_usec[PHASE_PRECOPY] = limits[i].deadline;
                plan_build(&plan, &manifest, &policy);
                assert_int_equal(plan.limits.precopy_usec, limits[i].expect);
        }
}

/* All that send while the VM runs have the same share; a limit does not become none. */
static void test_bandwidth_is_shared_by_those_who_send(void **state)
{
        static const struct {
                VmmType vmm;
                uint32_t flags[2];
                uint64_t bandwidth, expect;
        } shares[] = {
                {VMM_TYPE_QMP, {7, 7}, 3000, 1000},  {VMM_TYPE_QMP, {7, 3}, 3000, 1500},
                {VMM_TYPE_QMP, {3, 3}, 3000, 3000},  {VMM_TYPE_NONE, {5, 1}, 3000, 3000},
                {VMM_TYPE_NONE, {1, 1}, 3000, 3000}, {VMM_TYPE_QMP, {7, 7}, 2, 1},
                {VMM_TYPE_QMP, {7, 7}, 0, 0},
        };

        for (size_t i = 0; i < ARRAY_SIZE(shares); i++) {
                Plan plan = build(shares[i].vmm, 2, shares[i].flags);

                plan_divide_bandwidth(&plan, shares[i].bandwidth);
                assert_int_equal(plan.limits.bandwidth, shares[i].expect);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_plan_counts_its_devices_and_those_that_know_p2p),
                cmocka_unit_test(test_a_phase_is_left_out_only_when_nobody_has_anything_to_do_in_it),
                cmocka_unit_test(test_a_plan_takes_its_times_from_the_policy),
                cmocka_unit_test(test_the_defaults_are_those_that_were_agreed),
                cmocka_unit_test(test_who_moves_what_devices_write),
                cmocka_unit_test(test_a_pre_copy_ends_before_its_phase_does),
                cmocka_unit_test(test_bandwidth_is_shared_by_those_who_send),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
