/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdio.h>

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
                        else if (p == PHASE_VIOMMU_GRACE) /* only of devices that the VMM drives */
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

/* ---- devices that the VMM drives ------------------------------------------------------------------------------- */

#define DRIVEN (DEVICE_SUPERVISED | DEVICE_KERNEL)

static void test_only_kernels_that_are_known_to_be_good_are_good(void **state)
{
        static const struct {
                const char *release;
                bool good;
        } kernels[] = {
                {"6.12.95", false},
                {"6.12.95+deb12-amd64", false},
                {"6.12.106", false},
                {"6.12.107", true},
                {"6.12.107-kvfio", true},
                {"6.12.200", true},
                {"6.12", false},
                {"6.11.200", false},
                {"6.13.0", false},
                {"6.18.4", false},
                {"7.0.12", false},
                {"7.1.9", false},
                {"7.2.0", true},
                {"7.2", true},
                {"7.2.12-amd64", true},
                {"7.10.1", true},
                {"8.0.0", true},
                {"12.1", true},
                {"", false},
                {"garbage", false},
                {"7", false},
                {"7.", false},
                {"7.x", false},
                {"7.2x", false},
                {"-7.2", false},
                {".7.2", false},
                {"7.2.", false},
                {"6.12.107x", false},
                {"4294967303.2.0", true}, /* nothing wraps around to 7 */
                {"6.4294967308.107", false},
        };

        for (size_t i = 0; i < ARRAY_SIZE(kernels); i++) {
                if (kernel_refuses_blocked_arcs(kernels[i].release) != kernels[i].good)
                        print_error("%s\n", kernels[i].release);
                assert_int_equal(kernel_refuses_blocked_arcs(kernels[i].release), kernels[i].good);
        }
}

/* A good kernel, a QEMU that can be held, P2P throughout, an operator who lets us: grace takes all four. */
static void test_grace_and_push_need_what_they_need(void **state)
{
        static const struct {
                uint32_t n, flags[3];
                bool grace, push;
        } sets[] = {
                {0, {}, false, false},
                {2, {3, 7}, false, false}, /* nobody's but ours */
                {1, {DRIVEN | 3}, true, true},
                {2, {DRIVEN | 7, DRIVEN | 3}, true, true},
                {3, {DRIVEN | 7, 1, DRIVEN | 7}, true, true}, /* what is ours does not matter */
                {2, {DRIVEN | 7, DRIVEN | 5}, false, true},
                {1, {DRIVEN | 1}, false, false},
                {1, {DRIVEN | 5}, false, false},
                {1, {DRIVEN}, false, true}, /* nobody could open it yet: it may have them */
        };

        for (size_t i = 0; i < ARRAY_SIZE(sets); i++)
                for (unsigned int lacks = 0; lacks < 16; lacks++) {
                        ManifestDevice devices[3] = {};
                        Manifest manifest = {.vmm = {.type = VMM_TYPE_QMP, .can_hold = !(lacks & 1)},
                                             .n_devices = sets[i].n,
                                             .devices = devices};
                        Policy policy = policy_default;
                        Plan plan;

                        for (uint32_t k = 0; k < sets[i].n; k++)
                                devices[k].migration_flags = sets[i].flags[k];
                        (void) snprintf(manifest.kernel, sizeof manifest.kernel, "%s",
                                        lacks & 2 ? "6.12.95" : "6.12.107");
                        policy.grace = !(lacks & 4);
                        policy.push = !(lacks & 8);
                        plan_build(&plan, &manifest, &policy);
                        assert_int_equal(plan.grace, sets[i].grace && !(lacks & 7));
                        assert_int_equal(plan.push, sets[i].push && !(lacks & 8));
                        assert_int_equal(plan.phases[PHASE_VIOMMU_GRACE].planned, plan.grace);
                }
}

/* Only where there is a last arc that the VMM takes; it is held from arrival-grace on. */
static void test_vcpus_are_held_if_policy_says_so_for_devices_of_the_vmm(void **state)
{
        static const uint32_t flags[] = {1, DRIVEN | 1};

        for (int driven = 0; driven < 2; driven++)
                for (int back = 0; back < 2; back++) {
                        Manifest manifest = {.vmm = {.type = VMM_TYPE_QMP},
                                             .n_devices = 1,
                                             .devices =
                                                     (ManifestDevice[1]){{.migration_flags = flags[driven]}}};
                        Policy policy = policy_default;
                        Plan plan;

                        policy.last_arc_back = back;
                        plan_build(&plan, &manifest, &policy);
                        assert_int_equal(plan.hold_vcpus, driven && back);
                        assert_int_equal(plan.phases[PHASE_ARRIVAL_GRACE].planned, plan.hold_vcpus);
                }
}

