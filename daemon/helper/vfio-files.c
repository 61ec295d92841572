/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A duplicate of the file of a VFIO device that a VMM has open. Which of its files that is, is proved and not assumed: a
 * device's own file (cdev) by its device number; where the device was opened through its group, the group's file by that, and
 * the group is then asked for the device by name. What is proved once is proved again on the duplicate: the numbers in
 * /proc belong to a process that runs on. */

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/kcmp.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>

#include "call.h"

#define NAME_CHARACTERS   "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_.:"
#define NAME_LENGTH_MAX   64
#define FILES_MAX         65536 /* of one process that are looked at */
#define CAPABILITY_PTRACE 19    /* linux/capability.h */

/* ---- what forbids it ------------------------------------------------------------------------------------------- */

/* One line of a file in /proc or /sys; empty when it can't be read. */
static void read_line(const char *path, char *ret, size_t size)
{
        FILE *f = fopen(path, "re");

        ret[0] = 0;
        if (!f)
                return;
        if (!fgets(ret, (int) size, f))
                ret[0] = 0;
        ret[strcspn(ret, "\n")] = 0;
        (void) fclose(f);
}

static bool have_capability(void)
{
        FILE *f = fopen("/proc/self/status", "re");
        unsigned long long effective = 0;
        char line[256];

        while (f && fgets(line, sizeof line, f))
                if (sscanf(line, "CapEff: %llx", &effective) == 1)
                        break;
        if (f)
                (void) fclose(f);
        return effective >> CAPABILITY_PTRACE & 1;
}

int call_say_forbidden(Call *call, int status, pid_t pid, const char *what)
{
        char path[64], profile[128], scope[16];

        if (!have_capability())
                return call_say_of(call, status,
                                   "%s: migmgr-helper lacks CAP_SYS_PTRACE: give it back to its unit", what);
        read_line("/proc/sys/kernel/yama/ptrace_scope", scope, sizeof scope);
        if (streq(scope, "3"))
                return call_say_of(call, status,
                                   "%s: kernel.yama.ptrace_scope is 3: set it to 2 or less, and start again",
                                   what);
        (void) snprintf(path, sizeof path, "/proc/%d/attr/apparmor/current", (int) pid);
        read_line(path, profile, sizeof profile);
        if (profile[0] && !streq(profile, "unconfined"))
                return call_say_of(
                        call, status,
                        "%s: AppArmor profile \"%.60s\": add \"ptrace (readby, tracedby) peer=unconfined,\" "
                        "(examples/apparmor-libvirt-qemu)",
                        what, profile);
        (void) snprintf(path, sizeof path, "/proc/%d/attr/current", (int) pid);
        read_line(path, profile, sizeof profile);
        return call_say_of(call, status, "%s: process %d runs as \"%.80s\": let migmgr-helper trace it", what,
                           (int) pid, profile);
}

/* ---- which file ------------------------------------------------------------------------------------------------ */

/* What is looked for among the files of a process. */
typedef struct Search {
        pid_t pid;
        int pidfd;
        dev_t device;
} Search;

/* Of a path below /sys/bus/{pci,mdev}/devices the last part; NULL: it is none. */
static const char *device_name(const char *sysfs)
{
        static const char *const below[] = {"/sys/bus/pci/devices/", "/sys/bus/mdev/devices/"};

        for (size_t i = 0; i < ARRAY_SIZE(below); i++) {
                const char *name = sysfs + strlen(below[i]);

                if (strncmp(sysfs, below[i], strlen(below[i])) == 0 && name[0] && name[0] != '.' &&
                    strlen(name) <= NAME_LENGTH_MAX && strspn(name, NAME_CHARACTERS) == strlen(name))
                        return name;
        }
        return NULL;
}

/* "511:3", as in the file called dev of something in sysfs. */
static int read_device_number(const char *path, dev_t *ret)
{
        unsigned int major, minor;
        char text[32];

        read_line(path, text, sizeof text);
        if (sscanf(text, "%u:%u", &major, &minor) != 2)
                return -ENOENT;
        *ret = makedev(major, minor);
        return 0;
}

/* The number of /dev/vfio/devices/vfioN, which the kernel names in the device's directory. */
static int cdev_number(const char *sysfs, dev_t *ret)
{
        char path[PATH_MAX];
        struct dirent *entry;
        int r = -ENOENT;
        DIR *dir;

        (void) snprintf(path, sizeof path, "%s/vfio-dev", sysfs);
        dir = opendir(path);
        if (!dir)
                return -errno;
        while (r < 0 && (entry = readdir(dir)))
                if (strncmp(entry->d_name, "vfio", 4) == 0 && strlen(entry->d_name) < NAME_LENGTH_MAX) {
                        (void) snprintf(path, sizeof path, "%s/vfio-dev/%s/dev", sysfs, entry->d_name);
                        r = read_device_number(path, ret);
                }
        (void) closedir(dir);
        return r;
}

