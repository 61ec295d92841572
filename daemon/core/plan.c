/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "plan.h"

void plan_build(Plan *ret_plan, const Manifest *manifest, const Policy *policy)
{
        Plan plan = {
                .retries = policy->retries,
                .doubt_usec = policy->doubt_usec,
                .n_devices = manifest->n_devices,
        };

        for (uint32_t i = 0; i < manifest->n_devices; i++)
                if (manifest->devices[i].migration_flags & DEVICE_MIGRATION_P2P)
                        plan.n_p2p++;

        for (Phase p = 0; p < PHASE_MAX; p++)
                plan.phases[p] = (PlanPhase){.planned = true, .deadline_usec = policy->deadline_usec[p]};

        /* No device is known to be `ndma: full`, and no VM asks for page faults that need a vCPU: nothing needs
         * its devices in a P2P state while vCPUs still run. */
        plan.phases[PHASE_VIOMMU_GRACE].planned = false;

        /* Device pre-copy is not driven yet; what remains of this phase is the VMM's own. */
        plan.phases[PHASE_PRECOPY].planned = manifest->vmm.type != VMM_TYPE_NONE;

        plan.phases[PHASE_ARRIVAL_GRACE].planned = plan.n_p2p > 0;
        *ret_plan = plan;
}
