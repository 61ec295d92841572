/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agent.h"

#include <poll.h>
#include <stdio.h>

#include "broker.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/socket.h"
#include "program.h"
#include "vfio-device.h"

#define PROGRESS_USEC  (100 * USEC_PER_MSEC)
#define COMMANDER_MSEC 1000
#define OTHERS_MAX     (1024 * AGENT_FILES_MAX) /* files of as many devices as a VM may have */

typedef struct Waiting {
        AgentPacket packet;
        int fd;
} Waiting;

struct Agent {
        struct event_base *base;
        int listen_fd, commander_fd;
        struct event *accept, *command, *progress, *open_deadline, *next;
        ProgramPlace place;
        AgentDevice *opening;
        uint32_t open_seq;
        Program *program;
        int data_fd;
        char data_job[UUID_TEXT_MAX + 1];
        Waiting queue[AGENT_QUEUE_MAX];
        uint32_t n_queue;
        /* what a new commander is told */
        char job[UUID_TEXT_MAX + 1];
        DeviceState state;
        uint32_t flags; /* of the device that is or was there */
        uint32_t last_seq;
        int last_status;
        uint64_t bytes;
        AgentFiles said; /* to this commander */
        bool loaded, closing, gone;
        bool kernel;   /* what was opened last is a kernel VFIO device */
        bool settling; /* opened, but what the VMM had set up is still being given to the server */
};

static void next_command(Agent *agent);

/* ---- to the commander ---------------------------------------------------------------------------------------- */

static void drop_commander(Agent *agent)
{
        if (agent->command)
                event_free(agent->command);
        if (agent->commander_fd >= 0)
                (void) close(agent->commander_fd);
        agent->command = NULL;
        agent->commander_fd = -1;
}

/* A commander that is not there, or does not read, finds everything it needs in HELLO when it comes back. */
static void say(Agent *agent, AgentPacket *packet)
{
        int r;

        if (agent->commander_fd < 0)
                return;
        r = agent_packet_send(agent->commander_fd, packet, -1);
        /* It has gone. What it said before is read first, to its end: CLOSE may be the last word of one that did not wait. */
        if (r == -EPIPE || r == -ECONNRESET)
                return;
        if (r < 0) {
                log_warning(NULL, "commander does not take a packet: %s", strerror(-r));
                drop_commander(agent);
        }
}

/* What the device can, and what is with it now. */
static uint32_t current_flags(Agent *agent)
{
        if (agent->place.device)
                agent->flags = agent_device_facts(agent->place.device)->flags;
        return agent->flags | (program_place_has_memory(&agent->place) ? (uint32_t) DEVICE_HAS_DMA : 0);
}

/* What is asked for it must be known before the answer: the daemon acts on that at once. */
static void say_identity(Agent *agent)
{
        AgentPacket packet = {.identity = {.head.type = AGENT_IDENTITY}};

        if (!agent->place.device)
                return;
        packet.identity.identity = agent_device_facts(agent->place.device)->identity;
        say(agent, &packet);
}

static void say_hello(Agent *agent, uint64_t greeting)
{
        AgentPacket packet = {
                .hello = {
                        .head.type = AGENT_HELLO,
                        .opened = agent->place.device != NULL,
                        .busy = agent->program || agent->opening || agent->settling || agent->n_queue > 0,
                        .loaded = agent->loaded,
                        .broker = agent->place.broker != NULL,
                        .flags = current_flags(agent),
                        .state = (uint32_t) agent->state,
                        .last_seq = agent->last_seq,
                        .last_status = agent->last_status,
                        .offset = agent->program ? program_bytes(agent->program) : agent->bytes,
                        .greeting = greeting,
                }};

        memcpy(packet.hello.job, agent->job, sizeof packet.hello.job);
        if (agent->place.device)
                packet.hello.identity = agent_device_facts(agent->place.device)->identity;
        say(agent, &packet);
}

/* Whenever they are others than were said last. */
static void say_files(Agent *agent)
{
        AgentPacket packet = {.files = {.first = 1}};

        packet.files.n = broker_regions(agent->place.broker, packet.files.files, AGENT_FILES_MAX);
        if (packet.files.n == agent->said.n &&
            memcmp(packet.files.files, agent->said.files, sizeof agent->said.files) == 0)
                return;
        agent->said = packet.files;
        packet.head.type = AGENT_FILES;
        say(agent, &packet);
}

