/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client.h"

#include "common/log.h"

int client_connect(Client *client)
{
        int r;

        if (!client->options.bus_address) {
                r = sd_bus_open_system(&client->bus);
        } else {
                r = sd_bus_new(&client->bus);
                if (r >= 0)
                        r = sd_bus_set_address(client->bus, client->options.bus_address);
                if (r >= 0)
                        r = sd_bus_set_bus_client(client->bus, true);
                if (r >= 0)
                        r = sd_bus_start(client->bus);
        }
        /* A person may be asked for a password; whoever calls over D-Bus says so himself. */
        if (r >= 0)
                r = sd_bus_set_allow_interactive_authorization(client->bus, true);
        if (r >= 0)
                return EXIT_DONE;
        fprintf(stderr, "migctl: the bus can't be reached: %s\n", strerror(-r));
        return EXIT_UNREACHABLE;
}

/* What the bus itself says when nobody is there, and what comes of starting it in vain. */
static bool is_absence(const char *name)
{
        static const char *const names[] = {
                "org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner",
                "org.freedesktop.DBus.Error.NoReply", "org.freedesktop.DBus.Error.Disconnected",
                "org.freedesktop.DBus.Error.TimedOut"};
        static const char *const prefixes[] = {"org.freedesktop.DBus.Error.Spawn.",
                                               "org.freedesktop.systemd1."};

        for (size_t i = 0; i < ARRAY_SIZE(names); i++)
                if (streq(name, names[i]))
                        return true;
        for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++)
                if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
                        return true;
        return false;
}

int client_failed(const sd_bus_error *error, int r)
{
        Outcome outcome = sd_bus_error_is_set(error) ? outcome_from_bus(error->name) : OUTCOME_INVALID;

        if (outcome != OUTCOME_INVALID) {
                fprintf(stderr, "migctl: %s\n", error->message);
                return outcome_info(outcome)->exit;
        }
        if (!sd_bus_error_is_set(error) || is_absence(error->name)) {
                fprintf(stderr, "migctl: migmgrd can't be reached: %s; is migmgrd.service running?\n",
                        sd_bus_error_is_set(error) ? error->message : strerror(-r));
                return EXIT_UNREACHABLE;
        }
        if (streq(error->name, SD_BUS_ERROR_ACCESS_DENIED)) {
                fprintf(stderr, "migctl: %s\n", error->message);
                return EXIT_DENIED;
        }
        fprintf(stderr, "migctl: %s: %s\n", error->name, error->message);
        /* The bus', or this program's own: nothing is known of the VM, and EXIT_FAILED would say that it is at the source. */
        return streq(error->name, SD_BUS_ERROR_UNKNOWN_OBJECT) ? EXIT_NOT_FOUND : EXIT_UNREACHABLE;
}

/* What can't be read says nothing of the VM, and EXIT_FAILED would say that it is still at the source. */
int client_read_json(const char *text, const char *what, json_type type, json_object **ret)
{
        JsonReader reader = {.where = what};

        *ret = json_parse(&reader, text, strlen(text));
        if (json_object_is_type(*ret, type))
                return EXIT_DONE;
        fprintf(stderr, "migctl: what migmgrd says can't be read: %s\n", reader.failed ? reader.text : what);
        json_object_put(*ret);
        *ret = NULL;
        return EXIT_UNREACHABLE;
}

/* ---- messages as JSON ---------------------------------------------------------------------------------------- */

static json_object *read_value(sd_bus_message *m);

/* What was not read for want of memory would look as if it were not there. */
static int checked(int r)
{
        if (r == -ENOMEM)
                out_of_memory();
        return r;
}

static bool enter(sd_bus_message *m, char type, const char *contents)
{
        return checked(sd_bus_message_enter_container(m, type, contents)) > 0;
}

static json_object *read_basic(sd_bus_message *m, char type)
{
        union {
                uint8_t y;
                int b;
                int16_t n;
                uint16_t q;
                int32_t i;
                uint32_t u;
                int64_t x;
                uint64_t t;
                double d;
                const char *s;
        } v;

        if (checked(sd_bus_message_read_basic(m, type, &v)) <= 0)
                return NULL;
        switch (type) {
        case 'y': return json_need(json_object_new_int(v.y));
        case 'b': return json_need(json_object_new_boolean(v.b));
        case 'n': return json_need(json_object_new_int(v.n));
        case 'q': return json_need(json_object_new_int(v.q));
        case 'i': return json_need(json_object_new_int(v.i));
        case 'u': return json_need(json_object_new_int64(v.u));
        case 'x': return json_need(json_object_new_int64(v.x));
        case 't': return json_need(json_object_new_uint64(v.t));
        case 'd': return json_need(json_object_new_double(v.d));
        default: return json_need(json_object_new_string(v.s));
        }
}

