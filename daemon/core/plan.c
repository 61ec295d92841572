/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "plan.h"

/* "6.12.95+deb12-amd64": a number, a dot, and so on. */
static bool take_number(const char **text, unsigned int *ret)
{
        const char *p = *text;
        unsigned int n = 0;

        if (*p < '0' || *p > '9')
                return false;
        for (; *p >= '0' && *p <= '9'; p++)
                n = MIN(n * 10 + (unsigned int) (*p - '0'), 1000000);
        *text = p;
        *ret = n;
        return true;
}

bool kernel_refuses_blocked_arcs(const char *release)
{
        /* Where it was seen refused, and from where on within that series. */
        static const struct {
                unsigned int major, minor, patch;
        } series[] = {{6, 12, 107}};
        unsigned int major, minor, patch = 0;

        if (!take_number(&release, &major) || *release++ != '.' || !take_number(&release, &minor))
                return false;
        if (*release == '.') {
                release++;
                if (!take_number(&release, &patch))
                        return false;
        }
        if (*release && !strchr("+-.", *release))
                return false;
        for (size_t i = 0; i < ARRAY_SIZE(series); i++)
                if (major == series[i].major && minor == series[i].minor)
                        return patch >= series[i].patch;
        return major > 7 || (major == 7 && minor >= 2);
}

/* What is known of a device that its VMM drives before that has opened it is that it may have the P2P states. */
static bool may_have_p2p(uint32_t flags)
{
        return (flags & DEVICE_MIGRATION_P2P) || !(flags & DEVICE_MIGRATION_STOP_COPY);
}

bool plan_can_quiet_all(const Manifest *manifest, const PolicyRules *rules)
{
        PolicyView view;

        for (uint32_t i = 0; i < manifest->n_devices; i++) {
                const ManifestDevice *device = &manifest->devices[i];

                if ((device->migration_flags & DEVICE_SUPERVISED) ||
                    !(device->migration_flags & DEVICE_MIGRATION_P2P))
                        return false;
                policy_of_device(rules, manifest, device, &view);
                if (view.values[POLICY_NDMA] != POLICY_NDMA_FULL)
                        return false;
        }
        return true;
}

static void plan_grace_and_push(Plan *plan, const Manifest *manifest, const PolicyView *view)
{
        bool any_p2p = false, all_p2p = true;

        for (uint32_t i = 0; i < manifest->n_devices; i++) {
                uint32_t flags = manifest->devices[i].migration_flags;

                if (!(flags & DEVICE_SUPERVISED))
                        continue;
                plan->n_supervised++;
                any_p2p |= may_have_p2p(flags);
                all_p2p &= (flags & DEVICE_MIGRATION_P2P) != 0;
        }
        plan->p2p = plan->n_supervised > 0 && all_p2p;
        plan->push = view->values[POLICY_SUPERVISED_PUSH] == POLICY_AUTO && any_p2p;
        plan->grace = view->values[POLICY_SUPERVISED_GRACE] == POLICY_AUTO && plan->p2p &&
                      manifest->vmm.can_hold && kernel_refuses_blocked_arcs(manifest->kernel);
}

/* Page faults that need a vCPU must be over before the vCPUs stand: only where there can be any, or somebody insists. */
static bool plans_viommu(const Manifest *manifest, const PolicyRules *rules, uint64_t word)
{
        bool wanted = word == POLICY_REQUIRE || (word == POLICY_AUTO && manifest->vmm.viommu);

        return wanted && manifest->n_devices > 0 && plan_can_quiet_all(manifest, rules);
}

/* Where the VMM is overtaken, its word is enough that all are in P2P: to look takes as long as the arc in which it has one
 * of them by then. */
bool plan_takes_vmms_word(const Plan *plan, DeviceAct act, uint32_t flags)
{
        return act == DEVICE_ACT_P2P && (flags & DEVICE_SUPERVISED) && plan->push;
}

