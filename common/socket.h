/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* UNIX sockets, as the processes of migmgr use them among themselves: paths, packets, files that travel with them. */

#include <sys/socket.h>
#include <sys/types.h>

#include "macros.h"

#define SOCKET_PATH_MAX 107 /* bytes, without the final NUL */
#define SOCKET_FDS_MAX  32  /* files with one packet */

/* Whether a path fits a UNIX socket's address. */
bool socket_path_fits(const char *path);

/* Listens on `path`, `type` SOCK_STREAM or SOCK_SEQPACKET, mode 0600. A socket file on which nobody listens any more is
 * replaced. Returns the descriptor (non-blocking, close-on-exec); -EADDRINUSE when somebody does listen, or the file is
 * none of a socket; -ENAMETOOLONG. */
int socket_listen(const char *path, int type) _must_check_;

/* Connects without waiting. Returns the descriptor (non-blocking, close-on-exec). -EAGAIN: the listener's queue is
 * full. */
int socket_connect(const char *path, int type) _must_check_;

/* Sends one packet and up to SOCKET_FDS_MAX files. The files stay the caller's. */
int socket_send(int fd, const void *packet, size_t size, const int *fds, size_t n_fds) _must_check_;

/* Takes one packet of at most `max` bytes. Returns its size, 0 at the end of the connection. Files go to `ret_fds`, the
 * caller's to close; more of them than `max_fds` are closed. -EMSGSIZE: the packet was larger. */
ssize_t socket_recv(int fd, void *packet, size_t max, int *ret_fds, size_t max_fds,
                    size_t *ret_n_fds) _must_check_;

/* The files of a message for sendmsg(), at least one. `control` must have room for them, CMSG_SPACE() of as many, be zero and
 * aligned as a struct cmsghdr is, and live as long as the message. */
void socket_put_fds(struct msghdr *msg, void *control, const int *fds, size_t n_fds);

/* The files of a message that recvmsg() has filled in: the first `max` go to `ret_fds`, the caller's to close, the others are
 * closed. Returns how many came. */
size_t socket_take_fds(struct msghdr *msg, int *ret_fds, size_t max);

/* Who listens at, or connected from, the other end. */
int socket_peer(int fd, pid_t *ret_pid, uid_t *ret_uid) _must_check_;

/* The path at which the other end listens, of a socket that was connected to one. -ENOTCONN: it is none. */
int socket_peer_path(int fd, char ret[SOCKET_PATH_MAX + 1]) _must_check_;

/* Asks for a send buffer of so many bytes; beyond the administrator's limit only with privilege. Returns what there is, as
 * the kernel counts it (its own bookkeeping included), or 0 when it can't be told. */
size_t socket_grow_send_buffer(int fd, size_t size);
