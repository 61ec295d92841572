/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The closed list (helper-protocol.h), carried out. Nothing in here keeps state. */

#include "helper-protocol.h"

typedef struct HelperPlace {
        const char *agent_path;  /* the agent's program */
        const char *runtime_dir; /* where sockets and the VMMs' output go */
} HelperPlace;

/* Carries out what `request` asks and fills `answer`; `ret_fd` is the file to send with it, or -1. */
void helper_answer(const HelperPlace *place, const HelperPacket *request, HelperPacket *answer, int *ret_fd);
