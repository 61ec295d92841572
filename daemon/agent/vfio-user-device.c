/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vfio-user-device.h"

#include "common/json.h"
#include "vfio-user-client.h"

#define VERSION_MAX     65536 /* bytes of a VERSION reply's text */
#define REGION_CAPS_MAX 4096  /* bytes of capabilities that a server may say unasked */

/* What we say of ourselves, and with it of any VMM behind the broker. One file at least, or the server can't grant
 * twin_socket. */
static const char capabilities[] =
        "{\"capabilities\":{\"max_msg_fds\":16,\"max_data_xfer_size\":1048576,\"pgsizes\":4096,"
        "\"write_multiple\":true,\"twin_socket\":{\"supported\":true}}}";

/* A device that can log its DMA has all three. */
static const uint32_t logging_probes[] = {
        VFIO_USER_FEATURE_PROBE | VFIO_USER_FEATURE_SET | VFIO_USER_FEATURE_DMA_LOGGING_START,
        VFIO_USER_FEATURE_PROBE | VFIO_USER_FEATURE_SET | VFIO_USER_FEATURE_DMA_LOGGING_STOP,
        VFIO_USER_FEATURE_PROBE | VFIO_USER_FEATURE_GET | VFIO_USER_FEATURE_DMA_LOGGING_REPORT,
};

static const AgentDeviceOps ops;

/* One open read or write. */
typedef struct Transfer {
        VfioUserDevice *device;
        bool busy;
        size_t size;
        VfioUserMigData request, reply;
        DeviceRead on_read;
        DeviceDone on_done;
        void *userdata;
} Transfer;

struct VfioUserDevice {
        AgentDevice device;
        VfioUserClient *client;
        Transfer transfers[DEVICE_TRANSFERS_MAX];
        /* the one other operation */
        VfioUserVersion version, version_reply;
        char *version_text;
        VfioUserFeature feature, feature_reply;
        union { /* what goes out with a feature */
                VfioUserFeatureState state;
                VfioUserFeatureLogStart log;
        } data, data_reply;
        VfioUserFeatureState state_reply;
        VfioUserFeatureMigration migration_reply;
        size_t n_probed; /* of the features for DMA logging */
        uint32_t region; /* the next one that is looked at */
        bool refused;    /* one was not told of */
        VfioUserRegionInfo region_info, region_reply;
        uint8_t capabilities[REGION_CAPS_MAX]; /* of a region; of no interest */
        VfioUserRegionAccess access, access_reply;
        DeviceDone on_done;
        void *done_userdata;
        DeviceGot on_got;
        void *got_userdata;
};

static void on_client_gone(void *userdata, int status, const char *text)
{
        VfioUserDevice *device = userdata;

        device->device.on_gone(device->device.gone_userdata, status, text);
}

int vfio_user_device_new(struct event_base *base, int fd, DeviceGone on_gone, void *userdata,
                         AgentDevice **ret)
{
        VfioUserDevice *device = calloc(1, sizeof *device);
        int r;

        if (!device) {
                (void) close(fd);
                return -ENOMEM;
        }
        for (size_t i = 0; i < DEVICE_TRANSFERS_MAX; i++)
                device->transfers[i].device = device;
        device->device = (AgentDevice){.ops = &ops, .on_gone = on_gone, .gone_userdata = userdata};
        r = vfio_user_client_new(base, fd, on_client_gone, device, &device->client);
        if (r < 0) {
                free(device);
                return r;
        }
        *ret = &device->device;
        return 0;
}

static AgentDevice *device_free(AgentDevice *agent_device)
{
        VfioUserDevice *device = (VfioUserDevice *) agent_device;

        vfio_user_client_free(device->client);
        free(device->version_text);
        free(device);
        return NULL;
}

VfioUserDevice *vfio_user_device_of(AgentDevice *device)
{
        return device && device->ops == &ops ? (VfioUserDevice *) device : NULL;
}

VfioUserClient *vfio_user_device_client(VfioUserDevice *device)
{
        return device->client;
}

const char *vfio_user_device_version(const VfioUserDevice *device, uint16_t *ret_minor)
{
        *ret_minor = device->version_reply.minor;
        return device->version_text;
}

static void device_abandon_transfers(AgentDevice *agent_device)
{
        VfioUserDevice *device = (VfioUserDevice *) agent_device;
        vfio_user_client_abandon(device->client, device->transfers);
        for (size_t i = 0; i < DEVICE_TRANSFERS_MAX; i++)
                device->transfers[i].busy = false;
}

static void device_abandon(AgentDevice *agent_device)
{
        VfioUserDevice *device = (VfioUserDevice *) agent_device;
        vfio_user_client_abandon(device->client, device);
        device_abandon_transfers(&device->device);
}

