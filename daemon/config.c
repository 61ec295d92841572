/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>

#include "common/file.h"
#include "common/json.h"
#include "common/log.h"
#include "peer/address.h"

#define CONFIG_MAX       (256 * 1024)
#define DEADLINE_MAX_SEC 3600
#define HISTORY_DAYS_MAX 36500
#define HISTORY_JOBS_MAX (1000 * 1000)
#define CONNECT_USEC     (2 * USEC_PER_SEC)
#define DOUBT_USEC       (10 * USEC_PER_SEC)
#define FENCE_USEC       (60 * USEC_PER_SEC)

const Config config_default = {
        .runtime_dir = MIGMGR_RUNTIME_DIR,
        .state_dir = MIGMGR_STATE_DIR,
        .config_file = MIGMGR_CONFIG_DIR "/migmgrd.json",
        .vms_dir = MIGMGR_CONFIG_DIR "/vms.d",
        .history = {.days = 365, .jobs = 1000},
        .fence_usec = FENCE_USEC,
        .plugins_dir = MIGMGR_PLUGINS_DIR,
        .plugin_host = MIGMGR_PLUGIN_HOST_PATH,
};

static void forget(uint32_t *n, char **texts)
{
        for (; *n > 0; (*n)--)
                free(texts[*n - 1]);
}

/* What is not the default is owned. */
static void replace(const char **text, const char *standard, const char *with)
{
        if (*text != standard)
                free((char *) *text);
        *text = with;
}

void config_deinit(Config *config)
{
        forget(&config->n_listen, config->listen);
        forget(&config->n_policies_dirs, config->policies_dirs);
        forget(&config->n_fence, config->fence);
        replace(&config->vms_dir, config_default.vms_dir, config_default.vms_dir);
        replace(&config->plugins_dir, config_default.plugins_dir, config_default.plugins_dir);
}

static uint64_t read_msec(JsonReader *reader, json_object *object, const char *key, uint64_t usec)
{
        int64_t most = DEADLINE_MAX_SEC * 1000;

        return (uint64_t) json_number(reader, object, key, 1, most, (int64_t) (usec / USEC_PER_MSEC)) *
               USEC_PER_MSEC;
}

static const char *wrong_address(const char *text)
{
        const char *reason = NULL;

        return address_check(text, &reason) < 0 ? reason : NULL;
}

static const char *wrong_dir(const char *text)
{
        return *text == '/' ? NULL : "it is no absolute path";
}

/* An array of at most `most` texts, of which `wrong` says what is wrong with one, or NULL. Replaces what an earlier file
 * said. */
static void read_texts(JsonReader *reader, json_object *root, const char *key, const char *what,
                       const char *(*wrong)(const char *text), uint32_t most, uint32_t *n, char **texts)
{
        json_object *array = json_member(reader, root, key, json_type_array, false);

        if (!array)
                return;
        forget(n, texts);
        if (json_object_array_length(array) > most)
                json_fail(reader, "\"%s\": more than %u %s", key, most, what);
        for (size_t i = 0; i < json_object_array_length(array) && !reader->failed; i++) {
                json_object *item = json_object_array_get_idx(array, i);
                const char *text = json_object_get_string(item);
                const char *reason =
                        json_object_is_type(item, json_type_string) ? wrong(text) : "it is no text";

                if (reason)
                        json_fail(reader, "\"%s\": %.100s: %s", key, text ? text : "null", reason);
                else
                        texts[(*n)++] = strdup(text);
        }
        for (uint32_t i = 0; i < *n; i++)
                if (!texts[i])
                        json_fail(reader, "out of memory");
}

static const char *wrong_argument(const char *text)
{
        return NULL;
}

static void read_fence(JsonReader *reader, json_object *root, Config *config)
{
        read_texts(reader, root, "fence-command", "words", wrong_argument, CONFIG_FENCE_MAX, &config->n_fence,
                   config->fence);
        if (config->n_fence > 0 && !reader->failed && config->fence[0][0] != '/')
                json_fail(reader, "\"fence-command\": %.100s: it is no absolute path", config->fence[0]);
        config->fence[config->n_fence] = NULL;
        config->fence_usec = read_msec(reader, root, "fence-msec", config->fence_usec);
}

