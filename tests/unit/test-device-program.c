/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <stdio.h>

#include "daemon/core/device-program.h"
#include "test.h"

/* A program as text: "stop>stop-copy send stop-copy>stop". */
static const char *plan(DeviceAct act, const char *state, uint32_t flags, bool gone)
{
        static char text[256];
        DeviceProgram program;
        int r = device_program(act, device_state_from_string(state), flags, gone, &program);

        text[0] = 0;
        if (r < 0)
                return "no way";
        for (uint32_t i = 0; i < program.n; i++) {
                size_t n = strlen(text);
                const DeviceOp *op = &program.ops[i];

                if (op->type == DEVICE_OP_SET || op->type == DEVICE_OP_NUDGE || op->type == DEVICE_OP_EXPECT)
                        snprintf(text + n, sizeof text - n, "%s%s%s%s%s", n ? " " : "",
                                 op->type == DEVICE_OP_NUDGE ? "~" : "", device_state_to_string(op->from),
                                 op->type == DEVICE_OP_EXPECT ? "|" : ">", device_state_to_string(op->to));
                else
                        snprintf(text + n, sizeof text - n, "%s%s", n ? " " : "",
                                 device_op_to_string(op->type));
        }
        return text;
}

#define DRIVEN (DEVICE_SUPERVISED | DEVICE_KERNEL)

