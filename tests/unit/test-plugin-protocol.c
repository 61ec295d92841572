/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a host may say to the daemon, and the daemon to a host; and that nothing else gets through. */

#include "daemon/plugin/plugin-protocol.h"
#include "test.h"

static PluginPacket packet;
static const char *strings[PLUGIN_STRINGS_MAX];

static void add(const char *string)
{
        assert_int_equal(plugin_packet_add(&packet, string), 0);
}

static int check(void)
{
        return plugin_packet_check(&packet, plugin_packet_size(&packet));
}

static void test_packets(void **state)
{
        plugin_packet_init(&packet, PLUGIN_CALL_LOOK, 7);
        add("one");
        add("");
        add("t\xc3wo\n");
        assert_int_equal(plugin_packet_add_bytes(&packet, "\0\1\2", 3), 0);
        assert_int_equal(check(), 0);
        plugin_packet_strings(&packet, strings);
        assert_string_equal(strings[0], "one");
        assert_string_equal(strings[1], "");
        assert_string_equal(strings[2], "t?wo?");
        assert_memory_equal(plugin_packet_bytes(&packet), "\0\1\2", 3);
}

static void test_what_is_no_packet(void **state)
{
        size_t size;

        plugin_packet_init(&packet, PLUGIN_CALL_LOOK, 7);
        add("one");
        size = plugin_packet_size(&packet);
        for (size_t n = 0; n < size; n++)
                assert_int_equal(plugin_packet_check(&packet, n), -EBADMSG);
        packet.text[4] = 'x';
        assert_int_equal(plugin_packet_check(&packet, size + 1), -EBADMSG);
        packet.text[1] = 7;
        assert_int_equal(plugin_packet_check(&packet, size), -EBADMSG);
        packet.text[1] = 'n';
        packet.head.n_strings = 2;
        assert_int_equal(plugin_packet_check(&packet, size), -EBADMSG);
        packet.head.n_strings = 1;
        packet.head.n_bytes = 4;
        assert_int_equal(plugin_packet_check(&packet, size), -EBADMSG); /* the string would be bytes */
        packet.head.n_bytes = UINT32_MAX;
        assert_int_equal(plugin_packet_check(&packet, size), -EBADMSG);
        packet.head.n_bytes = 0;
        packet.head.call = PLUGIN_CALL_MAX;
        assert_int_equal(plugin_packet_check(&packet, size), -EBADMSG);
        packet.head.call = PLUGIN_CALL_LOOK;
        assert_int_equal(plugin_packet_check(&packet, size), 0);
}

static void test_bounds(void **state)
{
        char text[300];

        memset(text, 'a', sizeof text - 1);
        text[sizeof text - 1] = 0;
        plugin_packet_init(&packet, PLUGIN_CALL_LOOK, 7);
        while (plugin_packet_add(&packet, text) == 0)
                ;
        assert_int_equal(check(), 0);
        plugin_packet_strings(&packet, strings);
        assert_int_equal(strlen(strings[0]), PLUGIN_STRING_MAX);
        plugin_packet_init(&packet, PLUGIN_CALL_LOOK, 7);
        for (int i = 0; i < PLUGIN_STRINGS_MAX; i++)
                add("");
        assert_int_equal(plugin_packet_add(&packet, ""), -E2BIG);
        assert_int_equal(plugin_packet_add_bytes(&packet, text, MIGMGR_CONFIG_MAX + 1), -E2BIG);
        assert_int_equal(check(), 0);
}

static void begin_hello(const char *name, const char *version)
{
        plugin_packet_init(&packet, PLUGIN_CALL_HELLO, 0);
        packet.head.numbers[PLUGIN_NUMBER_ABI] = MIGMGR_PLUGIN_ABI;
        add(name);
        add(version);
}

static int read_hello(void)
{
        PluginHello hello;
        const char *text;

        assert_int_equal(check(), 0);
        return plugin_hello_read(&packet, &hello, &text);
}

static void test_hello(void **state)
{
        static const struct {
                uint32_t phase;
                uint64_t msec;
                int status;
        } budgets[] = {{MIGMGR_DRAIN, 1000, 0},           {MIGMGR_DRAIN, 1001, -EBADMSG},
                       {MIGMGR_HALT, 1001, -EBADMSG},     {MIGMGR_RUN, 1001, -EBADMSG},
                       {MIGMGR_PREPARE, 60000, 0},        {MIGMGR_RELEASE, 60000, 0},
                       {MIGMGR_PREPARE, 60001, -EBADMSG}, {MIGMGR_DRAIN, UINT64_MAX, -EBADMSG}};
        PluginHello hello;
        const char *text;

        begin_hello("acme-1", "1.0 beta");
        packet.head.numbers[PLUGIN_NUMBER_FUNCTIONS] = PLUGIN_HAS_CHECK;
        packet.head.numbers[PLUGIN_NUMBER_AFTER_MS + MIGMGR_DRAIN] = 9;
        assert_int_equal(plugin_hello_read(&packet, &hello, &text), 0);
        assert_string_equal(hello.name, "acme-1");
        assert_string_equal(hello.version, "1.0 beta");
        assert_int_equal(hello.functions, PLUGIN_HAS_CHECK);
        assert_int_equal(hello.after_ms[MIGMGR_DRAIN], 9);
        for (size_t i = 0; i < ARRAY_SIZE(budgets); i++)
                for (uint32_t table = PLUGIN_NUMBER_BEFORE_MS; table < PLUGIN_NUMBERS;
                     table += MIGMGR_PHASES) {
                        begin_hello("a", "1");
                        packet.head.numbers[table + budgets[i].phase] = budgets[i].msec;
                        assert_int_equal(read_hello(), budgets[i].status);
                }
}

