/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "stream.h"

#include <poll.h>
#include <sys/socket.h>

#include "common/crc32c.h"

/* The socket may have been made not to block; that is not ours to change. */
static int wait_for(int fd, short events)
{
        struct pollfd poller = {fd, events};

        return poll(&poller, 1, -1) < 0 && errno != EINTR ? -errno : 0;
}

int stream_send(int fd, const void *data, size_t n)
{
        const uint8_t *from = data;

        while (n > 0) {
                ssize_t sent = send(fd, from, n, MSG_NOSIGNAL);

                if (sent < 0 && errno != EINTR && errno != EAGAIN)
                        return errno == EPIPE ? -ECONNRESET : -errno;
                if (sent < 0 && errno == EAGAIN && wait_for(fd, POLLOUT) < 0)
                        return -EIO;
                if (sent > 0) {
                        from += sent;
                        n -= (size_t) sent;
                }
        }
        return 0;
}

int stream_receive(int fd, void *data, size_t n)
{
        uint8_t *to = data;

        while (n > 0) {
                ssize_t got = recv(fd, to, n, 0);

                if (got == 0)
                        return -ECONNRESET;
                if (got < 0 && errno != EINTR && errno != EAGAIN)
                        return -errno;
                if (got < 0 && errno == EAGAIN && wait_for(fd, POLLIN) < 0)
                        return -EIO;
                if (got > 0) {
                        to += got;
                        n -= (size_t) got;
                }
        }
        return 0;
}

int stream_send_record(int fd, StreamRecord *record, const void *payload, size_t n)
{
        int r;

        record->payload_sum = crc32c(payload, n);
        record->sum = 0;
        record->sum = crc32c(record, sizeof *record);
        r = stream_send(fd, record, sizeof *record);
        return r < 0 ? r : stream_send(fd, payload, n);
}

int stream_receive_record(int fd, StreamRecord *ret)
{
        StreamRecord record;
        uint32_t sum;
        int r = stream_receive(fd, &record, sizeof record);

        if (r < 0)
                return r;
        sum = record.sum;
        record.sum = 0;
        if (crc32c(&record, sizeof record) != sum)
                return -EBADMSG;
        *ret = record;
        return 0;
}

int stream_receive_payload(int fd, const StreamRecord *record, void *data, size_t n)
{
        int r = stream_receive(fd, data, n);

        if (r < 0)
                return r;
        return crc32c(data, n) == record->payload_sum ? 0 : -EBADMSG;
}

void stream_header(const Vm *vm, StreamHeader *ret)
{
        *ret = (StreamHeader){.magic = STREAM_MAGIC,
                              .page_bytes = RAM_PAGE,
                              .memory_bytes = vm->ram->size,
                              .n_devices = vm->n_devices};
        memcpy(ret->uuid, vm->config->uuid, strlen(vm->config->uuid));
}
