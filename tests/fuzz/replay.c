/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The main function of a fuzzer where libFuzzer is not: each file of the given directories, once. */

#include <dirent.h>
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

int main(int argc, char **argv)
{
        int n_all = 0;

        for (int i = 1; i < argc; i++) {
                struct dirent **names = NULL;
                char path[4096];
                int n = scandir(argv[i], &names, is_file, alphasort);

                for (int k = 0; k < n; k++) {
                        (void) snprintf(path, sizeof path, "%s/%s", argv[i], names[k]->d_name);
                        free(names[k]);
                        if (replay(path) < 0)
                                return 1;
                        n_all++;
                }
                free(names);
        }
        printf("%d inputs\n", n_all);
        return n_all > 0 ? 0 : 1;
}
