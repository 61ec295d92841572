/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "json.h"

#include <stdarg.h>
#include <stdio.h>

#include "log.h"

void json_fail(JsonReader *reader, const char *format, ...)
{
        va_list ap;
        int n;

        if (reader->failed)
                return;
        reader->failed = true;
        /* The place may be a path, and longer than there is room for. */
        n = snprintf(reader->text, sizeof reader->text, "%.*s: ", JSON_TEXT_MAX / 2, reader->where);
        va_start(ap, format);
        (void) vsnprintf(reader->text + n, sizeof reader->text - (size_t) n, format, ap);
        va_end(ap);
        for (char *p = reader->text; *p; p++)
                if (*p < ' ' || *p > '~')
                        *p = '?'; /* parts of it may be foreign text */
}

json_object *json_need(json_object *value)
{
        if (!value)
                out_of_memory();
        return value;
}

/* How many members all objects of a text have: so many colons are outside of strings. */
static size_t count_colons(const char *text, size_t size)
{
        bool in_string = false;
        size_t n = 0;

        for (size_t i = 0; i < size; i++) {
                if (text[i] == '"')
                        in_string = !in_string;
                else if (in_string && text[i] == '\\')
                        i++;
                n += !in_string && text[i] == ':';
        }
        return n;
}

static size_t count_members(json_object *object)
{
        size_t n = 0;

        if (json_object_is_type(object, json_type_array))
                for (size_t i = 0; i < json_object_array_length(object); i++)
                        n += count_members(json_object_array_get_idx(object, i));
        if (json_object_is_type(object, json_type_object)) {
                json_object_object_foreach (object, key, value) {
                        (void) key;
                        n += 1 + count_members(value);
                }
        }
        return n;
}

static json_object *parse_once(JsonReader *reader, const char *text, size_t size)
{
        json_tokener *tokener = json_tokener_new_ex(JSON_DEPTH_MAX);
        json_object *object;
        enum json_tokener_error error;

        if (!tokener)
                out_of_memory();
        json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
        errno = 0;
        object = json_tokener_parse_ex(tokener, text, (int) size);
        if (errno == ENOMEM)
                out_of_memory();
        error = json_tokener_get_error(tokener);
        reader->at = json_tokener_get_parse_end(tokener);
        if (error == json_tokener_continue && !object)
                json_fail(reader, "is not whole");
        else if (error != json_tokener_success)
                json_fail(reader, "%s at byte %zu", json_tokener_error_desc(error), reader->at);
        else if (!object)
                json_fail(reader, "is null");
        else
                for (size_t i = reader->at; i < size; i++)
                        if (!memchr(" \t\r\n", text[i], 4))
                                json_fail(reader, "there is something behind its end");
        json_tokener_free(tokener);
        return object;
}

/* Of an object that has fewer members than its text. Either a key is there twice, or there was no memory for a member, and
 * json-c has forgotten that: it would find it the next time. */
static void find_missing(JsonReader *reader, json_object *object, const char *text, size_t size)
{
        json_object *again = parse_once(reader, text, size);

        if (reader->failed || count_members(again) != count_members(object))
                out_of_memory();
        json_object_put(again);
        if (!reader->counts_keys)
                json_fail(reader, "says a key twice");
}

json_object *json_parse(JsonReader *reader, const char *text, size_t size)
{
        json_object *object;

        if (size > INT32_MAX) {
                json_fail(reader, "too long");
                return NULL;
        }
        object = parse_once(reader, text, size);
        if (!reader->failed && count_members(object) != count_colons(text, size))
                find_missing(reader, object, text, size);
        if (reader->failed) {
                json_object_put(object);
                return NULL;
        }
        return object;
}

json_object *json_parse_loosely(const char *text)
{
        json_object *object;

        errno = 0;
        object = json_tokener_parse(text);
        if (errno == ENOMEM)
                out_of_memory();
        return object;
}

