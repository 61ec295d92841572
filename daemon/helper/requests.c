/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "call.h"
#include "common/socket.h"
#include "starter.h"
#include "vfio-open.h"

/* For what is asked of the kernel about a device. Who asks of another one waits so long. */
#define KERNEL_USEC (5 * USEC_PER_SEC)

typedef struct Handler {
        uint32_t least, most; /* strings */
        int (*run)(Call *call);
} Handler;

int call_say(Call *call, int status, const char *text)
{
        int r = helper_packet_add(call->answer, text);

        return r < 0 ? r : status;
}

int call_say_of(Call *call, int status, const char *format, ...)
{
        char text[512];
        va_list ap;

        va_start(ap, format);
        (void) vsnprintf(text, sizeof text, format, ap);
        va_end(ap);
        return call_say(call, status, text);
}

int call_process(Call *call, ProcessId *ret)
{
        ProcessId id = {.pid = (pid_t) strtol(call->strings[0], NULL, 10),
                        .start = strtoull(call->strings[1], NULL, 10)};

        if (id.pid <= 1 || !uuid_is_valid(call->strings[2]))
                return call_say(call, -EINVAL, "that is no process");
        memcpy(id.boot, call->strings[2], sizeof id.boot);
        *ret = id;
        return 0;
}

static int connect_device(Call *call)
{
        call->fd = socket_connect(call->strings[0], SOCK_STREAM);
        if (call->fd == -EAGAIN)
                return call_say(call, -EAGAIN,
                                "the device's server has a client already, and another one waiting");
        if (call->fd < 0)
                return call_say(call, call->fd, strerror(-call->fd));
        return 0;
}

/* By descriptor: the directory may be the VMM's user's, who could put a link to anything in the name's place. */
static int set_owner(const char *path, const struct stat *as)
{
        _cleanup_(closep) int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        char by_fd[64];
        struct stat st;

        if (fd < 0 || fstat(fd, &st) < 0)
                return -errno;
        if (!S_ISSOCK(st.st_mode))
                return -ENOTSOCK;
        (void) snprintf(by_fd, sizeof by_fd, "/proc/self/fd/%d", fd);
        if (fchownat(fd, "", as->st_uid, as->st_gid, AT_EMPTY_PATH) < 0 ||
            chmod(by_fd, as->st_mode & 0777) < 0)
                return -errno;
        return 0;
}

/* Whoever may use the device's server may use the broker before it, and nobody else. */
static int listen_for_vmm(Call *call)
{
        const char *path = call->strings[0];
        _cleanup_(closep) int fd = -1;
        struct stat server;
        int r;

        if (stat(call->strings[1], &server) < 0 || !S_ISSOCK(server.st_mode))
                return call_say(
                        call, -ENOENT,
                        "the device server's socket, whose owner and mode this one gets, is not there");
        fd = socket_listen(path, SOCK_STREAM);
        if (fd == -EADDRINUSE)
                return call_say(call, fd, "somebody listens there already, or it is no socket");
        if (fd < 0)
                return call_say(call, fd, strerror(-fd));
        r = set_owner(path, &server);
        if (r < 0) {
                (void) unlink(path);
                return call_say(call, r,
                                "it cannot be given the owner and mode of the device server's socket");
        }
        call->fd = TAKE_FD(fd);
        return 0;
}

static int start_program(Call *call, const Start *start)
{
        const char *text;
        pid_t pid;
        int r = starter_start(start, &pid, &call->fd, &text);

        if (r < 0)
                return call_say(call, r, text);
        call->answer->head.pid = pid;
        return 0;
}

static int start_agent(Call *call)
{
        _cleanup_(closep) int fd = socket_listen(call->strings[0], SOCK_SEQPACKET);
        const char *argv[] = {call->place->agent_path, call->strings[1], NULL};
        const char *key = strrchr(call->strings[0], '/');
        char scope[128];
        Start start = {.argv = argv,
                       .scope = scope,
                       .scope_by_pid = true,
                       .description = "migmgr device agent",
                       .keep_fd = fd,
                       .log_fd = -1};

        if (fd < 0)
                return call_say(call, fd,
                                fd == -EADDRINUSE ? "an agent listens there already" : strerror(-fd));
        (void) snprintf(scope, sizeof scope, "migmgr-agent-%.64s", key ? key + 1 : call->strings[0]);
        return start_program(call, &start);
}

static int open_log(const HelperPlace *place, const char *uuid, int flags)
{
        char path[SOCKET_PATH_MAX + 64];
        int fd;

        if (!uuid_is_valid(uuid))
                return -EINVAL;
        (void) snprintf(path, sizeof path, "%s/vmm-%s.log", place->runtime_dir, uuid);
        fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
        return fd < 0 ? -errno : fd;
}