/* All that whoever commands from now on has to know. */
static void greet(Agent *agent, uint64_t greeting)
{
        agent->said = (AgentFiles){};
        say_hello(agent, greeting);
        say_files(agent);
}

static void take_files(Agent *agent, const AgentFiles *files)
{
        DirtyOthers *others = &agent->place.others;

        if (files->first)
                dirty_others_clear(others);
        if (others->n > OTHERS_MAX || dirty_others_add(others, files->files, files->n) < 0)
                log_error(NULL, "the files of so many devices can't be remembered");
}

static void say_result(Agent *agent, const AgentResultPacket *result)
{
        AgentPacket packet = {.result = *result};

        say_files(agent);
        packet.result.flags = current_flags(agent);
        agent->last_seq = result->seq;
        agent->last_status = result->status;
        say(agent, &packet);
}

/* There may be one for each of thousands of mappings, more than the socket holds. A commander that lives reads on, and the
 * device stands: nobody else is to be served. */
static int send_dirty(Agent *agent, AgentPacket *packet, int fd)
{
        struct pollfd poll_fd = {.fd = agent->commander_fd, .events = POLLOUT};
        int r;

        while ((r = agent_packet_send(agent->commander_fd, packet, fd)) == -EAGAIN) {
                r = poll(&poll_fd, 1, COMMANDER_MSEC);
                if (r == 0)
                        return -ETIMEDOUT;
                if (r < 0 && errno != EINTR)
                        return -errno;
        }
        return r;
}

/* Before the result of the program that has read them. */
static void say_dirty(Agent *agent)
{
        const Dirty *dirty = agent->place.dirty;

        for (uint32_t i = 0; dirty && i < dirty->n; i++) {
                AgentPacket packet = {.dirty = {.head.type = AGENT_DIRTY,
                                                .address = dirty->ranges[i].address,
                                                .page_size = dirty->page_size,
                                                .n_pages = dirty->ranges[i].n_pages}};
                _cleanup_(closep) int fd = -1;

                if (!dirty->ranges[i].any || agent->commander_fd < 0)
                        continue;
                fd = dirty_file(dirty, i);
                if (fd < 0 || send_dirty(agent, &packet, fd) < 0) {
                        log_warning(NULL, "commander cannot be given the pages that the device has written");
                        drop_commander(agent);
                }
        }
}

static void say_refused(Agent *agent, uint32_t seq, int status, const char *text)
{
        AgentResultPacket result = {
                .head.type = AGENT_RESULT, .seq = seq, .status = status, .state = (uint32_t) agent->state};

        (void) snprintf(result.text, sizeof result.text, "%s", text);
        say_result(agent, &result);
}

/* ---- the device ---------------------------------------------------------------------------------------------- */

static void drop_device(Agent *agent)
{
        program_place_clear(&agent->place);
        if (agent->place.broker)
                broker_set_device(agent->place.broker, NULL);
        agent->place.device = agent_device_free(agent->place.device);
}

/* Before it is said: whoever hears it may give the device to another VMM at once. */
static void let_go(Agent *agent)
{
        (void) current_flags(agent); /* they are kept */
        drop_device(agent);
}

/* Once it is told that the device is closed, the next agent may be started for it. */
static void make_way(const Agent *agent)
{
        if (agent->place.broker)
                broker_remove_path(agent->place.broker);
}

static void on_device_gone(void *userdata, int status, const char *text)
{
        Agent *agent = userdata;
        AgentPacket packet = {.gone = {.head.type = AGENT_GONE, .status = status}};

        /* First that it is gone, then what that means for the command: the other way round the commander would send
         * the next one to a device that is not there. */
        (void) snprintf(packet.gone.text, sizeof packet.gone.text, "%s", text);
        agent->state = DEVICE_STATE_UNKNOWN;
        agent->loaded = false;
        agent->gone = true;
        if (agent->place.broker)
                broker_set_device(agent->place.broker, NULL);
        say(agent, &packet);
        if (agent->program)
                program_device_gone(agent->program, status, text);
        else
                drop_device(agent);
}

