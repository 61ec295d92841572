/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The daemon's side of migmgr-helper: requests that are answered later, in order. Owned by main; the helper may be
 * started again at any time, requests that it then does not answer fail with -ECONNRESET. */

#include "helper/helper-protocol.h"
#include "loop.h"

#include "common/process-id.h"

typedef struct HelperClient HelperClient;

/* `fd` (or -1) is the callee's. `text` says what went wrong when `status` is not 0. */
typedef void (*HelperAnswer)(void *userdata, int status, int fd, pid_t pid, const char *text);

int helper_client_new(Loop *loop, const char *runtime_dir, HelperClient **ret) _must_check_;
HelperClient *helper_client_free(HelperClient *client);

/* Always answers, never from within the call. `strings`: as the request wants them (helper-protocol.h). A program that is
 * to be started is told to begin as soon as its pid is known, and the answer, without a file, comes when it has begun; one
 * that has been forgotten meanwhile does not begin, or is killed. */
void helper_client_ask(HelperClient *client, HelperRequest request, const char *const *strings,
                       size_t n_strings, HelperAnswer answer, void *userdata);

/* Nobody waits for answers with this userdata any more; files that come with them are closed. */
void helper_client_forget(HelperClient *client, const void *userdata);

/* Kills exactly that process; fire and forget, whoever waits for its end has a pidfd. */
void helper_client_kill(HelperClient *client, const ProcessId *id);
