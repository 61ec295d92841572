/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What a person sees while a job runs: on a terminal a few lines that are drawn anew, elsewhere a line for each phase. Goes
 * to stderr; stdout is for results. */

#include "client.h"

typedef struct Progress Progress;

Progress *progress_new(const char *vm);
Progress *progress_free(Progress *progress);

/* `job`: the properties of the job's object; `devices`: id and state of each, as [[path, mode, state], ...]. */
void progress_show(Progress *progress, json_object *job);

/* Leaves the terminal clean. */
void progress_end(Progress *progress);
