/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "plan.h"

void plan_build(Plan *ret_plan, const Manifest *manifest, const Policy *policy)
{
        Plan plan = {
                .retries = policy->retries,
                .doubt_usec = policy->doubt_usec,
                .limits = policy->limits,
                .n_devices = manifest->n_devices,
        };

        for (uint32_t i = 0; i < manifest->n_devices; i++) {
                uint32_t flags = manifest->devices[i].migration_flags;

                if (flags & DEVICE_MIGRATION_P2P)
                        plan.n_p2p++;
                if (flags & DEVICE_MIGRATION_PRE_COPY)
                        plan.n_senders++;
                plan.logs_dma |= (flags & DEVICE_HAS_DMA) != 0;
        }
        if (manifest->vmm.type != VMM_TYPE_NONE)
                plan.n_senders++;
        plan.copies_pages = plan.logs_dma && !manifest->vmm.takes_dirty_pages;

        for (Phase p = 0; p < PHASE_MAX; p++)
                plan.phases[p] = (PlanPhase){.planned = true, .deadline_usec = policy->deadline_usec[p]};

        /* No device is known to be `ndma: full`, and no VM asks for page faults that need a vCPU: nothing needs
         * its devices in a P2P state while vCPUs still run. */
        plan.phases[PHASE_VIOMMU_GRACE].planned = false;

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
