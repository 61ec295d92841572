/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Pages that devices have written, given to the delegate before it seals. Several calls are under way at a time, so that
 * the blackout is not made of their round trips; a bus allows only so many calls and files at once. */

#include <inttypes.h>
#include <stdio.h>

#include "common/log.h"
#include "delegate.h"

#define AT_ONCE 8

static DelegateDirty *dirty_free(DelegateDirty *dirty)
{
        sd_bus_slot_unref(dirty->slot);
        (void) close(dirty->fd);
        free(dirty);
        return NULL;
}

void delegate_drop_dirty(Delegate *d)
{
        while (d->dirty) {
                DelegateDirty *dirty = d->dirty;

                d->dirty = dirty->next;
                dirty_free(dirty);
        }
        d->dirty_open = 0;
        d->dirty_status = 0;
}

/* The rest is of no more use: the seal fails. */
static void failed(DelegateDirty *dirty, int status, const char *text)
{
        Delegate *d = dirty->delegate;
        char full[DELEGATE_TEXT_MAX];

        (void) snprintf(full, sizeof full,
                        "%" PRIu64 " pages at 0x%" PRIx64 " that a device has written: %.400s", dirty->pages,
                        dirty->address, text);
        delegate_drop_dirty(d);
        d->dirty_status = status;
        memcpy(d->dirty_text, full, sizeof full);
        delegate_dirty_over(d);
}

static void send_more(Delegate *d);

static int on_taken(sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
        DelegateDirty *dirty = userdata;
        Delegate *d = dirty->delegate;
        char text[DELEGATE_TEXT_MAX];
        int status = delegate_reply_error(reply, "TakeDirtyPages", text);

        if (status == 0 && !sd_bus_message_has_signature(reply, "")) {
                (void) snprintf(text, sizeof text, "TakeDirtyPages: the answer has arguments");
                status = -EPROTO;
        }
        if (status < 0) {
                failed(dirty, status, text);
                return 1;
        }
        for (DelegateDirty **p = &d->dirty; *p; p = &(*p)->next)
                if (*p == dirty) {
                        *p = dirty->next;
                        break;
                }
        dirty_free(dirty);
        d->dirty_open--;
        send_more(d);
        if (!d->dirty)
                delegate_dirty_over(d);
        return 1;
}

static int send_one(DelegateDirty *dirty)
{
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *message = NULL;
        Delegate *d = dirty->delegate;
        int r = d->owner[0] ? delegate_message(d, "TakeDirtyPages", &message) : -ECONNRESET;

        if (r >= 0)
                r = sd_bus_message_append(message, "sttth", d->vmm.job, dirty->address, dirty->page_size,
                                          dirty->pages, dirty->fd);
        if (r >= 0)
                r = sd_bus_call_async(loop_bus(d->vmm.loop), &dirty->slot, message, on_taken, dirty,
                                      UINT64_MAX);
        return r;
}

static void send_more(Delegate *d)
{
        for (DelegateDirty *dirty = d->dirty; dirty && d->dirty_open < AT_ONCE; dirty = dirty->next) {
                int r;

                if (dirty->slot)
                        continue;
                r = send_one(dirty);
                if (r < 0) {
                        failed(dirty, r, strerror(-r));
                        return;
                }
                d->dirty_open++;
        }
        loop_kick_bus(d->vmm.loop);
}

void delegate_take_dirty(Vmm *vmm, uint64_t address, uint64_t page_size, uint64_t pages, int fd)
{
        Delegate *d = (Delegate *) vmm;
        DelegateDirty *dirty = malloc(sizeof *dirty), **last = &d->dirty;

        if (!dirty)
                out_of_memory();
        *dirty = (DelegateDirty){NULL, d, NULL, address, page_size, pages, fd};
        if (d->dirty_status < 0) {
                dirty_free(dirty);
                return;
        }
        while (*last)
                last = &(*last)->next;
        *last = dirty;
        send_more(d);
}
