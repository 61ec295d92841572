/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A broker between two ends that are in a fuzzer's hand: what is sent is as raw as the fuzzer wants, what is not, as an
 * honest server or VMM would. Everything runs on one loop in one thread, so the same bytes always lead to the same. */

#include <event2/event.h>

#include "daemon/agent/broker.h"

#define STAGE_WIRE_MAX (64 * 1024)

/* An end that speaks whole messages, as far as they come. */
typedef struct StageEnd {
        int fd; /* -1: not there */
        uint8_t in[STAGE_WIRE_MAX];
        size_t n_in;
        size_t drop; /* bytes of a long message that nobody reads */
} StageEnd;

typedef struct Stage {
        struct event_base *base;
        AgentDevice *device;
        Broker *broker;
        StageEnd server, server_twin, vmm, vmm_twin;
        uint8_t state; /* of the server's device */
        int opened;    /* 0: not yet; 1: the device is open; negative: it can't be */
        bool gone;     /* the broker's side has given up the server's connection */
} Stage;

/* A device that is open, with or without a twin socket, behind a broker to which a VMM has said VERSION (`greeted`), with a
 * twin socket (`vmm_twin`). */
void stage_begin(Stage *stage, bool server_twin, bool greeted, bool vmm_twin);
void stage_end(Stage *stage);

/* Only what stands around them: the server end is there when somebody has given it a descriptor. */
void stage_prepare(Stage *stage);

/* Sends bytes as they are, a piece at a time; both other ends answer honestly. */
void stage_send(Stage *stage, StageEnd *end, const uint8_t *data, size_t size);
/* Lets everything that is due happen, or until somebody breaks the loop. `server`: whether the server answers, too. */
void stage_run(Stage *stage, bool server);

/* One message. */
void stage_say(StageEnd *end, uint16_t id, uint16_t command, uint32_t flags, const void *payload,
               size_t size);
