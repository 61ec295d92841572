/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "device-state.h"

#define ERROR_        DEVICE_STATE_ERROR
#define STOP          DEVICE_STATE_STOP
#define RUNNING       DEVICE_STATE_RUNNING
#define STOP_COPY     DEVICE_STATE_STOP_COPY
#define RESUMING      DEVICE_STATE_RESUMING
#define RUNNING_P2P   DEVICE_STATE_RUNNING_P2P
#define PRE_COPY      DEVICE_STATE_PRE_COPY
#define PRE_COPY_P2P  DEVICE_STATE_PRE_COPY_P2P
#define DEVICE_STATES (DEVICE_STATE_PRE_COPY_P2P + 1)

static const char *const device_state_names[] = {
        [ERROR_] = "error",
        [STOP] = "stop",
        [RUNNING] = "running",
        [STOP_COPY] = "stop-copy",
        [RESUMING] = "resuming",
        [RUNNING_P2P] = "running-p2p",
        [PRE_COPY] = "pre-copy",
        [PRE_COPY_P2P] = "pre-copy-p2p",
        [DEVICE_STATE_UNKNOWN] = "unknown",
};

DEFINE_STRING_TABLE(DeviceState, device_state, device_state_names);

/* The next state on the way from the row's state to the column's, for a device that supports everything. A device
 * that lacks a state on the way is led past it, as the uAPI says ("behave as though the device was fully running if
 * not supported"). ERROR stands for: there is no way. */
static const uint8_t next_state[DEVICE_STATES][DEVICE_STATES] = {
        [STOP] = {[STOP] = STOP,
                  [RUNNING] = RUNNING_P2P,
                  [STOP_COPY] = STOP_COPY,
                  [RESUMING] = RESUMING,
                  [RUNNING_P2P] = RUNNING_P2P,
                  [PRE_COPY] = RUNNING_P2P,
                  [PRE_COPY_P2P] = RUNNING_P2P},
        [RUNNING] = {[STOP] = RUNNING_P2P,
                     [RUNNING] = RUNNING,
                     [STOP_COPY] = RUNNING_P2P,
                     [RESUMING] = RUNNING_P2P,
                     [RUNNING_P2P] = RUNNING_P2P,
                     [PRE_COPY] = PRE_COPY,
                     [PRE_COPY_P2P] = RUNNING_P2P},
        [STOP_COPY] = {[STOP] = STOP,
                       [RUNNING] = STOP,
                       [STOP_COPY] = STOP_COPY,
                       [RESUMING] = STOP,
                       [RUNNING_P2P] = STOP},
        [RESUMING] = {[STOP] = STOP,
                      [RUNNING] = STOP,
                      [STOP_COPY] = STOP,
                      [RESUMING] = RESUMING,
                      [RUNNING_P2P] = STOP,
                      [PRE_COPY] = STOP,
                      [PRE_COPY_P2P] = STOP},
        [RUNNING_P2P] = {[STOP] = STOP,
                         [RUNNING] = RUNNING,
                         [STOP_COPY] = STOP,
                         [RESUMING] = STOP,
                         [RUNNING_P2P] = RUNNING_P2P,
                         [PRE_COPY] = RUNNING,
                         [PRE_COPY_P2P] = PRE_COPY_P2P},
        [PRE_COPY] = {[STOP] = RUNNING,
                      [RUNNING] = RUNNING,
                      [STOP_COPY] = PRE_COPY_P2P,
                      [RESUMING] = RUNNING,
                      [RUNNING_P2P] = RUNNING,
                      [PRE_COPY] = PRE_COPY,
                      [PRE_COPY_P2P] = PRE_COPY_P2P},
        [PRE_COPY_P2P] = {[STOP] = RUNNING_P2P,
                          [RUNNING] = RUNNING_P2P,
                          [STOP_COPY] = STOP_COPY,
                          [RESUMING] = RUNNING_P2P,
                          [RUNNING_P2P] = RUNNING_P2P,
                          [PRE_COPY] = PRE_COPY,
                          [PRE_COPY_P2P] = PRE_COPY_P2P},
};

bool device_state_supported(DeviceState state, uint32_t flags)
{
        static const uint8_t needs[DEVICE_STATES] = {
                [STOP] = DEVICE_MIGRATION_STOP_COPY,
                [RUNNING] = 0,
                [STOP_COPY] = DEVICE_MIGRATION_STOP_COPY,
                [RESUMING] = DEVICE_MIGRATION_STOP_COPY,
                [RUNNING_P2P] = DEVICE_MIGRATION_STOP_COPY | DEVICE_MIGRATION_P2P,
                [PRE_COPY] = DEVICE_MIGRATION_STOP_COPY | DEVICE_MIGRATION_PRE_COPY,
                [PRE_COPY_P2P] =
                        DEVICE_MIGRATION_STOP_COPY | DEVICE_MIGRATION_P2P | DEVICE_MIGRATION_PRE_COPY,
        };

        if ((int) state < 0 || state >= DEVICE_STATES)
                return false;
        return (needs[state] & ~flags) == 0;
}

static bool is_end_point(DeviceState state, uint32_t flags)
{
        return state != ERROR_ && device_state_supported(state, flags);
}

int device_state_path(DeviceState from, DeviceState to, uint32_t flags, DeviceState ret_path[DEVICE_PATH_MAX])
{
        int n = 0;

        if (!is_end_point(from, flags) || !is_end_point(to, flags))
                return -EINVAL;

        for (DeviceState at = from; at != to;) {
                at = next_state[at][to];
                if (at == ERROR_)
                        return -EINVAL;
                if (!device_state_supported(at, flags))
                        continue;
                ret_path[n++] = at;
        }
        return n;
}
