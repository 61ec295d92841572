/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* migmgrd: options, start and end. What it does is in manager.c. */

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-journal.h>

#include "bus/bus.h"
#include "common/json.h"
#include "common/log.h"

typedef struct Daemon {
        Host host;
        PolicyFiles policies;
        Manager *manager;
        Bus *bus;
        int signal_fd;
        LoopIo *signal_io;
        int status;
} Daemon;

static const struct option options[] = {{"runtime-dir", required_argument, NULL, 'r'},
                                        {"state-dir", required_argument, NULL, 's'},
                                        {"config", required_argument, NULL, 'c'},
                                        {"bus-address", required_argument, NULL, 'b'},
                                        {"plugin-host", required_argument, NULL, 'p'},
                                        {"debug", no_argument, NULL, 'd'},
                                        {"help", no_argument, NULL, 'h'},
                                        {"version", no_argument, NULL, 'V'},
                                        {}};

static void help(void)
{
        printf("migmgrd [OPTIONS]\n\n"
               "Moves whole virtual machines and the devices they own, in lockstep. Used through migctl or D-Bus.\n\n"
               "  --runtime-dir=DIR   sockets, shared with migmgr-helper (default %s)\n"
               "  --state-dir=DIR     records (default %s)\n"
               "  --config=FILE       settings (default %s)\n"
               "  --bus-address=ADDR  D-Bus to serve on, instead of the system bus\n"
               "  --plugin-host=FILE  the program in which a plugin runs (default %s)\n"
               "  --debug             log each event of a job, and what it asks for\n"
               "  --help              this text\n"
               "  --version           version\n",
               config_default.runtime_dir, config_default.state_dir, config_default.config_file,
               config_default.plugin_host);
}

/* Returns -1 to go on, else the exit status. */
static int read_options(Daemon *d, int argc, char **argv)
{
        int c;

        while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0)
                switch (c) {
                case 'r': d->host.config.runtime_dir = optarg; break;
                case 's': d->host.config.state_dir = optarg; break;
                case 'c': d->host.config.config_file = optarg; break;
                case 'b': d->host.config.bus_address = optarg; break;
                case 'p': d->host.config.plugin_host = optarg; break;
                case 'd': log_set_level(LOG_LEVEL_DEBUG); break;
                case 'h': help(); return 0;
                case 'V': printf("migmgrd %s\n", PACKAGE_VERSION); return 0;
                default: return 2;
                }
        if (optind < argc) {
                fprintf(stderr, "migmgrd takes no arguments: %s\n", argv[optind]);
                return 2;
        }
        return -1;
}

static void log_to_journal(LogLevel level, const LogAbout *about, const char *text)
{
        static const LogAbout nothing;
        const LogAbout *a = about ? about : &nothing;

        (void) sd_journal_send("PRIORITY=%d", (int) level, "MESSAGE=%s", text, "MIGMGR_JOB=%s",
                               a->job ? a->job : "", "MIGMGR_VM=%s", a->vm ? a->vm : "", "MIGMGR_DEVICE=%s",
                               a->device ? a->device : "", "MIGMGR_PHASE=%s", a->phase ? a->phase : "", NULL);
}

static void reload_policies(Daemon *d)
{
        const Config *config = &d->host.config;
        char error[JSON_TEXT_MAX];

        if (policy_files_reload(config->policies_dirs, config->n_policies_dirs, &d->policies, error) < 0)
                log_error(NULL, "the policies stay as they were: %s", error);
        else
                log_info(NULL, "policies: %u files, %u rules", d->policies.n, d->policies.rules.n);
}

static void on_signal(void *userdata)
{
        Daemon *d = userdata;
        struct signalfd_siginfo info;

        if (read(d->signal_fd, &info, sizeof info) != sizeof info)
                return;
        if (info.ssi_signo == SIGHUP) {
                reload_policies(d);
                return;
        }
        log_info(NULL, "ending; VMs, agents and jobs stay as they are");
        loop_quit(d->host.loop);
}

static int read_settings(Daemon *d)
{
        Config *config = &d->host.config;
        char error[JSON_TEXT_MAX];
        int r = config_read(config, error);

        if (r < 0) {
                log_error(NULL, "%s", error);
                return r;
        }
        r = policy_files_read(config->policies_dirs, config->n_policies_dirs, &d->policies, error);
        if (r < 0 && r != -EINVAL) {
                log_error(NULL, "%s; it starts when there is more", error);
                return r;
        }
        if (r < 0) {
                log_error(NULL, "%s; correct it, then: migctl policy reload. Until then no move begins",
                          error);
                memcpy(d->policies.error, error, sizeof d->policies.error);
        }
        d->host.policies = &d->policies;
        return 0;
}

