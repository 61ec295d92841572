/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "outcome.h"

static const OutcomeInfo infos[OUTCOME_MAX] = {
        [OUTCOME_NONE] = {NULL, EXIT_DONE, "nothing went wrong"},
        [OUTCOME_FAILED] = {"Failed", EXIT_FAILED, "something broke that has no name of its own"},
        [OUTCOME_INVALID_ARGUMENT] = {"InvalidArgument", EXIT_USAGE, "an argument or option makes no sense"},
        [OUTCOME_BAD_DEFINITION] = {"BadDefinition", EXIT_USAGE,
                                    "the VM definition is wrong; the text says where"},
        [OUTCOME_BAD_DESTINATION] = {"BadDestination", EXIT_USAGE, "the destination is no address"},
        [OUTCOME_BAD_POLICY] = {"BadPolicy", EXIT_USAGE,
                                "a policy file is wrong; the text says where, and what was in force stays"},
        [OUTCOME_DENIED] = {"Denied", EXIT_DENIED, "the caller may not do this"},
        [OUTCOME_NO_SUCH_VM] = {"NoSuchVM", EXIT_NOT_FOUND, "no VM of that name or UUID is registered here"},
        [OUTCOME_NO_SUCH_DEVICE] = {"NoSuchDevice", EXIT_NOT_FOUND, "the VM has no device of that id"},
        [OUTCOME_NO_SUCH_JOB] = {"NoSuchJob", EXIT_NOT_FOUND, "no job of that UUID is known here"},
        [OUTCOME_NO_SUCH_POLICY] = {"NoSuchPolicy", EXIT_NOT_FOUND,
                                    "no policy file of that name is in force here"},
        [OUTCOME_BUSY] =
                {"Busy", EXIT_BUSY,
                 "the VM has a job already, is in hand otherwise, or is registered already; nothing was begun"},
        [OUTCOME_TOO_LATE] = {"TooLate", EXIT_FAILED, "the job is past the point where it can be stopped"},
        [OUTCOME_FORBIDDEN] = {"Forbidden", EXIT_FAILED,
                               "a decision that could run the VM twice or lose it for nothing"},
        [OUTCOME_INCOMPATIBLE] = {"Incompatible", EXIT_REFUSED, "check found what speaks against the move"},
        [OUTCOME_P2P] = {"P2P", EXIT_REFUSED,
                         "the same, and all of it is that devices may write to each other while they stand"},
        [OUTCOME_DEVICE] = {"Device", EXIT_FAILED, "a device refused or did not answer; the text names it"},
        [OUTCOME_VMM] = {"Vmm", EXIT_FAILED, "the VMM refused or did not answer"},
        [OUTCOME_PEER] = {"Peer", EXIT_FAILED, "the other migmgrd can't be reached, or said no"},
        [OUTCOME_STORE] = {"Store", EXIT_FAILED, "the records can't be written"},
        [OUTCOME_TIMEOUT] = {"Timeout", EXIT_TIMEOUT, "the whole job took longer than --timeout"},
        [OUTCOME_CANCELLED] = {"Cancelled", EXIT_CANCELLED, "the job was cancelled"},
        [OUTCOME_IN_DOUBT] = {"InDoubt", EXIT_IN_DOUBT, "a person must decide where the VM is"},
        [OUTCOME_UNREACHABLE] = {NULL, EXIT_UNREACHABLE, "migmgrd can't be reached"},
};

static const ResultInfo results[] = {
        {"done", EXIT_DONE, "the VM runs at the destination with all its devices"},
        {"failed", EXIT_FAILED, "the VM runs at the source with all its devices, as before"},
        {"refused", EXIT_REFUSED, "check spoke against it; nothing was touched"},
        {"cancelled", EXIT_CANCELLED, "cancelled; the VM runs at the source"},
        {"timeout", EXIT_TIMEOUT, "took longer than --timeout; the VM runs at the source"},
        {"degraded", EXIT_DEGRADED, "the VM runs, on one side, but a device has lost its state"},
        {"in-doubt", EXIT_IN_DOUBT,
         "it is not known whether the VM may run; nothing runs until it settles, or a person decides"},
        {"lost", EXIT_LOST,
         "the VM's own process has died, or was given up; as far as is known it runs on neither side"},
};

const OutcomeInfo *outcome_info(Outcome outcome)
{
        return (int) outcome < 0 || outcome >= OUTCOME_MAX ? NULL : &infos[outcome];
}

Outcome outcome_from_bus(const char *name)
{
        size_t n = strlen(OUTCOME_BUS_PREFIX);

        if (strncmp(name, OUTCOME_BUS_PREFIX, n) != 0)
                return OUTCOME_INVALID;
        for (Outcome i = 0; i < OUTCOME_MAX; i++)
                if (infos[i].name && streq(infos[i].name, name + n))
                        return i;
        return OUTCOME_INVALID;
}

const ResultInfo *outcome_result(size_t index)
{
        return index < ARRAY_SIZE(results) ? &results[index] : NULL;
}

int outcome_exit_of_result(const char *result)
{
        for (size_t i = 0; i < ARRAY_SIZE(results); i++)
                if (streq(results[i].name, result))
                        return results[i].exit;
        return EXIT_FAILED;
}
