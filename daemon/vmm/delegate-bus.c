/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The delegate on the bus: calls, which connection and process it is, and what it says unasked. Its name may change hands;
 * calls go to the connection that belongs to the VM's own process, and only its signals are heard. */

#include <stdarg.h>
#include <stdio.h>

#include "common/log.h"
#include "delegate.h"

#define BUS_DRIVER      "org.freedesktop.DBus"
#define BUS_DRIVER_PATH "/org/freedesktop/DBus"

static LogAbout about(const Delegate *d)
{
        return (LogAbout){.vm = d->vmm.definition->name, .job = d->vmm.job};
}

/* ---- calls --------------------------------------------------------------------------------------------------- */

void delegate_stop(DelegateTalk *talk)
{
        talk->slot = sd_bus_slot_unref(talk->slot);
}

int delegate_reply_error(sd_bus_message *reply, const char *asked, char ret_text[DELEGATE_TEXT_MAX])
{
        const sd_bus_error *error = sd_bus_message_get_error(reply);

        if (!error)
                return 0;
        return delegate_error(asked, error->name, error->message ? error->message : "", ret_text,
                              DELEGATE_TEXT_MAX);
}

static int on_reply(sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
        DelegateTalk *talk = userdata;
        char text[DELEGATE_TEXT_MAX] = "";
        int status = delegate_reply_error(reply, talk->asked, text);

        delegate_stop(talk);
        if (status == -ECONNRESET)
                talk->delegate->owner[0] = 0; /* of a connection that is gone no signal may tell any more */
        talk->answer(talk, status, status < 0 ? NULL : reply, text);
        return 1;
}

/* The time is the act's, not the call's: what waits for it knows more to say. */
static void send_call(DelegateTalk *talk, const char *asked, sd_bus_message *message, DelegateAnswer answer)
{
        Loop *loop = talk->delegate->vmm.loop;
        int r;

        delegate_stop(talk);
        talk->asked = asked;
        talk->answer = answer;
        r = sd_bus_call_async(loop_bus(loop), &talk->slot, message, on_reply, talk, UINT64_MAX);
        loop_kick_bus(loop);
        if (r < 0) {
                char text[DELEGATE_TEXT_MAX];

                (void) snprintf(text, sizeof text, "%s: it can't be called: %s", asked, strerror(-r));
                answer(talk, r, NULL, text);
        }
}

void delegate_send(DelegateTalk *talk, const char *asked, sd_bus_message *message, DelegateAnswer answer)
{
        send_call(talk, asked, message, answer);
        sd_bus_message_unref(message);
}

int delegate_message(Delegate *d, const char *member, sd_bus_message **ret)
{
        const Definition *definition = d->vmm.definition;

        return sd_bus_message_new_method_call(loop_bus(d->vmm.loop), ret, d->owner, definition->object_path,
                                              DELEGATE_INTERFACE, member);
}

static void call(DelegateTalk *talk, const char *destination, const char *path, const char *interface,
                 const char *member, DelegateAnswer answer, const char *types, va_list ap)
{
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *message = NULL;
        int r;

        if (!destination[0]) {
                answer(talk, -ECONNRESET, NULL, "it has left the bus; see its log");
                return;
        }
        r = sd_bus_message_new_method_call(loop_bus(talk->delegate->vmm.loop), &message, destination, path,
                                           interface, member);
        if (r >= 0 && types[0])
                r = sd_bus_message_appendv(message, types, ap);
        if (r >= 0)
                send_call(talk, member, message, answer);
        else
                answer(talk, r, NULL, strerror(-r));
}

void delegate_call(DelegateTalk *talk, const char *interface, const char *member, DelegateAnswer answer,
                   const char *types, ...)
{
        Delegate *d = talk->delegate;
        va_list ap;

        va_start(ap, types);
        call(talk, d->owner, d->vmm.definition->object_path, interface, member, answer, types, ap);
        va_end(ap);
}

static void call_driver(DelegateTalk *talk, const char *member, DelegateAnswer answer, const char *types, ...)
{
        va_list ap;

        va_start(ap, types);
        call(talk, BUS_DRIVER, BUS_DRIVER_PATH, BUS_DRIVER, member, answer, types, ap);
        va_end(ap);
}

/* ---- its process --------------------------------------------------------------------------------------------- */

void delegate_unwatch(Delegate *d)
{
        d->pid_io = loop_io_free(d->pid_io);
        if (d->pidfd >= 0)
                (void) close(d->pidfd);
        d->pidfd = -1;
        d->owner[0] = 0;
        d->vmm.process = (ProcessId){};
}

static void on_process_gone(void *userdata)
{
        Delegate *d = userdata;
        ProcessId was = d->vmm.process;

        delegate_unwatch(d);
        d->vmm.process = was; /* whoever writes it down now means the one that has died */
        delegate_gone(d);
}

int delegate_watch(Delegate *d, const ProcessId *id)
{
        int fd, r;

        if (d->pidfd >= 0)
                return d->vmm.process.pid == id->pid && d->vmm.process.start == id->start ? 0 : -EADDRINUSE;
        fd = process_id_open(id);
        if (fd < 0)
                return fd;
        r = loop_io_new(d->vmm.loop, fd, on_process_gone, NULL, d, &d->pid_io);
        if (r < 0) {
                (void) close(fd);
                return r;
        }
        d->pidfd = fd;
        d->vmm.process = *id;
        return 0;
}

/* ---- who it is ----------------------------------------------------------------------------------------------- */

