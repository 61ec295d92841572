/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The delegate on the bus: its object, who may call it, and the way back when the bus has gone. */

#include "common/clock.h"
#include "common/log.h"
#include "delegate-internal.h"

#define MIGMGR         "org.migmgr1"
#define VMM            "migmgr-test-vmm " PACKAGE_VERSION
#define VERSION_HERE   1
#define RECONNECT_USEC (500 * USEC_PER_MSEC)

/* ---- who may call -------------------------------------------------------------------------------------------- */

/* root, or who owns the name of migmgrd. */
static bool may_call(sd_bus_message *m)
{
        _cleanup_(sd_bus_creds_unrefp) sd_bus_creds *caller = NULL, *migmgrd = NULL;
        sd_bus *bus = sd_bus_message_get_bus(m);
        const char *sender = sd_bus_message_get_sender(m), *owner;
        uid_t uid;

        if (!sender || sd_bus_query_sender_creds(m, SD_BUS_CREDS_EUID, &caller) < 0)
                return false;
        if (sd_bus_creds_get_euid(caller, &uid) >= 0 && uid == 0)
                return true;
        return sd_bus_get_name_creds(bus, MIGMGR, SD_BUS_CREDS_UNIQUE_NAME, &migmgrd) >= 0 &&
               sd_bus_creds_get_unique_name(migmgrd, &owner) >= 0 && streq(owner, sender);
}

bool delegate_allows(sd_bus_message *m)
{
        if (may_call(m))
                return true;
        (void) sd_bus_reply_method_errorf(m, SD_BUS_ERROR_ACCESS_DENIED, "only root and %s may do that",
                                          MIGMGR);
        return false;
}

/* ---- properties ---------------------------------------------------------------------------------------------- */

static int get_property(sd_bus *bus, const char *path, const char *interface, const char *property,
                        sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
        const DelegateConfig *config = ((const Delegate *) userdata)->config;

        if (streq(property, "Version"))
                return sd_bus_message_append(reply, "u", VERSION_HERE);
        if (streq(property, "TakesDirtyPages"))
                return sd_bus_message_append(reply, "b", config->takes_dirty_pages);
        if (streq(property, "VIommu"))
                return sd_bus_message_append(reply, "b", config->vm.viommu);
        return sd_bus_message_append(reply, "s", streq(property, "Uuid") ? config->vm.uuid : VMM);
}

static int get_isolated(sd_bus *bus, const char *path, const char *interface, const char *property,
                        sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
        const DelegateConfig *config = ((const Delegate *) userdata)->config;

        return sd_bus_message_append_strv(reply, (char **) config->isolated);
}

static const sd_bus_vtable vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_PROPERTY("Version", "u", get_property, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Uuid", "s", get_property, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Vmm", "s", get_property, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("TakesDirtyPages", "b", get_property, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("VIommu", "b", get_property, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("IsolatedDevices", "as", get_isolated, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_METHOD_WITH_ARGS("GetState", SD_BUS_NO_ARGS, SD_BUS_RESULT("s", state, "s", job),
                                delegate_on_get_state, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("DeviceFile", SD_BUS_ARGS("s", device),
                                SD_BUS_RESULT("h", file, "a(tt)", memory), delegate_on_device_file,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Prepare", SD_BUS_ARGS("s", job, "s", side, "a{sv}", options),
                                SD_BUS_NO_RESULT, delegate_on_call, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Save", SD_BUS_ARGS("s", job, "h", memory), SD_BUS_NO_RESULT,
                                delegate_on_call, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Load", SD_BUS_ARGS("s", job, "h", memory), SD_BUS_NO_RESULT,
                                delegate_on_call, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Pause", SD_BUS_ARGS("s", job), SD_BUS_RESULT("t", stopped), delegate_on_call,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("TakeDirtyPages",
                                SD_BUS_ARGS("s", job, "t", address, "t", size, "t", pages, "h", bitmap),
                                SD_BUS_NO_RESULT, delegate_on_take_dirty_pages, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Seal", SD_BUS_ARGS("s", job), SD_BUS_NO_RESULT, delegate_on_call,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Resume", SD_BUS_ARGS("s", job), SD_BUS_NO_RESULT, delegate_on_call,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Start", SD_BUS_ARGS("s", job), SD_BUS_NO_RESULT, delegate_on_call,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Discard", SD_BUS_ARGS("s", job), SD_BUS_NO_RESULT, delegate_on_call,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_SIGNAL_WITH_ARGS("Progress", SD_BUS_ARGS("s", job, "t", done, "t", total), 0),
        SD_BUS_SIGNAL_WITH_ARGS("Resumed", SD_BUS_ARGS("s", job), 0),
        SD_BUS_VTABLE_END,
};

/* ---- the bus ------------------------------------------------------------------------------------------------- */

static int on_disconnected(sd_bus_message *m, void *userdata, sd_bus_error *error);

static int connect_bus(Delegate *d)
{
        _cleanup_(sd_bus_flush_close_unrefp) sd_bus *bus = NULL;
        int r = sd_bus_new(&bus);

        if (r >= 0)
                r = sd_bus_set_address(bus, d->config->bus_address);
        if (r >= 0)
                r = sd_bus_set_bus_client(bus, true);
        if (r >= 0)
                r = sd_bus_negotiate_fds(bus, true);
        if (r >= 0)
                r = sd_bus_start(bus);
        if (r >= 0)
                r = sd_bus_add_object_vtable(bus, NULL, d->config->object_path, DELEGATE_INTERFACE, vtable,
                                             d);
        if (r >= 0)
                r = sd_bus_match_signal(bus, NULL, "org.freedesktop.DBus.Local",
                                        "/org/freedesktop/DBus/Local", "org.freedesktop.DBus.Local",
                                        "Disconnected", on_disconnected, d);
        if (r >= 0)
                r = sd_bus_request_name(bus, d->config->bus_name, 0);
        if (r >= 0)
                r = sd_bus_attach_event(bus, d->event, SD_EVENT_PRIORITY_NORMAL);
        if (r >= 0)
                d->bus = TAKE_PTR(bus);
        return r;
}

/* The VM does not die with the bus. */
static int on_reconnect(sd_event_source *s, uint64_t usec, void *userdata)
{
        Delegate *d = userdata;

        d->bus = sd_bus_flush_close_unref(d->bus);
        if (connect_bus(d) >= 0)
                return sd_event_source_set_enabled(s, SD_EVENT_OFF);
        (void) sd_event_source_set_time(s, clock_monotonic_usec() + RECONNECT_USEC);
        return sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
}

static int on_disconnected(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
        Delegate *d = userdata;

        log_warning(NULL, "the bus has gone; looking for it");
        (void) sd_event_source_set_time(d->reconnecting, clock_monotonic_usec() + RECONNECT_USEC);
        (void) sd_event_source_set_enabled(d->reconnecting, SD_EVENT_ONESHOT);
        return 0;
}

int delegate_open_bus(Delegate *d)
{
        int r = sd_event_add_time(d->event, &d->reconnecting, CLOCK_MONOTONIC, 0, 0, on_reconnect, d);

        if (r >= 0)
                r = sd_event_source_set_enabled(d->reconnecting, SD_EVENT_OFF);
        return r < 0 ? r : connect_bus(d);
}
