/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdio.h>

#include "daemon/core/plan.h"
#include "test.h"

#define DEVICES_MAX 4

static void set_key(PolicyRule *rule, PolicyKey key, uint64_t value)
{
        rule->sets[key] = true;
        rule->values[key] = value;
}

static Plan build_with(const Manifest *manifest, const PolicyRules *rules)
{
        Plan plan;

        memset(&plan, 0xee, sizeof plan);
        assert_int_equal(plan_build(&plan, manifest, rules, 2), 0);
        return plan;
}

/* A policy in which no two deadlines are alike. */
static Plan build(VmmType vmm, uint32_t n, const uint32_t *flags)
{
        ManifestDevice devices[DEVICES_MAX] = {};
        Manifest manifest = {.vmm.type = vmm, .n_devices = n, .devices = devices};
        PolicyRule rule = {};

        for (uint32_t i = 0; i < n; i++)
                devices[i].migration_flags = flags[i];
        set_key(&rule, POLICY_RETRY, 3);
        for (Phase p = 0; p < PHASE_MAX; p++)
                set_key(&rule, POLICY_DEADLINE + p, 100 + (uint64_t) p);
        return build_with(&manifest, &(PolicyRules){1, &rule});
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
                plan_deinit(&plan);
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
                plan_deinit(&plan);
        }
}

static void test_a_plan_takes_its_times_from_the_policy(void **state)
{
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                Plan plan = build(cases[i].vmm, cases[i].n, cases[i].flags);

                for (Phase p = 0; p < PHASE_MAX; p++) {
                        uint64_t usec = (100 + (uint64_t) p) * 1000;

                        assert_int_equal(plan.phases[p].deadline_usec, usec);
                        assert_int_equal(plan.phases[p].peer_usec, usec);
                        for (uint32_t k = 0; k < cases[i].n; k++)
                                assert_int_equal(plan.devices[k].deadline_usec[p], usec);
                }
                for (uint32_t k = 0; k < cases[i].n; k++)
                        assert_int_equal(plan.devices[k].retries, 3);
                assert_int_equal(plan.doubt_usec, 2);
                plan_deinit(&plan);
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
                        PolicyRule rule = {};
                        Plan plan;

                        for (uint32_t k = 0; k < sets[i].n; k++)
                                devices[k].migration_flags = sets[i].flags[k];
                        (void) snprintf(manifest.kernel, sizeof manifest.kernel, "%s",
                                        lacks & 2 ? "6.12.95" : "6.12.107");
                        if (lacks & 4)
                                set_key(&rule, POLICY_SUPERVISED_GRACE, POLICY_OFF);
                        if (lacks & 8)
                                set_key(&rule, POLICY_SUPERVISED_PUSH, POLICY_OFF);
                        plan = build_with(&manifest, &(PolicyRules){1, &rule});
                        assert_int_equal(plan.grace, sets[i].grace && !(lacks & 7));
                        assert_int_equal(plan.push, sets[i].push && !(lacks & 8));
                        assert_int_equal(plan.phases[PHASE_VIOMMU_GRACE].planned, plan.grace);
                        plan_deinit(&plan);
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
                        PolicyRule rule = {};
                        Plan plan;

                        if (back)
                                set_key(&rule, POLICY_SUPERVISED_LAST_ARC, POLICY_LAST_ARC_BACK);
                        plan = build_with(&manifest, &(PolicyRules){1, &rule});
                        assert_int_equal(plan.hold_vcpus, driven && back);
                        assert_int_equal(plan.phases[PHASE_ARRIVAL_GRACE].planned, plan.hold_vcpus);
                        plan_deinit(&plan);
                        set_key(&rule, POLICY_AFTER_GRACE, POLICY_AFTER_GRACE_DEGRADED);
                        plan = build_with(&manifest, &(PolicyRules){1, &rule});
                        assert_false(plan.hold_vcpus); /* the VM is not to come back */
                        plan_deinit(&plan);
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
        plan_deinit(&plan);
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
                PlanDevice device = {.precopy = true};
                Plan plan = {.push = asks[i].push, .n_devices = 1, .devices = &device};

                assert_int_equal(plan_asks(&plan, asks[i].act, 0, asks[i].flags), asks[i].asked);
                assert_int_equal(plan_takes_vmms_word(&plan, asks[i].act, asks[i].flags), asks[i].vmms_word);
        }
}

/* Without a policy: 5 s a participant and phase, 60 s drain and pre-copy, of which pre-copy takes 10; nothing is tried anew,
 * nothing bounded, a device that fails is reset, and the VM goes on without what it held. */
