/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The adapter for a set of devices without a VM: halting and running are nothing, it is sealed when every device reads
 * STOP, and it can't die. */

#include "vmm.h"

typedef struct None {
        Vmm vmm;
        LoopTimer *timer;
        uint32_t step;
} None;

static void on_timer(void *userdata)
{
        None *none = userdata;

        none->vmm.listener->answered(none->vmm.userdata, none->step, 0, "");
}

static void act(Vmm *vmm, VmmAct what, uint32_t step, uint64_t deadline_usec)
{
        None *none = (None *) vmm;

        none->step = step;
        loop_timer_soon(none->timer);
}

static void find(Vmm *vmm, VmmFound found, void *userdata)
{
        vmm->asked = false;
        found(userdata, 0, "");
}

/* Whether the set runs is seen at its devices. */
static void see(Vmm *vmm, const ProcessId *was, VmmSeen seen, void *userdata)
{
        vmm->asked = false;
        seen(userdata, &(VmmSight){.lives = true, .complete = true});
}

/* There is no memory but the devices'. */
static void take_dirty(Vmm *vmm, uint64_t address, uint64_t page_size, uint64_t pages, int fd)
{
        (void) close(fd);
}

static void give_memory(Vmm *vmm, int fd)
{
        (void) close(fd);
}

static void cut_memory(Vmm *vmm)
{
}

static Vmm *none_free(Vmm *vmm)
{
        None *none = (None *) vmm;

        loop_timer_free(none->timer);
        free(none);
        return NULL;
}

int vmm_none_new(Loop *loop, Vmm **ret)
{
        static const VmmOps ops = {find, see, act, take_dirty, give_memory, cut_memory, none_free};
        None *none = calloc(1, sizeof *none);
        int r;

        if (!none)
                return -ENOMEM;
        none->vmm.ops = &ops;
        r = loop_timer_new(loop, on_timer, none, &none->timer);
        if (r < 0) {
                free(none);
                return r;
        }
        *ret = &none->vmm;
        return 0;
}
