/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "device.h"

#include <openssl/evp.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/socket.h"
#include "common/sysfs-device.h"
#include "daemon/identity.h"

/* Starting an agent and hearing its HELLO; the device's server has its own time. */
#define AGENT_USEC (3 * USEC_PER_SEC)
/* A kernel device's agent that was killed lives on, deaf, for as long as its call hangs in the kernel: with its sockets. And a
 * connection that was parked may lead to anything. */
#define HELLO_USEC USEC_PER_SEC
/* Whoever had the device before lets it go in a moment: an agent that ends, or a VMM. */
#define BUSY_USEC  (50 * USEC_PER_MSEC)
#define BUSY_TRIES 20

typedef enum Opening {
        OPENING_NOT,
        OPENING_AGENT,   /* the helper starts one */
        OPENING_HELLO,   /* it is connected, and has not said anything yet */
        OPENING_BUSY,    /* it still does what a daemon before us asked of it */
        OPENING_BROKER,  /* the helper makes a socket for the VMM */
        OPENING_CONNECT, /* the helper connects to the device's server, or opens or duplicates its file */
        OPENING_FIND,    /* the VMM is asked where its device is */
        OPENING_DEVICE,  /* the agent talks to the device's server, or the kernel */
} Opening;

struct Device {
        DevicePlace place;
        char vm[UUID_TEXT_MAX + 1];
        DeviceDefinition definition;
        uint32_t index;
        const DeviceListener *listener;
        void *userdata;

        char agent_path[SOCKET_PATH_MAX + 1];
        int agent_fd;
        LoopIo *agent_io;
        int parked_fd; /* a connection that a daemon before us has left; -1: none, or it is in use */
        uint64_t
                greeting; /* the GREET whose answer is waited for; 0: it is a new connection, and greets us */
        Opening opening;
        bool tried_agent; /* in this opening one was started already */
        LoopTimer *timer; /* of the opening */
        LoopTimer *
                hello_timer; /* until an agent that was found says something: kernel, or a parked connection */
        LoopTimer *busy_timer; /* until what somebody else has is tried again */
        uint32_t busy_tries;
        LoopTimer *already_timer; /* it was open when somebody asked for it */
        DeviceOpened opened;
        void *opened_userdata;

        bool is_open;
        uint64_t opened_usec;
        bool has_broker;     /* the agent listens for the VMM */
        bool nobody_listens; /* where its server should; as of the last attempt */
        int open_status;     /* what came of the last attempt to open it */
        bool lacks_agent;    /* the last attempt did not come as far as to its server */
        DeviceState state;
        uint32_t flags;
        char text[AGENT_TEXT_MAX];
        char quarantine[AGENT_TEXT_MAX];
        bool supervised;
        char sysfs[VMM_SYSFS_MAX + 1]; /* kernel */
        ManifestDevice known;          /* ids and facts: what sysfs says */
        DeviceIdentity identity;       /* ... and the device itself, when it was opened last */
        char loaded_job[UUID_TEXT_MAX + 1];
        AgentFiles files; /* of its memory, that its VMM was given */

        uint32_t n_unanswered; /* commands of this connection */
        uint32_t seq;          /* of the last command sent */
        uint32_t open_seq;     /* ... of the last OPEN */
        uint32_t step;
        uint32_t run_seq;  /* of the command whose answer is waited for, or 0 */
        bool closing;      /* that command lets go of the device */
        uint64_t due_usec; /* when the agent should have said something; 0: nothing was asked */
        DeviceAnswered answered;
        void *answered_userdata;
        AgentResultPacket own; /* an answer that we give ourselves */
        LoopTimer *own_timer;
};

static void open_step(Device *device);
static void on_agent(void *userdata);

/* ---- small things -------------------------------------------------------------------------------------------- */

const char *device_id(const Device *device)
{
        return device->definition.id;
}

DeviceType device_type(const Device *device)
{
        return device->definition.type;
}

bool device_is_supervised(const Device *device)
{
        return device->supervised;
}

const char *device_sysfs(const Device *device)
{
        return device->sysfs;
}

const DeviceIdentity *device_identity(const Device *device)
{
        return &device->identity;
}

const ManifestDevice *device_known(const Device *device)
{
        return &device->known;
}

bool device_is_open(const Device *device)
{
        return device->is_open;
}

uint64_t device_opened_usec(const Device *device)
{
        return device->opened_usec;
}

bool device_is_opening(const Device *device)
{
        return device->opening != OPENING_NOT;
}

DeviceState device_state(const Device *device)
{
        return device->state;
}

bool device_nobody_listens(const Device *device)
{
        return device->nobody_listens;
}

bool device_is_forbidden(const Device *device)
{
        return device->open_status == -EPERM || device->open_status == -EACCES;
}

