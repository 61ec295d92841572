/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "policy-reader.h"

#include <stdarg.h>
#include <stdio.h>

#include "common/json-text.h"
#include "common/log.h"

#define SHOWN_MAX 60 /* bytes of a wrong value that are told */

typedef struct Reader {
        JsonReader json; /* what is wrong */
        const char *file;
        const char *text;
        PolicyRules *rules;
        PolicyRule *rule; /* the one in hand */
        JsonText rule_text;
} Reader;

/* An object: its members, and where it stands. */
typedef struct Place {
        json_object *object;
        JsonText text;
} Place;

/* What is wrong with a member of that object, on its line. `key` NULL: with the object itself. */
_printf_(4, 5) static void fail(Reader *reader, const Place *place, const char *key, const char *format, ...)
{
        JsonText at = {};
        char where[JSON_TEXT_MAX], what[JSON_TEXT_MAX];
        va_list ap;

        if (reader->json.failed)
                return; /* the first one counts, and where it is takes time to find */
        if (key)
                at = json_text_member(place->text, key);
        if (!at.p)
                at = place->text.p ? place->text : reader->rule_text;
        (void) snprintf(where, sizeof where, "%.200s:%u", reader->file, json_text_line(reader->text, at));
        va_start(ap, format);
        (void) vsnprintf(what, sizeof what, format, ap);
        va_end(ap);
        reader->json.where = where;
        json_fail(&reader->json, "%s", what);
        reader->json.where = reader->file;
}

static const char *shown(json_object *value, char ret[SHOWN_MAX + 4])
{
        const char *text = json_print(value, JSON_C_TO_STRING_NOSLASHESCAPE);

        (void) snprintf(ret, SHOWN_MAX + 4, "%.*s%s", SHOWN_MAX, text, strlen(text) > SHOWN_MAX ? "..." : "");
        return ret;
}

/* An object whose members are all in `keys`, each said once. False: it was said what is wrong. */
static bool is_object(Reader *reader, const Place *place, const char *name, const char *const *keys)
{
        char text[SHOWN_MAX + 4], known[JSON_TEXT_MAX] = "";
        size_t n = 0;

        if (!place->text.p) { /* nothing in it could be told by its line */
                fail(reader, place, NULL, "%s has to be written without escapes", name);
                return false;
        }
        if (!json_object_is_type(place->object, json_type_object)) {
                fail(reader, place, NULL, "%s is %s; it has to be an object, { ... }", name,
                     shown(place->object, text));
                return false;
        }
        for (size_t i = 0; keys && keys[i] && n < sizeof known; i++)
                n += (size_t) snprintf(known + n, sizeof known - n, "%s%s", i ? ", " : "", keys[i]);
        json_object_object_foreach (place->object, key, value) {
                bool is_known = !keys;

                (void) value;
                for (size_t i = 0; keys && keys[i]; i++)
                        is_known |= streq(keys[i], key);
                if (!is_known)
                        fail(reader, place, key, "%s has no key \"%.60s\"; it has %s", name, key, known);
        }
        if (!reader->json.failed &&
            json_text_count(place->text) != (size_t) json_object_object_length(place->object))
                fail(reader, place, NULL, "%s says a key twice; each may be there once", name);
        return !reader->json.failed;
}

/* A text of 1 to `most` printable bytes, or NULL: there is none, or it was said what is wrong. */
static const char *read_text(Reader *reader, const Place *place, const char *key, size_t most)
{
        char text[SHOWN_MAX + 4];
        json_object *value;
        const char *s;
        size_t n = 0;

        if (!json_object_object_get_ex(place->object, key, &value))
                return NULL;
        s = json_object_get_string(value);
        if (json_object_is_type(value, json_type_string))
                while (n <= most && (unsigned char) s[n] >= ' ' && s[n] != 127)
                        n++;
        if (n > 0 && n <= most && n == (size_t) json_object_get_string_len(value))
                return s;
        fail(reader, place, key, "\"%s\" is %s; it has to be a text of 1 to %zu printable bytes", key,
             shown(value, text), most);
        return NULL;
}

/* ---- match ----------------------------------------------------------------------------------------------------- */

static bool is_kind(const char *text)
{
        return (int) device_type_from_string(text) >= 0;
}