static void test_no_hello(void **state)
{
        static const char *const names[] = {"", "Acme", "a.b", "a b", "an-awfully-long-name-of-a-plugin"};

        for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
                begin_hello(names[i], "1");
                assert_int_equal(read_hello(), -EBADMSG);
        }
        begin_hello("a", "1");
        packet.head.numbers[PLUGIN_NUMBER_ABI] = MIGMGR_PLUGIN_ABI + 1;
        assert_int_equal(read_hello(), -EBADMSG);
        begin_hello("a", "1");
        packet.head.numbers[PLUGIN_NUMBER_FUNCTIONS] = PLUGIN_HAS_ALL + 1;
        assert_int_equal(read_hello(), -EBADMSG);
        begin_hello("a", "1");
        packet.head.status = 1;
        assert_int_equal(read_hello(), -EBADMSG);
        begin_hello("a", "1");
        add("more");
        assert_int_equal(read_hello(), -EBADMSG);
        begin_hello("a", "1");
        packet.head.call = PLUGIN_CALL_LOOK;
        assert_int_equal(read_hello(), -EBADMSG);
}

static void begin_call(PluginCall call, uint32_t n_attributes, uint32_t n_facts, uint32_t n_source)
{
        plugin_packet_init(&packet, call, 1);
        packet.head.numbers[PLUGIN_NUMBER_ATTRIBUTES] = n_attributes;
        packet.head.numbers[PLUGIN_NUMBER_FACTS] = n_facts;
        packet.head.numbers[PLUGIN_NUMBER_SOURCE_FACTS] = n_source;
}

static void test_calls(void **state)
{
        static PluginDeviceView device, source;
        static const char *const texts[] = {"vm", "id",  "type",  "driver",  "a", "A", "f",
                                            "F",  "sid", "stype", "sdriver", "s", "S", "rest"};
        uint32_t rest;

        begin_call(PLUGIN_CALL_CHECK, 1, 1, 1);
        for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
                add(texts[i]);
        assert_int_equal(plugin_packet_add_bytes(&packet, "\1\2", 2), 0);
        plugin_packet_strings(&packet, strings);
        assert_int_equal(plugin_call_read(&packet, strings, &device, &source, &rest), 0);
        assert_string_equal(strings[rest], "rest");
        assert_string_equal(device.device.driver, "driver");
        assert_string_equal(migmgr_attribute(&device.device, "a"), "A");
        assert_string_equal(migmgr_fact(&device.device, "f"), "F");
        assert_null(migmgr_fact(&device.device, "s"));
        assert_string_equal(source.device.vm, "vm");
        assert_string_equal(source.device.id, "sid");
        assert_string_equal(migmgr_fact(&source.device, "s"), "S");
        assert_int_equal(device.device.config_size, 2);
        assert_int_equal(device.device.config[1], 2);

        /* Counts that would reach beyond the strings, or beyond our tables. */
        for (uint32_t i = PLUGIN_NUMBER_ATTRIBUTES; i <= PLUGIN_NUMBER_SOURCE_FACTS; i++) {
                static const uint64_t many[] = {3, 65, 257, UINT32_MAX, UINT64_MAX};

                for (size_t k = 0; k < ARRAY_SIZE(many); k++) {
                        uint64_t was = packet.head.numbers[i];

                        packet.head.numbers[i] = many[k];
                        assert_int_equal(plugin_call_read(&packet, strings, &device, &source, &rest),
                                         -EBADMSG);
                        packet.head.numbers[i] = was;
                }
        }
}

