/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* One device and its listening socket. Like libvfio-user it has one client at a time and does not accept another
 * while that one is there: who comes meanwhile waits in the kernel. Owned by the Fleet.
 */

#include "client.h"

typedef enum ServerOnDisconnect {
        SERVER_KEEP,    /* the state stays: libvfio-user today, and the specification */
        SERVER_RUNNING, /* forced to RUNNING: libvfio-user before May 2026 */
        SERVER_EXIT,    /* the whole process ends: libvfio-user's sample */
} ServerOnDisconnect;

typedef struct Server {
        Device device;
        struct event_base *base;
        ServerOnDisconnect on_disconnect;
        int fd;
        struct event *listener;
        Client *client; /* or NULL */
} Server;

/* A device and no socket yet. Moves what `config` owns out of it. `moved` and `userdata` are the
 * device's. NULL: out of memory. */
Server *server_new(DeviceConfig *config, ServerOnDisconnect on_disconnect, struct event_base *base,
                   void (*moved)(Device *d, void *userdata), void *userdata);
/* Removes the socket's path, if this one listened on it. */
Server *server_free(Server *s);

/* Fails as listen_on() does. */
int server_listen(Server *s) _must_check_;

DEFINE_CLEANUP(Server *, server_free);
