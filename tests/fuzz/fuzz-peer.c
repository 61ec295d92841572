/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Another daemon's messages, to the whole of this one but bus and store, with a VM of one device whose agent is honest. The first
 * byte of an input says who we are to it: 'd', the source of a job that comes here; 's', the destination of one that goes
 * there, which has begun; 'r': all that follows is said byte for byte. The lines of the first two are
 *
 *     {...}     a message; of "job": "." the job's own UUID is put in
 *     *data     a data connection, with the token that it gave us
 *     *memory   one for the VMM's memory
 *     *cut      the control connection ends, and comes again
 *     *other    the same, and it is another host that comes
 *     *gone     the agent's connection ends
 *     *cancel   somebody cancels all jobs
 *     *run, *discard   a person decides so of all jobs
 *     anything  said as it is
 *
 * Whatever is said: no rule of the records is broken, and a job always looks like something. */

#include <endian.h>
#include <sys/socket.h>

#include "common/json.h"
#include "daemon/manager-internal.h"
#include "fake-agent.h"
#include "fuzz.h"
#include "rig.h"

#define HELLO "{\"type\":\"HELLO\",\"version\":1,\"host\":\"b0000000-0000-4000-8000-00000000000%c\"}"
#define VM    "0f0e0d0c-0b0a-4908-8706-050403020100"
#define VM_2  "0f0e0d0c-0b0a-4908-8706-050403020101"

static const char definition_text[] =
        "{\"uuid\":\"" VM "\",\"name\":\"vm\",\"vmm\":{\"type\":\"none\"},"
        "\"devices\":[{\"id\":\"nic\",\"type\":\"vfio-user\",\"socket\":\"/nic\"}]}";

static const char second_text[] =
        "{\"uuid\":\"" VM_2 "\",\"name\":\"2\",\"vmm\":{\"type\":\"none\"},\"devices\":[]}";

typedef struct World {
        Rig rig;
        Manager *manager;
        FakeAgent agent;
        bool dialed; /* they dial us */
        bool other;  /* host */
        int fd;
        char job[UUID_TEXT_MAX + 1];
        uint8_t token[HELLO_TOKEN_SIZE], memory_token[HELLO_TOKEN_SIZE];
        uint8_t in[64 * 1024];
        size_t n_in;
        int data_fds[8];
        size_t n_data_fds;
} World;

static int our_listener = -1;

/* ---- what they say ----------------------------------------------------------------------------------------------- */

static void take_token(json_object *tokens, const char *key, uint8_t ret[HELLO_TOKEN_SIZE])
{
        JsonReader reader = {.where = "PREPARED"};
        const char *text = json_string(&reader, tokens, key, false);

        if (text)
                MUST(hello_token_parse(text, ret) == 0);
}

static void take_message(World *w, const char *text, size_t size)
{
        JsonReader reader = {.where = "message"};
        _cleanup_(json_object_putp) json_object *message = json_parse(&reader, text, size);
        const char *type = json_string(&reader, message, "type", true);
        const char *job = json_string(&reader, message, "job", false);
        json_object *tokens = json_member(&reader, message, "tokens", json_type_object, false);

        MUST(!reader.failed && (int) message_from_string(type) > 0);
        MUST(streq(type, "HELLO") || message_is_for_destination(message_from_string(type)) == w->dialed);
        if (job)
                memcpy(w->job, job, sizeof w->job);
        if (tokens)
                take_token(tokens, "nic", w->token);
        take_token(message, "memory", w->memory_token);
}

/* Every one of them is well-formed. */
static void take_messages(World *w)
{
        for (;;) {
                ssize_t n =
                        w->fd < 0 ? -1 : recv(w->fd, w->in + w->n_in, sizeof w->in - w->n_in, MSG_DONTWAIT);
                uint32_t length;

                if (n > 0)
                        w->n_in += (size_t) n;
                if (w->n_in < sizeof length)
                        return;
                memcpy(&length, w->in, sizeof length);
                length = le32toh(length);
                MUST(length + sizeof length <= sizeof w->in);
                if (w->n_in < length + sizeof length)
                        return;
                take_message(w, (const char *) w->in + sizeof length, length);
                w->n_in -= length + sizeof length;
                memmove(w->in, w->in + sizeof length + length, w->n_in);
        }
}

