/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fault.h"

#include "number.h"

#define ARC_ONLY   (1u << FAULT_AT_ARC)
#define READ_ONLY  (1u << FAULT_AT_READ)
#define EVERYWHERE ((1u << FAULT_PLACE_MAX) - 1)

static const char *const place_names[FAULT_PLACE_MAX] = {
        [FAULT_AT_ANY] = "any",     [FAULT_AT_READ] = "read",       [FAULT_AT_WRITE] = "write",
        [FAULT_AT_RESET] = "reset", [FAULT_AT_VERSION] = "version", [FAULT_AT_FEATURE] = "feature",
        [FAULT_AT_INFO] = "info",
};

typedef enum FaultArgument {
        WITHOUT,
        ERRNO,
        MSEC,
} FaultArgument;

static const struct {
        const char *name;
        FaultArgument argument;
        unsigned places;
} kinds[FAULT_KIND_MAX] = {
        [FAULT_FAIL] = {"fail", ERRNO, EVERYWHERE},
        [FAULT_ERROR] = {"error", ERRNO, EVERYWHERE},
        [FAULT_HANG] = {"hang", WITHOUT, EVERYWHERE},
        [FAULT_LATE] = {"late", MSEC, EVERYWHERE},
        [FAULT_LIE] = {"lie", WITHOUT, ARC_ONLY},
        [FAULT_EXIT] = {"exit", WITHOUT, EVERYWHERE},
        [FAULT_DISCONNECT] = {"disconnect", WITHOUT, EVERYWHERE},
        [FAULT_SHORT] = {"short", WITHOUT, EVERYWHERE},
        [FAULT_CORRUPT] = {"corrupt", WITHOUT, READ_ONLY},
        [FAULT_BAD_ID] = {"bad-id", WITHOUT, EVERYWHERE},
        [FAULT_BAD_COMMAND] = {"bad-command", WITHOUT, EVERYWHERE},
        [FAULT_BAD_TYPE] = {"bad-type", WITHOUT, EVERYWHERE},
        [FAULT_BAD_SIZE_BIG] = {"bad-size-big", WITHOUT, EVERYWHERE},
        [FAULT_BAD_SIZE_SMALL] = {"bad-size-small", WITHOUT, EVERYWHERE},
        [FAULT_TRUNCATED] = {"truncated", WITHOUT, EVERYWHERE},
        [FAULT_ENDLESS] = {"endless", WITHOUT, READ_ONLY},
        [FAULT_GARBAGE] = {"garbage", WITHOUT, EVERYWHERE},
        [FAULT_CHATTER] = {"chatter", WITHOUT, EVERYWHERE},
        [FAULT_ERROR_ZERO] = {"error-zero", WITHOUT, EVERYWHERE},
        [FAULT_ERROR_HUGE] = {"error-huge", WITHOUT, EVERYWHERE},
};

static int parse_place(const char *text, Fault *f)
{
        if (arc_pattern_parse(text, &f->arc) == 0) {
                f->place = FAULT_AT_ARC;
                return 0;
        }
        for (int p = 0; p < FAULT_PLACE_MAX; p++)
                if (place_names[p] && streq(place_names[p], text)) {
                        f->place = p;
                        return 0;
                }
        return -EINVAL;
}

static int parse_kind(const char *text, Fault *f)
{
        for (int k = 0; k < FAULT_KIND_MAX; k++)
                if (kinds[k].name && streq(kinds[k].name, text)) {
                        f->kind = k;
                        return (kinds[k].places >> f->place & 1) ? 0 : -EINVAL;
                }
        return -EINVAL;
}

static int parse_argument(const char *text, Fault *f)
{
        switch (kinds[f->kind].argument) {
        case WITHOUT: return text ? -EINVAL : 0;
        case ERRNO: return text ? number_parse_errno(text, &f->error) : -EINVAL;
        case MSEC: return text ? number_parse_msec(text, &f->delay_usec) : -EINVAL;
        }
        return -EINVAL;
}

/* Cuts `text` at the first `separator` and returns what stands behind, or NULL. */
static char *cut(char *text, char separator)
{
        char *at = text ? strchr(text, separator) : NULL;

        if (!at)
                return NULL;
        *at = '\0';
        return at + 1;
}

int fault_parse(const char *text, Fault *ret_fault)
{
        char buffer[96], *count, *kind, *argument;
        Fault f = {0};

        if (strlen(text) >= sizeof buffer)
                return -EINVAL;
        strcpy(buffer, text);
        count = cut(buffer, '@');
        kind = cut(buffer, ':');
        argument = cut(kind, ':');
        if (count && number_parse(count, 1, UINT64_MAX, &f.left) < 0)
                return -EINVAL;
        if (!kind || parse_place(buffer, &f) < 0 || parse_kind(kind, &f) < 0 ||
            parse_argument(argument, &f) < 0)
                return -EINVAL;
        *ret_fault = f;
        return 0;
}

int fault_list_add(FaultList *l, const Fault *f)
{
        Fault *faults = realloc(l->faults, (l->n + 1) * sizeof *faults);

        if (!faults)
                return -ENOMEM;
        l->faults = faults;
        l->faults[l->n++] = *f;
        return 0;
}

void fault_list_clear(FaultList *l)
{
        free(TAKE_PTR(l->faults));
        l->n = 0;
}

static Fault take(FaultList *l, size_t i)
{
        Fault f = l->faults[i];

        if (l->faults[i].left > 0 && --l->faults[i].left == 0) {
                l->n--;
                memmove(l->faults + i, l->faults + i + 1, (l->n - i) * sizeof *l->faults);
        }
        return f;
}

Fault fault_list_take(FaultList *l, FaultPlace place)
{
        for (size_t i = 0; i < l->n; i++)
                if (l->faults[i].place == place || l->faults[i].place == FAULT_AT_ANY)
                        return take(l, i);
        return (Fault){.kind = FAULT_NONE};
}

Fault fault_list_take_arc(FaultList *l, DeviceState from, DeviceState to)
{
        for (size_t i = 0; i < l->n; i++)
                if (l->faults[i].place == FAULT_AT_ARC && arc_pattern_matches(&l->faults[i].arc, from, to))
                        return take(l, i);
        return (Fault){.kind = FAULT_NONE};
}
