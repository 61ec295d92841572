/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What a migration of one VM will do, decided before it does anything.
 *
 * `migctl check`, the progress display and the run itself all use this one list: which phases there are, what each
 * may take, and which devices take part how. It is made from the manifest (what the VM is) and the policy (what its
 * operator allows), and is data: nothing in it changes while the job runs.
 */

#include <stdbool.h>
#include <stdint.h>

#include "common/macros.h"
#include "device-program.h"
#include "manifest.h"
#include "phase.h"
#include "policy.h"

typedef struct PlanPhase {
        bool planned;           /* false: passed through without a stop */
        uint64_t deadline_usec; /* for each participant */
} PlanPhase;

typedef struct Plan {
        PlanPhase phases[PHASE_MAX];
        uint32_t retries;      /* of a device transition that failed and left the device where it was */
        uint32_t n_p2p;        /* devices that support the P2P states */
        uint32_t n_devices;    /* all of them */
        uint32_t n_senders;    /* of these and the VMM, those that send while the VM runs */
        bool logs_dma;         /* devices write the VM's memory, and note where */
        bool copies_pages;     /* ... and as its VMM does not take these pages, agents copy them */
        uint32_t n_supervised; /* devices that the VMM drives itself */
        bool p2p;              /* these have the P2P states, all of them */
        bool grace;            /* these go to P2P while vCPUs run, and the VMM's migration is held */
        bool push;             /* ... and through their last states together, not one after the other */
        TransferLimits limits; /* of each device */
        uint64_t doubt_usec;   /* after GO without an answer the job is in doubt */
        bool fence;            /* the destination is fenced before the source runs on a person's word */
        uint64_t fence_usec;   /* ... for so long at most */
} Plan;

/* Fills `ret_plan` for the VM in `manifest` under `policy`. Cannot fail: what cannot be moved is refused by
 * check.h, not here. */
void plan_build(Plan *ret_plan, const Manifest *manifest, const Policy *policy);

/* Whether a kernel of that release (uname) refuses the arcs that the uAPI blocks, STOP_COPY to PRE_COPY and PRE_COPY_P2P, and
 * does not loop for ever with the device's lock held: where two set states, one can be late. Only versions known to be good
 * are: 6.12 from 6.12.107 on, and 7.2 and later. */
bool kernel_refuses_blocked_arcs(const char *release);

/* Whether it is the VMM that says that a device with these flags (DeviceFlags) has done `act`, and the device is not asked. */
bool plan_takes_vmms_word(const Plan *plan, DeviceAct act, uint32_t flags);

/* Whether anything is asked of a device with these flags in `act`, when all goes well. */
bool plan_asks(const Plan *plan, DeviceAct act, uint32_t flags);

/* Divides `bandwidth` (bytes a second; 0: no limit) evenly among all that send while the VM runs. */
void plan_divide_bandwidth(Plan *plan, uint64_t bandwidth);
