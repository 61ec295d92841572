/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "plugins.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "common/clock.h"
#include "common/log.h"

/* Of one CHECK. One would do; all of a thousand devices, with as many names as another host likes, would be told to nobody. */
#define MISSING_MAX 256

/* A match, with what is known then, and a check. */
#define LOOK_USEC PLUGIN_HANG_USEC

#define REMEDY_BROKEN                                                                               \
        "see what migmgrd's journal says of it; mend it, or take it out of the plugins' folder on " \
        "that host"
#define REMEDY_MISSING                                                                                \
        "install that plugin at the destination too, of that version, and start migmgrd there anew; " \
        "or take it out at the source"

#define REMEDY_CROWDED \
        "take plugins out at the source that say much of each device, or give the VM fewer devices"

/* One plugin in one asking. */
typedef struct Item {
        struct Ask *ask;
        Plugin *plugin;
        LoopTimer *again;
        uint64_t budget_usec;
        uint32_t attempt;
        PluginVerdict verdict;
        char text[MIGMGR_NAME_MAX + MIGMGR_TEXT_MAX + 32];
} Item;

typedef struct Ask {
        struct Ask *next;
        Plugins *plugins;
        void *userdata;
        LoopCallback done;
        PluginsDecided decided; /* instead, of a transition */
        PluginCall call;
        Side side;
        Phase phase;
        bool tried;
        uint64_t began_usec;
        char device[DEVICE_ID_MAX + 1];
        PluginsView *view;     /* of a look */
        json_object *findings; /* of a look, a check; not owned */
        void *asked;           /* of a transition: the packet, to be sent again; owned */
        size_t asked_size;
        LoopTimer *soon;
        uint32_t n_items, n_waiting;
        Item items[];
} Ask;

struct Plugins {
        Loop *loop;
        uint32_t n;
        Plugin *plugins[PLUGINS_MAX];
        Ask *asks;
        PluginPacket
                packet; /* one that is being made: there may be an asking for each of a thousand devices */
};

/* ---- findings ------------------------------------------------------------------------------------------------- */

static void add_finding(json_object *findings, const char *device, PluginVerdict verdict, const char *name,
                        const char *source, const char *destination, const char *remedy)
{
        json_object *o = json_new_object();
        char property[MIGMGR_NAME_MAX + 16];

        (void) snprintf(property, sizeof property, "plugin %s", name);
        json_add_string(o, "weight", verdict == PLUGIN_REFUSE ? "refusal" : "notice");
        json_add_string(o, "device", device);
        json_add_string(o, "property", property);
        json_add_string(o, "source", source);
        json_add_string(o, "destination", destination);
        json_add_string(o, "remedy", remedy);
        json_append(findings, o);
}

static void add_finding_here(const Ask *ask, PluginVerdict verdict, const char *name, const char *text,
                             const char *remedy)
{
        bool source = ask->side == SIDE_SOURCE;

        add_finding(ask->findings, ask->device, verdict, name, source ? text : "", source ? "" : text,
                    remedy);
}

/* ---- asking --------------------------------------------------------------------------------------------------- */

static void ask_free(Ask *ask)
{
        for (Ask **p = &ask->plugins->asks; *p; p = &(*p)->next)
                if (*p == ask) {
                        *p = ask->next;
                        break;
                }
        for (uint32_t i = 0; i < ask->n_items; i++) {
                plugin_forget(ask->items[i].plugin, &ask->items[i]);
                loop_timer_free(ask->items[i].again);
        }
        loop_timer_free(ask->soon);
        free(ask->asked);
        free(ask);
}

static void finish(void *userdata)
{
        Ask *ask = userdata;
        LoopCallback done = ask->done;
        PluginsDecided decided = ask->decided;
        void *asker = ask->userdata;
        uint64_t took_usec = clock_monotonic_usec() - ask->began_usec;
        PluginVerdict verdict = PLUGIN_GO_ON;
        char text[sizeof ask->items[0].text] = "";

        for (uint32_t i = 0; i < ask->n_items; i++)
                if (ask->items[i].verdict > verdict) {
                        verdict = ask->items[i].verdict;
                        memcpy(text, ask->items[i].text, sizeof text);
                }
        ask_free(ask);
        if (decided)
                decided(asker, verdict, text, took_usec);
        else
                done(asker);
}

