/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client.h"

#define BAR_WIDTH 44

typedef struct Window {
        uint64_t start_usec, end_usec; /* what the bars show */
} Window;

static void bar(const Window *w, uint64_t start, uint64_t end, char ret[BAR_WIDTH + 1])
{
        uint64_t span = w->end_usec > w->start_usec ? w->end_usec - w->start_usec : 1;
        uint64_t from = start > w->start_usec ? (start - w->start_usec) * BAR_WIDTH / span : 0;
        uint64_t to = end > w->start_usec ? (end - w->start_usec) * BAR_WIDTH / span : 0;

        from = MIN(from, (uint64_t) BAR_WIDTH - 1);
        to = MIN(MAX(to, from + 1), (uint64_t) BAR_WIDTH);
        memset(ret, '.', BAR_WIDTH);
        memset(ret + from, '#', to - from);
        ret[BAR_WIDTH] = 0;
}

static bool in_window(const Window *w, json_object *span)
{
        uint64_t start = (uint64_t) client_number(span, "start_usec"),
                 end = (uint64_t) client_number(span, "end_usec");

        return end >= w->start_usec && start <= w->end_usec;
}

static void add_span(Table *table, const Window *w, json_object *span)
{
        uint64_t start = (uint64_t) client_number(span, "start_usec"),
                 end = (uint64_t) client_number(span, "end_usec");
        int64_t status = client_number(span, "status"), bytes = client_number(span, "bytes");
        char line[BAR_WIDTH + 1], took[32], moved[32] = "", what[160];
        const char *device = client_text(span, "device");
        bool is_phase = streq(client_text(span, "who"), "peer");
        const char *cells[] = {client_text(span, "phase"),
                               is_phase    ? "all"
                               : device[0] ? device
                                           : client_text(span, "who"),
                               what,
                               took,
                               moved,
                               line};

        (void) snprintf(what, sizeof what, "%s%s%s", client_text(span, "what"), status < 0 ? ": " : "",
                        status < 0 ? strerror((int) -status) : "");
        if (bytes > 0)
                (void) format_bytes((uint64_t) bytes, moved);
        (void) format_usec(end - start, took);
        bar(w, start, end, line);
        table_row(table, cells);
}

static int by_start(const void *a, const void *b)
{
        int64_t left = client_number(*(json_object *const *) a, "start_usec");
        int64_t right = client_number(*(json_object *const *) b, "start_usec");

        if (left != right)
                return left < right ? -1 : 1;
        return streq(client_text(*(json_object *const *) b, "who"), "peer") -
               streq(client_text(*(json_object *const *) a, "who"), "peer");
}

/* The spans before the blackout in a line each; the blackout as bars. */
static void print_part(json_object *spans, const Window *w, const char *title, bool phases_only, FILE *f)
{
        static const Column columns[] = {{"PHASE"}, {"WHO", 2}, {"WHAT", 3},
                                         {"TOOK"},  {"MOVED"},  {"WHEN", 1}};
        Table *table = table_new(columns, ARRAY_SIZE(columns));
        char length[32];
        size_t n = 0;

        for (size_t i = 0; i < json_object_array_length(spans); i++) {
                json_object *span = json_object_array_get_idx(spans, i);

                if (!in_window(w, span) || (phases_only && !streq(client_text(span, "who"), "peer")))
                        continue;
                add_span(table, w, span);
                n++;
        }
        if (n > 0)
                fprintf(f, "\n%s (%s)\n", title, format_usec(w->end_usec - w->start_usec, length));
        table_print(table, n > 0, f);
}

void timeline_view(json_object *job, FILE *f)
{
        json_object *spans = NULL;
        uint64_t blackout = (uint64_t) client_number(job, "blackout_usec");
        uint64_t start = (uint64_t) client_number(job, "blackout_start_usec"), last = 0;

        if (!json_object_object_get_ex(job, "timeline", &spans) ||
            !json_object_is_type(spans, json_type_array))
                return;
        json_object_array_sort(spans, by_start);
        for (size_t i = 0; i < json_object_array_length(spans); i++)
                last = MAX(last, (uint64_t) client_number(json_object_array_get_idx(spans, i), "end_usec"));
        print_part(spans, &(Window){0, last}, "The whole job", true, f);
        if (start > 0 && blackout > 0)
                print_part(spans, &(Window){start, start + blackout}, "The blackout", false, f);
}