static const struct {
        DeviceAct act;
        const char *state;
        uint32_t flags;
        bool gone;
        const char *expect;
} cases[] = {
        {DEVICE_ACT_LOOK, "running", 1, false, "get"},
        {DEVICE_ACT_LOOK, "unknown", 1, true, "reopen"},
        {DEVICE_ACT_REOPEN, "running", 1, false, ""},
        {DEVICE_ACT_REOPEN, "unknown", 1, false, "reopen"},
        {DEVICE_ACT_REOPEN, "running", 1, true, "reopen"},
        {DEVICE_ACT_P2P, "running", 3, false, "running>running-p2p"},
        {DEVICE_ACT_P2P, "running", 1, false, ""},
        {DEVICE_ACT_STOP_REST, "running", 1, false, "running>stop"},
        {DEVICE_ACT_STOP_REST, "running-p2p", 3, false, ""},
        {DEVICE_ACT_DRAIN, "running-p2p", 3, false, "running-p2p>stop stop>stop-copy send stop-copy>stop"},
        {DEVICE_ACT_DRAIN, "stop", 1, false, "stop>stop-copy send stop-copy>stop"},
        {DEVICE_ACT_RECEIVE, "running", 1, false, "reset running>stop stop>resuming"},
        {DEVICE_ACT_RECEIVE, "running", 3, false, "reset running>running-p2p running-p2p>stop stop>resuming"},
        {DEVICE_ACT_RECEIVE, "error", 1, false, "reset running>stop stop>resuming"},
        {DEVICE_ACT_RECEIVE, "resuming", 1, false, "reset running>stop stop>resuming"},
        /* a device that stands with somebody's state in it: never over RUNNING */
        {DEVICE_ACT_RECEIVE, "stop", 3, false, "stop>resuming"},
        {DEVICE_ACT_LOAD, "resuming", 1, false, "load"},
        {DEVICE_ACT_INTAKE, "resuming", 3, false, "resuming>stop"},
        {DEVICE_ACT_ARRIVE, "stop", 3, false, "stop>running-p2p"},
        {DEVICE_ACT_ARRIVE, "stop", 1, false, ""},
        {DEVICE_ACT_RUN, "running-p2p", 3, false, "running-p2p>running"},
        {DEVICE_ACT_RUN, "stop", 1, false, "stop>running"},
        {DEVICE_ACT_RUN, "error", 1, false, "no way"},
        {DEVICE_ACT_RUN, "unknown", 1, false, "no way"},
        {DEVICE_ACT_BACK_P2P, "stop-copy", 3, false, "stop-copy>stop stop>running-p2p"},
        {DEVICE_ACT_BACK_P2P, "stop-copy", 1, false, ""},
        {DEVICE_ACT_BACK_P2P, "running", 3, false, ""},
        {DEVICE_ACT_BACK_P2P, "error", 3, false, "reset"},
        {DEVICE_ACT_BACK_P2P, "error", 1, false, "reset"},
        {DEVICE_ACT_UNARRIVE, "running-p2p", 3, false, "running-p2p>stop"},
        {DEVICE_ACT_UNARRIVE, "stop", 3, false, ""},
        {DEVICE_ACT_REPAIR, "running", 3, false, ""},
        {DEVICE_ACT_REPAIR, "error", 3, false, "reset"},
        {DEVICE_ACT_REPAIR, "running-p2p", 3, false, "reset"},
        {DEVICE_ACT_REPAIR, "stop", 3, false, "stop>resuming reset"},
        {DEVICE_ACT_DISCARD, "resuming", 1, false, "reset close"},
        {DEVICE_ACT_DISCARD, "stop", 3, false, "stop>resuming reset close"},
        {DEVICE_ACT_DISCARD, "running", 1, false, "reset close"},
        {DEVICE_ACT_DISCARD, "unknown", 1, false, "close"},
        {DEVICE_ACT_DISCARD, "stop", 1, true, "close"},
        {DEVICE_ACT_CLOSE, "stop", 1, false, "close"},
        /* pre-copy: one stream up to its end, which leaving the saving states would break off */
        {DEVICE_ACT_PRECOPY, "running", 7, false, "running>pre-copy precopy"},
        {DEVICE_ACT_PRECOPY, "running", 5, false, "running>pre-copy precopy"},
        {DEVICE_ACT_PRECOPY, "running", 3, false, ""},
        {DEVICE_ACT_PRECOPY, "stop", 7, false, "no way"},
        {DEVICE_ACT_P2P, "pre-copy", 7, false, "pre-copy>pre-copy-p2p"},
        {DEVICE_ACT_P2P, "pre-copy", 5, false, ""},
        {DEVICE_ACT_STOP_REST, "pre-copy", 5, false, "pre-copy>stop-copy"},
        {DEVICE_ACT_STOP_REST, "pre-copy-p2p", 7, false, ""},
        {DEVICE_ACT_STOP, "pre-copy-p2p", 7, false, "pre-copy-p2p>stop-copy"},
        {DEVICE_ACT_STOP, "running-p2p", 7, false, "running-p2p>stop"},
        {DEVICE_ACT_STOP, "stop", 1, false, ""},
        {DEVICE_ACT_STOP, "stop-copy", 5, false, ""},
        {DEVICE_ACT_DRAIN, "pre-copy-p2p", 7, false, "pre-copy-p2p>stop-copy send stop-copy>stop"},
        {DEVICE_ACT_DRAIN, "stop-copy", 5, false, "send stop-copy>stop"},
        {DEVICE_ACT_BACK_P2P, "pre-copy", 7, false, ""},
        {DEVICE_ACT_BACK_P2P, "pre-copy-p2p", 7, false, "pre-copy-p2p>running-p2p"},
        {DEVICE_ACT_RUN, "pre-copy", 7, false, "pre-copy>running"},
        {DEVICE_ACT_RUN, "pre-copy", 5, false, "pre-copy>running"},
        /* the VM's memory: a log is only of use where somebody has mapped some */
        {DEVICE_ACT_LOG, "running", 3 | DEVICE_DMA_LOGGING | DEVICE_HAS_DMA, false, "log-start"},
        {DEVICE_ACT_LOG, "running", 3 | DEVICE_DMA_LOGGING, false, ""},
        {DEVICE_ACT_LOG, "running", 3 | DEVICE_HAS_DMA, false, ""},
        {DEVICE_ACT_UNLOG, "running", 3 | DEVICE_DMA_LOGGING | DEVICE_HAS_DMA, false, "log-stop"},
        {DEVICE_ACT_UNLOG, "running", 3, false, ""},
        {DEVICE_ACT_DIRTY, "stop", 3, false, "dirty"},
        {DEVICE_ACT_SEND_PAGES, "stop", 3, false, "send-pages"},
        {DEVICE_ACT_LOAD_PAGES, "resuming", 3, false, "load-pages"},
        {DEVICE_ACT_RESET, "running", 3, false, "reset"},
        {DEVICE_ACT_RESET, "resuming", 1, false, "reset"},
        {DEVICE_ACT_RESET, "error", 1, false, "reset"},
        {DEVICE_ACT_RESET, "unknown", 1, false, "reset"},
        {DEVICE_ACT_RESET, "stop", 1, false, "stop>resuming reset"},
        {DEVICE_ACT_RESET, "stop-copy", 1, false, "stop-copy>stop stop>resuming reset"},
        {DEVICE_ACT_RESET, "running-p2p", 3, false, "running-p2p>stop stop>resuming reset"},
        /* the kernel takes RESET everywhere, and a device that reads RUNNING need not be emptied */
        {DEVICE_ACT_RECEIVE, "running", 3 | DEVICE_KERNEL, false,
         "running>running-p2p running-p2p>stop stop>resuming"},
        {DEVICE_ACT_RECEIVE, "stop", 1 | DEVICE_KERNEL, false, "reset running>stop stop>resuming"},
        {DEVICE_ACT_RECEIVE, "unknown", 1 | DEVICE_KERNEL, false, "no way"},
        {DEVICE_ACT_DISCARD, "stop", 3 | DEVICE_KERNEL, false, "reset close"},
        {DEVICE_ACT_DISCARD, "unknown", 3 | DEVICE_KERNEL, false, "close"},
        {DEVICE_ACT_REPAIR, "stop", 3 | DEVICE_KERNEL, false, "reset"},
        {DEVICE_ACT_REPAIR, "running", 3 | DEVICE_KERNEL, false, ""},
        {DEVICE_ACT_RESET, "stop-copy", 1 | DEVICE_KERNEL, false, "reset"},
        {DEVICE_ACT_DRAIN, "stop", 1 | DEVICE_KERNEL, false, "stop>stop-copy send stop-copy>stop"},
        /* what the VMM drives: looked at (|), nudged (~), or set where the VMM rests */
        {DEVICE_ACT_LOOK, "unknown", DRIVEN, true, "reopen"},
        {DEVICE_ACT_LOOK, "unknown", DRIVEN | 7, false, "get"},
        {DEVICE_ACT_REOPEN, "unknown", DRIVEN | 7, false, "reopen"},
        {DEVICE_ACT_REOPEN, "stop", DRIVEN | 7, false, ""},
        {DEVICE_ACT_RECEIVE, "unknown", DRIVEN, true, ""},
        {DEVICE_ACT_ADOPT, "unknown", DRIVEN, true, "reopen"},
        {DEVICE_ACT_ADOPT, "running", DRIVEN | 3, false, "reopen"},
        {DEVICE_ACT_CLEAN, "running", DRIVEN | 3, false, ""},
        {DEVICE_ACT_CLEAN, "resuming", DRIVEN | 3, false, "reset"},
        {DEVICE_ACT_CLEAN, "error", DRIVEN | 3, false, "reset"},
        {DEVICE_ACT_GRACE, "running", DRIVEN | 7, false, "~pre-copy>pre-copy-p2p"},
        {DEVICE_ACT_GRACE, "running", DRIVEN | 3, false, "~running>running-p2p"},
        {DEVICE_ACT_GRACE, "running", DRIVEN | 5, false, ""},
        {DEVICE_ACT_GRACE, "running", 3, false, "running>running-p2p"},
        {DEVICE_ACT_P2P, "running", DRIVEN | 7, false, "pre-copy-p2p|stop-copy"},
        {DEVICE_ACT_P2P, "running", DRIVEN | 3, false, "running-p2p|stop"},
        {DEVICE_ACT_P2P, "running", DRIVEN | 5, false, ""},
        {DEVICE_ACT_STOP_REST, "running", DRIVEN | 7, false, "~pre-copy-p2p>stop-copy"},
        {DEVICE_ACT_STOP_REST, "running", DRIVEN | 3, false, "~running-p2p>stop"},
        {DEVICE_ACT_STOP_REST, "running", DRIVEN | 5, false, "stop-copy|stop-copy"},
        {DEVICE_ACT_STOP_REST, "running", DRIVEN | 1, false, "stop|stop"},
        {DEVICE_ACT_SEALED, "running", DRIVEN | 7, false, "~stop-copy>stop"},
        {DEVICE_ACT_SEALED, "stop", 3, false, ""},
        {DEVICE_ACT_SEALED, "unknown", DRIVEN | 7, true, ""},
        {DEVICE_ACT_INTAKE, "running", DRIVEN | 3, false, "resuming>stop"},
        {DEVICE_ACT_ARRIVE, "stop", DRIVEN | 3, false, "stop>running-p2p"},
        {DEVICE_ACT_ARRIVE, "running-p2p", DRIVEN | 3, false, ""},
        {DEVICE_ACT_ARRIVE, "running", DRIVEN | 3, false, ""},
        {DEVICE_ACT_ARRIVE, "unknown", DRIVEN | 3, true, "no way"},
        {DEVICE_ACT_ARRIVE, "stop", DRIVEN | 1, false, ""},
        {DEVICE_ACT_RUN, "running-p2p", DRIVEN | 3, false, ""},
        {DEVICE_ACT_PUSH, "running-p2p", DRIVEN | 3, false, "~running-p2p>running"},
        {DEVICE_ACT_PUSH, "stop", DRIVEN | 1, false, ""},
        {DEVICE_ACT_PUSH, "unknown", DRIVEN | 3, true, ""},
        {DEVICE_ACT_SETTLE, "running-p2p", DRIVEN | 3, false, "~running-p2p>running"},
        {DEVICE_ACT_SETTLE, "stop", DRIVEN | 1, false, "~running-p2p>running"},
        {DEVICE_ACT_SETTLE, "unknown", DRIVEN | 3, true, "reopen"},
        {DEVICE_ACT_SETTLE, "running-p2p", 3, false, ""},
        {DEVICE_ACT_UNARRIVE, "running-p2p", DRIVEN | 3, false, "running-p2p>stop"},
        {DEVICE_ACT_UNARRIVE, "stop", DRIVEN | 3, false, ""},
        {DEVICE_ACT_UNARRIVE, "running", DRIVEN | 3, false, "running>running-p2p running-p2p>stop"},
        {DEVICE_ACT_UNARRIVE, "running", DRIVEN | 1, false, "no way"},
        {DEVICE_ACT_UNARRIVE, "unknown", DRIVEN | 3, true, "no way"},
        {DEVICE_ACT_REPAIR, "stop", DRIVEN | 3, false, ""},
        {DEVICE_ACT_DISCARD, "stop", DRIVEN | 3, false, "reset close"},
        {DEVICE_ACT_DISCARD, "unknown", DRIVEN | 3, true, "close"},
        {DEVICE_ACT_RESET, "stop-copy", DRIVEN | 3, false, "reset"},
        {DEVICE_ACT_CLEAR, "stop", DRIVEN | 3, false, "close"},
        {DEVICE_ACT_CLEAR, "running", DRIVEN | 3, false, "reset close"},
        {DEVICE_ACT_CLEAR, "stop-copy", DRIVEN | 7, false, "reset close"},
        {DEVICE_ACT_CLEAR, "resuming", DRIVEN | 1, false, "reset close"},
        {DEVICE_ACT_CLEAR, "unknown", DRIVEN | 3, false, "reset close"},
        {DEVICE_ACT_CLEAR, "running", DRIVEN | 3, true, "close"},
        {DEVICE_ACT_CLEAR, "running", 3, false, ""},
};

