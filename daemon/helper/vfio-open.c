/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vfio-open.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "common/sysfs-device.h"
#include "daemon/agent/vfio-uapi.h"

#define NAME_TEXT_MAX 64

typedef struct Place {
        const char *sysfs;
        char driver[NAME_TEXT_MAX], group[NAME_TEXT_MAX], own[NAME_TEXT_MAX]; /* empty: it has none */
} Place;

static int _printf_(3, 4) say(ChildWork *work, int status, const char *format, ...)
{
        va_list args;

        va_start(args, format);
        (void) vsnprintf(work->text, sizeof work->text, format, args);
        va_end(args);
        return status;
}

/* The last part of what a link of the device points at, or "". */
static void read_link(const char *sysfs, const char *link, char ret[NAME_TEXT_MAX])
{
        char path[PATH_MAX], to[PATH_MAX];
        const char *name;
        ssize_t n;

        ret[0] = 0;
        (void) snprintf(path, sizeof path, "%s/%s", sysfs, link);
        n = readlink(path, to, sizeof to - 1);
        if (n <= 0)
                return;
        to[n] = 0;
        name = strrchr(to, '/');
        (void) snprintf(ret, NAME_TEXT_MAX, "%.63s", name ? name + 1 : to);
}

/* "vfio3", or "". */
static void find_own(const char *sysfs, char ret[NAME_TEXT_MAX])
{
        char path[PATH_MAX];
        struct dirent *entry;
        DIR *dir;

        ret[0] = 0;
        (void) snprintf(path, sizeof path, "%s/vfio-dev", sysfs);
        dir = opendir(path);
        while (dir && (entry = readdir(dir)))
                if (strncmp(entry->d_name, "vfio", 4) == 0)
                        (void) snprintf(ret, NAME_TEXT_MAX, "%.63s", entry->d_name);
        if (dir)
                (void) closedir(dir);
}

/* The buses' directories hold links; what they lead to must be a device. */
static int find(const char *sysfs, Place *ret, ChildWork *work)
{
        char real[PATH_MAX];

        if (!sysfs_device_is_valid(sysfs))
                return say(work, -EINVAL, "that is no device of the bus pci or mdev");
        if (!realpath(sysfs, real) || strncmp(real, "/sys/devices/", 13) != 0)
                return say(work, -ENODEV, "%s: there is no such device", sysfs);
        ret->sysfs = sysfs;
        read_link(sysfs, "driver", ret->driver);
        read_link(sysfs, "iommu_group", ret->group);
        find_own(sysfs, ret->own);
        return 0;
}

/* ---- by its own file ----------------------------------------------------------------------------------------- */

/* A name in /dev is worth what its numbers are. */
static bool is_that_device(int fd, const Place *place)
{
        char path[PATH_MAX], text[32] = "";
        unsigned int major, minor;
        struct stat st;
        int dev;

        (void) snprintf(path, sizeof path, "%s/vfio-dev/%s/dev", place->sysfs, place->own);
        dev = open(path, O_RDONLY | O_CLOEXEC);
        if (dev < 0)
                return false;
        if (read(dev, text, sizeof text - 1) < 0)
                text[0] = 0;
        (void) close(dev);
        return fstat(fd, &st) == 0 && S_ISCHR(st.st_mode) && sscanf(text, "%u:%u", &major, &minor) == 2 &&
               st.st_rdev == makedev(major, minor);
}

static int bind_and_attach(int fd, int iommufd, ChildWork *work)
{
        struct iommu_ioas_alloc ioas = {.size = sizeof ioas};
        struct vfio_device_bind_iommufd bind = {.argsz = sizeof bind, .iommufd = iommufd};
        struct vfio_device_attach_iommufd_pt attach = {.argsz = sizeof attach};

        if (ioctl(fd, VFIO_DEVICE_BIND_IOMMUFD, &bind) < 0)
                return say(work, errno == EINVAL ? -EBUSY : -errno,
                           "somebody has it open already: a VMM, or a former agent whose call hangs");
        if (ioctl(iommufd, IOMMU_IOAS_ALLOC, &ioas) < 0)
                return say(work, -errno, "no address space for it");
        attach.pt_id = ioas.out_ioas_id;
        if (ioctl(fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach) < 0)
                return say(work, -errno, "it can't be attached to an address space");
        return 0;
}