/* "15b3:101e", "15b3:*" */
static bool is_pci_id(const char *text)
{
        static const char hex[] = "0123456789abcdef";

        return strspn(text, hex) == 4 && text[4] == ':' &&
               (streq(text + 5, "*") || (strspn(text + 5, hex) == 4 && text[9] == 0));
}

static bool is_anything(const char *text)
{
        return true;
}

typedef struct Criterion {
        const char *key;
        size_t offset, size; /* of its text in PolicyMatch */
        bool (*is_valid)(const char *text);
        const char *allowed;
} Criterion;

#define CRITERION(name, member, check, what)                                                             \
        {                                                                                                \
                name, offsetof(PolicyMatch, member), sizeof(((PolicyMatch *) NULL)->member), check, what \
        }

static const Criterion criteria[] = {
        CRITERION("kind", kind, is_kind, "vfio, vfio-user"),
        CRITERION("driver", driver, is_anything, ""),
        CRITERION("device", device, is_pci_id,
                  "PCI vendor and device in lower case, as 15b3:101e, or 15b3:* for each of a vendor"),
        CRITERION("subsystem", subsystem, is_pci_id,
                  "PCI subsystem vendor and device in lower case, as 15b3:0058, or 15b3:*"),
        CRITERION("id", id, is_anything, ""),
        CRITERION("plugin", plugin, is_anything, ""),
};

static void read_criterion(Reader *reader, const Place *place, const Criterion *criterion, PolicyMatch *match)
{
        size_t most = criterion->is_valid == is_anything ? criterion->size - 1 : POLICY_PATTERN_MAX;
        const char *text = read_text(reader, place, criterion->key, most);

        if (!text)
                return;
        if (!criterion->is_valid(text))
                fail(reader, place, criterion->key, "\"%s\" is \"%s\"; allowed: %s", criterion->key, text,
                     criterion->allowed);
        else
                memcpy((char *) match + criterion->offset, text, strlen(text) + 1);
}

static void read_label(Reader *reader, const Place *place, PolicyMatch *match)
{
        Place label = {.text = json_text_member(place->text, "label")};
        const char *value;

        if (!json_object_object_get_ex(place->object, "label", &label.object) ||
            !is_object(reader, &label, "\"label\"", NULL))
                return;
        if (json_object_object_length(label.object) != 1) {
                fail(reader, place, "label",
                     "\"label\" has %d members; it has to be one, {\"name\": \"value\"}",
                     json_object_object_length(label.object));
                return;
        }
        json_object_object_foreach (label.object, name, unused) {
                (void) unused;
                value = read_text(reader, &label, name, POLICY_PATTERN_MAX);
                if (value && (!*name || strlen(name) > FACT_KEY_MAX))
                        fail(reader, &label, name, "\"%.60s\" is no name of a label: 1 to %d bytes", name,
                             FACT_KEY_MAX);
                if (reader->json.failed || !value)
                        return;
                memcpy(match->label, name, strlen(name) + 1);
                memcpy(match->label_value, value, strlen(value) + 1);
        }
}

static void read_match(Reader *reader, const Place *rule)
{
        static const char *const match_keys[] = {"kind", "driver", "device", "subsystem",
                                                 "id",   "plugin", "label",  NULL};
        Place place = {.text = json_text_member(rule->text, "match")};

        if (!json_object_object_get_ex(rule->object, "match", &place.object) ||
            !is_object(reader, &place, "\"match\"", match_keys))
                return;
        for (size_t i = 0; i < ARRAY_SIZE(criteria); i++)
                read_criterion(reader, &place, &criteria[i], &reader->rule->match);
        read_label(reader, &place, &reader->rule->match);
}

/* ---- set ------------------------------------------------------------------------------------------------------- */

/* What stands before the dot of "deadline-ms.drain", or the whole name. */
static size_t stem_of(const char *name)
{
        return strcspn(name, ".");
}