/* What the VMM moves is not ours to log, to copy or to hold back. */
static void test_what_the_vmm_drives_sends_nothing_of_ours(void **state)
{
        static const uint32_t flags[] = {DRIVEN | 7 | DEVICE_DMA_LOGGING | DEVICE_HAS_DMA, DRIVEN};
        Plan plan = build(VMM_TYPE_QMP, 2, flags);

        assert_int_equal(plan.n_supervised, 2);
        assert_int_equal(plan.n_p2p, 2); /* the second may have them */
        assert_int_equal(plan.n_senders, 1);
        assert_false(plan.logs_dma);
        assert_false(plan.copies_pages);
        assert_true(plan.phases[PHASE_ARRIVAL_GRACE].planned);
}

/* A device that the VMM drives is asked for nothing that moves state, ours for nothing that the VMM's need. */
static void test_who_is_asked_in_which_act(void **state)
{
        static const struct {
                DeviceAct act;
                uint32_t flags;
                bool push, asked, vmms_word;
        } asks[] = {
                {DEVICE_ACT_NONE, 3, false, false, false},
                {DEVICE_ACT_P2P, 3, false, true, false},
                {DEVICE_ACT_P2P, 1, false, false, false},
                {DEVICE_ACT_ARRIVE, 3, false, true, false},
                {DEVICE_ACT_ARRIVE, 1, false, false, false},
                {DEVICE_ACT_STOP_REST, 3, false, false, false},
                {DEVICE_ACT_STOP_REST, 1, false, true, false},
                {DEVICE_ACT_PRECOPY, 3, false, false, false},
                {DEVICE_ACT_PRECOPY, 7, false, true, false},
                {DEVICE_ACT_LOG, 3, false, false, false},
                {DEVICE_ACT_LOG, 3 | DEVICE_DMA_LOGGING | DEVICE_HAS_DMA, false, true, false},
                {DEVICE_ACT_DRAIN, 3, false, true, false},
                {DEVICE_ACT_INTAKE, 3, false, true, false},
                {DEVICE_ACT_RUN, 3, false, true, false},
                {DEVICE_ACT_ADOPT, 3, false, false, false},
                {DEVICE_ACT_PUSH, 3, true, false, false},
                {DEVICE_ACT_CLEAR, 3, true, false, false},
                {DEVICE_ACT_P2P, DRIVEN | 3, false, true, false},
                {DEVICE_ACT_P2P, DRIVEN | 3, true, false, true},
                {DEVICE_ACT_PUSH, DRIVEN | 3, false, false, false},
                {DEVICE_ACT_PUSH, DRIVEN | 3, true, true, false},
                {DEVICE_ACT_ADOPT, DRIVEN | 3, true, true, false},
                {DEVICE_ACT_SETTLE, DRIVEN | 3, true, true, false},
                {DEVICE_ACT_INTAKE, DRIVEN | 3, true, true, false},
                {DEVICE_ACT_DRAIN, DRIVEN | 7, true, false, false},
                {DEVICE_ACT_RUN, DRIVEN | 3, true, false, false},
                {DEVICE_ACT_PRECOPY, DRIVEN | 7, true, false, false},
        };

        for (size_t i = 0; i < ARRAY_SIZE(asks); i++) {
                Plan plan = {.push = asks[i].push};

                assert_int_equal(plan_asks(&plan, asks[i].act, asks[i].flags), asks[i].asked);
                assert_int_equal(plan_takes_vmms_word(&plan, asks[i].act, asks[i].flags), asks[i].vmms_word);
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
        assert_true(policy_default.grace);
        assert_true(policy_default.push);
        assert_false(policy_default.last_arc_back);
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
                cmocka_unit_test(test_only_kernels_that_are_known_to_be_good_are_good),
                cmocka_unit_test(test_grace_and_push_need_what_they_need),
                cmocka_unit_test(test_vcpus_are_held_if_policy_says_so_for_devices_of_the_vmm),
                cmocka_unit_test(test_what_the_vmm_drives_sends_nothing_of_ours),
                cmocka_unit_test(test_who_is_asked_in_which_act),
                cmocka_unit_test(test_who_moves_what_devices_write),
                cmocka_unit_test(test_a_pre_copy_ends_before_its_phase_does),
                cmocka_unit_test(test_bandwidth_is_shared_by_those_who_send),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