/* The number of /dev/vfio/G. */
static int group_number(const char *sysfs, dev_t *ret)
{
        char path[PATH_MAX], link[PATH_MAX];
        const char *group;
        ssize_t n;

        (void) snprintf(path, sizeof path, "%s/iommu_group", sysfs);
        n = readlink(path, link, sizeof link - 1);
        if (n < 0)
                return -errno;
        link[n] = 0;
        group = strrchr(link, '/');
        if (!group || strlen(group) > NAME_LENGTH_MAX)
                return -ENOENT;
        (void) snprintf(path, sizeof path, "/sys/class/vfio%s/dev", group);
        return read_device_number(path, ret);
}

static bool is_that_device(const struct stat *st, dev_t device)
{
        return S_ISCHR(st->st_mode) && st->st_rdev == device;
}

static int duplicate(const Search *search, int number)
{
        _cleanup_(closep) int fd = (int) syscall(SYS_pidfd_getfd, search->pidfd, number, 0);
        struct stat st;
        long r;

        if (fd < 0)
                return -errno;
        /* The number may have been given to another file meanwhile. A kernel without kcmp can't say. */
        if (fstat(fd, &st) < 0 || !is_that_device(&st, search->device))
                return -ESTALE;
        r = syscall(SYS_kcmp, getpid(), search->pid, KCMP_FILE, fd, number);
        if (r > 0 || (r < 0 && errno == EBADF))
                return -ESTALE;
        return TAKE_FD(fd);
}

/* Returns the duplicate. -ENOENT: none of its files is that device. */
static int find_file(const Search *search)
{
        struct dirent *entry;
        char path[32];
        int r = -ENOENT;
        DIR *dir;

        (void) snprintf(path, sizeof path, "/proc/%d/fd", (int) search->pid);
        dir = opendir(path);
        if (!dir)
                return -errno;
        for (int n = 0; r == -ENOENT && n < FILES_MAX && (entry = readdir(dir)); n++) {
                struct stat st;

                if (entry->d_name[0] == '.')
                        continue;
                if (fstatat(dirfd(dir), entry->d_name, &st, 0) < 0)
                        r = errno == EACCES || errno == EPERM ? -errno : -ENOENT;
                else if (is_that_device(&st, search->device))
                        r = duplicate(search, (int) strtol(entry->d_name, NULL, 10));
        }
        (void) closedir(dir);
        return r;
}

/* ---- the request ----------------------------------------------------------------------------------------------- */

static int check_answers(int fd)
{
        struct vfio_device_info info = {.argsz = sizeof info};

        return ioctl(fd, VFIO_DEVICE_GET_INFO, &info) < 0 ? -errno : 0;
}

/* By the device's own file, or else by its group's. */
static int find_device(Search *search, const char *sysfs, const char *name)
{
        _cleanup_(closep) int group = -1;
        int fd = cdev_number(sysfs, &search->device) < 0 ? -ENOENT : find_file(search);

        if (fd != -ENOENT)
                return fd;
        if (group_number(sysfs, &search->device) < 0)
                return -ENODEV;
        group = find_file(search);
        if (group < 0)
                return group;
        fd = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, name);
        return fd < 0 ? -errno : fd;
}

static int say_not_duplicated(Call *call, int status, const ProcessId *id, const char *name)
{
        switch (status) {
        case -EPERM:
        case -EACCES: return call_say_forbidden(call, status, id->pid, "its file cannot be duplicated");
        case -ENODEV: return call_say_of(call, status, "%s is no VFIO device of this host", name);
        case -ENOENT:
                return call_say_of(call, status, "process %d has no VFIO file of %s open", (int) id->pid,
                                   name);
        case -ESTALE:
                return call_say_of(call, status, "process %d has closed its file of %s", (int) id->pid, name);
        default:
                return call_say_of(call, status, "the file of %s in process %d: %s", name, (int) id->pid,
                                   strerror(-status));
        }
}

int call_duplicate(Call *call)
{
        const char *name = device_name(call->strings[3]);
        _cleanup_(closep) int pidfd = -1, fd = -1;
        ProcessId id;
        int r = call_process(call, &id);

        if (r < 0)
                return r;
        if (!name)
                return call_say(call, -EINVAL,
                                "that is no device below /sys/bus/pci/devices or /sys/bus/mdev/devices");
        pidfd = process_id_open(&id);
        if (pidfd < 0)
                return call_say(call, pidfd, "the process that has the device open has ended");
        fd = find_device(&(Search){.pid = id.pid, .pidfd = pidfd}, call->strings[3], name);
        if (fd < 0)
                return say_not_duplicated(call, fd, &id, name);
        r = check_answers(fd);
        if (r < 0)
                return say_not_duplicated(call, r, &id, name);
        call->fd = TAKE_FD(fd);
        return call_say_of(call, 0, "as process %d has it open", (int) id.pid);
}
