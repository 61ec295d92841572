/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client.h"

#include "progress.h"

typedef struct Watch {
        Client *client;
        Progress *progress;
        char path[128];   /* of the job's object; empty until the daemon has named it */
        json_object *job; /* its properties, as far as they were told */
        bool gone;        /* the daemon is */
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

static int wait_for_end(Watch *watch)
{
        int r = 0;

        while (r >= 0 && !is_over(watch) && !watch->gone) {
                r = sd_bus_process(watch->client->bus, NULL);
                if (r == 0)
                        r = sd_bus_wait(watch->client->bus, UINT64_MAX);
        }
        progress_end(watch->progress);
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

static int report(Watch *watch)
{
        _cleanup_(json_object_putp) json_object *job = NULL;
        json_object *error = NULL, *findings = NULL;
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
        printf(" (migctl show %s)\n", id);
        if (json_object_object_get_ex(job, "error", &error) && client_text(error, "text")[0])
                fprintf(stderr, "migctl: %s\n", client_text(error, "text"));
        if (json_object_object_get_ex(job, "findings", &findings) && json_object_array_length(findings) > 0)
                findings_view(findings, watch->client->options.legend, stdout);
        return status;
}

int cmd_migrate(Client *client, char **args, int n)
{
        Watch watch = {.client = client, .progress = progress_new(args[0]), .job = json_new_object()};
        int r = listen_first(&watch), status;

        status = r < 0 ? client_failed(NULL, r) : call_migrate(&watch, args);
        if (status == EXIT_DONE)
                status = read_properties(&watch);
        if (status == EXIT_DONE)
                status = report(&watch);
        progress_free(watch.progress);
        json_object_put(watch.job);
        return status;
}
