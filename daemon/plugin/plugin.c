/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "plugin.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/socket.h"

/* Packets taken at a time: others have the loop then. */
#define TAKE_AT_ONCE 32

typedef struct Request {
        struct Request *next;
        uint32_t id;
        PluginCall call;
        PluginAnswered answered; /* NULL: forgotten, or told already */
        void *userdata;
        uint64_t late_usec; /* CLOCK_MONOTONIC: told to be late then */
        uint64_t budget_usec;
        bool urgent;
        size_t size;
        uint8_t packet[];
} Request;

struct Plugin {
        Loop *loop;
        const char *host_program;
        char *file;
        int file_fd;
        PluginState state;
        PluginHello hello;
        char name[MIGMGR_NAME_MAX + 1];
        char text[PLUGIN_STRING_MAX + 1];
        bool logged; /* what is wrong with it */
        uint32_t restarts;
        uint64_t back_off_usec, started_usec;

        pid_t pid;
        int pidfd, fd;
        LoopIo *pid_io, *io;
        LoopTimer *timer; /* start anew; or the next call that will be late, or hangs */
        LoopTimer *
                soon; /* calls are sent together; those that can't be sent are answered, from a clean stack */
        bool deaf;    /* its socket takes nothing any more */

        /* The first `n_sent` have been sent; the host is at work on the first. */
        Request *requests;
        Request *ending; /* those that tell_all() has still to tell */
        uint32_t n_requests, n_sent, next_id;
        uint64_t first_since_usec; /* the host works on the first since then */
        uint32_t n_logs;           /* in this call */
        PluginPacket packet;       /* as received */

        void (*ready)(void *userdata, Plugin *plugin);
        void *ready_userdata;
};

static const char *const plugin_state_names[PLUGIN_STATE_MAX] = {
        [PLUGIN_STATE_STARTING] = "starting",
        [PLUGIN_STATE_READY] = "ready",
        [PLUGIN_STATE_ENDED] = "ended",
        [PLUGIN_STATE_REFUSED] = "refused",
};

DEFINE_STRING_TABLE(PluginState, plugin_state, plugin_state_names);

static void start(Plugin *plugin);
static void set_timer(Plugin *plugin);

/* ---- calls ---------------------------------------------------------------------------------------------------- */

static void tell(Plugin *plugin, Request *request, PluginEnd end, const PluginAnswer *answer,
                 const char *text)
{
        PluginAnswered answered = request->answered;

        request->answered = NULL;
        if (answered)
                answered(request->userdata, plugin, end, answer, text);
}

static Request *pop(Plugin *plugin)
{
        Request *request = plugin->requests;

        plugin->requests = request->next;
        plugin->n_requests--;
        if (plugin->n_sent > 0)
                plugin->n_sent--;
        plugin->first_since_usec = clock_monotonic_usec();
        plugin->n_logs = 0;
        return request;
}

/* All that wait, of which none will be answered any more. What they cause may be asked meanwhile, and is not of these; and who is
 * told may have others of these forgotten. */
static void tell_all(Plugin *plugin, PluginEnd end)
{
        Request **last = &plugin->ending;
        char text[sizeof plugin->text];

        memcpy(text, plugin->text, sizeof text);
        while (*last)
                last = &(*last)->next;
        *last = plugin->requests;
        plugin->requests = NULL;
        plugin->n_requests = plugin->n_sent = 0;
        while (plugin->ending) {
                Request *request = plugin->ending;

                plugin->ending = request->next;
                tell(plugin, request, end, NULL, text);
                free(request);
        }
}

static void say_once(Plugin *plugin, const char *text)
{
        (void) log_printable(text, plugin->text, sizeof plugin->text);
        if (!plugin->logged)
                log_warning(NULL, "plugin %s (%s): %s", plugin->name, plugin->file, plugin->text);
        plugin->logged = true;
}

/* ---- its process ---------------------------------------------------------------------------------------------- */

static void hang_up(Plugin *plugin)
{
        plugin->io = loop_io_free(plugin->io);
        if (plugin->fd >= 0)
                (void) close(plugin->fd);
        plugin->fd = -1;
}

static void rest(Plugin *plugin)
{
        if (clock_monotonic_usec() - plugin->started_usec > PLUGIN_STEADY_USEC) {
                plugin->back_off_usec = PLUGIN_BACK_OFF_USEC;
                plugin->logged = false;
        }
        loop_timer_set(plugin->timer, plugin->back_off_usec);
        plugin->back_off_usec = MIN(plugin->back_off_usec * 2, PLUGIN_BACK_OFF_MAX_USEC);
}