static void on_opening_gone(void *userdata, int status, const char *text)
{
        Agent *agent = userdata;

        if (!agent->opening)
                return;
        agent->opening = agent_device_free(agent->opening);
        (void) event_del(agent->open_deadline);
        say_refused(agent, agent->open_seq, status, text);
        next_command(agent);
}

/* The same, a little later: it is open, and the VMM's memory is being given to it again. */
static void on_settling_gone(Agent *agent, int status, const char *text)
{
        agent->settling = false;
        agent->state = DEVICE_STATE_UNKNOWN;
        (void) event_del(agent->open_deadline);
        drop_device(agent);
        say_refused(agent, agent->open_seq, status, text);
        event_active(agent->next, EV_TIMEOUT, 0);
}

/* While a device is being opened its end is the end of the opening; later it is the agent's business. */
static void on_gone(void *userdata, int status, const char *text)
{
        Agent *agent = userdata;

        if (agent->opening)
                on_opening_gone(agent, status, text);
        else if (agent->settling)
                on_settling_gone(agent, status, text);
        else
                on_device_gone(agent, status, text);
}

static void on_state(void *userdata, DeviceState state, bool asked)
{
        Agent *agent = userdata;

        if (agent->place.broker)
                broker_see_state(agent->place.broker, state, asked);
}

static void begin_brokering(Agent *agent)
{
        agent_device_watch(agent->place.device, on_state, agent);
        broker_set_device(agent->place.broker, agent->place.device);
}

static void say_opened(Agent *agent)
{
        AgentResultPacket result = {
                .head.type = AGENT_RESULT, .seq = agent->open_seq, .state = (uint32_t) agent->state};

        agent->settling = false;
        (void) event_del(agent->open_deadline);
        say_identity(agent);
        say_result(agent, &result);
        event_active(agent->next, EV_TIMEOUT, 0); /* from a clean stack */
}

static void on_settled(void *userdata)
{
        Agent *agent = userdata;

        if (agent->settling)
                say_opened(agent);
}

static void on_opened(void *userdata, int status)
{
        Agent *agent = userdata;
        char text[AGENT_TEXT_MAX];

        if (status < 0) {
                (void) event_del(agent->open_deadline);
                const char *more = agent_device_explain(agent->opening);

                (void) snprintf(text, sizeof text, "the device%s refused us: %s%s%s",
                                agent->kernel ? "" : "'s server", strerror(-status), *more ? ": " : "", more);
                agent->state = DEVICE_STATE_UNKNOWN;
                say_refused(agent, agent->open_seq, status, text);
                event_active(agent->next, EV_TIMEOUT, 0); /* frees what failed */
                return;
        }
        agent->place.device = TAKE_PTR(agent->opening);
        agent->gone = false;
        agent->state = agent_device_facts(agent->place.device)->state;
        agent->loaded = false;
        if (agent->place.broker && vfio_user_device_of(agent->place.device))
                begin_brokering(agent);
        /* A device that ran before it has the VMM's memory and interrupts again would lose what it does. */
        agent->settling = agent->place.broker && !broker_is_settled(agent->place.broker);
        if (!agent->settling)
                say_opened(agent);
}

static void on_open_deadline(evutil_socket_t fd, short what, void *userdata)
{
        Agent *agent = userdata;

        if (agent->settling)
                on_settling_gone(agent, -ETIMEDOUT,
                                 "the device's server does not take again what the VMM had set up");
        else
                on_opening_gone(
                        agent, -ETIMEDOUT,
                        agent->kernel
                                ? "the kernel does not answer: does a call on this device hang in its driver?"
                                : "the device's server does not answer; is another client connected to it?");
}

