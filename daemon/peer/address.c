/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "address.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/socket.h"

#define UNIX_PREFIX "unix:"
#define TCP_PREFIX  "tcp://"
#define TLS_PREFIX  "tls://"
/* All devices of a VM dial at once. Over TCP a full queue is not told: who finds it so waits a second for the next try. */
#define TCP_BACKLOG 1024

typedef union TcpAddress {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
} TcpAddress;

static bool begins_with(const char *text, const char *prefix)
{
        return strncmp(text, prefix, strlen(prefix)) == 0;
}

static int read_port(const char *text, in_port_t *ret)
{
        size_t n = strspn(text, "0123456789");
        unsigned long port;

        if (n == 0 || n > 5 || text[n] != 0)
                return -EINVAL;
        port = strtoul(text, NULL, 10);
        if (port == 0 || port > UINT16_MAX)
                return -EINVAL;
        *ret = htons((uint16_t) port);
        return 0;
}

/* A literal address, of either family; no name, which somebody would have to look up. */
static int read_tcp(const char *text, TcpAddress *ret, socklen_t *ret_size)
{
        const char *host = text + strlen(TCP_PREFIX), *port = strrchr(host, ':');
        char copy[INET6_ADDRSTRLEN];
        TcpAddress address = {};
        size_t n = port ? (size_t) (port - host) : 0;
        bool v6 = n > 2 && host[0] == '[' && host[n - 1] == ']';

        if (v6) {
                host++;
                n -= 2;
        }
        if (n == 0 || n >= sizeof copy)
                return -EINVAL;
        (void) snprintf(copy, sizeof copy, "%.*s", (int) n, host);
        address.any.sa_family = v6 ? AF_INET6 : AF_INET;
        if (inet_pton(address.any.sa_family, copy,
                      v6 ? (void *) &address.v6.sin6_addr : (void *) &address.v4.sin_addr) != 1)
                return -EINVAL;
        if (read_port(port + 1, v6 ? &address.v6.sin6_port : &address.v4.sin_port) < 0)
                return -EINVAL;
        *ret = address;
        *ret_size = v6 ? sizeof address.v6 : sizeof address.v4;
        return 0;
}

static bool is_loopback(const TcpAddress *address)
{
        if (address->any.sa_family == AF_INET6)
                return IN6_IS_ADDR_LOOPBACK(&address->v6.sin6_addr);
        return ntohl(address->v4.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
}

static int check_tcp(const char *text, const char **ret_error)
{
        TcpAddress address;
        socklen_t size;

        if (strlen(text) > ADDRESS_MAX || read_tcp(text, &address, &size) < 0) {
                *ret_error = "a TCP destination is tcp://127.0.0.1:port or tcp://[::1]:port";
                return -EINVAL;
        }
        if (!is_loopback(&address)) {
                *ret_error =
                        "TCP without TLS is for tests on one machine, 127.0.0.0/8 and [::1]: between hosts TLS is "
                        "needed, and it is not there yet";
                return -EINVAL;
        }
        return 0;
}

/* It is shown to people, as it is. */
static bool is_printable(const char *text)
{
        while (*text >= ' ' && *text <= '~')
                text++;
        return *text == 0;
}

int address_check(const char *text, const char **ret_error)
{
        if (!is_printable(text)) {
                *ret_error = "a destination has printable ASCII characters only";
                return -EINVAL;
        }
        if (begins_with(text, TCP_PREFIX))
                return check_tcp(text, ret_error);
        if (begins_with(text, TLS_PREFIX)) {
                *ret_error = "TLS is not there yet: a destination is on this machine, unix:/path";
                return -EINVAL;
        }
        if (!begins_with(text, UNIX_PREFIX)) {
                *ret_error = "a destination is unix:/path, the peer.sock of the other migmgrd";
                return -EINVAL;
        }
        if (strlen(text) > ADDRESS_MAX || !socket_path_fits(text + strlen(UNIX_PREFIX))) {
                *ret_error = "the path of a destination is absolute and has at most 107 bytes";
                return -EINVAL;
        }
        return 0;
}

/* Small messages go back and forth in the blackout: none may wait for another one's acknowledgement. */
static int tcp_socket(const TcpAddress *address)
{
        _cleanup_(closep) int fd =
                socket(address->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP);
        int on = 1;

        if (fd < 0 || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0)
                return -errno;
        return TAKE_FD(fd);
}

static int tcp_connect(const char *text)
{
        _cleanup_(closep) int fd = -1;
        TcpAddress address;
        socklen_t size;
        int r = read_tcp(text, &address, &size);

        if (r < 0)
                return r;
        fd = tcp_socket(&address);
        if (fd < 0)
                return fd;
        if (connect(fd, &address.any, size) < 0 && errno != EINPROGRESS)
                return -errno;
        return TAKE_FD(fd);
}

/* What it accepts has no delay either: Linux hands that on. */
static int tcp_listen(const char *text)
{
        _cleanup_(closep) int fd = -1;
        TcpAddress address;
        socklen_t size;
        int r = read_tcp(text, &address, &size), on = 1;

        if (r < 0)
                return r;
        fd = tcp_socket(&address);
        if (fd < 0)
                return fd;
        /* Connections of a migmgrd before us may still linger. */
        if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
            bind(fd, &address.any, size) < 0 || listen(fd, TCP_BACKLOG) < 0)
                return -errno;
        return TAKE_FD(fd);
}

int address_connect(const char *text)
{
        return begins_with(text, TCP_PREFIX) ? tcp_connect(text)
                                             : socket_connect(text + strlen(UNIX_PREFIX), SOCK_STREAM);
}

int address_listen(const char *text)
{
        return begins_with(text, TCP_PREFIX) ? tcp_listen(text)
                                             : socket_listen(text + strlen(UNIX_PREFIX), SOCK_STREAM);
}
