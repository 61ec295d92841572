/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The mailbox of an emulated device: memory of its own that another device of the VM writes letters into, peer to peer, and
 * the letters that it writes into its peer's, as worker-model.h says. Owned by the Device, whose Dma it uses.
 *
 * Letters have numbers, so one that is lost shows at the next; and a device that stands keeps in mind what its mailbox held,
 * so one that was written meanwhile shows, too. Both are counted, never mended.
 */

#include <event2/event.h>

#include "dma.h"
#include "worker-model.h"

/* What a device does in its state. */
typedef enum MailboxMode {
        MAILBOX_STANDS, /* nothing, and nobody may write here */
        MAILBOX_TAKES,  /* only what is written here */
        MAILBOX_SENDS,  /* both */
} MailboxMode;

/* What moves to another host; besides it there is the memory. */
typedef struct MailboxState {
        uint64_t peer; /* the register */
        uint64_t sent, taken, lost, torn;
        uint64_t intrusions; /* times that its memory had changed while it stood */
} MailboxState;

#define MAILBOX_STATE_SIZE (sizeof(MailboxState) + WORKER_MAILBOX_SIZE)

typedef enum MailboxStage {
        MAILBOX_IDLE,
        MAILBOX_READS_TAKEN, /* of the peer */
        MAILBOX_WRITES_REST, /* of the letter; */
        MAILBOX_WRITES_SEQ,  /* now it is there */
} MailboxStage;

typedef struct Mailbox {
        MailboxState s;
        uint8_t *memory; /* mapped; the VMM and the peer have it too */
        int fd;
        uint8_t *stood; /* what it held when the device came to stand */
        Dma *dma;
        struct event *timer;
        MailboxMode mode;
        bool quiet; /* it begins no letter, whatever the mode says: an arc waits for that */
        MailboxStage stage;
        WorkerLetter letter;
        uint64_t peer_taken;
        DmaTransfer transfer;
        uint64_t intrusions_here; /* in this process, whatever was loaded since */

        void (*stopped)(void *userdata); /* after mailbox_quiet(): nothing is out any more */
        void *userdata;
} Mailbox;

/* NULL: out of memory or files. It sends. */
Mailbox *mailbox_new(struct event_base *base, Dma *dma, void (*stopped)(void *userdata), void *userdata);
Mailbox *mailbox_free(Mailbox *m);

/* The device has entered a state. What is out is dropped if it may not send there. */
void mailbox_set_mode(Mailbox *m, MailboxMode mode);
/* It begins no letter any more until the mode is set. True: nothing is out. False: stopped() will be called. */
bool mailbox_quiet(Mailbox *m);
bool mailbox_is_quiet(const Mailbox *m);
/* Its client has gone: an answer that is to come is nobody's. */
void mailbox_drop(Mailbox *m);

void mailbox_set_peer(Mailbox *m, uint64_t address);
/* As at first. */
void mailbox_reset(Mailbox *m);
/* Counts an intrusion if there was one. It looks by itself whenever the mode is set. */
void mailbox_look(Mailbox *m);

/* The state of one that stands, MAILBOX_STATE_SIZE bytes. */
void mailbox_save(Mailbox *m, uint8_t *to);
void mailbox_load(Mailbox *m, const uint8_t *from);
