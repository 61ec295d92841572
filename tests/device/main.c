/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* migmgr-emulated-device: a vfio-user server with any number of emulated devices, for people who test what migrates
 * devices.
 */

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>

#include "control.h"
#include "guard.h"
#include "number.h"

#define EXIT_USAGE 2

static const char *arg_control;
static DeviceResetMode arg_reset = DEVICE_RESET_UAPI;
static ServerOnDisconnect arg_on_disconnect = SERVER_KEEP;
static bool arg_strict;
static int arg_ready_fd = -1;

static const char usage[] =
        "Usage: migmgr-emulated-device [OPTION...] DEVICE...\n"
        "\n"
        "Serves emulated vfio-user devices that can be migrated, delayed and made to fail.\n"
        "\n"
        "  --control=PATH                       listen for orders there, one JSON object a line\n"
        "  --reset=uapi|libvfio-user            what DEVICE_RESET does (default: uapi)\n"
        "  --on-disconnect=keep|running|exit    what becomes of the state when the client leaves (default: keep)\n"
        "  --strict=libvfio-user                refuse what libvfio-user refuses of a device that is stopped\n"
        "  --ready-fd=N                         write \"ready\" and a newline there when all sockets listen\n"
        "  --help                               print this\n"
        "\n"
        "DEVICE is KEY=VALUE,... with\n"
        "  socket=PATH            where to listen; required\n"
        "  id=NAME                its name in orders (default: the last part of PATH)\n"
        "  migration=on|off       (on)\n"
        "  p2p=on|off             whether it has the P2P states (on)\n"
        "  pre-copy=on|off        whether it has the PRE_COPY states (off)\n"
        "  size=BYTES             of its memory, with K, M or G; at most 4G (64K)\n"
        "  seed=N                 decides the first contents of the memory (1)\n"
        "  delay=ARC:MS           repeatable; ARC is STATE>STATE, where * is every state\n"
        "  read-delay=MS          for each MiB of migration data that is read\n"
        "  write-delay=MS         for each MiB of migration data that is written\n"
        "  reset-delay=MS\n"
        "  twin-socket=on|off     whether it is granted when asked for (on)\n"
        "  max-data=BYTES         max_data_xfer_size (1M)\n"
        "  work=on|off            change the memory while running, also when nobody watches (off)\n"
        "  dirty-rate=PAGES       change so many pages of 4K of the memory a second while running (0)\n"
        "  worker=on|off          a PCI device that a guest can use: registers, DMA, interrupts (off)\n"
        "  mailbox=on|off         of a worker: memory that its peer writes into; it does the same there (off)\n"
        "  ndma=on|off            whether it starts no DMA at all in the P2P states, not only none to peers (off)\n"
        "  quiesce=MS             how long it takes to stand still when it is stopped\n"
        "  fault=FAULT            repeatable; WHERE:KIND[:ARG][@COUNT]\n"
        "\n"
        "WHERE  an ARC, read, write, reset, version, feature, info, any\n"
        "KIND   fail:ERRNO error:ERRNO hang late:MS lie disconnect exit short corrupt bad-id bad-command bad-type\n"
        "       bad-size-big bad-size-small truncated endless garbage chatter error-zero error-huge\n"
        "STATE  error stop running stop-copy resuming running-p2p pre-copy pre-copy-p2p\n";

_printf_(1, 2) static int complain(const char *format, ...)
{
        va_list args;

        fputs("migmgr-emulated-device: ", stderr);
        va_start(args, format);
        (void) vfprintf(stderr, format, args);
        va_end(args);
        fputc('\n', stderr);
        return -EINVAL;
}

/* ---- arguments ----------------------------------------------------------------------------------------------- */

static int choose(const char *option, const char *value, const char *const *names)
{
        for (int i = 0; names[i]; i++)
                if (streq(names[i], value))
                        return i;
        return complain("--%s: cannot be '%s'", option, value);
}

static int set_option(const char *option, const char *value)
{
        static const char *const resets[] = {
                [DEVICE_RESET_UAPI] = "uapi", [DEVICE_RESET_LIBVFIO_USER] = "libvfio-user", NULL};
        static const char *const ends[] = {
                [SERVER_KEEP] = "keep", [SERVER_RUNNING] = "running", [SERVER_EXIT] = "exit", NULL};
        static const char *const models[] = {"libvfio-user", NULL};
        uint64_t number;
        int r;

        if (streq(option, "control")) {
                arg_control = value;
                return 0;
        }
        if (streq(option, "ready-fd")) {
                if (number_parse(value, 0, INT32_MAX, &number) < 0)
                        return complain("--ready-fd: not a file descriptor: '%s'", value);
                arg_ready_fd = (int) number;
                return 0;
        }
        if (streq(option, "strict")) {
                arg_strict = true;
                return choose(option, value, models);
        }
        r = choose(option, value, streq(option, "reset") ? resets : ends);
        if (r < 0)
                return r;
        if (streq(option, "reset"))
                arg_reset = (DeviceResetMode) r;
        else
                arg_on_disconnect = (ServerOnDisconnect) r;
        return 0;
}

