/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What a delegate says, weighed: nothing of it is trusted. Pure: no bus, no clock. */

#include "common/string-table.h"

typedef enum DelegateState {
        DELEGATE_STATE_NONE,
        DELEGATE_STATE_RUNNING,
        DELEGATE_STATE_PAUSED,
        DELEGATE_STATE_SEALED,
        DELEGATE_STATE_INCOMING,
        DELEGATE_STATE_COMPLETE,
        DELEGATE_STATE_MAX,
        DELEGATE_STATE_INVALID = -EINVAL,
} DelegateState;

DECLARE_STRING_TABLE(DelegateState, delegate_state);

/* A text for people of an error that came instead of an answer to `asked`: what was asked, the error's name and text,
 * cut and made printable, and what to do. Returns -ECONNRESET when whoever was asked is not on the bus any more, else
 * -EREMOTEIO. */
int delegate_error(const char *asked, const char *name, const char *message, char *ret_text,
                   size_t size) _must_check_;

/* Since when the vCPUs stand: `said`, unless it can't be. They ran when they were asked to stand. */
uint64_t delegate_stopped(uint64_t said, uint64_t asked_usec, uint64_t now_usec);
