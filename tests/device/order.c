/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "order.h"

#include <ctype.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>

#include <json-c/json.h>
#include <openssl/evp.h>

#include "checksum.h"
#include "number.h"

#define READ_MAX 4096

typedef struct Order {
        Fleet *fleet;
        Server *server; /* for orders to one device */
        struct json_object *request, *reply;
        const char *error;
        bool quit;
} Order;

static int refuse(Order *o, const char *error)
{
        o->error = error;
        return -EINVAL;
}

static void add(struct json_object *o, const char *name, struct json_object *value)
{
        (void) json_object_object_add(o, name, value);
}

/* NULL: absent, or no string. */
static const char *get_string(const Order *o, const char *name)
{
        struct json_object *member;

        if (!json_object_object_get_ex(o->request, name, &member) ||
            !json_object_is_type(member, json_type_string))
                return NULL;
        return json_object_get_string(member);
}

static int get_number(const Order *o, const char *name, uint64_t *ret_number)
{
        struct json_object *member;

        if (!json_object_object_get_ex(o->request, name, &member) ||
            !json_object_is_type(member, json_type_int) || json_object_get_int64(member) < 0)
                return -EINVAL;
        *ret_number = (uint64_t) json_object_get_int64(member);
        return 0;
}

/* ---- asking -------------------------------------------------------------------------------------------------- */

/* The chain is a number of 64 bits: as text, because not every reader of JSON has those. */
static struct json_object *describe_worker(const Device *d)
{
        const WorkerState *s = &d->worker->s;
        struct json_object *o = json_object_new_object();
        char chain[17];

        (void) snprintf(chain, sizeof chain, "%016" PRIx64, s->chain);
        add(o, "doorbell", json_object_new_uint64(s->doorbell));
        add(o, "done", json_object_new_uint64(s->done));
        add(o, "chain", json_object_new_string(chain));
        add(o, "ticks", json_object_new_uint64(s->ticks));
        add(o, "maps", json_object_new_uint64(d->dma.n));
        add(o, "logging", json_object_new_boolean(d->dma.log_page > 0));
        return o;
}

static struct json_object *describe_mailbox(Mailbox *m)
{
        struct json_object *o = json_object_new_object();

        mailbox_look(m);
        add(o, "sent", json_object_new_uint64(m->s.sent));
        add(o, "taken", json_object_new_uint64(m->s.taken));
        add(o, "lost", json_object_new_uint64(m->s.lost));
        add(o, "torn", json_object_new_uint64(m->s.torn));
        add(o, "intrusions", json_object_new_uint64(m->s.intrusions));
        add(o, "intrusions_here", json_object_new_uint64(m->intrusions_here));
        return o;
}

static struct json_object *describe(const Server *s)
{
        const Device *d = &s->device;
        const struct {
                const char *name;
                uint64_t value;
        } numbers[] = {
                {"size", d->memory.size},
                {"counter", memory_counter(&d->memory)},
                {"resets", d->stats.resets},
                {"saves", d->stats.saves},
                {"loads", d->stats.loads},
                {"saved_bytes", d->stats.saved_bytes},
                {"loaded_bytes", d->stats.loaded_bytes},
                {"refused", d->stats.refused},
                {"protocol_errors", d->stats.protocol_errors},
        };
        struct json_object *o = json_object_new_object();

        add(o, "id", json_object_new_string(d->config.id));
        add(o, "state", json_object_new_string(device_state_to_string(d->state)));
        add(o, "connected", json_object_new_boolean(s->client != NULL));
        for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
                add(o, numbers[i].name, json_object_new_uint64(numbers[i].value));
        if (d->worker)
                add(o, "worker", describe_worker(d));
        if (d->mailbox)
                add(o, "mailbox", describe_mailbox(d->mailbox));
        return o;
}

static int order_status(Order *o)
{
        struct json_object *devices = json_object_new_array();

        for (size_t i = 0; i < o->fleet->n; i++)
                if (!o->server || o->server == o->fleet->servers[i])
                        (void) json_object_array_add(devices, describe(o->fleet->servers[i]));
        add(o->reply, "devices", devices);
        return 0;
}

static struct json_object *new_hex(const uint8_t *data, size_t n)
{
        static const char digits[] = "0123456789abcdef";
        char text[2 * READ_MAX];

