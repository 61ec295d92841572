/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Packets between migmgrd and a plugin's host, in either direction: the first byte says which, the rest is the packet. What
 * gets through must be within the bounds of plugins/migmgr-plugin.h. */

#include <assert.h>

#include "daemon/plugin/plugin-protocol.h"
#include "fuzz.h"

static PluginPacket packet;
static PluginDeviceView device, source;
static const char *strings[PLUGIN_STRINGS_MAX];

static void from_host(void)
{
        PluginHello hello;
        PluginAnswer answer;
        const char *text;

        if (plugin_hello_read(&packet, &hello, &text) == 0)
                assert(hello.before_ms[MIGMGR_DRAIN] <= MIGMGR_BUDGET_MAX_MS &&
                       plugin_name_is_valid(hello.name));
        for (PluginCall call = PLUGIN_CALL_LOOK; call <= PLUGIN_CALL_ON_ERROR; call++) {
                if (plugin_answer_read(&packet, call, strings, &answer, &text) < 0)
                        continue;
                assert(answer.n_facts <= MIGMGR_FACTS_MAX && answer.status <= MIGMGR_GIVE_UP);
                for (uint32_t i = 0; i < answer.n_facts; i++)
                        assert(strlen(answer.facts[i].name) <= MIGMGR_KEY_MAX &&
                               strlen(answer.facts[i].value) <= MIGMGR_VALUE_MAX);
        }
}

static void from_daemon(void)
{
        struct migmgr_transition transition;
        size_t n = 0;
        uint32_t rest;

        if (plugin_call_read(&packet, strings, &device, &source, &rest) < 0)
                return;
        assert(rest <= packet.head.n_strings);
        for (uint32_t i = 0; i < device.device.n_attributes; i++)
                n += strlen(device.device.attributes[i].name);
        for (uint32_t i = 0; i < device.device.n_facts; i++)
                n += strlen(device.device.facts[i].value);
        for (uint32_t i = 0; i < device.device.config_size; i++)
                n += device.device.config[i];
        if (packet.head.call == PLUGIN_CALL_CHECK)
                for (uint32_t i = 0; i < source.device.n_facts; i++)
                        n += strlen(source.device.facts[i].value);
        assert(n <= sizeof packet * 256);
        if (plugin_transition_read(&packet, "", &transition) == 0)
                assert(transition.phase < MIGMGR_PHASES);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        if (size < 1 || size - 1 > sizeof packet.head + sizeof packet.text)
                return 0;
        memcpy(&packet, data + 1, size - 1);
        if (plugin_packet_check(&packet, size - 1) < 0)
                return 0;
        plugin_packet_strings(&packet, strings);
        if (data[0] & 1)
                from_host();
        else
                from_daemon();
        return 0;
}
