/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker-rules.h"

#include "common/json.h"
#include "broker-session.h"

#define VERSION_TEXT_MAX 65536 /* bytes; ours and QEMU's have about 200 */
#define FEATURE_DATA_MAX 65536 /* bytes of a feature's data; the largest known one is a list of ranges */
#define INFO_REPLY_MAX   65536 /* bytes of the capabilities of a region, or the list of its files */
#define WRITES_MAX       64    /* in one REGION_WRITE_MULTI */

/* ---- a VMM's commands ---------------------------------------------------------------------------------------- */

typedef struct Rule {
        size_t least, most; /* bytes of payload; most 0: no client says this */
        uint32_t files;
        int (*judge)(const VfioUserMessage *command, const BrokerLimits *limits, size_t *ret_reply);
} Rule;

/* The argsz that most commands begin with is the room for the reply. */
static int judge_argsz(const VfioUserMessage *command, const BrokerLimits *limits, size_t *ret_reply)
{
        uint32_t argsz;

        memcpy(&argsz, command->payload, sizeof argsz);
        *ret_reply = MIN(argsz, (uint32_t) INFO_REPLY_MAX);
        return 0;
}

static int judge_unmap(const VfioUserMessage *command, const BrokerLimits *limits, size_t *ret_reply)
{
        uint32_t argsz;

        memcpy(&argsz, command->payload, sizeof argsz);
        *ret_reply = MIN(argsz, (uint32_t) VFIO_USER_DATA_MAX);
        return argsz > VFIO_USER_MESSAGE_MAX ? EINVAL : 0;
}

static int judge_irqs(const VfioUserMessage *command, const BrokerLimits *limits, size_t *ret_reply)
{
        VfioUserSetIrqs irqs;
        size_t size = vfio_user_message_payload(command);
        uint32_t data, action;

        memcpy(&irqs, command->payload, sizeof irqs);
        data = irqs.flags & VFIO_USER_IRQ_DATA_MASK;
        action = irqs.flags & VFIO_USER_IRQ_ACTIONS;
        if (irqs.argsz < sizeof irqs || irqs.flags != (data | action) || !data || (data & (data - 1)) ||
            !action || (action & (action - 1)))
                return EINVAL;
        if (size != sizeof irqs + (data == VFIO_USER_IRQ_DATA_BOOL ? irqs.count : 0))
                return EINVAL;
        if (command->n_fds > 0 && (data != VFIO_USER_IRQ_DATA_EVENTFD || command->n_fds != irqs.count))
                return EINVAL;
        return 0;
}

static int judge_read(const VfioUserMessage *command, const BrokerLimits *limits, size_t *ret_reply)
{
        VfioUserRegionAccess access;

        memcpy(&access, command->payload, sizeof access);
        *ret_reply = sizeof access + access.count;
        return access.count > limits->data_max ? EINVAL : 0;
}

static int judge_write(const VfioUserMessage *command, const BrokerLimits *limits, size_t *ret_reply)
{
        VfioUserRegionAccess access;

        memcpy(&access, command->payload, sizeof access);
        *ret_reply = sizeof access;
        return access.count > limits->data_max ||
                               vfio_user_message_payload(command) - sizeof access != access.count
                       ? EINVAL
                       : 0;
}

static int judge_writes(const VfioUserMessage *command, const BrokerLimits *limits, size_t *ret_reply)
{
        size_t size = vfio_user_message_payload(command) - sizeof(VfioUserWriteMulti);
        VfioUserWriteMulti multi;

        memcpy(&multi, command->payload, sizeof multi);
        *ret_reply = sizeof multi;
        return size % sizeof(VfioUserWriteOne) || multi.count != size / sizeof(VfioUserWriteOne) ? EINVAL : 0;
}

/* The migration is ours: a VMM that drove it too would be a second driver. */
static int judge_feature(const VfioUserMessage *command, const BrokerLimits *limits, size_t *ret_reply)
{
        VfioUserFeature feature;
        uint32_t number;

        memcpy(&feature, command->payload, sizeof feature);
        number = feature.flags & VFIO_USER_FEATURE_MASK;
        *ret_reply = MIN(feature.argsz, (uint32_t) FEATURE_DATA_MAX);
        if (number == VFIO_USER_FEATURE_DMA_LOGGING_START || number == VFIO_USER_FEATURE_DMA_LOGGING_STOP ||
            number == VFIO_USER_FEATURE_DMA_LOGGING_REPORT)
                return EINVAL;
        if (number == VFIO_USER_FEATURE_MIG_DEVICE_STATE && (feature.flags & VFIO_USER_FEATURE_SET))
                return EINVAL;
        return 0;
}

