/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "scope.h"

#include <stdio.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-daemon.h>

#define WAIT_USEC (2 * USEC_PER_SEC)

static int append_properties(sd_bus_message *m, const char *description, pid_t pid)
{
        int r = sd_bus_message_open_container(m, 'a', "(sv)");

        if (r >= 0)
                r = sd_bus_message_append(m, "(sv)", "Description", "s", description);
        if (r >= 0)
                r = sd_bus_message_append(m, "(sv)", "PIDs", "au", 1, (uint32_t) pid);
        /* Its end is the keeper's to see; a failed scope would only stand in the way of the next. */
        if (r >= 0)
                r = sd_bus_message_append(m, "(sv)", "CollectMode", "s", "inactive-or-failed");
        if (r >= 0)
                r = sd_bus_message_close_container(m);
        return r;
}

static int call_manager(sd_bus *bus, const char *unit, const char *description, pid_t pid)
{
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        int r = sd_bus_message_new_method_call(bus, &m, "org.freedesktop.systemd1",
                                               "/org/freedesktop/systemd1",
                                               "org.freedesktop.systemd1.Manager", "StartTransientUnit");

        if (r >= 0)
                r = sd_bus_message_append(m, "ss", unit, "fail");
        if (r >= 0)
                r = append_properties(m, description, pid);
        if (r >= 0)
                r = sd_bus_message_append(m, "a(sa(sv))", 0);
        if (r >= 0)
                r = sd_bus_call(bus, m, WAIT_USEC, NULL, NULL);
        return r < 0 ? r : 0;
}

/* StartTransientUnit answers before the process is in its new cgroup. */
static int wait_for_scope(const char *unit, pid_t pid)
{
        char path[32], text[4096];

        (void) snprintf(path, sizeof path, "/proc/%d/cgroup", (int) pid);
        for (uint64_t waited = 0; waited < WAIT_USEC; waited += 2000) {
                FILE *f = fopen(path, "re");
                size_t n;

                if (!f)
                        return -ESRCH;
                n = fread(text, 1, sizeof text - 1, f);
                (void) fclose(f);
                text[n] = 0;
                if (strstr(text, unit))
                        return 0;
                (void) usleep(2000);
        }
        return -ETIMEDOUT;
}

int scope_start(const char *name, const char *description, pid_t pid)
{
        _cleanup_(sd_bus_flush_close_unrefp) sd_bus *bus = NULL;
        char unit[256];
        int r;

        if (sd_booted() <= 0)
                return 0;
        (void) snprintf(unit, sizeof unit, "%s.scope", name);
        r = sd_bus_open_system(&bus);
        if (r >= 0)
                r = call_manager(bus, unit, description, pid);
        if (r >= 0)
                r = wait_for_scope(unit, pid);
        return r;
}
