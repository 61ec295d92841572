/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vfio-device.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "call-worker.h"
#include "vfio-arc.h"
#include "vfio-uapi.h"

/* The largest of what goes in or out with a feature. */
#define FEATURE_DATA_MAX 64

typedef struct VfioDevice VfioDevice;
typedef struct Call Call;

typedef enum CallKind {
        CALL_ALONE,
        CALL_TRANSFER,
        CALL_REPORT,
} CallKind;

/* One thing that is asked of the kernel. What the thread needs and finds is in it; the rest is the loop's. */
struct Call {
        WorkerCall worker;
        VfioDevice *device;
        Call *next; /* of the device, in the order in which they were asked */
        CallKind kind;
        bool dropped; /* nobody waits for it any more */
        int fd;       /* the device's, or its data file */
        int status;
        const char *text;      /* more than errno says, or NULL */
        VfioArc arc;           /* SET; GET: `from` */
        DeviceState read_back; /* SET: in the same breath */
        int data_fd;           /* that a SET has brought, or -1 */
        DeviceFacts facts;
        void *data; /* the asker's */
        size_t size, done;
        bool runs; /* it is in a pre-copy state */
        struct vfio_precopy_info left;
        void *kept; /* the mapping around `data`: it has become ours */
        size_t kept_size;
        uint64_t address, length, page_size;
        uint64_t *bitmap;
        void (*answer)(Call *call); /* in the loop; not when it was dropped */
        DeviceDone on_done;
        DeviceGot on_got;
        DeviceRead on_read;
        DeviceReported on_reported;
        void *userdata;
};

struct VfioDevice {
        AgentDevice device;
        CallWorker *worker;
        int fd, data_fd;
        DeviceState state;     /* as last read or set */
        DeviceState read_back; /* behind the call that was answered last, if that was a SET; or UNKNOWN */
        bool load_failed;      /* a write of state since it went to RESUMING */
        Call *calls;
        uint64_t initial_left, dirty_left; /* of the pre-copy, as last heard */
        const char *text;                  /* of the last failure, or NULL */
};

/* ---- in the thread ------------------------------------------------------------------------------------------- */

static int feature(int fd, uint32_t flags, void *data, size_t size)
{
        union {
                struct vfio_device_feature head;
                uint8_t bytes[sizeof(struct vfio_device_feature) + FEATURE_DATA_MAX];
        } __attribute__((aligned(8))) arg = {};

        arg.head.argsz = (uint32_t) (sizeof arg.head + size);
        arg.head.flags = flags;
        if (size > 0)
                memcpy(arg.head.data, data, size);
        if (ioctl(fd, VFIO_DEVICE_FEATURE, &arg) < 0)
                return -errno;
        if (size > 0)
                memcpy(data, arg.head.data, size);
        return 0;
}

static int get_state(int fd, DeviceState *ret)
{
        struct vfio_device_feature_mig_state state = {.device_state = UINT32_MAX, .data_fd = -1};
        int r = feature(fd, VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, &state,
                        sizeof state);

        if (r < 0)
                return r;
        if (state.device_state > DEVICE_STATE_PRE_COPY_P2P)
                return -EPROTO;
        *ret = (DeviceState) state.device_state;
        return 0;
}

static void run_get(WorkerCall *worker)
{
        Call *call = (Call *) worker;

        call->status = get_state(call->fd, &call->arc.from);
}

/* Somebody else may have moved it since it was last read: only what it reads now can be judged. */
static void run_set(WorkerCall *worker)
{
        Call *call = (Call *) worker;
        struct vfio_device_feature_mig_state state = {.device_state = (uint32_t) call->arc.to, .data_fd = -1};

        call->status = get_state(call->fd, &call->arc.from);
        if (call->status == 0)
                call->status = vfio_arc_judge(&call->arc, &call->text);
        if (call->status < 0 || call->arc.from == call->arc.to)
                return;
        call->status = feature(call->fd, VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
                               &state, sizeof state);
        if (call->status < 0)
                return;
        call->data_fd = state.data_fd;
        if ((call->data_fd >= 0) == vfio_arc_opens_data(&call->arc)) {
                (void) get_state(call->fd, &call->read_back);
                return;
        }
        call->status = -EPROTO;
        call->text = call->data_fd >= 0 ? "the kernel gave a data file that was not due"
                                        : "the kernel gave no data file";
}

