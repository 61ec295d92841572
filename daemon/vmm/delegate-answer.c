/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "delegate-answer.h"

#include <stdio.h>

#include "common/log.h"

#define OURS "org.migmgr1.Delegate.Error."
#define BUS  "org.freedesktop.DBus.Error."

static const char *const state_names[DELEGATE_STATE_MAX] = {
        [DELEGATE_STATE_NONE] = "none",         [DELEGATE_STATE_RUNNING] = "running",
        [DELEGATE_STATE_PAUSED] = "paused",     [DELEGATE_STATE_SEALED] = "sealed",
        [DELEGATE_STATE_INCOMING] = "incoming", [DELEGATE_STATE_COMPLETE] = "complete",
};

DEFINE_STRING_TABLE(DelegateState, delegate_state, state_names);

static const struct {
        const char *name;
        int status;
        const char *remedy;
} errors[] = {
        {OURS "Job", -EREMOTEIO, "it was started anew, or serves somebody else: see its log"},
        {OURS "State", -EREMOTEIO, "see its log for what it was doing"},
        {OURS "Busy", -EREMOTEIO, "wait for the end of what it is doing"},
        {OURS "Failed", -EREMOTEIO, "see its log"},
        {BUS "NoReply", -ECONNRESET, "it has left the bus: see its log"},
        {BUS "ServiceUnknown", -ECONNRESET, "it has left the bus: see its log"},
        {BUS "NameHasNoOwner", -ECONNRESET, "it has left the bus: see its log"},
        {BUS "Disconnected", -ECONNRESET, "it has left the bus: see its log"},
        {BUS "LimitsExceeded", -EREMOTEIO, "raise the bus' limits, or move fewer VMs at a time"},
        {BUS "AccessDenied", -EREMOTEIO, "let migmgrd call it: see the bus' policy for its name"},
        {BUS "UnknownObject", -EREMOTEIO, "correct the object-path in the definition"},
        {BUS "UnknownInterface", -EREMOTEIO, "correct the object-path in the definition"},
        {BUS "UnknownMethod", -EREMOTEIO, "correct the object-path in the definition"},
};

int delegate_error(const char *asked, const char *name, const char *message, char *ret_text, size_t size)
{
        const char *remedy = "see its log";
        char printable_name[80], printable[200];
        int status = -EREMOTEIO;

        for (size_t i = 0; i < ARRAY_SIZE(errors); i++)
                if (streq(errors[i].name, name)) {
                        status = errors[i].status;
                        remedy = errors[i].remedy;
                }
        (void) log_printable(name, printable_name, sizeof printable_name);
        (void) log_printable(message, printable, sizeof printable);
        (void) snprintf(ret_text, size, "%s: %s: %s; %s", asked, printable_name, printable, remedy);
        return status;
}

uint64_t delegate_stopped(uint64_t said, uint64_t asked_usec, uint64_t now_usec)
{
        return said >= asked_usec && said <= now_usec ? said : asked_usec;
}
