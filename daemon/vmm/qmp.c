/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "qmp.h"

#include <stdio.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/socket.h"

#define LINE_MAX_BYTES (1 * MIB)

typedef struct Pending {
        struct Pending *next;
        int64_t id;
        uint64_t until_usec;
        QmpAnswer answer;
        void *userdata;
} Pending;

struct Qmp {
        Loop *loop;
        int fd;
        LoopIo *io;
        LoopTimer *timer;   /* rings for the pending command that has to be answered first */
        LoopTimer *failing; /* tells of the end from a clean stack */
        const QmpListener *listener;
        void *userdata;
        char *in;
        size_t n_in, in_room;
        size_t n_searched; /* of what is in: there is no end of a line */
        Pending *pending;
        int64_t next_id;
        uint64_t greeting_until;
        bool greeted, ready, oob, told; /* told: of the end */
        int status;
        char text[JSON_TEXT_MAX];
        uint32_t held; /* callbacks are on the stack: freed when the last of them has returned */
        bool dead;
};

static void destroy(Qmp *qmp);

/* Whether it is still there. */
static bool let_go(Qmp *qmp)
{
        bool dead = qmp->dead;

        if (--qmp->held == 0 && dead)
                destroy(qmp);
        return !dead;
}

/* ---- the end ------------------------------------------------------------------------------------------------- */

static void on_failing(void *userdata)
{
        Qmp *qmp = userdata;

        qmp->held++;
        while (!qmp->dead && qmp->pending) {
                Pending *p = qmp->pending;

                qmp->pending = p->next;
                p->answer(p->userdata, qmp->status, NULL, qmp->text);
                free(p);
        }
        if (!qmp->dead && !qmp->told) {
                qmp->told = true;
                qmp->listener->ended(qmp->userdata, qmp->status, qmp->text);
        }
        (void) let_go(qmp);
}

static void fail(Qmp *qmp, int status, const char *text)
{
        if (qmp->status < 0)
                return;
        qmp->status = status;
        (void) snprintf(qmp->text, sizeof qmp->text, "%s", text);
        qmp->ready = false;
        qmp->io = loop_io_free(qmp->io);
        loop_timer_set(qmp->timer, 0);
        loop_timer_soon(qmp->failing);
}

static void rearm(Qmp *qmp)
{
        uint64_t now = clock_monotonic_usec(), until = qmp->ready ? USEC_INFINITY : qmp->greeting_until;

        for (Pending *p = qmp->pending; p; p = p->next)
                until = MIN(until, p->until_usec);
        loop_timer_set(qmp->timer, until == USEC_INFINITY ? 0 : until > now ? until - now : 1);
}

/* One at a time: an answer may change everything. */
static Pending *take_late(Qmp *qmp)
{
        uint64_t now = clock_monotonic_usec();

        for (Pending **p = &qmp->pending; *p; p = &(*p)->next)
                if ((*p)->until_usec <= now) {
                        Pending *late = *p;

                        *p = late->next;
                        return late;
                }
        return NULL;
}

static void on_timer(void *userdata)
{
        Qmp *qmp = userdata;
        Pending *late;

        if (!qmp->ready && qmp->greeting_until <= clock_monotonic_usec()) {
                fail(qmp, -ETIMEDOUT, "the monitor does not greet us; is another client connected to it?");
                return;
        }
        qmp->held++;
        while (!qmp->dead && (late = take_late(qmp))) {
                late->answer(late->userdata, -ETIMEDOUT, NULL, "QEMU's monitor does not answer");
                free(late);
        }
        if (let_go(qmp) && qmp->status == 0)
                rearm(qmp);
}

/* ---- out ----------------------------------------------------------------------------------------------------- */

static void execute(Qmp *qmp, const char *how, const char *command, json_object *arguments, int fd,
                    uint64_t deadline_usec, QmpAnswer answer, void *userdata)
{
        _cleanup_(json_object_putp) json_object *object = json_new_object();
        Pending *p = calloc(1, sizeof *p), **last = &qmp->pending;
        const char *text;
        size_t size;
        char *line;
        int r;

        if (!p)
                out_of_memory();
        *p = (Pending){NULL, ++qmp->next_id, clock_monotonic_usec() + deadline_usec, answer, userdata};
        while (*last)
                last = &(*last)->next;
        *last = p;
        json_add_string(object, how, command);
        if (arguments)
                json_add(object, "arguments", arguments);
        json_add_number(object, "id", p->id);
        text = json_print(object, JSON_C_TO_STRING_PLAIN);
        size = strlen(text);
        line = malloc(size + 1);
        if (!line)
                out_of_memory();
        memcpy(line, text, size);
        line[size] = '\n';
        r = qmp->status < 0 ? qmp->status : socket_send(qmp->fd, line, size + 1, &fd, fd >= 0 ? 1 : 0);
        free(line);
        if (r < 0 && qmp->status == 0)
                fail(qmp, r, "QEMU's monitor does not take commands");
        if (qmp->status < 0)
                loop_timer_soon(qmp->failing);
        else
                rearm(qmp);
}