static void run_open(Agent *agent, const AgentOpen *open, int fd)
{
        struct timeval tv = {(time_t) (open->deadline_usec / USEC_PER_SEC),
                             (suseconds_t) (open->deadline_usec % USEC_PER_SEC)};
        int r;

        agent->open_seq = open->seq;
        drop_device(agent);
        agent->state = DEVICE_STATE_UNKNOWN;
        agent->loaded = false;
        if (fd < 0) {
                say_refused(agent, open->seq, -EBADF, "OPEN came without a file");
                return;
        }
        agent->kernel = open->kernel;
        r = open->kernel ? vfio_device_new(agent->base, fd, open->supervised, open->memory, open->n_memory,
                                           on_gone, agent, &agent->opening)
                         : vfio_user_device_new(agent->base, fd, on_gone, agent, &agent->opening);
        if (r >= 0)
                r = agent_device_open(agent->opening, on_opened, agent);
        if (r >= 0 && event_add(agent->open_deadline, &tv) < 0)
                r = -ENOMEM;
        if (r < 0) {
                agent->opening = agent_device_free(agent->opening);
                say_refused(agent, open->seq, r, "the device cannot be opened");
        }
}

/* ---- programs ------------------------------------------------------------------------------------------------ */

static void close_data(Agent *agent)
{
        if (agent->data_fd >= 0)
                (void) close(agent->data_fd);
        agent->data_fd = -1;
        agent->data_job[0] = 0;
}

/* What was taken in whole and accepted stays `loaded` until it leaves STOP. */
static bool is_loaded(const Agent *agent, const AgentRun *run, const AgentResultPacket *result)
{
        if (result->state != DEVICE_STATE_STOP)
                return false;
        for (uint32_t i = 0; i < run->n_ops && i < result->op; i++)
                if (run->ops[i].type == DEVICE_OP_SET && run->ops[i].from == DEVICE_STATE_RESUMING)
                        return true;
        return agent->loaded;
}

static bool has_op(const AgentRun *run, DeviceOpType type)
{
        for (uint32_t i = 0; i < run->n_ops; i++)
                if (run->ops[i].type == type)
                        return true;
        return false;
}

/* The device runs on here, or again: nothing more goes over the data connection. Until then pre-copy is followed by the
 * rest, and that perhaps by pages. */
static bool leads_out(const AgentRun *run)
{
        const AgentOp *last = &run->ops[run->n_ops - 1];

        return last->type == DEVICE_OP_RESET ||
               (last->type == DEVICE_OP_SET && last->to == DEVICE_STATE_RUNNING);
}

static void on_program_end(void *userdata, const AgentResultPacket *packet)
{
        Agent *agent = userdata;
        AgentResultPacket result = *packet;
        const AgentRun run = agent->queue[0].packet.run; /* still at the head of the queue */
        bool used_data = program_used_data(agent->program);

        agent->bytes = result.bytes;
        agent->state = (DeviceState) result.state;
        agent->loaded = is_loaded(agent, &run, &result);
        for (uint32_t i = 0; i < result.op; i++)
                agent->closing |= run.ops[i].type == DEVICE_OP_CLOSE;
        agent->program = program_free(agent->program);
        (void) event_del(agent->progress);
        memmove(agent->queue, agent->queue + 1, --agent->n_queue * sizeof agent->queue[0]);
        if (agent->gone)
                drop_device(agent);
        else if (agent->closing)
                let_go(agent);
        if (result.status == 0 && has_op(&run, DEVICE_OP_DIRTY))
                say_dirty(agent);
        /* First the reason, then what others see of it: the other half gives up at once when the connection ends, and
         * what it does to the other devices must not be heard before. */
        if (agent->closing)
                make_way(agent);
        say_result(agent, &result);
        if ((used_data && result.status < 0) || leads_out(&run))
                close_data(agent);
        if (agent->closing)
                (void) event_base_loopbreak(agent->base);
        else
                next_command(agent);
}

static void on_progress(evutil_socket_t fd, short what, void *userdata)
{
        Agent *agent = userdata;
        AgentPacket packet = {.progress = {.head.type = AGENT_PROGRESS,
                                           .seq = agent->queue[0].packet.run.seq,
                                           .bytes = program_bytes(agent->program)}};

        say(agent, &packet);
}

static bool has_stream(const AgentRun *run)
{
        for (uint32_t i = 0; i < run->n_ops; i++)
                if (device_op_transfers((DeviceOpType) run->ops[i].type))
                        return true;
        return false;
}

/* Without a device there is nothing that an operation could do, but CLOSE is always possible. */
static bool only_closes(const AgentRun *run)
{
        return run->n_ops == 1 && run->ops[0].type == DEVICE_OP_CLOSE;
}

