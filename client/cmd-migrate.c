/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client.h"

#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>

#include "common/clock.h"
#include "progress.h"

/* In which a second Ctrl-C cancels the job that the first one would leave alone. */
#define DETACH_USEC (3 * USEC_PER_SEC)

typedef struct Watch {
        Client *client;
        Progress *progress;
        char path[128];       /* of the job's object; empty until the daemon has named it */
        json_object *job;     /* its properties, as far as they were told */
        bool gone;            /* the daemon is */
        int interrupts;       /* signalfd of SIGINT, or -1 */
        uint64_t detach_usec; /* CLOCK_MONOTONIC: when we leave; 0: nobody wants us to */
        bool cancels;         /* we were told to cancel it */
        bool detached;
} Watch;

static bool is_over(const Watch *watch)
{
        const char *state = client_text(watch->job, "State");

        return streq(state, "finished") || streq(state, "in-doubt");
}

static void take_properties(Watch *watch, json_object *properties)
{
        json_object_object_foreach (properties, key, value)
                json_add(watch->job, key, json_object_get(value));
        if (!watch->client->options.json)
                progress_show(watch->progress, watch->job);
}

static int on_changed(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
        Watch *watch = userdata;
        _cleanup_(json_object_putp) json_object *data = NULL;

        if (!streq(sd_bus_message_get_path(m), watch->path))
                return 0;
        data = client_message_to_json(m); /* interface, changed, invalidated */
        if (json_object_array_length(data) >= 2 &&
            streq(json_object_get_string(json_object_array_get_idx(data, 0)), MIGMGR_NAME ".Job"))
                take_properties(watch, json_object_array_get_idx(data, 1));
        return 0;
}

static int on_owner(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
        Watch *watch = userdata;
        const char *name, *was, *is;

        if (sd_bus_message_read(m, "sss", &name, &was, &is) >= 0 && was[0])
                watch->gone = true;
        return 0;
}

/* Before the job exists: nothing of it must be missed. */
static int listen_first(Watch *watch)
{
        int r = sd_bus_add_match(watch->client->bus, NULL,
                                 "type='signal',sender='" MIGMGR_NAME
                                 "',interface='org.freedesktop.DBus.Properties',"
                                 "member='PropertiesChanged',path_namespace='" MIGMGR_ROOT "/job'",
                                 on_changed, watch);

        if (r >= 0)
                r = sd_bus_add_match(watch->client->bus, NULL,
                                     "type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',"
                                     "arg0='" MIGMGR_NAME "'",
                                     on_owner, watch);
        return r;
}

static int call_migrate(Watch *watch, char **args)
{
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *call = NULL, *reply = NULL;
        _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
        const char *path;
        int r = sd_bus_message_new_method_call(watch->client->bus, &call, MIGMGR_NAME, MIGMGR_ROOT,
                                               MIGMGR_NAME ".Manager", "Migrate");

        if (r >= 0)
                r = sd_bus_message_append(call, "ss", args[0], args[1]);
        if (r >= 0)
                r = client_append_move(watch->client, call);
        if (r >= 0)
                r = sd_bus_call(watch->client->bus, call, 0, &error, &reply);
        if (r >= 0)
                r = sd_bus_message_read(reply, "o", &path);
        if (r < 0)
                return client_failed(&error, r);
        (void) snprintf(watch->path, sizeof watch->path, "%s", path);
        return EXIT_DONE;
}

/* What was told before its path was known. */
static int read_properties(Watch *watch)
{
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
        _cleanup_(json_object_putp) json_object *properties = NULL;
        int r = sd_bus_call_method(watch->client->bus, MIGMGR_NAME, watch->path,
                                   "org.freedesktop.DBus.Properties", "GetAll", &error, &reply, "s",
                                   MIGMGR_NAME ".Job");

        if (r < 0)
                return client_failed(&error, r);
        properties = client_message_to_json(reply);
        take_properties(watch, properties);
        return EXIT_DONE;
}

/* ---- Ctrl-C -------------------------------------------------------------------------------------------------- */