void qmp_execute(Qmp *qmp, const char *command, json_object *arguments, int fd, uint64_t deadline_usec,
                 QmpAnswer answer, void *userdata)
{
        execute(qmp, "execute", command, arguments, fd, deadline_usec, answer, userdata);
}

void qmp_execute_oob(Qmp *qmp, const char *command, json_object *arguments, uint64_t deadline_usec,
                     QmpAnswer answer, void *userdata)
{
        execute(qmp, "exec-oob", command, arguments, -1, deadline_usec, answer, userdata);
}

/* ---- in ------------------------------------------------------------------------------------------------------ */

static void on_capabilities(void *userdata, int status, json_object *result, const char *text)
{
        Qmp *qmp = userdata;

        if (status < 0) {
                fail(qmp, status, text);
                return;
        }
        qmp->ready = true;
        rearm(qmp);
        qmp->listener->ready(qmp->userdata);
}

static void take_greeting(Qmp *qmp, json_object *line)
{
        JsonReader reader = {.where = "QMP greeting"};
        json_object *greeting = json_member(&reader, line, "QMP", json_type_object, true);
        json_object *caps = json_member(&reader, greeting, "capabilities", json_type_array, true);
        json_object *arguments = json_new_object(), *enable = json_new_array();

        for (size_t i = 0; caps && i < json_object_array_length(caps); i++) {
                const char *name = json_object_get_string(json_object_array_get_idx(caps, i));

                qmp->oob |= name && streq(name, "oob");
        }
        if (reader.failed) {
                json_object_put(arguments);
                json_object_put(enable);
                fail(qmp, -EPROTO, reader.text);
                return;
        }
        qmp->greeted = true;
        if (qmp->oob)
                json_append(enable, json_object_new_string("oob"));
        json_add(arguments, "enable", enable);
        qmp_execute(qmp, "qmp_capabilities", arguments, -1, 2 * USEC_PER_SEC, on_capabilities, qmp);
}

static Pending *take_pending(Qmp *qmp, int64_t id)
{
        for (Pending **p = &qmp->pending; *p; p = &(*p)->next)
                if ((*p)->id == id) {
                        Pending *found = *p;

                        *p = found->next;
                        return found;
                }
        return NULL;
}

static void take_answer(Qmp *qmp, json_object *line)
{
        JsonReader reader = {.where = "QMP answer"};
        json_object *id = NULL, *result = NULL, *error = NULL;
        bool returned = json_object_object_get_ex(line, "return", &result);
        bool refused = json_object_object_get_ex(line, "error", &error);
        Pending *p;

        if (!returned && !refused) {
                fail(qmp, -EPROTO, "QEMU's monitor said what is neither answer nor event");
                return;
        }
        if (!json_object_object_get_ex(line, "id", &id) || !json_object_is_type(id, json_type_int))
                return; /* of a command that it could not even parse, or none of ours */
        p = take_pending(qmp, json_object_get_int64(id));
        if (!p)
                return; /* late */
        rearm(qmp);
        if (refused) {
                const char *desc = json_string(&reader, error, "desc", false);

                p->answer(p->userdata, -EREMOTEIO, NULL, desc ? desc : "QEMU refused, without a reason");
        } else {
                p->answer(p->userdata, 0, result, "");
        }
        free(p);
}

static void take_line(Qmp *qmp, const char *text, size_t size)
{
        JsonReader reader = {.where = "QMP"};
        _cleanup_(json_object_putp) json_object *line = NULL;
        json_object *event = NULL, *data = NULL;

        if (size == 0 || (size == 1 && text[0] == '\r'))
                return;
        line = json_parse(&reader, text, size);
        if (!line || !json_object_is_type(line, json_type_object)) {
                fail(qmp, -EPROTO, "QEMU's monitor said what is no JSON object");
                return;
        }
        if (!qmp->greeted) {
                take_greeting(qmp, line);
                return;
        }
        if (json_object_object_get_ex(line, "event", &event)) {
                (void) json_object_object_get_ex(line, "data", &data);
                if (qmp->ready && json_object_is_type(event, json_type_string))
                        qmp->listener->event(qmp->userdata, json_object_get_string(event), data);
                return;
        }
        take_answer(qmp, line);
}

