/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper-client.h"

#include <stdio.h>

#include "common/log.h"
#include "common/socket.h"

typedef struct Asked {
        struct Asked *next;
        uint32_t id;
        HelperAnswer answer; /* NULL: forgotten */
        void *userdata;
        HelperPacket *packet; /* until it is sent */
} Asked;

struct HelperClient {
        Loop *loop;
        char path[SOCKET_PATH_MAX + 1];
        int fd;
        LoopIo *io;
        LoopTimer *retry; /* rings at once for what could not be sent */
        uint32_t next_id;
        Asked *first, **last;
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
        answer(pop(client), client->answer.head.status, fd, (pid_t) client->answer.head.pid,
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
        asked->answer = on_answer;
        asked->userdata = userdata;
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
        loop_timer_free(client->retry);
        free(client);
        return NULL;
}
