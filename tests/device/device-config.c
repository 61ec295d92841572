/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "device-config.h"

#include "daemon/agent/vfio-user-wire.h"
#include "listen.h"
#include "number.h"

#define SIZE_MAX_BYTES     (4096 * MIB)
#define DIRTY_RATE_MAX     UINT32_MAX /* more than anybody has pages */
#define MAX_DATA_MAX_BYTES (64 * MIB) /* QEMU refuses a server that says more */

uint32_t device_config_flags(const DeviceConfig *c)
{
        if (!c->migration)
                return 0;
        return DEVICE_MIGRATION_STOP_COPY | (c->p2p ? DEVICE_MIGRATION_P2P : 0) |
               (c->pre_copy ? DEVICE_MIGRATION_PRE_COPY : 0);
}

bool device_config_set_delay(DeviceConfig *c, const ArcDelay *delay)
{
        if (!arc_pattern_is_possible(&delay->arcs, device_config_flags(c)))
                return false;
        for (int from = 0; from < ARC_STATES; from++)
                for (int to = 0; to < ARC_STATES; to++)
                        if (arc_pattern_matches(&delay->arcs, from, to))
                                c->arc_delay_usec[from][to] = delay->usec;
        return true;
}

int device_config_add_fault(DeviceConfig *c, const Fault *fault)
{
        if (fault->place == FAULT_AT_ARC && !arc_pattern_is_possible(&fault->arc, device_config_flags(c)))
                return -EINVAL;
        return fault_list_add(&c->faults, fault);
}

void device_config_done(DeviceConfig *c)
{
        free(TAKE_PTR(c->id));
        free(TAKE_PTR(c->socket_path));
        fault_list_clear(&c->faults);
}

/* ---- parsing ------------------------------------------------------------------------------------------------- */

static int set_text(char **text, const char *value)
{
        char *copy = strdup(value);

        if (!copy)
                return -ENOMEM;
        free(*text);
        *text = copy;
        return 0;
}

static int set_switch(bool *on, const char *value)
{
        if (!streq(value, "on") && !streq(value, "off"))
                return -EINVAL;
        *on = streq(value, "on");
        return 0;
}

static int key_socket(DeviceConfig *c, const char *value)
{
        if (value[0] == '\0' || strlen(value) > LISTEN_PATH_MAX)
                return -EINVAL;
        return set_text(&c->socket_path, value);
}

static int key_id(DeviceConfig *c, const char *value)
{
        return value[0] == '\0' ? -EINVAL : set_text(&c->id, value);
}

static int key_migration(DeviceConfig *c, const char *value)
{
        return set_switch(&c->migration, value);
}

static int key_p2p(DeviceConfig *c, const char *value)
{
        return set_switch(&c->p2p, value);
}

static int key_pre_copy(DeviceConfig *c, const char *value)
{
        return set_switch(&c->pre_copy, value);
}

static int key_twin_socket(DeviceConfig *c, const char *value)
{
        return set_switch(&c->twin_socket, value);
}

static int key_work(DeviceConfig *c, const char *value)
{
        return set_switch(&c->work, value);
}

static int key_worker(DeviceConfig *c, const char *value)
{
        return set_switch(&c->worker, value);
}

static int key_mailbox(DeviceConfig *c, const char *value)
{
        return set_switch(&c->mailbox, value);
}

static int key_ndma(DeviceConfig *c, const char *value)
{
        return set_switch(&c->ndma, value);
}

static int key_quiesce(DeviceConfig *c, const char *value)
{
        return number_parse_msec(value, &c->quiesce_usec);
}

static int key_dirty_rate(DeviceConfig *c, const char *value)
{
        return number_parse(value, 0, DIRTY_RATE_MAX, &c->dirty_rate);
}

static int key_size(DeviceConfig *c, const char *value)
{
        return number_parse_bytes(value, SIZE_MAX_BYTES, &c->size);
}

static int key_seed(DeviceConfig *c, const char *value)
{
        return number_parse(value, 0, UINT64_MAX, &c->seed);
}

