/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "json-text.h"

static const char *skip_blanks(const char *p, const char *end)
{
        while (p < end && memchr(" \t\r\n", *p, 4))
                p++;
        return p;
}

/* Behind the closing quote. */
static const char *skip_string(const char *p, const char *end)
{
        for (p++; p < end && *p != '"'; p++)
                if (*p == '\\' && p + 1 < end)
                        p++;
        return p < end ? p + 1 : end;
}

/* Without recursion: how deep it goes is the text's to say. */
static const char *skip_nested(const char *p, const char *end)
{
        size_t depth = 0;

        while (p < end) {
                if (*p == '"') {
                        p = skip_string(p, end);
                        continue;
                }
                if (*p == '{' || *p == '[')
                        depth++;
                else if ((*p == '}' || *p == ']') && --depth == 0)
                        return p + 1;
                p++;
        }
        return end;
}

static const char *skip_value(const char *p, const char *end)
{
        if (p < end && *p == '"')
                return skip_string(p, end);
        if (p < end && (*p == '{' || *p == '['))
                return skip_nested(p, end);
        while (p < end && !memchr(",]} \t\r\n", *p, 7))
                p++;
        return p;
}

JsonText json_text_root(const char *text, size_t size)
{
        const char *end = text + size, *p = skip_blanks(text, end);

        return p < end ? (JsonText){p, (size_t) (skip_value(p, end) - p)} : (JsonText){};
}

/* To the next member or element: past blanks, and a comma if there is one. NULL at the end. */
static const char *next_item(const char *p, const char *end)
{
        p = skip_blanks(p, end);
        if (p < end && *p == ',')
                p = skip_blanks(p + 1, end);
        return p < end && *p != '}' && *p != ']' ? p : NULL;
}

/* From a key to its value. NULL: there is none. */
static const char *value_of(const char *key, const char *end)
{
        const char *p = skip_blanks(skip_value(key, end), end);

        if (p >= end || *p != ':')
                return NULL;
        p = skip_blanks(p + 1, end);
        return p < end ? p : NULL;
}

JsonText json_text_member(JsonText object, const char *key)
{
        size_t n = strlen(key);
        const char *end, *p;
        JsonText found = {};

        if (object.n == 0 || *object.p != '{')
                return found;
        end = object.p + object.n;
        p = next_item(object.p + 1, end);
        while (p) {
                const char *value = value_of(p, end), *behind;

                if (!value)
                        break;
                behind = skip_value(value, end);
                if ((size_t) (end - p) > n + 1 && *p == '"' && memcmp(p + 1, key, n) == 0 && p[n + 1] == '"')
                        found = (JsonText){value, (size_t) (behind - value)};
                p = next_item(behind, end);
        }
        return found;
}

JsonText json_text_next(JsonText array, JsonText previous)
{
        const char *end, *p;

        if (array.n == 0 || *array.p != '[')
                return (JsonText){};
        end = array.p + array.n;
        p = next_item(previous.p ? previous.p + previous.n : array.p + 1, end);
        return p ? (JsonText){p, (size_t) (skip_value(p, end) - p)} : (JsonText){};
}

size_t json_text_count(JsonText object)
{
        const char *end, *p;
        size_t n = 0;

        if (object.n == 0 || *object.p != '{')
                return 0;
        end = object.p + object.n;
        p = next_item(object.p + 1, end);
        while (p) {
                const char *value = value_of(p, end);

                if (!value)
                        break;
                n++;
                p = next_item(skip_value(value, end), end);
        }
        return n;
}

uint32_t json_text_line(const char *text, JsonText value)
{
        uint32_t line = 1;

        for (const char *p = text; value.p && p < value.p; p++)
                line += *p == '\n';
        return line;
}