/* Whatever it still does, it does it alone. Its end is seen by on_exit_seen(). */
static void end(Plugin *plugin, PluginEnd what, const char *text)
{
        bool refused = plugin->state == PLUGIN_STATE_REFUSED;

        if (plugin->state == PLUGIN_STATE_ENDED)
                return;
        say_once(plugin, text);
        hang_up(plugin);
        if (plugin->pidfd >= 0)
                (void) syscall(SYS_pidfd_send_signal, plugin->pidfd, SIGKILL, NULL, 0);
        if (!refused) {
                plugin->state = PLUGIN_STATE_ENDED;
                rest(plugin);
        }
        tell_all(plugin, what);
}

static void reap(Plugin *plugin)
{
        siginfo_t info = {};

        if (waitid(P_PIDFD, (id_t) plugin->pidfd, &info, WEXITED | WNOHANG) < 0 || info.si_pid == 0)
                return;
        plugin->pid_io = loop_io_free(plugin->pid_io);
        (void) close(plugin->pidfd);
        plugin->pidfd = -1;
        plugin->pid = 0;
}

static void on_readable(void *userdata);

/* What it has said last is still in the socket. */
static void on_exit_seen(void *userdata)
{
        Plugin *plugin = userdata;

        if (plugin->state == PLUGIN_STATE_STARTING || plugin->state == PLUGIN_STATE_READY)
                on_readable(plugin);
        reap(plugin);
        if (plugin->pidfd < 0 &&
            (plugin->state == PLUGIN_STATE_STARTING || plugin->state == PLUGIN_STATE_READY))
                end(plugin, PLUGIN_END_DIED, "its process has ended");
}

static void on_writable(void *userdata);

static int spawn(Plugin *plugin, int socket)
{
        char *const argv[] = {(char *) plugin->host_program, (char *) plugin->file, NULL};
        char *const environment[] = {NULL};
        posix_spawn_file_actions_t actions;
        posix_spawnattr_t attributes;
        sigset_t none, all;
        int r;

        (void) sigemptyset(&none);
        (void) sigfillset(&all);
        if (posix_spawn_file_actions_init(&actions) != 0)
                return -ENOMEM;
        if (posix_spawnattr_init(&attributes) != 0) {
                (void) posix_spawn_file_actions_destroy(&actions);
                return -ENOMEM;
        }
        r = posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
        if (r == 0)
                r = posix_spawnattr_setsigmask(&attributes, &none);
        if (r == 0)
                r = posix_spawnattr_setsigdefault(&attributes, &all);
        if (r == 0)
                r = posix_spawn_file_actions_adddup2(&actions, socket, PLUGIN_SOCKET_FD);
        if (r == 0)
                r = posix_spawn_file_actions_adddup2(&actions, plugin->file_fd, PLUGIN_FILE_FD);
        if (r == 0)
                r = posix_spawn_file_actions_addclosefrom_np(&actions, PLUGIN_FILE_FD + 1);
        for (int fd = 0; fd < PLUGIN_SOCKET_FD && r == 0; fd++)
                r = posix_spawn_file_actions_addclose(&actions, fd);
        if (r == 0)
                r = posix_spawn(&plugin->pid, plugin->host_program, &actions, &attributes, argv, environment);
        (void) posix_spawn_file_actions_destroy(&actions);
        (void) posix_spawnattr_destroy(&attributes);
        return -r;
}

/* Out of the way of the descriptors that its process is given. */
static int move_up(int fd)
{
        int up = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, PLUGIN_FILE_FD + 1);

        if (fd >= 0)
                (void) close(fd);
        return up;
}

static int start_process(Plugin *plugin)
{
        _cleanup_(closep) int theirs = -1;
        int pair[2], r;

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
                return -errno;
        plugin->fd = pair[0];
        theirs = move_up(pair[1]);
        if (theirs < 0 || fcntl(theirs, F_SETFL, 0) < 0)
                return -errno;
        r = spawn(plugin, theirs);
        if (r < 0)
                return r;
        plugin->pidfd = (int) syscall(SYS_pidfd_open, plugin->pid, 0);
        if (plugin->pidfd < 0)
                return -errno; /* not seen; it ends when its socket does */
        r = loop_io_new(plugin->loop, plugin->pidfd, on_exit_seen, NULL, plugin, &plugin->pid_io);
        if (r >= 0)
                r = loop_io_new(plugin->loop, plugin->fd, on_readable, on_writable, plugin, &plugin->io);
        return r;
}

