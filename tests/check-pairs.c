/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Judges pairs of hosts as the two daemons would: each line of standard input is one pair,
 *   {"source": MANIFEST, "destination": MANIFEST}
 * read by the readers that the daemons have, and each line of standard output what is found, [FINDING...], or
 * {"error": TEXT} when a reader does not take it. tests/system/check_oracle.py asks, tests/bench/check measures. */

#include <stdio.h>

#include "daemon/manifest-json.h"

static bool read_manifest(JsonReader *reader, json_object *pair, const char *key, Manifest *ret)
{
        json_object *object = json_member(reader, pair, key, json_type_object, true);

        if (!reader->failed && manifest_from_json(reader, object, ret) < 0 && !reader->failed)
                json_fail(reader, "out of memory");
        return !reader->failed;
}

static json_object *judge(const Manifest *source, const Manifest *destination)
{
        json_object *array = json_new_array();
        Findings findings = {};

        if (check_side(source, SIDE_SOURCE, &findings) < 0 ||
            check_side(destination, SIDE_DESTINATION, &findings) < 0 ||
            check_pair(source, destination, &findings) < 0)
                abort();
        findings_to_json(&findings, array);
        findings_deinit(&findings);
        return array;
}

static json_object *answer(const char *line, size_t size)
{
        JsonReader reader = {.where = "pair"};
        json_object *pair = json_parse(&reader, line, size), *ret;
        Manifest source = {}, destination = {};

        if (!reader.failed && read_manifest(&reader, pair, "source", &source) &&
            read_manifest(&reader, pair, "destination", &destination)) {
                ret = judge(&source, &destination);
        } else {
                ret = json_new_object();
                json_add_string(ret, "error", reader.text);
        }
        manifest_deinit(&source);
        manifest_deinit(&destination);
        json_object_put(pair);
        return ret;
}

int main(void)
{
        char *line = NULL;
        size_t room = 0;
        ssize_t n;

        while ((n = getline(&line, &room, stdin)) > 0) {
                json_object *said = answer(line, (size_t) n);

                puts(json_object_to_json_string_ext(said, JSON_C_TO_STRING_PLAIN));
                json_object_put(said);
        }
        free(line);
        return 0;
}