static void run_reset(WorkerCall *worker)
{
        Call *call = (Call *) worker;

        call->status = ioctl(call->fd, VFIO_DEVICE_RESET) < 0 ? -errno : 0;
}

/* An ioctl on a file of another kind could mean anything there. */
static bool is_vfio_device(int fd)
{
        char path[64], link[128];
        ssize_t n;

        (void) snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        n = readlink(path, link, sizeof link - 1);
        if (n < 0)
                return false;
        link[n] = 0;
        return streq(link, "anon_inode:[vfio-device]") || strncmp(link, "/dev/vfio/devices/", 18) == 0;
}

static bool can_log(int fd)
{
        return feature(fd,
                       VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_SET |
                               VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
                       NULL, 0) == 0 &&
               feature(fd,
                       VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_SET |
                               VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP,
                       NULL, 0) == 0 &&
               feature(fd,
                       VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_GET |
                               VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
                       NULL, 0) == 0;
}

static int region(int fd, uint32_t index, struct vfio_region_info *ret)
{
        *ret = (struct vfio_region_info){.argsz = sizeof *ret, .index = index};
        return ioctl(fd, VFIO_DEVICE_GET_REGION_INFO, ret) < 0 ? -errno : 0;
}

/* What can't be read is not known; it is no reason to refuse the device here. */
static void look_at_identity(int fd, DeviceIdentity *ret)
{
        struct vfio_device_feature_mig_data_size size = {};
        DeviceWindows windows = DEVICE_WINDOWS_NONE;
        struct vfio_region_info info;
        ssize_t n = 0;

        for (uint32_t i = VFIO_PCI_BAR0_REGION_INDEX; i <= VFIO_PCI_BAR5_REGION_INDEX; i++)
                if (region(fd, i, &info) < 0)
                        return; /* every PCI device has these, if only empty ones */
                else if (info.size > 0 && (info.flags & VFIO_REGION_INFO_FLAG_MMAP))
                        windows = DEVICE_WINDOWS_SOME;
        ret->windows = windows;
        if (region(fd, VFIO_PCI_CONFIG_REGION_INDEX, &info) == 0 &&
            (info.flags & VFIO_REGION_INFO_FLAG_READ) && info.size >= sizeof ret->config)
                n = pread(fd, ret->config, sizeof ret->config, (off_t) info.offset);
        ret->n_config = n == (ssize_t) sizeof ret->config ? sizeof ret->config : 0;
        if (feature(fd, VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIG_DATA_SIZE, &size, sizeof size) == 0)
                ret->state_bytes = size.stop_copy_length;
}

static int look(Call *call)
{
        struct vfio_device_info info = {.argsz = sizeof info};
        struct vfio_device_feature_migration migration = {};
        DeviceFacts *facts = &call->facts;
        int r;

        if (!is_vfio_device(call->fd)) {
                call->text = "that is no file of a VFIO device";
                return -EBADF;
        }
        if (ioctl(call->fd, VFIO_DEVICE_GET_INFO, &info) < 0) {
                call->text = "the kernel does not say what device it is: is it bound to no iommufd?";
                return -errno;
        }
        if (info.flags & VFIO_DEVICE_FLAGS_PCI)
                look_at_identity(call->fd, &facts->identity);
        r = feature(call->fd, VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIGRATION, &migration,
                    sizeof migration);
        /* "VFIO_DEVICE_FEATURE_MIGRATION": every migration has STOP_COPY. */
        if (r == -ENOTTY || (r == 0 && !(migration.flags & VFIO_MIGRATION_STOP_COPY)))
                return 0;
        if (r < 0)
                return r;
        facts->flags |= (uint32_t) migration.flags & DEVICE_MIGRATION_MASK;
        if (can_log(call->fd))
                facts->flags |= DEVICE_DMA_LOGGING;
        return get_state(call->fd, &facts->state);
}

