/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What a migration of one VM will do, decided before it does anything.
 *
 * `migctl check`, the progress display and the run itself all use this one list: which phases there are, what each
 * may take, and which devices take part how. It is made from the manifest (what the VM is) and the policies (what its
 * operator and the devices' vendors say), and is data: nothing in it changes while the job runs.
 */

#include <stdbool.h>
#include <stdint.h>

#include "common/macros.h"
#include "device-program.h"
#include "manifest.h"
#include "phase.h"
#include "policy-rules.h"
#include "transfer-limits.h"

typedef struct PlanPhase {
        bool planned;           /* false: passed through without a stop */
        uint64_t deadline_usec; /* for the VMM and the record */
        uint64_t
                peer_usec; /* for the other half, whose devices may take as long as ours, one order after the other */
} PlanPhase;

/* Values of the key `order`. */
#define PLAN_ORDERS 256

/* What holds for one device. */
typedef struct PlanDevice {
        uint64_t deadline_usec[PHASE_MAX];
        uint32_t retries; /* of a transition that failed and left the device where it was */
        uint32_t order;   /* forward, those with a lower number first */
        bool precopy;     /* its state goes out while it runs, if it can */
        TransferLimits limits;
        PolicyOnError on_error;
        PolicyOnSourceLoss on_source_loss;
} PlanDevice;

typedef struct Plan {
        PlanPhase phases[PHASE_MAX];
        PlanDevice *devices;   /* owned; `n_devices` of them, in the manifest's order */
        uint32_t n_p2p;        /* devices that support the P2P states */
        uint32_t n_devices;    /* all of them */
        uint32_t n_senders;    /* of these and the VMM, those that send while the VM runs */
        bool logs_dma;         /* devices write the VM's memory, and note where */
        bool copies_pages;     /* ... and as its VMM does not take these pages, agents copy them */
        uint32_t n_supervised; /* devices that the VMM drives itself */
        bool p2p;              /* these have the P2P states, all of them */
        bool grace;            /* these go to P2P while vCPUs run, and the VMM's migration is held */
        bool push;             /* ... and through their last states together, not one after the other */
        bool viommu;           /* those that are ours go to P2P while vCPUs run */
        bool hold_vcpus; /* at the destination vCPUs are held while the VMM takes these through their last arc */
        bool onward;     /* once handed over the VM stays there, whatever its devices do */
        uint64_t doubt_usec; /* after GO without an answer the job is in doubt */
        bool fence; /* the destination is fenced before the source runs on a person's word; not of policy: the caller's */
        uint64_t fence_usec; /* ... for so long at most */
        uint64_t
                bandwidth; /* bytes a second of all that is sent while the VM runs; 0: no limit, here and below */
        uint64_t bandwidth_share; /* of each that sends then */
        uint64_t max_blackout_usec;
} Plan;

/* Fills `ret_plan` for the VM in `manifest` under `rules`; `doubt_usec` as in the plan. What cannot be moved is refused by
 * check.h, not here. -ENOMEM. */
int plan_build(Plan *ret_plan, const Manifest *manifest, const PolicyRules *rules,
               uint64_t doubt_usec) _must_check_;

void plan_deinit(Plan *plan);

/* Whether a kernel of that release (uname) refuses the arcs that the uAPI blocks, STOP_COPY to PRE_COPY and PRE_COPY_P2P, and
 * does not loop for ever with the device's lock held: where two set states, one can be late. Only versions known to be good
 * are: 6.12 from 6.12.107 on, and 7.2 and later. */
bool kernel_refuses_blocked_arcs(const char *release);

/* Whether every device can be quiet while vCPUs run, so that none has a page fault open that needs one: all have P2P states,
 * and policy declares `ndma: full` for each. What QEMU drives can't. */
bool plan_can_quiet_all(const Manifest *manifest, const PolicyRules *rules);

/* Whether it is the VMM that says that a device with these flags (DeviceFlags) has done `act`, and the device is not asked. */
bool plan_takes_vmms_word(const Plan *plan, DeviceAct act, uint32_t flags);

/* Whether `act` is nothing for a device, whatever it can. */
bool plan_leaves_out(const Plan *plan, DeviceAct act, uint32_t device, uint32_t flags);

/* Whether anything is asked of a device with these flags in `act`, when all goes well. */
bool plan_asks(const Plan *plan, DeviceAct act, uint32_t device, uint32_t flags);

/* What whoever asked for the job allows, 0: anything. The smaller of that and of what policy says holds; the bandwidth is
 * divided evenly among all that send while the VM runs. */
void plan_take_limits(Plan *plan, uint64_t bandwidth, uint64_t max_blackout_usec);
