/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client.h"

#include "common/file.h"

#define DEFINITION_MAX (256 * 1024)

int cmd_register(Client *client, char **args, int n)
{
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
        _cleanup_(freep) char *text = NULL;
        const char *path;
        size_t size;
        int r = file_read(args[0], DEFINITION_MAX, &text, &size);

        if (r < 0) {
                fprintf(stderr, "migctl: %s: %s\n", args[0], strerror(-r));
                return r == -ENOENT ? EXIT_NOT_FOUND : EXIT_USAGE;
        }
        if (strlen(text) != size) {
                fprintf(stderr, "migctl: %s: is no JSON\n", args[0]);
                return EXIT_USAGE;
        }
        r = sd_bus_call_method(client->bus, MIGMGR_NAME, MIGMGR_ROOT, MIGMGR_NAME ".Manager", "RegisterVM",
                               &error, &reply, "sa{sv}", text, 1, "incoming", "b",
                               (int) client->options.incoming);
        if (r >= 0)
                r = sd_bus_message_read(reply, "o", &path);
        if (r < 0)
                return client_failed(&error, r);
        if (client->options.json) {
                json_object *o = json_new_object();

                json_add_string(o, "path", path);
                write_json(client, o);
        }
        return EXIT_DONE;
}