static void run_open(WorkerCall *worker)
{
        Call *call = (Call *) worker;

        call->status = look(call);
}

/* "VFIO_DEVICE_STATE_PRE_COPY": nothing at the moment is said by 0, or by ENOMSG. */
static void run_read(WorkerCall *worker)
{
        Call *call = (Call *) worker;
        ssize_t n;

        do
                n = read(call->fd, call->data, call->size);
        while (n < 0 && errno == EINTR);
        if (n < 0 && errno == ENOMSG && call->runs)
                n = 0;
        call->status = n < 0 ? -errno : 0;
        call->done = n < 0 ? 0 : (size_t) n;
        if (!call->runs || n < 0)
                return;
        call->left.argsz = sizeof call->left;
        if (ioctl(call->fd, VFIO_MIG_GET_PRECOPY_INFO, &call->left) < 0)
                call->left = (struct vfio_precopy_info){}; /* it has just left the state */
}

static void run_write(WorkerCall *worker)
{
        Call *call = (Call *) worker;

        while (call->done < call->size) {
                ssize_t n =
                        write(call->fd, (const uint8_t *) call->data + call->done, call->size - call->done);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0) {
                        call->status = n < 0 ? -errno : -EIO;
                        return;
                }
                call->done += (size_t) n;
        }
}

static void run_log_start(WorkerCall *worker)
{
        Call *call = (Call *) worker;
        struct vfio_device_feature_dma_logging_range ranges[DEVICE_MEMORY_MAX];
        struct vfio_device_feature_dma_logging_control control = {.page_size = call->page_size,
                                                                  .num_ranges = call->facts.n_memory,
                                                                  .ranges = (uintptr_t) ranges};

        for (uint32_t i = 0; i < call->facts.n_memory; i++)
                ranges[i] = (struct vfio_device_feature_dma_logging_range){call->facts.memory[i].address,
                                                                           call->facts.memory[i].size};
        call->status = feature(call->fd, VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
                               &control, sizeof control);
}

static void run_log_stop(WorkerCall *worker)
{
        Call *call = (Call *) worker;

        call->status =
                feature(call->fd, VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, NULL, 0);
}

static void run_log_report(WorkerCall *worker)
{
        Call *call = (Call *) worker;
        struct vfio_device_feature_dma_logging_report report = {.iova = call->address,
                                                                .length = call->length,
                                                                .page_size = call->page_size,
                                                                .bitmap = (uintptr_t) call->bitmap};

        call->status = feature(call->fd, VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
                               &report, sizeof report);
}

/* ---- calls --------------------------------------------------------------------------------------------------- */

static void call_free(Call *call)
{
        if (call->data_fd >= 0)
                (void) close(call->data_fd);
        if (call->kept)
                (void) munmap(call->kept, call->kept_size);
        free(call->bitmap);
        free(call);
}

static void on_drop(WorkerCall *worker)
{
        call_free((Call *) worker);
}

static void unlist(Call *call)
{
        for (Call **p = &call->device->calls; *p; p = &(*p)->next)
                if (*p == call) {
                        *p = call->next;
                        return;
                }
}

static void close_data(VfioDevice *device)
{
        if (device->data_fd >= 0)
                (void) close(device->data_fd);
        device->data_fd = -1;
        device->initial_left = device->dirty_left = 0;
}

/* A SET that comes late has happened all the same. */
static void take_set(VfioDevice *device, Call *call)
{
        if (call->status == -EPROTO) /* what it reads, the next GET says */
                device->state = DEVICE_STATE_UNKNOWN;
        if (call->status < 0)
                return;
        device->state = call->arc.to;
        device->read_back = call->read_back;
        if (call->read_back != DEVICE_STATE_UNKNOWN && !call->dropped)
                agent_device_see(&device->device, call->read_back, false);
        if (!vfio_arc_keeps_data(&call->arc))
                close_data(device);
        if (call->data_fd >= 0) {
                device->data_fd = TAKE_FD(call->data_fd);
                device->load_failed = false;
        }
}

