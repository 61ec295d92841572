/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The main function of a fuzzer where libFuzzer is not: each given file, and each file of a given directory, once. */

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/file.h"
#include "common/macros.h"
#include "fuzz.h"

#define INPUT_MAX (1024 * 1024)

static int replay(const char *path)
{
        _cleanup_(freep) char *data = NULL;
        size_t size;
        int r = file_read(path, INPUT_MAX, &data, &size);

        if (r < 0) {
                fprintf(stderr, "%s: %s\n", path, strerror(-r));
                return r;
        }
        return LLVMFuzzerTestOneInput((const uint8_t *) data, size);
}

static int is_file(const struct dirent *entry)
{
        return entry->d_name[0] != '.';
}

static int replay_all(const char *path, int *n_all)
{
        struct dirent **names = NULL;
        char file[4096];
        int r = 0, n = scandir(path, &names, is_file, alphasort);

        if (n < 0 && errno == ENOTDIR) {
                (*n_all)++;
                return replay(path);
        }
        if (n < 0) {
                r = -errno;
                fprintf(stderr, "%s: %s\n", path, strerror(-r));
                return r;
        }
        for (int k = 0; k < n; k++) {
                (void) snprintf(file, sizeof file, "%s/%s", path, names[k]->d_name);
                free(names[k]);
                if (r >= 0)
                        r = replay(file);
                (*n_all)++;
        }
        free(names);
        return r;
}

int main(int argc, char **argv)
{
        int n_all = 0;

        for (int i = 1; i < argc; i++)
                if (replay_all(argv[i], &n_all) < 0)
                        return 1;
        printf("%d inputs\n", n_all);
        return n_all > 0 ? 0 : 1;
}