/* ---- DEVICE_FEATURE ------------------------------------------------------------------------------------------ */

static int call_feature(VfioUserDevice *device, uint32_t flags, size_t out_size, void *in, size_t in_size,
                        VfioUserReply on_reply)
{
        VfioUserCall call = {
                .command = VFIO_USER_DEVICE_FEATURE,
                .owner = device,
                .out = {{&device->feature, sizeof device->feature}, {&device->data, out_size}},
                .n_out = out_size > 0 ? 2 : 1,
                .head = &device->feature_reply,
                .head_size = sizeof device->feature_reply,
                .data = in,
                .data_size = in_size,
                .least = sizeof device->feature_reply + in_size,
                .on_reply = on_reply,
                .userdata = device,
        };

        device->feature = (VfioUserFeature){
                .argsz = (uint32_t) (sizeof device->feature + MAX(in_size, out_size)), .flags = flags};
        return vfio_user_client_call(device->client, &call);
}

static void on_get_reply(void *userdata, int status, size_t size)
{
        VfioUserDevice *device = userdata;
        DeviceState state = DEVICE_STATE_UNKNOWN;

        if (status == 0 && device->state_reply.state > DEVICE_STATE_PRE_COPY_P2P)
                status = -EPROTO;
        if (status == 0)
                state = (DeviceState) device->state_reply.state;
        agent_device_see(&device->device, state, false);
        device->on_got(device->got_userdata, status, state);
}

static int device_get(AgentDevice *agent_device, DeviceGot on_got, void *userdata)
{
        VfioUserDevice *device = (VfioUserDevice *) agent_device;
        device->on_got = on_got;
        device->got_userdata = userdata;
        return call_feature(device, VFIO_USER_FEATURE_GET | VFIO_USER_FEATURE_MIG_DEVICE_STATE, 0,
                            &device->state_reply, sizeof device->state_reply, on_get_reply);
}

static void on_done_reply(void *userdata, int status, size_t size)
{
        VfioUserDevice *device = userdata;

        device->on_done(device->done_userdata, status);
}

static int device_set(AgentDevice *agent_device, DeviceState state, DeviceDone on_done, void *userdata)
{
        VfioUserDevice *device = (VfioUserDevice *) agent_device;
        device->on_done = on_done;
        device->done_userdata = userdata;
        device->data.state = (VfioUserFeatureState){.state = (uint32_t) state, .data_fd = -1};
        agent_device_see(&device->device, state, true);
        return call_feature(device, VFIO_USER_FEATURE_SET | VFIO_USER_FEATURE_MIG_DEVICE_STATE,
                            sizeof device->data.state, &device->state_reply, sizeof device->state_reply,
                            on_done_reply);
}

static int device_log_start(AgentDevice *agent_device, uint64_t page_size, DeviceDone on_done, void *userdata)
{
        VfioUserDevice *device = (VfioUserDevice *) agent_device;
        device->on_done = on_done;
        device->done_userdata = userdata;
        device->data.log = (VfioUserFeatureLogStart){.page_size = page_size}; /* no ranges: everything */
        return call_feature(device, VFIO_USER_FEATURE_SET | VFIO_USER_FEATURE_DMA_LOGGING_START,
                            sizeof device->data.log, &device->data_reply, sizeof device->data.log,
                            on_done_reply);
}

static int device_log_stop(AgentDevice *agent_device, DeviceDone on_done, void *userdata)
{
        VfioUserDevice *device = (VfioUserDevice *) agent_device;
        device->on_done = on_done;
        device->done_userdata = userdata;
        return call_feature(device, VFIO_USER_FEATURE_SET | VFIO_USER_FEATURE_DMA_LOGGING_STOP, 0, NULL, 0,
                            on_done_reply);
}

/* Several may be open, beside any other operation and beyond the device's own end: a VMM may take memory away at any
 * time. */
typedef struct Report {
        VfioUserFeature feature;
        VfioUserFeatureLogReport asked;
        size_t bitmap_size;
        DeviceReported on_reported;
        void *userdata;
} Report;
static_assert(offsetof(Report, asked) == sizeof(VfioUserFeature), "what goes out stands together");

static int judge_report(const Report *report, const VfioUserMessage *reply)
{
        size_t head = sizeof report->feature + sizeof report->asked;

        if (vfio_user_message_payload(reply) < head + report->bitmap_size ||
            memcmp(reply->payload + sizeof report->feature, &report->asked, sizeof report->asked) != 0)
                return -EPROTO;
        return 0;
}