bool plan_leaves_out(const Plan *plan, DeviceAct act, uint32_t device, uint32_t flags)
{
        if (act == DEVICE_ACT_PRECOPY)
                return !plan->devices[device].precopy;
        if (act == DEVICE_ACT_GRACE)
                return flags & DEVICE_SUPERVISED ? !plan->grace : !plan->viommu;
        return false;
}

bool plan_asks(const Plan *plan, DeviceAct act, uint32_t device, uint32_t flags)
{
        /* A state from which there is a way in any act: of what is asked forward the state decides only how. */
        static const DeviceState from[] = {DEVICE_STATE_RUNNING, DEVICE_STATE_RESUMING, DEVICE_STATE_STOP};
        DeviceProgram program;

        if (plan_takes_vmms_word(plan, act, flags) || plan_leaves_out(plan, act, device, flags) ||
            (act == DEVICE_ACT_PUSH && !plan->push))
                return false;
        for (size_t i = 0; i < ARRAY_SIZE(from); i++)
                if (device_program(act, from[i], flags, false, &program) == 0 && program.n > 0)
                        return true;
        return false;
}

static uint64_t deadline_usec(const PolicyView *view, Phase phase)
{
        return view->values[POLICY_DEADLINE + phase] * USEC_PER_MSEC;
}

/* A device that never comes to an end is stopped by its limit, not by the phase's deadline, which would turn the job
 * back. */
static uint64_t precopy_usec(const PolicyView *view)
{
        uint64_t most = deadline_usec(view, PHASE_PRECOPY) / 2;
        uint64_t usec = view->values[POLICY_PRECOPY_LIMIT_MSEC] * USEC_PER_MSEC;

        return usec == 0 ? most : MIN(usec, most);
}

static void plan_device(PlanDevice *device, const Manifest *manifest, const PolicyView *view)
{
        for (Phase p = 0; p < PHASE_MAX; p++)
                device->deadline_usec[p] = deadline_usec(view, p);
        device->retries = (uint32_t) view->values[POLICY_RETRY];
        device->order = (uint32_t) view->values[POLICY_ORDER];
        device->precopy = view->values[POLICY_PRECOPY] != POLICY_OFF;
        device->limits = (TransferLimits){
                .precopy_usec = precopy_usec(view),
                .precopy_bytes = view->values[POLICY_PRECOPY_LIMIT_MIB] * MIB,
                .precopy_rate = view->values[POLICY_PRECOPY_LIMIT_RATE_KIB] * 1024,
                .state_bytes = view->values[POLICY_MAX_STATE_MIB] * MIB,
        };
        device->on_error = (PolicyOnError) view->values[POLICY_ON_ERROR];
        /* Without a VMM nothing could be kept from running, and nobody could let it go on. */
        device->on_source_loss = manifest->vmm.type == VMM_TYPE_NONE
                                         ? POLICY_ON_SOURCE_LOSS_DEGRADED_RUN
                                         : (PolicyOnSourceLoss) view->values[POLICY_ON_SOURCE_LOSS];
}

static void count_device(Plan *plan, uint32_t i, uint32_t flags)
{
        if ((flags & DEVICE_SUPERVISED) ? may_have_p2p(flags) : (flags & DEVICE_MIGRATION_P2P) != 0)
                plan->n_p2p++;
        if (flags & DEVICE_SUPERVISED)
                return; /* its data and its pages are its VMM's affair */
        if ((flags & DEVICE_MIGRATION_PRE_COPY) && plan->devices[i].precopy)
                plan->n_senders++;
        plan->logs_dma |= (flags & DEVICE_HAS_DMA) != 0;
}

