/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Packets to migmgr-helper, read and carried out by its own code, but for the last step: no process is started, nothing is
 * connected to, no file but the log of a VMM is made. An input is one packet behind its magic number, which every fuzzer
 * would have to find first. Each request is answered, in bounds. */

#include <sys/socket.h>
#include <sys/uio.h>

#include "common/socket.h"
#include "daemon/helper/call.h"
#include "daemon/helper/child.h"
#include "daemon/helper/starter.h"
#include "fuzz.h"
#include "rig.h"

/* ---- what the requests would do -------------------------------------------------------------------------------- */

int starter_start(const Start *start, pid_t *ret_pid, int *ret_socket, const char **ret_text)
{
        size_t n = 0;
        int pair[2];

        while (start->argv[n])
                n++;
        MUST(n > 0 && n < HELPER_STRINGS_MAX + 8 && strlen(start->scope) < 128);
        MUST(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
        (void) close(pair[1]);
        *ret_pid = 2;
        *ret_socket = pair[0];
        return 0;
}

int child_run(ChildRun run, const char *argument, uint64_t usec, ChildWork *work)
{
        return strlen(argument) % 2 ? 0 : -ENODEV;
}

int __wrap_socket_connect(const char *path, int type);
int __wrap_socket_connect(const char *path, int type)
{
        return -ECONNREFUSED;
}

int __wrap_socket_listen(const char *path, int type);
int __wrap_socket_listen(const char *path, int type)
{
        return -EADDRINUSE;
}

/* ---- the requests ------------------------------------------------------------------------------------------------ */

static void forget_log(const HelperPacket *request)
{
        char path[256];

        (void) snprintf(path, sizeof path, "%s/vmm-%.40s.log", rig_dir(), request->text);
        (void) unlink(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static HelperPacket request, answer;
        const HelperPlace place = {"/bin/true", rig_dir()};
        uint32_t magic = HELPER_MAGIC;
        struct iovec iov[2] = {{&magic, sizeof magic}, {(void *) data, size}};
        int fds[2], fd = -1, r;

        if (size > HELPER_PACKET_MAX)
                return 0;
        MUST(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
        MUST(writev(fds[0], iov, 2) == (ssize_t) (sizeof magic + size));
        r = helper_packet_recv(fds[1], &request, &fd);
        MUST(r == 1 || r == -EBADMSG || r == -EMSGSIZE);
        if (r == 1) {
                helper_answer(&place, &request, &answer, &fd);
                MUST(answer.head.status <= 0 && answer.head.n_strings <= 1 &&
                     answer.head.id == request.head.id);
                MUST(answer.head.status == 0 || fd < 0);
                MUST(helper_packet_send(fds[1], &answer, fd) == 0);
                if (request.head.request == HELPER_START_VMM)
                        forget_log(&request);
        }
        if (fd >= 0)
                (void) close(fd);
        for (int i = 0; i < 2; i++)
                (void) close(fds[i]);
        return 0;
}