static void on_report_reply(void *userdata, int status, VfioUserMessage *reply)
{
        _cleanup_(freep) Report *report = userdata;

        if (status == 0)
                status = judge_report(report, reply);
        report->on_reported(
                report->userdata, status,
                status == 0 ? (const void *) (reply->payload + sizeof report->feature + sizeof report->asked)
                            : NULL);
        vfio_user_message_free(reply);
}

static int device_log_report(AgentDevice *agent_device, uint64_t address, uint64_t size, uint64_t page_size,
                             DeviceReported on_reported, void *userdata)
{
        VfioUserDevice *device = (VfioUserDevice *) agent_device;
        size_t n_pages = (size_t) (size / page_size + (size % page_size != 0));
        Report *report = calloc(1, sizeof *report);
        VfioUserCall call = {.command = VFIO_USER_DEVICE_FEATURE,
                             .n_out = 1,
                             .on_raw = on_report_reply,
                             .userdata = report};
        int r;

        if (!report)
                return -ENOMEM;
        report->bitmap_size = (n_pages + 63) / 64 * sizeof(uint64_t);
        report->asked = (VfioUserFeatureLogReport){address, size, page_size};
        report->feature = (VfioUserFeature){
                .argsz = (uint32_t) (sizeof report->feature + sizeof report->asked + report->bitmap_size),
                .flags = VFIO_USER_FEATURE_GET | VFIO_USER_FEATURE_DMA_LOGGING_REPORT};
        report->on_reported = on_reported;
        report->userdata = userdata;
        /* the two stand behind each other */
        call.out[0] = (struct iovec){&report->feature, sizeof report->feature + sizeof report->asked};
        r = vfio_user_client_call(device->client, &call);
        if (r < 0)
                free(report);
        return r;
}

static int device_reset(AgentDevice *agent_device, DeviceDone on_done, void *userdata)
{
        VfioUserDevice *device = (VfioUserDevice *) agent_device;
        VfioUserCall call = {.command = VFIO_USER_DEVICE_RESET,
                             .owner = device,
                             .on_reply = on_done_reply,
                             .userdata = device};

        device->on_done = on_done;
        device->done_userdata = userdata;
        return vfio_user_client_call(device->client, &call);
}

/* ---- opening ------------------------------------------------------------------------------------------------- */

static json_object *member(json_object *object, const char *name, json_type type)
{
        json_object *value = NULL;

        if (!json_object_is_type(object, json_type_object) ||
            !json_object_object_get_ex(object, name, &value) || !json_object_is_type(value, type))
                return NULL;
        return value;
}

static int take_twin(VfioUserDevice *device, json_object *twin)
{
        json_object *supported = member(twin, "supported", json_type_boolean);
        int fd = vfio_user_client_take_fd(device->client);

        if (!supported || !json_object_get_boolean(supported)) {
                if (fd >= 0)
                        (void) close(fd);
                return 0;
        }
        return fd < 0 ? -EPROTO : vfio_user_client_set_twin(device->client, fd);
}

/* The text may be missing; what we do not know in it is of no interest. */
static int take_capabilities(VfioUserDevice *device, size_t text_size)
{
        json_object *root, *caps, *value;
        int r = 0;

        if (text_size == 0) {
                device->version_text[0] = 0;
                return 0;
        }
        if (device->version_text[text_size - 1] != 0)
                return -EPROTO;
        root = json_parse_loosely(device->version_text);
        if (!json_object_is_type(root, json_type_object)) {
                json_object_put(root);
                return -EPROTO;
        }
        caps = member(root, "capabilities", json_type_object);
        value = member(caps, "max_data_xfer_size", json_type_int);
        if (value) {
                int64_t max = json_object_get_int64(value);

                if (max <= 0)
                        r = -EPROTO;
                else
                        device->device.facts.transfer_max =
                                MIN((size_t) max, device->device.facts.transfer_max);
        }
        value = member(caps, "twin_socket", json_type_object);
        if (r == 0 && value)
                r = take_twin(device, value);
        json_object_put(root);
        return r;
}

static void on_open_state(void *userdata, int status, DeviceState state)
{
        VfioUserDevice *device = userdata;

        device->device.facts.state = state;
        device->on_done(device->done_userdata, status);
}

static void probe_logging(VfioUserDevice *device, int status);

static void on_probe_reply(void *userdata, int status, size_t size)
{
        VfioUserDevice *device = userdata;

        device->n_probed++;
        probe_logging(device, status);
}