static void on_bus_end(void *userdata)
{
        Daemon *d = userdata;

        log_error(NULL, "the bus is gone; migmgrd ends, to be started again when it is back");
        d->status = 1;
        loop_quit(d->host.loop);
}

static int watch_signals(Daemon *d)
{
        sigset_t set;

        (void) sigemptyset(&set);
        (void) sigaddset(&set, SIGTERM);
        (void) sigaddset(&set, SIGINT);
        (void) sigaddset(&set, SIGHUP);
        if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
                return -errno;
        d->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        if (d->signal_fd < 0)
                return -errno;
        return loop_io_new(d->host.loop, d->signal_fd, on_signal, NULL, d, &d->signal_io);
}

/* What went wrong is said here, with what to do. */
static int start(Daemon *d)
{
        Host *host = &d->host;
        int r = loop_new(&host->loop);

        if (r >= 0)
                r = watch_signals(d);
        if (r >= 0)
                r = boot_id_read(host->boot_id);
        if (r < 0) {
                log_error(NULL, "cannot start: %s", strerror(-r));
                return r;
        }
        if (mkdir(host->config.runtime_dir, 0700) < 0 && errno != EEXIST) {
                log_error(NULL, "the runtime directory %s cannot be made: %s", host->config.runtime_dir,
                          strerror(errno));
                return -errno;
        }
        r = parking_new(host->loop, &host->parking);
        if (r < 0) {
                log_error(NULL, "cannot start: %s", strerror(-r));
                return r;
        }
        r = store_open(host->loop, host->config.state_dir, &host->config.history, &host->store);
        if (r < 0) {
                log_error(NULL, "the state directory %s cannot be used: %s; is another migmgrd running?",
                          host->config.state_dir, strerror(-r));
                return r;
        }
        host->host_id = store_host_id(host->store);
        r = plugins_new(host->loop, host->config.plugins_dir, host->config.plugin_host, &host->plugins);
        if (r >= 0)
                r = helper_client_new(host->loop, host->config.runtime_dir, &host->helper);
        if (r >= 0)
                r = manager_new(host, &d->manager);
        if (r < 0) {
                log_error(NULL, "cannot start: %s", strerror(-r));
                return r;
        }
        r = bus_new(host, d->manager, on_bus_end, d, &d->bus);
        if (r < 0) {
                log_error(NULL, "cannot be on the bus %s: %s",
                          host->config.bus_address ? host->config.bus_address : "",
                          r == -EEXIST ? "another migmgrd is there" : strerror(-r));
                return r;
        }
        r = manager_start(d->manager);
        if (r < 0)
                log_error(NULL, "cannot take up what was before, or listen in %s: %s",
                          host->config.runtime_dir, strerror(-r));
        return r;
}

static void stop(Daemon *d)
{
        if (d->host.parking)
                parking_settle(d->host.parking);
        manager_free(d->manager);
        bus_free(d->bus);
        helper_client_free(d->host.helper);
        plugins_free(d->host.plugins);
        store_close(d->host.store);
        parking_free(d->host.parking);
        loop_io_free(d->signal_io);
        if (d->signal_fd >= 0)
                (void) close(d->signal_fd);
        loop_free(d->host.loop);
}

int main(int argc, char **argv)
{
        Daemon d = {.host.config = config_default, .signal_fd = -1};
        int r = read_options(&d, argc, argv);

        if (r >= 0)
                return r;
        if (log_stderr_is_journal())
                log_set_sink(log_to_journal);
        (void) signal(SIGPIPE, SIG_IGN);
        r = read_settings(&d);
        if (r < 0) {
                config_deinit(&d.host.config);
                return 1;
        }
        r = start(&d);
        if (r >= 0) {
                (void) sd_notify(0, "READY=1");
                log_info(NULL, "ready, host id %s", d.host.host_id);
                r = loop_run(d.host.loop);
        }
        stop(&d);
        policy_files_deinit(&d.policies);
        config_deinit(&d.host.config);
        return r < 0 ? 1 : d.status;
}
