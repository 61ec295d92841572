/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef MIGMGR_PLUGIN_H
#define MIGMGR_PLUGIN_H

/* The ABI of migmgr's plugins: this header is all that one is built against. docs/plugin.md is the way to a first one.
 *
 * A plugin is a shared object that exports one constant, `migmgr_plugin`:
 *
 *         MIGMGR_PLUGIN = {
 *                 .abi = MIGMGR_PLUGIN_ABI,
 *                 .size = sizeof(struct migmgr_plugin),
 *                 .name = "acme-nic",
 *                 .version = "1.0",
 *                 .match = my_match,
 *         };
 *
 * It is pure: it is told all that there is to know with each call, and opens nothing. It runs in a process of its own
 * without privileges, in which open(), socket(), fork(), threads and the like fail with EPERM, with MIGMGR_MEMORY_MAX bytes
 * of address space. Its functions are called one at a time. What it keeps in static variables is gone when the process is
 * started anew, which may be at any time.
 *
 * Ownership: whatever a function is given is the host's and valid until the function returns. All texts end with a NUL
 * and are printable ASCII; none is NULL. What is put into a reply is copied.
 *
 * Errors: a function that returns something else than is said at it, or a negative errno, has failed. A plugin that fails,
 * crashes or is late refuses what was asked in phases 1 to 4; from phase 5 on, in the blackout, it is as if it had
 * not been asked.
 *
 * Growth: the ABI's number changes when a plugin would have to. New members come at the end of a struct, whose size says
 * whether they are there; a member that a plugin is too old to have counts as zero.
 */

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MIGMGR_PLUGIN_ABI 1

#define MIGMGR_NAME_MAX       31                  /* bytes of a plugin's name: [a-z0-9-] */
#define MIGMGR_KEY_MAX        31                  /* bytes of a fact's key: [a-z0-9._-] */
#define MIGMGR_VALUE_MAX      127                 /* bytes of its value: printable ASCII */
#define MIGMGR_FACTS_MAX      32                  /* facts of one device by one plugin */
#define MIGMGR_ATTRIBUTES_MAX 64                  /* attributes of one device */
#define MIGMGR_CONFIG_MAX     256                 /* bytes of PCI config space */
#define MIGMGR_TEXT_MAX       200                 /* bytes of a reason or a remedy, with the NUL */
#define MIGMGR_LOGS_MAX       16                  /* lines in one call */
#define MIGMGR_BUDGET_MAX_MS  1000                /* in one phase, from phase 5 on */
#define MIGMGR_MEMORY_MAX     (128 * 1024 * 1024) /* bytes, code and libc included */

/* The phases of a migration, in order; docs/architecture.md says what happens in each. From MIGMGR_HALT to MIGMGR_RUN the VM
 * stands: the blackout. */
enum migmgr_phase {
        MIGMGR_CHECK,
        MIGMGR_PREPARE,
        MIGMGR_PRECOPY,
        MIGMGR_VIOMMU_GRACE,
        MIGMGR_HALT,
        MIGMGR_P2P_GRACE,
        MIGMGR_DRAIN,
        MIGMGR_INTAKE,
        MIGMGR_HANDOVER,
        MIGMGR_ARRIVAL_GRACE,
        MIGMGR_RUN_DEVICES,
        MIGMGR_RUN,
        MIGMGR_RELEASE,
        MIGMGR_PHASES
};

enum migmgr_side { MIGMGR_SOURCE, MIGMGR_DESTINATION };

/* What functions return; which of them is said at each. */
enum migmgr_answer {
        MIGMGR_NO,       /* not mine; not compatible; refused: `reason`, and in check() `remedy`, say why */
        MIGMGR_YES,      /* mine; compatible; allowed */
        MIGMGR_DEGRADED, /* compatible, with a loss that `reason` names */
        MIGMGR_WAIT,     /* ask me again in `wait_ms` */
        MIGMGR_RETRY,    /* the transition may succeed if it is tried once more */
        MIGMGR_RESET,    /* ... after a reset */
        MIGMGR_GIVE_UP   /* it will not */
};

