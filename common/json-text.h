/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Where things stand in a JSON text: json-c gives values and no places, and people need the line.
 *
 * Meant for a text that json-c has taken; with any other the answers make no sense, but nothing outside the text is
 * read. Nothing is allocated: a JsonText points into the text and lives as long as it. */

#include <stdint.h>

#include "macros.h"

/* A value in a text, from its first character on. `p` is NULL where there is none. */
typedef struct JsonText {
        const char *p;
        size_t n;
} JsonText;

/* The value that is the whole text. */
JsonText json_text_root(const char *text, size_t size);

/* The member of an object; of several with that key the last, which is the one that json-c keeps. A key that is written
 * with escapes is not found. */
JsonText json_text_member(JsonText object, const char *key);

/* The element of an array behind `previous`, or its first when that is none. */
JsonText json_text_next(JsonText array, JsonText previous);

/* How many members an object has, said twice or not. */
size_t json_text_count(JsonText object);

/* The line, from 1, on which that value begins; of none: 1. `text` is what it is a part of. */
uint32_t json_text_line(const char *text, JsonText value);
