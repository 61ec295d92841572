/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Faults that a device is told to have: WHERE:KIND[:ARG][@COUNT].
 *
 * A fault fires where a command is taken up, or where an arc ends. The first one in the list that fits fires, alone;
 * with @COUNT it is gone after so many times. Kinds up to FAULT_EXIT take the place of what was asked; those after
 * it leave it done, and delay or spoil the reply. Each device owns its list.
 */

#include "arc.h"

typedef enum FaultPlace {
        FAULT_AT_ARC,
        FAULT_AT_ANY, /* every command */
        FAULT_AT_READ,
        FAULT_AT_WRITE,
        FAULT_AT_RESET,
        FAULT_AT_VERSION,
        FAULT_AT_FEATURE,
        FAULT_AT_INFO,
        FAULT_PLACE_MAX,
        FAULT_PLACE_INVALID = -EINVAL,
} FaultPlace;

typedef enum FaultKind {
        FAULT_NONE,
        FAULT_FAIL,  /* an errno, and nothing moves */
        FAULT_ERROR, /* an errno, and the device is in ERROR */
        FAULT_HANG,  /* nothing more for this client */
        FAULT_LIE,   /* success, and nothing moves */
        FAULT_EXIT,  /* the process ends */

        FAULT_LATE,
        FAULT_DISCONNECT,
        FAULT_SHORT,
        FAULT_CORRUPT,
        FAULT_BAD_ID,
        FAULT_BAD_COMMAND,
        FAULT_BAD_TYPE,
        FAULT_BAD_SIZE_BIG,
        FAULT_BAD_SIZE_SMALL,
        FAULT_TRUNCATED,
        FAULT_ENDLESS,
        FAULT_GARBAGE,
        FAULT_CHATTER,
        FAULT_ERROR_ZERO,
        FAULT_ERROR_HUGE,
        FAULT_KIND_MAX,
        FAULT_KIND_INVALID = -EINVAL,
} FaultKind;

static inline bool fault_spoils_reply(FaultKind kind)
{
        return kind > FAULT_LATE;
}

typedef struct Fault {
        FaultPlace place;
        ArcPattern arc;
        FaultKind kind;
        int error;           /* of FAIL and ERROR */
        uint64_t delay_usec; /* of LATE */
        uint64_t left;       /* how often it still fires; 0: for ever */
} Fault;

typedef struct FaultList {
        Fault *faults;
        size_t n;
} FaultList;

/* -EINVAL. */
int fault_parse(const char *text, Fault *ret_fault) _must_check_;

/* -ENOMEM. */
int fault_list_add(FaultList *l, const Fault *f) _must_check_;
void fault_list_clear(FaultList *l);

/* The fault that fires now, or one of kind FAULT_NONE. */
Fault fault_list_take(FaultList *l, FaultPlace place);
Fault fault_list_take_arc(FaultList *l, DeviceState from, DeviceState to);
