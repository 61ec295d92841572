/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The broker as a whole: the device that stands or runs and its server that goes and comes back, what such a server is
 * given again, how long anybody waits, and life. */

#include <stdio.h>
#include <sys/stat.h>

#include "broker-internal.h"
#include "common/clock.h"
#include "common/log.h"

/* ---- what the VMM has set up --------------------------------------------------------------------------------- */

static void on_repaired(void *userdata, int status, VfioUserMessage *reply)
{
        Repair *repair = userdata;
        Broker *broker = repair->broker;
        bool refused_for_now = status < 0 && broker->held;

        if (broker->repair == repair) { /* else it was of a connection that is no more */
                broker->repair = NULL;
                if (session_next_done(broker->session, repair->command, reply, !refused_for_now) < 0) {
                        broker_log_broken(broker,
                                          "the device's server has other memory than what it has mapped");
                        broker_drop_vmm(broker);
                }
                if (status < 0 && !refused_for_now)
                        log_warning(NULL,
                                    "broker %s: the device's server refuses what the VMM had set up: %s",
                                    broker->path, strerror(-status));
                /* libvfio-user takes no such command while it stands: again when it runs. */
                if (!refused_for_now)
                        broker_repair_next(broker);
                broker_pump(broker);
                if (!broker->repair && broker->settled)
                        broker->settled(broker->userdata);
        }
        vfio_user_message_free(reply);
        vfio_user_message_free(repair->command);
        free(repair);
}

static int repair_begin(Broker *broker, VfioUserMessage *message)
{
        Repair *repair = malloc(sizeof *repair);
        VfioUserCall call;
        int r;

        if (!repair) {
                vfio_user_message_free(message);
                return -ENOMEM;
        }
        *repair = (Repair){broker, message};
        call = (VfioUserCall){.command = message->header.command,
                              .out = {{message->payload, vfio_user_message_payload(message)}},
                              .n_out = 1,
                              .on_raw = on_repaired,
                              .fds = message->fds,
                              .n_fds = message->n_fds,
                              .userdata = repair};
        r = vfio_user_client_call(broker->client, &call);
        if (r < 0) {
                vfio_user_message_free(message);
                free(repair);
                return r;
        }
        broker->repair = repair;
        return 0;
}

void broker_repair_next(Broker *broker)
{
        VfioUserMessage *message;
        int r;

        if (!broker->client || broker->repair)
                return;
        r = session_next(broker->session, broker->server_limits.files_max, &message);
        if (r == 0 && message)
                r = repair_begin(broker, message);
        if (r < 0)
                log_error(NULL, "broker %s: what the VMM had set up can't be given to the server: %s",
                          broker->path, strerror(-r));
}

bool broker_is_settled(const Broker *broker)
{
        return !broker->repair;
}

void broker_set_settled(Broker *broker, void (*settled)(void *userdata))
{
        broker->settled = settled;
}

uint32_t broker_maps(const Broker *broker, const BrokerMap **ret)
{
        *ret = NULL;
        return broker ? session_maps(broker->session, ret) : 0;
}

uint32_t broker_regions(const Broker *broker, AgentFile *ret, uint32_t max)
{
        return broker ? session_regions(broker->session, ret, max) : 0;
}

/* ---- the device ---------------------------------------------------------------------------------------------- */

void broker_set_held(Broker *broker, bool held)
{
        if (broker->held == held)
                return;
        if (held && broker->main && broker_line_drain(broker->main) && broker->client && !broker->repair)
                while (broker->waiting.first)
                        broker_send_first(broker);
        broker->held = held;
        if (!held) {
                broker_repair_next(broker);
                broker_pump(broker);
        }
}

void broker_see_state(Broker *broker, DeviceState state, bool asked)
{
        bool stands = state == DEVICE_STATE_STOP || state == DEVICE_STATE_STOP_COPY;

        if (state == DEVICE_STATE_UNKNOWN)
                return;
        /* Before it stands, and only when it surely runs. */
        if (stands)
                broker_set_held(broker, true);
        if (!asked || state == DEVICE_STATE_RESUMING)
                broker->resuming = state == DEVICE_STATE_RESUMING;
        if (!stands && !asked)
                broker_set_held(broker, false);
}

