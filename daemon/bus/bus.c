/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus.h"

#include <stdarg.h>
#include <stdio.h>

#include "common/log.h"

#define POLKIT_INTERACTIVE 1u

/* ---- replies ------------------------------------------------------------------------------------------------- */

/* Texts quote what others wrote, and may have cut it in the middle of a character: the bus would refuse the reply, and the
 * caller wait for it in vain. */
void bus_reply_error(Bus *bus, sd_bus_message *m, Outcome outcome, const char *text)
{
        const OutcomeInfo *info = outcome_info(outcome);
        char name[128], printable[BUS_TEXT_MAX];

        (void) snprintf(name, sizeof name, OUTCOME_BUS_PREFIX "%s",
                        info && info->name ? info->name : "Failed");
        (void) log_printable(text, printable, sizeof printable);
        (void) sd_bus_reply_method_errorf(m, name, "%s", printable);
        loop_kick_bus(bus->host->loop);
}

void bus_reply(Bus *bus, sd_bus_message *m, const char *types, ...)
{
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        va_list ap;
        int r = sd_bus_message_new_method_return(m, &reply);

        va_start(ap, types);
        if (r >= 0 && types[0])
                r = sd_bus_message_appendv(reply, types, ap);
        va_end(ap);
        if (r >= 0)
                r = sd_bus_send(NULL, reply, NULL);
        if (r < 0) {
                log_warning(NULL, "a reply on the bus could not be made: %s", strerror(-r));
                (void) sd_bus_reply_method_errno(m, r, NULL);
        }
        loop_kick_bus(bus->host->loop);
}

/* ---- who may do what ----------------------------------------------------------------------------------------- */

typedef struct Asking {
        Bus *bus;
        sd_bus_message *m;
        const char *action;
        BusMethod method;
} Asking;

static void asking_free(Asking *asking)
{
        sd_bus_message_unref(asking->m);
        free(asking);
}

static int on_polkit(sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
        Asking *asking = userdata;
        int allowed = 0, challenge = 0, r = -EACCES;
        char text[256];

        if (!sd_bus_message_is_method_error(reply, NULL) &&
            sd_bus_message_enter_container(reply, 'r', "bba{ss}") > 0)
                r = sd_bus_message_read(reply, "bb", &allowed, &challenge);
        if (r >= 0 && allowed) {
                asking->method(asking->bus, asking->m);
        } else {
                (void) snprintf(text, sizeof text,
                                "you may not do this; an administrator can allow it in polkit: %s",
                                asking->action);
                bus_reply_error(asking->bus, asking->m, OUTCOME_DENIED, text);
        }
        asking_free(asking);
        return 1;
}

static int ask_polkit(Asking *asking)
{
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *call = NULL;
        uint32_t flags =
                sd_bus_message_get_allow_interactive_authorization(asking->m) > 0 ? POLKIT_INTERACTIVE : 0;
        int r = sd_bus_message_new_method_call(asking->bus->bus, &call, "org.freedesktop.PolicyKit1",
                                               "/org/freedesktop/PolicyKit1/Authority",
                                               "org.freedesktop.PolicyKit1.Authority", "CheckAuthorization");

        if (r >= 0)
                r = sd_bus_message_append(call, "(sa{sv})s", "system-bus-name", 1, "name", "s",
                                          sd_bus_message_get_sender(asking->m), asking->action);
        if (r >= 0)
                r = sd_bus_message_append(call, "a{ss}us", 0, flags, "");
        if (r >= 0)
                r = sd_bus_call_async(asking->bus->bus, NULL, call, on_polkit, asking, 0);
        return r;
}

static int on_user(sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
        Asking *asking = userdata;
        uint32_t uid = UINT32_MAX;
        int r = sd_bus_message_is_method_error(reply, NULL) ? -EACCES : sd_bus_message_read(reply, "u", &uid);

        if (r >= 0 && (uid == 0 || uid == getuid())) {
                asking->method(asking->bus, asking->m);
                asking_free(asking);
                return 1;
        }
        if (r < 0 || ask_polkit(asking) < 0) {
                bus_reply_error(asking->bus, asking->m, OUTCOME_DENIED, "it can't be found out who you are");
                asking_free(asking);
        }
        return 1;
}

