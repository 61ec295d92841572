/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "address.h"

#include "common/socket.h"

#define UNIX_PREFIX "unix:"

int address_check(const char *text, const char **ret_error)
{
        if (strncmp(text, UNIX_PREFIX, strlen(UNIX_PREFIX)) != 0) {
                *ret_error = "a destination is unix:/path, the peer.sock of the other migmgrd";
                return -EINVAL;
        }
        if (strlen(text) > ADDRESS_MAX || !socket_path_fits(text + strlen(UNIX_PREFIX))) {
                *ret_error = "the path of a destination is absolute and has at most 107 bytes";
                return -EINVAL;
        }
        return 0;
}

int address_connect(const char *text)
{
        return socket_connect(text + strlen(UNIX_PREFIX), SOCK_STREAM);
}
