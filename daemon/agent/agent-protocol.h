/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Between migmgrd (the commander) and an agent: packets on a SOCK_SEQPACKET socket, both on one host, of one version.
 *
 * The agent listens. A new commander displaces the old one and is greeted with HELLO, which says all that a daemon
 * which has just started must know. One that has the connection of a daemon before it asks for that with GREET; what came
 * before the answer was for that other daemon. A commander sends OPEN (with the connected socket of the device's server, or the file
 * of a kernel VFIO device), ATTACH
 * (with a data connection), RUN and STOP; OPEN and RUN are answered by one RESULT each, in order. A RUN that comes while
 * another runs waits for it. Between them PROGRESS, DIRTY, FILES and GONE may come at any time. What a device is, HELLO says, and IDENTITY
 * right before the RESULT of the OPEN that has opened it. An agent whose device a VMM uses
 * is told so with BROKER, before OPEN; it then says WANTED when that VMM waits and there is no connection to the device.
 *
 * Structs are sent as they are; agent-protocol.c checks those that arrive, because neither side trusts the other.
 */

#include <assert.h>

#include "common/socket.h"
#include "common/uuid.h"
#include "daemon/core/device-identity.h"
#include "daemon/core/device-memory.h"
#include "daemon/core/device-program.h"
#include "daemon/core/transfer-limits.h"

#define AGENT_MAGIC      0x3147414du /* "MAG1" */
#define AGENT_PACKET_MAX 1024
#define AGENT_TEXT_MAX   256
#define AGENT_KEY_MAX    16 /* hex digits: the agent's name in the runtime directory */
#define AGENT_QUEUE_MAX  4  /* commands that may wait */

/* Files of device memory in one packet: as many as a device has regions, and more. */
#define AGENT_FILES_MAX 32

/* As many as one answer to DMA_LOGGING_REPORT can tell of. */
#define AGENT_DIRTY_PAGES_MAX (8 * UINT64_C(1024) * 1024)

typedef enum AgentPacketType {
        /* commander to agent */
        AGENT_OPEN = 1,
        AGENT_ATTACH,
        AGENT_RUN,
        AGENT_STOP,
        /* agent to commander */
        AGENT_HELLO,
        AGENT_RESULT,
        AGENT_PROGRESS,
        AGENT_GONE,
        /* commander to agent */
        AGENT_BROKER,
        /* agent to commander */
        AGENT_WANTED,
        AGENT_DIRTY,
        AGENT_IDENTITY,
        /* both ways */
        AGENT_FILES,
        /* commander to agent */
        AGENT_GREET,
} AgentPacketType;

typedef struct AgentHead {
        uint32_t magic;
        uint32_t type;
} AgentHead;

/* Take this connection to the device's server, or this file of a kernel VFIO device (one file either way), negotiate, read
 * flags and state. */
typedef struct AgentOpen {
        AgentHead head;
        uint32_t seq;
        uint8_t kernel;     /* it is a kernel VFIO device's */
        uint8_t supervised; /* ... that its VMM has, too, and drives */
        uint8_t reserved[2];
        uint64_t deadline_usec;
        uint32_t n_memory; /* kernel: what its VMM has mapped for it, as far as is known */
        uint32_t reserved2;
        DeviceMemory memory[DEVICE_MEMORY_MAX];
} AgentOpen;

/* Take this data connection (one file) for all that `job` sends or loads. */
typedef struct AgentAttach {
        AgentHead head;
        char job[UUID_TEXT_MAX + 1];
        uint8_t reserved[3];
} AgentAttach;

typedef struct AgentOp {
        uint8_t type; /* DeviceOpType */
        uint8_t from, to;
        uint8_t reserved;
} AgentOp;

/* Perform the operations in order. */
typedef struct AgentRun {
        AgentHead head;
        uint32_t seq;
        uint32_t n_ops;
        uint64_t deadline_usec; /* for all of them, from now; 0: as long as it takes */
        TransferLimits limits;
        char job[UUID_TEXT_MAX + 1];
        uint8_t reserved[3];
        AgentOp ops[DEVICE_PROGRAM_MAX];
} AgentRun;

/* What runs now is of no more use: end it at the next point where the device is not in the middle of something. */
typedef struct AgentStop {
        AgentHead head;
} AgentStop;

/* Say HELLO, as if this connection were a new one. */
typedef struct AgentGreet {
        AgentHead head;
        uint64_t greeting; /* not 0, and none that a daemon before has used */
} AgentGreet;

