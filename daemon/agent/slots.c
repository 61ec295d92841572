/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "slots.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW)

static int map(int fd, int protection, int flags, uint8_t **ret)
{
        void *slots = mmap(NULL, SLOTS_SIZE, protection, flags, fd, 0);

        if (slots == MAP_FAILED)
                return -errno;
        *ret = slots;
        return 0;
}

int slots_new(uint8_t **ret)
{
        return map(-1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, ret);
}

int slots_new_file(uint8_t **ret, int *ret_fd)
{
        _cleanup_(closep) int fd = memfd_create("slots", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        int r;

        if (fd < 0 || ftruncate(fd, (off_t) SLOTS_SIZE) < 0 ||
            fcntl(fd, F_ADD_SEALS, SEALS | F_SEAL_SEAL) < 0)
                return -errno;
        r = map(fd, PROT_READ | PROT_WRITE, MAP_SHARED, ret);
        if (r < 0)
                return r;
        *ret_fd = TAKE_FD(fd);
        return 0;
}

/* Of memory without these seals, or in huge pages of which there may be none left, a part could be missing: SIGBUS. */
static bool stays_whole(int fd)
{
        int seals = fcntl(fd, F_GET_SEALS);
        struct statfs fs;
        struct stat st;

        return seals >= 0 && (seals & SEALS) == SEALS && fstatfs(fd, &fs) == 0 && fs.f_type == TMPFS_MAGIC &&
               fstat(fd, &st) == 0 && (uint64_t) st.st_size == SLOTS_SIZE;
}

int slots_map_file(int fd, const uint8_t **ret)
{
        uint8_t *slots = NULL;
        int r;

        if (!stays_whole(fd))
                return -EINVAL;
        r = map(fd, PROT_READ, MAP_SHARED, &slots);
        if (r >= 0)
                *ret = slots;
        return r;
}

void slots_free(const uint8_t *slots)
{
        if (slots)
                (void) munmap((void *) slots, SLOTS_SIZE);
}