        for (size_t i = 0; i < n; i++) {
                text[2 * i] = digits[data[i] >> 4];
                text[2 * i + 1] = digits[data[i] & 0xf];
        }
        return json_object_new_string_len(text, (int) (2 * n));
}

static struct json_object *new_total(const PageSums *sums)
{
        return sums->sums ? json_object_new_uint64(page_sums_total(sums)) : NULL;
}

static int order_digest(Order *o)
{
        const Device *d = &o->server->device;
        uint8_t sha256[EVP_MAX_MD_SIZE];
        unsigned n;

        if (EVP_Digest(d->memory.data, d->memory.size, sha256, &n, EVP_sha256(), NULL) != 1)
                return refuse(o, "no SHA-256");
        add(o->reply, "sha256", new_hex(sha256, n));
        add(o->reply, "crc_now", json_object_new_uint64(checksum_add(0, d->memory.data, d->memory.size)));
        add(o->reply, "crc_saved", new_total(&d->saved));
        add(o->reply, "crc_loaded", new_total(&d->loaded));
        return 0;
}

static struct json_object *describe_entry(const HistoryEntry *e)
{
        struct json_object *o = json_object_new_object();

        add(o, "what", json_object_new_string(history_kind_to_string(e->kind)));
        add(o, "usec", json_object_new_uint64(e->end_usec));
        add(o, "start_usec", json_object_new_uint64(e->start_usec));
        add(o, "from", json_object_new_string(device_state_to_string(e->from)));
        add(o, "to", json_object_new_string(device_state_to_string(e->to)));
        add(o, "errno", json_object_new_int(e->error));
        return o;
}

static int order_log(Order *o)
{
        struct json_object *log = json_object_new_array(), *clear;
        History *h = &o->server->device.history;

        for (size_t i = 0; i < h->n; i++)
                (void) json_object_array_add(log, describe_entry(history_get(h, i)));
        add(o->reply, "log", log);
        if (json_object_object_get_ex(o->request, "clear", &clear) && json_object_get_boolean(clear))
                history_clear(h);
        return 0;
}

/* ---- faults and delays --------------------------------------------------------------------------------------- */

/* For one device, or for all that have such an arc: an error only if none has. */
static int for_each(Order *o, bool (*apply)(Device *d, const void *what), const void *what)
{
        bool any = false;

        for (size_t i = 0; i < o->fleet->n; i++)
                if (!o->server || o->server == o->fleet->servers[i])
                        any |= apply(&o->fleet->servers[i]->device, what);
        return any ? 0 : refuse(o, "no such device has such an arc");
}

static bool add_fault(Device *d, const void *what)
{
        return device_config_add_fault(&d->config, what) == 0;
}

static int order_fault(Order *o)
{
        const char *text = get_string(o, "fault");
        Fault fault;

        if (!text || fault_parse(text, &fault) < 0)
                return refuse(o, "fault: not a fault");
        return for_each(o, add_fault, &fault);
}

static bool set_delay(Device *d, const void *what)
{
        return device_config_set_delay(&d->config, what);
}

static int order_delay(Order *o)
{
        const char *text = get_string(o, "delay");
        ArcDelay delay;

        if (!text || arc_delay_parse(text, &delay) < 0)
                return refuse(o, "delay: not ARC:MS");
        return for_each(o, set_delay, &delay);
}

static int order_clear(Order *o)
{
        for (size_t i = 0; i < o->fleet->n; i++) {
                Server *s = o->fleet->servers[i];

                if (o->server && o->server != s)
                        continue;
                fault_list_clear(&s->device.config.faults);
                if (s->client)
                        client_release(s->client);
        }
        return 0;
}

/* ---- memory -------------------------------------------------------------------------------------------------- */

static int from_hex(const char *hex, uint8_t *data, size_t n)
{
        for (size_t i = 0; i < n; i++) {
                char digits[3] = {hex[2 * i], hex[2 * i + 1]};

                if (!isxdigit((unsigned char) digits[0]) || !isxdigit((unsigned char) digits[1]))
                        return -EINVAL;
                data[i] = (uint8_t) strtoul(digits, NULL, 16);
        }
        return 0;
}

static int order_write(Order *o)
{
        Memory *m = &o->server->device.memory;
        const char *hex = get_string(o, "hex");
        _cleanup_(freep) uint8_t *data = NULL;
        uint64_t offset;
        size_t n;

        if (!hex || strlen(hex) % 2 || get_number(o, "offset", &offset) < 0)
                return refuse(o, "offset or hex missing or wrong");
        n = strlen(hex) / 2;
        data = malloc(n + 1);
        if (!data || from_hex(hex, data, n) < 0)
                return refuse(o, "hex: not hexadecimal");
        if (!memory_has(m, offset, n))
                return refuse(o, "outside the memory");
        memory_write(m, offset, data, n);
        return 0;
}