/* Where the agent is: the answer to being connected to, and to GREET. */
typedef struct AgentHelloPacket {
        AgentHead head;
        char job[UUID_TEXT_MAX + 1]; /* of the last RUN; empty before the first */
        uint8_t opened;              /* there is a connection to the device */
        uint8_t busy;                /* a command runs or waits: no decision yet */
        uint8_t loaded; /* this job's state was taken in whole and accepted, and the device has not run since */
        uint8_t broker; /* it has been given a socket for the VMM */
        uint8_t reserved[3];
        uint32_t flags;          /* DEVICE_FLAGS_MASK */
        uint32_t state;          /* DeviceState, as last read */
        uint32_t last_seq;       /* number of the last command that ended, */
        int32_t last_status;     /* and how */
        uint64_t offset;         /* bytes of the last stream */
        uint64_t greeting;       /* which GREET this answers; 0: a new connection */
        DeviceIdentity identity; /* of the device, if opened */
} AgentHelloPacket;

/* The end of an OPEN or RUN. */
typedef struct AgentResultPacket {
        AgentHead head;
        uint32_t seq;
        int32_t status; /* 0 or a negative errno. -ECANCELED: stopped */
        uint32_t op;    /* index of the operation that failed, or their number */
        uint32_t flags; /* DEVICE_FLAGS_MASK */
        uint32_t from, to;
        uint32_t state; /* read back after the last operation; UNKNOWN when that failed too */
        uint32_t was_reset;
        uint64_t bytes;                          /* of what it sent or loaded */
        uint64_t start_usec[DEVICE_PROGRAM_MAX]; /* CLOCK_MONOTONIC, of each operation that was begun */
        uint64_t end_usec[DEVICE_PROGRAM_MAX];
        char text[AGENT_TEXT_MAX]; /* what went wrong, for people */
} AgentResultPacket;

/* How far a stream has come: at most ten a second. */
typedef struct AgentProgress {
        AgentHead head;
        uint32_t seq;
        uint32_t reserved;
        uint64_t bytes;
} AgentProgress;

/* The device's server is gone, or its connection had to be given up. */
typedef struct AgentGone {
        AgentHead head;
        int32_t status;
        uint32_t reserved;
        char text[AGENT_TEXT_MAX];
} AgentGone;

/* Pages of the VM's memory that the device has written, before the RESULT of a RUN with DEVICE_OP_DIRTY: one for each
 * mapping with such pages, with a file of little-endian u64 words: bit i is the page at address + i * page_size. */
typedef struct AgentDirty {
        AgentHead head;
        uint64_t address; /* as the VMM mapped it */
        uint64_t page_size;
        uint64_t n_pages;
} AgentDirty;

/* What the device that is open says of itself. */
typedef struct AgentIdentity {
        AgentHead head;
        DeviceIdentity identity;
} AgentIdentity;

/* Listen for the VMM on this socket (one file), whose path is `path`. One that it has already stays. */
typedef struct AgentBroker {
        AgentHead head;
        char path[SOCKET_PATH_MAX + 1];
} AgentBroker;

/* The VMM waits, and there is no connection to the device. Said again for as long as that is so. */
typedef struct AgentWanted {
        AgentHead head;
} AgentWanted;

typedef struct AgentFile {
        uint64_t dev, ino;
} AgentFile;

/* Files that are memory of devices: their VMM may have mapped them, and given them to other devices to write to. An agent says,
 * before a RESULT, which are its device's, all of them each time. A commander says before a RUN with DEVICE_OP_LOG_START which
 * are those of the VM's other devices: what is written there is no memory of the VM. */
typedef struct AgentFiles {
        AgentHead head;
        uint32_t first; /* 1: those that were said before count no more */
        uint32_t n;
        AgentFile files[AGENT_FILES_MAX];
} AgentFiles;

static_assert(sizeof(AgentResultPacket) <= AGENT_PACKET_MAX, "the largest packet fits");

typedef union AgentPacket {
        AgentHead head;
        AgentOpen open;
        AgentAttach attach;
        AgentRun run;
        AgentStop stop;
        AgentHelloPacket hello;
        AgentResultPacket result;
        AgentProgress progress;
        AgentGone gone;
        AgentDirty dirty;
        AgentBroker broker;
        AgentWanted wanted;
        AgentIdentity identity;
        AgentFiles files;
        AgentGreet greet;
        uint8_t bytes[AGENT_PACKET_MAX];
} AgentPacket;

/* Size of a packet of that type, 0 for an unknown one. */
size_t agent_packet_size(AgentPacketType type);

/* Whether what is in a packet of the type in its head makes sense. */
bool agent_packet_is_sane(const AgentPacket *packet);

/* Sends a packet of the type in its head; fills in magic and size. `fd` -1: no file. */
int agent_packet_send(int socket, AgentPacket *packet, int fd) _must_check_;

/* Takes a packet and at most one file (-1: none; the caller's to close). Returns 1, or 0 at the end of the connection.
 * -EBADMSG: not one of these packets, or one with values that make no sense. */
int agent_packet_recv(int socket, AgentPacket *packet, int *ret_fd) _must_check_;
