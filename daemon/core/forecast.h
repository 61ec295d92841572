/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* How long a device, and its VM, will stand still, and what that is judged by. The best basis that there is counts, and none is
 * made up: what is not known is said to be so. */

#include <stdbool.h>
#include <stdint.h>

#include "common/string-table.h"

/* So much of a device's state goes over in a second, where only its size is known: less than a plain loop over two sockets with
 * checksums does on one core (tests/bench/stream), so rather too long than too short. */
#define FORECAST_BYTES_PER_SEC (256 * UINT64_C(1024) * 1024)

typedef enum ForecastBasis {
        FORECAST_UNKNOWN,
        FORECAST_SIZE,     /* of its state, as it says itself, at FORECAST_BYTES_PER_SEC */
        FORECAST_PLUGIN,   /* what a plugin estimates */
        FORECAST_MEASURED, /* its last good move from here */
        FORECAST_MAX,
        FORECAST_INVALID = -EINVAL,
} ForecastBasis;

DECLARE_STRING_TABLE(ForecastBasis, forecast_basis);

typedef struct Forecast {
        ForecastBasis basis;
        uint64_t usec;  /* 0 when the basis is UNKNOWN */
        uint64_t bytes; /* of its state; 0: not known */
} Forecast;

/* What is known of a device. 0: not known. */
typedef struct ForecastFacts {
        bool was_measured;
        uint64_t measured_usec, measured_bytes;
        uint64_t estimate_usec;
        uint64_t state_bytes;
} ForecastFacts;

Forecast forecast_device(const ForecastFacts *facts);

/* Of the whole VM: `measured_usec`: its last blackout, or 0. Without, the devices stand for as long as the slowest one, for they
 * go together; what a VMM needs beside them (`has_vmm`) nobody can tell. */
Forecast forecast_vm(uint64_t measured_usec, const Forecast *devices, uint32_t n, bool has_vmm);
