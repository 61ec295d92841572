/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "measured.h"

#include "common/log.h"
#include "timeline.h"

/* A time in which a device was busy, within the blackout. */
typedef struct Busy {
        const MeasuredDevice *device;
        uint64_t start_usec, end_usec;
} Busy;

void measured_deinit(Measured *measured)
{
        free(measured->devices);
        *measured = (Measured){};
}

static int by_id(const void *a, const void *b)
{
        return strcmp(((const MeasuredDevice *) a)->id, ((const MeasuredDevice *) b)->id);
}

const MeasuredDevice *measured_find(const Measured *measured, const char *id)
{
        MeasuredDevice key = {};

        if (strlen(id) > DEVICE_ID_MAX || measured->n == 0)
                return NULL;
        memcpy(key.id, id, strlen(id));
        return bsearch(&key, measured->devices, measured->n, sizeof key, by_id);
}

static int by_device_and_start(const void *a, const void *b)
{
        const Busy *left = a, *right = b;

        if (left->device != right->device)
                return left->device < right->device ? -1 : 1;
        return (left->start_usec > right->start_usec) - (left->start_usec < right->start_usec);
}

static uint64_t number(json_object *o, const char *key)
{
        JsonReader reader = {.where = "history"};

        return (uint64_t) json_number(&reader, o, key, 0, INT64_MAX, 0);
}

static const char *text(json_object *o, const char *key)
{
        JsonReader reader = {.where = "history"};
        const char *value = json_string(&reader, o, key, false);

        return value ? value : "";
}

static json_object *array(json_object *o, const char *key)
{
        JsonReader reader = {.where = "history"};

        return json_member(&reader, o, key, json_type_array, false);
}

static void take_devices(Measured *measured, json_object *devices)
{
        size_t n = devices ? json_object_array_length(devices) : 0;

        n = MIN(n, (size_t) MANIFEST_DEVICES_MAX);
        measured->devices = calloc(n + 1, sizeof *measured->devices);
        if (!measured->devices)
                out_of_memory();
        for (size_t i = 0; i < n; i++) {
                json_object *o = json_object_array_get_idx(devices, i);
                const char *id = text(o, "id");

                if (!device_id_is_valid(id))
                        continue;
                memcpy(measured->devices[measured->n].id, id, strlen(id) + 1);
                measured->devices[measured->n++].bytes = number(o, "bytes");
        }
        qsort(measured->devices, measured->n, sizeof *measured->devices, by_id);
}

/* Source and destination work on the same state at the same time: what both do counts once. */
static void add_up(Busy *busy, size_t n)
{
        uint64_t until = 0;

        qsort(busy, n, sizeof *busy, by_device_and_start);
        for (size_t i = 0; i < n; i++) {
                MeasuredDevice *device = (MeasuredDevice *) busy[i].device;

                if (i == 0 || busy[i - 1].device != device)
                        until = 0;
                until = MAX(until, busy[i].start_usec);
                if (busy[i].end_usec > until) {
                        device->usec += busy[i].end_usec - until;
                        until = busy[i].end_usec;
                }
        }
}

static void take_timeline(Measured *measured, json_object *spans, uint64_t start_usec)
{
        uint64_t end_usec = start_usec + measured->blackout_usec;
        size_t n = spans ? json_object_array_length(spans) : 0, n_busy = 0;
        Busy *busy = calloc(n + 1, sizeof *busy);

        if (!busy)
                out_of_memory();
        for (size_t i = 0; i < n; i++) {
                json_object *o = json_object_array_get_idx(spans, i);
                const MeasuredDevice *device = measured_find(measured, text(o, "device"));
                Busy b = {device, MAX(number(o, "start_usec"), start_usec),
                          MIN(number(o, "end_usec"), end_usec)};

                if (device && b.end_usec > b.start_usec)
                        busy[n_busy++] = b;
        }
        add_up(busy, n_busy);
        free(busy);
}

void measured_take(Measured *measured, json_object *job)
{
        if (!streq(text(job, "half"), side_to_string(SIDE_SOURCE)) ||
            !streq(text(job, "result"), job_result_to_string(JOB_RESULT_DONE)) ||
            number(job, "blackout_usec") == 0)
                return;
        measured_deinit(measured);
        measured->blackout_usec = number(job, "blackout_usec");
        take_devices(measured, array(job, "devices"));
        take_timeline(measured, array(job, "timeline"), number(job, "blackout_start_usec"));
}