bool device_lacks_agent(const Device *device)
{
        return device->lacks_agent;
}

/* What kind it is, is known before it is opened. */
uint32_t device_flags(const Device *device)
{
        uint32_t flags = device->flags;

        if (device->definition.type == DEVICE_TYPE_VFIO)
                flags |= DEVICE_KERNEL;
        return device->supervised ? flags | DEVICE_SUPERVISED : flags;
}

void device_set_quarantine(Device *device, const char *text)
{
        (void) snprintf(device->quarantine, sizeof device->quarantine, "%s", text);
        device->listener->changed(device->userdata, device->index);
}

const char *device_quarantine(const Device *device)
{
        return device->quarantine;
}

const char *device_text(const Device *device)
{
        return device->text;
}

bool device_is_loaded(const Device *device, const char *job)
{
        return device->is_open && device->state == DEVICE_STATE_STOP && streq(device->loaded_job, job);
}

static LogAbout about(const Device *device)
{
        return (LogAbout){.vm = device->vm, .device = device->definition.id};
}

static void set_text(Device *device, const char *text)
{
        (void) snprintf(device->text, sizeof device->text, "%s", text);
}

static void set_state(Device *device, DeviceState state, uint32_t flags)
{
        bool changed = device->state != state || device->flags != flags;

        device->state = state;
        device->flags = flags;
        if (changed)
                device->listener->changed(device->userdata, device->index);
}

/* ---- the agent's socket -------------------------------------------------------------------------------------- */

static void drop_agent(Device *device)
{
        device->agent_io = loop_io_free(device->agent_io);
        if (device->agent_fd >= 0)
                parking_end(device->place.parking, device->agent_fd);
        device->agent_fd = -1;
        device->is_open = device->has_broker = false;
        device->loaded_job[0] = 0;
        device->due_usec = 0;
        if (device->hello_timer)
                loop_timer_set(device->hello_timer, 0);
}

static int take_connection(Device *device, int fd)
{
        int r = loop_io_new(device->place.loop, fd, on_agent, NULL, device, &device->agent_io);

        if (r < 0) {
                parking_end(device->place.parking, fd);
                return r;
        }
        device->agent_fd = fd;
        device->n_unanswered = 0;
        return 0;
}

static_assert(sizeof(AgentHelloPacket) <= PARKING_NOTE_MAX, "a HELLO fits a note");

/* The HELLO that the agent would say if it was asked, for the next daemon, which need not ask then. There is none while it does
 * something, and none if there is more to say: what it has loaded, or its files. */
static void note_agent(const Device *device)
{
        AgentHelloPacket hello = {.head = {AGENT_MAGIC, AGENT_HELLO},
                                  .opened = 1,
                                  .broker = device->has_broker,
                                  .flags = device->flags,
                                  .state = (uint32_t) device->state,
                                  .identity = device->identity};

        if (device->agent_fd >= 0 && device->is_open && device->opening == OPENING_NOT &&
            device->n_unanswered == 0 && device->state == DEVICE_STATE_RUNNING && device->files.n == 0)
                parking_note(device->place.parking, device->agent_fd, &hello, sizeof hello);
}

/* On a connection that is not new. What is on its way there was said to somebody else: only the answer to this is for us. */
static int greet_agent(Device *device)
{
        AgentPacket packet = {.greet = {.head.type = AGENT_GREET}};

        packet.greet.greeting = device->greeting = parking_number(device->place.parking);
        device->n_unanswered = 0; /* HELLO says whether anything is left of what was asked before */
        return agent_packet_send(device->agent_fd, &packet, -1);
}

/* By the connection that was parked, or by a new one. */
static int connect_agent(Device *device)
{
        int fd = TAKE_FD(device->parked_fd);

        if (fd >= 0 && take_connection(device, fd) == 0) {
                if (greet_agent(device) == 0)
                        return 0;
                drop_agent(device);
        }
        fd = socket_connect(device->agent_path, SOCK_SEQPACKET);
        device->greeting = 0;
        return fd < 0 ? fd : take_connection(device, fd);
}

/* A command that was under way is not answered: `gone` says it all. */
static void agent_gone(Device *device, int status, const char *text)
{
        bool was_opening = device->opening != OPENING_NOT;

        drop_agent(device);
        device->run_seq = 0;
        set_text(device, text);
        set_state(device, DEVICE_STATE_UNKNOWN, device->flags);
        if (was_opening) {
                open_step(device);
                return;
        }
        device->listener->gone(device->userdata, device->index, status, text);
}

/* It was told to end, and ends. */
static void agent_closed(Device *device)
{
        drop_agent(device);
        (void) unlink(device->agent_path);
        set_text(device, "");
        set_state(device, DEVICE_STATE_UNKNOWN, device->flags);
}

