/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What two VMMs say to each other over the connection for memory. It is their own affair: migmgr hands out the
 * connection and looks at nothing.
 *
 * A StreamHeader, then records, each followed by what it announces; one of STREAM_END is the last. A page may come any
 * number of times, and the last one counts. Who reads takes exactly what is announced, nothing behind the end: the
 * connection is not ours alone. Both have the same byte order.
 */

#include <assert.h>

#include "vm.h"

#define STREAM_MAGIC     UINT64_C(0x31304d4d5647494d) /* "MIGVMM01" */
#define STREAM_PAGES_MAX 256                          /* in one record */

typedef struct StreamHeader {
        uint64_t magic, page_bytes, memory_bytes, n_devices;
        char uuid[40]; /* of the VM, with zeros behind */
} StreamHeader;
static_assert(sizeof(StreamHeader) == 72, "header of the stream");

typedef enum StreamType {
        STREAM_PAGES = 1,   /* `count` pages of memory from page `page` on */
        STREAM_ZEROES = 2,  /* `count` such pages that are all zero; nothing follows */
        STREAM_DEVICES = 3, /* a StreamDevice for each device, in order; `count` of them */
        STREAM_END = 4,     /* `page`: how many pages came in all records */
} StreamType;

typedef struct StreamRecord {
        uint32_t type, count;
        uint64_t page;
        uint32_t payload_sum; /* CRC-32C */
        uint32_t sum;         /* of the record with 0 here */
} StreamRecord;
static_assert(sizeof(StreamRecord) == 24, "record of the stream");

/* What the VMM has of a device. Its state is not in here: who moves devices brings that. */
typedef struct StreamDevice {
        char id[DEVICE_ID_MAX + 1];
        uint64_t interrupts[DEVICE_VECTORS_MAX]; /* that the guest has not taken */
} StreamDevice;
static_assert(sizeof(StreamDevice) == 80, "device in the stream");

/* All that goes out or comes in, over a socket. Negative errno; -ECONNRESET: the other end, or migmgr, has closed it. */
int stream_send(int fd, const void *data, size_t n) _must_check_;
int stream_receive(int fd, void *data, size_t n) _must_check_;

/* Completes the record with both sums, and sends it with its payload. */
int stream_send_record(int fd, StreamRecord *record, const void *payload, size_t n) _must_check_;

/* A record without its payload. -EBADMSG. */
int stream_receive_record(int fd, StreamRecord *ret) _must_check_;

/* Its payload. -EBADMSG: it is damaged. */
int stream_receive_payload(int fd, const StreamRecord *record, void *data, size_t n) _must_check_;

/* What the stream of this VM begins with. */
void stream_header(const Vm *vm, StreamHeader *ret);