static void item_is_done(Item *item)
{
        if (--item->ask->n_waiting == 0)
                finish(item->ask);
}

static Ask *ask_new(Plugins *plugins, PluginCall call, const PluginDevice *device, Side side, Phase phase,
                    uint32_t n, void *userdata)
{
        Ask *ask = calloc(1, sizeof *ask + n * sizeof *ask->items);

        if (!ask || loop_timer_new(plugins->loop, finish, ask, &ask->soon) < 0)
                out_of_memory();
        ask->plugins = plugins;
        ask->userdata = userdata;
        ask->call = call;
        ask->side = side;
        ask->phase = phase;
        ask->began_usec = clock_monotonic_usec();
        (void) snprintf(ask->device, sizeof ask->device, "%s", device->id);
        ask->next = plugins->asks;
        plugins->asks = ask;
        return ask;
}

static Item *add_item(Ask *ask, Plugin *plugin, uint64_t budget_usec)
{
        Item *item = &ask->items[ask->n_items++];

        *item = (Item){.ask = ask, .plugin = plugin, .budget_usec = budget_usec, .attempt = 1};
        return item;
}

static int add_texts(PluginPacket *packet, const struct migmgr_text *texts, uint32_t n)
{
        int r = 0;

        for (uint32_t i = 0; i < n && r == 0; i++) {
                r = plugin_packet_add(packet, texts[i].name);
                if (r == 0)
                        r = plugin_packet_add(packet, texts[i].value);
        }
        return r;
}

static int add_facts(PluginPacket *packet, const ManifestDevice *device)
{
        int r = 0;

        for (uint32_t i = 0; i < device->n_facts && r == 0; i++) {
                r = plugin_packet_add(packet, device->facts[i].key);
                if (r == 0)
                        r = plugin_packet_add(packet, device->facts[i].value);
        }
        return r;
}

static const char *type_of(const ManifestDevice *device)
{
        const char *type = device_type_to_string(device->type);

        return type ? type : "";
}

/* What every call has, and of a check what the source has, or of a transition what the agent said. */
static int fill(PluginPacket *packet, PluginCall call, const PluginDevice *device, const ManifestDevice *said,
                const ManifestDevice *source, const char *text)
{
        uint32_t n_attributes = MIN(device->n_attributes, (uint32_t) MIGMGR_ATTRIBUTES_MAX);
        const char *head[] = {device->vm, device->id, device->type, device->driver};
        uint64_t *numbers;
        int r = 0;

        plugin_packet_init(packet, call, 0);
        numbers = packet->head.numbers;
        numbers[PLUGIN_NUMBER_ATTRIBUTES] = n_attributes;
        numbers[PLUGIN_NUMBER_FACTS] = said ? said->n_facts : 0;
        numbers[PLUGIN_NUMBER_SOURCE_FACTS] = source ? source->n_facts : 0;
        for (size_t i = 0; i < ARRAY_SIZE(head) && r == 0; i++)
                r = plugin_packet_add(packet, head[i]);
        if (r == 0)
                r = add_texts(packet, device->attributes, n_attributes);
        if (r == 0 && said)
                r = add_facts(packet, said);
        if (r == 0 && source)
                r = plugin_packet_add(packet, source->id);
        if (r == 0 && source)
                r = plugin_packet_add(packet, type_of(source));
        if (r == 0 && source)
                r = plugin_packet_add(packet, source->driver);
        if (r == 0 && source)
                r = add_facts(packet, source);
        if (r == 0 && text)
                r = plugin_packet_add(packet, text);
        if (r == 0)
                r = plugin_packet_add_bytes(packet, device->config,
                                            MIN(device->config_size, (uint32_t) MIGMGR_CONFIG_MAX));
        return r;
}

