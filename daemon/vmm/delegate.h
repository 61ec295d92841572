/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The inside of the delegate adapter, shared by its files: delegate.c (acts), delegate-bus.c (calls, who it is, its
 * signals), delegate-look.c (what it says of itself), delegate-answer.c (what its words are worth). Nobody else includes
 * this. What a delegate has to do is in docs/delegate.md.
 *
 * Everything is asked asynchronously, one call at a time for each DelegateTalk: one is for the act in hand, one for
 * vmm_find() and vmm_see(), which may come beside it, and one for each device that is looked for. What a newer act displaces is not listened to any more.
 */

#include <systemd/sd-bus.h>

#include "delegate-answer.h"
#include "vmm.h"

#define DELEGATE_INTERFACE "org.migmgr1.Delegate"
#define DELEGATE_TEXT_MAX  512

typedef struct Delegate Delegate;
typedef struct DelegateTalk DelegateTalk;

/* `reply`: NULL unless `status` is 0. */
typedef void (*DelegateAnswer)(DelegateTalk *talk, int status, sd_bus_message *reply, const char *text);
typedef void (*DelegateNext)(DelegateTalk *talk, int status, const char *text);

struct DelegateTalk {
        Delegate *delegate;
        sd_bus_slot *slot; /* of the call that is not answered */
        const char *asked; /* what, for people */
        DelegateAnswer answer;
        DelegateNext reached, looked;
        char candidate[BUS_NAME_MAX + 1]; /* who has the name, until it is known whose process that is */
        /* What it has said of itself last. */
        DelegateState state;
        char job[UUID_TEXT_MAX + 1];
        ManifestVmm facts;
};

/* Pages that a device has written, on their way. */
typedef struct DelegateDirty DelegateDirty;
struct DelegateDirty {
        DelegateDirty *next;
        Delegate *delegate;
        sd_bus_slot *slot; /* NULL: waits for its turn */
        uint64_t address, page_size, pages;
        int fd;
};

/* A device that somebody looks for. */
typedef struct DelegateFinding DelegateFinding;

struct Delegate {
        Vmm vmm;
        sd_bus_slot *owner_match, *signal_match;
        char owner[BUS_NAME_MAX + 1]; /* its connection to the bus; empty: not known, or none */
        int pidfd;
        LoopIo *pid_io;
        int memory_fd; /* our duplicate of the connection over which memory moves, or -1 */

        VmmAct act;
        uint32_t step;
        uint64_t asked_usec;    /* CLOCK_MONOTONIC: when the act began */
        uint64_t patience_usec; /* after which its state is looked at, answer or not; 0: never */
        LoopTimer *deadline, *patience, *lingering;
        DelegateTalk talk; /* the act's */
        int status;        /* what came of the act */
        char text[DELEGATE_TEXT_MAX];

        bool says_isolated; /* it has told which of its devices no other can reach: */
        uint32_t n_isolated;
        char (*isolated)[SOCKET_PATH_MAX + 1]; /* in the definition's words */

        DelegateFinding *findings;
        DelegateDirty *dirty; /* in the order in which they came */
        uint32_t dirty_open;  /* of them, asked */
        int dirty_status;     /* of the first that failed */
        char dirty_text[DELEGATE_TEXT_MAX];

        DelegateTalk asking; /* vmm_find(), vmm_see() */
        LoopTimer *asking_timer;
        VmmFound found; /* never both */
        VmmSeen seen;
        void *asking_userdata;
};

/* ---- delegate-bus.c ------------------------------------------------------------------------------------------ */

/* Goes on with `next` when it is known who the delegate is. -ENOENT: nobody is there; -ECONNRESET: its process is, but
 * not on the bus; -EADDRINUSE: somebody else is. */
void delegate_reach(DelegateTalk *talk, DelegateNext next);

/* Calls a method of the delegate, with arguments as sd_bus_message_append() has them. Always answers, unless the talk is
 * stopped before. */
void delegate_call(DelegateTalk *talk, const char *interface, const char *member, DelegateAnswer answer,
                   const char *types, ...);
/* The same with a message that was made by delegate_message(). Takes `message` over. */
void delegate_send(DelegateTalk *talk, const char *asked, sd_bus_message *message, DelegateAnswer answer);
int delegate_message(Delegate *d, const char *member, sd_bus_message **ret) _must_check_;

/* Whatever is answered now, nobody listens. */
void delegate_stop(DelegateTalk *talk);

/* Makes an error reply a text. Returns its status, 0 when it is none. */
int delegate_reply_error(sd_bus_message *reply, const char *asked, char ret_text[DELEGATE_TEXT_MAX]);

/* Watches exactly that process. -ESRCH: it is gone. */
int delegate_watch(Delegate *d, const ProcessId *id) _must_check_;
void delegate_unwatch(Delegate *d);

/* ---- delegate-look.c ----------------------------------------------------------------------------------------- */

/* Reads state and job into the talk; with `facts` the rest, too. */
void delegate_look(DelegateTalk *talk, bool facts, DelegateNext next);
void delegate_find(Vmm *vmm, VmmFound found, void *userdata);
void delegate_see(Vmm *vmm, const ProcessId *was, VmmSeen seen, void *userdata);
void delegate_on_asking_timer(void *userdata);
DeviceIsolation delegate_isolation(const Vmm *vmm, const DeviceDefinition *device);

/* ---- delegate-dirty.c ---------------------------------------------------------------------------------------- */

void delegate_take_dirty(Vmm *vmm, uint64_t address, uint64_t page_size, uint64_t pages, int fd);
/* Forgets what is on its way. */
void delegate_drop_dirty(Delegate *d);

/* ---- delegate-device.c --------------------------------------------------------------------------------------- */

void delegate_find_device(Vmm *vmm, const char *vmm_device, VmmDeviceFound found, void *userdata);
void delegate_forget_device(Vmm *vmm, void *userdata);
void delegate_drop_findings(Delegate *d);

/* ---- delegate.c ---------------------------------------------------------------------------------------------- */

/* All pages were taken, or one was not. */
void delegate_dirty_over(Delegate *d);
/* Its process is gone. */
void delegate_gone(Delegate *d);
