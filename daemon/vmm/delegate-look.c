/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a delegate says of itself and its VM: facts for the manifest, and the state in which it is. */

#include <stdio.h>

#include "common/log.h"
#include "delegate.h"

#define INTERFACE_VERSION 1
/* To be found, or seen again after a restart. */
#define ASKING_USEC (2 * USEC_PER_SEC)

/* ---- state --------------------------------------------------------------------------------------------------- */

static bool read_state(DelegateTalk *talk, sd_bus_message *reply, char text[DELEGATE_TEXT_MAX])
{
        const char *state, *job;
        char printable[80];

        if (!sd_bus_message_has_signature(reply, "ss") ||
            sd_bus_message_read(reply, "ss", &state, &job) < 0) {
                (void) snprintf(text, DELEGATE_TEXT_MAX, "GetState: the answer is no (ss)");
                return false;
        }
        talk->state = delegate_state_from_string(state);
        if ((int) talk->state < 0) {
                (void) snprintf(text, DELEGATE_TEXT_MAX, "GetState: there is no state \"%s\"",
                                log_printable(state, printable, sizeof printable));
                return false;
        }
        if (job[0] && !uuid_is_valid(job)) {
                (void) snprintf(text, DELEGATE_TEXT_MAX, "GetState: \"%s\" is no job",
                                log_printable(job, printable, sizeof printable));
                return false;
        }
        memcpy(talk->job, job, strlen(job) + 1);
        return true;
}

static void on_state(DelegateTalk *talk, int status, sd_bus_message *reply, const char *text)
{
        char wrong[DELEGATE_TEXT_MAX];

        if (status < 0)
                talk->looked(talk, status, text);
        else if (!read_state(talk, reply, wrong))
                talk->looked(talk, -EPROTO, wrong);
        else
                talk->looked(talk, 0, "");
}

/* ---- facts --------------------------------------------------------------------------------------------------- */

/* What else it may say. More devices than a VM can have are none that we know. */
static int read_isolated(Delegate *d, sd_bus_message *m)
{
        const char *name;
        int r = sd_bus_message_enter_container(m, 'v', "as");

        if (r >= 0)
                r = sd_bus_message_enter_container(m, 'a', "s");
        d->n_isolated = 0;
        while (r >= 0 && (r = sd_bus_message_read(m, "s", &name)) > 0)
                if (d->n_isolated < MANIFEST_DEVICES_MAX && strlen(name) <= SOCKET_PATH_MAX) {
                        char(*isolated)[SOCKET_PATH_MAX + 1] =
                                realloc(d->isolated, (d->n_isolated + 1) * sizeof *isolated);

                        if (!isolated)
                                return -ENOMEM;
                        d->isolated = isolated;
                        memcpy(isolated[d->n_isolated++], name, strlen(name) + 1);
                }
        if (r >= 0)
                r = sd_bus_message_exit_container(m);
        if (r >= 0)
                r = sd_bus_message_exit_container(m);
        d->says_isolated = r >= 0;
        return r;
}

DeviceIsolation delegate_isolation(const Vmm *vmm, const DeviceDefinition *device)
{
        const Delegate *d = (const Delegate *) vmm;
        const char *name = device->vmm_device[0] ? device->vmm_device : device->broker;

        if (!d->says_isolated)
                return DEVICE_ISOLATION_UNKNOWN;
        for (uint32_t i = 0; i < d->n_isolated; i++)
                if (streq(d->isolated[i], name))
                        return DEVICE_ISOLATION_FULL;
        return DEVICE_ISOLATION_NONE;
}

static int read_property(Delegate *d, sd_bus_message *m, ManifestVmm *facts, uint32_t *version, char *uuid,
                         uint32_t *n)
{
        const char *key, *text;
        int flag, r = sd_bus_message_read(m, "s", &key);

        if (r < 0)
                return r;
        if (streq(key, "Version")) {
                r = sd_bus_message_read(m, "v", "u", version);
        } else if (streq(key, "Uuid")) {
                r = sd_bus_message_read(m, "v", "s", &text);
                if (r >= 0)
                        (void) log_printable(text, uuid, UUID_TEXT_MAX + 1);
        } else if (streq(key, "Vmm")) {
                r = sd_bus_message_read(m, "v", "s", &text);
                if (r >= 0)
                        (void) log_printable(text, facts->version, sizeof facts->version);
        } else if (streq(key, "TakesDirtyPages")) {
                r = sd_bus_message_read(m, "v", "b", &flag);
                facts->takes_dirty_pages = r >= 0 && flag;
        } else if (streq(key, "VIommu")) {
                r = sd_bus_message_read(m, "v", "b", &flag);
                facts->viommu = r >= 0 && flag;
                return r; /* one that does not say so has none */
        } else if (streq(key, "IsolatedDevices")) {
                return read_isolated(d, m); /* one that does not say so has confirmed nothing */
        } else {
                return sd_bus_message_skip(m, "v"); /* of a later version */
        }
        (*n)++;
        return r;
}