static void start(Plugin *plugin)
{
        char text[PLUGIN_STRING_MAX];
        int r;

        plugin->started_usec = clock_monotonic_usec();
        plugin->state = PLUGIN_STATE_STARTING;
        plugin->deaf = false;
        r = start_process(plugin);
        if (r < 0) {
                (void) snprintf(text, sizeof text, "its process %.150s can't be started: %s",
                                plugin->host_program, strerror(-r));
                end(plugin, PLUGIN_END_ABSENT, text);
                return;
        }
        set_timer(plugin);
}

/* ---- time ----------------------------------------------------------------------------------------------------- */

static uint64_t hangs_at(const Plugin *plugin)
{
        return plugin->first_since_usec + MAX(plugin->requests->budget_usec, PLUGIN_HANG_USEC);
}

static void set_timer(Plugin *plugin)
{
        uint64_t now = clock_monotonic_usec(), next = USEC_INFINITY;

        if (plugin->state == PLUGIN_STATE_STARTING)
                next = plugin->started_usec + PLUGIN_LOAD_USEC;
        else if (plugin->state != PLUGIN_STATE_READY)
                return;
        for (const Request *request = plugin->requests; request; request = request->next)
                if (request->answered)
                        next = MIN(next, request->late_usec);
        if (plugin->n_sent > 0)
                next = MIN(next, hangs_at(plugin));
        loop_timer_set(plugin->timer, next == USEC_INFINITY ? 0 : next > now ? next - now : 1);
}

/* Who is late is told so at once; they stay in the list, for the host may have them already. */
static void tell_late(Plugin *plugin, uint64_t now)
{
        for (bool again = true; again;) {
                again = false;
                for (Request *request = plugin->requests; request; request = request->next)
                        if (request->answered && request->late_usec <= now) {
                                tell(plugin, request, PLUGIN_END_LATE, NULL, "it has not answered in time");
                                again = true; /* the list may be another now */
                                break;
                        }
        }
}

static void on_timer(void *userdata)
{
        Plugin *plugin = userdata;
        uint64_t now = clock_monotonic_usec();

        if (plugin->state == PLUGIN_STATE_ENDED) {
                if (plugin->pidfd >= 0) { /* it can't even be killed: wait for that */
                        loop_timer_set(plugin->timer, PLUGIN_BACK_OFF_MAX_USEC);
                        return;
                }
                plugin->restarts++;
                start(plugin);
                return;
        }
        tell_late(plugin, now);
        if (plugin->state == PLUGIN_STATE_STARTING) {
                if (now >= plugin->started_usec + PLUGIN_LOAD_USEC)
                        end(plugin, PLUGIN_END_LATE, "it has not been loaded within 5 s");
                else
                        set_timer(plugin);
                return;
        }
        if (plugin->n_sent > 0 && now >= hangs_at(plugin)) {
                char text[PLUGIN_STRING_MAX];

                (void) snprintf(text, sizeof text, "its call %s() hangs; its process was ended",
                                plugin_call_to_string(plugin->requests->call));
                end(plugin, PLUGIN_END_LATE, text);
                return;
        }
        set_timer(plugin);
}

/* ---- out ------------------------------------------------------------------------------------------------------ */

/* The first that has not been sent; those that nobody waits for any more need not be. */
static Request **first_waiting(Plugin *plugin)
{
        Request **p = &plugin->requests;

        for (uint32_t i = 0; i < plugin->n_sent; i++)
                p = &(*p)->next;
        while (*p && !(*p)->answered) {
                Request *request = *p;

                *p = request->next;
                plugin->n_requests--;
                free(request);
        }
        return p;
}

static void send_waiting(Plugin *plugin)
{
        for (Request *request; (request = *first_waiting(plugin));) {
                ssize_t n = send(plugin->fd, request->packet, request->size, MSG_NOSIGNAL);

                if (n < 0 && (errno == EAGAIN || errno == ENOBUFS)) {
                        loop_io_want_write(plugin->io);
                        break;
                }
                if (n < 0) {
                        plugin->deaf = true;
                        loop_timer_soon(plugin->soon);
                        return;
                }
                if (plugin->n_sent++ == 0)
                        plugin->first_since_usec = clock_monotonic_usec();
        }
        set_timer(plugin);
}

static void on_writable(void *userdata)
{
        Plugin *plugin = userdata;

        if (plugin->state == PLUGIN_STATE_READY)
                send_waiting(plugin);
}

