/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* migmgr-helper: what migmgrd must not be able to do itself, as a closed list (helper-protocol.h). Small on purpose. */

#include <event2/event.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>

#include "common/log.h"
#include "common/socket.h"
#include "call.h"

static const char *arg_runtime_dir = MIGMGR_RUNTIME_DIR;
static const char *arg_agent = MIGMGR_AGENT_PATH;

typedef struct Helper {
        struct event_base *base;
        int listen_fd;
        HelperPacket request, answer; /* one at a time */
        HelperPlace place;
} Helper;

typedef struct Client {
        Helper *helper;
        int fd;
        struct event *event, *writable;
        HelperPacket *
                held; /* the answer that its socket had no room for; it is asked nothing before that is out */
        int held_fd;
} Client;

static void client_free(Client *client)
{
        if (client->event)
                event_free(client->event);
        if (client->writable)
                event_free(client->writable);
        if (client->held_fd >= 0)
                (void) close(client->held_fd);
        free(client->held);
        (void) close(client->fd);
        free(client);
}

static void drop(Client *client, int status)
{
        if (status < 0)
                log_warning(NULL, "helper: a client is dropped: %s", strerror(-status));
        client_free(client);
}

/* A client with very many devices asks faster than it reads. */
static int hold_answer(Client *client, int fd)
{
        const HelperPacket *answer = &client->helper->answer;

        client->held = malloc(sizeof *client->held);
        if (!client->held)
                return -ENOMEM;
        client->held->head = answer->head;
        client->held->n_text = answer->n_text;
        memcpy(client->held->text, answer->text, answer->n_text);
        client->held_fd = fd;
        (void) event_del(client->event);
        (void) event_add(client->writable, NULL);
        return 0;
}

static void on_writable(evutil_socket_t socket, short what, void *userdata)
{
        Client *client = userdata;
        int r = helper_packet_send(client->fd, client->held, client->held_fd);

        if (r == -EAGAIN)
                return;
        if (r < 0) {
                drop(client, r);
                return;
        }
        if (client->held_fd >= 0)
                (void) close(client->held_fd);
        client->held_fd = -1;
        free(client->held);
        client->held = NULL;
        (void) event_del(client->writable);
        (void) event_add(client->event, NULL);
}

static void on_request(evutil_socket_t socket, short what, void *userdata)
{
        Client *client = userdata;
        Helper *helper = client->helper;
        _cleanup_(closep) int unused = -1, fd = -1;
        int r = helper_packet_recv(client->fd, &helper->request, &unused);

        if (r == -EAGAIN)
                return;
        if (r > 0) {
                helper_answer(&helper->place, &helper->request, &helper->answer, &fd);
                r = helper_packet_send(client->fd, &helper->answer, fd);
                if (r == -EAGAIN && (r = hold_answer(client, fd)) == 0)
                        fd = -1;
                if (r == 0)
                        return;
        }
        drop(client, r);
}

static bool is_trusted(int fd)
{
        pid_t pid;
        uid_t uid;

        return socket_peer(fd, &pid, &uid) == 0 && (uid == 0 || uid == getuid());
}

static void on_accept(evutil_socket_t socket, short what, void *userdata)
{
        Helper *helper = userdata;
        int fd = accept4(helper->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        Client *client;

        if (fd < 0)
                return;
        client = is_trusted(fd) ? calloc(1, sizeof *client) : NULL;
        if (!client) {
                (void) close(fd);
                return;
        }
        *client = (Client){.helper = helper, .fd = fd, .held_fd = -1};
        client->event = event_new(helper->base, fd, EV_READ | EV_PERSIST, on_request, client);
        client->writable = event_new(helper->base, fd, EV_WRITE | EV_PERSIST, on_writable, client);
        if (!client->event || !client->writable || event_add(client->event, NULL) < 0)
                client_free(client);
}

static void on_child(evutil_socket_t number, short what, void *userdata)
{
        hold_reap();
}

static int make_directories(void)
{
        char path[SOCKET_PATH_MAX + 1];

        if (mkdir(arg_runtime_dir, 0700) < 0 && errno != EEXIST)
                return -errno;
        (void) snprintf(path, sizeof path, "%s/agent", arg_runtime_dir);
        if (mkdir(path, 0700) < 0 && errno != EEXIST)
                return -errno;
        return 0;
}

static int run(Helper *helper)
{
        char path[SOCKET_PATH_MAX + 16];
        struct event *accept, *child;
        int r = make_directories();

        if (r < 0)
                return r;
        (void) snprintf(path, sizeof path, "%s/helper.sock", arg_runtime_dir);
        helper->listen_fd = socket_listen(path, SOCK_SEQPACKET);
        if (helper->listen_fd < 0)
                return helper->listen_fd;
        helper->base = event_base_new();
        if (!helper->base)
                return -ENOMEM;
        accept = event_new(helper->base, helper->listen_fd, EV_READ | EV_PERSIST, on_accept, helper);
        child = evsignal_new(helper->base, SIGCHLD, on_child, NULL);
        if (!accept || event_add(accept, NULL) < 0 || !child || event_add(child, NULL) < 0)
                return -ENOMEM;
        /* The variable goes with it: agents and VMMs must not inherit it. */
        (void) sd_notify(1, "READY=1");
        return event_base_dispatch(helper->base) < 0 ? -EIO : 0;
}

static void help(void)
{
        printf("migmgr-helper [OPTIONS]\n\n"
               "Does for migmgrd what needs privilege: a closed list of requests on RUNTIME-DIR/helper.sock.\n\n"
               "  --runtime-dir=DIR  sockets and the VMMs' output (default %s)\n"
               "  --agent=PATH       the agent's program (default %s)\n"
               "  --help             this text\n"
               "  --version          version\n",
               MIGMGR_RUNTIME_DIR, MIGMGR_AGENT_PATH);
}

int main(int argc, char **argv)
{
        static const struct option options[] = {{"runtime-dir", required_argument, NULL, 'r'},
                                                {"agent", required_argument, NULL, 'a'},
                                                {"help", no_argument, NULL, 'h'},
                                                {"version", no_argument, NULL, 'V'},
                                                {}};
        static Helper helper; /* its packets are large */
        int c, r;

        while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0)
                switch (c) {
                case 'r': arg_runtime_dir = optarg; break;
                case 'a': arg_agent = optarg; break;
                case 'h': help(); return 0;
                case 'V': printf("migmgr-helper %s\n", PACKAGE_VERSION); return 0;
                default: return 2;
                }
        (void) signal(SIGPIPE, SIG_IGN);
        helper.place = (HelperPlace){arg_agent, arg_runtime_dir};
        r = run(&helper);
        log_error(NULL, "migmgr-helper: %s: %s", arg_runtime_dir, strerror(-r));
        return 1;
}
