/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "command.h"

#include "access.h"
#include "handshake.h"
#include "migration.h"
#include "set-up.h"

#define IN(state)    (1u << DEVICE_STATE_##state)
#define IN_ANY_STATE ((1u << ARC_STATES) - 1)
#define IN_SAVING    (IN(STOP_COPY) | IN(PRE_COPY) | IN(PRE_COPY_P2P))
/* The kernel has no such gate, and the specification neither; libvfio-user has, and agents must live with it. A device with
 * a worker has it only when it has to be strict: its VMM is to be tried with both. */
#define NOT_WHILE_STOPPED (IN_ANY_STATE & ~(IN(STOP) | IN(STOP_COPY)))

/* What has no fault place of its own is met by `any` only. */
static const Command commands[] = {
        [VFIO_USER_VERSION] = {FAULT_AT_VERSION, IN_ANY_STATE, SERVED_BY_ALL, sizeof(VfioUserVersion),
                               handshake_version},
        [VFIO_USER_DMA_MAP] = {FAULT_AT_ANY, NOT_WHILE_STOPPED, SET_UP, sizeof(VfioUserDmaMap), set_up_map},
        [VFIO_USER_DMA_UNMAP] = {FAULT_AT_ANY, NOT_WHILE_STOPPED, SET_UP, sizeof(VfioUserDmaUnmap),
                                 set_up_unmap},
        [VFIO_USER_DEVICE_GET_INFO] = {FAULT_AT_INFO, NOT_WHILE_STOPPED, SET_UP_OF_ALL,
                                       sizeof(VfioUserDeviceInfo), access_info},
        [VFIO_USER_DEVICE_GET_REGION_INFO] = {FAULT_AT_ANY, NOT_WHILE_STOPPED, SET_UP,
                                              sizeof(VfioUserRegionInfo), set_up_region_info},
        [VFIO_USER_DEVICE_GET_IRQ_INFO] = {FAULT_AT_ANY, NOT_WHILE_STOPPED, SET_UP, sizeof(VfioUserIrqInfo),
                                           set_up_irq_info},
        [VFIO_USER_DEVICE_SET_IRQS] = {FAULT_AT_ANY, NOT_WHILE_STOPPED, SET_UP, sizeof(VfioUserSetIrqs),
                                       set_up_irqs},
        [VFIO_USER_REGION_READ] = {FAULT_AT_ANY, IN_ANY_STATE & ~IN(STOP_COPY), SERVED_BY_ALL,
                                   sizeof(VfioUserRegionAccess), access_read},
        [VFIO_USER_REGION_WRITE] = {FAULT_AT_ANY, IN_ANY_STATE & ~IN(STOP_COPY), SERVED_BY_ALL,
                                    sizeof(VfioUserRegionAccess), access_write},
        [VFIO_USER_DEVICE_RESET] = {FAULT_AT_RESET, IN_ANY_STATE, SERVED_BY_ALL, 0, access_reset},
        [VFIO_USER_DEVICE_FEATURE] = {FAULT_AT_FEATURE, IN_ANY_STATE, SERVED_BY_ALL, sizeof(VfioUserFeature),
                                      migration_feature},
        [VFIO_USER_MIG_DATA_READ] = {FAULT_AT_READ, IN_SAVING, SERVED_BY_ALL, sizeof(VfioUserMigData),
                                     migration_read},
        [VFIO_USER_MIG_DATA_WRITE] = {FAULT_AT_WRITE, IN(RESUMING), SERVED_BY_ALL, sizeof(VfioUserMigData),
                                      migration_write},
};

const Command *command_get(uint16_t number)
{
        if (number >= ARRAY_SIZE(commands) || !commands[number].handle)
                return NULL;
        return &commands[number];
}

bool command_is_served(const Command *c, const Device *d)
{
        bool free = d->worker && !d->config.strict;
        uint16_t states = c->group != SERVED_BY_ALL && free ? IN_ANY_STATE : c->states;

        return (c->group != SET_UP || d->worker) && (states >> d->state & 1);
}
