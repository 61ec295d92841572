/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "plugin-verdict.h"

#include "common/macros.h"
#include "half-table.h"

static const char *const plugin_end_names[PLUGIN_END_MAX] = {
        [PLUGIN_END_NO] = "no",           [PLUGIN_END_YES] = "yes",       [PLUGIN_END_DEGRADED] = "degraded",
        [PLUGIN_END_WAIT] = "wait",       [PLUGIN_END_RETRY] = "retry",   [PLUGIN_END_RESET] = "reset",
        [PLUGIN_END_GIVE_UP] = "give-up", [PLUGIN_END_LATE] = "late",     [PLUGIN_END_DIED] = "died",
        [PLUGIN_END_FAILED] = "failed",   [PLUGIN_END_ABSENT] = "absent",
};

DEFINE_STRING_TABLE(PluginEnd, plugin_end, plugin_end_names);

static const char *const plugin_verdict_names[PLUGIN_VERDICT_MAX] = {
        [PLUGIN_GO_ON] = "go-on",         [PLUGIN_NOTICE] = "notice",
        [PLUGIN_ASK_AGAIN] = "ask-again", [PLUGIN_REFUSE] = "refuse",
        [PLUGIN_TRY_AGAIN] = "try-again", [PLUGIN_RESET_AND_TRY] = "reset-and-try",
};

DEFINE_STRING_TABLE(PluginVerdict, plugin_verdict, plugin_verdict_names);

/* clang-format off */
static const struct {
        PluginVerdict before_blackout, blackout;
} verdicts[PLUGIN_END_MAX] = {
        [PLUGIN_END_NO] =       {PLUGIN_REFUSE,    PLUGIN_REFUSE},
        [PLUGIN_END_YES] =      {PLUGIN_GO_ON,     PLUGIN_GO_ON},
        [PLUGIN_END_DEGRADED] = {PLUGIN_NOTICE,    PLUGIN_GO_ON},
        [PLUGIN_END_WAIT] =     {PLUGIN_ASK_AGAIN, PLUGIN_ASK_AGAIN},
        [PLUGIN_END_RETRY] =    {PLUGIN_REFUSE,    PLUGIN_GO_ON}, /* no answer to this question, as the next two */
        [PLUGIN_END_RESET] =    {PLUGIN_REFUSE,    PLUGIN_GO_ON},
        [PLUGIN_END_GIVE_UP] =  {PLUGIN_REFUSE,    PLUGIN_GO_ON},
        [PLUGIN_END_LATE] =     {PLUGIN_REFUSE,    PLUGIN_GO_ON},
        [PLUGIN_END_DIED] =     {PLUGIN_REFUSE,    PLUGIN_GO_ON},
        [PLUGIN_END_FAILED] =   {PLUGIN_REFUSE,    PLUGIN_GO_ON},
        [PLUGIN_END_ABSENT] =   {PLUGIN_REFUSE,    PLUGIN_GO_ON},
};
/* clang-format on */

/* What changes a device's state on the way forward. Not a push: the VMM takes those devices there in any case, so that no answer
 * would be of use, and the vCPUs wait meanwhile. */
static const bool acts[DEVICE_ACT_MAX] = {
        [DEVICE_ACT_RECEIVE] = true, [DEVICE_ACT_PRECOPY] = true,   [DEVICE_ACT_GRACE] = true,
        [DEVICE_ACT_P2P] = true,     [DEVICE_ACT_STOP_REST] = true, [DEVICE_ACT_STOP] = true,
        [DEVICE_ACT_DRAIN] = true,   [DEVICE_ACT_SEALED] = true,    [DEVICE_ACT_INTAKE] = true,
        [DEVICE_ACT_ARRIVE] = true,  [DEVICE_ACT_RUN] = true,
};

bool plugin_phase_is_blackout(Phase phase)
{
        return phase >= PHASE_HALT && phase <= PHASE_RUN;
}

PluginVerdict plugin_verdict(Phase phase, PluginEnd end)
{
        if ((int) end < 0 || end >= PLUGIN_END_MAX)
                end = PLUGIN_END_FAILED;
        /* What is left after the blackout must not be refused either. */
        return phase >= PHASE_HALT ? verdicts[end].blackout : verdicts[end].before_blackout;
}

PluginVerdict plugin_advice(Side side, Phase phase, PluginEnd end, bool tried)
{
        if (tried)
                return PLUGIN_GO_ON;
        if (end == PLUGIN_END_RETRY)
                return PLUGIN_TRY_AGAIN;
        /* Later, and at the source, a reset would lose what the device holds: whether that may be is not a plugin's to say. */
        if (end == PLUGIN_END_RESET && side == SIDE_DESTINATION && phase == PHASE_PREPARE)
                return PLUGIN_RESET_AND_TRY;
        return PLUGIN_GO_ON;
}

/* There is no way back, and what is tried again here is reset when it fails: nobody's word may cost a device its state. */
static bool is_last_try(HalfState state)
{
        return state == DESTINATION_ARRIVE_AGAIN || state == DESTINATION_RUN_AGAIN;
}

bool plugin_half_asks(const Half *half)
{
        return half_job_state(half) == JOB_STATE_RUNNING && acts[half_states[half->state].device] &&
               !is_last_try(half->state);
}

/* What was sent or taken in before it failed can't be sent or taken in again. */
static bool can_try_again(const DeviceProgram *program)
{
        for (uint32_t i = 0; i < program->n; i++)
                if (device_op_transfers(program->ops[i].type))
                        return false;
        return program->n > 0;
}

int plugin_half_program(const Half *half, PluginVerdict advice, DeviceState state, uint32_t flags,
                        DeviceProgram *ret)
{
        DeviceProgram program;
        int r;

        if (advice != PLUGIN_TRY_AGAIN && advice != PLUGIN_RESET_AND_TRY)
                return -EINVAL;
        r = device_program(half_states[half->state].device, state, flags, false, &program);
        if (r < 0)
                return r;
        if (!can_try_again(&program))
                return -EINVAL;
        /* Where it stands there is none. */
        if (advice == PLUGIN_RESET_AND_TRY && program.ops[0].type != DEVICE_OP_RESET)
                return -EINVAL;
        *ret = program;
        return 0;
}

uint64_t plugin_budget_usec(uint32_t declared_ms, uint64_t deadline_usec)
{
        return MIN(declared_ms * USEC_PER_MSEC, deadline_usec / 2);
}