int bus_authorise(Bus *bus, sd_bus_message *m, const char *action, BusMethod method)
{
        Asking *asking = malloc(sizeof *asking);
        int r;

        if (!asking)
                return -ENOMEM;
        *asking = (Asking){bus, sd_bus_message_ref(m), action, method};
        r = sd_bus_call_method_async(bus->bus, NULL, "org.freedesktop.DBus", "/org/freedesktop/DBus",
                                     "org.freedesktop.DBus", "GetConnectionUnixUser", on_user, asking, "s",
                                     sd_bus_message_get_sender(m));
        if (r < 0) {
                asking_free(asking);
                return r;
        }
        return 1;
}

/* ---- options ------------------------------------------------------------------------------------------------- */

static int read_one_option(sd_bus_message *m, JobOptions *options, bool *incoming, char *ret_text)
{
        const char *key;
        int r = sd_bus_message_read(m, "s", &key), flag;

        if (r < 0)
                return r;
        if (options && streq(key, "timeout-usec"))
                return sd_bus_message_read(m, "v", "t", &options->timeout_usec);
        if (options && streq(key, "bandwidth"))
                return sd_bus_message_read(m, "v", "t", &options->limits.bandwidth);
        if (options && streq(key, "max-blackout-usec"))
                return sd_bus_message_read(m, "v", "t", &options->limits.max_blackout_usec);
        if (options && streq(key, "request-id"))
                return sd_bus_message_read(m, "v", "s", &options->request_id);
        if (incoming && streq(key, "incoming")) {
                r = sd_bus_message_read(m, "v", "b", &flag);
                *incoming = r >= 0 && flag;
                return r;
        }
        (void) snprintf(ret_text, JSON_TEXT_MAX, "unknown option \"%.100s\"", key);
        return -EINVAL;
}

int bus_read_options(sd_bus_message *m, JobOptions *options, bool *incoming, char *ret_text)
{
        int r = sd_bus_message_enter_container(m, 'a', "{sv}");

        (void) snprintf(ret_text, JSON_TEXT_MAX, "the options are not of the types they should be");
        while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
                r = read_one_option(m, options, incoming, ret_text);
                if (r >= 0)
                        r = sd_bus_message_exit_container(m);
        }
        if (r >= 0)
                r = sd_bus_message_exit_container(m);
        if (r >= 0 && options && options->request_id && strlen(options->request_id) > 127) {
                (void) snprintf(ret_text, JSON_TEXT_MAX, "\"request-id\" is longer than 127 bytes");
                return -EINVAL;
        }
        if (r >= 0 && options &&
            (options->limits.bandwidth > JOB_LIMIT_MAX ||
             options->limits.max_blackout_usec > JOB_LIMIT_MAX)) {
                (void) snprintf(ret_text, JSON_TEXT_MAX,
                                "\"bandwidth\" and \"max-blackout-usec\" are at most %lld",
                                (long long) JOB_LIMIT_MAX);
                return -EINVAL;
        }
        return r < 0 ? r : 0;
}

/* ---- paths --------------------------------------------------------------------------------------------------- */

static void uuid_label(const char *uuid, char ret[UUID_TEXT_MAX + 2])
{
        ret[0] = '_';
        for (size_t i = 0; i <= UUID_TEXT_MAX; i++)
                ret[i + 1] = uuid[i] == '-' ? '_' : uuid[i];
}

void bus_vm_path(const char *uuid, char ret[BUS_PATH_MAX])
{
        char label[UUID_TEXT_MAX + 2];

        uuid_label(uuid, label);
        (void) snprintf(ret, BUS_PATH_MAX, BUS_ROOT "/vm/%s", label);
}

/* As sd_bus_path_encode() does: everything but letters and digits as _xx. Called for each device of a VM again and again,
 * in the blackout too. */
