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
};

static void set_key(PolicyRule *rule, PolicyKey key, uint64_t value)
{
        rule->sets[key] = true;
        rule->values[key] = value;
}

int policy_make_rules(const Policy *policy, PolicyRules *ret)
{
        PolicyRule *rule = calloc(1, sizeof *rule);

        if (!rule)
                return -ENOMEM;
        for (Phase p = 0; p < PHASE_MAX; p++)
                set_key(rule, POLICY_DEADLINE + p, policy->deadline_usec[p] / USEC_PER_MSEC);
        set_key(rule, POLICY_RETRY, policy->retries);
        set_key(rule, POLICY_PRECOPY_LIMIT_MSEC, policy->limits.precopy_usec / USEC_PER_MSEC);
        set_key(rule, POLICY_PRECOPY_LIMIT_MIB, policy->limits.precopy_bytes / MIB);
        set_key(rule, POLICY_PRECOPY_LIMIT_RATE_KIB, policy->limits.precopy_rate / 1024);
        set_key(rule, POLICY_SUPERVISED_GRACE, policy->grace ? POLICY_AUTO : POLICY_OFF);
        set_key(rule, POLICY_SUPERVISED_PUSH, policy->push ? POLICY_AUTO : POLICY_OFF);
        *ret = (PolicyRules){1, rule};
        return 0;
}