static void take_server(Broker *broker, VfioUserDevice *device)
{
        const char *text = vfio_user_device_version(device, &broker->server_minor);
        char *copy = strdup(text);

        if (!copy)
                out_of_memory();
        free(broker->server_text);
        broker->server_text = copy;
        broker_rules_limits(text, &broker->server_limits);
        broker->client = vfio_user_device_client(device);
        vfio_user_client_set_handler(broker->client, broker_on_server_command, broker);
        vfio_user_client_set_serial(broker->client);
}

static void lose_server(Broker *broker)
{
        broker->client = NULL;
        broker->repair = NULL; /* it frees itself when the client says that it came to nothing */
        broker->held = broker->resuming = false;
        /* Nobody knows what came of these. */
        for (Command *command = broker->flying.first; command; command = command->next)
                broker_answer_command(command, EIO);
        for (ServerCommand *command = broker->server_commands; command; command = command->next)
                command->answered = true;
        session_lose(broker->session);
        if (broker->main)
                broker->lost_usec = clock_monotonic_usec();
        broker->wanted_usec = 0;
        broker_wake(broker, 0);
}

void broker_set_device(Broker *broker, AgentDevice *device)
{
        const char *text;

        if (!device) {
                if (broker->client)
                        lose_server(broker);
                return;
        }
        take_server(broker, vfio_user_device_of(device));
        broker->lost_usec = 0;
        broker->held = broker->resuming = false;
        broker_repair_next(broker); /* before it is known to stand: some servers take it even so */
        broker_see_state(broker, agent_device_facts(device)->state, false);
        text = broker->version ? broker_answer_version(broker) : NULL;
        if (text) {
                broker_log_broken(broker, text);
                broker_drop_vmm(broker);
        }
        broker_pump(broker);
}

/* ---- time ---------------------------------------------------------------------------------------------------- */

void broker_wake(Broker *broker, uint64_t at_usec)
{
        uint64_t now, left;
        struct timeval tv;

        if (at_usec > 0 && event_pending(broker->tick, EV_TIMEOUT, NULL))
                return; /* it comes before: nothing waits longer than what came just now */
        now = clock_monotonic_usec();
        left = at_usec > now ? at_usec - now : 0;
        tv = (struct timeval){(time_t) (left / USEC_PER_SEC), (suseconds_t) (left % USEC_PER_SEC)};
        (void) event_add(broker->tick, &tv);
}

static bool is_due(uint64_t since_usec, uint64_t now)
{
        return now >= since_usec + BROKER_ANSWER_USEC;
}

/* What is posted waits on: nobody would hear that it was dropped. */
static uint64_t expire_waiting(Broker *broker, uint64_t now)
{
        for (Command **place = &broker->waiting.first; *place;) {
                Command *command = *place;

                if (command->request->header.flags & VFIO_USER_NO_REPLY) {
                        place = &command->next;
                        continue;
                }
                if (!is_due(command->arrived_usec, now))
                        return command->arrived_usec + BROKER_ANSWER_USEC;
                broker_list_take(&broker->waiting, place);
                broker_answer_command(command, broker->held ? EBUSY : ETIMEDOUT);
                broker_command_free(command);
        }
        return USEC_INFINITY;
}

static uint64_t expire_flying(Broker *broker, uint64_t now)
{
        for (Command *command = broker->flying.first; command; command = command->next) {
                if (command->answered)
                        continue;
                if (!is_due(command->arrived_usec, now))
                        return command->arrived_usec + BROKER_ANSWER_USEC;
                broker_answer_command(command, ETIMEDOUT);
        }
        return USEC_INFINITY;
}