/* The longest of each order, one after the other: the other half has the same devices, and may have the same policies. */
static uint64_t longest_usec(const Plan *plan, Phase phase)
{
        uint64_t most[PLAN_ORDERS] = {}, sum = 0;

        for (uint32_t i = 0; i < plan->n_devices; i++) {
                const PlanDevice *device = &plan->devices[i];

                most[device->order] = MAX(most[device->order], device->deadline_usec[phase]);
        }
        for (uint32_t order = 0; order < PLAN_ORDERS; order++)
                sum += most[order];
        return MAX(sum, plan->phases[phase].deadline_usec);
}

static int plan_devices(Plan *plan, const Manifest *manifest, const PolicyRules *rules)
{
        PolicyView view;

        plan->n_devices = manifest->n_devices;
        plan->devices = calloc(manifest->n_devices + 1, sizeof *plan->devices);
        if (!plan->devices)
                return -ENOMEM;
        for (uint32_t i = 0; i < manifest->n_devices; i++) {
                policy_of_device(rules, manifest, &manifest->devices[i], &view);
                plan_device(&plan->devices[i], manifest, &view);
                count_device(plan, i, manifest->devices[i].migration_flags);
        }
        return 0;
}

int plan_build(Plan *ret_plan, const Manifest *manifest, const PolicyRules *rules, uint64_t doubt_usec)
{
        Plan plan = {.doubt_usec = doubt_usec};
        PolicyView view;
        int r = plan_devices(&plan, manifest, rules);

        if (r < 0)
                return r;
        policy_of_vm(rules, manifest, &view);
        plan_grace_and_push(&plan, manifest, &view);
        plan.viommu = plans_viommu(manifest, rules, view.values[POLICY_VIOMMU_GRACE]);
        plan.onward = view.values[POLICY_AFTER_GRACE] == POLICY_AFTER_GRACE_DEGRADED;
        plan.hold_vcpus = view.values[POLICY_SUPERVISED_LAST_ARC] == POLICY_LAST_ARC_BACK &&
                          plan.n_supervised > 0 && !plan.onward;
        plan.bandwidth = view.values[POLICY_BANDWIDTH_MIB] * MIB;
        plan.max_blackout_usec = view.values[POLICY_MAX_BLACKOUT_MS] * USEC_PER_MSEC;
        if (manifest->vmm.type != VMM_TYPE_NONE)
                plan.n_senders++;
        plan.copies_pages = plan.logs_dma && !manifest->vmm.takes_dirty_pages;

        for (Phase p = 0; p < PHASE_MAX; p++) {
                plan.phases[p] = (PlanPhase){.planned = true, .deadline_usec = deadline_usec(&view, p)};
                plan.phases[p].peer_usec = longest_usec(&plan, p);
        }
        /* Those that the VMM drives it would take there one after the other, in the blackout. */
        plan.phases[PHASE_VIOMMU_GRACE].planned = plan.grace || plan.viommu;
        plan.phases[PHASE_PRECOPY].planned = plan.n_senders > 0;
        plan.phases[PHASE_ARRIVAL_GRACE].planned = plan.n_p2p > 0 || plan.hold_vcpus;
        plan_take_limits(&plan, 0, 0);
        *ret_plan = plan;
        return 0;
}

void plan_deinit(Plan *plan)
{
        free(plan->devices);
        *plan = (Plan){};
}

static uint64_t smaller_limit(uint64_t a, uint64_t b)
{
        return a == 0 ? b : b == 0 ? a : MIN(a, b);
}

void plan_take_limits(Plan *plan, uint64_t bandwidth, uint64_t max_blackout_usec)
{
        plan->max_blackout_usec = smaller_limit(plan->max_blackout_usec, max_blackout_usec);
        plan->bandwidth = smaller_limit(plan->bandwidth, bandwidth);
        plan->bandwidth_share = plan->bandwidth > 0 && plan->n_senders > 0
                                        ? MAX(plan->bandwidth / plan->n_senders, 1)
                                        : plan->bandwidth;
        for (uint32_t i = 0; i < plan->n_devices; i++)
                plan->devices[i].limits.bandwidth = plan->bandwidth_share;
}
