/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a definition's command line says of the QEMU that does not live yet. Only that is read which check compares; QEMU
 * itself judges the rest when it starts. */

#include <stdio.h>

#include "common/json.h"
#include "common/sysfs-device.h"
#include "definition.h"

#define OPTION_MAX 512 /* bytes of a value that is of interest */

/* QEMU's own form: "vfio-pci,id=a,,b,host=0000:3b:00.2": commas in a value are doubled, and the first may have no key: then
 * `implied` is its. */
static bool take_plain(const char *arg, const char *implied, const char *key, char *ret, size_t size)
{
        bool found = false;

        for (const char *p = arg; *p;) {
                char item[OPTION_MAX], *value = item;
                size_t n = 0;

                for (; *p && (*p != ',' || p[1] == ','); p++) {
                        if (*p == ',')
                                p++;
                        if (n + 1 < sizeof item)
                                item[n++] = *p;
                }
                item[n] = 0;
                if (*p)
                        p++;
                value = strchr(item, '=');
                if (value)
                        *value++ = 0;
                if (value ? streq(item, key) : implied && streq(implied, key)) {
                        (void) snprintf(ret, size, "%s", value ? value : item);
                        found = true;
                }
                implied = NULL;
        }
        return found;
}

static bool take_json(const char *arg, const char *key, char *ret, size_t size)
{
        JsonReader reader = {.where = "argv"};
        _cleanup_(json_object_putp) json_object *object = json_parse(&reader, arg, strlen(arg));
        const char *value = object ? json_string(&reader, object, key, false) : NULL;

        if (value)
                (void) snprintf(ret, size, "%s", value);
        return value;
}

/* The last that is said of a key counts. */
static bool take(const char *arg, const char *implied, const char *key, char *ret, size_t size)
{
        return arg[0] == '{' ? take_json(arg, key, ret, size) : take_plain(arg, implied, key, ret, size);
}

/* "-device" and "--device" are the same to QEMU. */
static bool is_option(const char *arg, const char *name)
{
        return arg[0] == '-' && streq(arg + (arg[1] == '-' ? 2 : 1), name);
}

void definition_find_sysfs(const Definition *definition, const char *vmm_device, char ret[VMM_SYSFS_MAX + 1])
{
        char text[OPTION_MAX];

        ret[0] = 0;
        for (char **arg = definition->argv; arg && arg[0] && arg[1]; arg++) {
                if (!is_option(arg[0], "device") || !take(arg[1], "driver", "id", text, sizeof text) ||
                    !streq(text, vmm_device))
                        continue;
                if (take(arg[1], "driver", "sysfsdev", text, sizeof text) ||
                    take(arg[1], "driver", "host", text, sizeof text))
                        (void) sysfs_device_find(text, ret, VMM_SYSFS_MAX + 1);
        }
}

void definition_find_machine(const Definition *definition, char *ret, size_t size)
{
        ret[0] = 0;
        for (char **arg = definition->argv; arg && arg[0] && arg[1]; arg++)
                if (is_option(arg[0], "M") || is_option(arg[0], "machine"))
                        (void) take(arg[1], "type", "type", ret, size);
}
