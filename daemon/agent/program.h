/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* One command of the commander while it runs: operations in order, every transition read back.
 *
 * The agent owns it; there is one at a time. It ends once, through `on_end`, with the packet that answers the command;
 * the agent frees it then. What to do and in which order was decided in daemon/core; here it is only decided whether
 * an operation has succeeded.
 */

#include <event2/event.h>

#include "agent-protocol.h"
#include "pages.h"

typedef struct Program Program;

typedef void (*ProgramEnd)(void *userdata, const AgentResultPacket *result);

/* What a program is run on; outlives it, the agent's. */
typedef struct ProgramPlace {
        struct event_base *base;
        AgentDevice *device;
        Broker *broker;  /* NULL: no VMM uses the device */
        Stream *precopy; /* begun by one program and finished by another */
        Dirty *dirty;    /* as long as DMA is logged */
        DirtyOthers others;
} ProgramPlace;

/* Its VMM has mapped memory for the device. */
bool program_place_has_memory(const ProgramPlace *place);

/* Lets go of what programs have left behind: the device is another, or goes another way. */
void program_place_clear(ProgramPlace *place);

/* Begins. `data_fd`: what sends or loads goes over it; stays the caller's and must outlive the program; -1: there is none yet.
 * -ENOMEM. */
int program_new(ProgramPlace *place, const AgentRun *run, int data_fd, ProgramEnd on_end, void *userdata,
                Program **ret) _must_check_;
Program *program_free(Program *program);

/* The data connection, when it comes later: a LOAD waits for it. */
void program_attach(Program *program, int data_fd);

/* End it at the next point where the device is not in the middle of something, with -ECANCELED. */
void program_stop(Program *program);

/* The device's connection is gone: nothing more can come. */
void program_device_gone(Program *program, int status, const char *text);

/* Bytes of the stream that runs or has run. */
uint64_t program_bytes(const Program *program);

/* The data connection was used: what is left in it belongs to a stream that has ended. */
bool program_used_data(const Program *program);
