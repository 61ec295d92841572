/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* migmgr-plugin-test: loads a plugin as migmgrd does, in the same process with the same bounds, and calls all that it has, with
 * devices as they are and with some that no host would have. What must hold is little: each call is answered, in time, with
 * something that it may answer, and the process lives. */

#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>

#include "common/clock.h"
#include "common/log.h"
#include "daemon/plugin/plugin.h"

/* A plugin that dies is started anew ever later; after so many failures the rest says nothing new. */
#define FAILURES_MAX 3

typedef struct Sample {
        const char *what;
        const char *type, *driver;
        uint32_t n_attributes; /* of those below; or of filler ones */
        struct migmgr_text attributes[8];
        bool filler;
        uint32_t config_size;
        uint8_t config_byte; /* of which it consists */
} Sample;

static Sample samples[] = {
        {"a device of which nothing is known", "vfio", ""},
        {"a PCI device of the kernel",
         "vfio",
         "mlx5_vfio_pci",
         5,
         {{"sysfs", "/sys/bus/pci/devices/0000:3b:00.2"},
          {"device", "15b3:101e"},
          {"subsystem", "15b3:0049"},
          {"class", "020000"},
          {"firmware", "22.41.1000"}},
         false,
         64,
         0x15},
        {"an mdev", "vfio", "mtty", 2, {{"mdev-type", "mtty-1"}, {"numa-node", "0"}}},
        {"a vfio-user device", "vfio-user", "", 0, {}, false, 64, 0x86},
        {"a config space of one byte", "vfio-user", "", 0, {}, false, 1, 0},
        {"a config space of ones", "vfio-user", "", 0, {}, false, MIGMGR_CONFIG_MAX, 0xff},
        {"as many attributes as there may be, as long as they may be", "vfio", "", 0, {}, true},
        {"a kind that is not known yet", "vfio-next", ""},
        {"the one of the command line", "vfio", ""},
};

#define GIVEN (ARRAY_SIZE(samples) - 1)

static struct {
        Loop *loop;
        Plugin *plugin;
        LoopTimer *timer;
        uint32_t index; /* of the case */
        uint32_t n_done, n_failed;
        bool matched, waiting;
        uint64_t asked_usec;
        char what[160];
        PluginPacket packet;
        char long_text[MIGMGR_VALUE_MAX + 1];
} test;

static const char *const phase_names[MIGMGR_PHASES] = {
        "check",  "prepare",  "precopy",       "viommu-grace", "halt", "p2p-grace", "drain",
        "intake", "handover", "arrival-grace", "run-devices",  "run",  "release"};

/* ---- cases ---------------------------------------------------------------------------------------------------- */

static void add(const char *string)
{
        if (plugin_packet_add(&test.packet, string) < 0)
                abort(); /* the samples are ours */
}

static void add_device(const Sample *sample, uint32_t n_facts)
{
        uint8_t config[MIGMGR_CONFIG_MAX];
        uint32_t n = sample->filler ? MIGMGR_ATTRIBUTES_MAX : sample->n_attributes;
        char name[MIGMGR_KEY_MAX + 1];

        test.packet.head.numbers[PLUGIN_NUMBER_ATTRIBUTES] = n;
        test.packet.head.numbers[PLUGIN_NUMBER_FACTS] = n_facts;
        add("8c1e44fa-61f3-4f7c-93a5-1f0a7a9f5c11");
        add("dev0");
        add(sample->type);
        add(sample->driver);
        for (uint32_t i = 0; i < n; i++) {
                (void) snprintf(name, sizeof name, "attribute-%u", i);
                add(sample->filler ? name : sample->attributes[i].name);
                add(sample->filler ? test.long_text : sample->attributes[i].value);
        }
        for (uint32_t i = 0; i < n_facts; i++) {
                (void) snprintf(name, sizeof name, "other.fact-%u", i);
                add(name);
                add(i ? test.long_text : "");
        }
        memset(config, sample->config_byte, sizeof config);
        if (test.packet.head.call != PLUGIN_CALL_CHECK &&
            plugin_packet_add_bytes(&test.packet, config, sample->config_size) < 0)
                abort();
}