static void take_lines(Qmp *qmp)
{
        size_t at = 0, from = qmp->n_searched;
        char *end;

        qmp->held++;
        while (!qmp->dead && qmp->status == 0 && (end = memchr(qmp->in + from, '\n', qmp->n_in - from))) {
                size_t size = (size_t) (end - qmp->in) - at;

                if (size > LINE_MAX_BYTES)
                        break;
                take_line(qmp, qmp->in + at, size);
                from = at += size + 1;
        }
        if (!let_go(qmp))
                return;
        /* A long line may come byte by byte: it is neither moved nor searched for each of them. */
        if (at > 0)
                memmove(qmp->in, qmp->in + at, qmp->n_in - at);
        qmp->n_in -= at;
        qmp->n_searched = qmp->n_in;
        /* What is left has no end yet, or one that comes too late. */
        if (qmp->n_in > LINE_MAX_BYTES)
                fail(qmp, -EMSGSIZE, "QEMU's monitor said too much in one line");
}

static void on_readable(void *userdata)
{
        Qmp *qmp = userdata;
        size_t n_fds = 0;
        ssize_t n;

        if (qmp->in_room - qmp->n_in < 4096) {
                size_t room = MAX(qmp->in_room * 2, (size_t) 16384);
                char *in = room > 2 * LINE_MAX_BYTES ? NULL : realloc(qmp->in, room);

                if (!in) {
                        fail(qmp, -EMSGSIZE, "QEMU's monitor said too much in one line");
                        return;
                }
                qmp->in = in;
                qmp->in_room = room;
        }
        n = socket_recv(qmp->fd, qmp->in + qmp->n_in, qmp->in_room - qmp->n_in, NULL, 0, &n_fds);
        if (n == -EAGAIN)
                return;
        if (n <= 0) {
                fail(qmp, n < 0 ? (int) n : -ECONNRESET, "QEMU closed its monitor");
                return;
        }
        qmp->n_in += (size_t) n;
        take_lines(qmp);
}

/* ---- life ---------------------------------------------------------------------------------------------------- */

bool qmp_has_oob(const Qmp *qmp)
{
        return qmp->oob;
}

bool qmp_is_ready(const Qmp *qmp)
{
        return qmp->ready;
}

int qmp_peer(const Qmp *qmp, pid_t *ret_pid)
{
        uid_t uid;

        return socket_peer(qmp->fd, ret_pid, &uid);
}

static void destroy(Qmp *qmp)
{
        loop_timer_free(qmp->timer);
        loop_timer_free(qmp->failing);
        free(qmp->in);
        free(qmp);
}

Qmp *qmp_free(Qmp *qmp)
{
        if (!qmp)
                return NULL;
        qmp->dead = true;
        qmp->held++;
        qmp->io = loop_io_free(qmp->io);
        if (qmp->timer)
                loop_timer_set(qmp->timer, 0);
        if (qmp->failing)
                loop_timer_set(qmp->failing, 0);
        while (qmp->pending) {
                Pending *p = qmp->pending;

                qmp->pending = p->next;
                p->answer(p->userdata, -ECANCELED, NULL, "the connection was given up");
                free(p);
        }
        if (qmp->fd >= 0)
                (void) close(qmp->fd);
        (void) let_go(qmp);
        return NULL;
}

DEFINE_CLEANUP(Qmp *, qmp_free);

int qmp_new(Loop *loop, const char *path, uint64_t greeting_usec, const QmpListener *listener, void *userdata,
            Qmp **ret)
{
        _cleanup_(qmp_freep) Qmp *qmp = calloc(1, sizeof *qmp);
        int r;

        if (!qmp)
                return -ENOMEM;
        *qmp = (Qmp){.loop = loop, .listener = listener, .userdata = userdata};
        qmp->greeting_until = clock_monotonic_usec() + greeting_usec;
        qmp->fd = socket_connect(path, SOCK_STREAM);
        if (qmp->fd < 0)
                return qmp->fd;
        r = loop_io_new(loop, qmp->fd, on_readable, NULL, qmp, &qmp->io);
        if (r >= 0)
                r = loop_timer_new(loop, on_timer, qmp, &qmp->timer);
        if (r >= 0)
                r = loop_timer_new(loop, on_failing, qmp, &qmp->failing);
        if (r < 0)
                return r;
        rearm(qmp);
        *ret = TAKE_PTR(qmp);
        return 0;
}