static void read_text(JsonReader *reader, json_object *root, const char *key, const char *standard,
                      const char **ret)
{
        const char *text = json_string(reader, root, key, false);

        if (!text || reader->failed)
                return;
        replace(ret, standard, strdup(text)); /* of what an earlier file said */
        if (!*ret)
                json_fail(reader, "out of memory");
}

static void read_object(JsonReader *reader, json_object *root, Config *config)
{
        static const char *const keys[] = {
                "vms-dir",    "policies-dirs", "plugins-dir",  "listen",        "connect-msec",
                "doubt-msec", "history-days",  "history-jobs", "fence-command", "fence-msec",
                NULL};

        json_only(reader, root, keys);
        read_text(reader, root, "vms-dir", config_default.vms_dir, &config->vms_dir);
        read_text(reader, root, "plugins-dir", config_default.plugins_dir, &config->plugins_dir);
        read_texts(reader, root, "listen", "addresses", wrong_address, CONFIG_LISTEN_MAX, &config->n_listen,
                   config->listen);
        read_texts(reader, root, "policies-dirs", "folders", wrong_dir, CONFIG_POLICIES_DIRS_MAX,
                   &config->n_policies_dirs, config->policies_dirs);
        config->history.days = (uint64_t) json_number(reader, root, "history-days", 0, HISTORY_DAYS_MAX,
                                                      (int64_t) config->history.days);
        config->history.jobs = (uint64_t) json_number(reader, root, "history-jobs", 0, HISTORY_JOBS_MAX,
                                                      (int64_t) config->history.jobs);
        read_fence(reader, root, config);
        config->connect_usec = read_msec(reader, root, "connect-msec", config->connect_usec);
        config->doubt_usec = read_msec(reader, root, "doubt-msec", config->doubt_usec);
}

static int read_one(Config *config, const char *path, bool needed, char *ret_error)
{
        _cleanup_(freep) char *text = NULL;
        _cleanup_(json_object_putp) json_object *root = NULL;
        JsonReader reader = {.where = path};
        size_t size;
        int r = file_read(path, CONFIG_MAX, &text, &size);

        if (r == -ENOENT && !needed)
                return 0;
        if (r < 0) {
                (void) snprintf(ret_error, JSON_TEXT_MAX, "%.150s: %s", path, strerror(-r));
                return -EINVAL;
        }
        root = json_parse(&reader, text, size);
        if (root)
                read_object(&reader, root, config);
        if (!reader.failed)
                return 0;
        memcpy(ret_error, reader.text, JSON_TEXT_MAX);
        return -EINVAL;
}

static int is_json(const struct dirent *entry)
{
        size_t n = strlen(entry->d_name);

        return entry->d_name[0] != '.' && n > 5 && streq(entry->d_name + n - 5, ".json");
}

static void default_policies_dirs(Config *config)
{
        static const char *const dirs[] = {MIGMGR_POLICIES_DIR, MIGMGR_CONFIG_DIR "/policies.d"};

        for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
                config->policies_dirs[i] = strdup(dirs[i]);
                if (!config->policies_dirs[i])
                        out_of_memory();
                config->n_policies_dirs++;
        }
}

int config_read(Config *config, char *ret_error)
{
        struct dirent **names = NULL;
        char dir[4096], path[8192];
        size_t stem = strlen(config->config_file);
        int r, n;

        config->connect_usec = CONNECT_USEC;
        config->doubt_usec = DOUBT_USEC;
        default_policies_dirs(config);
        r = read_one(config, config->config_file, false, ret_error);
        if (r < 0)
                return r;
        if (stem > 5 && streq(config->config_file + stem - 5, ".json"))
                stem -= 5;
        (void) snprintf(dir, sizeof dir, "%.*s.d", (int) stem, config->config_file);
        n = scandir(dir, &names, is_json, alphasort);
        if (n < 0 && errno != ENOENT) {
                (void) snprintf(ret_error, JSON_TEXT_MAX, "%.150s: %s", dir, strerror(errno));
                return -EINVAL;
        }
        for (int i = 0; i < n; i++) {
                (void) snprintf(path, sizeof path, "%s/%s", dir, names[i]->d_name);
                if (r >= 0)
                        r = read_one(config, path, true, ret_error);
                free(names[i]);
        }
        free(names);
        return r;
}