static int send_packet(Device *device, AgentPacket *packet, int fd)
{
        int r = -ENOTCONN;

        if (device->agent_fd >= 0) {
                parking_forget(device->place.parking, device->agent_fd);
                device->n_unanswered += packet->head.type == AGENT_OPEN || packet->head.type == AGENT_RUN;
                r = agent_packet_send(device->agent_fd, packet, fd);
        }
        if (r < 0) {
                LogAbout a = about(device);

                log_warning(&a, "agent does not take a command: %s", strerror(-r));
        }
        return r;
}

static void tell_to_close(Device *device)
{
        AgentPacket packet = {.run = {.head.type = AGENT_RUN,
                                      .seq = ++device->seq,
                                      .n_ops = 1,
                                      .ops = {{.type = DEVICE_OP_CLOSE}}}};

        memcpy(packet.run.job, device->vm, sizeof packet.run.job); /* any UUID will do */
        (void) send_packet(device, &packet, -1);
}

/* It says nothing, and perhaps never will: another one takes its place, and it ends when its call does, or at once if it was
 * only slow. Nobody could find it any more. */
static void leave_agent(Device *device)
{
        LogAbout a = about(device);

        log_warning(&a,
                    "its agent does not answer and is left alone: a call on the device hangs in the kernel");
        tell_to_close(device);
        drop_agent(device);
        (void) unlink(device->agent_path);
}

/* ---- opening ------------------------------------------------------------------------------------------------- */

static void opened_well(Device *device)
{
        device->is_open = true;
        device->open_status = 0;
        device->opened_usec = clock_monotonic_usec();
        set_text(device, "");
}

static void opening_done(Device *device, int status, const char *text)
{
        DeviceOpened opened = device->opened;

        device->lacks_agent = status < 0 && device->opening != OPENING_NOT &&
                              (device->opening < OPENING_CONNECT ||
                               (device->opening == OPENING_CONNECT && status == -ETIMEDOUT));
        device->opening = OPENING_NOT;
        device->opened = NULL;
        loop_timer_set(device->timer, 0);
        loop_timer_set(device->hello_timer, 0);
        loop_timer_set(device->busy_timer, 0);
        helper_client_forget(device->place.helper, device);
        vmm_forget_device(device->place.vmm, device);
        if (status == 0) {
                opened_well(device);
        } else {
                device->is_open = false;
                device->open_status = status;
                set_text(device, text);
                set_state(device, DEVICE_STATE_UNKNOWN, device->flags);
        }
        note_agent(device);
        if (opened)
                opened(device->opened_userdata, device->index, status, text);
}

static void on_opening_timer(void *userdata)
{
        static const char *const texts[] = {
                [OPENING_NOT] = "it was not opened",
                [OPENING_AGENT] = "no agent: migmgr-helper does not answer",
                [OPENING_HELLO] = "its agent does not answer",
                [OPENING_BUSY] = "its agent is still busy with what it was asked before the daemon restarted",
                [OPENING_BROKER] = "no socket for its VMM: migmgr-helper does not answer",
                [OPENING_CONNECT] = "migmgr-helper does not answer",
                [OPENING_FIND] = "its VMM does not say where it is",
                [OPENING_DEVICE] = "its server does not answer",
        };
        Device *device = userdata;
        const char *text = texts[device->opening];
        /* A live agent would have said so itself. */
        bool deaf = device->definition.type == DEVICE_TYPE_VFIO && device->opening == OPENING_DEVICE;

        if (deaf)
                text = "its agent does not answer";
        opening_done(device, -ETIMEDOUT, text);
        if (deaf)
                leave_agent(device);
}

static void on_hello_timer(void *userdata)
{
        Device *device = userdata;

        if (device->opening != OPENING_HELLO)
                return;
        if (device->greeting != 0)
                drop_agent(device);
        else
                leave_agent(device);
        open_step(device);
}

/* ---- a kernel device ----------------------------------------------------------------------------------------- */

void device_look(Device *device)
{
        manifest_device_forget(&device->known);
        if (identity_read_sysfs("/sys", device->sysfs, &device->known) < 0)
                out_of_memory();
}

/* A file of the device's own (not one by its group) says whose it is. */
static void find_sysfs(Device *device, int fd)
{
        static const char *const buses[] = {"mdev", "pci"};
        char path[PATH_MAX], real[PATH_MAX];
        const char *name;
        struct stat st;

        device->sysfs[0] = 0;
        if (fstat(fd, &st) < 0 || !S_ISCHR(st.st_mode))
                return;
        (void) snprintf(path, sizeof path, "/sys/dev/char/%u:%u/device", major(st.st_rdev),
                        minor(st.st_rdev));
        name = realpath(path, real) ? strrchr(real, '/') : NULL;
        for (size_t i = 0; i < ARRAY_SIZE(buses) && name && !device->sysfs[0]; i++) {
                (void) snprintf(path, sizeof path, "/sys/bus/%s/devices%.200s", buses[i], name);
                if (sysfs_device_is_valid(path) && access(path, F_OK) == 0)
                        (void) snprintf(device->sysfs, sizeof device->sysfs, "%.255s", path);
        }
}