static void test_the_defaults_are_those_that_were_agreed(void **state)
{
        Manifest manifest = {.vmm.type = VMM_TYPE_QMP, .n_devices = 1, .devices = (ManifestDevice[1]){{}}};
        Plan plan = build_with(&manifest, &(PolicyRules){});
        const PlanDevice *device = &plan.devices[0];

        for (Phase p = 0; p < PHASE_MAX; p++) {
                uint64_t usec = p == PHASE_DRAIN || p == PHASE_PRECOPY ? 60000000 : 5000000;

                assert_int_equal(plan.phases[p].deadline_usec, usec);
                assert_int_equal(device->deadline_usec[p], usec);
        }
        assert_int_equal(device->retries, 0);
        assert_int_equal(device->order, 0);
        assert_true(device->precopy);
        assert_int_equal(device->limits.precopy_usec, 10000000);
        assert_int_equal(device->limits.precopy_bytes, 0);
        assert_int_equal(device->limits.precopy_rate, MIB);
        assert_int_equal(device->limits.state_bytes, 0);
        assert_int_equal(device->on_error, POLICY_ON_ERROR_RESET);
        assert_int_equal(device->on_source_loss, POLICY_ON_SOURCE_LOSS_DEGRADED_RUN);
        assert_false(plan.onward || plan.viommu || plan.hold_vcpus);
        assert_int_equal(plan.bandwidth, 0);
        assert_int_equal(plan.max_blackout_usec, 0);
        plan_deinit(&plan);
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

                        plan = build_with(&manifest, &(PolicyRules){});
                        assert_int_equal(plan.logs_dma, dma);
                        assert_int_equal(plan.copies_pages, dma && !takes);
                        plan_deinit(&plan);
                }
}

/* Half of the phase's time at most: the rest of the way needs some, too. */
static void test_a_pre_copy_ends_before_its_phase_does(void **state)
{
        static const struct {
                uint64_t limit, deadline, expect;
        } limits[] = {{10, 60, 10}, {30, 60, 30}, {31, 60, 30}, {0, 60, 30}, {1000, 60, 30}};

        for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
                PolicyRule rule = {};
                Manifest manifest = {
                        .vmm.type = VMM_TYPE_NONE, .n_devices = 1, .devices = (ManifestDevice[1]){{}}};
                Plan plan;

                set_key(&rule, POLICY_PRECOPY_LIMIT_MSEC, limits[i].limit);
                set_key(&rule, POLICY_DEADLINE + PHASE_PRECOPY, limits[i].deadline);
                plan = build_with(&manifest, &(PolicyRules){1, &rule});
                assert_int_equal(plan.devices[0].limits.precopy_usec, limits[i].expect * 1000);
                plan_deinit(&plan);
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

                plan_take_limits(&plan, shares[i].bandwidth, 0);
                assert_int_equal(plan.bandwidth_share, shares[i].expect);
                for (uint32_t k = 0; k < 2; k++)
                        assert_int_equal(plan.devices[k].limits.bandwidth, shares[i].expect);
                plan_deinit(&plan);
        }
}

/* ---- policies ---------------------------------------------------------------------------------------------------- */

/* A rule about one device is about that one; what is about the VM, and the VMM's own deadlines, comes from rules that name no
 * device. */
static void test_what_holds_for_one_device_is_not_of_the_others(void **state)
{
        ManifestDevice devices[2] = {{.id = "a", .migration_flags = 7}, {.id = "b", .migration_flags = 7}};
        Manifest manifest = {.vmm.type = VMM_TYPE_DELEGATE, .n_devices = 2, .devices = devices};
        PolicyRule rule = {.match.id = "b"};
        Plan plan;

        set_key(&rule, POLICY_RETRY, 4);
        set_key(&rule, POLICY_ORDER, 9);
        set_key(&rule, POLICY_PRECOPY, POLICY_OFF);
        set_key(&rule, POLICY_PRECOPY_LIMIT_MIB, 3);
        set_key(&rule, POLICY_PRECOPY_LIMIT_RATE_KIB, 7);
        set_key(&rule, POLICY_MAX_STATE_MIB, 5);
        set_key(&rule, POLICY_ON_ERROR, POLICY_ON_ERROR_QUARANTINE);
        set_key(&rule, POLICY_ON_SOURCE_LOSS, POLICY_ON_SOURCE_LOSS_PAUSE);
        set_key(&rule, POLICY_DEADLINE + PHASE_INTAKE, 30000);
        plan = build_with(&manifest, &(PolicyRules){1, &rule});
        for (int i = 0; i < 2; i++) {
                const PlanDevice *device = &plan.devices[i];

                assert_int_equal(device->retries, i ? 4 : 0);
                assert_int_equal(device->order, i ? 9 : 0);
                assert_int_equal(device->precopy, !i);
                assert_int_equal(device->limits.precopy_bytes, i ? 3 << 20 : 0);
                assert_int_equal(device->limits.precopy_rate, i ? 7 << 10 : 1 << 20);
                assert_int_equal(device->limits.state_bytes, i ? 5 << 20 : 0);
                assert_int_equal(device->on_error, i ? POLICY_ON_ERROR_QUARANTINE : POLICY_ON_ERROR_RESET);
                assert_int_equal(device->on_source_loss,
                                 i ? POLICY_ON_SOURCE_LOSS_PAUSE : POLICY_ON_SOURCE_LOSS_DEGRADED_RUN);
                assert_int_equal(device->deadline_usec[PHASE_INTAKE], i ? 30000000 : 5000000);
                assert_int_equal(plan_asks(&plan, DEVICE_ACT_PRECOPY, (uint32_t) i, 7), !i);
        }
        assert_int_equal(plan.n_senders, 2); /* the VMM and the first */
        assert_int_equal(plan.phases[PHASE_INTAKE].deadline_usec, 5000000);
        /* The other half's second begins when its first has ended. */
        assert_int_equal(plan.phases[PHASE_INTAKE].peer_usec, 35000000);
        assert_int_equal(plan.phases[PHASE_HALT].peer_usec, 10000000);
        plan_deinit(&plan);
}

