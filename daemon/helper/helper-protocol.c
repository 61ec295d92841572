/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper-protocol.h"

#include "common/socket.h"

int helper_packet_add(HelperPacket *packet, const char *string)
{
        size_t size = strlen(string) + 1;

        if (size > sizeof packet->text - packet->n_text || packet->head.n_strings == HELPER_STRINGS_MAX)
                return -E2BIG;
        memcpy(packet->text + packet->n_text, string, size);
        packet->n_text += size;
        packet->head.n_strings++;
        return 0;
}

int helper_packet_send(int socket, HelperPacket *packet, int fd)
{
        packet->head.magic = HELPER_MAGIC;
        return socket_send(socket, packet, sizeof packet->head + packet->n_text, &fd, fd >= 0 ? 1 : 0);
}

static bool strings_are_whole(const HelperPacket *packet)
{
        uint32_t n = 0;

        for (size_t i = 0; i < packet->n_text; i++)
                n += packet->text[i] == 0;
        return n == packet->head.n_strings && n <= HELPER_STRINGS_MAX &&
               (packet->n_text == 0 || packet->text[packet->n_text - 1] == 0);
}

int helper_packet_recv(int socket, HelperPacket *packet, int *ret_fd)
{
        _cleanup_(closep) int fd = -1;
        size_t n_fds = 0;
        ssize_t n = socket_recv(socket, packet, HELPER_PACKET_MAX, &fd, 1, &n_fds);

        if (n < 0)
                return (int) n;
        if (n == 0)
                return 0;
        if ((size_t) n < sizeof packet->head || packet->head.magic != HELPER_MAGIC ||
            packet->head.request == 0 || packet->head.request >= HELPER_REQUEST_MAX)
                return -EBADMSG;
        packet->n_text = (size_t) n - sizeof packet->head;
        if (!strings_are_whole(packet))
                return -EBADMSG;
        *ret_fd = TAKE_FD(fd);
        return 1;
}

void helper_packet_strings(const HelperPacket *packet, const char *ret[HELPER_STRINGS_MAX])
{
        const char *p = packet->text;

        for (uint32_t i = 0; i < packet->head.n_strings; i++) {
                ret[i] = p;
                p += strlen(p) + 1;
        }
}
