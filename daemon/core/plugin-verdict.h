/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* When plugins are asked, and what follows from what they say, or do not say.
 *
 * Before the blackout a plugin that is of no use refuses: what it might have had against the move is not known. From the
 * moment in which the vCPUs stand it is as if it had not been asked: a VM must not pay for somebody's broken plugin.
 */

#include "half.h"

/* What came of asking a plugin. */
typedef enum PluginEnd {
        PLUGIN_END_NO,
        PLUGIN_END_YES,
        PLUGIN_END_DEGRADED,
        PLUGIN_END_WAIT,
        PLUGIN_END_RETRY,
        PLUGIN_END_RESET,
        PLUGIN_END_GIVE_UP, /* so far in the order of enum migmgr_answer */
        PLUGIN_END_LATE,    /* it has not answered in time */
        PLUGIN_END_DIED,    /* its process has ended, or was ended */
        PLUGIN_END_FAILED,  /* it has answered something that makes no sense */
        PLUGIN_END_ABSENT,  /* it does not run: it could not be loaded, or has just died */
        PLUGIN_END_MAX,
        PLUGIN_END_INVALID = -EINVAL,
} PluginEnd;

DECLARE_STRING_TABLE(PluginEnd, plugin_end);

typedef enum PluginVerdict {
        PLUGIN_GO_ON,
        PLUGIN_NOTICE,    /* go on, and say so */
        PLUGIN_ASK_AGAIN, /* when it wants to be */
        PLUGIN_REFUSE,
        PLUGIN_TRY_AGAIN,     /* the device's program, once */
        PLUGIN_RESET_AND_TRY, /* ... with a reset before it */
        PLUGIN_VERDICT_MAX,
        PLUGIN_VERDICT_INVALID = -EINVAL,
} PluginVerdict;

DECLARE_STRING_TABLE(PluginVerdict, plugin_verdict);

/* Of a match, a check, or before and after a transition in `phase`. */
PluginVerdict plugin_verdict(Phase phase, PluginEnd end);

/* Of advice after a transition that has failed. `tried`: it was tried again already. Else PLUGIN_GO_ON: what has failed is
 * told as it is, and the tables decide. */
PluginVerdict plugin_advice(Side side, Phase phase, PluginEnd end, bool tried);

/* Whether plugins are asked about what devices do in the half's state: they change their states, the way is forward, and a device
 * that fails is not reset for it. */
bool plugin_half_asks(const Half *half);

/* How a plugin's `advice` is followed: what is asked of a device in the half's state, planned anew from where it is now.
 * -EINVAL, and `ret` as it was: the advice is none, there is no way from there, the way sends or takes in what can't be sent
 * or taken in twice, or it begins with no reset where the advice is one. */
int plugin_half_program(const Half *half, PluginVerdict advice, DeviceState state, uint32_t flags,
                        DeviceProgram *ret) _must_check_;

/* How long a plugin that declares `declared_ms` for it may take in all, when the device has `deadline_usec`: at most half of
 * that. 0: it is not asked. */
uint64_t plugin_budget_usec(uint32_t declared_ms, uint64_t deadline_usec);

/* Whether the VM stands in a phase: what is asked there lengthens the blackout. */
bool plugin_phase_is_blackout(Phase phase);
