/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The process of one plugin: loads it, gives up everything, and calls its functions as migmgrd asks over the socket. What the
 * plugin does to this process nobody else feels; nothing that it says is believed before plugin_answer_read(). */

#include <dlfcn.h>
#include <stdio.h>

#include "daemon/plugin/plugin-protocol.h"
#include "sandbox.h"

/* Of a plugin that knows fewer members than we do; it has match(), at least. */
#define PLUGIN_SIZE_MIN offsetof(struct migmgr_plugin, describe)

/* One call: what the plugin is given, and what it has said. */
typedef struct Call {
        struct migmgr_reply reply; /* first: the functions in it find the rest */
        uint32_t id;
        uint32_t n_logs;
        uint32_t n_facts;
        struct {
                char key[MIGMGR_KEY_MAX + 1];
                char value[MIGMGR_VALUE_MAX + 1];
        } facts[MIGMGR_FACTS_MAX];
} Call;

/* Large, and there is one of each. */
static struct migmgr_plugin plugin;
static PluginPacket request, response;
static PluginDeviceView device, source;
static Call call;

static int send_packet(const PluginPacket *packet)
{
        ssize_t n;

        do
                n = write(PLUGIN_SOCKET_FD, packet, plugin_packet_size(packet));
        while (n < 0 && errno == EINTR);
        return n < 0 ? -errno : 0;
}

static void add(PluginPacket *packet, const char *string)
{
        if (plugin_packet_add(packet, string) < 0)
                _exit(1); /* there is room for all that a call may bring */
}

/* ---- what the plugin calls ------------------------------------------------------------------------------------ */

static int add_fact(struct migmgr_reply *reply, const char *key, const char *value)
{
        Call *c = (Call *) reply;
        uint32_t i;

        if (!key || !value || strnlen(key, MIGMGR_KEY_MAX + 1) > MIGMGR_KEY_MAX ||
            strnlen(value, MIGMGR_VALUE_MAX + 1) > MIGMGR_VALUE_MAX || !plugin_key_is_valid(key) ||
            !plugin_value_is_valid(value))
                return -EINVAL;
        for (i = 0; i < c->n_facts; i++)
                if (streq(c->facts[i].key, key))
                        break;
        if (i == MIGMGR_FACTS_MAX)
                return -E2BIG;
        if (i == c->n_facts)
                c->n_facts++;
        memcpy(c->facts[i].key, key, strlen(key) + 1);
        memcpy(c->facts[i].value, value, strlen(value) + 1);
        return 0;
}

static void add_log(struct migmgr_reply *reply, const char *text)
{
        Call *c = (Call *) reply;
        char line[MIGMGR_TEXT_MAX];

        if (!text || c->n_logs++ >= MIGMGR_LOGS_MAX)
                return;
        (void) snprintf(line, sizeof line, "%.*s", MIGMGR_TEXT_MAX - 1, text);
        plugin_packet_init(&response, PLUGIN_CALL_LOG, c->id);
        add(&response, line);
        if (send_packet(&response) < 0)
                _exit(1);
}

/* ---- calls ---------------------------------------------------------------------------------------------------- */

static int look(void)
{
        int r = plugin.match(&device.device, &call.reply);

        if (r != MIGMGR_YES)
                return r;
        if (plugin.describe && plugin.describe(&device.device, &call.reply) != 0)
                return -EIO;
        if (plugin.estimate && plugin.estimate(&device.device, &call.reply) != 0)
                return -EIO;
        return MIGMGR_YES;
}

/* A function that the plugin does not have says nothing against it. */
static int perform(PluginCall what, const struct migmgr_transition *transition)
{
        switch (what) {
        case PLUGIN_CALL_LOOK: return look();
        case PLUGIN_CALL_CHECK:
                return plugin.check ? plugin.check(&source.device, &device.device, &call.reply) : MIGMGR_YES;
        case PLUGIN_CALL_BEFORE:
                return plugin.before ? plugin.before(&device.device, transition, &call.reply) : MIGMGR_YES;
        case PLUGIN_CALL_AFTER:
                return plugin.after ? plugin.after(&device.device, transition, &call.reply) : MIGMGR_YES;
        case PLUGIN_CALL_ON_ERROR:
                return plugin.on_error ? plugin.on_error(&device.device, transition, &call.reply)
                                       : MIGMGR_GIVE_UP;
        case PLUGIN_CALL_HELLO:
        case PLUGIN_CALL_LOG:
        case PLUGIN_CALL_MAX:
        case PLUGIN_CALL_INVALID: break;
        }
        _exit(1); /* the daemon asks for nothing else */
}

static int answer(PluginCall what, int status)
{
        struct migmgr_reply *reply = &call.reply;

        reply->reason[sizeof reply->reason - 1] = reply->remedy[sizeof reply->remedy - 1] = 0;
        plugin_packet_init(&response, what, call.id);
        response.head.status = status;
        response.head.numbers[PLUGIN_NUMBER_WAIT_MS] = reply->wait_ms;
        response.head.numbers[PLUGIN_NUMBER_BYTES] = reply->bytes;
        for (uint32_t p = 0; p < MIGMGR_PHASES; p++)
                response.head.numbers[PLUGIN_NUMBER_USEC + p] = reply->usec[p];
        add(&response, reply->reason);
        add(&response, reply->remedy);
        for (uint32_t i = 0; what == PLUGIN_CALL_LOOK && status == MIGMGR_YES && i < call.n_facts; i++) {
                add(&response, call.facts[i].key);
                add(&response, call.facts[i].value);
        }
        return send_packet(&response);
}