/* `status`: of the probe before. The first that is refused is the last: without one of them the others are of no use. */
static void probe_logging(VfioUserDevice *device, int status)
{
        int r;

        if (status == 0 && device->n_probed == ARRAY_SIZE(logging_probes))
                device->device.facts.flags |= DEVICE_DMA_LOGGING;
        if (status == 0 && device->n_probed < ARRAY_SIZE(logging_probes))
                r = call_feature(device, logging_probes[device->n_probed], 0, NULL, 0, on_probe_reply);
        else
                r = device_get(&device->device, on_open_state, device);
        if (r < 0)
                device->on_done(device->done_userdata, r);
}

static void on_migration_reply(void *userdata, int status, size_t size)
{
        VfioUserDevice *device = userdata;
        uint64_t flags = device->migration_reply.flags;

        if (status == 0)
                device->device.facts.flags = (uint32_t) flags & DEVICE_MIGRATION_MASK;
        /* libvfio-user says EINVAL and the kernel ENOTTY for: no migration. So does a server whose flags lack the one
         * that every migration has. */
        if (status == -EINVAL || status == -ENOTTY ||
            (status == 0 && !(flags & DEVICE_MIGRATION_STOP_COPY))) {
                device->device.facts.flags = 0;
                device->on_done(device->done_userdata, 0);
                return;
        }
        if (status < 0) {
                device->on_done(device->done_userdata, status);
                return;
        }
        device->n_probed = 0;
        probe_logging(device, 0);
}

/* ---- what it is ------------------------------------------------------------------------------------------------ */

static void on_config_reply(void *userdata, int status, size_t size)
{
        VfioUserDevice *device = userdata;
        DeviceIdentity *identity = &device->device.facts.identity;

        if (status == 0 && device->access_reply.count == DEVICE_CONFIG_MAX &&
            size == sizeof device->access_reply + DEVICE_CONFIG_MAX)
                identity->n_config = DEVICE_CONFIG_MAX;
        status = call_feature(device, VFIO_USER_FEATURE_GET | VFIO_USER_FEATURE_MIGRATION, 0,
                              &device->migration_reply, sizeof device->migration_reply, on_migration_reply);
        if (status < 0)
                device->on_done(device->done_userdata, status);
}

static int read_config(VfioUserDevice *device)
{
        VfioUserCall call = {
                .command = VFIO_USER_REGION_READ,
                .owner = device,
                .out = {{&device->access, sizeof device->access}},
                .n_out = 1,
                .head = &device->access_reply,
                .head_size = sizeof device->access_reply,
                .data = device->device.facts.identity.config,
                .data_size = DEVICE_CONFIG_MAX,
                .on_reply = on_config_reply,
                .userdata = device,
        };

        device->access =
                (VfioUserRegionAccess){.region = VFIO_USER_REGION_CONFIG, .count = DEVICE_CONFIG_MAX};
        return vfio_user_client_call(device->client, &call);
}

static int look_at_region(VfioUserDevice *device);

/* A file may have come with it, which goes with the next message. */
static void on_region_reply(void *userdata, int status, size_t size)
{
        VfioUserDevice *device = userdata;
        uint32_t *windows = &device->device.facts.identity.windows;

        if (status < 0 || size < sizeof device->region_reply ||
            device->region_reply.argsz > device->region_info.argsz)
                device->refused = true;
        else if (device->region_reply.size > 0 && (device->region_reply.flags & VFIO_USER_REGION_FLAG_MMAP))
                *windows = DEVICE_WINDOWS_SOME;
        if (++device->region < VFIO_USER_REGION_BARS && !device->refused) {
                status = look_at_region(device);
        } else {
                if (*windows == DEVICE_WINDOWS_UNKNOWN && !device->refused)
                        *windows = DEVICE_WINDOWS_NONE;
                status = read_config(device);
        }
        if (status < 0)
                device->on_done(device->done_userdata, status);
}

/* What a server does not tell is not known: it is no reason to refuse the device here. With room for what it adds where a region
 * can be mapped: without, servers leave the flag out, too. */
static int look_at_region(VfioUserDevice *device)
{
        VfioUserCall call = {
                .command = VFIO_USER_DEVICE_GET_REGION_INFO,
                .owner = device,
                .out = {{&device->region_info, sizeof device->region_info}},
                .n_out = 1,
                .head = &device->region_reply,
                .head_size = sizeof device->region_reply,
                .data = device->capabilities,
                .data_size = sizeof device->capabilities,
                .on_reply = on_region_reply,
                .userdata = device,
        };

        device->region_info = (VfioUserRegionInfo){
                .argsz = sizeof device->region_info + sizeof device->capabilities, .index = device->region};
        return vfio_user_client_call(device->client, &call);
}

