/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "guard.h"

#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

static sigjmp_buf way_out;
static volatile sig_atomic_t copying;

static void lost_memory(int number)
{
        if (copying)
                siglongjmp(way_out, 1);
        (void) signal(number, SIG_DFL); /* not ours: it comes again, and ends us */
}

void guard_init(void)
{
        /* Not blocked within the handler, which is left by a jump: so nothing need be restored, and the way in is cheap. */
        struct sigaction action = {.sa_handler = lost_memory, .sa_flags = SA_NODEFER};

        (void) sigaction(SIGBUS, &action, NULL);
}

bool guard_copy(void *to, const void *from, size_t n)
{
        if (sigsetjmp(way_out, 0) != 0) {
                copying = 0;
                return false;
        }
        copying = 1;
        atomic_signal_fence(memory_order_seq_cst); /* no byte is copied outside these two */
        memcpy(to, from, n);
        atomic_signal_fence(memory_order_seq_cst);
        copying = 0;
        return true;
}