/* From here on Ctrl-C is read, unless whoever started us wants it ignored. */
static void catch_interrupts(Watch *watch)
{
        struct sigaction was;
        sigset_t set;

        if (sigaction(SIGINT, NULL, &was) < 0 || was.sa_handler == SIG_IGN)
                return;
        (void) sigemptyset(&set);
        (void) sigaddset(&set, SIGINT);
        if (sigprocmask(SIG_BLOCK, &set, NULL) == 0)
                watch->interrupts = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* The first leaves the job alone, after a while in which a second one cancels it; one more leaves at once. */
static void on_interrupt(Watch *watch)
{
        struct signalfd_siginfo info;
        char id[37];

        if (read(watch->interrupts, &info, sizeof info) != sizeof info)
                return;
        progress_end(watch->progress);
        client_uuid_of_path(watch->path, id);
        if (watch->cancels) {
                watch->detached = true;
                fprintf(stderr, "migctl: not waiting any more: migctl show %s\n", id);
        } else if (watch->detach_usec == 0) {
                watch->detach_usec = clock_monotonic_usec() + DETACH_USEC;
                fprintf(stderr,
                        "migctl: the job goes on: migctl show %s, migctl cancel %s\n"
                        "migctl: Ctrl-C again within %d s cancels it\n",
                        id, id, (int) (DETACH_USEC / USEC_PER_SEC));
        } else {
                watch->detach_usec = 0;
                watch->cancels = true;
                if (client_cancel(watch->client, watch->path) == EXIT_DONE)
                        fprintf(stderr, "migctl: cancelled; waiting for its end\n");
                else
                        fprintf(stderr, "migctl: waiting for its end; Ctrl-C once more leaves it alone\n");
        }
}

/* ---- waiting ------------------------------------------------------------------------------------------------- */

/* Until there is something to do on the bus, or Ctrl-C, or the time to leave. */
static int wait_for_more(Watch *watch)
{
        uint64_t until, now = clock_monotonic_usec();
        int r = sd_bus_get_events(watch->client->bus);
        struct pollfd fds[] = {{.fd = sd_bus_get_fd(watch->client->bus), .events = (short) r},
                               {.fd = watch->interrupts, .events = POLLIN}};
        struct timespec time;

        if (r >= 0)
                r = sd_bus_get_timeout(watch->client->bus, &until);
        if (r < 0)
                return r;
        if (watch->detach_usec > 0)
                until = MIN(until, watch->detach_usec);
        time = (struct timespec){.tv_sec = (time_t) ((until > now ? until - now : 0) / USEC_PER_SEC),
                                 .tv_nsec = (long) ((until > now ? until - now : 0) % USEC_PER_SEC) * 1000};
        if (ppoll(fds, ARRAY_SIZE(fds), until == UINT64_MAX ? NULL : &time, NULL) < 0)
                return errno == EINTR ? 0 : -errno;
        if (fds[1].revents)
                on_interrupt(watch);
        if (watch->detach_usec > 0 && clock_monotonic_usec() >= watch->detach_usec)
                watch->detached = true;
        return 0;
}

static int wait_for_end(Watch *watch)
{
        int r = 0;

        while (r >= 0 && !is_over(watch) && !watch->gone && !watch->detached) {
                r = sd_bus_process(watch->client->bus, NULL);
                if (r == 0)
                        r = wait_for_more(watch);
        }
        progress_end(watch->progress);
        if (watch->detached)
                return EXIT_INTERRUPTED;
        if (r >= 0 && !watch->gone)
                return EXIT_DONE;
        fprintf(stderr,
                "migctl: migmgrd has ended. The job is taken up when it is started again; then: "
                "migctl show %s\n",
                strrchr(watch->path, '/') + 1);
        return EXIT_UNREACHABLE;
}

/* A doubt may have settled since it was told: then the job goes on, and so does the waiting. */
static int get_end(Watch *watch, const char *id, json_object **ret_job)
{
        for (;;) {
                _cleanup_(json_object_putp) json_object *job = NULL;
                int status = wait_for_end(watch);

                if (status == EXIT_DONE)
                        status = client_get_job(watch->client, id, &job);
                if (status != EXIT_DONE)
                        return status;
                json_add_string(watch->job, "State", client_text(job, "state"));
                if (is_over(watch)) {
                        *ret_job = TAKE_PTR(job);
                        return EXIT_DONE;
                }
        }
}

/* That it is done does not say that nothing could have been lost. */
static void print_accepted_risks(json_object *job)
{
        json_object *risks = NULL;

        if (!json_object_object_get_ex(job, "accepted_risks", &risks))
                return;
        for (size_t i = 0; i < json_object_array_length(risks); i++)
                printf("%s%s", i == 0 ? ", at a risk that policy accepts: P2P of " : ", ",
                       json_object_get_string(json_object_array_get_idx(risks, i)));
}

static int report(Watch *watch)
{
        _cleanup_(json_object_putp) json_object *job = NULL;
        json_object *error = NULL;
        char id[37], blackout[32];
        const char *result;
        int status;

        client_uuid_of_path(watch->path, id);
        status = get_end(watch, id, &job);
        if (status != EXIT_DONE)
                return status;
        result = client_text(job, "result");
        status = outcome_exit_of_result(result);
        if (watch->client->options.json) {
                write_json(watch->client, json_object_get(job));
                return status;
        }
        printf("%s: %s", client_text(job, "name"), result);
        if (client_number(job, "blackout_usec") > 0)
                printf(", blackout %s",
                       format_usec((uint64_t) client_number(job, "blackout_usec"), blackout));
        print_accepted_risks(job);
        printf(" (migctl show %s)\n", id);
        if (json_object_object_get_ex(job, "error", &error) && client_text(error, "text")[0])
                fprintf(stderr, "migctl: %s\n", client_text(error, "text"));
        findings_view(job, watch->client->options.legend, stdout);
        return status;
}

/* It has begun: nobody waits here for what becomes of it. */
static int print_job(Watch *watch)
{
        json_object *o;
        char id[37];

        client_uuid_of_path(watch->path, id);
        if (!watch->client->options.json) {
                puts(id);
                return EXIT_DONE;
        }
        o = json_new_object();
        json_add_string(o, "job", id);
        write_json(watch->client, o);
        return EXIT_DONE;
}

/* What would be done, and what speaks against it. */
static int dry_run(Client *client, char **args)
{
        _cleanup_(json_object_putp) json_object *report = NULL;
        json_object *plan = NULL;
        bool ok;
        int status = client_check(client, args, &ok, &report);

        if (status != EXIT_DONE)
                return status;
        if (client->options.json) {
                write_json(client, json_object_get(report));
                return ok ? EXIT_DONE : EXIT_REFUSED;
        }
        (void) json_object_object_get_ex(report, "plan", &plan);
        plan_view(plan, client->options.legend, stdout);
        report_view(report, client->options.legend, stdout);
        if (ok) {
                printf("\n%s can go to %s; nothing was touched.\n", args[0], args[1]);
                findings_view(report, client->options.legend, stdout);
                return EXIT_DONE;
        }
        printf("\n%s can't go to %s:\n", args[0], args[1]);
        findings_view(report, client->options.legend, stdout);
        return EXIT_REFUSED;
}

static int follow(Watch *watch)
{
        int status;

        catch_interrupts(watch);
        status = read_properties(watch);
        return status == EXIT_DONE ? report(watch) : status;
}

static int migrate(Client *client, char **args)
{
        Watch watch = {.client = client,
                       .progress = progress_new(args[0]),
                       .job = json_new_object(),
                       .interrupts = -1};
        int r = client->options.no_wait ? 0 : listen_first(&watch), status;

        status = r < 0 ? client_failed(NULL, r) : call_migrate(&watch, args);
        if (status == EXIT_DONE)
                status = client->options.no_wait ? print_job(&watch) : follow(&watch);
        if (watch.interrupts >= 0)
                (void) close(watch.interrupts);
        progress_free(watch.progress);
        json_object_put(watch.job);
        return status;
}

int cmd_migrate(Client *client, char **args, int n)
{
        return client->options.dry_run ? dry_run(client, args) : migrate(client, args);
}