/* The names that may follow a prefix ("" or "deadline-ms."), for people. */
static void list_keys(const char *prefix, char *ret, size_t size)
{
        size_t skip = strlen(prefix), n = 0;
        const char *last = NULL;

        ret[0] = 0;
        for (PolicyKey key = 0; key < POLICY_KEY_MAX && n < size; key++) {
                const char *name = policy_key(key)->name;

                if (strncmp(name, prefix, skip) != 0)
                        continue;
                name += skip;
                if (last && stem_of(last) == stem_of(name) && strncmp(last, name, stem_of(name)) == 0)
                        continue;
                n += (size_t) snprintf(ret + n, size - n, "%s%.*s", last ? ", " : "", (int) stem_of(name),
                                       name);
                last = name;
        }
        if (skip == 0 && n < size)
                (void) snprintf(ret + n, size - n, ", compat");
}

static void list_words(const PolicyKeyDesc *desc, char *ret, size_t size)
{
        size_t n = 0;

        if (!desc->words[0]) {
                (void) snprintf(ret, size, "a whole number from %llu to %llu",
                                (unsigned long long) desc->least, (unsigned long long) desc->most);
                return;
        }
        for (size_t i = 0; i < ARRAY_SIZE(desc->words) && desc->words[i] && n < size; i++)
                n += (size_t) snprintf(ret + n, size - n, "%s%s", i ? ", " : "", desc->words[i]);
}

/* A word's index, or a number. */
static bool value_of(const PolicyKeyDesc *desc, json_object *value, uint64_t *ret)
{
        const char *text;
        int64_t number;

        if (!desc->words[0]) {
                number = json_object_get_int64(value);
                *ret = (uint64_t) number;
                return json_object_is_type(value, json_type_int) && number >= 0 && *ret >= desc->least &&
                       *ret <= desc->most;
        }
        if (!json_object_is_type(value, json_type_string))
                return false;
        text = json_object_get_string(value);
        for (size_t i = 0; i < ARRAY_SIZE(desc->words) && desc->words[i]; i++)
                if (streq(desc->words[i], text)) {
                        *ret = i;
                        return true;
                }
        return false;
}

static void read_value(Reader *reader, const Place *place, const char *member, PolicyKey key,
                       json_object *value)
{
        const PolicyKeyDesc *desc = policy_key(key);
        char text[SHOWN_MAX + 4], allowed[128];

        if (desc->scope == POLICY_SCOPE_VM && !policy_match_is_of_vm(&reader->rule->match)) {
                fail(reader, place, member,
                     "\"%s\" is about VMs: a rule that sets it may match by \"label\" and by nothing else",
                     desc->name);
                return;
        }
        if (value_of(desc, value, &reader->rule->values[key])) {
                reader->rule->sets[key] = true;
                return;
        }
        list_words(desc, allowed, sizeof allowed);
        fail(reader, place, member, "\"%s\" is %s; allowed: %s", desc->name, shown(value, text), allowed);
}

static void read_key(Reader *reader, const Place *place, const char *prefix, const char *member,
                     json_object *value)
{
        char name[64], known[JSON_TEXT_MAX];
        PolicyKey key;

        (void) snprintf(name, sizeof name, "%s%.40s", prefix, member);
        key = policy_key_from_string(name);
        if (key != POLICY_KEY_INVALID && !strchr(member, '.')) {
                read_value(reader, place, member, key, value);
                return;
        }
        list_keys(prefix, known, sizeof known);
        fail(reader, place, member, "\"%s\" is no key; allowed: %s", name, known);
}

/* "deadline-ms", "precopy-limit": objects whose members are keys. */
static bool is_group(const char *name)
{
        for (PolicyKey key = 0; key < POLICY_KEY_MAX; key++) {
                const char *full = policy_key(key)->name;

                if (full[stem_of(full)] && strlen(name) == stem_of(full) &&
                    strncmp(name, full, stem_of(full)) == 0)
                        return true;
        }
        return false;
}

static void read_group(Reader *reader, const Place *set, const char *name, json_object *value)
{
        Place place = {value, json_text_member(set->text, name)};
        char prefix[40], quoted[40];

        (void) snprintf(prefix, sizeof prefix, "%s.", name);
        (void) snprintf(quoted, sizeof quoted, "\"%s\"", name);
        if (!is_object(reader, &place, quoted, NULL))
                return;
        json_object_object_foreach (value, member, child)
                read_key(reader, &place, prefix, member, child);
}

/* ---- compat ---------------------------------------------------------------------------------------------------- */

static bool is_fact(const char *name)
{
        size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789._-");

        return n > 0 && n <= FACT_KEY_MAX && name[n] == 0;
}

