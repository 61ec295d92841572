/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What operators and device vendors say about devices and VMs, as rules; and what follows for one of them.
 *
 * A rule names whom it is for (`match`) and what holds for it (`set`). Policy files are lists of rules
 * (daemon/policy-files.h reads them, docs/policy.md describes them). For each key the most specific rule that matches
 * and sets it decides; of two that are equally specific the later one. What no rule says is the key's default.
 *
 * The table of keys here is the only one: the reader of files, the schema's test, `migctl policy explain` and the
 * documentation walk it.
 */

#include <stdbool.h>
#include <stdint.h>

#include "manifest.h"
#include "phase.h"

/* ---- keys ----------------------------------------------------------------------------------------------------- */

typedef enum PolicyKey {
        POLICY_P2P,
        POLICY_NDMA,
        POLICY_VIOMMU_GRACE,
        POLICY_PRECOPY,
        POLICY_PRECOPY_LIMIT_MSEC,
        POLICY_PRECOPY_LIMIT_MIB,
        POLICY_PRECOPY_LIMIT_RATE_KIB,
        POLICY_RETRY,
        POLICY_ON_ERROR,
        POLICY_ON_SOURCE_LOSS,
        POLICY_AFTER_GRACE,
        POLICY_MAX_STATE_MIB,
        POLICY_MAX_BLACKOUT_MS,
        POLICY_BANDWIDTH_MIB,
        POLICY_ORDER,
        POLICY_OPAQUE,
        POLICY_SUPERVISED_GRACE,
        POLICY_SUPERVISED_PUSH,
        POLICY_SUPERVISED_LAST_ARC,
        POLICY_DEADLINE, /* of the first phase; the others follow in their order */
        POLICY_DEADLINE_LAST = POLICY_DEADLINE + PHASE_MAX - 1,
        POLICY_KEY_MAX,
        POLICY_KEY_INVALID = -EINVAL,
} PolicyKey;

/* Values of keys that are one of a few words, in the order of their words. */
typedef enum PolicyP2p {
        POLICY_P2P_REQUIRE,     /* a member of a P2P domain has the P2P states, or the move is refused */
        POLICY_P2P_ISOLATE,     /* ... or its VMM has confirmed that no other device can reach it */
        POLICY_P2P_SINGLE,      /* ... or it is the VM's one device */
        POLICY_P2P_ACCEPT_RISK, /* whatever may come of it: said in the journal and the result */
} PolicyP2p;

typedef enum PolicyNdma {
        POLICY_NDMA_NONE, /* in a P2P state it may do other DMA than peer-to-peer */
        POLICY_NDMA_FULL, /* it does none: declared, for nothing tells */
} PolicyNdma;

typedef enum PolicyAuto {
        POLICY_OFF,     /* never */
        POLICY_AUTO,    /* where it can be had and is safe */
        POLICY_REQUIRE, /* refused where it can't be had; not of every key */
} PolicyAuto;

typedef enum PolicyOnError {
        POLICY_ON_ERROR_RESET,      /* what stands between it and running is ended by reset */
        POLICY_ON_ERROR_QUARANTINE, /* it is not touched, and refuses jobs until somebody resets it */
        POLICY_ON_ERROR_KEEP,       /* it is not touched */
} PolicyOnError;

typedef enum PolicyOnSourceLoss {
        POLICY_ON_SOURCE_LOSS_DEGRADED_RUN, /* the VM goes on at the source without what the device held */
        POLICY_ON_SOURCE_LOSS_PAUSE,        /* it stands until somebody decides */
} PolicyOnSourceLoss;

typedef enum PolicyAfterGrace {
        POLICY_AFTER_GRACE_BACK,     /* a failure in arrival-grace turns the VM back */
        POLICY_AFTER_GRACE_DEGRADED, /* it runs at the destination without the device */
} PolicyAfterGrace;

typedef enum PolicyLastArc {
        POLICY_LAST_ARC_DEGRADED, /* a device that fails to run is lost: the VM runs without it */
        POLICY_LAST_ARC_BACK,     /* vCPUs are held meanwhile, and the VM goes back */
} PolicyLastArc;

typedef enum PolicyOpaque {
        POLICY_OPAQUE_REFUSE, /* a device of the VM that nobody defined */
        POLICY_OPAQUE_ALLOW,
} PolicyOpaque;

/* Whom a key is about. What is about the VM is matched with VM criteria only: no rule about a device may set it. */
typedef enum PolicyScope {
        POLICY_SCOPE_DEVICE,
        POLICY_SCOPE_VM,
        POLICY_SCOPE_BOTH, /* deadlines: of a device; of the VMM, the other half and the record */
} PolicyScope;

typedef struct PolicyKeyDesc {
        const char *name; /* "p2p"; a member of an object as "deadline-ms.drain" */
        PolicyScope scope;
        const char *words[5]; /* of a key that is one of them, in the order of its enum; else none */
        uint64_t least, most; /* of a number */
        uint64_t standard;    /* its value when nobody says any; of a word, its index */
        const char *help;     /* one line, for documentation and `explain` */
} PolicyKeyDesc;