static void on_called(WorkerCall *worker)
{
        Call *call = (Call *) worker;
        VfioDevice *device = call->device;

        unlist(call);
        device->text = call->status < 0 ? call->text : NULL;
        device->read_back = DEVICE_STATE_UNKNOWN;
        if (call->worker.run == run_set)
                take_set(device, call);
        if (call->worker.run == run_reset && call->status == 0) {
                close_data(device);
                device->load_failed = false;
                device->state = DEVICE_STATE_UNKNOWN;
        }
        if (call->worker.run == run_write && call->status < 0)
                device->load_failed = true;
        if (!call->dropped)
                call->answer(call); /* may free the device: nothing of it after that */
        call_free(call);
}

static Call *call_new(VfioDevice *device, CallKind kind, void (*run)(WorkerCall *), void (*answer)(Call *),
                      void *userdata)
{
        Call *call = calloc(1, sizeof *call);

        if (!call)
                return NULL;
        *call = (Call){.worker = {.run = run, .done = on_called, .drop = on_drop},
                       .device = device,
                       .kind = kind,
                       .fd = device->fd,
                       .data_fd = -1,
                       .read_back = DEVICE_STATE_UNKNOWN,
                       .answer = answer,
                       .userdata = userdata};
        return call;
}

static int call_begin(Call *call)
{
        Call **last = &call->device->calls;

        while (*last)
                last = &(*last)->next;
        *last = call;
        call_worker_do(call->device->worker, &call->worker);
        return 0;
}

static void answer_done(Call *call)
{
        call->on_done(call->userdata, call->status);
}

static int ask(AgentDevice *agent_device, void (*run)(WorkerCall *), DeviceDone on_done, void *userdata)
{
        Call *call = call_new((VfioDevice *) agent_device, CALL_ALONE, run, answer_done, userdata);

        if (!call)
                return -ENOMEM;
        call->on_done = on_done;
        return call_begin(call);
}

/* ---- states -------------------------------------------------------------------------------------------------- */

static void answer_get(Call *call)
{
        DeviceState state = call->status == 0 ? call->arc.from : DEVICE_STATE_UNKNOWN;

        call->device->state = state;
        agent_device_see(&call->device->device, state, false);
        call->on_got(call->userdata, call->status, state);
}

static int device_get(AgentDevice *agent_device, DeviceGot on_got, void *userdata)
{
        Call *call = call_new((VfioDevice *) agent_device, CALL_ALONE, run_get, answer_get, userdata);

        if (!call)
                return -ENOMEM;
        call->on_got = on_got;
        return call_begin(call);
}

static int device_set(AgentDevice *agent_device, DeviceState state, DeviceDone on_done, void *userdata)
{
        VfioDevice *device = (VfioDevice *) agent_device;
        Call *call = call_new(device, CALL_ALONE, run_set, answer_done, userdata);

        if (!call)
                return -ENOMEM;
        call->arc = (VfioArc){
                .to = state, .flags = agent_device->facts.flags, .load_failed = device->load_failed};
        call->on_done = on_done;
        agent_device_see(agent_device, state, true);
        return call_begin(call);
}

static int device_reset(AgentDevice *device, DeviceDone on_done, void *userdata)
{
        return ask(device, run_reset, on_done, userdata);
}

static void answer_open(Call *call)
{
        if (call->status == 0) {
                call->device->device.facts.identity = call->facts.identity;
                call->device->device.facts.flags = call->facts.flags;
                call->device->device.facts.state = call->facts.state;
                call->device->state = call->facts.state;
        }
        call->on_done(call->userdata, call->status);
}