static void test_transitions(void **state)
{
        struct migmgr_transition transition;

        begin_call(PLUGIN_CALL_BEFORE, 0, 0, 0);
        packet.head.numbers[PLUGIN_NUMBER_PHASE] = MIGMGR_DRAIN;
        packet.head.numbers[PLUGIN_NUMBER_FROM] = UINT32_MAX;
        assert_int_equal(plugin_transition_read(&packet, "why", &transition), 0);
        assert_int_equal(transition.phase, MIGMGR_DRAIN);
        assert_int_equal(transition.from, UINT32_MAX);
        assert_string_equal(transition.text, "why");
        packet.head.numbers[PLUGIN_NUMBER_PHASE] = MIGMGR_PHASES;
        assert_int_equal(plugin_transition_read(&packet, "", &transition), -EBADMSG);
        packet.head.numbers[PLUGIN_NUMBER_PHASE] = 0;
        packet.head.numbers[PLUGIN_NUMBER_TO] = UINT64_MAX;
        assert_int_equal(plugin_transition_read(&packet, "", &transition), -EBADMSG);
}

static int read_answer(PluginCall call, int status)
{
        PluginAnswer answer;
        const char *text;

        packet.head.status = status;
        assert_int_equal(check(), 0);
        plugin_packet_strings(&packet, strings);
        return plugin_answer_read(&packet, call, strings, &answer, &text);
}

/* Which function may return what, as migmgr-plugin.h says at each. */
static void test_what_may_be_returned(void **state)
{
        static const struct {
                PluginCall call;
                int may[4];
        } rows[] = {
                {PLUGIN_CALL_LOOK, {MIGMGR_NO, MIGMGR_YES, -1, -1}},
                {PLUGIN_CALL_CHECK, {MIGMGR_NO, MIGMGR_YES, MIGMGR_DEGRADED, -1}},
                {PLUGIN_CALL_BEFORE, {MIGMGR_NO, MIGMGR_YES, MIGMGR_WAIT, -1}},
                {PLUGIN_CALL_AFTER, {MIGMGR_NO, MIGMGR_YES, MIGMGR_WAIT, -1}},
                {PLUGIN_CALL_ON_ERROR, {MIGMGR_RETRY, MIGMGR_RESET, MIGMGR_GIVE_UP, -1}},
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
                for (int status = -40; status < 40; status++) {
                        bool may = status >= 0 && (status == rows[i].may[0] || status == rows[i].may[1] ||
                                                   status == rows[i].may[2]);

                        plugin_packet_init(&packet, rows[i].call, 1);
                        add("reason");
                        add("remedy");
                        assert_int_equal(read_answer(rows[i].call, status), may ? 0 : -EBADMSG);
                }
        assert_int_equal(read_answer(PLUGIN_CALL_ON_ERROR, INT32_MIN), -EBADMSG);
        assert_int_equal(read_answer(PLUGIN_CALL_AFTER, MIGMGR_YES), -EBADMSG); /* another call's */
}

static void answer_with(const char *key, const char *value, int n)
{
        plugin_packet_init(&packet, PLUGIN_CALL_LOOK, 1);
        add("");
        add("");
        for (int i = 0; i < n; i++) {
                add(key);
                add(value);
        }
}

static void test_facts(void **state)
{
        char value[MIGMGR_VALUE_MAX + 2];

        memset(value, 'v', sizeof value);
        value[MIGMGR_VALUE_MAX + 1] = 0;
        answer_with("a.b-1", "x y", MIGMGR_FACTS_MAX);
        assert_int_equal(read_answer(PLUGIN_CALL_LOOK, MIGMGR_YES), 0);
        answer_with("a", "x", MIGMGR_FACTS_MAX + 1);
        assert_int_equal(read_answer(PLUGIN_CALL_LOOK, MIGMGR_YES), -EBADMSG);
        answer_with("A", "x", 1);
        assert_int_equal(read_answer(PLUGIN_CALL_LOOK, MIGMGR_YES), -EBADMSG);
        answer_with("a", value, 1);
        assert_int_equal(read_answer(PLUGIN_CALL_LOOK, MIGMGR_YES), -EBADMSG);
        answer_with("a", "x", 1);
        add("odd");
        assert_int_equal(read_answer(PLUGIN_CALL_LOOK, MIGMGR_YES), -EBADMSG);
        answer_with("a", "x", 1);
        packet.head.call = PLUGIN_CALL_CHECK;
        assert_int_equal(read_answer(PLUGIN_CALL_CHECK, MIGMGR_YES), -EBADMSG);
        answer_with("a", "x", 0);
        packet.head.numbers[PLUGIN_NUMBER_WAIT_MS] = 60001;
        assert_int_equal(read_answer(PLUGIN_CALL_LOOK, MIGMGR_YES), -EBADMSG);
        plugin_packet_init(&packet, PLUGIN_CALL_LOOK, 1);
        add("only one");
        assert_int_equal(read_answer(PLUGIN_CALL_LOOK, MIGMGR_YES), -EBADMSG);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_packets),     cmocka_unit_test(test_what_is_no_packet),
                cmocka_unit_test(test_bounds),      cmocka_unit_test(test_hello),
                cmocka_unit_test(test_no_hello),    cmocka_unit_test(test_calls),
                cmocka_unit_test(test_transitions), cmocka_unit_test(test_what_may_be_returned),
                cmocka_unit_test(test_facts),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