static void make_look(const Sample *sample)
{
        plugin_packet_init(&test.packet, PLUGIN_CALL_LOOK, 0);
        add_device(sample, 0);
        (void) snprintf(test.what, sizeof test.what, "match, describe, estimate: %s", sample->what);
}

static void make_check(const Sample *sample, uint32_t n_facts, uint32_t n_source)
{
        char name[MIGMGR_KEY_MAX + 1];

        plugin_packet_init(&test.packet, PLUGIN_CALL_CHECK, 0);
        add_device(sample, n_facts);
        test.packet.head.numbers[PLUGIN_NUMBER_SOURCE_FACTS] = n_source;
        add("dev0");
        add("vfio");
        add("");
        for (uint32_t i = 0; i < n_source; i++) {
                (void) snprintf(name, sizeof name, "other.fact-%u", i);
                add(name);
                add(test.long_text);
        }
        (void) snprintf(test.what, sizeof test.what, "check: %s, %u facts, %u of the source", sample->what,
                        n_facts, n_source);
}

static void make_transition(PluginCall call, uint32_t phase, uint32_t side, bool odd)
{
        uint64_t *numbers = test.packet.head.numbers;

        plugin_packet_init(&test.packet, call, 0);
        add_device(&samples[odd ? 0 : GIVEN], odd ? 0 : 2);
        numbers[PLUGIN_NUMBER_PHASE] = phase;
        numbers[PLUGIN_NUMBER_SIDE] = side;
        numbers[PLUGIN_NUMBER_FROM] = odd ? UINT32_MAX : 2;
        numbers[PLUGIN_NUMBER_TO] = odd ? UINT32_MAX : 1;
        numbers[PLUGIN_NUMBER_ATTEMPT] = odd ? UINT32_MAX : 1;
        numbers[PLUGIN_NUMBER_WAITED_MS] = odd ? UINT32_MAX : 0;
        numbers[PLUGIN_NUMBER_ERROR] = call == PLUGIN_CALL_ON_ERROR ? odd ? INT32_MAX : 5 : 0;
        if (call == PLUGIN_CALL_ON_ERROR)
                add(odd ? "" : "the device refused");
        (void) snprintf(test.what, sizeof test.what, "%s %s at the %s%s", plugin_call_to_string(call),
                        phase_names[phase], side == MIGMGR_SOURCE ? "source" : "destination",
                        odd ? ", nothing known" : "");
}

static const uint32_t fact_counts[][2] = {{0, 0}, {2, 0}, {0, 2}, {2, 2}, {64, 64}};

/* False: there is no such case. */
static bool make_case(uint32_t index)
{
        const uint32_t n_samples = ARRAY_SIZE(samples), n_counts = ARRAY_SIZE(fact_counts);
        static const PluginCall calls[] = {PLUGIN_CALL_BEFORE, PLUGIN_CALL_AFTER, PLUGIN_CALL_ON_ERROR};

        if (index < n_samples) {
                make_look(&samples[index]);
                return true;
        }
        index -= n_samples;
        if (index < n_samples * n_counts) {
                const uint32_t *counts = fact_counts[index % n_counts];

                make_check(&samples[index / n_counts], counts[0], counts[1]);
                return true;
        }
        index -= n_samples * n_counts;
        if (index >= MIGMGR_PHASES * 2 * 2 * ARRAY_SIZE(calls))
                return false;
        make_transition(calls[index % 3], index / 3 % MIGMGR_PHASES, index / 3 / MIGMGR_PHASES % 2,
                        index / 3 / MIGMGR_PHASES / 2);
        return true;
}