static void test_programs_are_these(void **state)
{
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
                assert_string_equal(plan(cases[i].act, cases[i].state, cases[i].flags, cases[i].gone),
                                    cases[i].expect);
}

/* Whatever is asked of a device that holds a foreign state, only the acts that are meant to run it ever do. */
static void test_a_taken_in_state_runs_only_when_it_is_meant_to(void **state)
{
        for (DeviceAct act = 0; act < DEVICE_ACT_MAX; act++)
                for (uint32_t flags = 1; flags < 8; flags += 2) {
                        DeviceProgram program;
                        bool held = true;

                        if (act == DEVICE_ACT_RUN || act == DEVICE_ACT_ARRIVE || act == DEVICE_ACT_P2P ||
                            act == DEVICE_ACT_GRACE || act == DEVICE_ACT_BACK_P2P)
                                continue;
                        if (device_program(act, DEVICE_STATE_STOP, flags, false, &program) < 0)
                                continue;
                        for (uint32_t i = 0; i < program.n; i++) {
                                DeviceOp op = program.ops[i];

                                held &= op.type != DEVICE_OP_SET || op.to != DEVICE_STATE_RESUMING;
                                assert_false(held && op.type == DEVICE_OP_RESET);
                                assert_false(
                                        held && op.type == DEVICE_OP_SET &&
                                        (op.to == DEVICE_STATE_RUNNING || op.to == DEVICE_STATE_RUNNING_P2P));
                        }
                }
}