static bool is_fact_value(json_object *value)
{
        const char *text = json_object_get_string(value);
        size_t n = 0;

        if (!json_object_is_type(value, json_type_string))
                return false;
        while (n <= FACT_VALUE_MAX && (unsigned char) text[n] >= ' ' && text[n] != 127)
                n++;
        return n > 0 && n <= FACT_VALUE_MAX && n == (size_t) json_object_get_string_len(value);
}

static void read_choices(Reader *reader, const Place *place, const char *fact, json_object *array,
                         PolicyCompat *compat)
{
        size_t n = json_object_array_length(array);

        if (n == 0 || n > POLICY_CHOICES_MAX) {
                fail(reader, place, fact, "\"%s\": %zu values; allowed: 1 to %d", fact, n,
                     POLICY_CHOICES_MAX);
                return;
        }
        compat->choices = calloc(n, sizeof *compat->choices);
        if (!compat->choices)
                out_of_memory();
        for (size_t i = 0; i < n; i++) {
                json_object *value = json_object_array_get_idx(array, i);
                char text[SHOWN_MAX + 4];

                if (!is_fact_value(value)) {
                        fail(reader, place, fact,
                             "\"%s\": %s; each value has to be a text of 1 to %d printable bytes", fact,
                             shown(value, text), FACT_VALUE_MAX);
                        return;
                }
                memcpy(compat->choices[i], json_object_get_string(value),
                       (size_t) json_object_get_string_len(value));
                compat->n_choices++;
        }
}

static void read_fact(Reader *reader, const Place *place, const char *fact, json_object *value)
{
        PolicyCompat *compat = &reader->rule->compat[reader->rule->n_compat++];
        char text[SHOWN_MAX + 4];

        if (!is_fact(fact)) {
                fail(reader, place, fact, "\"%.60s\" is no name of a fact: 1 to %d of a-z 0-9 . _ -", fact,
                     FACT_KEY_MAX);
                return;
        }
        memcpy(compat->fact, fact, strlen(fact) + 1);
        compat->how = COMPAT_IN;
        if (json_object_is_type(value, json_type_array)) {
                read_choices(reader, place, fact, value, compat);
                return;
        }
        if (json_object_is_type(value, json_type_string))
                compat->how = compat_how_from_string(json_object_get_string(value));
        /* COMPAT_IN by its name would be a set of nothing. */
        if ((int) compat->how < 0 || compat->how == COMPAT_IN)
                fail(reader, place, fact, "\"%s\" is %s; allowed: %s, %s, %s, or an array of values", fact,
                     shown(value, text), compat_how_to_string(COMPAT_EQUAL),
                     compat_how_to_string(COMPAT_AT_LEAST), compat_how_to_string(COMPAT_IGNORE));
}

static void read_compat(Reader *reader, const Place *set, json_object *value)
{
        Place place = {value, json_text_member(set->text, "compat")};

        if (!is_object(reader, &place, "\"compat\"", NULL))
                return;
        if (json_object_object_length(value) > POLICY_COMPAT_MAX) {
                fail(reader, set, "compat", "\"compat\" has %d facts; allowed: %d in one rule",
                     json_object_object_length(value), POLICY_COMPAT_MAX);
                return;
        }
        json_object_object_foreach (value, fact, how)
                if (!reader->json.failed)
                        read_fact(reader, &place, fact, how);
}

static void read_set(Reader *reader, const Place *rule)
{
        Place place = {.text = json_text_member(rule->text, "set")};

        if (!json_object_object_get_ex(rule->object, "set", &place.object)) {
                fail(reader, rule, NULL, "a rule without \"set\"");
                return;
        }
        if (!is_object(reader, &place, "\"set\"", NULL))
                return;
        json_object_object_foreach (place.object, name, value)
                if (reader->json.failed)
                        return;
                else if (streq(name, "compat"))
                        read_compat(reader, &place, value);
                else if (is_group(name))
                        read_group(reader, &place, name, value);
                else
                        read_key(reader, &place, "", name, value);
}

/* ---- rules ----------------------------------------------------------------------------------------------------- */

