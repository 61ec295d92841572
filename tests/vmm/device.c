/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "device.h"

#include <json-c/json.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include "channel.h"
#include "common/clock.h"
#include "tests/device/worker-model.h"

#define RETRY_MSEC      20
#define VERSION_MAX     4096
#define REGION_INFO_MAX 256
#define CAPS_MAX        8

struct Device {
        char id[DEVICE_ID_MAX + 1];
        Ram *ram;
        Channel *channel;
        int interrupts[DEVICE_VECTORS_MAX];
        uint8_t *window;
        size_t window_size;
        int mailbox_fd; /* -1: it has none */
        uint64_t peer_address;
};

/* What goes wrong while a device is set up: where the text goes, and where from. */
typedef struct Setup {
        Device *device;
        char *text;
        size_t size;
} Setup;

_printf_(3, 4) static int fail(Setup *s, int r, const char *format, ...)
{
        char what[256];
        va_list ap;

        va_start(ap, format);
        (void) vsnprintf(what, sizeof what, format, ap);
        va_end(ap);
        (void) snprintf(s->text, s->size, "device %s: %s: %s", s->device->id, what, strerror(-r));
        return r;
}

/* ---- VERSION ------------------------------------------------------------------------------------------------- */

static bool grants_twin(const char *json)
{
        json_object *root = json_tokener_parse(json), *capabilities, *twin, *supported;
        bool granted = root && json_object_object_get_ex(root, "capabilities", &capabilities) &&
                       json_object_object_get_ex(capabilities, "twin_socket", &twin) &&
                       json_object_object_get_ex(twin, "supported", &supported) &&
                       json_object_get_boolean(supported);

        json_object_put(root);
        return granted;
}

/* Without the twin, the server's DMA and our accesses share one socket: libvfio-user then takes our next command for
 * the answer to its own. So it is always asked for. */
static int negotiate(Setup *s)
{
        static const char capabilities[] =
                "{\"capabilities\":{\"max_msg_fds\":8,\"max_data_xfer_size\":1048576,\"pgsizes\":4096,"
                "\"twin_socket\":{\"supported\":true}}}";
        VfioUserVersion version = {VFIO_USER_MAJOR, VFIO_USER_MINOR};
        char reply[VERSION_MAX + 1] = "";
        ChannelCall call = {
                .command = VFIO_USER_VERSION,
                .out = {{&version, sizeof version}, {(void *) capabilities, sizeof capabilities}},
                .reply = reply,
                .room = VERSION_MAX,
                .wants_fd = true,
        };
        int r = channel_call(s->device->channel, &call);

        if (r == 0 && (call.size < sizeof version || memcpy(&version, reply, sizeof version) == NULL ||
                       version.major != VFIO_USER_MAJOR))
                r = -EPROTONOSUPPORT;
        if (r == 0 && call.fd >= 0 && grants_twin(reply + sizeof version))
                channel_set_twin(s->device->channel, TAKE_FD(call.fd));
        closep(&call.fd);
        return r;
}

/* ---- regions ------------------------------------------------------------------------------------------------- */

static int get_region(Setup *s, uint32_t index, void *reply, size_t room, size_t *ret_size, int *ret_fd)
{
        VfioUserRegionInfo info = {.argsz = (uint32_t) room, .index = index};
        ChannelCall call = {
                .command = VFIO_USER_DEVICE_GET_REGION_INFO,
                .out = {{&info, sizeof info}},
                .reply = reply,
                .room = room,
                .wants_fd = ret_fd,
        };
        int r = channel_call(s->device->channel, &call);

        if (r == 0 && call.size < sizeof info)
                r = -EPROTO;
        if (r < 0) {
                closep(&call.fd);
                return fail(s, r, "REGION_INFO of region %u", index);
        }
        *ret_size = call.size;
        if (ret_fd)
                *ret_fd = call.fd;
        return 0;
}

static int check_region(Setup *s, uint32_t index, uint64_t size)
{
        VfioUserRegionInfo info;
        size_t n;
        int r = get_region(s, index, &info, sizeof info, &n, NULL);

        if (r < 0)
                return r;
        if (info.size != size || !(info.flags & VFIO_USER_REGION_FLAG_READ) ||
            !(info.flags & VFIO_USER_REGION_FLAG_WRITE))
                return fail(s, -ENODEV, "region %u is not the one of a worker", index);
        return 0;
}