static void give_file(Device *device, int fd, const DeviceMemory *memory, uint32_t n_memory)
{
        AgentPacket packet = {.open = {.head.type = AGENT_OPEN,
                                       .seq = ++device->seq,
                                       .kernel = device->definition.type == DEVICE_TYPE_VFIO,
                                       .supervised = device->supervised,
                                       .n_memory = n_memory,
                                       .deadline_usec = device->place.connect_usec}};
        int r;

        if (n_memory > 0)
                memcpy(packet.open.memory, memory, n_memory * sizeof *memory);
        device->opening = OPENING_DEVICE;
        device->open_seq = packet.open.seq;
        r = send_packet(device, &packet, fd);
        (void) close(fd);
        if (r < 0)
                opening_done(device, r, "its agent does not take commands");
}

static void on_file(void *userdata, int status, int fd, pid_t pid, const char *text)
{
        Device *device = userdata;
        LogAbout a = about(device);

        if (status == -EBUSY && device->busy_tries++ < BUSY_TRIES) {
                loop_timer_set(device->busy_timer, BUSY_USEC);
                return;
        }
        if (status == 0 && fd < 0)
                status = -EBADF;
        if (status < 0) {
                if (fd >= 0)
                        (void) close(fd);
                opening_done(device, status, text);
                return;
        }
        device_look(device);
        log_info(&a, "%s: %s", device->sysfs, text);
        give_file(device, fd, NULL, 0);
}

static void on_found(void *userdata, int status, const VmmDevice *found, const char *text)
{
        Device *device = userdata;
        char pid[16], start[32], full[AGENT_TEXT_MAX];
        const char *strings[] = {pid, start, found ? found->process.boot : NULL, device->sysfs};

        if (status < 0) {
                (void) snprintf(full, sizeof full, "\"%s\" of its VMM: %s", device->definition.vmm_device,
                                text);
                opening_done(device, status, full);
                return;
        }
        if (found->fd >= 0) {
                find_sysfs(device, found->fd);
                device_look(device);
                give_file(device, found->fd, found->memory, found->n_memory);
                return;
        }
        memcpy(device->sysfs, found->sysfs, sizeof device->sysfs);
        (void) snprintf(pid, sizeof pid, "%d", (int) found->process.pid);
        (void) snprintf(start, sizeof start, "%llu", (unsigned long long) found->process.start);
        device->opening = OPENING_CONNECT;
        helper_client_ask(device->place.helper, HELPER_DUPLICATE, strings, 4, on_file, device);
}

/* The VMM has it, or nobody: then it is opened. */
static void open_kernel(Device *device)
{
        const char *sysfs[] = {device->definition.sysfs};

        if (device->definition.vmm_device[0]) {
                device->opening = OPENING_FIND;
                vmm_find_device(device->place.vmm, device->definition.vmm_device, on_found, device);
                return;
        }
        device->opening = OPENING_CONNECT;
        memcpy(device->sysfs, device->definition.sysfs, sizeof device->sysfs);
        helper_client_ask(device->place.helper, HELPER_OPEN_VFIO, sysfs, 1, on_file, device);
}

static void on_busy_timer(void *userdata)
{
        Device *device = userdata;

        if (device->opening == OPENING_CONNECT)
                open_kernel(device);
        else if (device->opening == OPENING_BROKER || device->opening == OPENING_AGENT)
                open_step(device);
}

/* ---- a device behind a server -------------------------------------------------------------------------------- */

static void on_device_connected(void *userdata, int status, int fd, pid_t pid, const char *text)
{
        Device *device = userdata;
        char full[AGENT_TEXT_MAX];

        device->nobody_listens = status == -ECONNREFUSED || status == -ENOENT;
        if (status < 0) {
                (void) snprintf(full, sizeof full, "%s: %s", device->definition.socket, text);
                opening_done(device, status, full);
                return;
        }
        give_file(device, fd, NULL, 0);
}

