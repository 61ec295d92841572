/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "socket.h"

#include <sys/stat.h>
#include <sys/un.h>

bool socket_path_fits(const char *path)
{
        return path[0] == '/' && strlen(path) <= SOCKET_PATH_MAX;
}

static int address(const char *path, struct sockaddr_un *ret)
{
        if (!socket_path_fits(path))
                return -ENAMETOOLONG;
        *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
        memcpy(ret->sun_path, path, strlen(path) + 1);
        return 0;
}

int socket_connect(const char *path, int type)
{
        _cleanup_(closep) int fd = -1;
        struct sockaddr_un sa;
        int r = address(path, &sa);

        if (r < 0)
                return r;
        fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return -errno;
        if (connect(fd, (struct sockaddr *) &sa, sizeof sa) < 0)
                return -errno;
        return TAKE_FD(fd);
}

/* A socket file on which nobody listens. Connecting to any other file is refused, too. */
static bool is_stale(const char *path, int type)
{
        _cleanup_(closep) int fd = -1;
        struct stat st;

        if (lstat(path, &st) < 0 || !S_ISSOCK(st.st_mode))
                return false;
        fd = socket_connect(path, type);
        return fd == -ECONNREFUSED;
}

int socket_listen(const char *path, int type)
{
        _cleanup_(closep) int fd = -1;
        struct sockaddr_un sa;
        int r = address(path, &sa);

        if (r < 0)
                return r;
        fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return -errno;
        /* Before there is a name: that could be somebody else's a moment later. */
        if (fchmod(fd, 0600) < 0)
                return -errno;
        if (bind(fd, (struct sockaddr *) &sa, sizeof sa) < 0) {
                if (errno != EADDRINUSE)
                        return -errno;
                if (!is_stale(path, type))
                        return -EADDRINUSE;
                (void) unlink(path);
                if (bind(fd, (struct sockaddr *) &sa, sizeof sa) < 0)
                        return -errno;
        }
        if (listen(fd, 64) < 0) {
                r = -errno;
                (void) unlink(path);
                return r;
        }
        return TAKE_FD(fd);
}

void socket_put_fds(struct msghdr *msg, void *control, const int *fds, size_t n_fds)
{
        struct cmsghdr *c;

        msg->msg_control = control;
        msg->msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
        c = CMSG_FIRSTHDR(msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
        memcpy(CMSG_DATA(c), fds, sizeof(int) * n_fds);
}

int socket_send(int fd, const void *packet, size_t size, const int *fds, size_t n_fds)
{
        union {
                struct cmsghdr align;
                char space[CMSG_SPACE(sizeof(int) * SOCKET_FDS_MAX)];
        } control = {};
        struct iovec iov = {(void *) packet, size};
        struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
        ssize_t n;

        if (n_fds > SOCKET_FDS_MAX)
                return -E2BIG;
        if (n_fds > 0)
                socket_put_fds(&msg, control.space, fds, n_fds);
        do
                n = sendmsg(fd, &msg, MSG_NOSIGNAL);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return -errno;
        return (size_t) n == size ? 0 : -EIO;
}

size_t socket_take_fds(struct msghdr *msg, int *ret_fds, size_t max)
{
        size_t n_came = 0;

        for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
                size_t n;

                if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
                        continue;
                n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
                for (size_t i = 0; i < n; i++) {
                        int fd;

                        memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof fd);
                        if (n_came < max)
                                ret_fds[n_came] = fd;
                        else
                                (void) close(fd);
                        n_came++;
                }
        }
        return n_came;
}

ssize_t socket_recv(int fd, void *packet, size_t max, int *ret_fds, size_t max_fds, size_t *ret_n_fds)
{
        union {
                struct cmsghdr align;
                char space[CMSG_SPACE(sizeof(int) * 253)]; /* the most that Linux passes at once */
        } control;
        struct iovec iov = {packet, max};
        struct msghdr msg = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control.space,
                             .msg_controllen = sizeof control};
        ssize_t n;
        size_t n_fds;

        do
                n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return -errno;
        n_fds = MIN(socket_take_fds(&msg, ret_fds, max_fds), max_fds);
        if (msg.msg_flags & MSG_TRUNC) {
                for (size_t i = 0; i < n_fds; i++)
                        (void) close(ret_fds[i]);
                return -EMSGSIZE;
        }
        if (ret_n_fds)
                *ret_n_fds = n_fds;
        return n;
}

int socket_peer(int fd, pid_t *ret_pid, uid_t *ret_uid)
{
        struct ucred cred;
        socklen_t size = sizeof cred;

        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &size) < 0)
                return -errno;
        *ret_pid = cred.pid;
        *ret_uid = cred.uid;
        return 0;
}

int socket_peer_path(int fd, char ret[SOCKET_PATH_MAX + 1])
{
        struct sockaddr_un sa = {};
        socklen_t size = sizeof sa;

        if (getpeername(fd, (struct sockaddr *) &sa, &size) < 0)
                return -errno;
        if (sa.sun_family != AF_UNIX || sa.sun_path[0] != '/' || size > sizeof sa)
                return -ENOTCONN;
        memcpy(ret, sa.sun_path, SOCKET_PATH_MAX);
        ret[SOCKET_PATH_MAX] = 0;
        return 0;
}

size_t socket_grow_send_buffer(int fd, size_t size)
{
        int value = (int) size;
        socklen_t len = sizeof value;

        if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &value, sizeof value) < 0)
                (void) setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &value, sizeof value);
        return getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &value, &len) < 0 ? 0 : (size_t) value;
}
