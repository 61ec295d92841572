/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "policy.h"

#include "common/macros.h"

const Policy policy_default = {
        .deadline_usec =
                {
                        [PHASE_CHECK] = 5 * USEC_PER_SEC,
                        [PHASE_PREPARE] = 5 * USEC_PER_SEC,
                        [PHASE_PRECOPY] = 60 * USEC_PER_SEC,
                        [PHASE_VIOMMU_GRACE] = 5 * USEC_PER_SEC,
                        [PHASE_HALT] = 5 * USEC_PER_SEC,
                        [PHASE_P2P_GRACE] = 5 * USEC_PER_SEC,
                        [PHASE_DRAIN] = 60 * USEC_PER_SEC,
                        [PHASE_INTAKE] = 5 * USEC_PER_SEC,
                        [PHASE_HANDOVER] = 5 * USEC_PER_SEC,
                        [PHASE_ARRIVAL_GRACE] = 5 * USEC_PER_SEC,
                        [PHASE_RUN_DEVICES] = 5 * USEC_PER_SEC,
                        [PHASE_RUN] = 5 * USEC_PER_SEC,
                        [PHASE_RELEASE] = 5 * USEC_PER_SEC,
                },
        .connect_usec = 2 * USEC_PER_SEC,
        .doubt_usec = 10 * USEC_PER_SEC,
        .limits = {.precopy_usec = 10 * USEC_PER_SEC, .precopy_rate = 1 * MIB},
        .retries = 0,
        .grace = true,
        .push = true,
        .fence_usec = 60 * USEC_PER_SEC,
};