static void on_soon(void *userdata)
{
        Plugin *plugin = userdata;

        if (plugin->state == PLUGIN_STATE_READY && plugin->deaf)
                end(plugin, PLUGIN_END_DIED, "its process has ended");
        else if (plugin->state == PLUGIN_STATE_READY)
                send_waiting(plugin);
        else if (plugin->state != PLUGIN_STATE_STARTING)
                tell_all(plugin, PLUGIN_END_ABSENT);
}

static void insert(Plugin *plugin, Request *request)
{
        Request **p = &plugin->requests;

        for (uint32_t i = 0; i < plugin->n_sent; i++)
                p = &(*p)->next;
        while (*p && (!request->urgent || (*p)->urgent))
                p = &(*p)->next;
        request->next = *p;
        *p = request;
        plugin->n_requests++;
}

void plugin_ask(Plugin *plugin, PluginPacket *packet, uint64_t budget_usec, bool urgent,
                PluginAnswered answered, void *userdata)
{
        size_t size = plugin_packet_size(packet);
        Request *request = malloc(sizeof *request + size);

        if (!request)
                out_of_memory();
        packet->head.id = ++plugin->next_id;
        *request = (Request){.id = packet->head.id,
                             .call = (PluginCall) packet->head.call,
                             .answered = answered,
                             .userdata = userdata,
                             .late_usec = clock_monotonic_usec() + budget_usec,
                             .budget_usec = budget_usec,
                             .urgent = urgent,
                             .size = size};
        memcpy(request->packet, packet, size);
        insert(plugin, request);
        if (plugin->state == PLUGIN_STATE_READY && urgent)
                send_waiting(plugin);
        else if (plugin->state == PLUGIN_STATE_STARTING)
                set_timer(plugin);
        else
                loop_timer_soon(plugin->soon);
}

static void forget(Request *requests, const void *userdata)
{
        for (Request *request = requests; request; request = request->next)
                if (request->userdata == userdata)
                        request->answered = NULL;
}

void plugin_forget(Plugin *plugin, const void *userdata)
{
        forget(plugin->requests, userdata);
        forget(plugin->ending, userdata);
}

/* ---- in ------------------------------------------------------------------------------------------------------- */

static void take_hello(Plugin *plugin, const char *const *strings)
{
        const char *text;

        if (plugin->packet.head.call == PLUGIN_CALL_HELLO && plugin->packet.head.status < 0 &&
            plugin->packet.head.n_strings == 1) {
                plugin->state = PLUGIN_STATE_REFUSED;
                end(plugin, PLUGIN_END_ABSENT, strings[0]);
                return;
        }
        if (plugin_hello_read(&plugin->packet, &plugin->hello, &text) < 0) {
                plugin->state = PLUGIN_STATE_REFUSED;
                end(plugin, PLUGIN_END_ABSENT, text);
                return;
        }
        memcpy(plugin->name, plugin->hello.name, sizeof plugin->name);
        plugin->state = PLUGIN_STATE_READY;
        if (plugin->restarts == 0)
                log_info(NULL, "plugin %s %s (%s) is ready", plugin->name, plugin->hello.version,
                         plugin->file);
        loop_timer_set(plugin->timer, 0);
        if (plugin->ready)
                plugin->ready(plugin->ready_userdata, plugin);
        if (plugin->state == PLUGIN_STATE_READY)
                send_waiting(plugin);
}

static void take_log(Plugin *plugin, const char *const *strings)
{
        if (++plugin->n_logs > MIGMGR_LOGS_MAX)
                end(plugin, PLUGIN_END_FAILED, "it floods the log");
        else
                log_info(NULL, "plugin %s: %.*s", plugin->name, MIGMGR_TEXT_MAX - 1, strings[0]);
}

static void take_answer(Plugin *plugin, const char *const *strings)
{
        const PluginHead *head = &plugin->packet.head;
        PluginAnswer answer;
        const char *text;
        Request *request;
        char full[PLUGIN_STRING_MAX];
        int r;

        if (plugin->n_sent == 0 || head->id != plugin->requests->id) {
                end(plugin, PLUGIN_END_FAILED, "it answers what was not asked, or out of order");
                return;
        }
        if (head->call == PLUGIN_CALL_LOG && head->n_strings == 1) {
                take_log(plugin, strings);
                return;
        }
        if (head->call != (uint32_t) plugin->requests->call) {
                end(plugin, PLUGIN_END_FAILED, "it answers another call than was asked");
                return;
        }
        request = pop(plugin);
        r = plugin_answer_read(&plugin->packet, request->call, strings, &answer, &text);
        if (r < 0) {
                (void) snprintf(full, sizeof full, "%s(): %s", plugin_call_to_string(request->call), text);
                say_once(plugin, full);
                tell(plugin, request, PLUGIN_END_FAILED, NULL, text);
        } else {
                tell(plugin, request, (PluginEnd) answer.status, &answer, "");
        }
        free(request);
        set_timer(plugin);
}