static void on_version_reply(void *userdata, int status, size_t size)
{
        VfioUserDevice *device = userdata;

        if (status == 0 && device->version_reply.major != VFIO_USER_MAJOR)
                status = -EPROTONOSUPPORT;
        if (status == 0)
                status = take_capabilities(device, size - sizeof device->version_reply);
        if (status == 0) {
                device->region = 0;
                device->refused = false;
                status = look_at_region(device);
        }
        if (status < 0)
                device->on_done(device->done_userdata, status);
}

static int device_open(AgentDevice *agent_device, DeviceDone on_done, void *userdata)
{
        VfioUserDevice *device = (VfioUserDevice *) agent_device;
        VfioUserCall call = {
                .command = VFIO_USER_VERSION,
                .owner = device,
                .out = {{&device->version, sizeof device->version},
                        {(void *) capabilities, sizeof capabilities}},
                .n_out = 2,
                .head = &device->version_reply,
                .head_size = sizeof device->version_reply,
                .least = sizeof device->version_reply,
                .on_reply = on_version_reply,
                .userdata = device,
        };

        free(device->version_text);
        device->version_text = malloc(VERSION_MAX);
        if (!device->version_text)
                return -ENOMEM;
        call.data = device->version_text;
        call.data_size = VERSION_MAX;
        device->device.facts = (DeviceFacts){.state = DEVICE_STATE_UNKNOWN,
                                             .transfer_max = MIN(vfio_user_client_write_max(device->client),
                                                                 (size_t) DEVICE_TRANSFER_MAX)};
        device->version = (VfioUserVersion){VFIO_USER_MAJOR, VFIO_USER_MINOR};
        device->on_done = on_done;
        device->done_userdata = userdata;
        return vfio_user_client_call(device->client, &call);
}

/* ---- data ---------------------------------------------------------------------------------------------------- */

static Transfer *free_transfer(VfioUserDevice *device)
{
        for (size_t i = 0; i < DEVICE_TRANSFERS_MAX; i++)
                if (!device->transfers[i].busy)
                        return &device->transfers[i];
        return NULL;
}

static void on_read_reply(void *userdata, int status, size_t size)
{
        Transfer *t = userdata;

        t->busy = false;
        /* The reply may be padded to what was asked for; its size field counts. */
        if (status == 0 && (t->reply.size > t->size || t->reply.size > size - sizeof t->reply))
                status = -EPROTO;
        t->on_read(t->userdata, status, status == 0 ? t->reply.size : 0);
}

static int device_read(AgentDevice *agent_device, void *data, size_t size, DeviceRead on_read, void *userdata)
{
        VfioUserDevice *device = (VfioUserDevice *) agent_device;
        Transfer *t = free_transfer(device);
        VfioUserCall call;
        int r;

        if (!t || size > device->device.facts.transfer_max)
                return -ENOBUFS;
        t->size = size;
        t->request =
                (VfioUserMigData){.argsz = (uint32_t) (sizeof t->request + size), .size = (uint32_t) size};
        t->on_read = on_read;
        t->userdata = userdata;
        call = (VfioUserCall){
                .command = VFIO_USER_MIG_DATA_READ,
                .owner = device->transfers,
                .out = {{&t->request, sizeof t->request}},
                .n_out = 1,
                .head = &t->reply,
                .head_size = sizeof t->reply,
                .data = data,
                .data_size = size,
                .least = sizeof t->reply,
                .on_reply = on_read_reply,
                .userdata = t,
        };
        r = vfio_user_client_call(device->client, &call);
        t->busy = r == 0;
        return r;
}

static void on_write_reply(void *userdata, int status, size_t size)
{
        Transfer *t = userdata;

        t->busy = false;
        t->on_done(t->userdata, status);
}

static int device_write(AgentDevice *agent_device, const void *data, size_t size, DeviceDone on_done,
                        void *userdata)
{
        VfioUserDevice *device = (VfioUserDevice *) agent_device;
        Transfer *t = free_transfer(device);
        VfioUserCall call;
        int r;

        if (!t || size > device->device.facts.transfer_max)
                return -ENOBUFS;
        t->request =
                (VfioUserMigData){.argsz = (uint32_t) (sizeof t->request + size), .size = (uint32_t) size};
        t->on_done = on_done;
        t->userdata = userdata;
        call = (VfioUserCall){
                .command = VFIO_USER_MIG_DATA_WRITE,
                .owner = device->transfers,
                .out = {{&t->request, sizeof t->request}, {(void *) data, size}},
                .n_out = 2,
                .on_reply = on_write_reply,
                .userdata = t,
        };
        r = vfio_user_client_call(device->client, &call);
        t->busy = r == 0;
        return r;
}

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
};
