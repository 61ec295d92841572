/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The messages of the control connection between two daemons, by name. What travels in them is described in
 * docs/wire.md and written and read in daemon/job-peer.c; core only needs to know which one came. */

#include "common/string-table.h"

typedef enum Message {
        MESSAGE_NONE,
        MESSAGE_HELLO,
        MESSAGE_CHECK,
        MESSAGE_CHECKED,
        MESSAGE_PREPARE,
        MESSAGE_PREPARED,
        MESSAGE_BEGIN,
        MESSAGE_REACHED,
        MESSAGE_FAILED,
        MESSAGE_READY,
        MESSAGE_GO,
        MESSAGE_ASK,
        MESSAGE_ABORT,
        MESSAGE_STARTED,
        MESSAGE_NOTSTARTED,
        MESSAGE_MAYBE,
        MESSAGE_BUSY,
        MESSAGE_UNKNOWN,
        MESSAGE_END,
        MESSAGE_ENDED,
        MESSAGE_DONE,
        MESSAGE_DONEACK,
        MESSAGE_MAX,
        MESSAGE_INVALID = -EINVAL,
} Message;

DECLARE_STRING_TABLE(Message, message);

/* Whether the source says it to the destination. HELLO, which both say, is about no job. */
bool message_is_for_destination(Message message);
