/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* migmgr-test-vmm: a VMM without a hypervisor, for tests of migmgr, and for who writes a VMM to read.
 *
 * What a VMM has to do for migmgr is in delegate.c, which only calls the rest: vm.c (a vCPU that stops exactly),
 * ram.c (which pages were written, and by whom that is known), move.c (memory on its way), device.c and channel.c
 * (the client's side of vfio-user). The guest is not a real one: guest.c is a program that finds out whatever is
 * lost.
 */

#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/signalfd.h>

#include "common/socket.h"
#include "common/uuid.h"
#include "control.h"
#include "daemon/helper/vfio-open.h"
#include "tests/device/number.h"

#define EXIT_USAGE   2
#define CONNECT_USEC (20 * USEC_PER_SEC)
#define REST_MAX     (USEC_PER_SEC / 10)

static DelegateConfig arg_config = {
        .object_path = "/vm",
        .takes_dirty_pages = true,
        .vm = {.memory_bytes = RAM_MIB_COUNT * MIB, .connect_usec = CONNECT_USEC},
};
static bool arg_incoming;
static const char *arg_control;
static int arg_ready_fd = -1;

static const char usage[] =
        "Usage: migmgr-test-vmm OPTION...\n"
        "\n"
        "Runs a VM without a hypervisor, whose guest checks all that it sees. migmgr moves it as a VMM of type\n"
        "\"delegate\".\n"
        "\n"
        "  --uuid=UUID            of the VM; required\n"
        "  --bus-address=ADDRESS  of the D-Bus bus; required\n"
        "  --bus-name=NAME        to own there; required\n"
        "  --object-path=PATH     of the VM's object (/vm)\n"
        "  --memory=MIB           of the guest, 16 to 4096 (64)\n"
        "  --rest=USEC            of the guest after each step, at most 100000 (0)\n"
        "  --device=ID=SOCKET     repeatable: a device of the guest, and where its server listens for the VMM\n"
        "  --vfio=ID=SYSFS        repeatable: a VFIO device of the kernel that the VM has, by its directory there\n"
        "  --incoming             do not make the VM, it will come from elsewhere\n"
        "  --no-dirty-pages       take no pages that devices have written\n"
        "  --viommu               the VM has a virtual IOMMU: DMA by message waits until a vCPU runs\n"
        "  --isolated=DEVICE      repeatable: say that no other device reaches this one: its socket, or id of --vfio\n"
        "  --control=PATH         listen for orders there, one JSON object a line\n"
        "  --ready-fd=N           write \"ready\" and a newline there when the bus has its name\n"
        "  --help                 print this\n";

_printf_(1, 2) static int complain(const char *format, ...)
{
        va_list args;

        fputs("migmgr-test-vmm: ", stderr);
        va_start(args, format);
        (void) vfprintf(stderr, format, args);
        va_end(args);
        fputc('\n', stderr);
        return -EINVAL;
}

/* ---- arguments ----------------------------------------------------------------------------------------------- */

static int add_device(char *text)
{
        VmConfig *vm = &arg_config.vm;
        char *path = strchr(text, '=');
        size_t n = path ? (size_t) (path - text) : 0;

        if (vm->n_devices == VM_DEVICES_MAX)
                return complain("--device: at most %d", VM_DEVICES_MAX);
        if (n == 0 || n > DEVICE_ID_MAX || !socket_path_fits(path + 1))
                return complain("--device: not ID=/SOCKET: '%s'", text);
        memcpy(vm->devices[vm->n_devices].id, text, n);
        for (unsigned i = 0; i < vm->n_devices; i++)
                if (streq(vm->devices[i].id, vm->devices[vm->n_devices].id))
                        return complain("--device: '%s' is there twice", vm->devices[i].id);
        vm->devices[vm->n_devices++].path = path + 1;
        return 0;
}

static int add_kernel(char *text)
{
        char *path = strchr(text, '=');
        size_t n = path ? (size_t) (path - text) : 0;
        ChildWork work = {.fd = -1};

        if (arg_config.n_kernel == VM_DEVICES_MAX)
                return complain("--vfio: at most %d", VM_DEVICES_MAX);
        if (n == 0 || n > DEVICE_ID_MAX)
                return complain("--vfio: not ID=SYSFS: '%s'", text);
        if (vfio_open(path + 1, &work) < 0)
                return complain("--vfio: %s: %s", path + 1, work.text);
        memcpy(arg_config.kernel[arg_config.n_kernel].id, text, n);
        arg_config.kernel[arg_config.n_kernel++].fd = work.fd;
        return 0;
}

static int set_option(const char *option, char *value)
{
        uint64_t number;

        if (streq(option, "device"))
                return add_device(value);
        if (streq(option, "vfio"))
                return add_kernel(value);
        if (streq(option, "memory")) {
                if (number_parse(value, RAM_MIB_MIN, RAM_MIB_MAX, &number) < 0)
                        return complain("--memory: not %d to %d: '%s'", RAM_MIB_MIN, RAM_MIB_MAX, value);
                arg_config.vm.memory_bytes = number * MIB;
        } else if (streq(option, "rest")) {
                if (number_parse(value, 0, REST_MAX, &arg_config.vm.rest_usec) < 0)
                        return complain("--rest: not 0 to %d: '%s'", (int) REST_MAX, value);
        } else if (streq(option, "ready-fd")) {
                if (number_parse(value, 0, INT32_MAX, &number) < 0)
                        return complain("--ready-fd: not a file descriptor: '%s'", value);
                arg_ready_fd = (int) number;
        } else if (streq(option, "incoming"))
                arg_incoming = true;
        else if (streq(option, "no-dirty-pages"))
                arg_config.takes_dirty_pages = false;
        else if (streq(option, "viommu"))
                arg_config.vm.viommu = true;
        else if (streq(option, "isolated")) {
                if (arg_config.n_isolated == VM_DEVICES_MAX)
                        return complain("--isolated: at most %d", VM_DEVICES_MAX);
                arg_config.isolated[arg_config.n_isolated++] = value;
        } else if (streq(option, "uuid"))
                arg_config.vm.uuid = value;
        else if (streq(option, "bus-address"))
                arg_config.bus_address = value;
        else if (streq(option, "bus-name"))
                arg_config.bus_name = value;
        else if (streq(option, "object-path"))
                arg_config.object_path = value;
        else
                arg_control = value;
        return 0;
}

static int check_options(void)
{
        if (!arg_config.vm.uuid || !uuid_is_valid(arg_config.vm.uuid))
                return complain("--uuid is needed: 36 characters, lower case");
        if (!arg_config.bus_address)
                return complain("--bus-address is needed");
        if (!arg_config.bus_name || !sd_bus_service_name_is_valid(arg_config.bus_name))
                return complain("--bus-name is needed: a name on the bus");
        if (!sd_bus_object_path_is_valid(arg_config.object_path))
                return complain("--object-path: not one: '%s'", arg_config.object_path);
        return 0;
}

/* 1: help was asked for, and is given. */
static int parse_options(int argc, char **argv)
{
        static const struct option options[] = {
                {"uuid", required_argument},     {"bus-address", required_argument},
                {"bus-name", required_argument}, {"object-path", required_argument},
                {"memory", required_argument},   {"rest", required_argument},
                {"device", required_argument},   {"vfio", required_argument},
                {"incoming", no_argument},       {"no-dirty-pages", no_argument},
                {"viommu", no_argument},         {"isolated", required_argument},
                {"control", required_argument},  {"ready-fd", required_argument},
                {"help", no_argument},           {0},
        };
        int c, index = 0;

        while ((c = getopt_long(argc, argv, "", options, &index)) != -1) {
                if (c == '?')
                        return -EINVAL; /* getopt has complained */
                if (streq(options[index].name, "help")) {
                        fputs(usage, stdout);
                        return 1;
                }
                if (set_option(options[index].name, optarg) < 0)
                        return -EINVAL;
        }
        if (optind < argc)
                return complain("'%s': there are only options", argv[optind]);
        return check_options();
}

/* ---- running ------------------------------------------------------------------------------------------------- */

static int say_ready(void)
{
        static const char ready[] = "ready\n";

        if (arg_ready_fd >= 0 && write(arg_ready_fd, ready, sizeof ready - 1) < 0)
                return complain("--ready-fd=%d: %s", arg_ready_fd, strerror(errno));
        fputs(ready, stdout);
        (void) fflush(stdout);
        return 0;
}

/* `ends_fd` is readable when the process is to end: also while it still waits for device servers. */
static int run(sd_event *event, int ends_fd)
{
        _cleanup_(delegate_freep) Delegate *delegate = NULL;
        _cleanup_(control_freep) Control *control = NULL;
        int r = delegate_new(event, &arg_config, !arg_incoming, ends_fd, &delegate);

        if (r < 0)
                return r;
        if (arg_control) {
                r = control_new(event, arg_control, delegate, &control);
                if (r < 0) {
                        (void) complain("--control=%s: %s", arg_control, strerror(-r));
                        return r;
                }
        }
        r = say_ready();
        return r < 0 ? r : sd_event_loop(event);
}

/* SIGTERM and SIGINT end the loop. */
static int take_signals(sd_event *event, int *ret_fd)
{
        sigset_t ends;
        int r;

        (void) sigemptyset(&ends);
        (void) sigaddset(&ends, SIGTERM);
        (void) sigaddset(&ends, SIGINT);
        (void) sigprocmask(SIG_BLOCK, &ends, NULL);
        *ret_fd = signalfd(-1, &ends, SFD_CLOEXEC | SFD_NONBLOCK);
        if (*ret_fd < 0)
                return -errno;
        r = sd_event_add_signal(event, NULL, SIGTERM, NULL, NULL);
        return r < 0 ? r : sd_event_add_signal(event, NULL, SIGINT, NULL, NULL);
}

int main(int argc, char **argv)
{
        _cleanup_(closep) int ends_fd = -1;
        sd_event *event = NULL;
        int r = parse_options(argc, argv);

        if (r != 0)
                return r < 0 ? EXIT_USAGE : EXIT_SUCCESS;
        (void) signal(SIGPIPE, SIG_IGN);
        r = sd_event_new(&event);
        if (r >= 0)
                r = take_signals(event, &ends_fd);
        if (r >= 0)
                r = run(event, ends_fd);
        sd_event_unref(event);
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