/* Data connections that they make are taken; the first that is none is for control. */
static void take_connections(World *w)
{
        uint8_t bytes[HELLO_SIZE], taken = HELLO_TAKEN;
        int fd;

        while ((fd = accept4(our_listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
                if (recv(fd, bytes, sizeof bytes, MSG_PEEK) == HELLO_SIZE && hello_is_magic(bytes) &&
                    w->n_data_fds < ARRAY_SIZE(w->data_fds)) {
                        (void) recv(fd, bytes, sizeof bytes, 0);
                        (void) send(fd, &taken, 1, MSG_NOSIGNAL);
                        w->data_fds[w->n_data_fds++] = fd;
                } else if (w->fd < 0) {
                        w->fd = fd;
                } else {
                        (void) close(fd);
                }
        }
}

static void turn(World *w)
{
        for (int i = 0; i < 2; i++) {
                rig_turn(&w->rig);
                if (w->dialed)
                        take_connections(w);
                take_messages(w);
        }
}

/* ---- what we say ------------------------------------------------------------------------------------------------- */

static void say_raw(World *w, const void *data, size_t size)
{
        if (w->fd >= 0)
                (void) send(w->fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void say(World *w, const char *text, size_t size)
{
        uint32_t length = htole32((uint32_t) size);

        say_raw(w, &length, sizeof length);
        say_raw(w, text, size);
}

static void say_line(World *w, const char *line, size_t n)
{
        JsonReader reader = {.where = "line"};
        _cleanup_(json_object_putp) json_object *message = json_parse(&reader, line, n);
        const char *job = json_string(&reader, message, "job", false), *text;

        if (!message || !job || !streq(job, ".")) {
                say(w, line, n);
                return;
        }
        json_add_string(message, "job", w->job);
        text = json_object_to_json_string_ext(message, JSON_C_TO_STRING_PLAIN);
        say(w, text, strlen(text));
}

static int dial(World *w)
{
        char path[SOCKET_PATH_MAX + 1];
        int fd;

        (void) snprintf(path, sizeof path, "%s/peer.sock", w->rig.dir);
        fd = socket_connect(path, SOCK_STREAM);
        MUST(fd >= 0);
        return fd;
}

static void connect_control(World *w)
{
        char hello[sizeof HELLO];

        (void) snprintf(hello, sizeof hello, HELLO, w->other ? '2' : '1');
        w->n_in = 0;
        w->fd = w->dialed ? -1 : dial(w);
        turn(w);
        say(w, hello, strlen(hello));
        turn(w);
}

static void connect_data(World *w, const uint8_t *token, HelloKind kind)
{
        uint8_t bytes[HELLO_SIZE];
        Hello hello = {.kind = kind};
        int fd;

        if (w->dialed || w->n_data_fds == ARRAY_SIZE(w->data_fds))
                return;
        memcpy(hello.token, token, sizeof hello.token);
        hello_encode(&hello, bytes);
        fd = dial(w);
        (void) send(fd, bytes, sizeof bytes, MSG_NOSIGNAL);
        w->data_fds[w->n_data_fds++] = fd;
}

static void each_job(World *w, Resolve resolve)
{
        char text[JSON_TEXT_MAX];

        for (Job *job = w->manager->jobs, *next; job; job = next) {
                next = job->next;
                if (resolve == RESOLVE_NONE)
                        (void) manager_cancel(w->manager, job, text);
                else
                        (void) manager_resolve(w->manager, job, resolve, text);
        }
}

static void obey(World *w, const char *order)
{
        if (streq(order, "data"))
                connect_data(w, w->token, HELLO_DEVICE);
        else if (streq(order, "memory"))
                connect_data(w, w->memory_token, HELLO_MEMORY);
        else if (streq(order, "gone"))
                fake_agent_hang_up(&w->agent);
        else if (streq(order, "cancel"))
                each_job(w, RESOLVE_NONE);
        else if (streq(order, "run"))
                each_job(w, RESOLVE_RUN_HERE);
        else if (streq(order, "discard"))
                each_job(w, RESOLVE_DISCARD_HERE);
        else if ((streq(order, "cut") || streq(order, "other")) && w->fd >= 0) {
                w->other ^= streq(order, "other");
                (void) close(w->fd);
                connect_control(w);
        }
}

static void perform(World *w, const char *text, size_t size)
{
        const char *line;
        char order[16];
        size_t n;

        while (rig_line(&text, &size, &line, &n)) {
                if (n > 0 && n < sizeof order && line[0] == '*') {
                        memcpy(order, line + 1, n - 1);
                        order[n - 1] = 0;
                        obey(w, order);
                } else {
                        say_line(w, line, n);
                }
                turn(w);
        }
}

/* ---- the world --------------------------------------------------------------------------------------------------- */

static void look_at_jobs(World *w)
{
        char text[1024];

        for (Job *job = w->manager->jobs; job; job = job->next) {
                json_object_put(job_to_json(job));
                json_object_put(job_report(job));
                json_object_put(job_summary(job));
                (void) job_error(job, text, sizeof text);
                MUST(manager_find_job(w->manager, job->id) == job); /* nobody else is called so */
                MUST(job_state_to_string(job_state(job)) && job_result_to_string(job_result(job)));
        }
        json_object_put(manager_list_jobs(w->manager));
}

static void on_begun(void *userdata, Outcome outcome, const char *text, Job *job)
{
        World *w = userdata;

        MUST(outcome == OUTCOME_NONE);
        memcpy(w->job, job->id, sizeof w->job);
}

static Vm *add_vm(World *w, const char *text, Presence presence)
{
        char error[JSON_TEXT_MAX];
        Definition *definition;
        Vm *vm;

        MUST(definition_parse(text, strlen(text), &definition, error) == 0);
        MUST(manager_add_vm(w->manager, definition, presence, &vm) == 0);
        manager_show_vm(w->manager, vm);
        return vm;
}

static void world_begin(World *w, char who)
{
        char path[SOCKET_PATH_MAX + 1], address[SOCKET_PATH_MAX + 8];
        Vm *vm;

        *w = (World){.fd = -1, .dialed = who == 's'};
        rig_begin(&w->rig, rig_dir());
        (void) snprintf(path, sizeof path, "%s/other.sock", w->rig.dir);
        (void) snprintf(address, sizeof address, "unix:%s", path);
        if (our_listener < 0)
                our_listener = socket_listen(path, SOCK_STREAM);
        MUST(our_listener >= 0);
        fake_agent_begin(&w->agent, w->rig.host.loop, w->rig.dir, true, DEVICE_STATE_RUNNING);
        MUST(manager_new(&w->rig.host, &w->manager) == 0);
        vm = add_vm(w, definition_text, w->dialed ? PRESENCE_HERE : PRESENCE_AWAY);
        (void) add_vm(w, second_text, PRESENCE_AWAY);
        MUST(manager_start(w->manager) == 0);
        if (w->dialed) {
                vm_open_devices(vm, false, NULL, NULL);
                rig_turn(&w->rig);
                MUST(device_is_open(vm->devices[0]));
                manager_migrate(w->manager, vm, address, &(JobOptions){}, on_begun, w);
        }
}

static void world_end(World *w)
{
        manager_free(w->manager);
        fake_agent_end(&w->agent);
        rig_end(&w->rig);
        if (w->fd >= 0)
                (void) close(w->fd);
        w->fd = -1;
        take_connections(w);
        if (w->fd >= 0)
                (void) close(w->fd);
        for (size_t i = 0; i < w->n_data_fds; i++)
                (void) close(w->data_fds[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static World w;

        if (size == 0 || !memchr("dsr", data[0], 3))
                return 0;
        world_begin(&w, (char) data[0]);
        if (data[0] == 'r') {
                w.fd = dial(&w);
                say_raw(&w, data + 1, size - 1);
                rig_turn(&w.rig);
        } else {
                connect_control(&w);
                perform(&w, (const char *) data + 1, size - 1);
        }
        look_at_jobs(&w);
        world_end(&w);
        return 0;
}
