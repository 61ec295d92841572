/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "identity.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>

#include "common/log.h"

#define ENTRIES_MAX \
        16 /* of a directory that has one for each port or namespace: the first that says it will do */

/* Ids of PCI, in the text form that policies have. */
#define ID_MAX 8

/* ---- sysfs ----------------------------------------------------------------------------------------------------- */

/* One line of a file. False: it can't be read, is empty or longer than any that is known. */
static bool read_line(int dir, const char *name, char ret[FACT_VALUE_MAX + 1])
{
        char text[FACT_VALUE_MAX + 3];
        int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;

        if (fd >= 0)
                (void) close(fd);
        if (n <= 0)
                return false;
        text[n] = 0;
        text[strcspn(text, "\n")] = 0;
        if (text[0] == 0 || strlen(text) > FACT_VALUE_MAX)
                return false;
        (void) log_printable(text, ret, FACT_VALUE_MAX + 1);
        return true;
}

/* The name of what a link leads to. */
static bool read_link(int dir, const char *name, char *ret, size_t size)
{
        char to[PATH_MAX];
        const char *slash;
        ssize_t n = readlinkat(dir, name, to, sizeof to - 1);

        if (n <= 0)
                return false;
        to[n] = 0;
        slash = strrchr(to, '/');
        (void) log_printable(slash ? slash + 1 : to, ret, size);
        return ret[0] != 0;
}

/* "0x15b3" becomes "15b3". */
static bool read_id(int dir, const char *name, char ret[ID_MAX])
{
        char text[FACT_VALUE_MAX + 1];
        const char *digits = text;

        if (!read_line(dir, name, text))
                return false;
        if (strncmp(text, "0x", 2) == 0)
                digits += 2;
        if (strlen(digits) >= ID_MAX || digits[strspn(digits, "0123456789abcdef")] != 0)
                return false;
        memcpy(ret, digits, strlen(digits) + 1);
        return ret[0] != 0;
}

static bool read_ids(int dir, const char *vendor, const char *device, char *ret, size_t size)
{
        char left[ID_MAX], right[ID_MAX];

        if (!read_id(dir, vendor, left) || !read_id(dir, device, right) || strlen(left) != 4 ||
            strlen(right) != 4)
                return false;
        (void) snprintf(ret, size, "%s:%s", left, right);
        return true;
}

static int add(ManifestDevice *device, const char *key, const char *value)
{
        int r = manifest_add_fact(device, key, value);

        return r == -ENOMEM ? r : 0;
}

