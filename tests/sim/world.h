/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The world around two real halves: WORLD_DEVICES abstract devices and one VMM on each side, two journals, two hosts, one
 * link. What can happen next in it is a list of moves; whoever explores it makes one after the other, in every order
 * (search.h), or by chance (products.c, simulate.c).
 *
 * Commands take effect and are answered in separate steps, so that a daemon can die between the two. Messages take as
 * long as they like. Counted are deaths (of a daemon, a VMM, a host), cuts of the link, and faults: a device or VMM
 * that refuses or hangs, a write that fails (durable or not), a QEMU that resumes by itself, a cancel.
 *
 * A device may be its VMM's (DEVICE_SUPERVISED), as QEMU's vfio-pci is: the VMM sets its states and moves its data, goes on by
 * itself, has its own idea of where the device is, and resets it when an arc fails. What an agent does to it looks first.
 * What operators vouch for is true: the other side is dead and stays so, what is given up is needed by nobody. With a fence it
 * need not be: before the source runs again the destination's host is powered off. Of a VM that has run at the destination
 * and died there an operator may have the source's older memory go on: that is no violation then.
 *
 * While the destination's vCPUs are held, a device that runs counts as one that has run only when they are let go. The hold
 * ends with the daemon, or by itself.
 */

#include <assert.h>
#include <stdio.h>

#include "daemon/core/half-table.h"

#ifndef WORLD_DEVICES
#define WORLD_DEVICES 1
#endif

/* GRACED: its migration is under way and held, vCPUs run; STARTING: it was told to run, and will. Both of a VMM that drives. */
enum { V_NONE, V_INCOMING, V_LOADED, V_RUNNING, V_HELD, V_SEALED, V_DEAD, V_ENDED, V_GRACED, V_STARTING };
enum {
        IDLE,
        ASKED,
        ACTED
}; /* of a command: not there, not yet carried out, carried out but not yet answered */

typedef struct Command {
        uint8_t phase, status, durable, refused;
        uint32_t step;
        union {
                struct {
                        uint8_t n;
                        uint8_t type[6], from[6], to[6];
                } device;
                VmmAct vmm;
                Owner owner;
        };
} Command;

#define QUEUE 16

typedef struct Packet {
        uint8_t message, phase, noway, copy;
} Packet;

typedef struct Device {
        uint8_t state;
        uint8_t stream, pages,
                loaded;   /* at D: data, and pages, have come to their end; the agent says loaded */
        uint8_t degraded; /* the half has said that its state is lost */
        uint8_t thinks;   /* where its VMM has set it, if it is the VMM's */
        uint8_t reset;    /* the VMM has reset it behind our back */
        uint8_t late;     /* 1 + the state to which it was told to go and still may, at any time; 0: none */
        uint8_t fresh;    /* it was reset, and does nobody's work */
        uint8_t hurt; /* of many: something has gone wrong with it, the others need not wait for it on a way back */
        Command command;
} Device;

typedef struct Daemon {
        uint8_t up, exists, timer;   /* exists: it has a half */
        uint8_t owner, noway, acked; /* its journal */
        uint8_t vmm, unseen_death, unseen_resume;
        uint8_t restarted, was_ready;   /* in this job */
        uint8_t held, died_held;        /* the vCPUs are, and were when their VMM died */
        Command commands[HALF_WHO_MAX]; /* VMM, peer (connect), record, fence */
        Device devices[WORLD_DEVICES];
        Packet queue[QUEUE]; /* to this side */
        uint8_t n_queue;
        union {
                Half half;
                uint8_t room[sizeof(Half) + WORLD_DEVICES * sizeof(HalfDevice)];
        };
} Daemon;

typedef struct World {
        Daemon side[2];
        uint8_t link;
        uint8_t turned;   /* a fault, or a cancel: what went over may be given up before READY */
        uint8_t vouched;  /* an operator has given a copy up, and the other side had a better one then */
        uint8_t let_go;   /* ... has a VM go on that policy has stand */
        uint8_t forgiven; /* an operator knows that the destination may have run, and that it is over */
        uint8_t stale, ran, device_ran; /* what an all-knowing observer notes */
        uint8_t started;                /* the job was begun */
        uint8_t bad;                    /* what was violated first (invariants.h) */
        uint8_t crashes, cuts, faults,
                resolves; /* what was used up of what may happen. The last: no part of a state */
} World;

