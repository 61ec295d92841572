/* SPDX-License-Identifier: LGPL-2.1-or-later */
#define _GNU_SOURCE 1 /* memfd_create */
#include "mailbox.h"

#include <fcntl.h>
#include <sys/mman.h>

#define PERIOD_USEC 500 /* between letters */

static void timer_over(evutil_socket_t fd, short what, void *userdata);
static void transfer_ended(DmaTransfer *t, int r);

/* ---- life ---------------------------------------------------------------------------------------------------- */

/* Sealed: others have it too, and must not be able to take it from under us. */
static int open_memory(Mailbox *m)
{
        void *memory;

        m->fd = memfd_create("mailbox", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (m->fd < 0 || ftruncate(m->fd, WORKER_MAILBOX_SIZE) < 0 ||
            fcntl(m->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
                return -errno;
        memory = mmap(NULL, WORKER_MAILBOX_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, m->fd, 0);
        if (memory == MAP_FAILED)
                return -errno;
        m->memory = memory;
        return 0;
}

Mailbox *mailbox_new(struct event_base *base, Dma *dma, void (*stopped)(void *userdata), void *userdata)
{
        Mailbox *m = calloc(1, sizeof *m);

        if (!m)
                return NULL;
        m->dma = dma;
        m->stopped = stopped;
        m->userdata = userdata;
        m->mode = MAILBOX_SENDS;
        m->transfer.ended = transfer_ended;
        m->timer = evtimer_new(base, timer_over, m);
        m->stood = calloc(1, WORKER_MAILBOX_SIZE);
        if (open_memory(m) < 0 || !m->timer || !m->stood)
                return mailbox_free(m);
        return m;
}

Mailbox *mailbox_free(Mailbox *m)
{
        if (!m)
                return NULL;
        if (m->timer)
                event_free(m->timer);
        if (m->memory)
                (void) munmap(m->memory, WORKER_MAILBOX_SIZE);
        closep(&m->fd);
        free(m->stood);
        free(m);
        return NULL;
}

/* ---- taking -------------------------------------------------------------------------------------------------- */

static uint64_t seq_at(const Mailbox *m, uint64_t seq)
{
        const uint8_t *letter = m->memory + worker_letter_offset(seq);

        return __atomic_load_n((const uint64_t *) (const void *) letter, __ATOMIC_ACQUIRE);
}

static void take(Mailbox *m, uint64_t seq)
{
        WorkerLetter letter;

        memcpy(&letter, m->memory + worker_letter_offset(seq), sizeof letter);
        m->s.torn += letter.sum != worker_letter_sum(&letter);
        m->s.taken = seq;
}

/* The first letter after the next one that is there, 0 if none is. */
static uint64_t find_later(const Mailbox *m)
{
        for (uint64_t seq = m->s.taken + 2; seq <= m->s.taken + WORKER_LETTERS; seq++)
                if (seq_at(m, seq) == seq)
                        return seq;
        return 0;
}

/* They are written one after the other: a later one without the one before it says that this one was lost. */
static void take_all(Mailbox *m)
{
        for (;;) {
                uint64_t next = m->s.taken + 1, later;

                if (seq_at(m, next) == next) {
                        take(m, next);
                        continue;
                }
                later = find_later(m);
                if (later == 0)
                        break;
                if (seq_at(m, next) == next) /* it came while we looked */
                        continue;
                m->s.lost += later - next;
                m->s.taken = later - 1;
        }
        __atomic_store_n((uint64_t *) (void *) (m->memory + WORKER_MAILBOX_TAKEN), m->s.taken,
                         __ATOMIC_RELEASE);
}

/* ---- sending ------------------------------------------------------------------------------------------------- */

static void write_letter(Mailbox *m)
{
        uint64_t seq = m->s.sent + 1;

        m->letter = (WorkerLetter){.seq = seq};
        for (size_t i = 0; i < ARRAY_SIZE(m->letter.data); i++)
                m->letter.data[i] = seq * (2 * i + 1);
        m->letter.sum = worker_letter_sum(&m->letter);
}

/* The transfer of this stage. */
static int begin(Mailbox *m)
{
        uint64_t letter = m->s.peer + worker_letter_offset(m->s.sent + 1);
        DmaTransfer *t = &m->transfer;

        t->write = m->stage != MAILBOX_READS_TAKEN;
        if (m->stage == MAILBOX_READS_TAKEN) {
                t->address = m->s.peer + WORKER_MAILBOX_TAKEN;
                t->data = (uint8_t *) &m->peer_taken;
                t->n = sizeof m->peer_taken;
        } else if (m->stage == MAILBOX_WRITES_REST) {
                t->address = letter + sizeof m->letter.seq;
                t->data = (uint8_t *) &m->letter + sizeof m->letter.seq;
                t->n = sizeof m->letter - sizeof m->letter.seq;
        } else {
                t->address = letter;
                t->data = (uint8_t *) &m->letter.seq;
                t->n = sizeof m->letter.seq;
        }
        return dma_transfer(m->dma, t);
}

/* That transfer has ended. Whether there is another one to begin. */
static bool go_on(Mailbox *m, int r)
{
        MailboxStage stage = m->stage;

        m->stage = MAILBOX_IDLE;
        if (r < 0)
                return false;
        if (stage == MAILBOX_WRITES_SEQ)
                m->s.sent++;
        if (stage == MAILBOX_READS_TAKEN && m->s.sent - m->peer_taken < WORKER_LETTERS) {
                write_letter(m);
                m->stage = MAILBOX_WRITES_REST;
        } else if (stage == MAILBOX_WRITES_REST) {
                m->stage = MAILBOX_WRITES_SEQ;
        }
        return m->stage != MAILBOX_IDLE;
}

static void work(Mailbox *m)
{
        int r;

        do
                r = begin(m);
        while (r != DMA_UNDER_WAY && go_on(m, r));
}

static bool may_send(const Mailbox *m)
{
        return m->mode == MAILBOX_SENDS && !m->quiet && m->s.peer != 0;
}

/* Of a letter that was cut short only the last part counts: without its number it is none, and is written anew. */
static void transfer_ended(DmaTransfer *t, int r)
{
        Mailbox *m = (Mailbox *) ((char *) t - offsetof(Mailbox, transfer));
        bool more = go_on(m, r);

        if (may_send(m)) {
                if (more)
                        work(m);
                return;
        }
        m->stage = MAILBOX_IDLE;
        m->stopped(m->userdata);
}

/* ---- time ---------------------------------------------------------------------------------------------------- */

static void wind(Mailbox *m)
{
        struct timeval tv = {.tv_usec = PERIOD_USEC};

        if (m->mode != MAILBOX_STANDS && m->s.peer != 0)
                (void) evtimer_add(m->timer, &tv);
        else
                (void) evtimer_del(m->timer);
}

static void timer_over(evutil_socket_t fd, short what, void *userdata)
{
        Mailbox *m = userdata;

        take_all(m);
        if (may_send(m) && m->stage == MAILBOX_IDLE) {
                m->stage = MAILBOX_READS_TAKEN;
                work(m);
        }
        wind(m);
}

/* ---- states -------------------------------------------------------------------------------------------------- */

void mailbox_look(Mailbox *m)
{
        if (m->mode != MAILBOX_STANDS || memcmp(m->stood, m->memory, WORKER_MAILBOX_SIZE) == 0)
                return;
        m->s.intrusions++;
        m->intrusions_here++;
        memcpy(m->stood, m->memory, WORKER_MAILBOX_SIZE);
}

bool mailbox_is_quiet(const Mailbox *m)
{
        return !m->transfer.active;
}

bool mailbox_quiet(Mailbox *m)
{
        m->quiet = true;
        if (!dma_transfer_cut(m->dma, &m->transfer))
                m->stage = MAILBOX_IDLE;
        return mailbox_is_quiet(m);
}

void mailbox_drop(Mailbox *m)
{
        dma_transfer_drop(m->dma, &m->transfer);
        m->stage = MAILBOX_IDLE;
}

void mailbox_set_mode(Mailbox *m, MailboxMode mode)
{
        mailbox_look(m);
        if (mode == MAILBOX_STANDS && m->mode != MAILBOX_STANDS)
                memcpy(m->stood, m->memory, WORKER_MAILBOX_SIZE);
        if (mode != MAILBOX_SENDS)
                mailbox_drop(m);
        m->mode = mode;
        m->quiet = false;
        wind(m);
}

void mailbox_set_peer(Mailbox *m, uint64_t address)
{
        m->s.peer = address;
        wind(m);
}

void mailbox_reset(Mailbox *m)
{
        mailbox_look(m);
        mailbox_drop(m);
        m->s = (MailboxState){.peer = 0};
        memset(m->memory, 0, WORKER_MAILBOX_SIZE);
        memset(m->stood, 0, WORKER_MAILBOX_SIZE);
        wind(m);
}

/* ---- saving and loading -------------------------------------------------------------------------------------- */

void mailbox_save(Mailbox *m, uint8_t *to)
{
        mailbox_look(m);
        memcpy(to, &m->s, sizeof m->s);
        memcpy(to + sizeof m->s, m->memory, WORKER_MAILBOX_SIZE);
}

void mailbox_load(Mailbox *m, const uint8_t *from)
{
        mailbox_look(m);
        memcpy(&m->s, from, sizeof m->s);
        memcpy(m->memory, from + sizeof m->s, WORKER_MAILBOX_SIZE);
        memcpy(m->stood, m->memory, WORKER_MAILBOX_SIZE);
}
