/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What speaks against a move, or can't be guaranteed in it, found before anything is touched.
 *
 * Each side judges its own facts, and the destination judges both manifests together: it trusts no claim of the source
 * that it can test itself. Every finding names the device or VM, the property, both values and the remedy.
 */

#include "manifest.h"
#include "policy-rules.h"
#include "record.h"

#define FINDING_VALUE_MAX 200

typedef enum FindingWeight {
        FINDING_REFUSAL, /* it speaks against the move */
        FINDING_NOTICE,  /* what can't be guaranteed; who asks shall know, and it may go on */
        FINDING_MAX,
        FINDING_INVALID = -EINVAL,
} FindingWeight;

DECLARE_STRING_TABLE(FindingWeight, finding_weight);

/* All that can be found. What is said of each stands in one table. */
typedef enum FindingId {
        /* who answers */
        FINDING_AGENT,
        FINDING_QUARANTINE,
        FINDING_FILE_FORBIDDEN,
        FINDING_FILE_OF_VMM,
        FINDING_FILE_OF_KERNEL,
        FINDING_CONNECTION,
        FINDING_PRESENCE_HERE,
        FINDING_PRESENCE_THERE,
        FINDING_MONITOR,
        FINDING_MONITOR_TAKEN,
        FINDING_INCOMING_ARGV,
        FINDING_DELEGATE,
        FINDING_RUN_STATE_QEMU,
        FINDING_RUN_STATE_DELEGATE,
        FINDING_RUN_STATE_TAKEN,
        /* what it can */
        FINDING_MIGRATION_KERNEL,
        FINDING_MIGRATION_SERVER,
        FINDING_STATE,
        FINDING_MEMORY_OF_NOBODY,
        FINDING_DMA_LOGGING,
        FINDING_DIRTY_PAGES,
        FINDING_BLOCKER,
        FINDING_UNDEFINED_DEVICE,
        FINDING_UNDEFINED_ALLOWED,
        FINDING_WRITABLE_DISK,
        FINDING_P2P_QEMU,
        FINDING_QEMU_UNTRIED,
        FINDING_RESET_UNSEEN,
        FINDING_KERNEL_HANGS,
        FINDING_THREAD_NOT_HELD,
        FINDING_ROOM,
        /* what policy says */
        FINDING_P2P_REQUIRED,
        FINDING_P2P_NOT_ISOLATED,
        FINDING_P2P_NOT_SINGLE,
        FINDING_P2P_NO_ORDER,
        FINDING_P2P_RISK,
        FINDING_VIOMMU_QEMU,
        FINDING_VIOMMU_OFF,
        FINDING_VIOMMU_NDMA,
        FINDING_VIOMMU_REQUIRED,
        FINDING_PRECOPY_REQUIRED,
        FINDING_PRECOPY_NOT_OURS,
        FINDING_STATE_SIZE,
        /* whether the two go together */
        FINDING_VMM,
        FINDING_MACHINE,
        FINDING_MACHINE_SHORT,
        FINDING_NOT_DEFINED_THERE,
        FINDING_NOT_DEFINED_HERE,
        FINDING_TYPE,
        FINDING_DRIVEN_BY,
        FINDING_FLAGS,
        FINDING_FACT_UNKNOWN,
        FINDING_FACT_NOT_EQUAL,
        FINDING_FACT_OLDER,
        FINDING_FACT_NOT_ALLOWED,
        /* said by a destination that can't even look */
        FINDING_NOT_REGISTERED,
        FINDING_BUSY,
        FINDING_PRESENCE_BOTH,
        FINDING_MANIFEST,
        FINDING_POLICIES,
        FINDING_ID_MAX,
        FINDING_ID_INVALID = -EINVAL,
} FindingId;

typedef struct FindingDesc {
        const char *property, *remedy;
        FindingWeight weight;
} FindingDesc;

/* NULL outside the enum. */
const FindingDesc *finding_desc(FindingId id);

typedef struct Finding {
        FindingWeight weight;
        char device[DEVICE_ID_MAX + 1]; /* empty: the VM */
        const char *property;           /* a constant */
        char source[FINDING_VALUE_MAX]; /* what it is there; empty where it does not apply */
        char destination[FINDING_VALUE_MAX];
        const char *remedy; /* a constant */
        FindingId id;
} Finding;

typedef struct Findings {
        uint32_t n;
        Finding *items; /* owned */
} Findings;

void findings_deinit(Findings *findings);

/* Whether a refusal of that property is about devices that may write to each other while they stand. */
bool finding_is_of_p2p(const char *property);

/* Whether one of them is more than a notice. */
bool findings_refuse(const Findings *findings);

/* Adds one. `source`, `destination`: what it is there; "" where it does not apply. -ENOMEM. */
int findings_add(Findings *findings, FindingId id, const char *device, const char *source,
                 const char *destination) _must_check_;

/* Judges one side's own facts, under this host's policies. -ENOMEM. */
int check_side(const Manifest *manifest, const PolicyRules *rules, Side side,
               Findings *findings) _must_check_;

/* Judges the two together. -ENOMEM. */
int check_pair(const Manifest *source, const Manifest *destination, const PolicyRules *rules,
               Findings *findings) _must_check_;

/* Whether version `a` is not older than `b`: numbers are compared as such, all else as text, part by part. */
bool version_at_least(const char *a, const char *b);

/* ---- what a destination has allowed ----------------------------------------------------------------------------- */

#define CHECK_ID_MAX 37 /* a UUID as text */
/* So many of a VM are remembered: between CHECK and PREPARE others may ask about it, too. */
#define CHECK_PASSES 8
/* What was judged may be otherwise after so long. Between CHECK and PREPARE a source only writes its record. */
#define CHECK_PASS_USEC (60 * USEC_PER_SEC)

/* Which hosts' jobs have passed the check of one VM. Zeroed: none. A source is not trusted to hold itself to a refusal. */
typedef struct CheckPasses {
        struct {
                char host[CHECK_ID_MAX], job[CHECK_ID_MAX];
                uint64_t usec;
        } items[CHECK_PASSES];
        uint32_t next;
} CheckPasses;

/* The check of that job was answered; the last answer holds. A refusal ends all that the host was allowed. `now_usec`:
 * CLOCK_MONOTONIC. */
void check_note_answer(CheckPasses *passes, const char *host, const char *job, bool ok, uint64_t now_usec);
/* Whether the job may be prepared. */
bool check_has_passed(const CheckPasses *passes, const char *host, const char *job, uint64_t now_usec);
