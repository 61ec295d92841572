/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The thirteen phases of a migration, in order. Each is a barrier: it ends when every participant has reached it. */

#include "common/string-table.h"

typedef enum Phase {
        PHASE_CHECK,
        PHASE_PREPARE,
        PHASE_PRECOPY,
        PHASE_VIOMMU_GRACE,
        PHASE_HALT, /* vCPUs stop: the blackout begins */
        PHASE_P2P_GRACE,
        PHASE_DRAIN,
        PHASE_INTAKE,
        PHASE_HANDOVER,
        PHASE_ARRIVAL_GRACE,
        PHASE_RUN_DEVICES,
        PHASE_RUN, /* vCPUs run: the blackout ends */
        PHASE_RELEASE,
        PHASE_MAX,
        PHASE_INVALID = -EINVAL,
} Phase;

DECLARE_STRING_TABLE(Phase, phase);