/* The rule as it was found out on a real kernel: what gives a data stream, ends one, or goes further than one step back is its
 * VMM's alone, and so is everything that moves data. Every act, state and set of flags. */
static void test_of_what_the_vmm_drives_only_these_arcs_are_taken(void **state)
{
        static const char *const arcs[] = {
                "running>running-p2p",   "running-p2p>running",    "pre-copy>pre-copy-p2p",
                "pre-copy-p2p>pre-copy", "pre-copy-p2p>stop-copy", "running-p2p>stop",
                "stop>running-p2p",      "resuming>stop",          "stop-copy>stop",
        };
        uint32_t sets = 0;

        for (DeviceAct act = 0; act < DEVICE_ACT_MAX; act++)
                for (DeviceState s = 0; s < DEVICE_STATE_MAX; s++)
                        for (uint32_t i = 0; i < 32; i++) {
                                uint32_t flags = DEVICE_SUPERVISED | (i & 7) | (i & 8 ? DEVICE_KERNEL : 0) |
                                                 (i & 16 ? DEVICE_DMA_LOGGING | DEVICE_HAS_DMA : 0);
                                DeviceProgram program;

                                if (device_program(act, s, flags, i & 1, &program) < 0)
                                        continue;
                                for (uint32_t k = 0; k < program.n; k++) {
                                        DeviceOp op = program.ops[k];
                                        char arc[64];
                                        bool listed = false;

                                        assert_false(device_op_transfers(op.type));
                                        assert_true(
                                                op.type == DEVICE_OP_GET || op.type == DEVICE_OP_SET ||
                                                op.type == DEVICE_OP_RESET || op.type == DEVICE_OP_REOPEN ||
                                                op.type == DEVICE_OP_CLOSE || op.type == DEVICE_OP_NUDGE ||
                                                op.type == DEVICE_OP_EXPECT);
                                        if (op.type != DEVICE_OP_SET && op.type != DEVICE_OP_NUDGE)
                                                continue;
                                        (void) snprintf(arc, sizeof arc, "%s>%s",
                                                        device_state_to_string(op.from),
                                                        device_state_to_string(op.to));
                                        for (size_t a = 0; a < ARRAY_SIZE(arcs); a++)
                                                listed |= streq(arc, arcs[a]);
                                        assert_true(listed);
                                        assert_true(device_arc_supervised(op.from, op.to));
                                        sets++;
                                }
                        }
        assert_true(sets > 100);
}

