/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What a job keeps of the policy that it began with, as a text in its record: of all rules what holds for this VM and for each
 * of its devices. It is a policy of its own (docs/policy.md), with a rule for the VM and one for each device by its id, so what
 * reads and judges it is what reads files. Values that are the defaults, and `compat`, of which no plan takes anything, are
 * not in it. */

#include "policy-reader.h"

/* Of `vm` under `rules`; at most RECORD_POLICY_MAX bytes. The caller's to free. */
char *policy_keep(const PolicyRules *rules, const Manifest *vm);

/* The rules of such a text, which a damaged database may have made anything. -EINVAL: `ret_error` (JSON_TEXT_MAX bytes) says what
 * is wrong, and `ret` has no rules: the defaults. */
int policy_kept_read(const char *text, PolicyRules *ret, char *ret_error) _must_check_;
