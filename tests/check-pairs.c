/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Judges pairs of hosts as the two daemons do together: each line of standard input is one pair,
 *   {"source": MANIFEST, "destination": MANIFEST, "policies": {"source": [FILE...], "destination": [FILE...]}}
 * read by the readers that the daemons have, and each line of standard output what the source reports, [FINDING...], or
 * {"error": TEXT} when a reader does not take it. tests/system/check_oracle.py asks, tests/system/check_bench.py measures. */

#include <stdio.h>

#include "daemon/manifest-json.h"
#include "daemon/policy-reader.h"

typedef struct Host {
        Manifest manifest;
        PolicyRules rules;
} Host;

static bool read_policies(JsonReader *reader, json_object *files, PolicyRules *rules)
{
        char description[POLICY_DESCRIPTION_MAX + 1], error[JSON_TEXT_MAX], name[16];
        size_t n = files ? json_object_array_length(files) : 0;

        for (size_t i = 0; i < n && !reader->failed; i++) {
                const char *text = json_object_to_json_string_ext(json_object_array_get_idx(files, i),
                                                                  JSON_C_TO_STRING_PLAIN);

                (void) snprintf(name, sizeof name, "%zu.json", i);
                if (policy_read(name, text, strlen(text), rules, description, error) < 0)
                        json_fail(reader, "%.300s", error);
        }
        return !reader->failed;
}

static bool read_host(JsonReader *reader, json_object *pair, const char *key, Host *ret)
{
        json_object *object = json_member(reader, pair, key, json_type_object, true);
        json_object *policies = json_member(reader, pair, "policies", json_type_object, true);

        if (!reader->failed && manifest_from_json(reader, object, &ret->manifest) < 0 && !reader->failed)
                json_fail(reader, "out of memory");
        return !reader->failed &&
               read_policies(reader, json_member(reader, policies, key, json_type_array, true), &ret->rules);
}

/* The source its own and the pair, the destination all again: each under its own policies. */
static json_object *judge(const Host *source, const Host *destination)
{
        json_object *ours = json_new_array(), *theirs = json_new_array();
        Findings here = {}, there = {};

        if (check_side(&source->manifest, &source->rules, SIDE_SOURCE, &here) < 0 ||
            check_pair(&source->manifest, &destination->manifest, &source->rules, &here) < 0 ||
            check_side(&source->manifest, &destination->rules, SIDE_SOURCE, &there) < 0 ||
            check_side(&destination->manifest, &destination->rules, SIDE_DESTINATION, &there) < 0 ||
            check_pair(&source->manifest, &destination->manifest, &destination->rules, &there) < 0)
                abort();
        findings_to_json(&here, ours);
        findings_to_json(&there, theirs);
        findings_take(theirs, ours);
        findings_deinit(&here);
        findings_deinit(&there);
        json_object_put(theirs);
        return ours;
}

static json_object *answer(const char *line, size_t size)
{
        JsonReader reader = {.where = "pair"};
        json_object *pair = json_parse(&reader, line, size), *ret;
        Host source = {}, destination = {};

        if (!reader.failed && read_host(&reader, pair, "source", &source) &&
            read_host(&reader, pair, "destination", &destination)) {
                ret = judge(&source, &destination);
        } else {
                ret = json_new_object();
                json_add_string(ret, "error", reader.text);
        }
        manifest_deinit(&source.manifest);
        manifest_deinit(&destination.manifest);
        policy_rules_deinit(&source.rules);
        policy_rules_deinit(&destination.rules);
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