static bool has_function(PluginCall call)
{
        static const uint32_t needs[PLUGIN_CALL_MAX] = {
                [PLUGIN_CALL_CHECK] = PLUGIN_HAS_CHECK,
                [PLUGIN_CALL_BEFORE] = PLUGIN_HAS_BEFORE,
                [PLUGIN_CALL_AFTER] = PLUGIN_HAS_AFTER,
                [PLUGIN_CALL_ON_ERROR] = PLUGIN_HAS_ON_ERROR,
        };

        return !needs[call] || (plugin_hello(test.plugin)->functions & needs[call]);
}

/* What it declares for the phase, where it declares any. */
static uint64_t budget_usec(void)
{
        const PluginHello *hello = plugin_hello(test.plugin);
        uint64_t phase = test.packet.head.numbers[PLUGIN_NUMBER_PHASE];
        uint32_t msec = 0;

        if (test.packet.head.call == PLUGIN_CALL_BEFORE)
                msec = hello->before_ms[phase];
        else if (test.packet.head.call == PLUGIN_CALL_AFTER)
                msec = hello->after_ms[phase];
        else if (test.packet.head.call == PLUGIN_CALL_ON_ERROR)
                msec = hello->error_ms[phase];
        return msec ? msec * USEC_PER_MSEC : PLUGIN_HANG_USEC;
}

/* ---- the walk ------------------------------------------------------------------------------------------------- */

static void row(const char *result, uint64_t usec, const char *text)
{
        printf("%-7s %6.1f ms  %-76s %s\n", result, (double) usec / (double) USEC_PER_MSEC, test.what, text);
        test.n_done++;
        if (!streq(result, "ok"))
                test.n_failed++;
}

static void on_answer(void *userdata, Plugin *plugin, PluginEnd end, const PluginAnswer *answer,
                      const char *text)
{
        uint64_t took = clock_monotonic_usec() - test.asked_usec;
        char said[MIGMGR_TEXT_MAX + 64];

        if (!answer) {
                (void) snprintf(said, sizeof said, "%s: %.200s", plugin_end_to_string(end), text);
                row("FAILED", took, said);
        } else if (end != PLUGIN_END_YES && test.packet.head.call != PLUGIN_CALL_LOOK &&
                   end <= PLUGIN_END_DEGRADED && !answer->reason[0]) {
                row("FAILED", took, "it says no, or degraded, and gives no reason");
        } else {
                (void) snprintf(said, sizeof said, "%s%s%.200s", plugin_end_to_string(end),
                                answer->reason[0] ? ": " : "", answer->reason);
                row("ok", took, said);
                test.matched |= test.packet.head.call == PLUGIN_CALL_LOOK && end == PLUGIN_END_YES;
        }
        test.index++;
        loop_timer_soon(test.timer);
}

static void next(void *userdata)
{
        PluginState state = plugin_state(test.plugin);

        if (state == PLUGIN_STATE_REFUSED || test.n_failed >= FAILURES_MAX) {
                loop_quit(test.loop);
                return;
        }
        if (state != PLUGIN_STATE_READY) {
                loop_timer_set(test.timer, 20 * USEC_PER_MSEC); /* it is started anew, or loaded */
                return;
        }
        while (make_case(test.index) && !has_function((PluginCall) test.packet.head.call))
                test.index++;
        if (!make_case(test.index)) {
                loop_quit(test.loop);
                return;
        }
        test.asked_usec = clock_monotonic_usec();
        plugin_ask(test.plugin, &test.packet, budget_usec(), false, on_answer, NULL);
}

/* ---- command line --------------------------------------------------------------------------------------------- */

static const struct option options[] = {{"attribute", required_argument, NULL, 'a'},
                                        {"driver", required_argument, NULL, 'd'},
                                        {"type", required_argument, NULL, 't'},
                                        {"host", required_argument, NULL, 'H'},
                                        {"help", no_argument, NULL, 'h'},
                                        {"version", no_argument, NULL, 'V'},
                                        {}};

