/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "listen.h"

#include <assert.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static_assert(sizeof(((struct sockaddr_un *) NULL)->sun_path) == LISTEN_PATH_MAX + 1,
              "path of a UNIX socket");

/* A server that was killed leaves its path behind. Whether somebody listens there only connect() can tell; ECONNREFUSED
 * is said of other files too, and those are not ours to remove. */
static int remove_stale(const struct sockaddr_un *address)
{
        _cleanup_(closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        struct stat st;

        if (fd < 0 || lstat(address->sun_path, &st) < 0)
                return -errno;
        if (!S_ISSOCK(st.st_mode))
                return -EADDRINUSE;
        if (connect(fd, (const struct sockaddr *) address, sizeof *address) == 0 || errno != ECONNREFUSED)
                return -EADDRINUSE;
        return unlink(address->sun_path) < 0 ? -errno : 0;
}

static int bind_path(int fd, const char *path)
{
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        int r;

        if (strlen(path) > LISTEN_PATH_MAX)
                return -ENAMETOOLONG;
        strcpy(address.sun_path, path);
        if (bind(fd, (struct sockaddr *) &address, sizeof address) == 0)
                return 0;
        if (errno != EADDRINUSE)
                return -errno;
        r = remove_stale(&address);
        if (r < 0)
                return r;
        return bind(fd, (struct sockaddr *) &address, sizeof address) < 0 ? -errno : 0;
}

int listen_on(const char *path, int backlog)
{
        _cleanup_(closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        int r;

        if (fd < 0)
                return -errno;
        r = bind_path(fd, path);
        if (r < 0)
                return r;
        if (listen(fd, backlog) < 0) {
                r = -errno;
                (void) unlink(path);
                return r;
        }
        return TAKE_FD(fd);
}
