/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What happened when in one job, for people: spans of time, by half, phase and participant. Owned by the job.
 *
 * Times are microseconds after the job began in this daemon. Between daemons they travel as "so long ago": the two
 * clocks are never compared, and what the destination did is misplaced by no more than the message took.
 */

#include "common/json.h"
#include "daemon/core/half.h"

#define SPAN_WHAT_MAX 48
#define SPANS_MAX     16384 /* of one job; what comes after is not noted */

typedef struct Span {
        Side side;
        Phase phase;
        HalfWho who;
        int32_t device; /* index in the plan, -1: none */
        uint64_t start_usec, end_usec;
        uint64_t bytes;
        int status;
        char what[SPAN_WHAT_MAX];
} Span;

typedef struct Timeline {
        uint32_t n, room;
        Span *spans; /* owned */
} Timeline;

void timeline_deinit(Timeline *timeline);
void timeline_add(Timeline *timeline, const Span *span);

/* [{half, phase, who, device, what, start_usec, end_usec, bytes, status}], from span `from` on. `ids`: the devices' ids in
 * the plan's order. */
json_object *timeline_to_json(const Timeline *timeline, uint32_t from, const char *const *ids);

/* As many of them as surely fit into one message between daemons, whatever the ids. */
#define SPANS_SENT_MAX 2048

/* The same for the other half: instead of times, how long ago they were at `now_usec`. At most SPANS_SENT_MAX. */
json_object *timeline_to_peer(const Timeline *timeline, uint32_t from, const char *const *ids,
                              uint64_t now_usec);

/* Takes what timeline_to_peer() made, at `now_usec` of this job's time. What makes no sense is left out. */
void timeline_take(Timeline *timeline, json_object *array, uint64_t now_usec, const char *const *ids,
                   uint32_t n_ids);
