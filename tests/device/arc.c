/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "arc.h"

#include "number.h"

typedef enum ArcNeeds {
        ANY_DEVICE,
        WITH_P2P,
        WITHOUT_P2P, /* what two arcs of a device with P2P states are together */
} ArcNeeds;

typedef struct Arc {
        DeviceState from, to;
        ArcNeeds needs;
} Arc;

static const Arc arcs[] = {
        {DEVICE_STATE_STOP, DEVICE_STATE_STOP_COPY, ANY_DEVICE},
        {DEVICE_STATE_STOP_COPY, DEVICE_STATE_STOP, ANY_DEVICE},
        {DEVICE_STATE_STOP, DEVICE_STATE_RESUMING, ANY_DEVICE},
        {DEVICE_STATE_RESUMING, DEVICE_STATE_STOP, ANY_DEVICE},
        {DEVICE_STATE_STOP, DEVICE_STATE_RUNNING, WITHOUT_P2P},
        {DEVICE_STATE_RUNNING, DEVICE_STATE_STOP, WITHOUT_P2P},
        {DEVICE_STATE_STOP, DEVICE_STATE_RUNNING_P2P, WITH_P2P},
        {DEVICE_STATE_RUNNING_P2P, DEVICE_STATE_STOP, WITH_P2P},
        {DEVICE_STATE_RUNNING_P2P, DEVICE_STATE_RUNNING, WITH_P2P},
        {DEVICE_STATE_RUNNING, DEVICE_STATE_RUNNING_P2P, WITH_P2P},
        {DEVICE_STATE_RUNNING, DEVICE_STATE_PRE_COPY, ANY_DEVICE},
        {DEVICE_STATE_PRE_COPY, DEVICE_STATE_RUNNING, ANY_DEVICE},
        {DEVICE_STATE_PRE_COPY, DEVICE_STATE_STOP_COPY, WITHOUT_P2P},
        {DEVICE_STATE_PRE_COPY, DEVICE_STATE_PRE_COPY_P2P, WITH_P2P},
        {DEVICE_STATE_PRE_COPY_P2P, DEVICE_STATE_PRE_COPY, WITH_P2P},
        {DEVICE_STATE_RUNNING_P2P, DEVICE_STATE_PRE_COPY_P2P, WITH_P2P},
        {DEVICE_STATE_PRE_COPY_P2P, DEVICE_STATE_RUNNING_P2P, WITH_P2P},
        {DEVICE_STATE_PRE_COPY_P2P, DEVICE_STATE_STOP_COPY, WITH_P2P},
};

static bool arc_exists(const Arc *a, uint32_t flags)
{
        bool p2p = flags & DEVICE_MIGRATION_P2P;

        if (a->needs == (p2p ? WITHOUT_P2P : WITH_P2P))
                return false;
        return device_state_supported(a->from, flags) && device_state_supported(a->to, flags);
}

static int parse_states(const char *name, uint16_t *ret_states)
{
        DeviceState state = device_state_from_string(name);

        if (streq(name, "*"))
                *ret_states = (1 << ARC_STATES) - 1;
        else if ((int) state >= 0 && state < ARC_STATES)
                *ret_states = (uint16_t) (1 << state);
        else
                return -EINVAL;
        return 0;
}

int arc_pattern_parse(const char *text, ArcPattern *ret_pattern)
{
        const char *to = strchr(text, '>');
        char from[16];
        ArcPattern p;

        if (!to || (size_t) (to - text) >= sizeof from)
                return -EINVAL;
        memcpy(from, text, (size_t) (to - text));
        from[to - text] = '\0';
        if (parse_states(from, &p.from) < 0 || parse_states(to + 1, &p.to) < 0)
                return -EINVAL;
        *ret_pattern = p;
        return 0;
}

int arc_delay_parse(const char *text, ArcDelay *ret_delay)
{
        const char *colon = strchr(text, ':');
        char pattern[40];
        ArcDelay d;

        if (!colon || (size_t) (colon - text) >= sizeof pattern)
                return -EINVAL;
        memcpy(pattern, text, (size_t) (colon - text));
        pattern[colon - text] = '\0';
        if (arc_pattern_parse(pattern, &d.arcs) < 0 || number_parse_msec(colon + 1, &d.usec) < 0)
                return -EINVAL;
        *ret_delay = d;
        return 0;
}

bool arc_pattern_matches(const ArcPattern *p, DeviceState from, DeviceState to)
{
        return (p->from >> from & 1) && (p->to >> to & 1);
}

bool arc_pattern_is_possible(const ArcPattern *p, uint32_t flags)
{
        for (size_t i = 0; i < ARRAY_SIZE(arcs); i++)
                if (arc_exists(&arcs[i], flags) && arc_pattern_matches(p, arcs[i].from, arcs[i].to))
                        return true;
        return false;
}

static bool is_saving(DeviceState s)
{
        return s == DEVICE_STATE_STOP_COPY || s == DEVICE_STATE_PRE_COPY || s == DEVICE_STATE_PRE_COPY_P2P;
}

/* The two that the uAPI blocks by name: the data of the session would start over. */
static bool is_blocked(DeviceState from, DeviceState to)
{
        return from == DEVICE_STATE_STOP_COPY &&
               (to == DEVICE_STATE_PRE_COPY || to == DEVICE_STATE_PRE_COPY_P2P);
}

static bool can_be_asked(DeviceState s, uint32_t flags)
{
        return s != DEVICE_STATE_ERROR && device_state_supported(s, flags);
}

/* Breadth first from `from`: came[s] is the state before s on a shortest way, or `from` itself. A saving state lies
 * inside a way only if the way never leaves the saving states. */
static void search(DeviceState from, DeviceState to, uint32_t flags, DeviceState came[ARC_STATES])
{
        DeviceState queue[ARC_STATES] = {from};
        bool inside_saving = is_saving(from) && is_saving(to);
        int n = 1;

        for (int s = 0; s < ARC_STATES; s++)
                came[s] = DEVICE_STATE_UNKNOWN;
        came[from] = from;
        for (int at = 0; at < n; at++)
                for (size_t i = 0; i < ARRAY_SIZE(arcs); i++) {
                        DeviceState next = arcs[i].to;

                        if (arcs[i].from != queue[at] || !arc_exists(&arcs[i], flags))
                                continue;
                        if (came[next] != DEVICE_STATE_UNKNOWN)
                                continue;
                        if (next != to && is_saving(next) && !inside_saving)
                                continue;
                        came[next] = queue[at];
                        queue[n++] = next;
                }
}

int arc_path(DeviceState from, DeviceState to, uint32_t flags, DeviceState ret_path[ARC_PATH_MAX])
{
        DeviceState came[ARC_STATES];
        int n = 0;

        if (!can_be_asked(from, flags) || !can_be_asked(to, flags) || is_blocked(from, to))
                return -EINVAL;
        search(from, to, flags, came);
        if (came[to] == DEVICE_STATE_UNKNOWN)
                return -EINVAL;
        for (DeviceState s = to; s != from; s = came[s])
                n++;
        for (DeviceState s = to, *p = ret_path + n; s != from; s = came[s])
                *--p = s;
        return n;
}