static int device_open(AgentDevice *agent_device, DeviceDone on_done, void *userdata)
{
        Call *call = call_new((VfioDevice *) agent_device, CALL_ALONE, run_open, answer_open, userdata);

        if (!call)
                return -ENOMEM;
        call->facts = agent_device->facts;
        call->on_done = on_done;
        return call_begin(call);
}

/* ---- DMA log ------------------------------------------------------------------------------------------------- */

static int device_log_start(AgentDevice *agent_device, uint64_t page_size, DeviceDone on_done, void *userdata)
{
        Call *call = call_new((VfioDevice *) agent_device, CALL_ALONE, run_log_start, answer_done, userdata);

        if (!call)
                return -ENOMEM;
        call->facts = agent_device->facts;
        call->page_size = page_size;
        call->on_done = on_done;
        return call_begin(call);
}

static int device_log_stop(AgentDevice *device, DeviceDone on_done, void *userdata)
{
        return ask(device, run_log_stop, on_done, userdata);
}

static void answer_report(Call *call)
{
        call->on_reported(call->userdata, call->status, call->status == 0 ? call->bitmap : NULL);
}

static int device_log_report(AgentDevice *agent_device, uint64_t address, uint64_t size, uint64_t page_size,
                             DeviceReported on_reported, void *userdata)
{
        uint64_t n_pages = size / page_size + (size % page_size != 0);
        Call *call =
                call_new((VfioDevice *) agent_device, CALL_REPORT, run_log_report, answer_report, userdata);

        if (!call)
                return -ENOMEM;
        call->bitmap = calloc((size_t) ((n_pages + 63) / 64), sizeof *call->bitmap);
        if (!call->bitmap) {
                call_free(call);
                return -ENOMEM;
        }
        call->address = address;
        call->length = size;
        call->page_size = page_size;
        call->on_reported = on_reported;
        return call_begin(call);
}

/* ---- data ---------------------------------------------------------------------------------------------------- */

static int begin_transfer(AgentDevice *agent_device, Call *call, void *data, size_t size)
{
        VfioDevice *device = (VfioDevice *) agent_device;
        uint32_t n = 0;

        if (!call)
                return -ENOMEM;
        for (const Call *other = device->calls; other; other = other->next)
                n += other->kind == CALL_TRANSFER && !other->dropped;
        if (n >= DEVICE_TRANSFERS_MAX || size > agent_device->facts.transfer_max || device->data_fd < 0) {
                call_free(call);
                return device->data_fd < 0 ? -EBADF : -ENOBUFS;
        }
        call->fd = device->data_fd;
        call->data = data;
        call->size = size;
        return call_begin(call);
}

static void answer_read(Call *call)
{
        call->device->initial_left = call->left.initial_bytes;
        call->device->dirty_left = call->left.dirty_bytes;
        call->on_read(call->userdata, call->status, call->done);
}

static int device_read(AgentDevice *agent_device, void *data, size_t size, DeviceRead on_read, void *userdata)
{
        VfioDevice *device = (VfioDevice *) agent_device;
        Call *call = call_new(device, CALL_TRANSFER, run_read, answer_read, userdata);

        if (call) {
                call->on_read = on_read;
                call->runs =
                        device->state == DEVICE_STATE_PRE_COPY || device->state == DEVICE_STATE_PRE_COPY_P2P;
        }
        return begin_transfer(agent_device, call, data, size);
}

static int device_write(AgentDevice *agent_device, const void *data, size_t size, DeviceDone on_done,
                        void *userdata)
{
        Call *call = call_new((VfioDevice *) agent_device, CALL_TRANSFER, run_write, answer_done, userdata);

        if (call)
                call->on_done = on_done;
        return begin_transfer(agent_device, call, (void *) data, size);
}

/* ---- life ---------------------------------------------------------------------------------------------------- */

static void abandon(VfioDevice *device, bool all)
{
        for (Call *call = device->calls, *next; call; call = next) {
                next = call->next;
                if (call->kind == CALL_REPORT || (call->kind == CALL_ALONE && !all))
                        continue;
                /* Of a state that was written in part nobody knows what the device holds. */
                device->load_failed |= call->worker.run == run_write;
                call->dropped = true;
                if (call_worker_withdraw(device->worker, &call->worker)) {
                        unlist(call);
                        call_free(call);
                }
        }
}