/* ---- look ----------------------------------------------------------------------------------------------------- */

static int say(ManifestDevice *said, const char *name, const char *key, const char *value)
{
        char full[FACT_KEY_MAX + 1];

        (void) snprintf(full, sizeof full, "%s.%s", name, key);
        if (said->n_facts >= PLUGINS_FACTS_MAX && !manifest_fact(said, full))
                return -E2BIG;
        return manifest_add_fact(said, full, value[0] ? value : "-");
}

static int take_facts(PluginsView *view, Plugin *plugin, const PluginAnswer *answer)
{
        const PluginHello *hello = plugin_hello(plugin);
        int r = manifest_add_plugin(&view->said, hello->name);

        for (uint32_t i = 0; i < answer->n_facts && r == 0; i++)
                r = say(&view->said, hello->name, answer->facts[i].name, answer->facts[i].value);
        /* Ours, whatever it says itself. */
        if (r == 0)
                r = say(&view->said, hello->name, "plugin", hello->version);
        if (r == 0)
                r = say(&view->said, hello->name, "judges",
                        hello->functions & PLUGIN_HAS_CHECK ? "yes" : "no");
        return r;
}

static void take_estimate(PluginsView *view, const Plugin *plugin, const PluginAnswer *answer)
{
        bool any = answer->bytes > 0;

        view->bytes = MAX(view->bytes, answer->bytes);
        for (Phase p = 0; p < PHASE_MAX; p++) {
                any |= answer->usec[p] > 0;
                view->usec[p] = MAX(view->usec[p], answer->usec[p]);
        }
        if (any)
                (void) snprintf(view->estimator, sizeof view->estimator, "%s", plugin_name(plugin));
}

static void on_looked(void *userdata, Plugin *plugin, PluginEnd end, const PluginAnswer *answer,
                      const char *text)
{
        Item *item = userdata;
        Ask *ask = item->ask;
        PluginsView *view = ask->view;

        if (end == PLUGIN_END_YES && take_facts(view, plugin, answer) < 0) {
                end = PLUGIN_END_FAILED;
                text = "it and the others say more of the device than there is room for";
        }
        if (end == PLUGIN_END_YES) {
                view->plugins[view->n_plugins++] = plugin;
                take_estimate(view, plugin, answer);
        } else if (end != PLUGIN_END_NO && plugin_verdict(PHASE_CHECK, end) == PLUGIN_REFUSE) {
                add_finding_here(ask, PLUGIN_REFUSE, plugin_name(plugin), text, REMEDY_BROKEN);
        }
        item_is_done(item);
}

void plugins_look(Plugins *plugins, const PluginDevice *device, Side side, PluginsView *view,
                  LoopCallback done, void *userdata)
{
        Ask *ask = ask_new(plugins, PLUGIN_CALL_LOOK, device, side, PHASE_CHECK, plugins->n, userdata);
        int r = fill(&plugins->packet, ask->call, device, NULL, NULL, NULL);

        ask->done = done;
        ask->view = view;
        ask->findings = view->findings = json_new_array();
        if (r < 0)
                add_finding_here(ask, PLUGIN_REFUSE, "(all)", "more is known of the device than can be asked",
                                 REMEDY_BROKEN);
        for (uint32_t i = 0; i < plugins->n && r == 0; i++)
                (void) add_item(ask, plugins->plugins[i], LOOK_USEC);
        ask->n_waiting = ask->n_items;
        for (uint32_t i = 0; i < ask->n_items; i++)
                plugin_ask(ask->items[i].plugin, &plugins->packet, LOOK_USEC, false, on_looked,
                           &ask->items[i]);
        if (ask->n_items == 0)
                loop_timer_soon(ask->soon);
}

/* ---- check ---------------------------------------------------------------------------------------------------- */

static bool has_plugin(const ManifestDevice *device, const char *name)
{
        for (uint32_t i = 0; i < device->n_plugins; i++)
                if (streq(device->plugins[i], name))
                        return true;
        return false;
}