/* 1: help was asked for, and is given. */
static int parse_options(int argc, char **argv)
{
        static const struct option options[] = {
                {"control", required_argument},
                {"reset", required_argument},
                {"on-disconnect", required_argument},
                {"strict", required_argument},
                {"ready-fd", required_argument},
                {"help", no_argument},
                {0},
        };
        int c, index = 0;

        while ((c = getopt_long(argc, argv, "", options, &index)) != -1) {
                if (c == '?')
                        return -EINVAL; /* getopt has complained */
                if (streq(options[index].name, "help")) {
                        fputs(usage, stdout);
                        return 1;
                }
                if (set_option(options[index].name, optarg) < 0)
                        return -EINVAL;
        }
        if (optind == argc)
                return complain("no DEVICE is given");
        return 0;
}

static int add_device(Fleet *fleet, const char *text)
{
        _cleanup_(freep) char *wrong = NULL;
        DeviceConfig config;
        int r = device_config_parse(text, &config, &wrong);

        if (r < 0)
                return complain("device '%s': wrong or impossible: '%s'", text, wrong ? wrong : strerror(-r));
        config.reset_mode = arg_reset;
        config.strict = arg_strict;
        if (fleet_get(fleet, config.id))
                r = complain("device '%s': there is another one of this id", text);
        else if ((r = fleet_add(fleet, &config, arg_on_disconnect)) < 0)
                (void) complain("device '%s': %s", text, strerror(-r));
        device_config_done(&config);
        return r;
}

/* ---- running ------------------------------------------------------------------------------------------------- */

/* Three descriptors a device (listening, client, twin), six with a worker (window, two eventfds), and often only 1024 are
 * allowed at first. */
static void allow_descriptors(void)
{
        struct rlimit limit;

        if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
                return;
        limit.rlim_cur = limit.rlim_max;
        (void) setrlimit(RLIMIT_NOFILE, &limit);
}

static struct event_base *new_base(void)
{
        struct event_config *config = event_config_new();
        struct event_base *base = NULL;

        /* Delays are asked for in fractions of milliseconds, and must not be cut by a time read long ago. */
        if (config && event_config_set_flag(config, EVENT_BASE_FLAG_PRECISE_TIMER) == 0 &&
            event_config_set_flag(config, EVENT_BASE_FLAG_NO_CACHE_TIME) == 0 &&
            event_config_require_features(config, EV_FEATURE_EARLY_CLOSE) == 0)
                base = event_base_new_with_config(config);
        if (config)
                event_config_free(config);
        return base;
}

static int say_ready(void)
{
        static const char ready[] = "ready\n";

        if (arg_ready_fd >= 0 && write(arg_ready_fd, ready, sizeof ready - 1) < 0)
                return complain("--ready-fd=%d: %s", arg_ready_fd, strerror(errno));
        fputs(ready, stdout);
        (void) fflush(stdout);
        return 0;
}

static void terminate(evutil_socket_t fd, short what, void *userdata)
{
        (void) event_base_loopbreak(userdata);
}

static int serve(Fleet *fleet, int n, char **devices)
{
        _cleanup_(control_freep) Control *control = NULL;
        int r;

        for (int i = 0; i < n; i++) {
                r = add_device(fleet, devices[i]);
                if (r < 0)
                        return r;
        }
        if (arg_control) {
                r = control_new(fleet, arg_control, &control);
                if (r < 0) {
                        (void) complain("--control=%s: %s", arg_control, strerror(-r));
                        return r;
                }
        }
        r = say_ready();
        if (r == 0)
                (void) event_base_dispatch(fleet->base);
        return r;
}

static int run(struct event_base *base, int n, char **devices)
{
        struct event *sigterm = evsignal_new(base, SIGTERM, terminate, base);
        struct event *sigint = evsignal_new(base, SIGINT, terminate, base);
        Fleet fleet;
        int r = -ENOMEM;

        if (sigterm && sigint && event_add(sigterm, NULL) == 0 && event_add(sigint, NULL) == 0 &&
            fleet_init(&fleet, base) == 0) {
                r = serve(&fleet, n, devices);
                fleet_done(&fleet);
        }
        if (sigterm)
                event_free(sigterm);
        if (sigint)
                event_free(sigint);
        return r;
}

int main(int argc, char **argv)
{
        struct event_base *base;
        int r = parse_options(argc, argv);

        if (r != 0)
                return r < 0 ? EXIT_USAGE : EXIT_SUCCESS;
        allow_descriptors();
        (void) signal(SIGPIPE, SIG_IGN);
        guard_init();
        base = new_base();
        if (!base) {
                (void) complain("no event loop");
                return EXIT_FAILURE;
        }
        r = run(base, argc - optind, argv + optind);
        event_base_free(base);
        if (r == -EINVAL)
                return EXIT_USAGE;
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