static void on_broker_made(void *userdata, int status, int fd, pid_t pid, const char *text)
{
        Device *device = userdata;
        AgentPacket packet = {.broker = {.head.type = AGENT_BROKER}};
        char full[AGENT_TEXT_MAX];
        int r;

        /* The agent before this one was told to end, and may be about to. */
        if (status == -EADDRINUSE && device->busy_tries++ < BUSY_TRIES) {
                loop_timer_set(device->busy_timer, BUSY_USEC);
                return;
        }
        if (status < 0 || fd < 0) {
                (void) snprintf(full, sizeof full, "%s: %s", device->definition.broker, text);
                opening_done(device, status < 0 ? status : -EBADF, full);
                return;
        }
        memcpy(packet.broker.path, device->definition.broker, sizeof packet.broker.path);
        r = send_packet(device, &packet, fd);
        (void) close(fd);
        if (r < 0) {
                opening_done(device, r, "its agent does not take commands");
                return;
        }
        device->has_broker = true;
        open_step(device);
}

static void on_agent_started(void *userdata, int status, int fd, pid_t pid, const char *text)
{
        Device *device = userdata;
        char full[AGENT_TEXT_MAX];

        if (fd >= 0)
                (void) close(fd);
        /* Who listens there may be one that was never told to begin, and ends: then it is started anew. */
        if (status == -EADDRINUSE && device->busy_tries++ < BUSY_TRIES) {
                device->tried_agent = false;
                loop_timer_set(device->busy_timer, BUSY_USEC);
                return;
        }
        if (status < 0 && status != -EADDRINUSE) {
                (void) snprintf(full, sizeof full, "no agent: %s", text);
                opening_done(device, status, full);
                return;
        }
        open_step(device);
}

/* The next thing that is missing. */
static void open_step(Device *device)
{
        const char *start[] = {device->agent_path, device->definition.id};
        const char *listen[] = {device->definition.broker, device->definition.socket};
        const char *connect[] = {device->definition.socket};

        if (device->agent_fd < 0) {
                if (connect_agent(device) == 0) {
                        device->opening = OPENING_HELLO;
                        /* One that was started just now may take its time. */
                        if (device->greeting != 0 ||
                            (device->definition.type == DEVICE_TYPE_VFIO && !device->tried_agent))
                                loop_timer_set(device->hello_timer, HELLO_USEC);
                        return;
                }
                if (device->tried_agent) {
                        opening_done(device, -ECONNREFUSED, "its agent has ended");
                        return;
                }
                device->tried_agent = true;
                device->opening = OPENING_AGENT;
                helper_client_ask(device->place.helper, HELPER_START_AGENT, start, 2, on_agent_started,
                                  device);
                return;
        }
        if (device->definition.broker[0] && !device->has_broker) {
                device->opening = OPENING_BROKER;
                helper_client_ask(device->place.helper, HELPER_LISTEN, listen, 2, on_broker_made, device);
                return;
        }
        if (device->definition.type == DEVICE_TYPE_VFIO) {
                open_kernel(device);
                return;
        }
        device->opening = OPENING_CONNECT;
        helper_client_ask(device->place.helper, HELPER_CONNECT_DEVICE, connect, 1, on_device_connected,
                          device);
}

static void give_time(Device *device)
{
        loop_timer_set(device->timer, AGENT_USEC + device->place.connect_usec);
}

static void begin_opening(Device *device, DeviceOpened opened, void *userdata)
{
        device->opened = opened;
        device->opened_userdata = userdata;
        device->tried_agent = device->nobody_listens = false;
        device->busy_tries = 0;
        give_time(device);
        open_step(device);
}

static void on_already(void *userdata)
{
        Device *device = userdata;
        DeviceOpened opened = device->opened;

        device->opened = NULL;
        if (opened)
                opened(device->opened_userdata, device->index, device->is_open ? 0 : -ENOTCONN, device->text);
}

void device_open(Device *device, DeviceOpened opened, void *userdata)
{
        if (!device->is_open && device->opening == OPENING_NOT) {
                begin_opening(device, opened, userdata);
                return;
        }
        /* Who asks while it is being opened takes the place of who asked before, and has all the time that he would have
         * had alone. */
        device->opened = opened;
        device->opened_userdata = userdata;
        if (device->opening == OPENING_NOT)
                loop_timer_soon(device->already_timer);
        else
                give_time(device);
}

/* ---- what the agent says ------------------------------------------------------------------------------------- */

/* It holds the device, and does nothing. */
static void take_open(Device *device, const AgentHelloPacket *hello)
{
        device->identity = hello->identity;
        device->has_broker = hello->broker;
        device->loaded_job[0] = 0;
        if (hello->loaded)
                memcpy(device->loaded_job, hello->job, sizeof device->loaded_job);
        set_state(device, (DeviceState) hello->state, hello->flags & DEVICE_FLAGS_MASK);
}

