/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A VM definition: what an operator writes down about one VM on one host (docs/vm-definition.md). Parsed once, strictly, and
 * kept as text too: the text is what is stored and shown. Owned by the VM it defines. */

#include "common/socket.h"
#include "common/uuid.h"
#include "daemon/core/manifest.h"

#define DEFINITION_TEXT_MAX (256 * 1024)
#define DEFINITION_ARGV_MAX 256
#define BUS_NAME_MAX        255 /* D-Bus'; of its paths ours */

typedef struct DeviceDefinition {
        char id[DEVICE_ID_MAX + 1];
        DeviceType type;
        char socket[SOCKET_PATH_MAX + 1];
        char broker[SOCKET_PATH_MAX + 1]; /* where the VMM connects; empty: it does not use the device */
        /* vfio: one of the two */
        char vmm_device[DEVICE_ID_MAX + 1]; /* what its VMM calls it */
        char sysfs[VMM_SYSFS_MAX + 1];      /* where we open it */
} DeviceDefinition;

typedef struct Definition {
        char *text; /* as JSON, one line */
        char uuid[UUID_TEXT_MAX + 1];
        char name[VM_NAME_MAX + 1];
        VmmType vmm;
        char monitor[SOCKET_PATH_MAX + 1]; /* qmp */
        char bus_name[BUS_NAME_MAX + 1];   /* delegate */
        char object_path[BUS_NAME_MAX + 1];
        char **argv; /* qmp: how to start the VM's process; NULL when not given */
        uint32_t n_labels;
        ManifestLabel *labels;
        uint32_t n_devices;
        DeviceDefinition *devices;
} Definition;

/* Parses `text`. -EINVAL: `ret_error` (JSON_TEXT_MAX bytes) says what is wrong; -ENOMEM. */
int definition_parse(const char *text, size_t size, Definition **ret, char *ret_error) _must_check_;
Definition *definition_free(Definition *definition);

/* Whether the VMM has that device and drives it itself: we only look on, and take its states on where it is due. */
bool definition_supervises(const Definition *definition, const DeviceDefinition *device);

/* The directory in sysfs of the device that QEMU is started with here under that id, as `incoming.argv` says it; "" when that
 * does not. Whatever path stands there, the name at its end counts. */
void definition_find_sysfs(const Definition *definition, const char *vmm_device, char ret[VMM_SYSFS_MAX + 1]);

/* The machine type of `incoming.argv`, or "". */
void definition_find_machine(const Definition *definition, char *ret, size_t size);

/* Where its VMM is reached, for people. */
const char *definition_place(const Definition *definition);
/* Whether both say the same, in whatever order. */
bool definition_equal(const Definition *a, const Definition *b);

DEFINE_CLEANUP(Definition *, definition_free);