const char *json_print(json_object *object, int flags)
{
        const char *text;

        errno = 0;
        text = json_object_to_json_string_ext(object, flags);
        if (!text || errno == ENOMEM)
                out_of_memory();
        return text;
}

void json_only(JsonReader *reader, json_object *object, const char *const *keys)
{
        if (!json_object_is_type(object, json_type_object)) {
                json_fail(reader, "is not an object");
                return;
        }
        json_object_object_foreach (object, key, value) {
                bool known = false;

                (void) value;
                for (size_t i = 0; keys[i]; i++)
                        known |= streq(keys[i], key);
                if (!known)
                        json_fail(reader, "unknown key \"%s\"", key);
        }
}

json_object *json_member(JsonReader *reader, json_object *object, const char *key, json_type type,
                         bool needed)
{
        json_object *value = NULL;

        if (!json_object_is_type(object, json_type_object) ||
            !json_object_object_get_ex(object, key, &value)) {
                if (needed)
                        json_fail(reader, "\"%s\" is missing", key);
                return NULL;
        }
        if (!json_object_is_type(value, type)) {
                json_fail(reader, "\"%s\" is not of type %s", key, json_type_to_name(type));
                return NULL;
        }
        return value;
}

const char *json_string(JsonReader *reader, json_object *object, const char *key, bool needed)
{
        json_object *value = json_member(reader, object, key, json_type_string, needed);
        const char *text;

        if (!value)
                return NULL;
        text = json_object_get_string(value);
        if (strlen(text) != (size_t) json_object_get_string_len(value)) {
                json_fail(reader, "\"%s\" has a zero byte in it", key);
                return NULL;
        }
        return text;
}

void json_copy(JsonReader *reader, json_object *object, const char *key, bool needed, char *ret, size_t size)
{
        const char *text = json_string(reader, object, key, needed);

        ret[0] = 0;
        if (!text)
                return;
        if (strlen(text) >= size) {
                json_fail(reader, "\"%s\" is longer than %zu bytes", key, size - 1);
                return;
        }
        memcpy(ret, text, strlen(text) + 1);
}

int64_t json_number(JsonReader *reader, json_object *object, const char *key, int64_t min, int64_t max,
                    int64_t fallback)
{
        json_object *value = json_member(reader, object, key, json_type_int, false);
        int64_t number;

        if (!value)
                return fallback;
        number = json_object_get_int64(value);
        if (number < min || number > max) {
                json_fail(reader, "\"%s\" is %lld, not from %lld to %lld", key, (long long) number,
                          (long long) min, (long long) max);
                return fallback;
        }
        return number;
}

int64_t json_number_needed(JsonReader *reader, json_object *object, const char *key, int64_t min, int64_t max)
{
        (void) json_member(reader, object, key, json_type_int, true);
        return json_number(reader, object, key, min, max, 0);
}

bool json_flag(JsonReader *reader, json_object *object, const char *key, bool fallback)
{
        json_object *value = json_member(reader, object, key, json_type_boolean, false);

        return value ? json_object_get_boolean(value) : fallback;
}

void json_add(json_object *object, const char *key, json_object *value)
{
        if (json_object_object_add(object, key, value) < 0)
                (void) json_need(NULL);
}

void json_add_string(json_object *object, const char *key, const char *value)
{
        json_add(object, key, json_need(json_object_new_string(value)));
}

void json_add_number(json_object *object, const char *key, int64_t value)
{
        json_add(object, key, json_need(json_object_new_int64(value)));
}

void json_add_bool(json_object *object, const char *key, bool value)
{
        json_add(object, key, json_need(json_object_new_boolean(value)));
}

void json_append(json_object *array, json_object *value)
{
        if (json_object_array_add(array, json_need(value)) < 0)
                (void) json_need(NULL);
}

json_object *json_new_object(void)
{
        return json_need(json_object_new_object());
}

json_object *json_new_array(void)
{
        return json_need(json_object_new_array());
}