/* Whether no more different facts are compared, by all rules, than a view has room for. */
static bool facts_fit(const PolicyRules *rules)
{
        const char *facts[POLICY_FACTS_MAX];
        uint32_t n = 0;

        for (uint32_t i = 0; i < rules->n; i++)
                for (uint32_t k = 0; k < rules->rules[i].n_compat; k++) {
                        const char *fact = rules->rules[i].compat[k].fact;
                        uint32_t known = 0;

                        while (known < n && !streq(facts[known], fact))
                                known++;
                        if (known < n)
                                continue;
                        if (n == POLICY_FACTS_MAX)
                                return false;
                        facts[n++] = fact;
                }
        return true;
}

static PolicyRule *add_rule(Reader *reader, const Place *place)
{
        PolicyRules *rules = reader->rules;
        PolicyRule *rule;

        if (rules->n >= POLICY_RULES_MAX) {
                fail(reader, place, NULL, "more than %d rules in all files", POLICY_RULES_MAX);
                return NULL;
        }
        if ((rules->n & (rules->n - 1)) == 0) { /* to the next power of two */
                rules->rules = realloc(rules->rules, MAX(2 * rules->n, 1) * sizeof *rules->rules);
                if (!rules->rules)
                        out_of_memory();
        }
        rule = &rules->rules[rules->n++];
        *rule = (PolicyRule){.file = strdup(reader->file), .line = json_text_line(reader->text, place->text)};
        if (!rule->file)
                out_of_memory();
        return rule;
}

static void read_rule(Reader *reader, const Place *place)
{
        static const char *const rule_keys[] = {"match", "set", "comment", NULL};

        reader->rule_text = place->text;
        if (!is_object(reader, place, "a rule", rule_keys))
                return;
        reader->rule = add_rule(reader, place);
        if (!reader->rule)
                return;
        (void) read_text(reader, place, "comment", POLICY_TEXT_MAX);
        read_match(reader, place);
        read_set(reader, place);
}

static void read_root(Reader *reader, const Place *root, char *ret_description)
{
        static const char *const root_keys[] = {"description", "comment", "rules", NULL};
        JsonText rules = json_text_member(root->text, "rules");
        const char *description;
        json_object *array;
        Place place = {};

        if (!is_object(reader, root, "a policy", root_keys))
                return;
        description = read_text(reader, root, "description", POLICY_DESCRIPTION_MAX);
        (void) snprintf(ret_description, POLICY_DESCRIPTION_MAX + 1, "%s", description ? description : "");
        (void) read_text(reader, root, "comment", POLICY_TEXT_MAX);
        if (!json_object_object_get_ex(root->object, "rules", &array) ||
            !json_object_is_type(array, json_type_array)) {
                fail(reader, root, "rules", "a policy needs \"rules\", an array");
                return;
        }
        for (size_t i = 0; i < json_object_array_length(array) && !reader->json.failed; i++) {
                place = (Place){json_object_array_get_idx(array, i), json_text_next(rules, place.text)};
                read_rule(reader, &place);
        }
        if (!reader->json.failed && !facts_fit(reader->rules))
                fail(reader, root, "rules", "\"compat\": more than %d different facts in all files",
                     POLICY_FACTS_MAX);
}

static void read_text_of(Reader *reader, const char *text, size_t size, char *ret_description)
{
        JsonReader parser = {.where = "JSON", .counts_keys = true};
        Place place = {json_parse(&parser, text, size), json_text_root(text, size)};

        if (place.object) {
                read_root(reader, &place, ret_description);
        } else {
                place.text = (JsonText){text + MIN(parser.at, size), 1};
                fail(reader, &place, NULL, "%s", parser.text);
        }
        json_object_put(place.object);
}

int policy_read_text(const char *name, const char *text, size_t size, size_t most, PolicyRules *rules,
                     char *ret_description, char *ret_error)
{
        Reader reader = {.json.where = name, .file = name, .text = text, .rules = rules};

        if (size > most)
                json_fail(&reader.json, "longer than %zu bytes", most);
        else
                read_text_of(&reader, text, size, ret_description);
        if (!reader.json.failed)
                return 0;
        memcpy(ret_error, reader.json.text, JSON_TEXT_MAX);
        return -EINVAL;
}

int policy_read(const char *file, const char *text, size_t size, PolicyRules *rules, char *ret_description,
                char *ret_error)
{
        return policy_read_text(file, text, size, POLICY_TEXT_MAX, rules, ret_description, ret_error);
}
