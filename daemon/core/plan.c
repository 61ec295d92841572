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

static void plan_grace_and_push(Plan *plan, const Manifest *manifest, const Policy *policy)
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
        plan->push = policy->push && any_p2p;
        plan->grace = policy->grace && plan->p2p && manifest->vmm.can_hold &&
                      kernel_refuses_blocked_arcs(manifest->kernel);
}

/* Where the VMM is overtaken, its word is enough that all are in P2P: to look takes as long as the arc in which it has one
 * of them by then. */
bool plan_takes_vmms_word(const Plan *plan, DeviceAct act, uint32_t flags)
{
        return act == DEVICE_ACT_P2P && (flags & DEVICE_SUPERVISED) && plan->push;
}

bool plan_asks(const Plan *plan, DeviceAct act, uint32_t flags)
{
        /* A state from which there is a way in any act: of what is asked forward the state decides only how. */
        static const DeviceState from[] = {DEVICE_STATE_RUNNING, DEVICE_STATE_RESUMING, DEVICE_STATE_STOP};
        DeviceProgram program;

        if (plan_takes_vmms_word(plan, act, flags) || (act == DEVICE_ACT_PUSH && !plan->push))
                return false;
        for (size_t i = 0; i < ARRAY_SIZE(from); i++)
                if (device_program(act, from[i], flags, false, &program) == 0 && program.n > 0)
                        return true;
        return false;
}

void plan_build(Plan *ret_plan, const Manifest *manifest, const Policy *policy)
{
        Plan plan = {
                .retries = policy->retries,
                .doubt_usec = policy->doubt_usec,
                .fence = policy->fence,
                .fence_usec = policy->fence_usec,
                .limits = policy->limits,
                .n_devices = manifest->n_devices,
        };

        for (uint32_t i = 0; i < manifest->n_devices; i++) {
                uint32_t flags = manifest->devices[i].migration_flags;

                if ((flags & DEVICE_SUPERVISED) ? may_have_p2p(flags) : (flags & DEVICE_MIGRATION_P2P) != 0)
                        plan.n_p2p++;
                if (flags & DEVICE_SUPERVISED)
                        continue; /* its data and its pages are its VMM's affair */
                if (flags & DEVICE_MIGRATION_PRE_COPY)
                        plan.n_senders++;
                plan.logs_dma |= (flags & DEVICE_HAS_DMA) != 0;
        }
        plan_grace_and_push(&plan, manifest, policy);
        if (manifest->vmm.type != VMM_TYPE_NONE)
                plan.n_senders++;
        plan.copies_pages = plan.logs_dma && !manifest->vmm.takes_dirty_pages;

        for (Phase p = 0; p < PHASE_MAX; p++)
                plan.phases[p] = (PlanPhase){.planned = true, .deadline_usec = policy->deadline_usec[p]};

        /* No device is known to be `ndma: full`, and no VM asks for page faults that need a vCPU: nothing needs
         * its devices in a P2P state while vCPUs still run. Those that the VMM drives it would take there one after the
         * other, in the blackout. */
        plan.phases[PHASE_VIOMMU_GRACE].planned = plan.grace;

        plan.phases[PHASE_PRECOPY].planned = plan.n_senders > 0;

        /* A device that never comes to an end is stopped by its limit, not by the phase's deadline, which would turn the
         * job back. */
        if (plan.limits.precopy_usec == 0 ||
            plan.limits.precopy_usec > policy->deadline_usec[PHASE_PRECOPY] / 2)
                plan.limits.precopy_usec = policy->deadline_usec[PHASE_PRECOPY] / 2;

        plan.phases[PHASE_ARRIVAL_GRACE].planned = plan.n_p2p > 0;
        *ret_plan = plan;
}

void plan_divide_bandwidth(Plan *plan, uint64_t bandwidth)
{
        plan->limits.bandwidth =
                bandwidth > 0 && plan->n_senders > 0 ? MAX(bandwidth / plan->n_senders, 1) : bandwidth;
}