static int run_program(Agent *agent, const AgentRun *run)
{
        int r, data_fd = streq(agent->data_job, run->job) ? agent->data_fd : -1;

        memcpy(agent->job, run->job, sizeof agent->job);
        if (only_closes(run)) {
                AgentResultPacket result = {.head.type = AGENT_RESULT,
                                            .seq = run->seq,
                                            .op = 1,
                                            .state = (uint32_t) agent->state};

                let_go(agent);
                make_way(agent);
                say_result(agent, &result);
                (void) event_base_loopbreak(agent->base);
                return 0;
        }
        if (!agent->place.device)
                return -ENOTCONN;
        r = program_new(&agent->place, run, data_fd, on_program_end, agent, &agent->program);
        if (r < 0)
                return r;
        if (has_stream(run))
                (void) event_add(agent->progress, &(struct timeval){.tv_usec = PROGRESS_USEC});
        return 1;
}

/* The head of the queue is what runs; it leaves when it has ended. */
static void next_command(Agent *agent)
{
        while (agent->n_queue > 0 && !agent->program && !agent->opening && !agent->settling) {
                Waiting *head = &agent->queue[0];
                int r = 0;

                if (head->packet.head.type == AGENT_OPEN)
                        run_open(agent, &head->packet.open, TAKE_FD(head->fd));
                else
                        r = run_program(agent, &head->packet.run);
                if (r > 0)
                        return;
                if (r < 0)
                        say_refused(agent, head->packet.run.seq, r, "the device is not open");
                memmove(agent->queue, agent->queue + 1, --agent->n_queue * sizeof agent->queue[0]);
        }
}

static void on_next(evutil_socket_t fd, short what, void *userdata)
{
        Agent *agent = userdata;

        agent->opening = agent_device_free(agent->opening);
        next_command(agent);
}

/* ---- from the commander -------------------------------------------------------------------------------------- */

static void enqueue(Agent *agent, const AgentPacket *packet, int fd)
{
        if (agent->n_queue == AGENT_QUEUE_MAX) {
                if (fd >= 0)
                        (void) close(fd);
                say_refused(agent, packet->run.seq, -ENOBUFS, "too many commands wait");
                return;
        }
        agent->queue[agent->n_queue++] = (Waiting){*packet, fd};
        next_command(agent);
}

static void attach(Agent *agent, const AgentAttach *packet, int fd)
{
        if (fd < 0)
                return;
        close_data(agent);
        agent->data_fd = fd;
        memcpy(agent->data_job, packet->job, sizeof agent->data_job);
        if (agent->program && streq(agent->queue[0].packet.run.job, agent->data_job))
                program_attach(agent->program, fd);
}

static void on_wanted(void *userdata)
{
        Agent *agent = userdata;

        if (!agent->opening)
                say(agent, &(AgentPacket){.wanted = {.head.type = AGENT_WANTED}});
}

/* What the device has written there is known to its log only as long as the memory is mapped. */
static void on_unmap(void *userdata, const BrokerMap *map)
{
        Agent *agent = userdata;

        if (agent->place.dirty && agent->place.device)
                dirty_note(agent->place.dirty, agent->place.device, map, &agent->place.others);
}

static void start_broker(Agent *agent, const AgentBroker *packet, int fd)
{
        int r;

        if (fd < 0)
                return;
        if (agent->place.broker) {
                (void) close(fd);
                return;
        }
        r = broker_new(agent->base, fd, packet->path, on_wanted, agent, &agent->place.broker);
        if (r < 0) {
                log_error(NULL, "no VMM can use the device by %s: %s", packet->path, strerror(-r));
                return;
        }
        broker_set_unmap(agent->place.broker, on_unmap);
        broker_set_settled(agent->place.broker, on_settled);
        if (vfio_user_device_of(agent->place.device))
                begin_brokering(agent);
}

