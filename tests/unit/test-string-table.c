/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Every table of names in core: store, wire, bus and CLI all live on them, so the names are written down here once
 * more, and each table is walked past both its ends. */

#include "daemon/core/half-table.h"
#include "test.h"

typedef struct Table {
        const char *type;
        int max;
        const char *(*to_string)(int value);
        int (*from_string)(const char *name);
        const char *const *names; /* as agreed; NULL: only that they are there, and round */
} Table;

#define ADAPT(Type, prefix)                              \
        static const char *prefix##_to(int value)        \
        {                                                \
                return prefix##_to_string((Type) value); \
        }                                                \
        static int prefix##_from(const char *name)       \
        {                                                \
                return (int) prefix##_from_string(name); \
        }                                                \
        struct _adapt_semicolon_

ADAPT(Phase, phase);
ADAPT(Message, message);
ADAPT(Side, side);
ADAPT(Owner, owner);
ADAPT(VmmType, vmm_type);
ADAPT(DeviceType, device_type);
ADAPT(Presence, presence);
ADAPT(DeviceState, device_state);
ADAPT(DeviceOpType, device_op);
ADAPT(DeviceAct, device_act);
ADAPT(HalfState, half_state);
ADAPT(HalfEventType, half_event);
ADAPT(HalfWho, half_who);
ADAPT(HalfCause, half_cause);
ADAPT(JobState, job_state);
ADAPT(JobResult, job_result);
ADAPT(VmmAct, vmm_act);

/* docs/architecture.md, in order */
static const char *const phases[] = {"check",       "prepare", "precopy", "viommu-grace", "halt",
                                     "p2p-grace",   "drain",   "intake",  "handover",     "arrival-grace",
                                     "run-devices", "run",     "release"};
/* docs/wire.md */
static const char *const messages[] = {"NONE",  "HELLO",   "CHECK",      "CHECKED", "PREPARE", "PREPARED",
                                       "BEGIN", "REACHED", "FAILED",     "READY",   "GO",      "ASK",
                                       "ABORT", "STARTED", "NOTSTARTED", "MAYBE",   "BUSY",    "UNKNOWN",
                                       "END",   "ENDED",   "DONE",       "DONEACK"};
static const char *const sides[] = {"source", "destination"};
static const char *const owners[] = {"unrecorded", "source",      "nobody",   "done",     "aborted",
                                     "prepared",   "destination", "promised", "discarded"};
static const char *const vmm_types[] = {"none", "qmp", "delegate"};
static const char *const device_types[] = {"vfio-user", "vfio"};
static const char *const presences[] = {"away", "here"};
static const char *const whos[] = {"device", "vmm", "peer", "record", "fence"};

#define TABLE(MAX, prefix, names)                               \
        {                                                       \
#prefix, MAX, prefix##_to, prefix##_from, names \
        }

static const Table tables[] = {
        TABLE(PHASE_MAX, phase, phases),
        TABLE(MESSAGE_MAX, message, messages),
        TABLE(SIDE_MAX, side, sides),
        TABLE(OWNER_MAX, owner, owners),
        TABLE(VMM_TYPE_MAX, vmm_type, vmm_types),
        TABLE(DEVICE_TYPE_MAX, device_type, device_types),
        TABLE(PRESENCE_MAX, presence, presences),
        TABLE(HALF_WHO_MAX, half_who, whos),
        TABLE(DEVICE_STATE_MAX, device_state, NULL),
        TABLE(DEVICE_OP_MAX, device_op, NULL),
        TABLE(DEVICE_ACT_MAX, device_act, NULL),
        TABLE(HALF_STATE_MAX, half_state, NULL),
        TABLE(HALF_EVENT_MAX, half_event, NULL),
        TABLE(HALF_CAUSE_MAX, half_cause, NULL),
        TABLE(JOB_STATE_MAX, job_state, NULL),
        TABLE(JOB_RESULT_MAX, job_result, NULL),
        TABLE(VMM_ACT_MAX, vmm_act, NULL),
};

static void test_the_agreed_names_are_these_in_this_order(void **state)
{
        static const size_t lengths[] = {
                ARRAY_SIZE(phases),    ARRAY_SIZE(messages),     ARRAY_SIZE(sides),     ARRAY_SIZE(owners),
                ARRAY_SIZE(vmm_types), ARRAY_SIZE(device_types), ARRAY_SIZE(presences), ARRAY_SIZE(whos)};

        for (size_t t = 0; t < ARRAY_SIZE(lengths); t++) {
                assert_int_equal(tables[t].max, lengths[t]);
                for (int i = 0; i < tables[t].max; i++)
                        assert_string_equal(tables[t].to_string(i), tables[t].names[i]);
        }
}

static void test_every_value_has_one_name_and_comes_back_from_it(void **state)
{
        for (size_t t = 0; t < ARRAY_SIZE(tables); t++)
                for (int i = 0; i < tables[t].max; i++) {
                        const char *name = tables[t].to_string(i);

                        if (!name)
                                print_error("%s has no name for %d\n", tables[t].type, i);
                        assert_non_null(name);
                        assert_int_equal(tables[t].from_string(name), i);
                }
}

static void test_there_are_no_names_past_either_end(void **state)
{
        for (size_t t = 0; t < ARRAY_SIZE(tables); t++) {
                int max = tables[t].max;
                const int outside[] = {-1, -2, -EINVAL, INT32_MIN, max, max + 1, max + 1000, INT32_MAX};

                for (size_t i = 0; i < ARRAY_SIZE(outside); i++)
                        assert_null(tables[t].to_string(outside[i]));
        }
}

static void test_what_is_no_name_is_invalid(void **state)
{
        static const char *const names[] = {NULL,     " ",       "?",     "Check", "hello",
                                            "HELLO ", "check\n", "none?", "sourc", "sources"};

        for (size_t t = 0; t < ARRAY_SIZE(tables); t++)
                for (size_t i = 0; i < ARRAY_SIZE(names); i++)
                        assert_int_equal(tables[t].from_string(names[i]), -EINVAL);
}

/* docs/wire.md: each message of a job goes one way. */
static void test_a_message_goes_one_way(void **state)
{
        static const char *const to_destination[] = {"CHECK", "PREPARE", "BEGIN", "GO",
                                                     "ASK",   "ABORT",   "END",   "DONE"};
        uint32_t n = 0;

        for (size_t i = 0; i < ARRAY_SIZE(to_destination); i++)
                assert_true(message_is_for_destination(message_from_string(to_destination[i])));
        for (Message m = 0; m < MESSAGE_MAX; m++)
                n += message_is_for_destination(m);
        assert_int_equal(n, ARRAY_SIZE(to_destination));
        assert_false(message_is_for_destination(MESSAGE_MAX));
        assert_false(message_is_for_destination(MESSAGE_INVALID));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_the_agreed_names_are_these_in_this_order),
                cmocka_unit_test(test_every_value_has_one_name_and_comes_back_from_it),
                cmocka_unit_test(test_there_are_no_names_past_either_end),
                cmocka_unit_test(test_a_message_goes_one_way),
                cmocka_unit_test(test_what_is_no_name_is_invalid),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
