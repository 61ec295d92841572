/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What cmocka wants to have seen first, and nothing else. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