static uint64_t expire_server_commands(Broker *broker, uint64_t now)
{
        for (ServerCommand *command = broker->server_commands; command; command = command->next) {
                if (command->answered)
                        continue;
                if (!is_due(command->arrived_usec, now))
                        return command->arrived_usec + BROKER_ANSWER_USEC;
                broker_answer_server(broker, &command->header, command->twin, ETIMEDOUT);
                command->answered = true;
        }
        return USEC_INFINITY;
}

/* A VMM without a server, and one that does not even begin. */
static uint64_t expire_vmm(Broker *broker, uint64_t now)
{
        uint64_t since = broker->lost_usec ? broker->lost_usec : broker->accepted_usec;

        if (!broker->main || (broker->negotiated && !broker->lost_usec))
                return USEC_INFINITY;
        if (is_due(since, now)) {
                if (broker->version)
                        broker_answer_vmm(broker, &broker->version->header, ETIMEDOUT);
                broker_log_broken(broker,
                                  broker->lost_usec ? "the device's server is gone" : "it does not begin");
                broker_drop_vmm(broker);
                return USEC_INFINITY;
        }
        if (!broker->lost_usec)
                return since + BROKER_ANSWER_USEC;
        if (now >= broker->wanted_usec + BROKER_WANTED_USEC) {
                broker->wanted_usec = now;
                broker->wanted(broker->userdata);
        }
        return MIN(broker->wanted_usec + BROKER_WANTED_USEC, since + BROKER_ANSWER_USEC);
}

static void on_tick(evutil_socket_t fd, short what, void *userdata)
{
        Broker *broker = userdata;
        uint64_t now = clock_monotonic_usec();
        uint64_t next = MIN(MIN(expire_waiting(broker, now), expire_flying(broker, now)),
                            MIN(expire_server_commands(broker, now), expire_vmm(broker, now)));

        if (next != USEC_INFINITY)
                broker_wake(broker, next);
        broker_pump(broker);
}

/* ---- life ---------------------------------------------------------------------------------------------------- */

void broker_remove_path(const Broker *broker)
{
        struct stat st;

        if (broker->path && lstat(broker->path, &st) == 0 && st.st_dev == broker->dev &&
            st.st_ino == broker->ino)
                (void) unlink(broker->path);
}

void broker_set_unmap(Broker *broker, BrokerUnmap unmap)
{
        broker->unmap = unmap;
}

Broker *broker_free(Broker *broker)
{
        if (!broker)
                return NULL;
        broker->client = NULL;
        if (broker->session)
                broker_drop_vmm(broker);
        broker_remove_path(broker);
        if (broker->accept)
                event_free(broker->accept);
        if (broker->tick)
                event_free(broker->tick);
        (void) close(broker->listen_fd);
        session_free(broker->session);
        free(broker->server_text);
        free(broker->path);
        free(broker);
        return NULL;
}

DEFINE_CLEANUP(Broker *, broker_free);

int broker_new(struct event_base *base, int listen_fd, const char *path, BrokerWanted wanted, void *userdata,
               Broker **ret)
{
        _cleanup_(broker_freep) Broker *broker = calloc(1, sizeof *broker);
        struct stat st;
        int r;

        if (!broker) {
                (void) close(listen_fd);
                return -ENOMEM;
        }
        broker->base = base;
        broker->listen_fd = listen_fd;
        broker->wanted = wanted;
        broker->userdata = userdata;
        broker->waiting.last = &broker->waiting.first;
        broker->flying.last = &broker->flying.first;
        broker->path = strdup(path);
        broker->accept = event_new(base, listen_fd, EV_READ | EV_PERSIST, broker_on_accept, broker);
        broker->tick = event_new(base, -1, 0, on_tick, broker);
        r = session_new(&broker->session);
        if (r < 0 || !broker->path || !broker->accept || !broker->tick ||
            evutil_make_socket_nonblocking(listen_fd) < 0 || event_add(broker->accept, NULL) < 0)
                return -ENOMEM;
        if (lstat(path, &st) == 0) {
                broker->dev = st.st_dev;
                broker->ino = st.st_ino;
        }
        *ret = TAKE_PTR(broker);
        return 0;
}