static void obey(Agent *agent, const AgentPacket *packet, int fd)
{
        switch ((AgentPacketType) packet->head.type) {
        case AGENT_OPEN: enqueue(agent, packet, fd); return;
        case AGENT_RUN:
                /* A call that hangs in the kernel is not waited for: nothing of it is left to be heard. */
                if (agent->kernel && only_closes(&packet->run))
                        (void) run_program(agent, &packet->run);
                else
                        enqueue(agent, packet, fd);
                return;
        case AGENT_ATTACH: attach(agent, &packet->attach, fd); return;
        case AGENT_BROKER: start_broker(agent, &packet->broker, fd); return;
        case AGENT_FILES: take_files(agent, &packet->files); break;
        case AGENT_GREET: greet(agent, packet->greet.greeting); break;
        case AGENT_STOP:
                if (agent->program)
                        program_stop(agent->program);
                break;
        case AGENT_HELLO:
        case AGENT_IDENTITY:
        case AGENT_RESULT:
        case AGENT_PROGRESS:
        case AGENT_DIRTY:
        case AGENT_WANTED:
        case AGENT_GONE: break; /* ours to send */
        }
        if (fd >= 0)
                (void) close(fd);
}

static void on_command(evutil_socket_t socket, short what, void *userdata)
{
        Agent *agent = userdata;
        AgentPacket packet;
        int fd = -1, r;

        r = agent_packet_recv(agent->commander_fd, &packet, &fd);
        if (r == -EAGAIN || r == -ECONNRESET) /* it has gone, and not read all; what it said is still there */
                return;
        if (r <= 0) {
                if (r < 0)
                        log_warning(NULL, "commander sent what is no command: %s", strerror(-r));
                drop_commander(agent);
                return;
        }
        obey(agent, &packet, fd);
}

static bool is_trusted(int fd)
{
        pid_t pid;
        uid_t uid;

        return socket_peer(fd, &pid, &uid) == 0 && (uid == 0 || uid == getuid());
}

/* A new commander displaces the old one: there is one daemon on a host, and this is the one that lives. */
static void on_accept(evutil_socket_t socket, short what, void *userdata)
{
        Agent *agent = userdata;
        int fd = accept4(agent->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd < 0)
                return;
        if (!is_trusted(fd)) {
                (void) close(fd);
                return;
        }
        drop_commander(agent);
        agent->commander_fd = fd;
        agent->command = event_new(agent->base, fd, EV_READ | EV_PERSIST, on_command, agent);
        if (!agent->command || event_add(agent->command, NULL) < 0) {
                drop_commander(agent);
                return;
        }
        greet(agent, 0);
}

/* ---- life ---------------------------------------------------------------------------------------------------- */

Agent *agent_free(Agent *agent)
{
        struct event *events[] = {agent ? agent->accept : NULL, agent ? agent->progress : NULL,
                                  agent ? agent->open_deadline : NULL, agent ? agent->next : NULL};

        if (!agent)
                return NULL;
        drop_commander(agent);
        program_free(agent->program);
        drop_device(agent);
        agent_device_free(agent->opening);
        broker_free(agent->place.broker); /* behind the device, whose calls are the broker's too */
        dirty_others_clear(&agent->place.others);
        close_data(agent);
        for (size_t i = 0; i < ARRAY_SIZE(events); i++)
                if (events[i])
                        event_free(events[i]);
        for (uint32_t i = 0; i < agent->n_queue; i++)
                if (agent->queue[i].fd >= 0)
                        (void) close(agent->queue[i].fd);
        (void) close(agent->listen_fd);
        free(agent);
        return NULL;
}

DEFINE_CLEANUP(Agent *, agent_free);

int agent_new(struct event_base *base, int listen_fd, Agent **ret)
{
        _cleanup_(agent_freep) Agent *agent = calloc(1, sizeof *agent);

        if (!agent)
                return -ENOMEM;
        agent->base = agent->place.base = base;
        agent->listen_fd = listen_fd;
        agent->commander_fd = agent->data_fd = -1;
        agent->state = DEVICE_STATE_UNKNOWN;
        agent->accept = event_new(base, listen_fd, EV_READ | EV_PERSIST, on_accept, agent);
        agent->progress = event_new(base, -1, EV_PERSIST, on_progress, agent);
        agent->open_deadline = event_new(base, -1, 0, on_open_deadline, agent);
        agent->next = event_new(base, -1, 0, on_next, agent);
        if (!agent->accept || !agent->progress || !agent->open_deadline || !agent->next ||
            event_add(agent->accept, NULL) < 0)
                return -ENOMEM;
        *ret = TAKE_PTR(agent);
        return 0;
}