static int open_vmm_log(Call *call)
{
        call->fd = open_log(call->place, call->strings[0], O_RDONLY);
        return call->fd < 0 ? call_say(call, call->fd, "no VMM of that VM was started here") : 0;
}

/* What makes any VMM command line one that only waits: it may not say any of this itself (daemon/definition.c). */
static int start_vmm(Call *call)
{
        static const char *const waiting[] = {"-S", "-incoming", "defer", "-qmp"};
        _cleanup_(closep) int log_fd = open_log(call->place, call->strings[0], O_WRONLY | O_CREAT | O_APPEND);
        const char *argv[HELPER_STRINGS_MAX + 8];
        char monitor[SOCKET_PATH_MAX + 64], scope[128];
        Start start = {.argv = argv,
                       .scope = scope,
                       .description = "Virtual machine, started by migmgr",
                       .keep_fd = -1,
                       .log_fd = log_fd};
        size_t n = 0;

        if (log_fd < 0)
                return call_say(call, log_fd, "cannot open a log file for the VMM in the runtime directory");
        if (strchr(call->strings[1], ',') || !socket_path_fits(call->strings[1]))
                return call_say(call, -EINVAL, "the monitor's path is no path for a socket");
        (void) snprintf(monitor, sizeof monitor, "unix:%s,server=on,wait=off", call->strings[1]);
        for (uint32_t i = 2; i < call->n_strings; i++)
                argv[n++] = call->strings[i];
        for (size_t i = 0; i < ARRAY_SIZE(waiting); i++)
                argv[n++] = waiting[i];
        argv[n++] = monitor;
        argv[n] = NULL;
        (void) snprintf(scope, sizeof scope, "migmgr-vm-%s", call->strings[0]);
        return start_program(call, &start);
}

static int kill_process(Call *call)
{
        _cleanup_(closep) int fd = -1;
        ProcessId id;
        int r = call_process(call, &id);

        if (r < 0)
                return r;
        fd = process_id_open(&id);
        if (fd < 0)
                return fd == -ESRCH ? 0 : fd; /* gone is what was wanted */
        if (syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0) < 0)
                return call_say(call, -errno, "cannot be killed");
        return 0;
}

/* In a child: the kernel may take its time. The text is there in any case. */
static int run_child(Call *call, ChildRun run)
{
        ChildWork work = {.fd = -1};
        int r = child_run(run, call->strings[0], KERNEL_USEC, &work);

        call->fd = work.fd;
        if (r == -ETIMEDOUT)
                r = -ETIME; /* it is not we who do not answer */
        return call_say(call, r,
                        work.text[0]  ? work.text
                        : r == -ETIME ? "the kernel does not answer"
                                      : strerror(-r));
}

static int open_vfio(Call *call)
{
        return run_child(call, vfio_open);
}

static int reset_function(Call *call)
{
        return run_child(call, vfio_reset_function);
}

static const Handler handlers[HELPER_REQUEST_MAX] = {
        [HELPER_CONNECT_DEVICE] = {1, 1, connect_device},
        [HELPER_START_AGENT] = {2, 2, start_agent},
        [HELPER_START_VMM] = {3, HELPER_STRINGS_MAX, start_vmm},
        [HELPER_KILL] = {3, 3, kill_process},
        [HELPER_LISTEN] = {2, 2, listen_for_vmm},
        [HELPER_DUPLICATE] = {4, 4, call_duplicate},
        [HELPER_HOLD] = {3, 3, call_hold},
        [HELPER_HOLD_VCPUS] = {5, HELPER_STRINGS_MAX, call_hold_vcpus},
        [HELPER_VMM_LOG] = {1, 1, open_vmm_log},
        [HELPER_OPEN_VFIO] = {1, 1, open_vfio},
        [HELPER_RESET_FUNCTION] = {1, 1, reset_function},
};

void helper_answer(const HelperPlace *place, const HelperPacket *request, HelperPacket *answer, int *ret_fd)
{
        const Handler *handler = &handlers[request->head.request];
        Call call = {.place = place, .n_strings = request->head.n_strings, .answer = answer, .fd = -1};

        answer->head = (HelperHead){.request = request->head.request, .id = request->head.id};
        answer->n_text = 0;
        helper_packet_strings(request, call.strings);
        if (call.n_strings < handler->least || call.n_strings > handler->most)
                answer->head.status = call_say(&call, -EINVAL, "wrong number of arguments");
        else
                answer->head.status = handler->run(&call);
        *ret_fd = call.fd;
}