/* What keeps the plugin of that name from judging here; NULL: nothing. */
static const char *why_mute(const Plugins *plugins, const char *name)
{
        for (uint32_t i = 0; plugins && i < plugins->n; i++) {
                const PluginHello *hello = plugin_hello(plugins->plugins[i]);

                if (streq(plugin_name(plugins->plugins[i]), name) && hello->name[0])
                        return hello->functions & PLUGIN_HAS_CHECK ? NULL : "loaded, but it has no check()";
        }
        return "not loaded";
}

void plugins_find_missing(const Plugins *plugins, const ManifestDevice *source, json_object *findings)
{
        for (uint32_t i = 0; i < source->n_plugins && json_object_array_length(findings) < MISSING_MAX; i++) {
                char key[FACT_KEY_MAX + 1];
                const char *judges, *version, *mute;

                (void) snprintf(key, sizeof key, "%.*s.judges", MIGMGR_NAME_MAX, source->plugins[i]);
                judges = manifest_fact(source, key);
                (void) snprintf(key, sizeof key, "%.*s.plugin", MIGMGR_NAME_MAX, source->plugins[i]);
                version = manifest_fact(source, key);
                mute = judges && streq(judges, "yes") ? why_mute(plugins, source->plugins[i]) : NULL;
                if (!judges)
                        add_finding(findings, source->id, PLUGIN_REFUSE, source->plugins[i],
                                    "too many facts to be sent", "", REMEDY_CROWDED);
                else if (mute)
                        add_finding(findings, source->id, PLUGIN_REFUSE, source->plugins[i],
                                    version ? version : "loaded", mute, REMEDY_MISSING);
        }
}

static void on_checked(void *userdata, Plugin *plugin, PluginEnd end, const PluginAnswer *answer,
                       const char *text)
{
        Item *item = userdata;
        PluginVerdict verdict = plugin_verdict(PHASE_CHECK, end);
        const char *reason = answer && answer->reason[0] ? answer->reason : text;
        const char *remedy = answer && answer->remedy[0] ? answer->remedy : REMEDY_BROKEN;

        if (answer && !answer->reason[0])
                reason = "it gives no reason";
        if (verdict == PLUGIN_REFUSE || verdict == PLUGIN_NOTICE)
                add_finding_here(item->ask, verdict, plugin_name(plugin), reason,
                                 verdict == PLUGIN_NOTICE && !(answer && answer->remedy[0]) ? "" : remedy);
        item_is_done(item);
}

void plugins_check(Plugins *plugins, const PluginDevice *device, const ManifestDevice *source,
                   const PluginsView *view, json_object *findings, LoopCallback done, void *userdata)
{
        Ask *ask = ask_new(plugins, PLUGIN_CALL_CHECK, device, SIDE_DESTINATION, PHASE_CHECK, plugins->n,
                           userdata);
        int r = fill(&plugins->packet, ask->call, device, &view->said, source, NULL);

        ask->done = done;
        ask->findings = findings;
        if (r < 0)
                add_finding_here(ask, PLUGIN_REFUSE, "(all)", "more is known of the device than can be asked",
                                 REMEDY_BROKEN);
        for (uint32_t i = 0; i < plugins->n && r == 0; i++) {
                Plugin *plugin = plugins->plugins[i];
                const char *name = plugin_name(plugin);

                if ((plugin_hello(plugin)->functions & PLUGIN_HAS_CHECK) &&
                    (has_plugin(&view->said, name) || has_plugin(source, name)))
                        (void) add_item(ask, plugin, LOOK_USEC);
        }
        ask->n_waiting = ask->n_items;
        for (uint32_t i = 0; i < ask->n_items; i++)
                plugin_ask(ask->items[i].plugin, &plugins->packet, LOOK_USEC, false, on_checked,
                           &ask->items[i]);
        if (ask->n_items == 0)
                loop_timer_soon(ask->soon);
}

/* ---- transitions ---------------------------------------------------------------------------------------------- */