static void device_abandon(AgentDevice *device)
{
        abandon((VfioDevice *) device, true);
}

static void device_abandon_transfers(AgentDevice *device)
{
        abandon((VfioDevice *) device, false);
}

/* The last of them: they return in the order in which they began. */
static bool device_keeps(AgentDevice *agent_device, void *mapping, size_t size)
{
        Call *last = NULL;

        for (Call *call = ((VfioDevice *) agent_device)->calls; call; call = call->next)
                if (call->dropped && call->data && (uint8_t *) call->data >= (uint8_t *) mapping &&
                    (uint8_t *) call->data < (uint8_t *) mapping + size)
                        last = call;
        if (last) {
                last->kept = mapping;
                last->kept_size = size;
        }
        return last != NULL;
}

static uint64_t device_left(const AgentDevice *agent_device, bool *ret_initial)
{
        const VfioDevice *device = (const VfioDevice *) agent_device;

        *ret_initial = device->initial_left > 0;
        return device->initial_left + device->dirty_left;
}

static DeviceState device_read_back(const AgentDevice *agent_device)
{
        return ((const VfioDevice *) agent_device)->read_back;
}

static const char *device_explain(const AgentDevice *agent_device)
{
        const char *text = ((const VfioDevice *) agent_device)->text;

        return text ? text : "";
}

/* Nothing works on it any more. */
static void destroy(void *userdata)
{
        VfioDevice *device = userdata;

        close_data(device);
        (void) close(device->fd);
        free(device);
}

static AgentDevice *device_free(AgentDevice *agent_device)
{
        VfioDevice *device = (VfioDevice *) agent_device;

        abandon(device, true);
        for (Call *call = device->calls, *next; call; call = next) {
                next = call->next;
                if (call->kind == CALL_REPORT && !call->dropped) {
                        call->dropped = true;
                        call->on_reported(call->userdata, -ENODEV, NULL);
                }
        }
        call_worker_free(device->worker, destroy, device);
        return NULL;
}

int vfio_device_new(struct event_base *base, int fd, bool supervised, const DeviceMemory *memory,
                    uint32_t n_memory, DeviceGone on_gone, void *userdata, AgentDevice **ret)
{
        static const AgentDeviceOps ops = {
                .free = device_free,
                .open = device_open,
                .get = device_get,
                .set = device_set,
                .reset = device_reset,
                .log_start = device_log_start,
                .log_stop = device_log_stop,
                .log_report = device_log_report,
                .read = device_read,
                .write = device_write,
                .abandon = device_abandon,
                .abandon_transfers = device_abandon_transfers,
                .keeps = device_keeps,
                .left = device_left,
                .explain = device_explain,
                .read_back = device_read_back,
        };
        VfioDevice *device = calloc(1, sizeof *device);
        int r;

        if (!device) {
                (void) close(fd);
                return -ENOMEM;
        }
        device->device = (AgentDevice){
                .ops = &ops,
                .facts = {.flags = DEVICE_KERNEL | (supervised ? (uint32_t) DEVICE_SUPERVISED : 0),
                          .state = DEVICE_STATE_UNKNOWN,
                          .transfer_max = DEVICE_TRANSFER_MAX,
                          .n_memory = MIN(n_memory, (uint32_t) DEVICE_MEMORY_MAX)},
                .on_gone = on_gone,
                .gone_userdata = userdata};
        memcpy(device->device.facts.memory, memory, device->device.facts.n_memory * sizeof *memory);
        device->fd = fd;
        device->data_fd = -1;
        device->state = device->read_back = DEVICE_STATE_UNKNOWN;
        r = call_worker_new(base, &device->worker);
        if (r < 0) {
                destroy(device);
                return r;
        }
        *ret = &device->device;
        return 0;
}