/* Where its VMM may be at work at the same time, what was read before says nothing: nothing is set but by an operation that
 * looks by itself and is content with what it finds. At the destination the VMM rests between its copy and its start, and there
 * a state that is not the one that is due is an error. */
static void test_nothing_is_set_on_a_device_that_its_vmm_may_be_moving(void **state)
{
        static const DeviceAct at_rest[] = {DEVICE_ACT_INTAKE, DEVICE_ACT_ARRIVE, DEVICE_ACT_UNARRIVE};

        for (DeviceAct act = 0; act < DEVICE_ACT_MAX; act++)
                for (DeviceState s = 0; s < DEVICE_STATE_MAX; s++)
                        for (uint32_t flags = 1; flags < 8; flags += 2) {
                                DeviceProgram program;
                                bool rests = false;

                                for (size_t i = 0; i < ARRAY_SIZE(at_rest); i++)
                                        rests |= act == at_rest[i];
                                if (device_program(act, s, DRIVEN | flags, false, &program) < 0)
                                        continue;
                                for (uint32_t k = 0; k < program.n; k++)
                                        assert_true(rests || program.ops[k].type != DEVICE_OP_SET);
                        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_of_what_the_vmm_drives_only_these_arcs_are_taken),
                cmocka_unit_test(test_nothing_is_set_on_a_device_that_its_vmm_may_be_moving),
                cmocka_unit_test(test_programs_are_these),
                cmocka_unit_test(test_a_taken_in_state_runs_only_when_it_is_meant_to),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
