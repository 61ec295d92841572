/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdint.h>

typedef struct Broker Broker;

typedef struct BrokerMap {
        uint64_t address, size, offset;
        uint32_t flags;
        int fd; /* -1: by message */
} BrokerMap;

uint32_t broker_maps(const Broker *broker, const BrokerMap **ret);