#define S           0
#define D           1
#define IS_ALIVE(v) ((v) != V_NONE && (v) != V_DEAD && (v) != V_ENDED)

/* What it is explored with. */
extern HalfTable world_table;
extern Plan world_plan;
extern uint32_t world_devices, world_flags[WORLD_DEVICES];
extern int max_crashes, max_cuts, max_faults;
/* How often operators decide or cancel; -1: as often as they like. Any further cancel is counted as a fault. */
extern int max_resolves;
extern bool world_half_alone; /* the other half is none, and says what barriers.c lets it say */
extern bool old_link, forget_discard, first_go_returns, unheard_resets; /* broken rules that no table holds */
extern bool believes, deaf_fence;                                       /* ... an operator's word, a fence */

static inline bool is_driven(uint32_t device)
{
        return world_flags[device] & DEVICE_SUPERVISED;
}

/* Its VMM drives one of the devices. */
static inline bool vmm_drives(void)
{
        for (uint32_t i = 0; i < world_devices; i++)
                if (is_driven(i))
                        return true;
        return false;
}

enum {
        M_START,
        M_DELIVER,
        M_ACT,
        M_LATE,
        M_ACT_FAIL,
        M_ACT_ERROR,
        M_ACT_FAIL_DURABLE,
        M_ANSWER,
        M_TIMER,
        M_CANCEL,
        M_CUT,
        M_LINK,
        M_DAEMON_DIES,
        M_DAEMON_BACK,
        M_VMM_DIES,
        M_HOST_DIES,
        M_SEE_DEATH,
        M_QEMU_RESUMES,
        M_SEE_RESUME,
        M_ACT_RESET,
        M_VMM_STEPS,
        M_RUN_HERE,
        M_DISCARD_HERE,
        M_HOLD_ENDS,
        M_AGENT_DIES,
        M_SAY, /* the half that is none says `who` (a Message) of phase `at`, or with `device`: a copy is kept */
        M_STATE_COMES, /* ... has sent everything */
        M_MAX
};

typedef struct Move {
        uint8_t what, side, who, at, device;
} Move;

/* More than can be possible at once. */
#define MOVES_MAX (64 + 40 * WORLD_DEVICES)

/* Makes the plan for devices with these flags. Exits when there is none. */
void world_plan_for(const uint32_t *flags, const uint32_t *orders, uint32_t n, const PolicyRule *rule);

void world_init(World *w);

/* Moves that only happen to one side, and all. Return their number. */
int list_side_moves(const World *w, int side, Move *moves);
int list_moves(const World *w, Move *moves);

/* Whether that is a fault, a death, a cut, or something else that need not happen. */
bool move_is_bad(const World *w, Move move);

/* Makes it, checks all invariants (w->bad), and brings the world into the one form that such a state has. */
void move_on(World *w, Move move);

void print_move(const World *after, uint32_t nr, Move move);

/* An end that an operator would accept; the two parts of that. */
bool is_end(const World *w);
bool is_finished(const Daemon *d);
bool is_doubting(const Daemon *d);
bool runs_with_devices(const World *w, int side);

/* ---- for the parts of the world -------------------------------------------------------------------------------- */

/* world.c */
void world_event(World *w, int side, const HalfEvent *e);

/* participants.c: carry out what was asked; `fail` is the operation that fails, -1 none. Return false when it must wait. */
bool act_device(World *w, int side, uint32_t device, int fail, bool error);
bool act_vmm(World *w, int side, bool fail);
void act_record(World *w, int side, bool fail, bool durable);
void reset_behind(World *w, int side, uint32_t device);
bool may_reset(const Daemon *d, const Command *c, uint32_t device);
bool may_step(const World *w, int side);
void step_on(World *w, int side);
void resume_source(World *w);
void land(World *w, int side, uint32_t device);
void let_go(World *w, int side);
void vmm_dies(Daemon *d);
void clear_device(World *w, int side, uint32_t device);
