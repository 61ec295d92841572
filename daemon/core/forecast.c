/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "forecast.h"

#include "common/macros.h"

static const char *const forecast_basis_names[FORECAST_MAX] = {
        [FORECAST_UNKNOWN] = "unknown",
        [FORECAST_SIZE] = "size",
        [FORECAST_PLUGIN] = "plugin",
        [FORECAST_MEASURED] = "measured",
};

DEFINE_STRING_TABLE(ForecastBasis, forecast_basis, forecast_basis_names);

/* Rounded up, and never over the end of the numbers. */
static uint64_t usec_for(uint64_t bytes)
{
        uint64_t whole = bytes / FORECAST_BYTES_PER_SEC, rest = bytes % FORECAST_BYTES_PER_SEC;

        return whole * USEC_PER_SEC +
               (rest * USEC_PER_SEC + FORECAST_BYTES_PER_SEC - 1) / FORECAST_BYTES_PER_SEC;
}

Forecast forecast_device(const ForecastFacts *facts)
{
        uint64_t bytes = facts->state_bytes ? facts->state_bytes : facts->measured_bytes;

        if (facts->was_measured)
                return (Forecast){FORECAST_MEASURED, facts->measured_usec, bytes};
        if (facts->estimate_usec > 0)
                return (Forecast){FORECAST_PLUGIN, facts->estimate_usec, bytes};
        if (facts->state_bytes > 0)
                return (Forecast){FORECAST_SIZE, usec_for(facts->state_bytes), bytes};
        return (Forecast){FORECAST_UNKNOWN, 0, bytes};
}

Forecast forecast_vm(uint64_t measured_usec, const Forecast *devices, uint32_t n, bool has_vmm)
{
        Forecast all = {.basis = n > 0 && !has_vmm ? FORECAST_MEASURED : FORECAST_UNKNOWN};

        for (uint32_t i = 0; i < n; i++) {
                all.basis = MIN(all.basis, devices[i].basis);
                all.usec = MAX(all.usec, devices[i].usec);
                all.bytes += MIN(devices[i].bytes, UINT64_MAX - all.bytes);
        }
        if (measured_usec > 0)
                return (Forecast){FORECAST_MEASURED, measured_usec, all.bytes};
        if (all.basis == FORECAST_UNKNOWN)
                all.usec = 0;
        return all;
}