static const Rule rules[] = {
        [VFIO_USER_DMA_MAP] = {sizeof(VfioUserDmaMap), sizeof(VfioUserDmaMap), 1, NULL},
        [VFIO_USER_DMA_UNMAP] = {sizeof(VfioUserDmaUnmap), VFIO_USER_DATA_MAX, 0, judge_unmap},
        [VFIO_USER_DEVICE_GET_INFO] = {16, 16, 0, judge_argsz},
        [VFIO_USER_DEVICE_GET_REGION_INFO] = {32, INFO_REPLY_MAX, 0, judge_argsz},
        [VFIO_USER_DEVICE_GET_REGION_IO_FDS] = {16, INFO_REPLY_MAX, 0, judge_argsz},
        [VFIO_USER_DEVICE_GET_IRQ_INFO] = {16, 16, 0, judge_argsz},
        [VFIO_USER_DEVICE_SET_IRQS] = {sizeof(VfioUserSetIrqs), sizeof(VfioUserSetIrqs) + SESSION_VECTORS_MAX,
                                       VFIO_USER_FDS_MAX, judge_irqs},
        [VFIO_USER_REGION_READ] = {sizeof(VfioUserRegionAccess), sizeof(VfioUserRegionAccess), 0, judge_read},
        [VFIO_USER_REGION_WRITE] = {sizeof(VfioUserRegionAccess),
                                    sizeof(VfioUserRegionAccess) + VFIO_USER_DATA_MAX, 0, judge_write},
        [VFIO_USER_DEVICE_RESET] = {0, 0, 0, NULL},
        [VFIO_USER_REGION_WRITE_MULTI] = {sizeof(VfioUserWriteMulti),
                                          sizeof(VfioUserWriteMulti) + WRITES_MAX * sizeof(VfioUserWriteOne),
                                          0, judge_writes},
        [VFIO_USER_DEVICE_FEATURE] = {sizeof(VfioUserFeature), sizeof(VfioUserFeature) + FEATURE_DATA_MAX, 0,
                                      judge_feature},
};

int broker_rules_command(const VfioUserMessage *command, const BrokerLimits *limits, size_t *ret_reply)
{
        size_t size = vfio_user_message_payload(command);
        uint16_t number = command->header.command;
        const Rule *rule = number < ARRAY_SIZE(rules) ? &rules[number] : NULL;

        *ret_reply = 0;
        if (!rule || (rule->most == 0 && number != VFIO_USER_DEVICE_RESET))
                return EINVAL;
        if (size < rule->least || size > rule->most || command->n_fds > MIN(rule->files, limits->files_max))
                return EINVAL;
        return rule->judge ? rule->judge(command, limits, ret_reply) : 0;
}

/* ---- a server's commands ------------------------------------------------------------------------------------- */

int broker_rules_server_command(const VfioUserMessage *command, const BrokerLimits *limits)
{
        size_t size = vfio_user_message_payload(command);
        VfioUserDmaAccess access;

        if (command->header.command != VFIO_USER_DMA_READ && command->header.command != VFIO_USER_DMA_WRITE)
                return ENOSYS;
        if (size < sizeof access)
                return EINVAL;
        memcpy(&access, command->payload, sizeof access);
        if (access.count > limits->data_max)
                return EINVAL;
        return size - sizeof access == (command->header.command == VFIO_USER_DMA_WRITE ? access.count : 0)
                       ? 0
                       : EINVAL;
}

/* ---- VERSION ------------------------------------------------------------------------------------------------- */

static json_object *member(json_object *object, const char *name, json_type type)
{
        json_object *value = NULL;

        if (!json_object_is_type(object, json_type_object) ||
            !json_object_object_get_ex(object, name, &value) || !json_object_is_type(value, type))
                return NULL;
        return value;
}

/* The member of the capabilities, or what it is when it is not there; at most `most`. */
static uint32_t limit(json_object *capabilities, const char *name, uint32_t otherwise, uint32_t most)
{
        json_object *value = member(capabilities, name, json_type_int);
        int64_t number = value ? json_object_get_int64(value) : otherwise;

        return number < 0 ? 0 : (uint32_t) MIN(number, (int64_t) most);
}

