/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* One table of names per enum, and both conversions made from it. Store, bus, wire and CLI all use the same
 * table, so a name is spelled once. The enum has members from 0 to PREFIX_MAX - 1 and PREFIX_INVALID = -EINVAL.
 *
 *   const char *prefix_to_string(Type value);          NULL for a value outside the enum
 *   Type prefix_from_string(const char *name);         PREFIX_INVALID for an unknown name or NULL
 */

#include "macros.h"

#define DECLARE_STRING_TABLE(Type, prefix)          \
        const char *prefix##_to_string(Type value); \
        Type prefix##_from_string(const char *name)

#define DEFINE_STRING_TABLE(Type, prefix, table)                            \
        const char *prefix##_to_string(Type value)                          \
        {                                                                   \
                if ((int) value < 0 || (size_t) value >= ARRAY_SIZE(table)) \
                        return NULL;                                        \
                return (table)[value];                                      \
        }                                                                   \
        Type prefix##_from_string(const char *name)                         \
        {                                                                   \
                for (size_t i = 0; name && i < ARRAY_SIZE(table); i++)      \
                        if ((table)[i] && streq((table)[i], name))          \
                                return (Type) i;                            \
                return (Type) -EINVAL;                                      \
        }                                                                   \
        struct _string_table_semicolon_
