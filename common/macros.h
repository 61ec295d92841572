/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The handful of language helpers that the whole tree uses. Nothing here knows anything about migration. */

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

#define _must_check_      __attribute__((warn_unused_result))
#define _printf_(fmt, va) __attribute__((format(printf, fmt, va)))
#define _cleanup_(f)      __attribute__((cleanup(f)))

/* Ownership leaves the variable: the cleanup attribute then finds nothing to free. */
#define TAKE_PTR(ptr)                            \
        __extension__({                          \
                __typeof__(ptr) *_take = &(ptr); \
                __typeof__(ptr) _taken = *_take; \
                *_take = NULL;                   \
                _taken;                          \
        })
#define TAKE_FD(fd)                  \
        __extension__({              \
                int *_take = &(fd);  \
                int _taken = *_take; \
                *_take = -1;         \
                _taken;              \
        })

/* DEFINE_CLEANUP(Thing *, thing_free) makes thing_freep() for _cleanup_(thing_freep). */
#define DEFINE_CLEANUP(type, function)          \
        static inline void function##p(type *p) \
        {                                       \
                if (*p)                         \
                        function(*p);           \
        }                                       \
        struct _cleanup_semicolon_

static inline void freep(void *p)
{
        free(*(void **) p);
}

static inline void closep(const int *fd)
{
        if (*fd >= 0)
                (void) close(*fd);
}

#define USEC_PER_MSEC UINT64_C(1000)
#define USEC_PER_SEC  UINT64_C(1000000)
#define USEC_INFINITY UINT64_MAX
#define MIB           (UINT64_C(1024) * 1024)

static inline bool streq(const char *a, const char *b)
{
        return strcmp(a, b) == 0;
}
