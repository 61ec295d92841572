/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What speaks against a move, or can't be guaranteed in it, found before anything is touched.
 *
 * Each side judges its own facts, and the destination judges both manifests together: it trusts no claim of the source
 * that it can test itself. Every finding names the device or VM, the property, both values and the remedy.
 */

#include "manifest.h"
#include "record.h"

#define FINDING_VALUE_MAX 160

typedef enum FindingWeight {
        FINDING_REFUSAL, /* it speaks against the move */
        FINDING_NOTICE,  /* what can't be guaranteed; who asks shall know, and it may go on */
        FINDING_MAX,
        FINDING_INVALID = -EINVAL,
} FindingWeight;

DECLARE_STRING_TABLE(FindingWeight, finding_weight);

typedef struct Finding {
        FindingWeight weight;
        char device[DEVICE_ID_MAX + 1]; /* empty: the VM */
        const char *property;           /* a constant */
        char source[FINDING_VALUE_MAX]; /* what it is there; empty where it does not apply */
        char destination[FINDING_VALUE_MAX];
        const char *remedy; /* a constant */
} Finding;

typedef struct Findings {
        uint32_t n;
        Finding *items; /* owned */
} Findings;

void findings_deinit(Findings *findings);

/* Whether one of them is more than a notice. */
bool findings_refuse(const Findings *findings);

/* Judges one side's own facts. -ENOMEM. */
int check_side(const Manifest *manifest, Side side, Findings *findings) _must_check_;

/* Judges the two together. -ENOMEM. */
int check_pair(const Manifest *source, const Manifest *destination, Findings *findings) _must_check_;
