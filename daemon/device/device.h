/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A device as the daemon knows it: its agent, found again or started, and what the agent said last.
 *
 * Owned by its VM. Commands are answered once, later, from the loop; nothing is decided here. When the agent or the
 * device's server dies the listener hears `gone`, and a command that was under way is not answered any more.
 */

#include "daemon/agent/agent-protocol.h"
#include "daemon/definition.h"
#include "daemon/helper-client.h"
#include "daemon/loop.h"
#include "daemon/parking.h"
#include "daemon/vmm/vmm.h"

typedef struct Device Device;

typedef struct DeviceListener {
        /* The agent or its connection to the device is gone. */
        void (*gone)(void *userdata, uint32_t index, int status, const char *text);
        /* Bytes of the stream that runs. */
        void (*progress)(void *userdata, uint32_t index, uint64_t bytes);
        /* Pages of the VM's memory that it has written; before the answer to what has read them. Takes over `fd`. */
        void (*dirty)(void *userdata, uint32_t index, const AgentDirty *dirty, int fd);
        /* State or flags were read anew. */
        void (*changed)(void *userdata, uint32_t index);
        /* Its VMM waits, and there is no connection to its server. */
        void (*wanted)(void *userdata, uint32_t index);
} DeviceListener;

/* `text` says what went wrong when `status` is not 0. */
typedef void (*DeviceOpened)(void *userdata, uint32_t index, int status, const char *text);
typedef void (*DeviceAnswered)(void *userdata, uint32_t index, uint32_t step,
                               const AgentResultPacket *result);

typedef struct DevicePlace {
        const Definition *vm; /* outlives it, */
        Vmm *vmm;             /* ... and so does this */
        Loop *loop;
        HelperClient *helper;
        Parking *parking;
        const char *runtime_dir;
        uint64_t connect_usec;
} DevicePlace;

int device_new(const DevicePlace *place, const DeviceDefinition *definition, uint32_t index,
               const DeviceListener *listener, void *userdata, Device **ret) _must_check_;
/* The agent, if there is one, goes on by itself. */
Device *device_free(Device *device);

/* Finds the agent that holds the device, or starts one and has it connect to the device's server, or gives it the device's
 * file. Nothing happens when that is so already. */
void device_open(Device *device, DeviceOpened opened, void *userdata);
/* For a daemon that has just started and wants nothing of the device: what the daemon before us has noted of an agent that did
 * nothing is believed, and the agent need not be asked. Where nothing was noted nothing happens. */
void device_recall(Device *device);

/* Has the agent run `program` for `job`, of at most `deadline_usec`; `interrupt`: what it does now is of no more use. A
 * program that is DEVICE_OP_REOPEN alone is carried out here. */
void device_run(Device *device, const char *job, const DeviceProgram *program, const TransferLimits *limits,
                uint64_t deadline_usec, bool interrupt, uint32_t step, DeviceAnswered answered,
                void *userdata);

/* Nobody waits for answers any more. */
void device_forget(Device *device);
/* Whoever gave a command with that userdata is gone; what others have asked goes on. */
void device_forget_asker(Device *device, const void *userdata);

/* The data connection for the stream of `job`. Takes over `fd`. */
void device_attach(Device *device, const char *job, int fd);

/* Tells its agent which files are memory of the VM's other devices, as their agents have said: what it writes there is none of
 * the VM. Before a program that logs what it writes. */
void device_tell_others(Device *device, Device *const *all, uint32_t n);

/* Has the agent let go of the device and end; also one that a daemon before us has left. Nobody waits for that: an agent whose
 * call hangs in the kernel is left alone, and ends when the call does. */
void device_close(Device *device);

const char *device_id(const Device *device);
DeviceType device_type(const Device *device);
/* Its VMM has it and drives it: it is open only while somebody needs it, for its file would outlive the VMM. */
bool device_is_supervised(const Device *device);
/* Of a kernel device, as far as is known: its directory in sysfs; else "". */
const char *device_sysfs(const Device *device);
/* Reads what sysfs says of it. Done whenever it is opened, too. */
void device_look(Device *device);
/* What that was: driver, device, subsystem and facts; nothing else of it is set. */
const ManifestDevice *device_known(const Device *device);
/* What it has said of itself when it was opened last. */
const DeviceIdentity *device_identity(const Device *device);
bool device_is_open(const Device *device);
/* Since when (CLOCK_MONOTONIC), when it is or was. */
uint64_t device_opened_usec(const Device *device);
/* Somebody has asked for that and has no answer yet. */
bool device_is_opening(const Device *device);
DeviceState device_state(const Device *device);
uint32_t device_flags(const Device *device);
/* When it was last opened, its server's socket was not there or nobody accepted. */
bool device_nobody_listens(const Device *device);
/* When it was last opened, there was no agent to do so: the trouble is on our side, not the device's server's. */
bool device_lacks_agent(const Device *device);
/* When it was last opened, something that is set up so did not let us. */
bool device_is_forbidden(const Device *device);
/* No job may have it, for it could not be reset: why, or "". As long as this daemon lives. */
void device_set_quarantine(Device *device, const char *text);
const char *device_quarantine(const Device *device);
/* Why it is not open, or "". */
const char *device_text(const Device *device);
/* What HELLO said: this job's state was taken in whole and accepted. */
bool device_is_loaded(const Device *device, const char *job);