static void ask_item(Item *item);

static uint64_t left_usec(const Item *item)
{
        uint64_t spent = clock_monotonic_usec() - item->ask->began_usec;

        return item->budget_usec > spent ? item->budget_usec - spent : 0;
}

static void on_again(void *userdata)
{
        Item *item = userdata;

        item->attempt++;
        ask_item(item);
}

/* False: there is not so much time. */
static bool wait_and_ask(Item *item, const PluginAnswer *answer)
{
        uint64_t usec = MAX(answer->wait_ms, 1u) * USEC_PER_MSEC;

        if (usec >= left_usec(item))
                return false;
        if (!item->again && loop_timer_new(item->ask->plugins->loop, on_again, item, &item->again) < 0)
                out_of_memory();
        loop_timer_set(item->again, usec);
        return true;
}

static void on_transition(void *userdata, Plugin *plugin, PluginEnd end, const PluginAnswer *answer,
                          const char *text)
{
        Item *item = userdata;
        Ask *ask = item->ask;

        if (ask->call == PLUGIN_CALL_ON_ERROR) {
                item->verdict = plugin_advice(ask->side, ask->phase, end, ask->tried);
        } else {
                item->verdict = plugin_verdict(ask->phase, end);
                if (item->verdict == PLUGIN_ASK_AGAIN && wait_and_ask(item, answer))
                        return;
                if (item->verdict == PLUGIN_ASK_AGAIN) {
                        text = "it wanted to wait for longer than it may";
                        answer = NULL;
                        item->verdict = plugin_verdict(ask->phase, PLUGIN_END_LATE);
                }
        }
        (void) snprintf(item->text, sizeof item->text, "plugin %s: %s", plugin_name(plugin),
                        answer && answer->reason[0] ? answer->reason
                        : text[0]                   ? text
                                                    : "it gives no reason");
        item_is_done(item);
}

static void ask_item(Item *item)
{
        Ask *ask = item->ask;
        PluginPacket *packet = &ask->plugins->packet;

        memcpy(packet, ask->asked, ask->asked_size);
        packet->n_text = ask->asked_size - sizeof packet->head;
        packet->head.numbers[PLUGIN_NUMBER_ATTEMPT] = item->attempt;
        packet->head.numbers[PLUGIN_NUMBER_WAITED_MS] =
                (clock_monotonic_usec() - ask->began_usec) / USEC_PER_MSEC;
        plugin_ask(item->plugin, packet, MAX(left_usec(item), 1u), true, on_transition, item);
}

static uint32_t declared_ms(const PluginHello *hello, PluginCall call, Phase phase)
{
        return call == PLUGIN_CALL_BEFORE  ? hello->before_ms[phase]
               : call == PLUGIN_CALL_AFTER ? hello->after_ms[phase]
                                           : hello->error_ms[phase];
}

static void keep_packet(Ask *ask)
{
        ask->asked_size = plugin_packet_size(&ask->plugins->packet);
        ask->asked = malloc(ask->asked_size);
        if (!ask->asked)
                out_of_memory();
        memcpy(ask->asked, &ask->plugins->packet, ask->asked_size);
}

static void fill_transition(PluginPacket *packet, const PluginTransition *transition)
{
        uint64_t *numbers = packet->head.numbers;

        numbers[PLUGIN_NUMBER_PHASE] = transition->phase;
        numbers[PLUGIN_NUMBER_SIDE] = transition->side;
        numbers[PLUGIN_NUMBER_FROM] = (uint32_t) transition->from;
        numbers[PLUGIN_NUMBER_TO] = (uint32_t) transition->to;
        numbers[PLUGIN_NUMBER_ERROR] = (uint64_t) -transition->error;
}

