/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vfio-arc.h"

static const DeviceState supervised_arcs[][2] = {
        {DEVICE_STATE_RUNNING, DEVICE_STATE_RUNNING_P2P},
        {DEVICE_STATE_RUNNING_P2P, DEVICE_STATE_RUNNING},
        {DEVICE_STATE_PRE_COPY, DEVICE_STATE_PRE_COPY_P2P},
        {DEVICE_STATE_PRE_COPY_P2P, DEVICE_STATE_PRE_COPY},
        {DEVICE_STATE_RESUMING, DEVICE_STATE_STOP},
        {DEVICE_STATE_STOP, DEVICE_STATE_RUNNING_P2P},
        {DEVICE_STATE_RUNNING_P2P, DEVICE_STATE_STOP},
        {DEVICE_STATE_PRE_COPY_P2P, DEVICE_STATE_STOP_COPY},
};

static bool is_supervised_arc(const VfioArc *arc)
{
        for (size_t i = 0; i < ARRAY_SIZE(supervised_arcs); i++)
                if (supervised_arcs[i][0] == arc->from && supervised_arcs[i][1] == arc->to)
                        return true;
        return false;
}

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
        if ((arc->flags & DEVICE_SUPERVISED) && !is_supervised_arc(arc)) {
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
