/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper-client.h"

#include <stdio.h>
#include <sys/socket.h>

#include "common/log.h"
#include "common/socket.h"

typedef struct Asked {
        struct Asked *next;
        HelperClient *client;
        uint32_t id;
        HelperRequest request;
        HelperAnswer answer; /* NULL: forgotten */
        void *userdata;
        HelperPacket *packet; /* until it is sent */

        /* A program that was told to begin: */
        int socket; /* or -1 */
        LoopIo *io;
        ProcessId process;
} Asked;

struct HelperClient {
        Loop *loop;
        char path[SOCKET_PATH_MAX + 1];
        int fd;
        LoopIo *io;
        LoopTimer *retry; /* rings at once for what could not be sent */
        uint32_t next_id;
        Asked *first, **last;
        Asked *beginning; /* answered by the helper; the programs have not begun yet */
        HelperPacket answer;
};

static void on_readable(void *userdata);

static void disconnect(HelperClient *client)
{
        client->io = loop_io_free(client->io);
        if (client->fd >= 0)
                (void) close(client->fd);
        client->fd = -1;
}

static int connect_helper(HelperClient *client)
{
        int fd, r;

        if (client->fd >= 0)
                return 0;
        fd = socket_connect(client->path, SOCK_SEQPACKET);
        if (fd < 0)
                return fd;
        r = loop_io_new(client->loop, fd, on_readable, NULL, client, &client->io);
        if (r < 0) {
                (void) close(fd);
                return r;
        }
        client->fd = fd;
        return 0;
}

static void asked_free(Asked *asked)
{
        loop_io_free(asked->io);
        if (asked->socket >= 0)
                (void) close(asked->socket);
        free(asked->packet);
        free(asked);
}

static Asked *pop(HelperClient *client)
{
        Asked *asked = client->first;

        client->first = asked->next;
        if (!client->first)
                client->last = &client->first;
        return asked;
}

static void answer(Asked *asked, int status, int fd, pid_t pid, const char *text)
{
        if (asked->answer)
                asked->answer(asked->userdata, status, fd, pid, text);
        else if (fd >= 0)
                (void) close(fd);
        asked_free(asked);
}

/* ---- programs that are to begin ------------------------------------------------------------------------------ */

static void unlink_beginning(Asked *asked)
{
        Asked **p = &asked->client->beginning;

        while (*p != asked)
                p = &(*p)->next;
        *p = asked->next;
}

static void on_begun(void *userdata)
{
        Asked *asked = userdata;
        int32_t status = 0;
        ssize_t n = recv(asked->socket, &status, sizeof status, MSG_DONTWAIT);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return;
        unlink_beginning(asked);
        if (n == sizeof status && status < 0)
                answer(asked, status, -1, 0, "cannot be executed");
        else if (n != 0)
                answer(asked, n < 0 ? -errno : -EPROTO, -1, 0, "nobody knows whether it has begun");
        else {
                if (!asked->answer && asked->request == HELPER_START_VMM)
                        helper_client_kill(asked->client, &asked->process);
                answer(asked, 0, -1, asked->process.pid, "");
        }
}

