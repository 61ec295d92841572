/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "guarantees.h"

static bool is_driven_by_qemu(const GuaranteeFacts *facts)
{
        return facts->plan->n_supervised > 0;
}

static bool is_serial(const GuaranteeFacts *facts)
{
        return is_driven_by_qemu(facts) && !facts->plan->push;
}

static bool is_risky(const GuaranteeFacts *facts)
{
        return facts->risk_accepted;
}

static bool is_silent(const GuaranteeFacts *facts)
{
        return facts->source->vmm.n_silent > 0;
}

static bool is_uncompared(const GuaranteeFacts *facts)
{
        return facts->n_uncompared > 0;
}

/* A delegate lives at both ends, and a set of devices has no VMM. */
static bool is_to_be_started(const GuaranteeFacts *facts)
{
        return facts->source->vmm.type == VMM_TYPE_QMP;
}

static bool is_unlimited(const GuaranteeFacts *facts)
{
        return !facts->blackout_limited;
}

static bool is_unknown_peer(const GuaranteeFacts *facts)
{
        return !facts->peer_known;
}

/* `fails`: NULL: it holds always. */
static const struct {
        const char *name, *promise;
        bool (*fails)(const GuaranteeFacts *facts);
        const char *gap;
} guarantees[GUARANTEE_MAX] = {
        [GUARANTEE_ONE_OWNER] = {"one-owner", "at every moment at most one host may run the VM"},
        [GUARANTEE_WAY_BACK] =
                {"way-back", "up to the handover the VM goes on here with all that its devices hold",
                 is_driven_by_qemu,
                 "QEMU resets a device of its own that refuses to run again, and nothing shows it"},
        [GUARANTEE_LOCKSTEP] = {"lockstep", "no device goes past a barrier before all have reached it",
                                is_serial, "QEMU takes its devices through their last states one by one"},
        [GUARANTEE_QUIET_PEERS] = {"quiet-peers", "no device writes into another one that stands", is_risky,
                                   "a policy accepts that risk for a device that can't be quieted"},
        [GUARANTEE_RESETS_SEEN] = {"resets-seen", "a device that has lost its state is named in the result",
                                   is_silent, "QEMU does not say of some device what it does with it"},
        [GUARANTEE_COMPATIBLE] =
                {"compatible", "each device is like its counterpart, as far as policies ask", is_uncompared,
                 "no policy says of some device what must be alike; its driver alone judges"},
        [GUARANTEE_VMM_STARTS] =
                {"vmm-starts", "the VMM at the destination is known to take this VM", is_to_be_started,
                 "it is started in phase prepare, and judges then; the VM runs on here if it refuses"},
        [GUARANTEE_BLACKOUT_LIMIT] =
                {"blackout-limit", "the VM is turned back if it stands for too long before it is handed over",
                 is_unlimited, "nobody has set a limit"},
        [GUARANTEE_PEER_KNOWN] = {"peer-known", "the other daemon is who it says it is", is_unknown_peer,
                                  "over TCP nobody is asked who he is"},
};

const char *guarantee_to_string(Guarantee guarantee)
{
        return (int) guarantee >= 0 && guarantee < GUARANTEE_MAX ? guarantees[guarantee].name : NULL;
}

Guarantee guarantee_from_string(const char *name)
{
        for (Guarantee g = 0; g < GUARANTEE_MAX; g++)
                if (streq(guarantees[g].name, name))
                        return g;
        return GUARANTEE_INVALID;
}

const char *guarantee_promise(Guarantee guarantee)
{
        return guarantees[guarantee].promise;
}

const char *guarantee_gap(Guarantee guarantee, const GuaranteeFacts *facts)
{
        return guarantees[guarantee].fails && guarantees[guarantee].fails(facts) ? guarantees[guarantee].gap
                                                                                 : NULL;
}