static int key_max_data(DeviceConfig *c, const char *value)
{
        return number_parse_bytes(value, MAX_DATA_MAX_BYTES, &c->max_data);
}

static int key_read_delay(DeviceConfig *c, const char *value)
{
        return number_parse_msec(value, &c->read_delay_usec);
}

static int key_write_delay(DeviceConfig *c, const char *value)
{
        return number_parse_msec(value, &c->write_delay_usec);
}

static int key_reset_delay(DeviceConfig *c, const char *value)
{
        return number_parse_msec(value, &c->reset_delay_usec);
}

static int key_delay(DeviceConfig *c, const char *value)
{
        ArcDelay delay;

        if (arc_delay_parse(value, &delay) < 0)
                return -EINVAL;
        return device_config_set_delay(c, &delay) ? 0 : -EINVAL;
}

static int key_fault(DeviceConfig *c, const char *value)
{
        Fault fault;

        if (fault_parse(value, &fault) < 0)
                return -EINVAL;
        return device_config_add_fault(c, &fault);
}

static const struct {
        const char *name;
        int (*set)(DeviceConfig *c, const char *value);
        bool wants_arcs; /* wherever it stands: is looked at when the other keys have said which arcs there are */
} keys[] = {
        {"socket", key_socket},
        {"id", key_id},
        {"migration", key_migration},
        {"p2p", key_p2p},
        {"pre-copy", key_pre_copy},
        {"size", key_size},
        {"seed", key_seed},
        {"delay", key_delay, true},
        {"read-delay", key_read_delay},
        {"write-delay", key_write_delay},
        {"reset-delay", key_reset_delay},
        {"twin-socket", key_twin_socket},
        {"max-data", key_max_data},
        {"fault", key_fault, true},
        {"work", key_work},
        {"worker", key_worker},
        {"mailbox", key_mailbox},
        {"ndma", key_ndma},
        {"quiesce", key_quiesce},
        {"dirty-rate", key_dirty_rate},
};

/* One `key=value`; skipped if it is not of this pass. */
static int parse_pair(DeviceConfig *c, char *pair, bool arcs_pass)
{
        char *value = strchr(pair, '=');
        int r = -EINVAL;

        if (!value)
                return -EINVAL;
        *value = '\0';
        for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
                if (streq(keys[i].name, pair))
                        r = keys[i].wants_arcs == arcs_pass ? keys[i].set(c, value + 1) : 0;
        *value = '=';
        return r;
}

static int parse_pairs(DeviceConfig *c, const char *text, bool arcs_pass, char **ret_wrong)
{
        _cleanup_(freep) char *copy = strdup(text);
        char *save = NULL;

        if (!copy)
                return -ENOMEM;
        for (char *pair = strtok_r(copy, ",", &save); pair; pair = strtok_r(NULL, ",", &save)) {
                int r = parse_pair(c, pair, arcs_pass);

                if (r == -EINVAL)
                        *ret_wrong = strdup(pair);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int complete(DeviceConfig *c, char **ret_wrong)
{
        const char *slash;

        if (!c->socket_path) {
                *ret_wrong = strdup("socket= is missing");
                return -EINVAL;
        }
        if (c->mailbox && !c->worker) {
                *ret_wrong = strdup("mailbox=on needs worker=on");
                return -EINVAL;
        }
        if (c->id)
                return 0;
        slash = strrchr(c->socket_path, '/');
        return set_text(&c->id, slash ? slash + 1 : c->socket_path);
}

int device_config_parse(const char *text, DeviceConfig *ret_config, char **ret_wrong)
{
        DeviceConfig c = {.migration = true,
                          .p2p = true,
                          .twin_socket = true,
                          .size = 65536,
                          .seed = 1,
                          .max_data = VFIO_USER_DATA_MAX};
        int r;

        *ret_wrong = NULL;
        r = parse_pairs(&c, text, false, ret_wrong);
        if (r == 0)
                r = parse_pairs(&c, text, true, ret_wrong);
        if (r == 0)
                r = complete(&c, ret_wrong);
        if (r < 0) {
                device_config_done(&c);
                return r;
        }
        *ret_config = c;
        return 0;
}
