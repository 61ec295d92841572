/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The policy files of this host: those of several folders, taken together. A file of a later folder stands in for one of
 * the same name in an earlier one. All that are left are read folder by folder, in the order of their names: what an
 * administrator says comes after what is shipped, and of two rules that are equally specific the later one decides.
 *
 * Read whole or not at all: a file that is wrong leaves what was in force before. */

#include "policy-reader.h"

#define POLICY_FILES_MAX 256

typedef struct PolicyFile {
        uint32_t dir; /* in which folder it is */
        char *name;   /* "mlx5-vf": of mlx5-vf.json; owned, as all texts here */
        char *path;
        char *overrides; /* the path of what it stands in for; NULL: of nothing */
        char *text;
        char description[POLICY_DESCRIPTION_MAX + 1];
        uint32_t n_rules; /* of `rules` below, behind those of the files before it */
} PolicyFile;

typedef struct PolicyFiles {
        uint32_t n;
        PolicyFile *files; /* owned; in the order in which they were read */
        PolicyRules rules;
        /* What was wrong when the daemon was started, or at the last reload since, as long as none went well; else empty. Then there
         * are no rules, and no move may begin: nobody knows what would be forbidden. The daemon itself has to live, for the jobs that had not ended. */
        char error[JSON_TEXT_MAX];
} PolicyFiles;

/* Reads *.json of the folders, where they are there; names that begin with a dot are passed over, others are of
 * A-Z a-z 0-9 . _ -. -EINVAL: `ret_error` (JSON_TEXT_MAX bytes) says what is wrong, and `ret` is untouched. -ENOMEM, -EMFILE,
 * -ENFILE: the same, but nothing is wrong with the files. */
int policy_files_read(char *const *dirs, uint32_t n_dirs, PolicyFiles *ret, char *ret_error) _must_check_;

/* The same, into what was read before, which stays as it is when something is wrong. Where nothing is in force, `error` becomes
 * what is wrong now. */
int policy_files_reload(char *const *dirs, uint32_t n_dirs, PolicyFiles *files, char *ret_error) _must_check_;

/* The file of that name, or NULL. */
const PolicyFile *policy_files_find(const PolicyFiles *files, const char *name);

void policy_files_deinit(PolicyFiles *files);
