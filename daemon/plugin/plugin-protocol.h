/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Between migmgrd and a migmgr-plugin-host, over a SOCK_SEQPACKET pair; docs/wire.md has the same in words.
 *
 * The host speaks first, once: HELLO. After that the daemon asks and the host answers each call once, in order, with the
 * call's number; LOG may come before an answer. Anything else ends the host. A packet is a fixed head, a list of
 * strings, each with its final NUL, and a few raw bytes: nothing to parse, nothing to allocate before its size is known.
 */

#include "common/macros.h"
#include "plugins/migmgr-plugin.h"

#define PLUGIN_MAGIC       0x3150474du /* "MGP1" */
#define PLUGIN_PACKET_MAX  65536
#define PLUGIN_STRINGS_MAX 512
#define PLUGIN_STRING_MAX  255 /* bytes of each */

#define PLUGIN_SOCKET_FD 3 /* of the host */
#define PLUGIN_FILE_FD   4 /* ... the plugin, opened and looked at by the daemon */

typedef enum PluginCall {
        PLUGIN_CALL_HELLO,    /* host: what it has loaded, or why it has not */
        PLUGIN_CALL_LOOK,     /* match(), and for a device that is the plugin's describe() and estimate() */
        PLUGIN_CALL_CHECK,    /* check() */
        PLUGIN_CALL_BEFORE,   /* before() */
        PLUGIN_CALL_AFTER,    /* after() */
        PLUGIN_CALL_ON_ERROR, /* on_error() */
        PLUGIN_CALL_LOG,      /* host: a line for the journal, during a call, whose number it has */
        PLUGIN_CALL_MAX,
        PLUGIN_CALL_INVALID = -EINVAL,
} PluginCall;

const char *plugin_call_to_string(PluginCall call);

/* Functions that a plugin has: bits of numbers[PLUGIN_NUMBER_FUNCTIONS] of HELLO. */
#define PLUGIN_HAS_DESCRIBE (1u << 0)
#define PLUGIN_HAS_CHECK    (1u << 1)
#define PLUGIN_HAS_BEFORE   (1u << 2)
#define PLUGIN_HAS_AFTER    (1u << 3)
#define PLUGIN_HAS_ON_ERROR (1u << 4)
#define PLUGIN_HAS_ESTIMATE (1u << 5)
#define PLUGIN_HAS_ALL      ((1u << 6) - 1)

/* What stands where in `numbers`. */
enum {
        /* HELLO; its strings: name and version; or, when the status is not 0, why it can't be loaded */
        PLUGIN_NUMBER_ABI = 0,
        PLUGIN_NUMBER_FUNCTIONS,
        PLUGIN_NUMBER_BEFORE_MS,
        PLUGIN_NUMBER_AFTER_MS = PLUGIN_NUMBER_BEFORE_MS + MIGMGR_PHASES,
        PLUGIN_NUMBER_ERROR_MS = PLUGIN_NUMBER_AFTER_MS + MIGMGR_PHASES,
        /* calls; their strings: vm, id, type, driver, attributes, facts; of CHECK then id, type, driver and facts of the
         * source; of the transitions what the agent said. The raw bytes: config space. */
        PLUGIN_NUMBER_ATTRIBUTES = 0, /* how many; each is two strings */
        PLUGIN_NUMBER_FACTS,
        PLUGIN_NUMBER_SOURCE_FACTS,
        PLUGIN_NUMBER_PHASE,
        PLUGIN_NUMBER_SIDE,
        PLUGIN_NUMBER_FROM,
        PLUGIN_NUMBER_TO,
        PLUGIN_NUMBER_ATTEMPT,
        PLUGIN_NUMBER_WAITED_MS,
        PLUGIN_NUMBER_ERROR,
        /* answers; their status: what the function returned; their strings: reason, remedy, facts of LOOK */
        PLUGIN_NUMBER_WAIT_MS = 0,
        PLUGIN_NUMBER_BYTES,
        PLUGIN_NUMBER_USEC,
        PLUGIN_NUMBERS = PLUGIN_NUMBER_ERROR_MS + MIGMGR_PHASES,
};