/* Whether the whole of the region may be mapped, by its capabilities. */
static bool whole_is_mappable(const uint8_t *reply, size_t size, const VfioUserRegionInfo *info)
{
        size_t at = info->cap_offset;

        if (!(info->flags & VFIO_USER_REGION_FLAG_MMAP))
                return false;
        if (!(info->flags & VFIO_USER_REGION_FLAG_CAPS))
                return true;
        for (unsigned n = 0; n < CAPS_MAX && at >= sizeof *info && at + sizeof(VfioUserRegionSparse) <= size;
             n++) {
                VfioUserRegionSparse cap;

                memcpy(&cap, reply + at, sizeof cap);
                if (cap.id == VFIO_USER_REGION_CAP_SPARSE)
                        return cap.nr_areas == 1 && cap.offset == 0 && cap.size == info->size;
                at = cap.next;
        }
        return true;
}

/* Where a window can't be mapped, its accesses go by message: slower, and right. */
static int map_window(Setup *s)
{
        _cleanup_(closep) int fd = -1;
        uint8_t reply[REGION_INFO_MAX];
        VfioUserRegionInfo info;
        size_t size;
        void *window;
        int r = get_region(s, WORKER_REGION_WINDOW, reply, sizeof reply, &size, &fd);

        if (r < 0)
                return r;
        memcpy(&info, reply, sizeof info);
        if (info.size != WORKER_WINDOW_SIZE)
                return fail(s, -ENODEV, "region %u is no window", WORKER_REGION_WINDOW);
        if (fd < 0 || !whole_is_mappable(reply, size, &info))
                return 0;
        window = mmap(NULL, info.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t) info.offset);
        if (window == MAP_FAILED)
                return fail(s, -errno, "mapping the window");
        s->device->window = window;
        s->device->window_size = info.size;
        return 0;
}

/* Memory of the device that other devices get to write into; the VMM has no use for it. */
static int find_mailbox(Setup *s)
{
        uint8_t reply[REGION_INFO_MAX];
        VfioUserRegionInfo info;
        size_t size;
        int r = get_region(s, WORKER_REGION_MAILBOX, reply, sizeof reply, &size, &s->device->mailbox_fd);

        if (r < 0)
                return r;
        memcpy(&info, reply, sizeof info);
        if (info.size != 0 &&
            (info.size != WORKER_MAILBOX_SIZE || info.offset != 0 || s->device->mailbox_fd < 0))
                return fail(s, -ENODEV, "region %u is no mailbox", WORKER_REGION_MAILBOX);
        return 0;
}

static int look_at_device(Setup *s)
{
        VfioUserDeviceInfo info = {.argsz = sizeof info};
        ChannelCall call = {
                .command = VFIO_USER_DEVICE_GET_INFO,
                .out = {{&info, sizeof info}},
                .reply = &info,
                .room = sizeof info,
        };
        int r = channel_call(s->device->channel, &call);

        if (r == 0 && call.size < sizeof info)
                r = -EPROTO;
        if (r < 0)
                return fail(s, r, "DEVICE_GET_INFO");
        if (info.num_regions <= WORKER_REGION_CONFIG || info.num_irqs <= WORKER_IRQ_INDEX)
                return fail(s, -ENODEV, "it is no worker");
        r = check_region(s, WORKER_REGION_REGISTERS, WORKER_REGISTERS_SIZE);
        if (r == 0)
                r = check_region(s, WORKER_REGION_CONFIG, WORKER_CONFIG_SIZE);
        if (r == 0)
                r = map_window(s);
        return r < 0 ? r : find_mailbox(s);
}

/* ---- interrupts and memory ----------------------------------------------------------------------------------- */

