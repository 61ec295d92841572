/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "timeline.h"

#include <stdio.h>

#include "common/log.h"

void timeline_deinit(Timeline *timeline)
{
        free(timeline->spans);
        *timeline = (Timeline){};
}

void timeline_add(Timeline *timeline, const Span *span)
{
        if (timeline->n == timeline->room) {
                uint32_t room = timeline->room ? timeline->room * 2 : 64;
                Span *spans = room > SPANS_MAX ? NULL : realloc(timeline->spans, room * sizeof *spans);

                if (!spans)
                        return; /* it is only for people */
                timeline->spans = spans;
                timeline->room = room;
        }
        timeline->spans[timeline->n++] = *span;
}

static json_object *span_to_json(const Span *s, const char *const *ids)
{
        json_object *o = json_new_object();

        json_add_string(o, "half", side_to_string(s->side));
        json_add_string(o, "phase", phase_to_string(s->phase));
        json_add_string(o, "who", half_who_to_string(s->who));
        if (s->device >= 0)
                json_add_string(o, "device", ids[s->device]);
        json_add_string(o, "what", s->what);
        if (s->bytes > 0)
                json_add_number(o, "bytes", (int64_t) s->bytes);
        if (s->status < 0)
                json_add_number(o, "status", s->status);
        return o;
}

json_object *timeline_to_json(const Timeline *timeline, uint32_t from, const char *const *ids)
{
        json_object *array = json_new_array();

        for (uint32_t i = from; i < timeline->n; i++) {
                json_object *o = span_to_json(&timeline->spans[i], ids);

                json_add_number(o, "start_usec", (int64_t) timeline->spans[i].start_usec);
                json_add_number(o, "end_usec", (int64_t) timeline->spans[i].end_usec);
                json_append(array, o);
        }
        return array;
}

static void add_ago(json_object *o, const char *key, uint64_t usec, uint64_t now_usec)
{
        json_add_number(o, key, now_usec > usec ? (int64_t) (now_usec - usec) : 0);
}

json_object *timeline_to_peer(const Timeline *timeline, uint32_t from, const char *const *ids,
                              uint64_t now_usec)
{
        json_object *array = json_new_array();

        for (uint32_t i = from; i < timeline->n && i - from < SPANS_SENT_MAX; i++) {
                json_object *o = span_to_json(&timeline->spans[i], ids);

                add_ago(o, "start_ago_usec", timeline->spans[i].start_usec, now_usec);
                add_ago(o, "end_ago_usec", timeline->spans[i].end_usec, now_usec);
                json_append(array, o);
        }
        return array;
}

static int32_t find_id(const char *id, const char *const *ids, uint32_t n_ids)
{
        for (uint32_t i = 0; id && i < n_ids; i++)
                if (streq(ids[i], id))
                        return (int32_t) i;
        return -1;
}

static uint64_t take_ago(JsonReader *reader, json_object *o, const char *key, uint64_t now_usec)
{
        int64_t ago = json_number_needed(reader, o, key, 0, INT64_MAX);

        return now_usec > (uint64_t) ago ? now_usec - (uint64_t) ago : 0;
}

static bool take_span(json_object *o, uint64_t now_usec, const char *const *ids, uint32_t n_ids, Span *ret)
{
        JsonReader reader = {.where = "timeline"};
        const char *phase = json_string(&reader, o, "phase", true),
                   *who = json_string(&reader, o, "who", true);
        const char *what = json_string(&reader, o, "what", true),
                   *device = json_string(&reader, o, "device", false);

        if (reader.failed)
                return false;
        *ret = (Span){.side = SIDE_DESTINATION,
                      .phase = phase_from_string(phase),
                      .who = half_who_from_string(who),
                      .device = find_id(device, ids, n_ids),
                      .start_usec = take_ago(&reader, o, "start_ago_usec", now_usec),
                      .end_usec = take_ago(&reader, o, "end_ago_usec", now_usec),
                      .bytes = (uint64_t) json_number(&reader, o, "bytes", 0, INT64_MAX, 0),
                      .status = (int) json_number(&reader, o, "status", -4095, 0, 0)};
        (void) log_printable(what, ret->what, sizeof ret->what);
        return !reader.failed && (int) ret->phase >= 0 && (int) ret->who >= 0 &&
               ret->end_usec >= ret->start_usec;
}

void timeline_take(Timeline *timeline, json_object *array, uint64_t now_usec, const char *const *ids,
                   uint32_t n_ids)
{
        Span span;

        if (!json_object_is_type(array, json_type_array))
                return;
        for (size_t i = 0; i < json_object_array_length(array) && i < SPANS_MAX; i++)
                if (take_span(json_object_array_get_idx(array, i), now_usec, ids, n_ids, &span))
                        timeline_add(timeline, &span);
}
