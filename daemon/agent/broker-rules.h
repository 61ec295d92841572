/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What a VMM may say to a device behind the broker, and what it is told of the server. Pure: bytes in, a verdict or bytes
 * out. */

#include "vfio-user-message.h"

typedef struct BrokerLimits {
        uint32_t data_max;  /* bytes of one access (max_data_xfer_size) */
        uint32_t files_max; /* with one message (max_msg_fds) */
} BrokerLimits;

/* Whether a command of the VMM may go to the server: 0, or the (positive) errno with which it is answered. `limits`: the
 * server's. Sizes, counts, number of files, and whether it is for a client to say at all. `ret_reply`: bytes that its reply
 * may have, as far as the command says that. */
int broker_rules_command(const VfioUserMessage *command, const BrokerLimits *limits,
                         size_t *ret_reply) _must_check_;

/* Whether a command of the server may go to the VMM: the same. `limits`: the VMM's. */
int broker_rules_server_command(const VfioUserMessage *command, const BrokerLimits *limits) _must_check_;

/* What the server said at our VERSION. */
typedef struct BrokerServer {
        uint16_t minor;
        const char *text; /* its capabilities, as it sent them, or "" */
} BrokerServer;

/* What a server's capabilities say of its limits; what it doesn't say is as the protocol has it. */
void broker_rules_limits(const char *text, BrokerLimits *ret);

/* Answers the VMM's VERSION: `ret_limits` is what the VMM takes, `ret_twin` whether it wants, and gets, a twin socket (the
 * file is the caller's to add), `ret_reply` the answer. Returns 0, a positive errno with which the VMM is refused, or
 * -ENOMEM. */
int broker_rules_version(const VfioUserMessage *request, const BrokerServer *server, BrokerLimits *ret_limits,
                         bool *ret_twin, VfioUserMessage **ret_reply) _must_check_;
