/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "command.h"

#include "access.h"
#include "handshake.h"
#include "migration.h"

#define IN(state)    (1u << DEVICE_STATE_##state)
#define IN_ANY_STATE ((1u << ARC_STATES) - 1)
#define IN_SAVING    (IN(STOP_COPY) | IN(PRE_COPY) | IN(PRE_COPY_P2P))
/* The kernel has no such gate, and the specification neither; libvfio-user has, and agents must live with it. */
#define NOT_WHILE_STOPPED (IN_ANY_STATE & ~(IN(STOP) | IN(STOP_COPY)))

/* Regions have no fault place of their own: only `any` meets them. */
static const Command commands[] = {
        [VFIO_USER_VERSION] = {FAULT_AT_VERSION, IN_ANY_STATE, sizeof(VfioUserVersion), handshake_version},
        [VFIO_USER_DEVICE_GET_INFO] = {FAULT_AT_INFO, NOT_WHILE_STOPPED, sizeof(VfioUserDeviceInfo),
                                       access_info},
        [VFIO_USER_REGION_READ] = {FAULT_AT_ANY, IN_ANY_STATE & ~IN(STOP_COPY), sizeof(VfioUserRegionAccess),
                                   access_read},
        [VFIO_USER_REGION_WRITE] = {FAULT_AT_ANY, IN_ANY_STATE & ~IN(STOP_COPY), sizeof(VfioUserRegionAccess),
                                    access_write},
        [VFIO_USER_DEVICE_RESET] = {FAULT_AT_RESET, IN_ANY_STATE, 0, access_reset},
        [VFIO_USER_DEVICE_FEATURE] = {FAULT_AT_FEATURE, IN_ANY_STATE, sizeof(VfioUserFeature),
                                      migration_feature},
        [VFIO_USER_MIG_DATA_READ] = {FAULT_AT_READ, IN_SAVING, sizeof(VfioUserMigData), migration_read},
        [VFIO_USER_MIG_DATA_WRITE] = {FAULT_AT_WRITE, IN(RESUMING), sizeof(VfioUserMigData), migration_write},
};

const Command *command_get(uint16_t number)
{
        if (number >= ARRAY_SIZE(commands) || !commands[number].handle)
                return NULL;
        return &commands[number];
}