static int say_go(int fd)
{
        ssize_t n;

        do
                n = send(fd, "", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        while (n < 0 && errno == EINTR);
        return n < 0 ? -errno : 0;
}

/* Takes `fd`. Whom nobody has told to begin ends when it is closed. */
static void begin(Asked *asked, int fd, pid_t pid)
{
        HelperClient *client = asked->client;
        int r;

        asked->socket = fd;
        /* An agent that nobody waits for any more is found by its path; a VMM would be in the way of the next. */
        if (!asked->answer && asked->request == HELPER_START_VMM) {
                asked_free(asked);
        } else if (fd < 0) {
                answer(asked, -EMFILE, -1, 0, "no descriptor is left by which it could be told to begin");
        } else if (process_id_read(pid, &asked->process) < 0) {
                answer(asked, -ECHILD, -1, 0, "its process has ended before it could begin");
        } else if (loop_io_new(client->loop, fd, on_begun, NULL, asked, &asked->io) < 0) {
                answer(asked, -ENOMEM, -1, 0, "its beginning cannot be waited for");
        } else if ((r = say_go(fd)) < 0) {
                answer(asked, r, -1, 0,
                       r == -EPIPE ? "its process has ended before it could begin"
                                   : "it cannot be told to begin");
        } else {
                asked->next = client->beginning;
                client->beginning = asked;
        }
}

/* ---- what is asked ------------------------------------------------------------------------------------------- */

/* Everything that was sent and not answered has failed; what was not sent may still be. */
static void fail_sent(HelperClient *client, int status, const char *text)
{
        disconnect(client);
        while (client->first && !client->first->packet)
                answer(pop(client), status, -1, 0, text);
}

static void on_readable(void *userdata)
{
        HelperClient *client = userdata;
        const char *strings[HELPER_STRINGS_MAX] = {""};
        int fd = -1, r = helper_packet_recv(client->fd, &client->answer, &fd);
        Asked *asked;

        if (r == -EAGAIN)
                return;
        if (r <= 0) {
                fail_sent(client, r < 0 ? r : -ECONNRESET,
                          "migmgr-helper is gone; start migmgr-helper.service");
                return;
        }
        if (!client->first || client->first->packet || client->first->id != client->answer.head.id) {
                if (fd >= 0)
                        (void) close(fd);
                log_error(NULL, "migmgr-helper answered what was not asked; its connection is dropped");
                fail_sent(client, -EPROTO, "migmgr-helper answered what was not asked");
                return;
        }
        helper_packet_strings(&client->answer, strings);
        asked = pop(client);
        if (client->answer.head.status == 0 &&
            (asked->request == HELPER_START_VMM || asked->request == HELPER_START_AGENT))
                begin(asked, fd, (pid_t) client->answer.head.pid);
        else
                answer(asked, client->answer.head.status, fd, (pid_t) client->answer.head.pid,
                       client->answer.head.n_strings > 0 ? strings[0] : "");
}

/* Sends what waits. A request that can't be sent is answered from here, which is never within the call that asked. */
static void on_send(void *userdata)
{
        HelperClient *client = userdata;

        for (Asked *asked = client->first; asked; asked = asked->next) {
                int r;

                if (!asked->packet)
                        continue;
                r = connect_helper(client);
                if (r == 0)
                        r = helper_packet_send(client->fd, asked->packet, -1);
                if (r == -EAGAIN) {
                        loop_timer_set(client->retry, 10 * USEC_PER_MSEC);
                        return;
                }
                free(asked->packet);
                asked->packet = NULL;
                if (r < 0) {
                        fail_sent(client, r,
                                  "migmgr-helper cannot be reached; is migmgr-helper.service running?");
                        if (client->first)
                                loop_timer_soon(client->retry);
                        return;
                }
        }
}

void helper_client_ask(HelperClient *client, HelperRequest request, const char *const *strings,
                       size_t n_strings, HelperAnswer on_answer, void *userdata)
{
        Asked *asked = calloc(1, sizeof *asked);
        int r = 0;

        if (asked)
                asked->packet = malloc(sizeof *asked->packet);
        if (!asked || !asked->packet) {
                out_of_memory();
        }
        asked->client = client;
        asked->request = request;
        asked->answer = on_answer;
        asked->userdata = userdata;
        asked->socket = -1;
        asked->id = ++client->next_id;
        asked->packet->head = (HelperHead){.request = request, .id = asked->id};
        asked->packet->n_text = 0;
        for (size_t i = 0; i < n_strings && r == 0; i++)
                r = helper_packet_add(asked->packet, strings[i]);
        if (r < 0)
                asked->packet->head.n_strings = 0; /* refused by the helper, with its reason */
        *client->last = asked;
        client->last = &asked->next;
        loop_timer_soon(client->retry);
}

void helper_client_forget(HelperClient *client, const void *userdata)
{
        for (Asked *asked = client->first; asked; asked = asked->next)
                if (asked->userdata == userdata)
                        asked->answer = NULL;
        for (Asked *asked = client->beginning; asked; asked = asked->next)
                if (asked->userdata == userdata)
                        asked->answer = NULL;
}

void helper_client_kill(HelperClient *client, const ProcessId *id)
{
        char pid[16], start[32];
        const char *strings[] = {pid, start, id->boot};

        (void) snprintf(pid, sizeof pid, "%d", (int) id->pid);
        (void) snprintf(start, sizeof start, "%llu", (unsigned long long) id->start);
        helper_client_ask(client, HELPER_KILL, strings, 3, NULL, NULL);
}

int helper_client_new(Loop *loop, const char *runtime_dir, HelperClient **ret)
{
        HelperClient *client = calloc(1, sizeof *client);
        int r;

        if (!client)
                return -ENOMEM;
        client->loop = loop;
        client->fd = -1;
        client->last = &client->first;
        if (snprintf(client->path, sizeof client->path, "%s/helper.sock", runtime_dir) >=
            (int) sizeof client->path) {
                free(client);
                return -ENAMETOOLONG;
        }
        r = loop_timer_new(loop, on_send, client, &client->retry);
        if (r < 0) {
                free(client);
                return r;
        }
        *ret = client;
        return 0;
}

HelperClient *helper_client_free(HelperClient *client)
{
        if (!client)
                return NULL;
        disconnect(client);
        while (client->first)
                asked_free(pop(client));
        while (client->beginning) {
                Asked *asked = client->beginning;

                unlink_beginning(asked);
                asked_free(asked);
        }
        loop_timer_free(client->retry);
        free(client);
        return NULL;
}
