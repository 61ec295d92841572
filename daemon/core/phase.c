/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "phase.h"

static const char *const phase_names[PHASE_MAX] = {
        [PHASE_CHECK] = "check",
        [PHASE_PREPARE] = "prepare",
        [PHASE_PRECOPY] = "precopy",
        [PHASE_VIOMMU_GRACE] = "viommu-grace",
        [PHASE_HALT] = "halt",
        [PHASE_P2P_GRACE] = "p2p-grace",
        [PHASE_DRAIN] = "drain",
        [PHASE_INTAKE] = "intake",
        [PHASE_HANDOVER] = "handover",
        [PHASE_ARRIVAL_GRACE] = "arrival-grace",
        [PHASE_RUN_DEVICES] = "run-devices",
        [PHASE_RUN] = "run",
        [PHASE_RELEASE] = "release",
};

DEFINE_STRING_TABLE(Phase, phase, phase_names);