struct migmgr_text {
        const char *name;
        const char *value;
};

/* A device, as far as the host that asks knows it. */
struct migmgr_device {
        uint32_t size;      /* bytes of this struct */
        const char *vm;     /* UUID of the VM that owns it */
        const char *id;     /* in that VM's definition; the same on both hosts */
        const char *type;   /* "vfio": of the kernel; "vfio-user": of a device server */
        const char *driver; /* of the kernel's device: "mlx5_vfio_pci"; else empty */
        /* What sysfs has of a kernel's device: "vendor", "device", "numa_node" and others, see docs/plugin.md. Those that
         * are not there are not in the list. */
        uint32_t n_attributes;
        const struct migmgr_text *attributes;
        /* What is known of it: "NAME.key", of all plugins. Only in check(), before(), after() and on_error(). */
        uint32_t n_facts;
        const struct migmgr_text *facts;
        /* The beginning of its PCI config space; of size 0 when it is not known. */
        uint32_t config_size;
        const uint8_t *config;
};

/* What is about to happen to a device, or has happened, or has failed. */
struct migmgr_transition {
        uint32_t size;      /* bytes of this struct */
        uint32_t phase;     /* enum migmgr_phase */
        uint32_t side;      /* enum migmgr_side: that of the host that asks */
        uint32_t from, to;  /* enum vfio_device_mig_state of <linux/vfio.h>; UINT32_MAX: not known */
        uint32_t attempt;   /* 1 when it is asked first, one more after each MIGMGR_WAIT */
        uint32_t waited_ms; /* since it was asked first */
        int32_t error;      /* on_error(): a positive errno; else 0 */
        const char *text;   /* on_error(): what the device's agent said; else empty */
};

/* What a function has to say beside its return value. Made by the host, zero but for `size` and the functions. */
struct migmgr_reply {
        uint32_t size; /* bytes of this struct */
        uint32_t wait_ms;
        char reason[MIGMGR_TEXT_MAX]; /* for people: names the property and both values */
        char remedy[MIGMGR_TEXT_MAX]; /* ... what to do about it */
        uint64_t bytes;               /* estimate(): of device state that moves while the VM stands */
        uint64_t usec
                [MIGMGR_PHASES]; /* ... microseconds that the device needs in each phase, at most an hour; 0: not known */
        /* describe(): adds the fact "NAME.key". 0; -EINVAL: key or value is too long or has other characters than it may;
         * -E2BIG: more than MIGMGR_FACTS_MAX. A fact of the same key is replaced. */
        int (*fact)(struct migmgr_reply *reply, const char *key, const char *value);
        /* Any function: a line for the journal, of at most MIGMGR_TEXT_MAX - 1 bytes; after MIGMGR_LOGS_MAX in one call
         * they are dropped. */
        void (*log)(struct migmgr_reply *reply, const char *text);
};

struct migmgr_plugin {
        uint32_t abi;        /* MIGMGR_PLUGIN_ABI */
        uint32_t size;       /* sizeof(struct migmgr_plugin) */
        const char *name;    /* unique on a host; facts begin with it */
        const char *version; /* for people; printable, at most MIGMGR_VALUE_MAX bytes */

        /* Milliseconds that before() and after() may take in all, waiting included, in each phase; 0: not called there.
         * In phases 5 to 12 at most MIGMGR_BUDGET_MAX_MS, and it lengthens the blackout: `migctl check` prints what all may add. In
         * the phases before at most 60000. Only phases in which devices change states have transitions: PREPARE, PRECOPY,
         * VIOMMU_GRACE, P2P_GRACE, DRAIN, INTAKE, ARRIVAL_GRACE, RUN_DEVICES. */
        uint16_t before_ms[MIGMGR_PHASES];
        uint16_t after_ms[MIGMGR_PHASES];
        /* The same of on_error(), in each phase. */
        uint16_t error_ms[MIGMGR_PHASES];