static void help(void)
{
        printf("migmgr-plugin-test [OPTIONS] PLUGIN.so\n\n"
               "Loads a plugin of migmgr as migmgrd does and calls all that it has. Exits with 0 when each call was answered in\n"
               "time with something that it may answer, with 1 when one was not, or it can't be loaded.\n\n"
               "  --attribute=NAME=VALUE  an attribute of a device that is the plugin's; up to 8\n"
               "  --driver=NAME           its driver\n"
               "  --type=TYPE             its kind, \"vfio\" or \"vfio-user\" (default vfio)\n"
               "  --host=FILE             the program in which it runs (default %s)\n"
               "  --help                  this text\n"
               "  --version               version\n",
               MIGMGR_PLUGIN_HOST_PATH);
}

static bool add_attribute(char *text)
{
        Sample *given = &samples[GIVEN];
        char *value = strchr(text, '=');

        if (!value || given->n_attributes == ARRAY_SIZE(given->attributes)) {
                fprintf(stderr, "--attribute=%s: not NAME=VALUE, or more than %zu\n", text,
                        ARRAY_SIZE(given->attributes));
                return false;
        }
        *value = 0;
        given->attributes[given->n_attributes++] = (struct migmgr_text){text, value + 1};
        return true;
}

/* Returns -1 to go on, else the exit status. */
static int read_options(int argc, char **argv, const char **ret_host)
{
        int c;

        while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0)
                switch (c) {
                case 'a':
                        if (!add_attribute(optarg))
                                return 2;
                        break;
                case 'd': samples[GIVEN].driver = optarg; break;
                case 't': samples[GIVEN].type = optarg; break;
                case 'H': *ret_host = optarg; break;
                case 'h': help(); return 0;
                case 'V': printf("migmgr-plugin-test %s\n", PACKAGE_VERSION); return 0;
                default: return 2;
                }
        if (optind + 1 != argc) {
                fprintf(stderr, "migmgr-plugin-test takes one plugin; see --help\n");
                return 2;
        }
        return -1;
}

static int sum_up(const char *file)
{
        const PluginHello *hello = plugin_hello(test.plugin);
        uint32_t blackout = 0;

        if (plugin_state(test.plugin) == PLUGIN_STATE_REFUSED) {
                printf("%s: not loaded: %s\n", file, plugin_text(test.plugin));
                return 1;
        }
        for (Phase p = 0; p < PHASE_MAX; p++)
                if (plugin_phase_is_blackout(p))
                        blackout += hello->before_ms[p] + hello->after_ms[p] + hello->error_ms[p];
        printf("\n%s %s: %u calls, %u failed%s; it may add up to %u ms to a blackout\n", hello->name,
               hello->version, test.n_done, test.n_failed,
               test.n_failed >= FAILURES_MAX ? ", the others not tried" : "", blackout);
        if (!test.matched)
                printf("None of these devices was its own, so describe() and estimate() were not called: see --attribute\n");
        return test.n_failed > 0;
}

int main(int argc, char **argv)
{
        const char *host = MIGMGR_PLUGIN_HOST_PATH, *file;
        int r = read_options(argc, argv, &host), fd;

        if (r >= 0)
                return r;
        file = argv[optind];
        log_set_level(LOG_LEVEL_ERROR);
        memset(test.long_text, 'x', sizeof test.long_text - 1);
        fd = open(file, O_RDONLY | O_CLOEXEC);
        if (fd < 0) {
                fprintf(stderr, "%s: %s\n", file, strerror(errno));
                return 1;
        }
        r = loop_new(&test.loop);
        if (r >= 0)
                r = loop_timer_new(test.loop, next, NULL, &test.timer);
        if (r >= 0)
                r = plugin_new(test.loop, host, strrchr(file, '/') ? strrchr(file, '/') + 1 : file, fd, NULL,
                               &test.plugin);
        if (r >= 0) {
                loop_timer_soon(test.timer);
                r = loop_run(test.loop);
        }
        if (r < 0) {
                fprintf(stderr, "%s: %s\n", file, strerror(-r));
                return 1;
        }
        r = sum_up(file);
        plugin_free(test.plugin);
        loop_timer_free(test.timer);
        loop_free(test.loop);
        return r;
}