static json_object *read_dict(sd_bus_message *m, const char *contents)
{
        json_object *object = json_new_object();
        const char *inside;
        char type;

        (void) enter(m, 'a', contents);
        while (checked(sd_bus_message_peek_type(m, &type, &inside)) > 0 && enter(m, type, inside)) {
                json_object *key = read_value(m);

                if (key)
                        json_add(object, json_object_get_string(key), read_value(m));
                json_object_put(key);
                (void) sd_bus_message_exit_container(m);
        }
        (void) sd_bus_message_exit_container(m);
        return object;
}

static json_object *read_list(sd_bus_message *m, char type, const char *contents)
{
        json_object *array = json_new_array(), *value;

        (void) enter(m, type, contents);
        while ((value = read_value(m)))
                json_append(array, value);
        (void) sd_bus_message_exit_container(m);
        return array;
}

static json_object *read_value(sd_bus_message *m)
{
        const char *contents;
        json_object *value;
        char type;

        if (checked(sd_bus_message_peek_type(m, &type, &contents)) <= 0)
                return NULL;
        switch (type) {
        case SD_BUS_TYPE_ARRAY:
                return contents[0] == '{' ? read_dict(m, contents) : read_list(m, 'a', contents);
        case SD_BUS_TYPE_STRUCT: return read_list(m, 'r', contents);
        case SD_BUS_TYPE_VARIANT:
                (void) enter(m, 'v', contents);
                value = read_value(m);
                (void) sd_bus_message_exit_container(m);
                return value;
        default: return read_basic(m, type);
        }
}

json_object *client_message_to_json(sd_bus_message *m)
{
        json_object *first = read_value(m), *next, *array;

        next = first ? read_value(m) : NULL;
        if (!next)
                return first;
        array = json_new_array();
        json_append(array, first);
        for (; next; next = read_value(m))
                json_append(array, next);
        return array;
}

/* ---- objects ------------------------------------------------------------------------------------------------- */

/* The interfaces of one object that are asked for; not what every object on a bus has. */
static json_object *read_interfaces(sd_bus_message *m, bool devices)
{
        json_object *object = json_new_object();
        const char *interface;

        (void) enter(m, 'a', "{sa{sv}}");
        while (enter(m, 'e', "sa{sv}")) {
                bool ours = checked(sd_bus_message_read(m, "s", &interface)) > 0 &&
                            strncmp(interface, MIGMGR_NAME ".", strlen(MIGMGR_NAME ".")) == 0;

                if (ours && (devices || !streq(interface, MIGMGR_NAME ".Device")))
                        json_add(object, interface, read_value(m));
                else
                        (void) checked(sd_bus_message_skip(m, "a{sv}"));
                (void) sd_bus_message_exit_container(m);
        }
        (void) sd_bus_message_exit_container(m);
        return object;
}

static json_object *read_objects(sd_bus_message *m, bool devices)
{
        json_object *objects = json_new_object(), *object;
        const char *path;

        (void) enter(m, 'a', "{oa{sa{sv}}}");
        while (enter(m, 'e', "oa{sa{sv}}")) {
                if (checked(sd_bus_message_read(m, "o", &path)) > 0) {
                        object = read_interfaces(m, devices);
                        if (json_object_object_length(object) > 0)
                                json_add(objects, path, object);
                        else
                                json_object_put(object);
                }
                (void) sd_bus_message_exit_container(m);
        }
        (void) sd_bus_message_exit_container(m);
        return objects;
}

int client_objects(Client *client, bool devices, json_object **ret)
{
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
        int r = sd_bus_call_method(client->bus, MIGMGR_NAME, MIGMGR_ROOT,
                                   "org.freedesktop.DBus.ObjectManager", "GetManagedObjects", &error, &reply,
                                   "");

        if (r < 0)
                return client_failed(&error, r);
        *ret = read_objects(reply, devices);
        /* What can't be read to its end would look like fewer VMs. */
        if (sd_bus_message_at_end(reply, true) > 0)
                return EXIT_DONE;
        fprintf(stderr, "migctl: what migmgrd says can't be read to its end\n");
        return EXIT_UNREACHABLE;
}

json_object *client_interface(json_object *objects, const char *path, const char *interface)
{
        json_object *object = NULL, *properties = NULL;

        if (json_object_object_get_ex(objects, path, &object))
                (void) json_object_object_get_ex(object, interface, &properties);
        return properties;
}

const char *client_text(json_object *properties, const char *key)
{
        json_object *value = NULL;

        if (!json_object_is_type(properties, json_type_object) ||
            !json_object_object_get_ex(properties, key, &value) || !value)
                return "";
        return json_object_is_type(value, json_type_string) ? json_object_get_string(value)
                                                            : json_print(value, JSON_C_TO_STRING_PLAIN);
}