static int read_properties(Delegate *d, sd_bus_message *m, ManifestVmm *facts, uint32_t *version, char *uuid)
{
        uint32_t n = 0;
        int r = sd_bus_message_enter_container(m, 'a', "{sv}");

        d->says_isolated = false;
        while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
                r = read_property(d, m, facts, version, uuid, &n);
                if (r >= 0)
                        r = sd_bus_message_exit_container(m);
        }
        return r < 0 ? r : n == 4 ? 0 : -EPROTO;
}

static void on_properties(DelegateTalk *talk, int status, sd_bus_message *reply, const char *text)
{
        uint32_t version = 0;
        char wrong[DELEGATE_TEXT_MAX], uuid[UUID_TEXT_MAX + 1] = "";
        const char *ours = talk->delegate->vmm.definition->uuid;

        talk->facts = (ManifestVmm){.type = VMM_TYPE_DELEGATE};
        if (status < 0) {
                talk->looked(talk, status, text);
        } else if (read_properties(talk->delegate, reply, &talk->facts, &version, uuid) < 0) {
                talk->looked(talk, -EPROTO,
                             "GetAll: not every property of " DELEGATE_INTERFACE " is there, with its type");
        } else if (version != INTERFACE_VERSION) {
                (void) snprintf(wrong, sizeof wrong,
                                "it speaks version %u of " DELEGATE_INTERFACE ", not %d; use one that does",
                                version, INTERFACE_VERSION);
                talk->looked(talk, -EPROTO, wrong);
        } else if (!streq(uuid, ours)) {
                (void) snprintf(wrong, sizeof wrong, "its Uuid is %s, not the definition's %s", uuid, ours);
                talk->looked(talk, -ESTALE, wrong);
        } else {
                delegate_call(talk, DELEGATE_INTERFACE, "GetState", on_state, "");
        }
}

void delegate_look(DelegateTalk *talk, bool facts, DelegateNext next)
{
        talk->looked = next;
        if (facts)
                delegate_call(talk, "org.freedesktop.DBus.Properties", "GetAll", on_properties, "s",
                              DELEGATE_INTERFACE);
        else
                delegate_call(talk, DELEGATE_INTERFACE, "GetState", on_state, "");
}

/* ---- find, see ----------------------------------------------------------------------------------------------- */

/* A delegate without a VM is not the VM's process. */
static void let_go_of_none(Delegate *d)
{
        if (d->asking.state == DELEGATE_STATE_NONE && d->act == VMM_ACT_NONE)
                delegate_unwatch(d);
}

static void on_asked(DelegateTalk *talk, int status, const char *text)
{
        Delegate *d = talk->delegate;
        VmmFound found = d->found;
        VmmSeen seen = d->seen;
        VmmSight sight = {.lives = d->pidfd >= 0};
        void *userdata = d->asking_userdata;

        loop_timer_set(d->asking_timer, 0);
        d->found = NULL;
        d->seen = NULL;
        d->vmm.asked = false;
        if (status >= 0) {
                bool ours = streq(talk->job, d->vmm.job);

                sight.lives = talk->state != DELEGATE_STATE_NONE;
                sight.runs = talk->state == DELEGATE_STATE_RUNNING;
                sight.complete = talk->state == DELEGATE_STATE_COMPLETE && ours;
                let_go_of_none(d);
        }
        if (seen) {
                seen(userdata, &sight);
                return;
        }
        if (status >= 0) {
                d->vmm.facts = talk->facts;
                (void) snprintf(d->vmm.facts.run_state, sizeof d->vmm.facts.run_state, "%s",
                                delegate_state_to_string(talk->state));
        }
        found(userdata, status, text);
}

static void on_asking_reached(DelegateTalk *talk, int status, const char *text)
{
        if (status < 0)
                on_asked(talk, status, text);
        else
                delegate_look(talk, talk->delegate->found != NULL, on_asked);
}

void delegate_on_asking_timer(void *userdata)
{
        Delegate *d = userdata;
        char text[DELEGATE_TEXT_MAX];

        delegate_stop(&d->asking);
        (void) snprintf(text, sizeof text, "%s: no answer in time; see whether the VM's delegate hangs",
                        d->asking.asked);
        on_asked(&d->asking, -ETIMEDOUT, text);
}

void delegate_find(Vmm *vmm, VmmFound found, void *userdata)
{
        Delegate *d = (Delegate *) vmm;

        d->found = found;
        d->asking_userdata = userdata;
        loop_timer_set(d->asking_timer, ASKING_USEC);
        delegate_reach(&d->asking, on_asking_reached);
}

void delegate_see(Vmm *vmm, const ProcessId *was, VmmSeen seen, void *userdata)
{
        Delegate *d = (Delegate *) vmm;

        if (was->pid > 0 && delegate_watch(d, was) < 0) {
                vmm->asked = false;
                seen(userdata, &(VmmSight){}); /* whoever has its name, it is not the VM of that record */
                return;
        }
        d->seen = seen;
        d->asking_userdata = userdata;
        loop_timer_set(d->asking_timer, ASKING_USEC);
        delegate_reach(&d->asking, on_asking_reached);
}