static void take_hello(Device *device, const AgentHelloPacket *hello)
{
        if (device->opening != OPENING_HELLO || hello->greeting != device->greeting)
                return;
        loop_timer_set(device->hello_timer, 0);
        if (hello->greeting == 0)
                parking_put(device->place.parking, device->agent_fd);
        device->files.n = 0;
        if (hello->busy) {
                /* Whatever it does was asked by a daemon that is no more: nothing can be decided before it has ended, and
                 * nothing that is decided then needs it. Its RESULT will come here. */
                device->opening = OPENING_BUSY;
                (void) send_packet(device, &(AgentPacket){.stop = {.head.type = AGENT_STOP}}, -1);
                return;
        }
        if (!hello->opened) {
                device->has_broker = hello->broker;
                open_step(device);
                return;
        }
        take_open(device, hello);
        opening_done(device, 0, "");
}

static void take_result(Device *device, const AgentResultPacket *result)
{
        device->n_unanswered -= device->n_unanswered > 0;
        if (device->opening == OPENING_BUSY) {
                /* An old command has ended. A new greeting tells what came of it. */
                device->opening = OPENING_HELLO;
                if (greet_agent(device) < 0)
                        agent_gone(device, -EIO, "its agent does not take commands");
                return;
        }
        if (device->opening == OPENING_DEVICE && result->seq == device->open_seq) {
                if (result->status == 0)
                        set_state(device, (DeviceState) result->state, result->flags & DEVICE_FLAGS_MASK);
                opening_done(device, result->status, result->text);
                return;
        }
        if (device->run_seq == 0 || result->seq != device->run_seq)
                return; /* of a command that was given up for a newer one, or of none */
        device->run_seq = 0;
        if (device->closing && result->status == 0)
                agent_closed(device);
        else /* an agent that never had the device knows nothing of it */
                set_state(device, (DeviceState) result->state,
                          result->flags ? result->flags & DEVICE_FLAGS_MASK : device->flags);
        note_agent(device);
        device->answered(device->answered_userdata, device->index, device->step, result);
}

static void take_packet(Device *device, const AgentPacket *packet, int *fd)
{
        /* Whatever comes before it was said to a daemon before us. */
        if (device->opening == OPENING_HELLO && packet->head.type != AGENT_HELLO)
                return;
        switch ((AgentPacketType) packet->head.type) {
        case AGENT_HELLO: take_hello(device, &packet->hello); break;
        case AGENT_RESULT: take_result(device, &packet->result); break;
        case AGENT_PROGRESS:
                device->listener->progress(device->userdata, device->index, packet->progress.bytes);
                break;
        case AGENT_DIRTY:
                if (device->run_seq != 0)
                        device->listener->dirty(device->userdata, device->index, &packet->dirty,
                                                TAKE_FD(*fd));
                break;
        case AGENT_GONE:
                device->is_open = false;
                set_text(device, packet->gone.text);
                set_state(device, DEVICE_STATE_UNKNOWN, device->flags);
                device->listener->gone(device->userdata, device->index, packet->gone.status,
                                       packet->gone.text);
                break;
        case AGENT_IDENTITY:
                device->identity = packet->identity.identity;
                note_agent(device);
                break;
        case AGENT_WANTED: device->listener->wanted(device->userdata, device->index); break;
        case AGENT_FILES: device->files = packet->files; break;
        case AGENT_BROKER:
        case AGENT_GREET:
        case AGENT_OPEN:
        case AGENT_ATTACH:
        case AGENT_RUN:
        case AGENT_STOP: break; /* ours to say */
        }
}

static void on_agent(void *userdata)
{
        Device *device = userdata;
        _cleanup_(closep) int fd = -1;
        AgentPacket packet;
        int r;

        parking_forget(device->place.parking,
                       device->agent_fd); /* before it has been read: nobody could read it again */
        r = agent_packet_recv(device->agent_fd, &packet, &fd);
        if (r == -EAGAIN) {
                note_agent(device);
                return;
        }
        device->due_usec = 0;
        if (r > 0 && packet.head.type == AGENT_DIRTY && fd < 0)
                agent_gone(device, -EMFILE, "no descriptor is left for the pages that it has written");
        else if (r > 0)
                take_packet(device, &packet, &fd);
        else if (r == 0)
                agent_gone(device, -ECONNRESET, "its agent is gone");
        else
                agent_gone(device, r, "its agent said what makes no sense");
}

/* ---- what was noted of it ------------------------------------------------------------------------------------- */

/* Where the daemon before us had nothing under way, and the agent has said nothing since. */
void device_recall(Device *device)
{
        AgentPacket note;

        if (device->is_open || device->opening != OPENING_NOT || device->parked_fd < 0 ||
            !parking_noted(device->place.parking, device->parked_fd, &note.hello, sizeof note.hello) ||
            note.head.magic != AGENT_MAGIC || note.head.type != AGENT_HELLO || !agent_packet_is_sane(&note) ||
            !note.hello.opened || take_connection(device, TAKE_FD(device->parked_fd)) < 0)
                return;
        take_open(device, &note.hello);
        opened_well(device);
        note_agent(device);
}