/* False: nothing is left to take. */
static bool take_one(Plugin *plugin)
{
        const char *strings[PLUGIN_STRINGS_MAX];
        size_t n_fds;
        ssize_t n = socket_recv(plugin->fd, &plugin->packet, sizeof plugin->packet, NULL, 0, &n_fds);

        if (n == -EAGAIN)
                return false;
        if (n == 0 || n == -ECONNRESET) {
                end(plugin, PLUGIN_END_DIED,
                    plugin->state == PLUGIN_STATE_STARTING ? "its process has ended while it was loaded"
                                                           : "its process has ended");
                return false;
        }
        if (n < 0 || plugin_packet_check(&plugin->packet, (size_t) n) < 0) {
                end(plugin, PLUGIN_END_FAILED, "its process says something that makes no sense");
                return false;
        }
        plugin_packet_strings(&plugin->packet, strings);
        if (plugin->state == PLUGIN_STATE_STARTING)
                take_hello(plugin, strings);
        else
                take_answer(plugin, strings);
        return plugin->fd >= 0;
}

static void on_readable(void *userdata)
{
        Plugin *plugin = userdata;

        for (int i = 0; i < TAKE_AT_ONCE && plugin->fd >= 0; i++)
                if (!take_one(plugin))
                        return;
}

/* ---- life ----------------------------------------------------------------------------------------------------- */

int plugin_new(Loop *loop, const char *host_program, const char *file, int fd, const char *trouble,
               Plugin **ret)
{
        Plugin *plugin = calloc(1, sizeof *plugin);
        int r = -ENOMEM;

        fd = move_up(fd);
        if (!plugin) {
                if (fd >= 0)
                        (void) close(fd);
                return -ENOMEM;
        }
        *plugin = (Plugin){.loop = loop,
                           .host_program = host_program,
                           .file = strdup(file),
                           .file_fd = fd,
                           .pidfd = -1,
                           .fd = -1,
                           .back_off_usec = PLUGIN_BACK_OFF_USEC};
        if (plugin->file)
                r = loop_timer_new(loop, on_timer, plugin, &plugin->timer);
        if (r >= 0)
                r = loop_timer_new(loop, on_soon, plugin, &plugin->soon);
        if (r < 0) {
                plugin_free(plugin);
                return r;
        }
        (void) snprintf(plugin->name, sizeof plugin->name, "%.*s", (int) strcspn(file, "."), file);
        if (trouble)
                plugin_refuse(plugin, trouble);
        else
                start(plugin);
        *ret = plugin;
        return 0;
}

Plugin *plugin_free(Plugin *plugin)
{
        if (!plugin)
                return NULL;
        for (Request *request = plugin->requests; request; request = request->next)
                request->answered = NULL;
        tell_all(plugin, PLUGIN_END_ABSENT);
        hang_up(plugin);
        loop_io_free(plugin->pid_io);
        if (plugin->pidfd >= 0) {
                (void) syscall(SYS_pidfd_send_signal, plugin->pidfd, SIGKILL, NULL, 0);
                (void) close(plugin->pidfd); /* it is reaped by whoever takes our children over */
        }
        loop_timer_free(plugin->timer);
        loop_timer_free(plugin->soon);
        if (plugin->file_fd >= 0)
                (void) close(plugin->file_fd);
        free(plugin->file);
        free(plugin);
        return NULL;
}

void plugin_refuse(Plugin *plugin, const char *text)
{
        plugin->state = PLUGIN_STATE_REFUSED;
        loop_timer_set(plugin->timer, 0);
        end(plugin, PLUGIN_END_ABSENT, text);
}

void plugin_on_ready(Plugin *plugin, void (*ready)(void *userdata, Plugin *plugin), void *userdata)
{
        plugin->ready = ready;
        plugin->ready_userdata = userdata;
}

const char *plugin_name(const Plugin *plugin)
{
        return plugin->name;
}

const char *plugin_file(const Plugin *plugin)
{
        return plugin->file;
}

PluginState plugin_state(const Plugin *plugin)
{
        return plugin->state;
}

const PluginHello *plugin_hello(const Plugin *plugin)
{
        return &plugin->hello;
}

const char *plugin_text(const Plugin *plugin)
{
        return plugin->state == PLUGIN_STATE_READY ? "" : plugin->text;
}

uint32_t plugin_restarts(const Plugin *plugin)
{
        return plugin->restarts;
}
