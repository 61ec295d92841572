/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* VM definitions: any text is either taken or refused with a reason; what is taken keeps its bounds, says the same when it is read
 * again from what is stored of it, and its command line can be looked through. */

#include <stdlib.h>

#include "common/json.h"
#include "daemon/definition.h"
#include "fuzz.h"

static void demand(bool holds)
{
        if (!holds)
                abort();
}

static void check_device(const Definition *definition, const DeviceDefinition *device)
{
        char sysfs[VMM_SYSFS_MAX + 1];

        demand(device_id_is_valid(device->id));
        demand(device->type != DEVICE_TYPE_VFIO_USER || socket_path_fits(device->socket));
        demand(device->type != DEVICE_TYPE_VFIO || !device->sysfs[0] != !device->vmm_device[0]);
        definition_find_sysfs(definition, device->vmm_device, sysfs);
        demand(strlen(sysfs) <= VMM_SYSFS_MAX);
}

static void check(const Definition *definition)
{
        char machine[32], error[JSON_TEXT_MAX];
        Definition *again;

        demand(uuid_is_valid(definition->uuid) && definition->name[0]);
        demand(definition->n_devices <= MANIFEST_DEVICES_MAX);
        for (uint32_t i = 0; i < definition->n_devices; i++)
                check_device(definition, &definition->devices[i]);
        for (uint32_t i = 0; i < definition->n_labels; i++)
                demand(manifest_label_is_valid(definition->labels[i].name, definition->labels[i].value));
        definition_find_machine(definition, machine, sizeof machine);
        demand(strlen(machine) < sizeof machine && definition_place(definition));
        demand(definition_parse(definition->text, strlen(definition->text), &again, error) == 0);
        demand(definition_equal(definition, again));
        definition_free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        char *text = malloc(size ? size : 1), error[JSON_TEXT_MAX] = ""; /* of just that size */
        Definition *definition = NULL;
        int r;

        demand(text);
        memcpy(text, data, size);
        r = definition_parse(text, size, &definition, error);
        demand(r == (error[0] ? -EINVAL : 0));
        if (r == 0)
                check(definition);
        definition_free(definition);
        free(text);
        return 0;
}