void bus_device_path(const char *uuid, const char *id, char ret[BUS_PATH_MAX])
{
        static const char hex[] = "0123456789abcdef";
        char label[UUID_TEXT_MAX + 2];
        size_t n;

        uuid_label(uuid, label);
        n = (size_t) snprintf(ret, BUS_PATH_MAX, BUS_ROOT "/device/%s/", label);
        for (size_t i = 0; id[i] && n + 4 < BUS_PATH_MAX; i++) {
                bool plain = (id[i] >= 'a' && id[i] <= 'z') || (id[i] >= 'A' && id[i] <= 'Z') ||
                             (i > 0 && id[i] >= '0' && id[i] <= '9');

                if (plain) {
                        ret[n++] = id[i];
                } else {
                        ret[n++] = '_';
                        ret[n++] = hex[(unsigned char) id[i] >> 4];
                        ret[n++] = hex[(unsigned char) id[i] & 15];
                }
        }
        ret[n] = 0;
}

void bus_job_path(const char *id, char ret[BUS_PATH_MAX])
{
        char label[UUID_TEXT_MAX + 2];

        uuid_label(id, label);
        (void) snprintf(ret, BUS_PATH_MAX, BUS_ROOT "/job/%s", label);
}

/* ---- life ---------------------------------------------------------------------------------------------------- */

Bus *bus_free(Bus *bus)
{
        if (!bus)
                return NULL;
        bus_drop_views(bus);
        /* To flush one that has not been set up to its end is to wait for that, and maybe for ever. */
        if (sd_bus_is_ready(bus->bus) > 0)
                (void) sd_bus_flush(bus->bus);
        (void) sd_bus_close_unref(bus->bus);
        free(bus);
        return NULL;
}

DEFINE_CLEANUP(Bus *, bus_free);

static int connect_bus(Bus *bus)
{
        const char *address = bus->host->config.bus_address;
        int r;

        if (!address)
                return sd_bus_open_system(&bus->bus);
        r = sd_bus_new(&bus->bus);
        if (r >= 0)
                r = sd_bus_set_address(bus->bus, address);
        if (r >= 0)
                r = sd_bus_set_bus_client(bus->bus, true);
        if (r >= 0)
                r = sd_bus_start(bus->bus);
        return r;
}

/* Thousands of devices are found again after a start, and nobody can have asked for them before his first call: whoever
 * followed the daemon before has seen its name go, and has to ask anew. */
static int on_any_message(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
        Bus *bus = userdata;

        bus->heard |= sd_bus_message_is_method_call(m, NULL, NULL) > 0;
        return 0;
}

void bus_started(void *userdata)
{
        Bus *bus = userdata;

        bus->heard = true;
}

int bus_new(const Host *host, Manager *manager, LoopCallback on_end, void *userdata, Bus **ret)
{
        static const ManagerHooks hooks = {bus_vm_added,    bus_vm_removed,        bus_vm_changed,
                                           bus_started,     bus_job_added,         bus_job_removed,
                                           bus_job_changed, bus_job_device_changed};
        _cleanup_(bus_freep) Bus *bus = calloc(1, sizeof *bus);
        int r;

        if (!bus)
                return -ENOMEM;
        bus->host = host;
        bus->manager = manager;
        r = connect_bus(bus);
        if (r >= 0)
                r = sd_bus_add_filter(bus->bus, NULL, on_any_message, bus);
        if (r >= 0)
                r = sd_bus_add_object_manager(bus->bus, NULL, BUS_ROOT);
        if (r >= 0)
                r = bus_add_manager(bus);
        if (r >= 0)
                r = bus_add_vms(bus);
        if (r >= 0)
                r = bus_add_devices(bus);
        if (r >= 0)
                r = bus_add_jobs(bus);
        if (r >= 0)
                r = sd_bus_request_name(bus->bus, BUS_NAME, 0);
        if (r >= 0)
                r = loop_attach_bus(host->loop, bus->bus, on_end, userdata);
        if (r < 0)
                return r;
        manager_set_hooks(manager, &hooks, bus);
        *ret = TAKE_PTR(bus);
        return 0;
}
