/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Making a VM takes as long as its device servers do, and a delegate must answer meanwhile: a thread makes it. */

#include "vm.h"

#define SETUP_TEXT_MAX 512

typedef struct Setup Setup;

/* Begins. `notify_fd` is signalled when it is done, and later as vm_new() says. */
int setup_new(const VmConfig *config, int notify_fd, Setup **ret) _must_check_;

/* Whether it is done. */
bool setup_is_done(const Setup *setup);

/* Ends it, wherever it is, and frees it. When it was done and `ret` is not NULL the VM is the caller's; else there
 * is none any more. Returns what vm_new() returned, with its text. */
int setup_end(Setup *setup, Vm **ret, char text[SETUP_TEXT_MAX]);
