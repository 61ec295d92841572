/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Calls on the bus, with the whole daemon behind them, but for the store; its VMs' one device has an honest agent. The bus is one
 * connection to ourselves that answers what a bus would. Each line of an input is a call:
 *
 *     O MEMBER ARGUMENTS
 *
 * O is whose member it is: M the manager's, V the VM's, D its device's, J the last job's; small, of its properties. The arguments are
 * a JSON array: a text is s, true b, a number t, and an object a{sv} with values of one such thing, {"type": value}. The first byte
 * of an input says who calls: 'r' root, 'a' somebody whom polkit allows everything, 'd' somebody whom it denies it. No
 * call is answered twice. */

#include <sys/socket.h>

#include "common/json.h"
#include "daemon/bus/bus.h"
#include "daemon/manager-internal.h"
#include "fake-agent.h"
#include "fuzz.h"
#include "rig.h"

#define VM "0f0e0d0c-0b0a-4908-8706-050403020100"

static const char definition_text[] =
        "{\"uuid\":\"" VM "\",\"name\":\"vm\",\"vmm\":{\"type\":\"none\"},"
        "\"devices\":[{\"id\":\"nic\",\"type\":\"vfio-user\",\"socket\":\"/nic\"}]}";

typedef struct World {
        Rig rig;
        Manager *manager;
        FakeAgent agent;
        Bus *bus;
        sd_bus *ours;
        bool root, allowed;
        uint32_t n_called, n_answered;
} World;

static int listener = -1;

/* It would wait for a bus of another process. */
int __wrap_sd_bus_request_name(sd_bus *bus, const char *name, uint64_t flags);
int __wrap_sd_bus_request_name(sd_bus *bus, const char *name, uint64_t flags)
{
        return 1;
}

/* ---- the bus ----------------------------------------------------------------------------------------------------- */

static int on_message(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
        World *w = userdata;
        uint8_t type;

        MUST(sd_bus_message_get_type(m, &type) == 0);
        if (type != SD_BUS_MESSAGE_METHOD_CALL)
                return 0;
        if (sd_bus_message_is_method_call(m, "org.freedesktop.DBus", "Hello"))
                MUST(sd_bus_reply_method_return(m, "s", ":1.1") >= 0);
        else if (sd_bus_message_is_method_call(m, "org.freedesktop.DBus", "GetConnectionUnixUser"))
                MUST(sd_bus_reply_method_return(m, "u", w->root ? 0 : 65534) >= 0);
        else if (sd_bus_message_is_method_call(m, NULL, "CheckAuthorization"))
                MUST(sd_bus_reply_method_return(m, "(bba{ss})", (int) w->allowed, 0, 0) >= 0);
        else
                MUST(sd_bus_reply_method_return(m, "") >= 0);
        return 1;
}

static void turn(World *w)
{
        for (int i = 0; i < 4; i++) {
                rig_turn(&w->rig);
                while (sd_bus_process(w->ours, NULL) > 0)
                        ;
        }
}

static void on_bus_end(void *userdata)
{
        MUST(false);
}

static void begin_bus(World *w)
{
        char path[SOCKET_PATH_MAX + 1];
        static char address[SOCKET_PATH_MAX + 16];
        int fd;

        (void) snprintf(path, sizeof path, "%s/bus", w->rig.dir);
        (void) snprintf(address, sizeof address, "unix:path=%s", path);
        if (listener < 0)
                listener = socket_listen(path, SOCK_STREAM);
        MUST(listener >= 0);
        w->rig.host.config.bus_address = address;
        MUST(bus_new(&w->rig.host, w->manager, on_bus_end, w, &w->bus) == 0);
        fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        MUST(fd >= 0 && sd_bus_new(&w->ours) >= 0 && sd_bus_set_fd(w->ours, fd, fd) >= 0);
        MUST(sd_bus_set_server(w->ours, 1, (sd_id128_t){.qwords = {1, 2}}) >= 0);
        MUST(sd_bus_start(w->ours) >= 0);
        MUST(sd_bus_add_filter(w->ours, NULL, on_message, w) >= 0);
        turn(w);
}

/* ---- calls ------------------------------------------------------------------------------------------------------- */

static int add_value(sd_bus_message *m, json_object *value, const char *type)
{
        const char *text = json_object_get_string(value);
        uint64_t number = json_object_get_uint64(value);
        int flag = json_object_get_boolean(value);

        if (streq(type, "s") || streq(type, "o"))
                return sd_bus_message_append_basic(m, type[0], text ? text : "");
        if (streq(type, "t") || streq(type, "x") || streq(type, "u"))
                return sd_bus_message_append_basic(m, type[0], &number);
        return streq(type, "b") ? sd_bus_message_append_basic(m, 'b', &flag) : -EINVAL;
}