static void nobody(DelegateTalk *talk)
{
        Delegate *d = talk->delegate;
        const char *name = d->vmm.definition->bus_name;
        char text[DELEGATE_TEXT_MAX];

        if (d->pidfd < 0)
                (void) snprintf(text, sizeof text, "nobody has the bus name %.255s; start the VM's delegate",
                                name);
        else
                (void) snprintf(text, sizeof text,
                                "its process %d has left the bus, and %.255s is nobody's; see its log",
                                (int) d->vmm.process.pid, name);
        talk->reached(talk, d->pidfd < 0 ? -ENOENT : -ECONNRESET, text);
}

static void on_pid(DelegateTalk *talk, int status, sd_bus_message *reply, const char *text)
{
        Delegate *d = talk->delegate;
        char why[DELEGATE_TEXT_MAX];
        uint32_t pid = 0;
        ProcessId id;
        int r = status;

        if (r >= 0)
                r = sd_bus_message_read(reply, "u", &pid);
        if (r >= 0)
                r = process_id_read((pid_t) pid, &id);
        if (r >= 0)
                r = delegate_watch(d, &id);
        if (r >= 0) {
                memcpy(d->owner, talk->candidate, sizeof d->owner);
                talk->reached(talk, 0, "");
                return;
        }
        if (status == -ECONNRESET || r == -ESRCH) {
                nobody(talk);
                return;
        }
        (void) snprintf(why, sizeof why,
                        "%.255s belongs to process %u, but the VM to process %d; end one of them",
                        d->vmm.definition->bus_name, pid, (int) d->vmm.process.pid);
        talk->reached(talk, r, r == -EADDRINUSE ? why : status < 0 ? text : strerror(-r));
}

static void on_owner(DelegateTalk *talk, int status, sd_bus_message *reply, const char *text)
{
        const char *owner;

        if (status == -ECONNRESET)
                nobody(talk);
        else if (status < 0 || sd_bus_message_read(reply, "s", &owner) < 0 || strlen(owner) > BUS_NAME_MAX)
                talk->reached(talk, status < 0 ? status : -EPROTO, text);
        else {
                memcpy(talk->candidate, owner, strlen(owner) + 1);
                call_driver(talk, "GetConnectionUnixProcessID", on_pid, "s", owner);
        }
}

/* ---- what it says unasked ------------------------------------------------------------------------------------ */

static int on_owner_changed(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
        Delegate *d = userdata;
        const char *name, *from, *to;

        if (streq(sd_bus_message_get_sender(m), BUS_DRIVER) &&
            sd_bus_message_read(m, "sss", &name, &from, &to) >= 0 && streq(from, d->owner))
                d->owner[0] = 0; /* whoever has it now is looked at when somebody is called */
        return 0;
}

static int on_signal(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
        Delegate *d = userdata;
        const char *sender = sd_bus_message_get_sender(m), *job;
        uint64_t done, total;

        if (!sender || !d->owner[0] || !streq(sender, d->owner))
                return 0;
        if (sd_bus_message_is_signal(m, DELEGATE_INTERFACE, "Progress") > 0 &&
            sd_bus_message_has_signature(m, "stt") &&
            sd_bus_message_read(m, "stt", &job, &done, &total) >= 0 && streq(job, d->vmm.job))
                d->vmm.listener->progress(d->vmm.userdata, done, total);
        else if (sd_bus_message_is_signal(m, DELEGATE_INTERFACE, "Resumed") > 0 &&
                 sd_bus_message_has_signature(m, "s") && sd_bus_message_read(m, "s", &job) >= 0 &&
                 streq(job, d->vmm.job) && d->act != VMM_ACT_RESUME && d->act != VMM_ACT_RUN)
                d->vmm.listener->resumed(d->vmm.userdata);
        return 0;
}

/* Without it sd-bus would close the connection when a match is refused. */
static int on_matched(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
        LogAbout a = about(userdata);

        if (sd_bus_message_is_method_error(m, NULL))
                log_warning(&a, "the signals of the VM's delegate can't be heard");
        return 1;
}

static int listen_to(Delegate *d)
{
        const Definition *definition = d->vmm.definition;
        sd_bus *bus = loop_bus(d->vmm.loop);
        char rule[BUS_NAME_MAX + 256];
        int r = 0;

        (void) snprintf(rule, sizeof rule,
                        "type='signal',sender='" BUS_DRIVER "',path='" BUS_DRIVER_PATH
                        "',interface='" BUS_DRIVER "',member='NameOwnerChanged',arg0='%s'",
                        definition->bus_name);
        if (!d->owner_match)
                r = sd_bus_add_match_async(bus, &d->owner_match, rule, on_owner_changed, on_matched, d);
        if (r >= 0 && !d->signal_match)
                r = sd_bus_match_signal_async(bus, &d->signal_match, definition->bus_name,
                                              definition->object_path, DELEGATE_INTERFACE, NULL, on_signal,
                                              on_matched, d);
        return r;
}

void delegate_reach(DelegateTalk *talk, DelegateNext next)
{
        Delegate *d = talk->delegate;
        int r;

        talk->reached = next;
        if (d->owner[0] && d->pidfd >= 0) {
                next(talk, 0, "");
                return;
        }
        d->owner[0] = 0;
        r = listen_to(d);
        if (r < 0)
                next(talk, r, strerror(-r));
        else
                call_driver(talk, "GetNameOwner", on_owner, "s", d->vmm.definition->bus_name);
}
