/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "link.h"

#include <endian.h>
#include <stdio.h>
#include <sys/socket.h>

#define HELLO_USEC (5 * USEC_PER_SEC)
/* Messages that the other side does not read are held up to here. */
#define OUT_MAX (4 * MIB)

struct Link {
        Loop *loop;
        int fd;
        LoopIo *io;
        LoopTimer *timer; /* until HELLO; then for telling of the end from a clean stack */
        const LinkListener *listener;
        void *userdata;
        char host[UUID_TEXT_MAX + 1];
        bool up;
        int status;
        char text[JSON_TEXT_MAX];
        uint8_t *in, *out;
        size_t n_in, in_room, n_out, out_room;
        uint32_t held; /* callbacks are on the stack: freed when the last of them has returned */
        bool dead;
};

const char *link_host(const Link *link)
{
        return link->host;
}

bool link_is_up(const Link *link)
{
        return link->up && link->status == 0;
}

/* ---- the end ------------------------------------------------------------------------------------------------- */

static void fail(Link *link, int status, const char *text)
{
        if (link->status < 0)
                return;
        link->status = status;
        (void) snprintf(link->text, sizeof link->text, "%s", text);
        link->io = loop_io_free(link->io);
        loop_timer_soon(link->timer);
}

/* Over TCP nobody has listened when the first byte is to go, or to come. */
static void fail_io(Link *link, int status, const char *text)
{
        fail(link, status, status == -ECONNREFUSED ? strerror(-status) : text);
}

static void on_timer(void *userdata)
{
        Link *link = userdata;

        if (link->status == 0) {
                fail(link, -ETIMEDOUT, "the other side does not say HELLO: is it a migmgrd?");
                return;
        }
        link->listener->down(link->userdata, link, link->status, link->text);
}

/* ---- out ----------------------------------------------------------------------------------------------------- */

static void flush(Link *link)
{
        while (link->n_out > 0 && link->status == 0) {
                ssize_t n = send(link->fd, link->out, link->n_out, MSG_NOSIGNAL | MSG_DONTWAIT);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && errno == EAGAIN) {
                        loop_io_want_write(link->io);
                        return;
                }
                if (n < 0) {
                        fail_io(link, -errno, "the connection broke");
                        return;
                }
                memmove(link->out, link->out + n, link->n_out - (size_t) n);
                link->n_out -= (size_t) n;
        }
}

static void on_writable(void *userdata)
{
        flush(userdata);
}

static bool make_room(uint8_t **buffer, size_t *room, size_t need, size_t max)
{
        size_t size = MAX(*room, (size_t) 4096);
        uint8_t *grown;

        if (need <= *room)
                return true;
        while (size < need)
                size *= 2;
        if (need > max)
                return false;
        grown = realloc(*buffer, size);
        if (!grown)
                return false;
        *buffer = grown;
        *room = size;
        return true;
}

json_object *link_message(Message type, const char *job)
{
        json_object *message = json_new_object();

        json_add_string(message, "type", message_to_string(type));
        if (job)
                json_add_string(message, "job", job);
        return message;
}

void link_send(Link *link, json_object *message)
{
        const char *text = json_print(message, JSON_C_TO_STRING_PLAIN);
        size_t size = strlen(text);
        uint32_t length = htole32((uint32_t) size);

        if (link->status == 0) {
                if (size > LINK_MESSAGE_MAX ||
                    !make_room(&link->out, &link->out_room, link->n_out + sizeof length + size, OUT_MAX)) {
                        fail(link, -ENOBUFS, "the other side does not read what it is sent");
                } else {
                        memcpy(link->out + link->n_out, &length, sizeof length);
                        memcpy(link->out + link->n_out + sizeof length, text, size);
                        link->n_out += sizeof length + size;
                        flush(link);
                }
        }
        json_object_put(message);
}

/* ---- in ------------------------------------------------------------------------------------------------------ */

static void take_hello(Link *link, json_object *body)
{
        JsonReader reader = {.where = "HELLO"};
        int64_t version = json_number(&reader, body, "version", 0, INT32_MAX, 0);
        const char *host = json_string(&reader, body, "host", true);

        if (!reader.failed && version != LINK_VERSION)
                json_fail(&reader, "it speaks version %lld, this migmgrd version %d", (long long) version,
                          LINK_VERSION);
        if (!reader.failed && !uuid_is_valid(host))
                json_fail(&reader, "its host id is no UUID");
        if (reader.failed) {
                fail(link, -EPROTO, reader.text);
                return;
        }
        memcpy(link->host, host, sizeof link->host);
        link->up = true;
        loop_timer_set(link->timer, 0);
        link->listener->up(link->userdata, link);
}

