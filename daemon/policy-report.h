/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What policies are in force and what follows from them, as JSON for the bus; docs/dbus/ has the formats. */

#include "policy-files.h"

/* An array, in the order in which they are read. */
json_object *policy_report_list(const PolicyFiles *files);

/* What holds for the VM, or for that device of it, and who said so. `device` NULL: the VM. */
json_object *policy_report_explain(const PolicyRules *rules, const Manifest *vm,
                                   const ManifestDevice *device);