static int open_dir(int dir, const char *name)
{
        return openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* The file of that name in the first directory below `class` that has one. */
static bool find_line(int dir, const char *class, const char *name, char ret[FACT_VALUE_MAX + 1])
{
        int fd = open_dir(dir, class);
        DIR *entries = fd >= 0 ? fdopendir(fd) : NULL;
        struct dirent *entry;
        bool found = false;

        if (fd >= 0 && !entries)
                (void) close(fd);
        for (int n = 0; entries && !found && n < ENTRIES_MAX && (entry = readdir(entries)); n++) {
                char path[NAME_MAX + 64];

                (void) snprintf(path, sizeof path, "%s/%s", entry->d_name, name);
                found = entry->d_name[0] != '.' && read_line(fd, path, ret);
        }
        if (entries)
                (void) closedir(entries);
        return found;
}

/* A virtual function's is its physical function's. */
static int add_shown(int dir, ManifestDevice *device)
{
        static const struct {
                const char *class, *name, *fact;
        } shown[] = {
                {"infiniband", "fw_ver", "firmware"},       {"infiniband", "board_id", "board"},
                {"nvme", "firmware_rev", "firmware"},       {"physfn/infiniband", "fw_ver", "firmware"},
                {"physfn/infiniband", "board_id", "board"}, {"physfn/nvme", "firmware_rev", "firmware"},
        };
        char text[FACT_VALUE_MAX + 1];
        int r = 0;

        for (size_t i = 0; i < ARRAY_SIZE(shown) && r == 0; i++)
                if (!manifest_fact(device, shown[i].fact) &&
                    find_line(dir, shown[i].class, shown[i].name, text))
                        r = add(device, shown[i].fact, text);
        return r;
}

static int add_links(int dir, ManifestDevice *device)
{
        char text[FACT_VALUE_MAX + 1];
        int r = 0;

        if (read_link(dir, "physfn", text, sizeof text))
                r = add(device, "sriov-parent", text);
        if (r == 0 && read_link(dir, "mdev_type", text, sizeof text))
                r = add(device, "mdev-type", text);
        return r;
}

static int add_ids(int dir, ManifestDevice *device)
{
        char text[FACT_VALUE_MAX + 1];
        int r = 0;

        if (read_id(dir, "class", text))
                r = add(device, "class", text);
        if (r == 0 && read_id(dir, "revision", text))
                r = add(device, "revision", text);
        if (r == 0 && read_line(dir, "numa_node", text) && text[0] != '-')
                r = add(device, "numa-node", text);
        return r;
}

/* A mediated device lies in its parent's directory. */
static int add_parent(int dir, ManifestDevice *device)
{
        char text[FACT_VALUE_MAX + 1], driver[sizeof device->driver];
        int r = 0, parent;

        if (!manifest_fact(device, "mdev-type"))
                return 0;
        parent = open_dir(dir, "..");
        if (parent < 0)
                return 0;
        if (read_ids(parent, "vendor", "device", text, sizeof text))
                r = add(device, "parent-device", text);
        if (r == 0 && read_link(parent, "driver", driver, sizeof driver))
                r = add(device, "parent-driver", driver);
        (void) close(parent);
        return r;
}

int identity_read_sysfs(const char *root, const char *sysfs, ManifestDevice *device)
{
        char path[PATH_MAX];
        int dir, r;

        device->driver[0] = device->device[0] = device->subsystem[0] = 0;
        if (strncmp(sysfs, "/sys/", 5) != 0 ||
            snprintf(path, sizeof path, "%s/%s", root, sysfs + 5) >= (int) sizeof path)
                return 0;
        dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (dir < 0)
                return 0;
        (void) read_link(dir, "driver", device->driver, sizeof device->driver);
        (void) read_ids(dir, "vendor", "device", device->device, sizeof device->device);
        (void) read_ids(dir, "subsystem_vendor", "subsystem_device", device->subsystem,
                        sizeof device->subsystem);
        r = add_ids(dir, device);
        if (r == 0)
                r = add_links(dir, device);
        if (r == 0)
                r = add_parent(dir, device);
        if (r == 0)
                r = add_shown(dir, device);
        (void) close(dir);
        return r;
}

/* ---- config space ---------------------------------------------------------------------------------------------- */

/* PCI Local Bus 3.0, section 6.1: where these are in the header. */
enum {
        CONFIG_VENDOR = 0x00,
        CONFIG_DEVICE = 0x02,
        CONFIG_REVISION = 0x08,
        CONFIG_CLASS = 0x09,
        CONFIG_HEADER_TYPE = 0x0e,
        CONFIG_SUBSYSTEM_VENDOR = 0x2c,
        CONFIG_SUBSYSTEM = 0x2e,
};

static unsigned int read_word(const uint8_t *config, size_t at)
{
        return config[at] | (unsigned int) config[at + 1] << 8;
}

static void take_ids(const uint8_t *config, size_t vendor, size_t device, char *ret, size_t size)
{
        unsigned int v = read_word(config, vendor);

        if (!ret[0] && v != 0 && v != 0xffff)
                (void) snprintf(ret, size, "%04x:%04x", v, read_word(config, device));
}

int identity_take_config(const DeviceIdentity *identity, ManifestDevice *device)
{
        const uint8_t *config = identity->config;
        unsigned int vendor = read_word(config, CONFIG_VENDOR);
        char text[ID_MAX];
        int r = 0;

        if (identity->n_config < DEVICE_CONFIG_MAX || vendor == 0 || vendor == 0xffff)
                return 0;
        take_ids(config, CONFIG_VENDOR, CONFIG_DEVICE, device->device, sizeof device->device);
        if ((config[CONFIG_HEADER_TYPE] & 0x7f) == 0) /* bridges have something else there */
                take_ids(config, CONFIG_SUBSYSTEM_VENDOR, CONFIG_SUBSYSTEM, device->subsystem,
                         sizeof device->subsystem);
        (void) snprintf(text, sizeof text, "%02x%02x%02x", config[CONFIG_CLASS + 2], config[CONFIG_CLASS + 1],
                        config[CONFIG_CLASS]);
        if (!manifest_fact(device, "class"))
                r = add(device, "class", text);
        (void) snprintf(text, sizeof text, "%02x", config[CONFIG_REVISION]);
        if (r == 0 && !manifest_fact(device, "revision"))
                r = add(device, "revision", text);
        return r;
}

/* ---- isolation ------------------------------------------------------------------------------------------------- */

/* A VMM reaches a vfio-user device through its broker only; what migmgr opens itself nobody else has. */
static bool is_used_by_a_vmm(const DeviceDefinition *definition)
{
        return definition->type == DEVICE_TYPE_VFIO_USER ? definition->broker[0] != 0
                                                         : definition->vmm_device[0] != 0;
}

DeviceIsolation identity_isolation(const DeviceDefinition *definition, const DeviceIdentity *identity,
                                   DeviceIsolation said)
{
        if (identity->windows == DEVICE_WINDOWS_NONE || !is_used_by_a_vmm(definition))
                return DEVICE_ISOLATION_FULL;
        return said;
}
