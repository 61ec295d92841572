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

static const char *const device_isolation_names[DEVICE_ISOLATION_MAX] = {
        [DEVICE_ISOLATION_UNKNOWN] = "unknown",
        [DEVICE_ISOLATION_NONE] = "none",
        [DEVICE_ISOLATION_FULL] = "full",
};

DEFINE_STRING_TABLE(VmmType, vmm_type, vmm_type_names);
DEFINE_STRING_TABLE(DeviceType, device_type, device_type_names);
DEFINE_STRING_TABLE(Presence, presence, presence_names);
DEFINE_STRING_TABLE(DeviceIsolation, device_isolation, device_isolation_names);

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
        *manifest = (Manifest){.free_bytes = -1, .n_devices = n_devices, .devices = devices};
        return 0;
}

void manifest_device_forget(ManifestDevice *device)
{
        free(device->facts);
        free(device->plugins);
        *device = (ManifestDevice){};
}

void manifest_deinit(Manifest *manifest)
{
        for (uint32_t i = 0; i < manifest->n_devices; i++)
                manifest_device_forget(&manifest->devices[i]);
        free(manifest->devices);
        *manifest = (Manifest){};
}

static bool fact_key_is_valid(const char *key)
{
        size_t n = strspn(key, "abcdefghijklmnopqrstuvwxyz0123456789._-");

        return n > 0 && n <= FACT_KEY_MAX && key[n] == 0;
}

static bool is_printable(const char *text, size_t max)
{
        size_t n = 0;

        while (n <= max && text[n] >= ' ' && text[n] <= '~')
                n++;
        return n <= max && text[n] == 0;
}

bool manifest_label_is_valid(const char *name, const char *value)
{
        return name[0] != 0 && is_printable(name, FACT_KEY_MAX) && is_printable(value, FACT_VALUE_MAX);
}

static ManifestFact *find_fact(const ManifestDevice *device, const char *key)
{
        for (uint32_t i = 0; i < device->n_facts; i++)
                if (streq(device->facts[i].key, key))
                        return &device->facts[i];
        return NULL;
}

const char *manifest_fact(const ManifestDevice *device, const char *key)
{
        const ManifestFact *fact = find_fact(device, key);

        return fact ? fact->value : NULL;
}

int manifest_add_fact(ManifestDevice *device, const char *key, const char *value)
{
        ManifestFact *fact;

        if (!fact_key_is_valid(key) || !is_printable(value, FACT_VALUE_MAX))
                return -EINVAL;
        fact = find_fact(device, key);
        if (!fact) {
                ManifestFact *facts = device->facts;

                if (device->n_facts >= MANIFEST_FACTS_MAX)
                        return -E2BIG;
                facts = realloc(facts, (device->n_facts + 1) * sizeof *facts);
                if (!facts)
                        return -ENOMEM;
                device->facts = facts;
                fact = &facts[device->n_facts++];
        }
        *fact = (ManifestFact){};
        memcpy(fact->key, key, strlen(key));
        memcpy(fact->value, value, strlen(value));
        return 0;
}

int manifest_copy_known(ManifestDevice *device, const ManifestDevice *from)
{
        int r = 0;

        memcpy(device->driver, from->driver, sizeof device->driver);
        memcpy(device->device, from->device, sizeof device->device);
        memcpy(device->subsystem, from->subsystem, sizeof device->subsystem);
        for (uint32_t i = 0; i < from->n_facts && r == 0; i++)
                r = manifest_add_fact(device, from->facts[i].key, from->facts[i].value);
        return r;
}

int manifest_add_plugin(ManifestDevice *device, const char *name)
{
        char(*plugins)[FACT_KEY_MAX + 1];

        if (!fact_key_is_valid(name))
                return -EINVAL;
        for (uint32_t i = 0; i < device->n_plugins; i++)
                if (streq(device->plugins[i], name))
                        return 0;
        if (device->n_plugins >= MANIFEST_FACTS_MAX)
                return -E2BIG;
        plugins = realloc(device->plugins, (device->n_plugins + 1) * sizeof *plugins);
        if (!plugins)
                return -ENOMEM;
        device->plugins = plugins;
        memset(plugins[device->n_plugins], 0, sizeof *plugins);
        memcpy(plugins[device->n_plugins++], name, strlen(name));
        return 0;
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