static int open_own(const Place *place, ChildWork *work)
{
        _cleanup_(closep) int fd = -1, iommufd = -1;
        char path[PATH_MAX];
        int r;

        (void) snprintf(path, sizeof path, "/dev/vfio/devices/%s", place->own);
        fd = open(path, O_RDWR | O_CLOEXEC);
        if (fd < 0)
                return errno == ENOENT ? -ENOENT : say(work, -errno, "%s can't be opened", path);
        if (!is_that_device(fd, place))
                return say(work, -ENODEV, "%s is another device's file", path);
        iommufd = open("/dev/iommu", O_RDWR | O_CLOEXEC);
        if (iommufd < 0)
                return -ENOENT;
        r = bind_and_attach(fd, iommufd, work);
        if (r == 0)
                work->fd = TAKE_FD(fd);
        return r;
}

/* ---- by its group -------------------------------------------------------------------------------------------- */

/* The uAPI's order: without a container and its kind of IOMMU a group gives no device away. */
static int take_from_group(int group, int container, const Place *place, ChildWork *work)
{
        struct vfio_group_status status = {.argsz = sizeof status};

        if (ioctl(group, VFIO_GROUP_GET_STATUS, &status) < 0)
                return say(work, -errno, "its IOMMU group does not say how it is");
        if (!(status.flags & VFIO_GROUP_FLAGS_VIABLE))
                return say(work, -EPERM, "IOMMU group %s has a device that is bound to no VFIO driver",
                           place->group);
        if (ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) < 0)
                return say(work, -errno, "IOMMU group %s can't be given a container", place->group);
        if (ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) < 0 &&
            ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1_IOMMU) < 0)
                return say(work, -errno, "IOMMU group %s: there is no IOMMU of type 1", place->group);
        work->fd = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, sysfs_device_name(place->sysfs));
        if (work->fd < 0)
                return say(work, -errno, "IOMMU group %s does not give the device away", place->group);
        return 0;
}

static int open_by_group(const Place *place, ChildWork *work)
{
        _cleanup_(closep) int group = -1, container = -1;
        char path[PATH_MAX];

        if (!place->group[0])
                return say(work, -ENODEV,
                           "it is in no IOMMU group: its driver is \"%s\", which is none of VFIO's",
                           place->driver);
        (void) snprintf(path, sizeof path, "/dev/vfio/%s", place->group);
        group = open(path, O_RDWR | O_CLOEXEC);
        if (group < 0 && errno == ENOENT)
                return say(work, -ENODEV, "its driver is \"%s\", which is none of VFIO's: bind it to one",
                           place->driver);
        if (group < 0 && errno == EBUSY)
                return say(
                        work, -EBUSY,
                        "somebody has IOMMU group %s open already: a VMM, or a former agent whose call hangs",
                        place->group);
        if (group < 0)
                return say(work, -errno, "%s can't be opened", path);
        container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
        if (container < 0)
                return say(work, -errno, "/dev/vfio/vfio can't be opened");
        return take_from_group(group, container, place, work);
}

int vfio_open(const char *sysfs, ChildWork *work)
{
        Place place;
        bool own = false;
        int r = find(sysfs, &place, work);

        if (r < 0)
                return r;
        r = place.own[0] ? open_own(&place, work) : -ENOENT;
        own = r == 0;
        if (r == -ENOENT)
                r = open_by_group(&place, work);
        if (r == 0)
                (void) snprintf(work->text, sizeof work->text, "driver %s, IOMMU group %s, by %s",
                                place.driver, place.group[0] ? place.group : "none",
                                own ? place.own : "its group");
        return r;
}

/* ---- reset --------------------------------------------------------------------------------------------------- */

int vfio_reset_function(const char *sysfs, ChildWork *work)
{
        _cleanup_(closep) int fd = -1;
        char path[PATH_MAX], method[NAME_TEXT_MAX] = "";
        Place place;
        int r = find(sysfs, &place, work);

        if (r < 0)
                return r;
        (void) snprintf(path, sizeof path, "%s/reset_method", sysfs);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0 && read(fd, method, sizeof method - 1) < 0)
                method[0] = 0;
        method[strcspn(method, "\n")] = 0;
        closep(&fd);
        (void) snprintf(path, sizeof path, "%s/reset", sysfs);
        fd = open(path, O_WRONLY | O_CLOEXEC);
        if (fd < 0)
                return errno == ENOENT ? say(work, -EOPNOTSUPP, "the kernel has no reset for this function")
                                       : say(work, -errno, "its sysfs \"reset\" can't be opened");
        if (write(fd, "1", 1) < 0)
                return say(work, -errno, "the reset of its function failed, method %s",
                           method[0] ? method : "unknown");
        return say(work, 0, "%s", method[0] ? method : "unknown method");
}
