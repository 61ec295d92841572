/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "plugin-protocol.h"

static const char *const call_names[PLUGIN_CALL_MAX] = {
        [PLUGIN_CALL_HELLO] = "hello",   [PLUGIN_CALL_LOOK] = "look",   [PLUGIN_CALL_CHECK] = "check",
        [PLUGIN_CALL_BEFORE] = "before", [PLUGIN_CALL_AFTER] = "after", [PLUGIN_CALL_ON_ERROR] = "on-error",
        [PLUGIN_CALL_LOG] = "log",
};

/* Functions that may take what they declare, and how much that may be from phase 5 on, where the VM stands. */
#define BUDGET_EARLY_MAX_MS 60000

/* Of one phase; a plugin that expects more is not taken at its word. */
#define ESTIMATE_MAX_USEC (3600 * USEC_PER_SEC)

const char *plugin_call_to_string(PluginCall call)
{
        return (int) call < 0 || call >= PLUGIN_CALL_MAX ? NULL : call_names[call];
}

static bool is_printable(char c)
{
        return c >= ' ' && c <= '~';
}

/* ---- packets -------------------------------------------------------------------------------------------------- */

void plugin_packet_init(PluginPacket *packet, PluginCall call, uint32_t id)
{
        packet->head = (PluginHead){.magic = PLUGIN_MAGIC, .call = call, .id = id};
        packet->n_text = 0;
}

int plugin_packet_add(PluginPacket *packet, const char *string)
{
        size_t n = strnlen(string, PLUGIN_STRING_MAX);

        if (packet->head.n_strings >= PLUGIN_STRINGS_MAX || n + 1 > sizeof packet->text - packet->n_text)
                return -E2BIG;
        for (size_t i = 0; i < n; i++)
                packet->text[packet->n_text++] = is_printable(string[i]) ? string[i] : '?';
        packet->text[packet->n_text++] = 0;
        packet->head.n_strings++;
        return 0;
}

int plugin_packet_add_bytes(PluginPacket *packet, const void *bytes, size_t size)
{
        if (size > MIGMGR_CONFIG_MAX || size > sizeof packet->text - packet->n_text)
                return -E2BIG;
        memcpy(packet->text + packet->n_text, bytes, size);
        packet->n_text += size;
        packet->head.n_bytes = (uint32_t) size;
        return 0;
}

size_t plugin_packet_size(const PluginPacket *packet)
{
        return sizeof packet->head + packet->n_text;
}

int plugin_packet_check(PluginPacket *packet, size_t size)
{
        const PluginHead *head = &packet->head;
        size_t n_strings = 0, end;

        if (size < sizeof *head || size > PLUGIN_PACKET_MAX || head->magic != PLUGIN_MAGIC ||
            head->call >= PLUGIN_CALL_MAX || head->n_strings > PLUGIN_STRINGS_MAX ||
            head->n_bytes > MIGMGR_CONFIG_MAX || head->n_bytes > size - sizeof *head)
                return -EBADMSG;
        packet->n_text = size - sizeof *head;
        end = packet->n_text - head->n_bytes;
        for (size_t i = 0, start = 0; i < end; i++) {
                if (packet->text[i] == 0) {
                        n_strings++;
                        start = i + 1;
                } else if (!is_printable(packet->text[i]) || i - start >= PLUGIN_STRING_MAX) {
                        return -EBADMSG;
                }
        }
        if ((end > 0 && packet->text[end - 1] != 0) || n_strings != head->n_strings)
                return -EBADMSG;
        return 0;
}

void plugin_packet_strings(const PluginPacket *packet, const char *ret[PLUGIN_STRINGS_MAX])
{
        const char *p = packet->text;

        for (uint32_t i = 0; i < packet->head.n_strings; i++) {
                ret[i] = p;
                p += strlen(p) + 1;
        }
}

const uint8_t *plugin_packet_bytes(const PluginPacket *packet)
{
        return (const uint8_t *) packet->text + packet->n_text - packet->head.n_bytes;
}

/* ---- words ---------------------------------------------------------------------------------------------------- */

static bool consists_of(const char *text, size_t most, const char *others)
{
        size_t n = strlen(text);

        for (const char *p = text; *p; p++)
                if (!(*p >= 'a' && *p <= 'z') && !(*p >= '0' && *p <= '9') && !strchr(others, *p))
                        return false;
        return n > 0 && n <= most;
}

bool plugin_name_is_valid(const char *name)
{
        return consists_of(name, MIGMGR_NAME_MAX, "-");
}

bool plugin_key_is_valid(const char *key)
{
        return consists_of(key, MIGMGR_KEY_MAX, "._-");
}