int64_t client_number(json_object *properties, const char *key)
{
        json_object *value = NULL;

        if (!json_object_is_type(properties, json_type_object) ||
            !json_object_object_get_ex(properties, key, &value))
                return 0;
        return json_object_get_int64(value);
}

json_object *client_find_vm(json_object *objects, const char *name, const char **ret_path)
{
        json_object_object_foreach (objects, path, interfaces) {
                json_object *vm = NULL;

                if (!json_object_object_get_ex(interfaces, MIGMGR_NAME ".VM", &vm))
                        continue;
                if (streq(client_text(vm, "Name"), name) || streq(client_text(vm, "UUID"), name)) {
                        *ret_path = path;
                        return vm;
                }
        }
        fprintf(stderr, "migctl: no VM \"%s\" is registered here; migctl list shows those that are\n", name);
        return NULL;
}

int client_append_move(const Client *client, sd_bus_message *call)
{
        const Options *o = &client->options;
        const struct {
                const char *key;
                uint64_t value;
        } numbers[] = {{"timeout-usec", o->timeout_usec},
                       {"bandwidth", o->bandwidth},
                       {"max-blackout-usec", o->max_blackout_usec}};
        int r = sd_bus_message_open_container(call, 'a', "{sv}");

        for (size_t i = 0; i < ARRAY_SIZE(numbers) && r >= 0; i++)
                if (numbers[i].value > 0)
                        r = sd_bus_message_append(call, "{sv}", numbers[i].key, "t", numbers[i].value);
        if (r >= 0 && o->request_id)
                r = sd_bus_message_append(call, "{sv}", "request-id", "s", o->request_id);
        return r < 0 ? r : sd_bus_message_close_container(call);
}

/* A check asks every device and VMM of both hosts. */
#define CHECK_USEC (60 * USEC_PER_SEC)

int client_check(Client *client, char **args, bool *ret_ok, json_object **ret_report)
{
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *call = NULL, *reply = NULL;
        _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
        const char *text;
        int ok, r = sd_bus_message_new_method_call(client->bus, &call, MIGMGR_NAME, MIGMGR_ROOT,
                                                   MIGMGR_NAME ".Manager", "Check");

        if (r >= 0)
                r = sd_bus_message_append(call, "ss", args[0], args[1]);
        if (r >= 0)
                r = client_append_move(client, call);
        if (r >= 0)
                r = sd_bus_call(client->bus, call, CHECK_USEC, &error, &reply);
        if (r >= 0)
                r = sd_bus_message_read(reply, "bs", &ok, &text);
        if (r < 0)
                return client_failed(&error, r);
        *ret_ok = ok;
        return client_read_json(text, "report", json_type_object, ret_report);
}

int client_cancel(Client *client, const char *path)
{
        _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
        int r = sd_bus_call_method(client->bus, MIGMGR_NAME, path, MIGMGR_NAME ".Job", "Cancel", &error, NULL,
                                   "");
        char id[37];

        if (sd_bus_error_has_name(&error, SD_BUS_ERROR_UNKNOWN_OBJECT)) {
                client_uuid_of_path(path, id);
                fprintf(stderr, "migctl: no job %s is known here, or it has ended long ago\n", id);
                return EXIT_NOT_FOUND;
        }
        return r < 0 ? client_failed(&error, r) : EXIT_DONE;
}

int client_get_job(Client *client, const char *id, json_object **ret)
{
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
        const char *text;
        int r = sd_bus_call_method(client->bus, MIGMGR_NAME, MIGMGR_ROOT, MIGMGR_NAME ".Manager", "GetJob",
                                   &error, &reply, "s", id);

        if (r >= 0)
                r = sd_bus_message_read(reply, "s", &text);
        if (r < 0)
                return client_failed(&error, r);
        return client_read_json(text, "job", json_type_object, ret);
}

bool client_job_path(const char *id, char ret[64])
{
        size_t at = (size_t) snprintf(ret, 64, MIGMGR_ROOT "/job/_");

        for (const char *p = id; *p && at + 1 < 64; p++)
                ret[at++] = *p == '-' ? '_' : *p;
        ret[at] = 0;
        if (sd_bus_object_path_is_valid(ret))
                return true;
        fprintf(stderr, "migctl: \"%s\" is no job; migctl jobs lists those that are known\n", id);
        return false;
}

void client_uuid_of_path(const char *path, char ret[37])
{
        const char *label = strrchr(path, '/');
        size_t n = 0;

        label = label ? label + 1 : path;
        if (*label == '_')
                label++;
        for (; label[n] && n < 36; n++)
                ret[n] = label[n] == '_' ? '-' : label[n];
        ret[n] = 0;
}
