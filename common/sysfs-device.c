/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sysfs-device.h"

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