typedef struct PluginHead {
        uint32_t magic;
        uint32_t call;      /* PluginCall; an answer has that of its call */
        uint32_t id;        /* the daemon's, repeated in the answer */
        int32_t status;     /* answer */
        uint32_t n_strings; /* at most PLUGIN_STRINGS_MAX */
        uint32_t n_bytes;   /* raw ones, behind the strings; at most MIGMGR_CONFIG_MAX */
        uint64_t numbers[PLUGIN_NUMBERS];
} PluginHead;

typedef struct PluginPacket {
        PluginHead head;
        char text[PLUGIN_PACKET_MAX - sizeof(PluginHead)];
        size_t n_text; /* bytes of it that are in use */
} PluginPacket;

/* Begins a packet. */
void plugin_packet_init(PluginPacket *packet, PluginCall call, uint32_t id);
/* Appends a string, before any bytes. What is longer than PLUGIN_STRING_MAX is cut, what is not printable ASCII becomes '?'.
 * -E2BIG. */
int plugin_packet_add(PluginPacket *packet, const char *string) _must_check_;
/* Appends the raw bytes, last. -E2BIG. */
int plugin_packet_add_bytes(PluginPacket *packet, const void *bytes, size_t size) _must_check_;

/* What travels: head and text behind each other. */
size_t plugin_packet_size(const PluginPacket *packet);

/* Whether what was received, `size` bytes from the head on, is a packet: its counts agree with its size, its strings are
 * printable and end. Sets n_text. -EBADMSG. */
int plugin_packet_check(PluginPacket *packet, size_t size) _must_check_;

/* Of a packet that was checked: its strings, and where its raw bytes begin. */
void plugin_packet_strings(const PluginPacket *packet, const char *ret[PLUGIN_STRINGS_MAX]);
const uint8_t *plugin_packet_bytes(const PluginPacket *packet);

/* What HELLO says, in whole: only what is within bounds is taken. */
typedef struct PluginHello {
        char name[MIGMGR_NAME_MAX + 1];
        char version[MIGMGR_VALUE_MAX + 1];
        uint32_t functions;
        uint32_t before_ms[MIGMGR_PHASES], after_ms[MIGMGR_PHASES], error_ms[MIGMGR_PHASES];
} PluginHello;

/* -EBADMSG with a constant text: it is not a HELLO, or declares what it may not. */
int plugin_hello_read(const PluginPacket *packet, PluginHello *ret, const char **ret_text) _must_check_;

/* Whether a plugin may have that name, a fact that key and that value. */
bool plugin_name_is_valid(const char *name);
bool plugin_key_is_valid(const char *key);
bool plugin_value_is_valid(const char *value);

/* One device of a call, and its reader at the host. */
typedef struct PluginDeviceView {
        struct migmgr_device device;
        struct migmgr_text texts[MIGMGR_ATTRIBUTES_MAX + 256];
} PluginDeviceView;

/* Reads the device of a call and, of CHECK, the source's; `ret_rest`: the index of the first string behind. -EBADMSG. */
int plugin_call_read(const PluginPacket *packet, const char *const *strings, PluginDeviceView *ret,
                     PluginDeviceView *ret_source, uint32_t *ret_rest) _must_check_;

/* Reads the transition of a call. -EBADMSG. */
int plugin_transition_read(const PluginPacket *packet, const char *text,
                           struct migmgr_transition *ret) _must_check_;

/* What an answer says. Points into the packet's strings. */
typedef struct PluginAnswer {
        int status; /* what the function returned */
        const char *reason, *remedy;
        uint32_t wait_ms;
        uint64_t bytes, usec[MIGMGR_PHASES];
        uint32_t n_facts;
        struct migmgr_text facts[MIGMGR_FACTS_MAX];
} PluginAnswer;

/* Reads and judges an answer to `call`: what may be returned, how much, which characters. -EBADMSG with a constant
 * text. */
int plugin_answer_read(const PluginPacket *packet, PluginCall call, const char *const *strings,
                       PluginAnswer *ret, const char **ret_text) _must_check_;
