/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "manifest.h"

static const char *const vmm_type_names[VMM_TYPE_MAX] = {
        [VMM_TYPE_NONE] = "none",
        [VMM_TYPE_QMP] = "qmp",
        [VMM_TYPE_DELEGATE] = "delegate",
};

static const char *const device_type_names[DEVICE_TYPE_MAX] = {
        [DEVICE_TYPE_VFIO_USER] = "vfio-user",
        [DEVICE_TYPE_VFIO] = "vfio",
};

static const char *const presence_names[PRESENCE_MAX] = {
        [PRESENCE_AWAY] = "away",
        [PRESENCE_HERE] = "here",
};

DEFINE_STRING_TABLE(VmmType, vmm_type, vmm_type_names);
DEFINE_STRING_TABLE(DeviceType, device_type, device_type_names);
DEFINE_STRING_TABLE(Presence, presence, presence_names);

int manifest_init(Manifest *manifest, uint32_t n_devices)
{
        ManifestDevice *devices = NULL;

        if (n_devices > MANIFEST_DEVICES_MAX)
                return -E2BIG;
        if (n_devices > 0) {
                devices = calloc(n_devices, sizeof *devices);
                if (!devices)
                        return -ENOMEM;
        }
        *manifest = (Manifest){.n_devices = n_devices, .devices = devices};
        return 0;
}

void manifest_deinit(Manifest *manifest)
{
        free(manifest->devices);
        *manifest = (Manifest){};
}

bool device_id_is_valid(const char *text)
{
        size_t n = strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");

        return n > 0 && n <= DEVICE_ID_MAX && text[n] == 0;
}

const ManifestDevice *manifest_find(const Manifest *manifest, const char *id)
{
        for (uint32_t i = 0; i < manifest->n_devices; i++)
                if (streq(manifest->devices[i].id, id))
                        return &manifest->devices[i];
        return NULL;
}