bool plugin_value_is_valid(const char *value)
{
        for (const char *p = value; *p; p++)
                if (!is_printable(*p))
                        return false;
        return strlen(value) <= MIGMGR_VALUE_MAX;
}

/* ---- HELLO ---------------------------------------------------------------------------------------------------- */

static bool read_budgets(const uint64_t *numbers, uint32_t *ret)
{
        for (uint32_t p = 0; p < MIGMGR_PHASES; p++) {
                bool stands = p >= MIGMGR_HALT && p <= MIGMGR_RUN;

                if (numbers[p] > (stands ? MIGMGR_BUDGET_MAX_MS : BUDGET_EARLY_MAX_MS))
                        return false;
                ret[p] = (uint32_t) numbers[p];
        }
        return true;
}

int plugin_hello_read(const PluginPacket *packet, PluginHello *ret, const char **ret_text)
{
        const PluginHead *head = &packet->head;
        const char *strings[PLUGIN_STRINGS_MAX];

        plugin_packet_strings(packet, strings);
        *ret = (PluginHello){};
        *ret_text = "its host says something else than HELLO";
        if (head->call != PLUGIN_CALL_HELLO || head->status != 0 || head->n_strings != 2 || head->n_bytes > 0)
                return -EBADMSG;
        *ret_text = "its ABI is another one: build it against this version's migmgr-plugin.h";
        if (head->numbers[PLUGIN_NUMBER_ABI] != MIGMGR_PLUGIN_ABI ||
            (head->numbers[PLUGIN_NUMBER_FUNCTIONS] & ~(uint64_t) PLUGIN_HAS_ALL))
                return -EBADMSG;
        *ret_text = "its name or version is too long, or has other characters than it may";
        if (!plugin_name_is_valid(strings[0]) || !plugin_value_is_valid(strings[1]))
                return -EBADMSG;
        *ret_text = "a budget is more than 1000 ms in phases 5 to 12, or more than 60000 ms";
        if (!read_budgets(head->numbers + PLUGIN_NUMBER_BEFORE_MS, ret->before_ms) ||
            !read_budgets(head->numbers + PLUGIN_NUMBER_AFTER_MS, ret->after_ms) ||
            !read_budgets(head->numbers + PLUGIN_NUMBER_ERROR_MS, ret->error_ms))
                return -EBADMSG;
        memcpy(ret->name, strings[0], strlen(strings[0]) + 1);
        memcpy(ret->version, strings[1], strlen(strings[1]) + 1);
        ret->functions = (uint32_t) head->numbers[PLUGIN_NUMBER_FUNCTIONS];
        return 0;
}

/* ---- calls, read by the host ---------------------------------------------------------------------------------- */

static void read_texts(const char *const *strings, uint32_t n, struct migmgr_text *ret)
{
        for (uint32_t i = 0; i < n; i++)
                ret[i] = (struct migmgr_text){strings[2 * i], strings[2 * i + 1]};
}

static void read_device(const char *const *strings, const char *vm, uint32_t n_attributes, uint32_t n_facts,
                        PluginDeviceView *ret)
{
        read_texts(strings + 3, n_attributes + n_facts, ret->texts);
        ret->device = (struct migmgr_device){
                .size = sizeof ret->device,
                .vm = vm,
                .id = strings[0],
                .type = strings[1],
                .driver = strings[2],
                .n_attributes = n_attributes,
                .attributes = ret->texts,
                .n_facts = n_facts,
                .facts = ret->texts + n_attributes,
        };
}

int plugin_call_read(const PluginPacket *packet, const char *const *strings, PluginDeviceView *ret,
                     PluginDeviceView *ret_source, uint32_t *ret_rest)
{
        const PluginHead *head = &packet->head;
        uint64_t n_attributes = head->numbers[PLUGIN_NUMBER_ATTRIBUTES];
        uint64_t n_facts = head->numbers[PLUGIN_NUMBER_FACTS];
        uint64_t n_source = head->numbers[PLUGIN_NUMBER_SOURCE_FACTS];
        uint64_t room = ARRAY_SIZE(ret->texts) - MIGMGR_ATTRIBUTES_MAX, used;

        if (n_attributes > MIGMGR_ATTRIBUTES_MAX || n_facts > room || n_source > room)
                return -EBADMSG;
        used = 4 + 2 * (n_attributes + n_facts);
        if (head->call == PLUGIN_CALL_CHECK)
                used += 3 + 2 * n_source;
        if (used > head->n_strings)
                return -EBADMSG;
        read_device(strings + 1, strings[0], (uint32_t) n_attributes, (uint32_t) n_facts, ret);
        ret->device.config_size = head->n_bytes;
        ret->device.config = plugin_packet_bytes(packet);
        if (head->call == PLUGIN_CALL_CHECK)
                read_device(strings + 4 + 2 * (n_attributes + n_facts), strings[0], 0, (uint32_t) n_source,
                            ret_source);
        *ret_rest = (uint32_t) used;
        return 0;
}

