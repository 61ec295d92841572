/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Reading JSON that people or other hosts wrote, strictly: unknown keys, wrong types and missing members are errors
 * with a text that names the place. On top of json-c. */

#include <json-c/json.h>

#include "macros.h"

#define JSON_DEPTH_MAX 16
#define JSON_TEXT_MAX  512

/* Where a reader is, and what it found wrong first. */
typedef struct JsonReader {
        const char *where; /* "VM definition", "CHECK" */
        bool counts_keys;  /* whoever reads looks himself whether a key is said twice, and can say where */
        bool failed;
        size_t at; /* how far json_parse() came, in bytes, when it failed */
        char text[JSON_TEXT_MAX];
} JsonReader;

DEFINE_CLEANUP(json_object *, json_object_put);

/* Out of memory ends the process in all that follows: json-c drops what it has no memory for, and goes on. Nothing that is
 * half built, or has lost something, leaves these functions. */

/* Parses one whole JSON value. NULL, with the reader failed, when it is none, is null, has something behind it, says a key
 * twice, or is nested deeper than JSON_DEPTH_MAX. The result is the caller's to put. */
json_object *json_parse(JsonReader *reader, const char *text, size_t size);

/* The same as json-c itself understands it, of text that is not ours to be strict about; NULL when it is none. */
json_object *json_parse_loosely(const char *text);

/* Its text, which lives as long as it and is valid until the next call; JSON_C_TO_STRING_... */
const char *json_print(json_object *object, int flags);

/* A value that was just made. */
json_object *json_need(json_object *value);

/* Notes the first error; later ones are dropped. */
void json_fail(JsonReader *reader, const char *format, ...) _printf_(2, 3);

/* Fails unless every key of `object` is in `keys` (a NULL-terminated list). */
void json_only(JsonReader *reader, json_object *object, const char *const *keys);

/* A member of that type. Missing: NULL, and failed when `needed`. */
json_object *json_member(JsonReader *reader, json_object *object, const char *key, json_type type,
                         bool needed);

/* A string member, or NULL; it lives as long as `object`. */
const char *json_string(JsonReader *reader, json_object *object, const char *key, bool needed);

/* A string member of at most `size` - 1 bytes, copied. Empty when missing. */
void json_copy(JsonReader *reader, json_object *object, const char *key, bool needed, char *ret, size_t size);

/* A whole number from `min` to `max`; `fallback` when missing. */
int64_t json_number(JsonReader *reader, json_object *object, const char *key, int64_t min, int64_t max,
                    int64_t fallback);
/* The same, and needed. 0, with the reader failed, when missing. */
int64_t json_number_needed(JsonReader *reader, json_object *object, const char *key, int64_t min,
                           int64_t max);

bool json_flag(JsonReader *reader, json_object *object, const char *key, bool fallback);

/* Adds a member; takes over `value`. */
void json_add(json_object *object, const char *key, json_object *value);
void json_add_string(json_object *object, const char *key, const char *value);
void json_add_number(json_object *object, const char *key, int64_t value);
void json_add_bool(json_object *object, const char *key, bool value);
void json_append(json_object *array, json_object *value);
json_object *json_new_object(void);
json_object *json_new_array(void);
