/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "handshake.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/socket.h>

#include <json-c/json.h>

#define THEIR_FDS_MAX 1024 /* libvfio-user refuses a client that says more */

typedef struct Capabilities {
        int64_t fds_max, data_max;
        bool twin_socket;
} Capabilities;

static void json_free(struct json_object *o)
{
        (void) json_object_put(o);
}
DEFINE_CLEANUP(struct json_object *, json_free);

static void tokener_free(struct json_tokener *t)
{
        json_tokener_free(t);
}
DEFINE_CLEANUP(struct json_tokener *, tokener_free);

static int get_int(struct json_object *o, const char *name, int64_t max, int64_t *number)
{
        struct json_object *member;

        if (!json_object_object_get_ex(o, name, &member))
                return 0;
        if (!json_object_is_type(member, json_type_int))
                return -EINVAL;
        *number = json_object_get_int64(member);
        return *number >= 0 && *number <= max ? 0 : -EINVAL;
}

/* A member that must be an object, if it is there: NULL in `ret_member` if not. */
static int get_object(struct json_object *o, const char *name, struct json_object **ret_member)
{
        *ret_member = NULL;
        if (!json_object_object_get_ex(o, name, ret_member))
                return 0;
        return json_object_is_type(*ret_member, json_type_object) ? 0 : -EINVAL;
}

static int get_twin(struct json_object *capabilities, bool *ret_wanted)
{
        struct json_object *twin, *supported;

        if (get_object(capabilities, "twin_socket", &twin) < 0)
                return -EINVAL;
        if (!twin || !json_object_object_get_ex(twin, "supported", &supported))
                return 0;
        if (!json_object_is_type(supported, json_type_boolean))
                return -EINVAL;
        *ret_wanted = json_object_get_boolean(supported);
        return 0;
}

/* A leftover of the first migration protocol, which libvfio-user still checks. */
static int check_page_size(struct json_object *capabilities)
{
        int64_t page_size = sysconf(_SC_PAGESIZE);
        struct json_object *migration;

        if (get_object(capabilities, "migration", &migration) < 0)
                return -EINVAL;
        if (migration && get_int(migration, "pgsize", INT64_MAX, &page_size) < 0)
                return -EINVAL;
        return page_size == sysconf(_SC_PAGESIZE) ? 0 : -EINVAL;
}

static int parse(const char *text, size_t size, Capabilities *c)
{
        _cleanup_(tokener_freep) struct json_tokener *tokener = json_tokener_new();
        _cleanup_(json_freep) struct json_object *root = NULL;
        struct json_object *capabilities;

        if (!tokener)
                return -ENOMEM;
        if (size == 0 || text[size - 1] != '\0')
                return -EINVAL;
        json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
        root = json_tokener_parse_ex(tokener, text, (int) strlen(text) + 1);
        if (!root || !json_object_is_type(root, json_type_object) ||
            get_object(root, "capabilities", &capabilities) < 0)
                return -EINVAL;
        if (!capabilities)
                return 0;
        if (get_int(capabilities, "max_msg_fds", THEIR_FDS_MAX, &c->fds_max) < 0 ||
            get_int(capabilities, "max_data_xfer_size", INT64_MAX, &c->data_max) < 0 ||
            get_twin(capabilities, &c->twin_socket) < 0)
                return -EINVAL;
        return check_page_size(capabilities);
}

static int open_twin(Client *client)
{
        int fds[2];

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
                return -errno;
        client->reply_fd = fds[1];
        return client_set_twin(client, fds[0]);
}

static int reply_version(Client *client, VfioUserVersion version)
{
        char json[256], page_size[48] = "";
        uint8_t *reply;
        int n;

        if (client->device->config.migration)
                (void) snprintf(page_size, sizeof page_size, ",\"migration\":{\"pgsize\":%ld}",
                                sysconf(_SC_PAGESIZE));
        n = snprintf(json, sizeof json,
                     "{\"capabilities\":{\"max_msg_fds\":%d,\"max_data_xfer_size\":%" PRIu64 "%s%s}}",
                     CONNECTION_FDS_MAX, client->device->config.max_data, page_size,
                     client->twin.fd >= 0 ? ",\"twin_socket\":{\"supported\":true,\"fd_index\":0}" : "");
        reply = client_reply(client, sizeof version + (size_t) n + 1);
        if (!reply)
                return -ENOMEM;
        memcpy(reply, &version, sizeof version);
        memcpy(reply + sizeof version, json, (size_t) n + 1);
        return 0;
}

int handshake_version(Client *client)
{
        Capabilities c = {.fds_max = 1, .data_max = VFIO_USER_DATA_MAX};
        size_t json_size = client_payload_size(client) - sizeof(VfioUserVersion);
        VfioUserVersion version;
        int r = 0;

        memcpy(&version, client->main.payload, sizeof version);
        if (version.major != VFIO_USER_MAJOR)
                return -EINVAL;
        if (json_size > 0)
                r = parse((const char *) client->main.payload + sizeof version, json_size, &c);
        if (r == 0 && c.twin_socket && c.fds_max > 0 && client->device->config.twin_socket)
                r = open_twin(client);
        version.minor = MIN(version.minor, VFIO_USER_MINOR);
        if (r == 0)
                r = reply_version(client, version);
        if (r < 0)
                return r;
        return client_accept(client, MIN((uint64_t) c.data_max, client->device->config.max_data));
}
