/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What delegate.c, which decides and does, shares with delegate-bus.c, which speaks. */

#include "delegate.h"
#include "move.h"
#include "setup.h"

#define DELEGATE_INTERFACE "org.migmgr1.Delegate"
#define DELEGATE_TEXT_MAX  512
#define DELEGATE_JOB_MAX   64
#define WAITING_MAX        16

typedef enum State {
        STATE_NONE,
        STATE_RUNNING,
        STATE_PAUSED,
        STATE_SEALED,
        STATE_INCOMING,
        STATE_COMPLETE,
        STATE_MAX,
} State;

/* The methods that are done once in a job. */
typedef enum Method {
        METHOD_PREPARE,
        METHOD_SAVE,
        METHOD_LOAD,
        METHOD_PAUSE,
        METHOD_SEAL,
        METHOD_RESUME,
        METHOD_START,
        METHOD_DISCARD,
        METHOD_MAX,
        METHOD_INVALID = -EINVAL,
} Method;

/* One method of the job: what came of it, and who waits for that. */
typedef struct Call {
        bool begun, ended;
        char error[DELEGATE_TEXT_MAX]; /* when ended: empty, or what went wrong */
        uint64_t usec;                 /* Pause's answer */
        sd_bus_message *waiting[WAITING_MAX];
        unsigned n_waiting;
} Call;

struct Delegate {
        const DelegateConfig *config;
        sd_event *event;
        sd_event_source *notified, *ticking, *reconnecting;
        sd_bus *bus;
        int notify_fd; /* a thread has something to tell */
        DelegateFaults faults;

        State state;
        Vm *vm;
        Setup *setup;
        Move *move;

        char job[DELEGATE_JOB_MAX];
        bool source, over; /* `over`: another job may come */
        MoveLimits limits;
        Call calls[METHOD_MAX];
};

/* Methods that are done once in a job; GetState; TakeDirtyPages. In delegate.c. */
int delegate_on_call(sd_bus_message *m, void *userdata, sd_bus_error *error);
int delegate_on_get_state(sd_bus_message *m, void *userdata, sd_bus_error *error);
int delegate_on_device_file(sd_bus_message *m, void *userdata, sd_bus_error *error);
int delegate_on_take_dirty_pages(sd_bus_message *m, void *userdata, sd_bus_error *error);

/* Connects to the bus, with the object and the name. Goes on by itself when the bus goes and comes. In
 * delegate-bus.c, as what follows. */
int delegate_open_bus(Delegate *d) _must_check_;

/* Whether this caller may call. False: it is refused, and answered. */
bool delegate_allows(sd_bus_message *m);
