/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What a good move of a VM has taken, device by device: out of the JSON that a job leaves behind (job_to_json()), whether it has
 * just ended or comes from the store. It tells what the next one will take. */

#include "common/json.h"
#include "core/manifest.h"

typedef struct MeasuredDevice {
        char id[DEVICE_ID_MAX + 1];
        uint64_t usec;  /* of the blackout: something was asked of it, at either end */
        uint64_t bytes; /* of its state */
} MeasuredDevice;

typedef struct Measured {
        uint64_t blackout_usec; /* 0: nothing was measured */
        uint32_t n;
        MeasuredDevice *devices; /* owned; sorted by id */
} Measured;

void measured_deinit(Measured *measured);

/* Replaces what there is, if `job` is that of a source's move that is done; else it stays. */
void measured_take(Measured *measured, json_object *job);

/* NULL when it was not there. */
const MeasuredDevice *measured_find(const Measured *measured, const char *id);