/* ---- commands ------------------------------------------------------------------------------------------------ */

static void on_own_answer(void *userdata)
{
        Device *device = userdata;

        if (device->answered)
                device->answered(device->answered_userdata, device->index, device->step, &device->own);
}

static void answer_ourselves(Device *device, int status, const char *text)
{
        device->own = (AgentResultPacket){.status = status,
                                          .op = status == 0 ? 1 : 0,
                                          .state = (uint32_t) device->state,
                                          .flags = device->flags};
        (void) snprintf(device->own.text, sizeof device->own.text, "%s", text);
        loop_timer_soon(device->own_timer);
}

void device_tell_others(Device *device, Device *const *all, uint32_t n)
{
        AgentPacket packet = {.files = {.first = 1}};
        AgentFiles *files = &packet.files;

        for (uint32_t i = 0; i < n; i++)
                for (uint32_t k = 0; all[i] != device && k < all[i]->files.n; k++) {
                        files->files[files->n++] = all[i]->files.files[k];
                        if (files->n < AGENT_FILES_MAX)
                                continue;
                        files->head.type = AGENT_FILES;
                        (void) send_packet(device, &packet, -1);
                        packet = (AgentPacket){};
                }
        files->head.type = AGENT_FILES;
        (void) send_packet(device, &packet, -1);
}

static void on_reopened(void *userdata, uint32_t index, int status, const char *text);

/* A kernel device that is open is not opened twice: its agent says how it is, as soon as the kernel lets it. One that is
 * past its time is another matter. */
static bool needs_only_a_look(Device *device)
{
        if (device->definition.type != DEVICE_TYPE_VFIO || !device->is_open || device->opening != OPENING_NOT)
                return false;
        if (device->due_usec == 0 || clock_monotonic_usec() <= device->due_usec)
                return true;
        leave_agent(device);
        return false;
}

/* A connection that seems to be there is of no use any more: the agent lets it go when it is given the new one. */
static void reopen(Device *device)
{
        device->is_open = false;
        if (device->agent_fd >= 0 && device->opening == OPENING_NOT)
                (void) send_packet(device, &(AgentPacket){.stop = {.head.type = AGENT_STOP}}, -1);
        device_open(device, on_reopened, device);
}

static void on_reopened(void *userdata, uint32_t index, int status, const char *text)
{
        answer_ourselves(userdata, status, text);
}

void device_run(Device *device, const char *job, const DeviceProgram *program, const TransferLimits *limits,
                uint64_t deadline_usec, bool interrupt, uint32_t step, DeviceAnswered answered,
                void *userdata)
{
        static const DeviceProgram look = {.n = 1, .ops = {{.type = DEVICE_OP_GET}}};
        AgentPacket stop = {.stop = {.head.type = AGENT_STOP}};
        AgentPacket packet = {.run = {.head.type = AGENT_RUN,
                                      .seq = ++device->seq,
                                      .deadline_usec = deadline_usec,
                                      .limits = *limits}};
        int r;

        device->step = step;
        device->answered = answered;
        device->answered_userdata = userdata;
        device->run_seq = 0;
        device->closing = program->ops[program->n - 1].type == DEVICE_OP_CLOSE;
        loop_timer_set(device->own_timer, 0);
        if (program->n == 1 && program->ops[0].type == DEVICE_OP_REOPEN) {
                if (!needs_only_a_look(device)) {
                        reopen(device);
                        return;
                }
                device_look(device);
                program = &look;
        }
        if (device->agent_fd < 0 && program->n == 1 && program->ops[0].type == DEVICE_OP_CLOSE) {
                answer_ourselves(device, 0, "");
                return;
        }
        memcpy(packet.run.job, job, sizeof packet.run.job);
        packet.run.n_ops = program->n;
        for (uint32_t i = 0; i < program->n; i++)
                packet.run.ops[i] = (AgentOp){.type = (uint8_t) program->ops[i].type,
                                              .from = (uint8_t) program->ops[i].from,
                                              .to = (uint8_t) program->ops[i].to};
        if (interrupt)
                (void) send_packet(device, &stop, -1);
        r = send_packet(device, &packet, -1);
        if (r < 0)
                answer_ourselves(device, r,
                                 device->text[0] ? device->text : "its agent does not take commands");
        else
                device->run_seq = device->seq;
        if (r >= 0 && deadline_usec > 0 && device->due_usec == 0)
                device->due_usec = clock_monotonic_usec() + deadline_usec + HELLO_USEC;
}