        /* Whether the device is this plugin's: MIGMGR_YES or MIGMGR_NO. Needed. All functions below are called for its devices
         * only. Several plugins may have the same device. */
        int (*match)(const struct migmgr_device *device, struct migmgr_reply *reply);

        /* Facts: what identifies the device, and what must fit for its state to be taken by another. They travel to the
         * other host, are shown, and policies compare them ("compat"). Returns 0. May be NULL. */
        int (*describe)(const struct migmgr_device *device, struct migmgr_reply *reply);

        /* Whether the state of `source` can be taken by `destination`: MIGMGR_YES, MIGMGR_NO or MIGMGR_DEGRADED. Called
         * at the destination. Of the source there are vm, id, type, driver and facts only; it has none of this plugin's if that
         * host does not have it. A plugin with this function that is at the source only is a refusal. May be NULL. */
        int (*check)(const struct migmgr_device *source, const struct migmgr_device *destination,
                     struct migmgr_reply *reply);

        /* Before a device changes state, and after it has done so well: MIGMGR_YES, MIGMGR_NO, or MIGMGR_WAIT with `wait_ms`.
         * MIGMGR_NO fails the transition, and the job turns back as if the device had refused. Not called on the
         * way back: nobody may refuse that. May be NULL. */
        int (*before)(const struct migmgr_device *device, const struct migmgr_transition *transition,
                      struct migmgr_reply *reply);
        int (*after)(const struct migmgr_device *device, const struct migmgr_transition *transition,
                     struct migmgr_reply *reply);

        /* A transition has failed: MIGMGR_RETRY (honoured once), MIGMGR_RESET (honoured in PREPARE at the destination, where
         * the device holds nothing yet), MIGMGR_GIVE_UP. May be NULL. */
        int (*on_error)(const struct migmgr_device *device, const struct migmgr_transition *transition,
                        struct migmgr_reply *reply);

        /* How much state there is and how long it takes: `bytes` and `usec` of the reply. Returns 0. May be NULL. */
        int (*estimate)(const struct migmgr_device *device, struct migmgr_reply *reply);
};

#define MIGMGR_PLUGIN                                                                           \
        extern const struct migmgr_plugin migmgr_plugin __attribute__((visibility("default"))); \
        const struct migmgr_plugin migmgr_plugin

/* The value of that name, or NULL. */
static inline const char *migmgr_find(const struct migmgr_text *texts, uint32_t n, const char *name)
{
        uint32_t i;

        for (i = 0; i < n; i++)
                if (strcmp(texts[i].name, name) == 0)
                        return texts[i].value;
        return NULL;
}

static inline const char *migmgr_attribute(const struct migmgr_device *device, const char *name)
{
        return migmgr_find(device->attributes, device->n_attributes, name);
}

/* `key` with the name of its plugin: "acme-nic.firmware". */
static inline const char *migmgr_fact(const struct migmgr_device *device, const char *key)
{
        return migmgr_find(device->facts, device->n_facts, key);
}

/* For check(): whether both ends know fact `key` and say different things; `reply->reason` says which, then. `name`: what
 * people call it. The remedy is the plugin's to say. */
static inline int migmgr_differs(const struct migmgr_device *source, const struct migmgr_device *destination,
                                 const char *key, const char *name, struct migmgr_reply *reply)
{
        const char *theirs = migmgr_fact(source, key), *ours = migmgr_fact(destination, key);

        if (!theirs || !ours || strcmp(theirs, ours) == 0)
                return 0;
        (void) snprintf(reply->reason, sizeof reply->reason, "%s is %.60s at the source, %.60s here", name,
                        theirs, ours);
        return 1;
}

#ifdef __cplusplus
}
#endif
#endif