static void read_limits(json_object *capabilities, BrokerLimits *ret)
{
        ret->data_max = limit(capabilities, "max_data_xfer_size", VFIO_USER_DATA_MAX, VFIO_USER_DATA_MAX);
        ret->files_max = limit(capabilities, "max_msg_fds", 1, VFIO_USER_FDS_MAX);
}

void broker_rules_limits(const char *text, BrokerLimits *ret)
{
        json_object *root = json_parse_loosely(text);

        read_limits(member(root, "capabilities", json_type_object), ret);
        json_object_put(root);
}

/* What the server says, with what is ours to say. A number that we do not touch stays as it is. */
static int make_reply(const BrokerServer *server, const BrokerLimits *vmm, bool twin, uint16_t minor,
                      VfioUserMessage **ret)
{
        json_object *said = json_parse_loosely(server->text), *root = json_new_object(), *caps = NULL;
        VfioUserVersion version = {VFIO_USER_MAJOR, MIN(minor, server->minor)};
        BrokerLimits limits;
        const char *text;

        read_limits(member(said, "capabilities", json_type_object), &limits);
        caps = json_object_get(member(said, "capabilities", json_type_object));
        if (!caps)
                caps = json_new_object();
        json_add_number(caps, "max_msg_fds", limits.files_max);
        json_add_number(caps, "max_data_xfer_size", (int64_t) MIN(limits.data_max, vmm->data_max));
        json_add_number(caps, "max_dma_maps",
                        limit(caps, "max_dma_maps", SESSION_MAPS_MAX, SESSION_MAPS_MAX));
        json_object_object_del(caps, "twin_socket");
        if (twin) {
                json_object *object = json_new_object();

                json_add_bool(object, "supported", true);
                json_add_number(object, "fd_index", 0);
                json_add(caps, "twin_socket", object);
        }
        json_add(root, "capabilities", caps);
        text = json_print(root, JSON_C_TO_STRING_PLAIN);
        *ret = vfio_user_message_new(sizeof version + strlen(text) + 1);
        if (*ret) {
                memcpy((*ret)->payload, &version, sizeof version);
                memcpy((*ret)->payload + sizeof version, text, strlen(text) + 1);
                (*ret)->header.flags = VFIO_USER_TYPE_REPLY;
                (*ret)->header.command = VFIO_USER_VERSION;
        }
        json_object_put(root);
        json_object_put(said);
        return *ret ? 0 : -ENOMEM;
}

/* The text may be missing; if it is there, it is JSON. */
static int parse(const VfioUserMessage *request, json_object **ret)
{
        size_t size = vfio_user_message_payload(request) - sizeof(VfioUserVersion);
        const char *text = (const char *) request->payload + sizeof(VfioUserVersion);

        *ret = NULL;
        if (size == 0)
                return 0;
        if (size > VERSION_TEXT_MAX || text[size - 1] != 0)
                return EINVAL;
        *ret = json_parse_loosely(text);
        return json_object_is_type(*ret, json_type_object) ? 0 : EINVAL;
}

int broker_rules_version(const VfioUserMessage *request, const BrokerServer *server, BrokerLimits *ret_limits,
                         bool *ret_twin, VfioUserMessage **ret_reply)
{
        json_object *root = NULL, *caps, *supported;
        VfioUserVersion version;
        int r;

        if (vfio_user_message_payload(request) < sizeof version || request->n_fds > 0)
                return EINVAL;
        memcpy(&version, request->payload, sizeof version);
        if (version.major != VFIO_USER_MAJOR)
                return EPROTONOSUPPORT;
        r = parse(request, &root);
        if (r == 0) {
                caps = member(root, "capabilities", json_type_object);
                read_limits(caps, ret_limits);
                supported =
                        member(member(caps, "twin_socket", json_type_object), "supported", json_type_boolean);
                *ret_twin = supported && json_object_get_boolean(supported) && ret_limits->files_max > 0;
                r = make_reply(server, ret_limits, *ret_twin, version.minor, ret_reply);
        }
        if (r == 0)
                (*ret_reply)->header.id = request->header.id;
        json_object_put(root);
        return r;
}