void device_forget(Device *device)
{
        device->run_seq = 0;
        device->answered = NULL;
        device->opened = NULL;
        loop_timer_set(device->own_timer, 0);
}

void device_forget_asker(Device *device, const void *userdata)
{
        if (device->answered_userdata != userdata)
                return;
        device->run_seq = 0;
        device->answered = NULL;
        loop_timer_set(device->own_timer, 0);
}

void device_attach(Device *device, const char *job, int fd)
{
        AgentPacket packet = {.attach = {.head.type = AGENT_ATTACH}};

        memcpy(packet.attach.job, job, sizeof packet.attach.job);
        (void) send_packet(device, &packet, fd); /* a SEND without it says so */
        (void) close(fd);
}

void device_close(Device *device)
{
        device_forget(device);
        if (device->opening != OPENING_NOT)
                opening_done(device, -ECANCELED, "closed");
        if (device->agent_fd >= 0 || connect_agent(device) == 0)
                tell_to_close(device);
        agent_closed(device);
}

/* ---- life ---------------------------------------------------------------------------------------------------- */

/* The socket's name must not grow with the names of VM and device, and must be found again after a restart. */
static int agent_path(char ret[SOCKET_PATH_MAX + 1], const char *runtime_dir, const char *vm, const char *id)
{
        char text[UUID_TEXT_MAX + DEVICE_ID_MAX + 2], key[AGENT_KEY_MAX + 1];
        unsigned char digest[EVP_MAX_MD_SIZE];

        (void) snprintf(text, sizeof text, "%s/%s", vm, id);
        if (EVP_Digest(text, strlen(text), digest, NULL, EVP_sha256(), NULL) != 1)
                return -ENOMEM;
        for (size_t i = 0; i < AGENT_KEY_MAX; i++)
                key[i] = "0123456789abcdef"[i % 2 ? digest[i / 2] & 0xf : digest[i / 2] >> 4];
        key[AGENT_KEY_MAX] = 0;
        if (snprintf(ret, SOCKET_PATH_MAX + 1, "%s/agent/%s.sock", runtime_dir, key) > SOCKET_PATH_MAX)
                return -ENAMETOOLONG;
        return 0;
}

/* For the next daemon, if they are parked. */
static void leave_connections(Device *device)
{
        loop_io_free(device->agent_io);
        if (device->agent_fd >= 0)
                parking_leave(device->place.parking, device->agent_fd);
        if (device->parked_fd >= 0)
                parking_leave(device->place.parking, device->parked_fd);
}

Device *device_free(Device *device)
{
        if (!device)
                return NULL;
        helper_client_forget(device->place.helper, device);
        vmm_forget_device(device->place.vmm, device);
        leave_connections(device);
        loop_timer_free(device->hello_timer);
        loop_timer_free(device->busy_timer);
        loop_timer_free(device->timer);
        loop_timer_free(device->own_timer);
        loop_timer_free(device->already_timer);
        manifest_device_forget(&device->known);
        free(device);
        return NULL;
}

DEFINE_CLEANUP(Device *, device_free);

int device_new(const DevicePlace *place, const DeviceDefinition *definition, uint32_t index,
               const DeviceListener *listener, void *userdata, Device **ret)
{
        _cleanup_(device_freep) Device *device = calloc(1, sizeof *device);
        int r;

        if (!device)
                return -ENOMEM;
        *device = (Device){.place = *place,
                           .definition = *definition,
                           .index = index,
                           .listener = listener,
                           .userdata = userdata,
                           .agent_fd = -1,
                           .parked_fd = -1,
                           .supervised = definition_supervises(place->vm, definition),
                           .state = DEVICE_STATE_UNKNOWN};
        memcpy(device->vm, place->vm->uuid, sizeof device->vm);
        if (device->supervised)
                definition_find_sysfs(place->vm, definition->vmm_device, device->sysfs);
        else
                memcpy(device->sysfs, definition->sysfs, sizeof device->sysfs);
        device_look(device);
        r = agent_path(device->agent_path, place->runtime_dir, device->vm, definition->id);
        if (r >= 0)
                device->parked_fd = parking_take(place->parking, device->agent_path);
        if (r >= 0)
                r = loop_timer_new(place->loop, on_opening_timer, device, &device->timer);
        if (r >= 0)
                r = loop_timer_new(place->loop, on_hello_timer, device, &device->hello_timer);
        if (r >= 0)
                r = loop_timer_new(place->loop, on_busy_timer, device, &device->busy_timer);
        if (r >= 0)
                r = loop_timer_new(place->loop, on_own_answer, device, &device->own_timer);
        if (r >= 0)
                r = loop_timer_new(place->loop, on_already, device, &device->already_timer);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(device);
        return 0;
}