bool plugins_ask(Plugins *plugins, PluginCall call, const PluginDevice *device, const PluginsView *view,
                 const PluginTransition *transition, bool tried, PluginsDecided decided, void *userdata)
{
        uint64_t budgets[PLUGINS_MAX];
        bool any = false;
        Ask *ask;

        for (uint32_t i = 0; i < view->n_plugins; i++) {
                uint64_t usec = plugin_budget_usec(
                        declared_ms(plugin_hello(view->plugins[i]), call, transition->phase),
                        transition->deadline_usec);

                budgets[i] = usec > transition->spent_usec ? usec - transition->spent_usec : 0;
                any |= budgets[i] > 0;
        }
        if (!any)
                return false;
        ask = ask_new(plugins, call, device, transition->side, transition->phase, view->n_plugins, userdata);
        ask->decided = decided;
        ask->tried = tried;
        if (fill(&plugins->packet, call, device, &view->said, NULL, transition->text) < 0) {
                ask_free(ask);
                return false; /* what does not fit was refused at check */
        }
        fill_transition(&plugins->packet, transition);
        keep_packet(ask);
        for (uint32_t i = 0; i < view->n_plugins; i++)
                if (budgets[i] > 0)
                        (void) add_item(ask, view->plugins[i], budgets[i]);
        ask->n_waiting = ask->n_items;
        for (uint32_t i = 0; i < ask->n_items; i++)
                ask_item(&ask->items[i]);
        return true;
}

void plugins_forget(Plugins *plugins, const void *userdata)
{
        for (Ask *ask = plugins->asks, *next; ask; ask = next) {
                next = ask->next;
                if (ask->userdata == userdata)
                        ask_free(ask);
        }
}

uint32_t plugins_phase_ms(const PluginsView *view, Phase phase)
{
        uint32_t before = 0, after = 0, error = 0;

        /* All are asked at the same time, but what comes after waits for the slowest that is asked before. */
        for (uint32_t i = 0; i < view->n_plugins; i++) {
                const PluginHello *hello = plugin_hello(view->plugins[i]);

                before = MAX(before, hello->before_ms[phase]);
                after = MAX(after, hello->after_ms[phase]);
                error = MAX(error, hello->error_ms[phase]);
        }
        return before + after + error;
}

void plugins_view_deinit(PluginsView *view)
{
        free(view->said.facts);
        free(view->said.plugins);
        json_object_put(view->findings);
        *view = (PluginsView){};
}

/* ---- the folder ----------------------------------------------------------------------------------------------- */

/* Of what is opened already: it is not exchanged behind our back. */
static const char *find_trouble(int fd, mode_t type, const char *what_type)
{
        struct stat st;

        if (fstat(fd, &st) < 0)
                return strerror(errno);
        if ((st.st_mode & S_IFMT) != type)
                return what_type;
        if (st.st_uid != 0 && st.st_uid != geteuid())
                return "it belongs to another user than root and migmgrd's: chown it";
        if (st.st_mode & (S_IWGRP | S_IWOTH))
                return "others than its owner may write it: chmod go-w";
        return NULL;
}

static bool is_named(const Plugin *plugin, const char *name)
{
        return plugin_state(plugin) != PLUGIN_STATE_REFUSED && streq(plugin_hello(plugin)->name, name);
}

/* Two of one name: the second's facts would pass for the first's, in the order of their files. */
static void on_ready(void *userdata, Plugin *plugin)
{
        const Plugins *plugins = userdata;
        const Plugin *first = NULL;
        char text[PLUGIN_STRING_MAX];

        for (uint32_t i = 0; i < plugins->n; i++) {
                Plugin *other = plugins->plugins[i];

                if (!is_named(other, plugin_hello(plugin)->name))
                        continue;
                if (first) {
                        (void) snprintf(text, sizeof text, "%.100s has the same name: take one of them out",
                                        plugin_file(first));
                        plugin_refuse(other, text);
                } else {
                        first = other;
                }
        }
}

