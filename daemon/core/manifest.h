/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What a VM is, on one host, as far as moving it is concerned: facts, gathered by adapters, with no opinion.
 *
 * The source sends its manifest to the destination in CHECK; the destination compares it with its own. check.h has
 * the opinions.
 */

#include <stdbool.h>
#include <stdint.h>

#include "common/string-table.h"
#include "device-state.h"

#define MANIFEST_DEVICES_MAX 1024 /* of one VM; a definition with more is an error */
#define DEVICE_ID_MAX        64   /* characters: [A-Za-z0-9._-] */
#define VM_NAME_MAX          128  /* bytes */
#define MANIFEST_REASONS_MAX 16   /* things that the VMM itself says stand in the way */
#define MANIFEST_TEXT_MAX    200  /* bytes of each such text */
#define VMM_SYSFS_MAX        255  /* bytes of a device's directory below /sys */
#define MANIFEST_FACTS_MAX   64   /* of one device */
#define MANIFEST_LABELS_MAX  32
#define FACT_KEY_MAX         63  /* characters: [a-z0-9._-] */
#define FACT_VALUE_MAX       127 /* bytes, printable */

typedef enum VmmType {
        VMM_TYPE_NONE, /* a set of devices without a VM */
        VMM_TYPE_QMP,
        VMM_TYPE_DELEGATE, /* whatever implements org.migmgr1.Delegate */
        VMM_TYPE_MAX,
        VMM_TYPE_INVALID = -EINVAL,
} VmmType;

typedef enum DeviceType {
        DEVICE_TYPE_VFIO_USER,
        DEVICE_TYPE_VFIO, /* of the kernel */
        DEVICE_TYPE_MAX,
        DEVICE_TYPE_INVALID = -EINVAL,
} DeviceType;

/* Where the VM may be started. Durable, per VM: a migration is refused unless it is here at the source and away at
 * the destination, and its end flips both. */
typedef enum Presence {
        PRESENCE_AWAY,
        PRESENCE_HERE,
        PRESENCE_MAX,
        PRESENCE_INVALID = -EINVAL,
} Presence;

DECLARE_STRING_TABLE(VmmType, vmm_type);
DECLARE_STRING_TABLE(DeviceType, device_type);
DECLARE_STRING_TABLE(Presence, presence);

/* The status of a device that nobody has tried to reach: there was no agent that could. */
#define MANIFEST_NO_AGENT (-ESRCH)

/* ... that could not be reset, and is in quarantine until it can. */
#define MANIFEST_QUARANTINED (-EOWNERDEAD)

/* Something that is known of a device and may have to be the same on both sides: "firmware", "22.41.1000". What a plugin says
 * begins with its name and a dot; what the daemon itself knows has no dot (daemon/identity.h lists it). */
typedef struct ManifestFact {
        char key[FACT_KEY_MAX + 1];
        char value[FACT_VALUE_MAX + 1];
} ManifestFact;

/* Whether other devices of the VM can be kept from reaching this one's BARs. */
typedef enum DeviceIsolation {
        DEVICE_ISOLATION_UNKNOWN, /* nobody has confirmed it */
        DEVICE_ISOLATION_NONE,    /* its VMM maps its BARs where other devices reach them */
        DEVICE_ISOLATION_FULL, /* its VMM has confirmed that it maps none, it has none that could be mapped, or no VMM has it */
        DEVICE_ISOLATION_MAX,
        DEVICE_ISOLATION_INVALID = -EINVAL,
} DeviceIsolation;

DECLARE_STRING_TABLE(DeviceIsolation, device_isolation);

typedef struct ManifestDevice {
        char id[DEVICE_ID_MAX + 1];
        DeviceType type;
        uint32_t
                migration_flags; /* VFIO_DEVICE_FEATURE_MIGRATION, and DEVICE_DMA_LOGGING and the others. One that
                                   * nobody could open yet: DEVICE_SUPERVISED, DEVICE_KERNEL, as its definition says */
        DeviceState state;       /* as last read */
        int status;              /* 0, or the negative errno with which the device could not be reached */
        char text[MANIFEST_TEXT_MAX];  /* what went wrong, when status is not 0 */
        char sysfs[VMM_SYSFS_MAX + 1]; /* of the kernel: where it is; empty when not known */
        char driver[64];               /* ... and who drives it */
        char device[10];    /* "15b3:101e": PCI vendor and device; empty when it is not PCI, or not known */
        char subsystem[10]; /* ... of the subsystem */
        DeviceIsolation isolation;
        uint64_t state_bytes; /* that it would give now, all in all; 0: it does not say */
        uint64_t
                estimate_usec; /* of the blackout it takes so much, as a plugin thinks; 0: none does. Not told to others */
        uint32_t n_facts;
        ManifestFact *facts; /* owned */
        uint32_t n_plugins;
        char (*plugins)[FACT_KEY_MAX + 1]; /* owned: names of those that say that it is theirs */
} ManifestDevice;