/* NULL outside the enum. */
const PolicyKeyDesc *policy_key(PolicyKey key);
/* POLICY_KEY_INVALID for a name that there is none of. */
PolicyKey policy_key_from_string(const char *name);
/* `value` as in a policy file: a word or a number. `ret` has 24 bytes or more. */
void policy_value_text(PolicyKey key, uint64_t value, char *ret, size_t size);

/* ---- compatibility --------------------------------------------------------------------------------------------- */

#define POLICY_COMPAT_MAX  16 /* facts in one rule */
#define POLICY_FACTS_MAX   64 /* different ones in all rules; the reader refuses more */
#define POLICY_CHOICES_MAX 16 /* allowed values of one fact */

typedef enum CompatHow {
        COMPAT_IGNORE,   /* takes back what a less specific rule says */
        COMPAT_EQUAL,    /* the same on both sides */
        COMPAT_AT_LEAST, /* the destination's is the source's or newer, as version numbers go */
        COMPAT_IN,       /* each side's is one of a set */
        COMPAT_HOW_MAX,
        COMPAT_HOW_INVALID = -EINVAL,
} CompatHow;

DECLARE_STRING_TABLE(CompatHow, compat_how);

/* About one fact of a device (ManifestFact). A fact that either side does not know fails it, unless ignored. */
typedef struct PolicyCompat {
        char fact[FACT_KEY_MAX + 1];
        CompatHow how;
        uint32_t n_choices;
        char (*choices)[FACT_VALUE_MAX + 1]; /* owned by the rule */
} PolicyCompat;

/* ---- rules ----------------------------------------------------------------------------------------------------- */

#define POLICY_RULES_MAX   4096 /* of all files */
#define POLICY_PATTERN_MAX 64

/* Whom a rule is for: all that is not empty must fit. `*` and `?` in `id`, `driver` and values of labels stand for any
 * characters and any one. */
typedef struct PolicyMatch {
        char kind[16];                            /* "vfio", "vfio-user" */
        char driver[POLICY_PATTERN_MAX + 1];      /* of the kernel */
        char device[10];                          /* "15b3:101e", lower case; "15b3:*" */
        char subsystem[10];                       /* the same, of the subsystem */
        char id[POLICY_PATTERN_MAX + 1];          /* of the device in its VM's definition */
        char plugin[POLICY_PATTERN_MAX + 1];      /* a plugin of that name says that the device is its */
        char label[POLICY_PATTERN_MAX + 1];       /* the VM has that label ... */
        char label_value[POLICY_PATTERN_MAX + 1]; /* ... with that value; empty: with any */
} PolicyMatch;

typedef struct PolicyRule {
        char *file;    /* owned; where it stands, for people */
        uint32_t line; /* of its beginning */
        PolicyMatch match;
        bool sets[POLICY_KEY_MAX];
        uint64_t values[POLICY_KEY_MAX];
        uint32_t n_compat;
        PolicyCompat compat[POLICY_COMPAT_MAX];
} PolicyRule;

/* All rules, least important file first. Data: the reader makes it, nothing changes it. */
typedef struct PolicyRules {
        uint32_t n;
        PolicyRule *rules; /* owned */
} PolicyRules;

void policy_rules_deinit(PolicyRules *rules);

/* Whether a rule that matches so may set keys of VMs: it asks for nothing of a device. */
bool policy_match_is_of_vm(const PolicyMatch *match);

/* Whether a rule that matches so is about that device of the VM, or, where that is NULL, about the VM itself. */
bool policy_match_fits(const PolicyMatch *match, const Manifest *vm, const ManifestDevice *device);

/* The more of a device a rule names, the more specific it is: 0 for one that fits all. A larger number wins. In this
 * order: id, id with wildcards, subsystem, device, device with wildcard, plugin, driver, label, kind; one of these
 * outweighs all that come after it together. */
uint32_t policy_match_weight(const PolicyMatch *match);

/* ---- what follows ---------------------------------------------------------------------------------------------- */

#define POLICY_NO_RULE UINT32_MAX /* the default */

typedef struct PolicyView {
        uint64_t values[POLICY_KEY_MAX];
        uint32_t rules[POLICY_KEY_MAX]; /* which one said so; POLICY_NO_RULE */
        uint32_t n_compat;
        PolicyCompat compat[POLICY_FACTS_MAX]; /* its choices belong to the rule */
        uint32_t compat_rules[POLICY_FACTS_MAX];
} PolicyView;

/* What holds for a VM: keys of scope VM and BOTH, and those of devices as rules say that ask for nothing of a device.
 * `vm` gives its labels. */
void policy_of_vm(const PolicyRules *rules, const Manifest *vm, PolicyView *ret);

/* What holds for one of its devices: keys of scope DEVICE and BOTH; the others are those of its VM, whatever a rule about
 * devices says. */
void policy_of_device(const PolicyRules *rules, const Manifest *vm, const ManifestDevice *device,
                      PolicyView *ret);
