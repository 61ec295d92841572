/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Which devices of a VM can reach each other, and what a device without the P2P states needs to be moved all the same.
 *
 * A device that does DMA reaches another one whose BARs its VMM maps where devices see them. The P2P domain of a VM is all
 * devices that can reach another or be reached. In it all must be quiet before the first one stands: those with P2P states
 * are so in these, and one that has none can only stop after them, when it may still have written to one that stands.
 * What it then needs is its policy's word `p2p`.
 */

#include "manifest.h"
#include "policy-rules.h"

typedef enum P2pVerdict {
        P2P_FINE,
        P2P_REQUIRED,     /* require: it is in the domain, and has no P2P states */
        P2P_NOT_ISOLATED, /* isolate: nobody has confirmed that no other device reaches it */
        P2P_NOT_SINGLE,   /* single: the VM has others, whether it reaches them or not */
        P2P_NO_ORDER, /* it and another one reach each other, and neither has P2P states: none may stand first */
        P2P_RISK,     /* accept-risk: it is moved, and who asks is told */
        P2P_VERDICT_MAX,
        P2P_VERDICT_INVALID = -EINVAL,
} P2pVerdict;

/* Whether the device `from` can read or write the BARs of `to`, as far as anybody knows. */
bool p2p_reaches(const Manifest *manifest, uint32_t from, uint32_t to);

bool p2p_is_member(const Manifest *manifest, uint32_t device);

/* How many devices the guest has, of which anybody knows: those that are defined, and those that only its VMM has. */
uint32_t p2p_count_devices(const Manifest *manifest);

/* About a device of the source's, under the word of its policy. `ret_other`: the other one of P2P_NO_ORDER. */
P2pVerdict p2p_judge(const Manifest *manifest, uint32_t device, PolicyP2p word, uint32_t *ret_other);
