/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "message.h"

static const char *const message_names[MESSAGE_MAX] = {
        [MESSAGE_NONE] = "NONE",       [MESSAGE_HELLO] = "HELLO",     [MESSAGE_CHECK] = "CHECK",
        [MESSAGE_CHECKED] = "CHECKED", [MESSAGE_PREPARE] = "PREPARE", [MESSAGE_PREPARED] = "PREPARED",
        [MESSAGE_BEGIN] = "BEGIN",     [MESSAGE_REACHED] = "REACHED", [MESSAGE_FAILED] = "FAILED",
        [MESSAGE_READY] = "READY",     [MESSAGE_GO] = "GO",           [MESSAGE_ASK] = "ASK",
        [MESSAGE_ABORT] = "ABORT",     [MESSAGE_STARTED] = "STARTED", [MESSAGE_NOTSTARTED] = "NOTSTARTED",
        [MESSAGE_MAYBE] = "MAYBE",     [MESSAGE_BUSY] = "BUSY",       [MESSAGE_UNKNOWN] = "UNKNOWN",
        [MESSAGE_END] = "END",         [MESSAGE_ENDED] = "ENDED",     [MESSAGE_DONE] = "DONE",
        [MESSAGE_DONEACK] = "DONEACK",
};

DEFINE_STRING_TABLE(Message, message, message_names);

bool message_is_for_destination(Message message)
{
        static const bool table[MESSAGE_MAX] = {
                [MESSAGE_CHECK] = true, [MESSAGE_PREPARE] = true, [MESSAGE_BEGIN] = true,
                [MESSAGE_GO] = true,    [MESSAGE_ASK] = true,     [MESSAGE_ABORT] = true,
                [MESSAGE_END] = true,   [MESSAGE_DONE] = true,
        };

        return (int) message >= 0 && message < MESSAGE_MAX && table[message];
}