static int add_plugin(Plugins *plugins, int folder_fd, const char *file, const char *host_program)
{
        int fd = openat(folder_fd, file, O_RDONLY | O_CLOEXEC | O_NONBLOCK), r;
        const char *trouble = fd < 0 ? strerror(errno) : find_trouble(fd, S_IFREG, "it is no regular file");

        r = plugin_new(plugins->loop, host_program, file, fd, trouble, &plugins->plugins[plugins->n]);
        if (r < 0)
                return r;
        plugin_on_ready(plugins->plugins[plugins->n++], on_ready, plugins);
        return 0;
}

static int is_plugin(const struct dirent *entry)
{
        size_t n = strlen(entry->d_name);

        return entry->d_name[0] != '.' && n > 3 && streq(entry->d_name + n - 3, ".so");
}

static int read_folder(Plugins *plugins, const char *folder, const char *host_program)
{
        _cleanup_(closep) int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        struct dirent **names = NULL;
        const char *trouble;
        int n, r = 0;

        if (fd < 0 && errno == ENOENT)
                return 0;
        if (fd < 0) {
                log_error(NULL, "plugins' folder %s: %s", folder, strerror(errno));
                return -EPERM;
        }
        trouble = find_trouble(fd, S_IFDIR, "it is no folder");
        if (trouble) {
                log_error(NULL, "plugins' folder %s: %s", folder, trouble);
                return -EPERM;
        }
        n = scandirat(fd, ".", &names, is_plugin, alphasort);
        for (int i = 0; i < n; i++) {
                if (r == 0 && plugins->n == PLUGINS_MAX)
                        log_error(NULL, "plugins' folder %s: more than %d; %s is not loaded", folder,
                                  PLUGINS_MAX, names[i]->d_name);
                else if (r == 0)
                        r = add_plugin(plugins, fd, names[i]->d_name, host_program);
                free(names[i]);
        }
        free(names);
        return r;
}

int plugins_new(Loop *loop, const char *folder, const char *host_program, Plugins **ret)
{
        Plugins *plugins = calloc(1, sizeof *plugins);
        int r;

        if (!plugins)
                return -ENOMEM;
        plugins->loop = loop;
        r = read_folder(plugins, folder, host_program);
        if (r < 0) {
                plugins_free(plugins);
                return r;
        }
        *ret = plugins;
        return 0;
}

Plugins *plugins_free(Plugins *plugins)
{
        if (!plugins)
                return NULL;
        while (plugins->asks)
                ask_free(plugins->asks);
        for (uint32_t i = 0; i < plugins->n; i++)
                plugin_free(plugins->plugins[i]);
        free(plugins);
        return NULL;
}

bool plugins_are_none(const Plugins *plugins)
{
        return !plugins || plugins->n == 0;
}

/* ---- for people ----------------------------------------------------------------------------------------------- */

static json_object *phases_to_json(const PluginHello *hello)
{
        json_object *phases = json_new_array();

        for (Phase p = 0; p < PHASE_MAX; p++) {
                json_object *o;

                if (hello->before_ms[p] + hello->after_ms[p] + hello->error_ms[p] == 0)
                        continue;
                o = json_new_object();
                json_add_string(o, "phase", phase_to_string(p));
                json_add_number(o, "before_msec", hello->before_ms[p]);
                json_add_number(o, "after_msec", hello->after_ms[p]);
                json_add_number(o, "error_msec", hello->error_ms[p]);
                json_append(phases, o);
        }
        return phases;
}

json_object *plugins_to_json(const Plugins *plugins)
{
        json_object *array = json_new_array();

        for (uint32_t i = 0; plugins && i < plugins->n; i++) {
                const Plugin *plugin = plugins->plugins[i];
                json_object *o = json_new_object();

                json_add_string(o, "name", plugin_name(plugin));
                json_add_string(o, "version", plugin_hello(plugin)->version);
                json_add_string(o, "file", plugin_file(plugin));
                json_add_string(o, "state", plugin_state_to_string(plugin_state(plugin)));
                json_add_number(o, "restarts", plugin_restarts(plugin));
                json_add(o, "phases", phases_to_json(plugin_hello(plugin)));
                json_add_string(o, "text", plugin_text(plugin));
                json_append(array, o);
        }
        return array;
}
