/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client.h"

#include <time.h>

/* Until it is interrupted, or the daemon goes. */

static const char *last_part(const char *text, char separator)
{
        const char *p = strrchr(text, separator);

        return p ? p + 1 : text;
}

static void print_json(sd_bus_message *m)
{
        json_object *o = json_new_object(), *data = client_message_to_json(m);
        struct timespec ts;

        (void) clock_gettime(CLOCK_REALTIME, &ts);
        json_add_number(o, "usec", (int64_t) ts.tv_sec * 1000000 + ts.tv_nsec / 1000);
        json_add_string(o, "path", sd_bus_message_get_path(m));
        json_add_string(o, "event", sd_bus_message_get_member(m));
        json_add(o, "data", data ? data : json_new_array());
        /* One a line, also when --json alone, or --json=pretty, was given. */
        puts(json_print(o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
        (void) fflush(stdout);
        json_object_put(o);
}

static void print_text(sd_bus_message *m)
{
        json_object *data = client_message_to_json(m);

        printf("%s %s %s\n", last_part(sd_bus_message_get_path(m), '/'), sd_bus_message_get_member(m),
               data ? json_print(data, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE) : "");
        (void) fflush(stdout);
        json_object_put(data);
}

static int on_signal(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
        const Client *client = userdata;

        if (client->options.json)
                print_json(m);
        else
                print_text(m);
        return 0;
}

static int on_owner(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
        const char *name, *was, *is;

        if (sd_bus_message_read(m, "sss", &name, &was, &is) >= 0 && !is[0])
                fprintf(stderr, "migctl: migmgrd has ended\n");
        return 0;
}

int cmd_monitor(Client *client, char **args, int n)
{
        int r = sd_bus_add_match(client->bus, NULL,
                                 "type='signal',sender='" MIGMGR_NAME "',path_namespace='" MIGMGR_ROOT "'",
                                 on_signal, client);

        if (r >= 0)
                r = sd_bus_add_match(client->bus, NULL,
                                     "type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',"
                                     "arg0='" MIGMGR_NAME "'",
                                     on_owner, client);
        /* So that whoever reads us knows from when on nothing is missed. */
        if (r >= 0 && client->options.json)
                puts("{\"event\":\"Listening\"}");
        (void) fflush(stdout);
        while (r >= 0) {
                r = sd_bus_process(client->bus, NULL);
                if (r == 0)
                        r = sd_bus_wait(client->bus, UINT64_MAX);
        }
        return client_failed(NULL, r);
}