int plugin_transition_read(const PluginPacket *packet, const char *text, struct migmgr_transition *ret)
{
        const uint64_t *numbers = packet->head.numbers;

        for (uint32_t i = PLUGIN_NUMBER_PHASE; i <= PLUGIN_NUMBER_ERROR; i++)
                if (numbers[i] > UINT32_MAX)
                        return -EBADMSG;
        if (numbers[PLUGIN_NUMBER_PHASE] >= MIGMGR_PHASES || numbers[PLUGIN_NUMBER_ERROR] > INT32_MAX)
                return -EBADMSG;
        *ret = (struct migmgr_transition){
                .size = sizeof *ret,
                .phase = (uint32_t) numbers[PLUGIN_NUMBER_PHASE],
                .side = (uint32_t) numbers[PLUGIN_NUMBER_SIDE],
                .from = (uint32_t) numbers[PLUGIN_NUMBER_FROM],
                .to = (uint32_t) numbers[PLUGIN_NUMBER_TO],
                .attempt = (uint32_t) numbers[PLUGIN_NUMBER_ATTEMPT],
                .waited_ms = (uint32_t) numbers[PLUGIN_NUMBER_WAITED_MS],
                .error = (int32_t) numbers[PLUGIN_NUMBER_ERROR],
                .text = text,
        };
        return 0;
}

/* ---- answers, read by the daemon ------------------------------------------------------------------------------ */

/* What each function may return. */
static const uint32_t answers[PLUGIN_CALL_MAX] = {
        [PLUGIN_CALL_LOOK] = 1u << MIGMGR_NO | 1u << MIGMGR_YES,
        [PLUGIN_CALL_CHECK] = 1u << MIGMGR_NO | 1u << MIGMGR_YES | 1u << MIGMGR_DEGRADED,
        [PLUGIN_CALL_BEFORE] = 1u << MIGMGR_NO | 1u << MIGMGR_YES | 1u << MIGMGR_WAIT,
        [PLUGIN_CALL_AFTER] = 1u << MIGMGR_NO | 1u << MIGMGR_YES | 1u << MIGMGR_WAIT,
        [PLUGIN_CALL_ON_ERROR] = 1u << MIGMGR_RETRY | 1u << MIGMGR_RESET | 1u << MIGMGR_GIVE_UP,
};

static bool read_facts(const PluginPacket *packet, const char *const *strings, PluginAnswer *ret)
{
        ret->n_facts = (packet->head.n_strings - 2) / 2;
        if (ret->n_facts > MIGMGR_FACTS_MAX || packet->head.n_strings % 2 != 0)
                return false;
        read_texts(strings + 2, ret->n_facts, ret->facts);
        for (uint32_t i = 0; i < ret->n_facts; i++)
                if (!plugin_key_is_valid(ret->facts[i].name) || !plugin_value_is_valid(ret->facts[i].value))
                        return false;
        return true;
}

int plugin_answer_read(const PluginPacket *packet, PluginCall call, const char *const *strings,
                       PluginAnswer *ret, const char **ret_text)
{
        const PluginHead *head = &packet->head;

        *ret = (PluginAnswer){.status = head->status};
        *ret_text = "its host answers what was not asked";
        if (head->call != (uint32_t) call || head->n_strings < 2 || head->n_bytes > 0)
                return -EBADMSG;
        *ret_text = "it has failed: it returned something else than it may";
        if (head->status < 0 || head->status > MIGMGR_GIVE_UP || !(answers[call] & 1u << head->status))
                return -EBADMSG;
        *ret_text = "its facts are too many, too long, or have other characters than they may";
        if (!read_facts(packet, strings, ret) || (ret->n_facts > 0 && call != PLUGIN_CALL_LOOK))
                return -EBADMSG;
        *ret_text = "it wants to be asked again in more than 60000 ms";
        if (head->numbers[PLUGIN_NUMBER_WAIT_MS] > BUDGET_EARLY_MAX_MS)
                return -EBADMSG;
        ret->reason = strings[0];
        ret->remedy = strings[1];
        ret->wait_ms = (uint32_t) head->numbers[PLUGIN_NUMBER_WAIT_MS];
        ret->bytes = MIN(head->numbers[PLUGIN_NUMBER_BYTES], (uint64_t) INT64_MAX);
        for (uint32_t p = 0; p < MIGMGR_PHASES; p++)
                ret->usec[p] = MIN(head->numbers[PLUGIN_NUMBER_USEC + p], ESTIMATE_MAX_USEC);
        return 0;
}
