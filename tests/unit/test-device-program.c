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

                if (op->type == DEVICE_OP_SET)
                        snprintf(text + n, sizeof text - n, "%s%s>%s", n ? " " : "",
                                 device_state_to_string(op->from), device_state_to_string(op->to));
                else
                        snprintf(text + n, sizeof text - n, "%s%s", n ? " " : "",
                                 device_op_to_string(op->type));
        }
        return text;
}

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
                            act == DEVICE_ACT_BACK_P2P)
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

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_programs_are_these),
                cmocka_unit_test(test_a_taken_in_state_runs_only_when_it_is_meant_to),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
