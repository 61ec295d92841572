/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vfio-arc.h"

#include "daemon/core/device-program.h"

static bool is_saving(DeviceState state)
{
        return state == DEVICE_STATE_PRE_COPY || state == DEVICE_STATE_PRE_COPY_P2P ||
               state == DEVICE_STATE_STOP_COPY;
}

int vfio_arc_judge(const VfioArc *arc, const char **ret_text)
{
        DeviceState path[DEVICE_PATH_MAX];

        if (arc->from == arc->to)
                return 0; /* the kernel does nothing then */
        if (device_state_path(arc->from, arc->to, arc->flags & DEVICE_MIGRATION_MASK, path) < 0) {
                *ret_text = arc->from == DEVICE_STATE_STOP_COPY
                                    ? "not asked for: kernels hang on it, or refuse it"
                            : arc->from == DEVICE_STATE_ERROR
                                    ? "not asked for: only a reset leaves the error state"
                                    : "not asked for: the device has no such state";
                return -EINVAL;
        }
        if ((arc->flags & DEVICE_SUPERVISED) && !device_arc_supervised(arc->from, arc->to)) {
                *ret_text = "not asked for: its VMM drives it, and this would open or end the VMM's stream";
                return -EPERM;
        }
        if (arc->load_failed && arc->from == DEVICE_STATE_RESUMING) {
                *ret_text = "not asked for: the device has refused a part of its state, so it must be reset";
                return -EPERM;
        }
        return 0;
}

bool vfio_arc_opens_data(const VfioArc *arc)
{
        if (arc->to == DEVICE_STATE_RESUMING)
                return arc->from != DEVICE_STATE_RESUMING;
        return is_saving(arc->to) && !is_saving(arc->from);
}

bool vfio_arc_keeps_data(const VfioArc *arc)
{
        return arc->from == arc->to || (is_saving(arc->from) && is_saving(arc->to));
}
