/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "control.h"

#include <stdio.h>
#include <sys/queue.h>

#include "common/json.h"
#include "common/socket.h"

#define LINE_MAX_BYTES 4096

typedef struct Client {
        Control *control;
        int fd;
        sd_event_source *source;
        char line[LINE_MAX_BYTES];
        size_t n;
        LIST_ENTRY(Client) entry;
} Client;

struct Control {
        Delegate *delegate;
        sd_event *event;
        sd_event_source *source;
        int fd;
        char *path;
        LIST_HEAD(, Client) clients;
};

/* ---- orders -------------------------------------------------------------------------------------------------- */

static json_object *device_status(const Guest *guest, unsigned i)
{
        json_object *device = json_new_object();
        GuestDeviceCount count;

        guest_count(guest, i, &count);
        json_add_string(device, "id", device_id(guest->devices[i]));
        json_add_number(device, "commands", (int64_t) count.commands);
        json_add_number(device, "interrupts", (int64_t) count.interrupts);
        json_add_number(device, "ticks", (int64_t) count.ticks);
        json_add_number(device, "tick-interrupts", (int64_t) count.tick_interrupts);
        json_add_number(device, "bytes", (int64_t) count.bytes);
        return device;
}

static void add_guest(json_object *answer, const Guest *guest)
{
        json_object *devices = json_new_array();
        char broken[GUEST_BROKEN_MAX], chain[20];

        guest_broken(guest, broken);
        (void) snprintf(chain, sizeof chain, "%016llx", (unsigned long long) guest_chain(guest));
        for (unsigned i = 0; i < guest->n_devices; i++)
                json_append(devices, device_status(guest, i));
        json_add_number(answer, "steps", (int64_t) guest_steps(guest));
        json_add_string(answer, "chain", chain);
        json_add_string(answer, "broken", broken);
        json_add(answer, "devices", devices);
}

static void order_status(Control *c, JsonReader *reader, json_object *order, json_object *answer)
{
        Vm *vm = delegate_vm(c->delegate);

        json_only(reader, order, (const char *const[]){"cmd", NULL});
        json_add_string(answer, "state", delegate_state(c->delegate));
        json_add_string(answer, "job", delegate_job(c->delegate));
        if (vm)
                add_guest(answer, &vm->guest);
}

/* All faults at once: what is not named is cleared. */
static void order_faults(Control *c, JsonReader *reader, json_object *order, json_object *answer)
{
        DelegateFaults faults = {};

        json_only(reader, order,
                  (const char *const[]){"cmd", "fail", "hang", "never-converge", "ignore-dirty-pages", NULL});
        json_copy(reader, order, "fail", false, faults.fail, sizeof faults.fail);
        json_copy(reader, order, "hang", false, faults.hang, sizeof faults.hang);
        faults.never_converges = json_flag(reader, order, "never-converge", false);
        faults.ignores_dirty_pages = json_flag(reader, order, "ignore-dirty-pages", false);
        if (reader->failed)
                return;
        *delegate_faults(c->delegate) = faults;
        delegate_faults_changed(c->delegate);
}

static void order_resume(Control *c, JsonReader *reader, json_object *order, json_object *answer)
{
        json_only(reader, order, (const char *const[]){"cmd", NULL});
        if (!reader->failed && delegate_resume_by_itself(c->delegate) < 0)
                json_fail(reader, "the VM does not stand, or is sealed");
}

static const struct {
        const char *name;
        void (*run)(Control *c, JsonReader *reader, json_object *order, json_object *answer);
} orders[] = {
        {"status", order_status},
        {"faults", order_faults},
        {"resume", order_resume},
};

static void run_order(Control *c, JsonReader *reader, json_object *order, json_object *answer)
{
        const char *cmd = json_string(reader, order, "cmd", true);

        for (size_t i = 0; cmd && i < ARRAY_SIZE(orders); i++)
                if (streq(orders[i].name, cmd)) {
                        orders[i].run(c, reader, order, answer);
                        return;
                }
        json_fail(reader, "there is no such order");
}

static int answer_line(Client *client, const char *line, size_t n)
{
        JsonReader reader = {.where = "order"};
        _cleanup_(json_object_putp) json_object *answer = json_new_object();
        _cleanup_(json_object_putp) json_object *order = json_parse(&reader, line, n);
        const char *text;

        if (order && !json_object_is_type(order, json_type_object))
                json_fail(&reader, "it is no object");
        if (!reader.failed)
                run_order(client->control, &reader, order, answer);
        json_add_bool(answer, "ok", !reader.failed);
        if (reader.failed)
                json_add_string(answer, "error", reader.text);
        text = json_object_to_json_string_ext(answer, JSON_C_TO_STRING_PLAIN);
        /* Who does not read its answers loses them, and the connection. */
        if (send(client->fd, text, strlen(text), MSG_NOSIGNAL) != (ssize_t) strlen(text) ||
            send(client->fd, "\n", 1, MSG_NOSIGNAL) != 1)
                return -EIO;
        return 0;
}

/* ---- connections --------------------------------------------------------------------------------------------- */

static void client_leave(Client *client)
{
        LIST_REMOVE(client, entry);
        sd_event_source_disable_unref(client->source);
        (void) close(client->fd);
        free(client);
}

static int answer_lines(Client *client)
{
        char *end;

        while ((end = memchr(client->line, '\n', client->n))) {
                size_t n = (size_t) (end - client->line);

                if (answer_line(client, client->line, n) < 0)
                        return -EIO;
                client->n -= n + 1;
                memmove(client->line, end + 1, client->n);
        }
        return client->n < sizeof client->line ? 0 : -EMSGSIZE;
}

static int on_readable(sd_event_source *s, int fd, uint32_t events, void *userdata)
{
        Client *client = userdata;
        ssize_t n = recv(fd, client->line + client->n, sizeof client->line - client->n, MSG_DONTWAIT);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return 0;
        if (n > 0)
                client->n += (size_t) n;
        if (n <= 0 || answer_lines(client) < 0)
                client_leave(client);
        return 0;
}

static int on_connection(sd_event_source *s, int fd, uint32_t events, void *userdata)
{
        Control *c = userdata;
        _cleanup_(closep) int connection = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        Client *client = connection < 0 ? NULL : calloc(1, sizeof *client);

        if (!client)
                return 0;
        if (sd_event_add_io(c->event, &client->source, connection, EPOLLIN, on_readable, client) < 0) {
                free(client);
                return 0;
        }
        client->control = c;
        client->fd = TAKE_FD(connection);
        LIST_INSERT_HEAD(&c->clients, client, entry);
        return 0;
}

int control_new(sd_event *event, const char *path, Delegate *delegate, Control **ret)
{
        _cleanup_(control_freep) Control *c = calloc(1, sizeof *c);
        int r;

        if (!c)
                return -ENOMEM;
        c->delegate = delegate;
        c->event = sd_event_ref(event);
        LIST_INIT(&c->clients);
        c->fd = socket_listen(path, SOCK_STREAM);
        if (c->fd < 0)
                return c->fd;
        c->path = strdup(path);
        if (!c->path)
                return -ENOMEM;
        r = sd_event_add_io(event, &c->source, c->fd, EPOLLIN, on_connection, c);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(c);
        return 0;
}

Control *control_free(Control *c)
{
        if (!c)
                return NULL;
        while (!LIST_EMPTY(&c->clients))
                client_leave(LIST_FIRST(&c->clients));
        sd_event_source_disable_unref(c->source);
        if (c->path)
                (void) unlink(c->path);
        closep(&c->fd);
        free(c->path);
        sd_event_unref(c->event);
        free(c);
        return NULL;
}