static int order_read(Order *o)
{
        const Memory *m = &o->server->device.memory;
        uint64_t offset, count;

        if (get_number(o, "offset", &offset) < 0 || get_number(o, "count", &count) < 0 || count > READ_MAX)
                return refuse(o, "offset or count missing or wrong");
        if (!memory_has(m, offset, count))
                return refuse(o, "outside the memory");
        add(o->reply, "hex", new_hex(m->data + offset, count));
        return 0;
}

static int order_dump(Order *o)
{
        const Memory *m = &o->server->device.memory;
        const char *path = get_string(o, "path");
        _cleanup_(closep) int fd = -1;

        if (!path)
                return refuse(o, "path missing");
        fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (fd < 0)
                return refuse(o, strerror(errno));
        for (uint64_t at = 0; at < m->size;) {
                ssize_t n = write(fd, m->data + at, m->size - at);

                if (n < 0 && errno != EINTR)
                        return refuse(o, strerror(errno));
                at += n > 0 ? (uint64_t) n : 0;
        }
        return 0;
}

/* ---- the rest ------------------------------------------------------------------------------------------------ */

static int order_kick(Order *o)
{
        if (!o->server->client)
                return refuse(o, "no client");
        client_kick(o->server->client);
        return 0;
}

static int order_quit(Order *o)
{
        o->quit = true;
        return 0;
}

typedef enum OrderTarget {
        NO_DEVICE,
        MAYBE_DEVICE, /* absent: all */
        ONE_DEVICE,
        ALL_OR_ONE, /* all are called `*` */
} OrderTarget;

static const struct {
        const char *name;
        OrderTarget target;
        int (*run)(Order *o);
} orders[] = {
        {"status", MAYBE_DEVICE, order_status}, {"digest", ONE_DEVICE, order_digest},
        {"log", ONE_DEVICE, order_log},         {"fault", ALL_OR_ONE, order_fault},
        {"clear", ALL_OR_ONE, order_clear},     {"delay", ALL_OR_ONE, order_delay},
        {"write", ONE_DEVICE, order_write},     {"read", ONE_DEVICE, order_read},
        {"dump", ONE_DEVICE, order_dump},       {"kick", ONE_DEVICE, order_kick},
        {"quit", NO_DEVICE, order_quit},
};

static int find_target(Order *o, OrderTarget target)
{
        const char *id = get_string(o, "device");

        if (target == NO_DEVICE ||
            (target == MAYBE_DEVICE && !json_object_object_get_ex(o->request, "device", NULL)) ||
            (target == ALL_OR_ONE && id && streq(id, "*")))
                return 0;
        if (!id)
                return refuse(o, "device missing");
        o->server = fleet_get(o->fleet, id);
        return o->server ? 0 : refuse(o, "no such device");
}

static int run(Order *o)
{
        const char *name;

        if (!json_object_is_type(o->request, json_type_object))
                return refuse(o, "not a JSON object");
        name = get_string(o, "cmd");
        if (!name)
                return refuse(o, "cmd missing");
        for (size_t i = 0; i < ARRAY_SIZE(orders); i++) {
                int r;

                if (!streq(orders[i].name, name))
                        continue;
                r = find_target(o, orders[i].target);
                return r < 0 ? r : orders[i].run(o);
        }
        return refuse(o, "no such command");
}

char *order_run(Fleet *fleet, const char *line, bool *ret_quit)
{
        Order o = {.fleet = fleet, .request = json_tokener_parse(line), .reply = json_object_new_object()};
        char *text;

        add(o.reply, "ok", json_object_new_boolean(true));
        if (run(&o) < 0) {
                (void) json_object_put(o.reply);
                o.reply = json_object_new_object();
                add(o.reply, "ok", json_object_new_boolean(false));
                add(o.reply, "error", json_object_new_string(o.error));
        }
        text = strdup(json_object_to_json_string_ext(o.reply, JSON_C_TO_STRING_PLAIN));
        (void) json_object_put(o.reply);
        (void) json_object_put(o.request);
        *ret_quit = o.quit;
        return text;
}
