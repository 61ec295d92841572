/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vmm.h"

int vmm_new(Loop *loop, HelperClient *helper, const Definition *definition, const VmmListener *listener,
            void *userdata, Vmm **ret)
{
        Vmm *vmm = NULL;
        int r = -EINVAL;

        switch (definition->vmm) {
        case VMM_TYPE_NONE: r = vmm_none_new(loop, &vmm); break;
        case VMM_TYPE_QMP: r = vmm_qemu_new(loop, &vmm); break;
        case VMM_TYPE_DELEGATE: r = vmm_delegate_new(loop, &vmm); break;
        case VMM_TYPE_MAX:
        case VMM_TYPE_INVALID: break;
        }
        if (r < 0)
                return r;
        vmm->loop = loop;
        vmm->helper = helper;
        vmm->definition = definition;
        vmm->listener = listener;
        vmm->userdata = userdata;
        vmm->facts.type = definition->vmm;
        *ret = vmm;
        return 0;
}