static int set_irqs(Setup *s)
{
        Device *d = s->device;
        VfioUserIrqInfo info = {.argsz = sizeof info, .index = WORKER_IRQ_INDEX};
        VfioUserSetIrqs set = {.argsz = sizeof set,
                               .flags = VFIO_USER_IRQ_DATA_EVENTFD | VFIO_USER_IRQ_ACTION_TRIGGER,
                               .index = WORKER_IRQ_INDEX,
                               .count = DEVICE_VECTORS_MAX};
        ChannelCall get_call = {
                .command = VFIO_USER_DEVICE_GET_IRQ_INFO,
                .out = {{&info, sizeof info}},
                .reply = &info,
                .room = sizeof info,
        };
        ChannelCall set_call = {
                .command = VFIO_USER_DEVICE_SET_IRQS,
                .out = {{&set, sizeof set}},
                .n_fds = DEVICE_VECTORS_MAX,
        };
        int r = channel_call(d->channel, &get_call);

        if (r < 0)
                return fail(s, r, "IRQ_INFO");
        if (info.count < DEVICE_VECTORS_MAX || !(info.flags & VFIO_USER_IRQ_FLAG_EVENTFD))
                return fail(s, -ENODEV, "it has not the interrupts of a worker");
        for (unsigned i = 0; i < DEVICE_VECTORS_MAX; i++) {
                d->interrupts[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
                if (d->interrupts[i] < 0)
                        return fail(s, -errno, "eventfd");
                set_call.fds[i] = d->interrupts[i];
        }
        r = channel_call(d->channel, &set_call);
        return r < 0 ? fail(s, r, "SET_IRQS") : 0;
}

/* `fd` is -1 for what the device reaches by message only. */
static int map_dma(Device *d, uint64_t address, uint64_t size, int fd, uint64_t offset)
{
        VfioUserDmaMap map = {.argsz = sizeof map,
                              .flags = VFIO_USER_DMA_READABLE | VFIO_USER_DMA_WRITEABLE,
                              .offset = offset,
                              .address = address,
                              .size = size};
        ChannelCall call = {
                .command = VFIO_USER_DMA_MAP,
                .out = {{&map, sizeof map}},
                .fds = {fd},
                .n_fds = fd < 0 ? 0 : 1,
        };

        return channel_call(d->channel, &call);
}

static int map_memory(Setup *s)
{
        Device *d = s->device;

        for (unsigned i = 0; i < RAM_AREAS; i++) {
                const RamArea *area = &d->ram->areas[i];
                bool by_message = area->by_message;
                int r = map_dma(d, area->address, area->size, by_message ? -1 : d->ram->fd,
                                by_message ? 0 : area->offset);

                if (r < 0)
                        return fail(s, r, "DMA_MAP of area %u", i);
        }
        return 0;
}

/* ---- life ---------------------------------------------------------------------------------------------------- */

/* A server that is about to listen, or has another client for a moment yet. */
static bool may_come(int r)
{
        return r == -ENOENT || r == -ECONNREFUSED || r == -EAGAIN || r == -ECONNRESET;
}

static int connect_once(Setup *s, const char *path, uint64_t deadline_usec, int cancel_fd)
{
        Device *d = s->device;
        int r = channel_new(path, d->ram, &d->channel);

        if (r < 0)
                return r;
        channel_limit(d->channel, deadline_usec, cancel_fd);
        r = negotiate(s);
        if (r < 0)
                d->channel = channel_free(d->channel);
        return r;
}

static int connect_device(Setup *s, const char *path, uint64_t deadline_usec, int cancel_fd)
{
        struct pollfd cancel = {cancel_fd, POLLIN};

        for (;;) {
                int r = connect_once(s, path, deadline_usec, cancel_fd);

                if (r == 0)
                        return 0;
                if (!may_come(r) || clock_monotonic_usec() >= deadline_usec)
                        return fail(s, r, "%s", path);
                if (poll(&cancel, 1, RETRY_MSEC) > 0)
                        return fail(s, -ECANCELED, "%s", path);
        }
}

int device_new(const char *id, const char *path, Ram *ram, uint64_t deadline_usec, int cancel_fd,
               Device **ret, char *text, size_t text_size)
{
        _cleanup_(device_freep) Device *d = calloc(1, sizeof *d);
        Setup setup = {d, text, text_size};
        int r;

        if (!d)
                return -ENOMEM;
        (void) snprintf(d->id, sizeof d->id, "%s", id);
        d->ram = ram;
        d->mailbox_fd = -1;
        for (unsigned i = 0; i < DEVICE_VECTORS_MAX; i++)
                d->interrupts[i] = -1;
        r = connect_device(&setup, path, deadline_usec, cancel_fd);
        if (r == 0)
                r = look_at_device(&setup);
        if (r == 0)
                r = set_irqs(&setup);
        if (r == 0)
                r = map_memory(&setup);
        if (r < 0)
                return r;
        channel_unlimit(d->channel);
        *ret = TAKE_PTR(d);
        return 0;
}

void device_disconnect(Device *d)
{
        channel_shutdown(d->channel);
}

Device *device_free(Device *d)
{
        if (!d)
                return NULL;
        (void) channel_free(d->channel);
        if (d->window)
                (void) munmap(d->window, d->window_size);
        for (unsigned i = 0; i < DEVICE_VECTORS_MAX; i++)
                closep(&d->interrupts[i]);
        closep(&d->mailbox_fd);
        free(d);
        return NULL;
}

const char *device_id(const Device *d)
{
        return d->id;
}

/* ---- what the guest does ------------------------------------------------------------------------------------- */

int device_read(Device *d, uint32_t region, uint64_t offset, void *ret, uint32_t n)
{
        VfioUserRegionAccess access = {offset, region, n};
        uint8_t reply[sizeof access + WORKER_REGISTERS_SIZE];
        ChannelCall call = {
                .command = VFIO_USER_REGION_READ,
                .out = {{&access, sizeof access}},
                .reply = reply,
                .room = sizeof access + n,
        };
        int r;

        if (n > WORKER_REGISTERS_SIZE)
                return -EMSGSIZE;
        r = channel_call(d->channel, &call);
        if (r < 0)
                return r;
        if (call.size != sizeof access + n || memcmp(reply, &access, sizeof access) != 0)
                return -EPROTO;
        memcpy(ret, reply + sizeof access, n);
        return 0;
}

int device_write(Device *d, uint32_t region, uint64_t offset, const void *data, uint32_t n)
{
        VfioUserRegionAccess access = {offset, region, n}, reply;
        ChannelCall call = {
                .command = VFIO_USER_REGION_WRITE,
                .out = {{&access, sizeof access}, {(void *) data, n}},
                .reply = &reply,
                .room = sizeof reply,
        };

        return channel_call(d->channel, &call);
}

int device_post(Device *d, uint32_t region, uint64_t offset, const void *data, uint32_t n)
{
        VfioUserRegionAccess access = {offset, region, n};
        ChannelCall call = {
                .command = VFIO_USER_REGION_WRITE,
                .out = {{&access, sizeof access}, {(void *) data, n}},
        };

        return channel_post(d->channel, &call);
}

int device_reset(Device *d)
{
        ChannelCall call = {.command = VFIO_USER_DEVICE_RESET};

        return channel_call(d->channel, &call);
}

int device_map_peer(Device *d, const Device *peer, uint64_t address)
{
        int r;

        if (d->mailbox_fd < 0 || peer->mailbox_fd < 0)
                return 0;
        r = map_dma(d, address, WORKER_MAILBOX_SIZE, peer->mailbox_fd, 0);
        if (r == 0)
                d->peer_address = address;
        return r;
}

uint64_t device_peer_address(const Device *d)
{
        return d->peer_address;
}

volatile uint8_t *device_window(Device *d)
{
        return d->window;
}

int device_interrupt_fd(const Device *d, unsigned vector)
{
        return d->interrupts[vector];
}

uint64_t device_take_interrupts(Device *d, unsigned vector)
{
        eventfd_t n = 0;

        return eventfd_read(d->interrupts[vector], &n) < 0 ? 0 : n;
}

uint64_t device_pending_interrupts(Device *d, unsigned vector)
{
        /* An eventfd can't be looked into: its count is taken and put back. */
        uint64_t n = device_take_interrupts(d, vector);

        device_add_interrupts(d, vector, n);
        return n;
}

void device_add_interrupts(Device *d, unsigned vector, uint64_t n)
{
        if (n > 0)
                (void) eventfd_write(d->interrupts[vector], n);
}
