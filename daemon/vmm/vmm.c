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

void vmm_find_device(Vmm *vmm, const char *vmm_device, VmmDeviceFound found, void *userdata)
{
        if (vmm->ops->find_device)
                vmm->ops->find_device(vmm, vmm_device, found, userdata);
        else
                found(userdata, -EOPNOTSUPP, NULL, "a VMM of this type has no device that could be found");
}

void vmm_forget_device(Vmm *vmm, void *userdata)
{
        if (vmm->ops->forget_device)
                vmm->ops->forget_device(vmm, userdata);
}