typedef struct ManifestVmm {
        VmmType type;
        int status;                   /* 0, or the negative errno: could not be asked */
        char text[MANIFEST_TEXT_MAX]; /* what went wrong, when status is not 0 */
        char version[64];             /* "7.2.22"; empty when not known (VM is away) */
        uint32_t major;               /* 7 */
        char machine[64];             /* "pc-q35-7.2" */
        char run_state[32];           /* "running" */
        bool takes_dirty_pages;       /* pages that devices write can be given to it */
        bool viommu;                  /* the VM has a virtual IOMMU: its page faults may need a vCPU */
        bool can_hold;                /* its migration can be made to stand while its vCPUs run */
        uint32_t n_blocked;           /* reasons why the VMM itself refuses to migrate */
        char blocked[MANIFEST_REASONS_MAX][MANIFEST_TEXT_MAX]; /* in the VMM's words */
        uint32_t
                n_vfio_user; /* devices whose state it would silently leave behind, or move with nobody beside it */
        char vfio_user[MANIFEST_REASONS_MAX][MANIFEST_TEXT_MAX]; /* their QOM paths */
        uint32_t n_writable;                                     /* writable block devices */
        char writable[MANIFEST_REASONS_MAX][MANIFEST_TEXT_MAX];
        uint32_t n_silent; /* supervised devices of which it does not say what it does with them */
        char silent[MANIFEST_REASONS_MAX][MANIFEST_TEXT_MAX]; /* their names, and why */
} ManifestVmm;

typedef struct ManifestLabel {
        char name[FACT_KEY_MAX + 1];
        char value[FACT_VALUE_MAX + 1];
} ManifestLabel;

typedef struct Manifest {
        char uuid[37];
        char name[VM_NAME_MAX + 1];
        Presence presence;
        bool can_start;     /* the definition says how to start the VM's process here */
        char kernel[65];    /* this host's, as uname says its release */
        char daemon[32];    /* version of its migmgrd */
        int64_t free_bytes; /* where its records are written; -1: not known */
        ManifestVmm vmm;
        uint32_t n_labels;
        ManifestLabel labels[MANIFEST_LABELS_MAX];
        uint32_t n_devices;
        ManifestDevice *devices; /* owned */
} Manifest;

/* Makes room for `n_devices` zeroed devices. -ENOMEM; -E2BIG above MANIFEST_DEVICES_MAX. */
int manifest_init(Manifest *manifest, uint32_t n_devices) _must_check_;

/* Frees what manifest_init() made and zeroes the struct. */
void manifest_deinit(Manifest *manifest);

/* Frees what is known of the device, and zeroes it. */
void manifest_device_forget(ManifestDevice *device);

/* Copies driver, device, subsystem and facts. -ENOMEM. */
int manifest_copy_known(ManifestDevice *device, const ManifestDevice *from) _must_check_;

/* Whether a label may be so: a name of 1 to FACT_KEY_MAX bytes, a value of at most FACT_VALUE_MAX, printable. */
bool manifest_label_is_valid(const char *name, const char *value);

/* Adds a fact; one of that key is replaced. Texts that are too long, or have other characters than they may, are refused:
 * -EINVAL; -E2BIG above MANIFEST_FACTS_MAX; -ENOMEM. */
int manifest_add_fact(ManifestDevice *device, const char *key, const char *value) _must_check_;

/* The value, or NULL when it is not known. */
const char *manifest_fact(const ManifestDevice *device, const char *key);

/* A plugin says that the device is its; said twice it counts once. -E2BIG above MANIFEST_FACTS_MAX; -ENOMEM. */
int manifest_add_plugin(ManifestDevice *device, const char *name) _must_check_;

/* Whether `text` may be the id of a device: 1 to DEVICE_ID_MAX of [A-Za-z0-9._-]. */
bool device_id_is_valid(const char *text);

/* The device of that id, or NULL. */
const ManifestDevice *manifest_find(const Manifest *manifest, const char *id);
