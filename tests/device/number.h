/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Numbers as people write them: in arguments, in faults and in control commands. All return -EINVAL for anything that
 * is not wholly such a number.
 */

#include "common/macros.h"

/* Decimal, from `min` to `max`. */
int number_parse(const char *text, uint64_t min, uint64_t max, uint64_t *ret_number) _must_check_;

/* Bytes, with K, M or G behind. */
int number_parse_bytes(const char *text, uint64_t max, uint64_t *ret_bytes) _must_check_;

/* Milliseconds, with a fraction if need be, at most a day. */
int number_parse_msec(const char *text, uint64_t *ret_usec) _must_check_;

/* An errno: its name or its number. */
int number_parse_errno(const char *text, int *ret_errno) _must_check_;
