/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A directory of a test's own, below $TMPDIR. Paths in it fit a socket's address. */

#include <ftw.h>
#include <stdio.h>
#include <sys/stat.h>

#include "common/macros.h"
#include "test.h"

typedef struct Scratch {
        char dir[64];
        char path[512];
} Scratch;

static inline void scratch_init(Scratch *scratch)
{
        const char *tmp = getenv("TMPDIR");

        if (!tmp || strlen(tmp) > 40)
                tmp = "/tmp";
        (void) snprintf(scratch->dir, sizeof scratch->dir, "%s/migmgr-XXXXXX", tmp);
        assert_non_null(mkdtemp(scratch->dir));
}

/* The path of a file in it; good until the next call. */
static inline const char *scratch_path(Scratch *scratch, const char *name)
{
        (void) snprintf(scratch->path, sizeof scratch->path, "%s/%s", scratch->dir, name);
        return scratch->path;
}

static inline void scratch_write(Scratch *scratch, const char *name, const void *data, size_t size)
{
        FILE *file = fopen(scratch_path(scratch, name), "we");

        assert_non_null(file);
        assert_int_equal(fwrite(data, 1, size, file), size);
        assert_int_equal(fclose(file), 0);
}

static inline int scratch_remove(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
        return remove(path);
}

static inline void scratch_deinit(Scratch *scratch)
{
        assert_int_equal(nftw(scratch->dir, scratch_remove, 8, FTW_DEPTH | FTW_PHYS), 0);
}