static int add_option(sd_bus_message *m, const char *key, json_object *value)
{
        int r = sd_bus_message_open_container(m, 'e', "sv");

        if (r >= 0)
                r = sd_bus_message_append_basic(m, 's', key);
        json_object_object_foreach (value, type, content) {
                if (r >= 0)
                        r = sd_bus_message_open_container(m, 'v', type);
                if (r >= 0)
                        r = add_value(m, content, type);
                if (r >= 0)
                        r = sd_bus_message_close_container(m);
                break;
        }
        return r < 0 ? r : sd_bus_message_close_container(m);
}

static int add_argument(sd_bus_message *m, json_object *value)
{
        int r;

        if (!json_object_is_type(value, json_type_object))
                return add_value(m, value,
                                 json_object_is_type(value, json_type_string)    ? "s"
                                 : json_object_is_type(value, json_type_boolean) ? "b"
                                                                                 : "t");
        r = sd_bus_message_open_container(m, 'a', "{sv}");
        json_object_object_foreach (value, key, option)
                if (r >= 0)
                        r = json_object_is_type(option, json_type_object) ? add_option(m, key, option)
                                                                          : -EINVAL;
        return r < 0 ? r : sd_bus_message_close_container(m);
}

static int on_answer(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
        World *w = userdata;

        w->n_answered++;
        MUST(w->n_answered <= w->n_called);
        return 1;
}

static const char *interface_of(char whose)
{
        switch (whose) {
        case 'M': return BUS_NAME ".Manager";
        case 'V': return BUS_NAME ".VM";
        case 'D': return BUS_NAME ".Device";
        case 'J': return BUS_NAME ".Job";
        }
        return "org.freedesktop.DBus.Properties";
}

static void path_of(World *w, char whose, char ret[BUS_PATH_MAX])
{
        (void) snprintf(ret, BUS_PATH_MAX, BUS_ROOT);
        if (whose == 'V' || whose == 'v')
                bus_vm_path(VM, ret);
        else if (whose == 'D' || whose == 'd')
                bus_device_path(VM, "nic", ret);
        else if ((whose == 'J' || whose == 'j') && w->manager->jobs)
                bus_job_path(w->manager->jobs->id, ret);
}

static void call(World *w, char whose, const char *member, json_object *arguments)
{
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        char path[BUS_PATH_MAX];
        int r;

        path_of(w, whose, path);
        r = sd_bus_message_new_method_call(w->ours, &m, BUS_NAME, path, interface_of(whose), member);
        if (r >= 0)
                r = sd_bus_message_set_sender(m, ":1.9");
        for (size_t i = 0; r >= 0 && i < json_object_array_length(arguments); i++)
                r = add_argument(m, json_object_array_get_idx(arguments, i));
        if (r >= 0)
                r = sd_bus_call_async(w->ours, NULL, m, on_answer, w, UINT64_MAX);
        w->n_called += r >= 0;
}

static void perform(World *w, const char *text, size_t size)
{
        const char *line, *end;
        size_t n;

        while (rig_line(&text, &size, &line, &n)) {
                JsonReader reader = {.where = "line"};
                _cleanup_(json_object_putp) json_object *arguments = NULL;
                char member[64] = "";

                if (n < 4 || line[1] != ' ')
                        continue;
                end = memchr(line + 2, ' ', n - 2);
                if (!end || (size_t) (end - line - 2) >= sizeof member)
                        continue;
                memcpy(member, line + 2, (size_t) (end - line - 2));
                arguments = json_parse(&reader, end + 1, n - (size_t) (end + 1 - line));
                if (json_object_is_type(arguments, json_type_array))
                        call(w, line[0], member, arguments);
                turn(w);
        }
}

/* ---- the world --------------------------------------------------------------------------------------------------- */

static void world_begin(World *w, char who)
{
        char error[JSON_TEXT_MAX];
        Definition *definition;
        Vm *vm;

        *w = (World){.root = who == 'r', .allowed = who == 'a'};
        rig_begin(&w->rig, rig_dir());
        fake_agent_begin(&w->agent, w->rig.host.loop, w->rig.dir, true, DEVICE_STATE_RUNNING);
        MUST(manager_new(&w->rig.host, &w->manager) == 0);
        begin_bus(w);
        MUST(definition_parse(definition_text, strlen(definition_text), &definition, error) == 0);
        MUST(manager_add_vm(w->manager, definition, PRESENCE_HERE, &vm) == 0);
        manager_show_vm(w->manager, vm);
        MUST(manager_start(w->manager) == 0);
        turn(w);
}

static void world_end(World *w)
{
        manager_free(w->manager);
        bus_free(w->bus);
        while (sd_bus_process(w->ours, NULL) > 0)
                ;
        sd_bus_close_unref(w->ours);
        fake_agent_end(&w->agent);
        rig_end(&w->rig);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static World w;

        if (size == 0)
                return 0;
        world_begin(&w, (char) data[0]);
        perform(&w, (const char *) data + 1, size - 1);
        world_end(&w);
        return 0;
}
