/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sysfs-device.h"

#include <stdio.h>

bool sysfs_device_is_valid(const char *path)
{
        static const char *const places[] = {"/sys/bus/pci/devices/", "/sys/bus/mdev/devices/"};

        for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
                size_t n = strlen(places[i]);
                const char *name = path + n;

                if (strncmp(path, places[i], n) == 0)
                        return *name != 0 && *name != '.' && strlen(path) <= SYSFS_DEVICE_MAX &&
                               name[strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                                 "0123456789:._-")] == 0;
        }
        return false;
}

const char *sysfs_device_name(const char *path)
{
        return strrchr(path, '/') + 1;
}

/* Hexadecimal digits in groups of these lengths, with these characters between them. */
static bool has_form(const char *name, const char *form)
{
        for (; *form; form++, name++)
                if (*form == 'x' ? !strchr("0123456789abcdefABCDEF", *name) || !*name : *form != *name)
                        return false;
        return *name == 0;
}

bool sysfs_device_find(const char *said, char *ret, size_t size)
{
        static const struct {
                const char *form, *bus, *before;
        } forms[] = {
                {"xxxx:xx:xx.x", "pci", ""},
                {"xx:xx.x", "pci", "0000:"},
                {"xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx", "mdev", ""},
        };
        const char *slash = strrchr(said, '/'), *name = slash ? slash + 1 : said;

        ret[0] = 0;
        for (size_t i = 0; i < ARRAY_SIZE(forms) && !ret[0]; i++)
                if (has_form(name, forms[i].form))
                        (void) snprintf(ret, size, "/sys/bus/%s/devices/%s%.40s", forms[i].bus,
                                        forms[i].before, name);
        return ret[0] != 0;
}
