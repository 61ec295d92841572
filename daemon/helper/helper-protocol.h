/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Between migmgrd and migmgr-helper: the closed list of what the daemon can't do itself.
 *
 * One SOCK_SEQPACKET packet asks, one answers, in order, on `<runtime>/helper.sock`. A packet is a fixed head and a
 * list of strings, each with its final NUL: nothing to parse, nothing to allocate before its size is known.
 */

#include "common/macros.h"

#define HELPER_MAGIC       0x3248474du /* "MGH2": what is started waits for a word */
#define HELPER_PACKET_MAX  65536
#define HELPER_STRINGS_MAX 512

/* Of HELPER_HOLD and HELPER_HOLD_VCPUS. */
#define HELPER_HOLD_STANDS 0
#define HELPER_HOLD_ENDED  1
#define HELPER_HOLD_KILL   2

typedef enum HelperRequest {
        /* path -> a connection to the device's server. -EAGAIN: another client is waiting there already. */
        HELPER_CONNECT_DEVICE = 1,
        /* socket path, name -> pid, and a socket, as below: an agent that listens there. */
        HELPER_START_AGENT,
        /* VM's uuid, monitor path, argv ... -> pid of a process that is to become a VMM, paused, waiting for its incoming
         * migration; and a socket. One byte sent there has it begin. The end of the socket says that it has, or has ended;
         * a packet before that, a negative errno as an int32_t, why it can't be executed. Closed without that byte the
         * process ends: no VMM begins that nobody knows, whoever dies meanwhile, the helper or who asked. */
        HELPER_START_VMM,
        /* pid, start time, boot id -> nothing: that process is killed, if it is still the same. */
        HELPER_KILL,
        /* path, path of the device server's socket -> a socket that listens at the first, for a VMM, with the second's owner
         * and mode. -EADDRINUSE: somebody listens there already. */
        HELPER_LISTEN,
        /* directory of a kernel VFIO device in sysfs -> its open file; the text says what it is. -EBUSY: somebody has it. */
        HELPER_OPEN_VFIO,
        /* directory of a PCI function in sysfs -> the text: the method by which it was reset. -EOPNOTSUPP: it has none. */
        HELPER_RESET_FUNCTION,
        /* pid, start time, boot id, device's directory below /sys/bus/{pci,mdev}/devices -> a duplicate of the file of that
         * VFIO device which that process has open. -ENOENT: it has none; -EPERM, -EACCES: the text says what forbids it. */
        HELPER_DUPLICATE,
        /* pid, start time, boot id -> a socket: one packet of one byte, HELPER_HOLD_STANDS, says that the migration thread of that QEMU
         * stands, a longer one why not. It goes on when the socket is closed, or after two seconds. */
        HELPER_HOLD,
        /* VM's uuid -> what a VMM that was started with HELPER_START_VMM has written, to read; also by earlier ones of the
         * same VM. */
        HELPER_VMM_LOG,
        /* pid, start time, boot id, "kvm" or "still", ids of threads of that process, one or more ... -> a socket, as above: none
         * of these threads executes anything of a guest, for at most a minute. "still": they stand. "kvm": they go on, but
         * for KVM_RUN, in which the guest is; QEMU has to do something with each before it starts. One byte sent there,
         * HELPER_HOLD_KILL, kills the process; one received, HELPER_HOLD_ENDED, says that these threads have ended, by that or
         * otherwise, and that this was so to their end. The end of the socket without it: they go on. */
        HELPER_HOLD_VCPUS,
        HELPER_REQUEST_MAX,
} HelperRequest;

typedef struct HelperHead {
        uint32_t magic;
        uint32_t request;   /* HelperRequest, repeated in the answer */
        uint32_t id;        /* the asker's, repeated in the answer */
        int32_t status;     /* answer: 0 or a negative errno */
        int64_t pid;        /* answer */
        uint32_t n_strings; /* answer: one, what went wrong, or none */
        uint32_t reserved;
} HelperHead;

typedef struct HelperPacket {
        HelperHead head;
        char text[HELPER_PACKET_MAX - sizeof(HelperHead)];
        size_t n_text;
} HelperPacket;

/* Appends a string. -E2BIG. */
int helper_packet_add(HelperPacket *packet, const char *string) _must_check_;

/* `fd` -1: no file. */
int helper_packet_send(int socket, HelperPacket *packet, int fd) _must_check_;

/* Returns 1, 0 at the end of the connection; -EBADMSG when it is not such a packet. At most one file (-1: none). */
int helper_packet_recv(int socket, HelperPacket *packet, int *ret_fd) _must_check_;

/* Points `ret` at the packet's strings. Their number is the head's n_strings. */
void helper_packet_strings(const HelperPacket *packet, const char *ret[HELPER_STRINGS_MAX]);