static int serve_one(size_t size)
{
        const char *strings[PLUGIN_STRINGS_MAX];
        struct migmgr_transition transition;
        uint32_t rest;
        int r = plugin_packet_check(&request, size);

        if (r < 0)
                return r;
        plugin_packet_strings(&request, strings);
        r = plugin_call_read(&request, strings, &device, &source, &rest);
        if (r < 0)
                return r;
        r = plugin_transition_read(&request, rest < request.head.n_strings ? strings[rest] : "", &transition);
        if (r < 0)
                return r;
        call = (Call){.reply = {.size = sizeof call.reply, .fact = add_fact, .log = add_log},
                      .id = request.head.id};
        return answer((PluginCall) request.head.call, perform((PluginCall) request.head.call, &transition));
}

static int serve(void)
{
        for (;;) {
                ssize_t n = read(PLUGIN_SOCKET_FD, &request, sizeof request);
                int r;

                if (n == 0)
                        return 0; /* the daemon has no more use for it */
                if (n < 0 && errno == EINTR)
                        continue;
                r = n < 0 ? -errno : serve_one((size_t) n);
                if (r < 0)
                        return r;
        }
}

/* ---- loading -------------------------------------------------------------------------------------------------- */

static int load(char *ret_text, size_t size)
{
        char path[32];
        const struct migmgr_plugin *theirs;
        void *object;

        (void) snprintf(path, sizeof path, "/proc/self/fd/%d", PLUGIN_FILE_FD);
        object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        theirs = object ? dlsym(object, "migmgr_plugin") : NULL;
        if (!theirs) {
                (void) snprintf(ret_text, size, "it can't be loaded: %s", dlerror());
                return -ENOEXEC;
        }
        (void) close(PLUGIN_FILE_FD);
        if (theirs->abi != MIGMGR_PLUGIN_ABI) {
                (void) snprintf(ret_text, size, "its ABI is %u, here it is %d: build it against this migmgr",
                                theirs->abi, MIGMGR_PLUGIN_ABI);
                return -EPROTONOSUPPORT;
        }
        if (theirs->size < PLUGIN_SIZE_MIN) {
                (void) snprintf(ret_text, size, "its struct has %u bytes, at least %zu are needed",
                                theirs->size, PLUGIN_SIZE_MIN);
                return -EPROTONOSUPPORT;
        }
        memcpy(&plugin, theirs, MIN(theirs->size, sizeof plugin));
        if (plugin.name && plugin.version && plugin.match)
                return 0;
        (void) snprintf(ret_text, size, "it lacks a name, a version or match()");
        return -EPROTONOSUPPORT;
}

static uint64_t functions(void)
{
        return (plugin.describe ? PLUGIN_HAS_DESCRIBE : 0) | (plugin.check ? PLUGIN_HAS_CHECK : 0) |
               (plugin.before ? PLUGIN_HAS_BEFORE : 0) | (plugin.after ? PLUGIN_HAS_AFTER : 0) |
               (plugin.on_error ? PLUGIN_HAS_ON_ERROR : 0) | (plugin.estimate ? PLUGIN_HAS_ESTIMATE : 0);
}

static int say_hello(int status, const char *text)
{
        uint64_t *numbers = request.head.numbers;

        plugin_packet_init(&request, PLUGIN_CALL_HELLO, 0);
        request.head.status = status;
        if (status < 0) {
                add(&request, text);
                return send_packet(&request);
        }
        numbers[PLUGIN_NUMBER_ABI] = MIGMGR_PLUGIN_ABI;
        numbers[PLUGIN_NUMBER_FUNCTIONS] = functions();
        for (uint32_t p = 0; p < MIGMGR_PHASES; p++) {
                numbers[PLUGIN_NUMBER_BEFORE_MS + p] = plugin.before ? plugin.before_ms[p] : 0;
                numbers[PLUGIN_NUMBER_AFTER_MS + p] = plugin.after ? plugin.after_ms[p] : 0;
                numbers[PLUGIN_NUMBER_ERROR_MS + p] = plugin.on_error ? plugin.error_ms[p] : 0;
        }
        add(&request, plugin.name);
        add(&request, plugin.version);
        return send_packet(&request);
}

int main(int argc, char **argv)
{
        char text[PLUGIN_STRING_MAX + 1] = "";
        const char *what = text;
        int r = sandbox_enter(&what);

        if (r == 0) {
                what = text;
                r = load(text, sizeof text);
        }
        if (r == 0)
                r = sandbox_close(&what);
        r = say_hello(r, what) < 0 || r < 0 ? 1 : serve();
        /* Not exit(): what the plugin has left for then is of no use to anybody. */
        _exit(r < 0 ? 1 : r);
}
