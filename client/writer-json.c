/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client.h"

void write_json(const Client *client, json_object *object)
{
        int flags = client->options.json_pretty ? JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED
                                                : JSON_C_TO_STRING_PLAIN;

        puts(json_print(object, flags | JSON_C_TO_STRING_NOSLASHESCAPE));
        (void) fflush(stdout);
        json_object_put(object);
}