static void take_message(Link *link, const char *text, size_t size)
{
        JsonReader reader = {.where = "message from the other migmgrd"};
        _cleanup_(json_object_putp) json_object *body = json_parse(&reader, text, size);
        const char *type_text = json_string(&reader, body, "type", true), *job;
        Message type = reader.failed ? MESSAGE_INVALID : message_from_string(type_text);

        if (!reader.failed && (int) type <= MESSAGE_NONE)
                json_fail(&reader, "unknown type \"%.40s\"", type_text);
        if (reader.failed) {
                fail(link, -EPROTO, reader.text);
                return;
        }
        if (!link->up || type == MESSAGE_HELLO) {
                if (link->up || type != MESSAGE_HELLO)
                        fail(link, -EPROTO, "HELLO comes first, and once");
                else
                        take_hello(link, body);
                return;
        }
        job = json_string(&reader, body, "job", true);
        if (!reader.failed && !uuid_is_valid(job))
                json_fail(&reader, "\"job\" is no UUID");
        if (reader.failed)
                fail(link, -EPROTO, reader.text);
        else
                link->listener->message(link->userdata, link, type, job, body);
}

static void destroy(Link *link)
{
        loop_timer_free(link->timer);
        free(link->in);
        free(link->out);
        free(link);
}

/* Messages that are whole. */
static void take_messages(Link *link)
{
        size_t at = 0;

        link->held++;
        while (!link->dead && link->status == 0 && link->n_in - at >= sizeof(uint32_t)) {
                uint32_t length;

                memcpy(&length, link->in + at, sizeof length);
                length = le32toh(length);
                if (length > LINK_MESSAGE_MAX) {
                        fail(link, -EMSGSIZE, "the other side announced a message longer than any may be");
                        break;
                }
                if (link->n_in - at - sizeof length < length)
                        break;
                take_message(link, (const char *) link->in + at + sizeof length, length);
                at += sizeof length + length;
        }
        if (--link->held == 0 && link->dead) {
                destroy(link);
                return;
        }
        /* A long message may come byte by byte: it is not moved for each of them. */
        if (at > 0)
                memmove(link->in, link->in + at, link->n_in - at);
        link->n_in -= at;
}

static void on_readable(void *userdata)
{
        Link *link = userdata;
        ssize_t n;

        /* Room grows with what has really come, not with what is announced. */
        if (!make_room(&link->in, &link->in_room, link->n_in + 4096, 2 * LINK_MESSAGE_MAX)) {
                fail(link, -ENOMEM, "out of memory");
                return;
        }
        n = recv(link->fd, link->in + link->n_in, link->in_room - link->n_in, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return;
        if (n <= 0) {
                fail_io(link, n < 0 ? -errno : -ECONNRESET, "the other side closed the connection");
                return;
        }
        link->n_in += (size_t) n;
        take_messages(link);
}

/* ---- life ---------------------------------------------------------------------------------------------------- */

Link *link_free(Link *link)
{
        if (!link)
                return NULL;
        link->io = loop_io_free(link->io);
        if (link->timer)
                loop_timer_set(link->timer, 0);
        if (link->fd >= 0)
                (void) close(link->fd);
        link->fd = -1;
        link->dead = true;
        link->status = -ECANCELED;
        if (link->held == 0)
                destroy(link);
        return NULL;
}

DEFINE_CLEANUP(Link *, link_free);

int link_new(Loop *loop, int fd, const char *host_id, const char *boot_id, const LinkListener *listener,
             void *userdata, Link **ret)
{
        _cleanup_(link_freep) Link *link = calloc(1, sizeof *link);
        json_object *hello;
        int r;

        if (!link) {
                (void) close(fd);
                return -ENOMEM;
        }
        *link = (Link){.loop = loop, .fd = fd, .listener = listener, .userdata = userdata};
        r = loop_io_new(loop, fd, on_readable, on_writable, link, &link->io);
        if (r >= 0)
                r = loop_timer_new(loop, on_timer, link, &link->timer);
        if (r < 0)
                return r;
        loop_timer_set(link->timer, HELLO_USEC);
        hello = link_message(MESSAGE_HELLO, NULL);
        json_add_number(hello, "version", LINK_VERSION);
        json_add_string(hello, "host", host_id);
        json_add_string(hello, "boot", boot_id);
        link_send(link, hello);
        *ret = TAKE_PTR(link);
        return 0;
}
