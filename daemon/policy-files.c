/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "policy-files.h"

#include <dirent.h>
#include <stdio.h>

#include "common/file.h"
#include "common/log.h"

#define SUFFIX         ".json"
#define NAME_BYTES_MAX 64 /* without it */

static int is_policy(const struct dirent *entry)
{
        size_t n = strlen(entry->d_name);

        return entry->d_name[0] != '.' && n > strlen(SUFFIX) &&
               streq(entry->d_name + n - strlen(SUFFIX), SUFFIX);
}

static char *need(char *text)
{
        if (!text)
                out_of_memory();
        return text;
}

static void file_deinit(PolicyFile *file)
{
        free(file->name);
        free(file->path);
        free(file->overrides);
        free(file->text);
}

void policy_files_deinit(PolicyFiles *files)
{
        for (uint32_t i = 0; i < files->n; i++)
                file_deinit(&files->files[i]);
        free(files->files);
        policy_rules_deinit(&files->rules);
        *files = (PolicyFiles){};
}

static PolicyFile *find(const PolicyFiles *files, const char *name)
{
        for (uint32_t i = 0; i < files->n; i++)
                if (streq(files->files[i].name, name))
                        return &files->files[i];
        return NULL;
}

const PolicyFile *policy_files_find(const PolicyFiles *files, const char *name)
{
        return find(files, name);
}

/* It is told on the bus. */
static bool is_name(const char *name)
{
        size_t n = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");

        return n <= NAME_BYTES_MAX && name[n] == 0;
}

/* A file of a folder, in place of one that an earlier folder has. */
static int add_file(PolicyFiles *files, const char *dir, uint32_t index, const char *entry, char *ret_error)
{
        char path[4096], name[256];
        PolicyFile *file;

        (void) snprintf(path, sizeof path, "%.3800s/%s", dir, entry);
        (void) snprintf(name, sizeof name, "%.*s", (int) (strlen(entry) - strlen(SUFFIX)), entry);
        file = find(files, name);
        if (!is_name(name)) {
                (void) snprintf(
                        ret_error, JSON_TEXT_MAX,
                        "%.300s: the name of a policy file is of A-Z a-z 0-9 . _ - and at most %d bytes",
                        path, NAME_BYTES_MAX);
                return -EINVAL;
        }
        if (file) {
                free(file->overrides);
                file->overrides = file->path;
        } else if (files->n >= POLICY_FILES_MAX) {
                (void) snprintf(ret_error, JSON_TEXT_MAX, "%.300s: more than %d policy files", path,
                                POLICY_FILES_MAX);
                return -EINVAL;
        } else {
                file = &files->files[files->n++];
                file->name = need(strdup(name));
        }
        file->path = need(strdup(path));
        file->dir = index;
        return 0;
}

/* Of a file that can't be read: whether that is for want of something that will be there again. */
static int failed_with(int error, const char *path, char *ret_error)
{
        (void) snprintf(ret_error, JSON_TEXT_MAX, "%.300s: %s", path, strerror(error));
        return error == ENOMEM || error == EMFILE || error == ENFILE ? -error : -EINVAL;
}

static int add_folder(PolicyFiles *files, const char *dir, uint32_t index, char *ret_error)
{
        struct dirent **entries = NULL;
        int n = scandir(dir, &entries, is_policy, alphasort), r = 0;

        if (n < 0 && errno != ENOENT)
                return failed_with(errno, dir, ret_error);
        for (int i = 0; i < n; i++) {
                if (r >= 0)
                        r = add_file(files, dir, index, entries[i]->d_name, ret_error);
                free(entries[i]);
        }
        free(entries);
        return r;
}

static int by_importance(const void *a, const void *b)
{
        const PolicyFile *x = a, *y = b;

        return x->dir != y->dir ? (x->dir > y->dir ? 1 : -1) : strcmp(x->name, y->name);
}

static int read_file(PolicyFiles *files, PolicyFile *file, char *ret_error)
{
        uint32_t before = files->rules.n;
        size_t size;
        int r = file_read(file->path, POLICY_TEXT_MAX, &file->text, &size);

        if (r < 0)
                return failed_with(-r, file->path, ret_error);
        r = policy_read(file->path, file->text, size, &files->rules, file->description, ret_error);
        file->n_rules = files->rules.n - before;
        return r;
}

static int read_all(char *const *dirs, uint32_t n_dirs, PolicyFiles *files, char *ret_error)
{
        int r = 0;

        for (uint32_t i = 0; i < n_dirs && r >= 0; i++)
                r = add_folder(files, dirs[i], i, ret_error);
        qsort(files->files, files->n, sizeof *files->files, by_importance);
        for (uint32_t i = 0; i < files->n && r >= 0; i++)
                r = read_file(files, &files->files[i], ret_error);
        return r;
}

int policy_files_read(char *const *dirs, uint32_t n_dirs, PolicyFiles *ret, char *ret_error)
{
        PolicyFiles files = {.files = calloc(POLICY_FILES_MAX, sizeof *files.files)};
        int r;

        if (!files.files)
                out_of_memory();
        r = read_all(dirs, n_dirs, &files, ret_error);
        if (r < 0)
                policy_files_deinit(&files);
        else
                *ret = files;
        return r;
}

int policy_files_reload(char *const *dirs, uint32_t n_dirs, PolicyFiles *files, char *ret_error)
{
        PolicyFiles fresh;
        int r = policy_files_read(dirs, n_dirs, &fresh, ret_error);

        if (r < 0) {
                /* Nothing is in force, and why is what the newest try has found. */
                if (files->error[0])
                        memcpy(files->error, ret_error, sizeof files->error);
                return r;
        }
        policy_files_deinit(files);
        *files = fresh;
        return 0;
}