/* A set of devices has no vCPUs that could be kept from running. */
static void test_nothing_is_paused_without_a_vmm(void **state)
{
        Manifest manifest = {.vmm.type = VMM_TYPE_NONE, .n_devices = 1, .devices = (ManifestDevice[1]){{}}};
        PolicyRule rule = {};
        Plan plan;

        set_key(&rule, POLICY_ON_SOURCE_LOSS, POLICY_ON_SOURCE_LOSS_PAUSE);
        plan = build_with(&manifest, &(PolicyRules){1, &rule});
        assert_int_equal(plan.devices[0].on_source_loss, POLICY_ON_SOURCE_LOSS_DEGRADED_RUN);
        plan_deinit(&plan);
}

/* Policy and whoever asks both bound it; 0 is no bound. */
static void test_of_two_limits_the_smaller_holds(void **state)
{
        static const struct {
                uint64_t policy, caller, expect; /* MiB a second; milliseconds */
        } limits[] = {{0, 0, 0}, {5, 0, 5}, {0, 7, 7}, {5, 7, 5}, {7, 5, 5}, {5, 5, 5}};

        for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
                Manifest manifest = {.vmm.type = VMM_TYPE_QMP};
                PolicyRule rule = {};
                Plan plan;

                set_key(&rule, POLICY_BANDWIDTH_MIB, limits[i].policy);
                set_key(&rule, POLICY_MAX_BLACKOUT_MS, limits[i].policy);
                plan = build_with(&manifest, &(PolicyRules){1, &rule});
                plan_take_limits(&plan, limits[i].caller * MIB, limits[i].caller * 1000);
                assert_int_equal(plan.bandwidth, limits[i].expect * MIB);
                assert_int_equal(plan.bandwidth_share, limits[i].expect * MIB);
                assert_int_equal(plan.max_blackout_usec, limits[i].expect * 1000);
                plan_deinit(&plan);
        }
}

/* Phase 4 for devices that are ours: each must be quiet in its P2P states, by its flags and by somebody's word; auto: only
 * where a page fault may need a vCPU. */
static void test_devices_are_quieted_under_vcpus_where_all_can_be(void **state)
{
        for (uint64_t word = 0; word <= POLICY_REQUIRE; word++)
                for (unsigned int lacks = 0; lacks < 16; lacks++) {
                        ManifestDevice devices[2] = {{.id = "a", .migration_flags = 3},
                                                     {.id = "b", .migration_flags = lacks & 1 ? 1 : 7}};
                        Manifest manifest = {.vmm = {.type = VMM_TYPE_DELEGATE, .viommu = !(lacks & 2)},
                                             .n_devices = 2,
                                             .devices = devices};
                        PolicyRule rules[2] = {{}, {.match.id = "a"}};
                        bool can, wanted = word == POLICY_REQUIRE || (word == POLICY_AUTO && !(lacks & 2));
                        Plan plan;

                        if (!(lacks & 4))
                                rules[1].match.id[0] = '*';
                        if (lacks & 8)
                                devices[1].migration_flags |= DRIVEN;
                        can = !(lacks & (1 | 4 | 8));
                        set_key(&rules[0], POLICY_VIOMMU_GRACE, word);
                        set_key(&rules[1], POLICY_NDMA, POLICY_NDMA_FULL);
                        plan = build_with(&manifest, &(PolicyRules){2, rules});
                        assert_int_equal(plan.viommu, can && wanted);
                        assert_int_equal(plan.phases[PHASE_VIOMMU_GRACE].planned, can && wanted);
                        assert_int_equal(plan_asks(&plan, DEVICE_ACT_GRACE, 0, 3), can && wanted);
                        plan_deinit(&plan);
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
                cmocka_unit_test(test_what_holds_for_one_device_is_not_of_the_others),
                cmocka_unit_test(test_nothing_is_paused_without_a_vmm),
                cmocka_unit_test(test_of_two_limits_the_smaller_holds),
                cmocka_unit_test(test_devices_are_quieted_under_vcpus_where_all_can_be),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
