/* SPDX-License-Identifier: LGPL-2.1-or-later */
#define _GNU_SOURCE 1 /* memfd_create */
#include "worker.h"

#include <fcntl.h>
#include <sys/mman.h>

#include "history.h"

#define COMMANDS_AT_ONCE 16 /* then others have their turn */

#define CONFIG_VENDOR       0x00
#define CONFIG_DEVICE       0x02
#define CONFIG_COMMAND      0x04
#define CONFIG_COMMAND_BITS 0x06 /* memory and bus master */
#define CONFIG_CLASS        0x09

static void timer_over(evutil_socket_t fd, short what, void *userdata);
static void tick_timer_over(evutil_socket_t fd, short what, void *userdata);
static void transfer_ended(DmaTransfer *t, int r);
static void tick_transfer_ended(DmaTransfer *t, int r);

/* ---- making and resetting ------------------------------------------------------------------------------------ */

/* The bytes of the PCI header that say what the device is. */
static void put_identity(uint8_t *config)
{
        uint16_t vendor = WORKER_VENDOR, device = WORKER_DEVICE;

        memcpy(config + CONFIG_VENDOR, &vendor, sizeof vendor);
        memcpy(config + CONFIG_DEVICE, &device, sizeof device);
        config[CONFIG_CLASS] = WORKER_CLASS & 0xff;
        config[CONFIG_CLASS + 1] = WORKER_CLASS >> 8 & 0xff;
        config[CONFIG_CLASS + 2] = WORKER_CLASS >> 16 & 0xff;
}

void worker_correct_config(uint8_t *config)
{
        put_identity(config);
        config[CONFIG_COMMAND] &= CONFIG_COMMAND_BITS;
        config[CONFIG_COMMAND + 1] = 0;
}

static bool config_is_good(const uint8_t *config)
{
        uint8_t corrected[WORKER_CONFIG_SIZE];

        memcpy(corrected, config, sizeof corrected);
        worker_correct_config(corrected);
        return memcmp(corrected, config, sizeof corrected) == 0;
}

bool worker_tick_pages_are_good(uint64_t pages)
{
        return pages <= WORKER_TICK_PAGES_MAX && (pages & (pages - 1)) == 0;
}

static void clear(Worker *w)
{
        w->s = (WorkerState){.ring = 0};
        worker_correct_config(w->s.config);
        w->stage = WORKER_IDLE;
        w->delay_end_usec = w->next_tick_usec = 0;
        memset(w->window, 0, WORKER_WINDOW_SIZE);
}

/* Sealed: the client has it too, and must not be able to take it from under us. */
static int open_window(Worker *w)
{
        void *window;

        w->window_fd = memfd_create("window", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (w->window_fd < 0 || ftruncate(w->window_fd, WORKER_WINDOW_SIZE) < 0 ||
            fcntl(w->window_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
                return -errno;
        window = mmap(NULL, WORKER_WINDOW_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, w->window_fd, 0);
        if (window == MAP_FAILED)
                return -errno;
        w->window = window;
        return 0;
}

Worker *worker_new(struct event_base *base, Dma *dma, const Irqs *irqs, void (*stopped)(void *userdata),
                   void *userdata)
{
        Worker *w = calloc(1, sizeof *w);

        if (!w)
                return NULL;
        w->dma = dma;
        w->irqs = irqs;
        w->stopped = stopped;
        w->userdata = userdata;
        w->transfer.ended = transfer_ended;
        w->tick_transfer.ended = tick_transfer_ended;
        w->timer = evtimer_new(base, timer_over, w);
        w->tick_timer = evtimer_new(base, tick_timer_over, w);
        if (open_window(w) < 0 || !w->timer || !w->tick_timer)
                return worker_free(w);
        clear(w);
        return w;
}

Worker *worker_free(Worker *w)
{
        if (!w)
                return NULL;
        if (w->timer)
                event_free(w->timer);
        if (w->tick_timer)
                event_free(w->tick_timer);
        if (w->window)
                (void) munmap(w->window, WORKER_WINDOW_SIZE);
        closep(&w->window_fd);
        free(w);
        return NULL;
}

/* ---- time ---------------------------------------------------------------------------------------------------- */

static uint64_t add(uint64_t a, uint64_t b)
{
        return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static uint64_t until(uint64_t usec)
{
        uint64_t now = history_now_usec();

        return usec > now ? usec - now : 0;
}

/* What is further away than libevent can count is looked at again before. */
static void set_timer(struct event *timer, uint64_t usec)
{
        uint64_t wait = MIN(until(usec), 86400 * USEC_PER_SEC);
        struct timeval tv = {.tv_sec = (time_t) (wait / USEC_PER_SEC),
                             .tv_usec = (suseconds_t) (wait % USEC_PER_SEC)};

        (void) evtimer_add(timer, &tv);
}

static bool may_work(const Worker *w)
{
        return w->running && !w->forgotten;
}

/* ---- commands ------------------------------------------------------------------------------------------------ */

/* The functions below are the stages of a command. Each says whether there may be something to do at once: false is for
 * what waits. */

static bool transfer(Worker *w, uint64_t address, void *data, size_t n, bool write, bool by_message);

static bool complete(Worker *w, uint64_t chain)
{
        uint64_t seq = w->s.done + 1;

        w->stage = WORKER_IDLE;
        __atomic_store_n((uint64_t *) (void *) (w->window + worker_window_word(seq)), chain,
                         __ATOMIC_RELEASE);
        w->s.chain = chain;
        w->s.done = seq;
        irq_signal(w->irqs, WORKER_IRQ_INDEX, WORKER_IRQ_DONE);
        return true;
}

static bool begin(Worker *w)
{
        if (w->s.done == w->s.doorbell)
                return false;
        w->stage = WORKER_READS_SLOT;
        return transfer(w, worker_slot_address(w->s.ring, w->s.done + 1), &w->s.slot, sizeof w->s.slot, false,
                        false);
}

static bool read_source(Worker *w)
{
        const WorkerSlot *slot = &w->s.slot;

        if (!worker_slot_is_good(slot, w->s.done + 1))
                return complete(w, WORKER_CHAIN_BAD);
        w->stage = WORKER_READS_SOURCE;
        return transfer(w, slot->source, w->s.source, slot->length, false, slot->flags & WORKER_BY_MESSAGE);
}

static bool take_window(Worker *w)
{
        memcpy(w->s.piece, w->window + w->s.slot.window_offset, w->s.slot.window_length);
        w->stage = WORKER_WAITS;
        w->delay_end_usec = add(history_now_usec(), w->s.slot.delay_usec);
        return true;
}

static bool write_result(Worker *w)
{
        const WorkerSlot *slot = &w->s.slot;
        WorkerResult result;

        if (until(w->delay_end_usec) > 0) {
                set_timer(w->timer, w->delay_end_usec);
                return false;
        }
        w->new_chain = worker_chain(w->s.chain, slot, w->s.source, w->s.piece, w->s.scratch);
        result = (WorkerResult){
                .seq = slot->seq, .chain = w->new_chain, .ticks = w->s.ticks, .length = slot->length};
        memcpy(w->result, &result, sizeof result);
        worker_transform(w->new_chain, w->s.source, w->result + sizeof result, slot->length);
        w->stage = WORKER_WRITES;
        return transfer(w, slot->destination, w->result, sizeof result + slot->length, true,
                        slot->flags & WORKER_BY_MESSAGE);
}

/* The transfer of this stage has ended. */
static bool go_on(Worker *w, int r)
{
        if (r < 0)
                return complete(w, WORKER_CHAIN_BAD);
        switch (w->stage) {
        case WORKER_READS_SLOT: return read_source(w);
        case WORKER_READS_SOURCE: return take_window(w);
        case WORKER_WRITES: return complete(w, w->new_chain);
        case WORKER_IDLE:
        case WORKER_WAITS: break;
        }
        return false;
}

static bool transfer(Worker *w, uint64_t address, void *data, size_t n, bool write, bool by_message)
{
        int r;

        w->transfer.address = address;
        w->transfer.data = data;
        w->transfer.n = n;
        w->transfer.write = write;
        w->transfer.by_message = by_message;
        r = dma_transfer(w->dma, &w->transfer);
        return r == DMA_UNDER_WAY ? false : go_on(w, r);
}

static void work(Worker *w)
{
        bool more = !w->transfer.active;

        for (uint64_t start = w->s.done; more && w->s.done - start < COMMANDS_AT_ONCE;)
                more = w->stage == WORKER_WAITS ? write_result(w) : begin(w);
        if (more)
                set_timer(w->timer, 0);
}

static void timer_over(evutil_socket_t fd, short what, void *userdata)
{
        Worker *w = userdata;

        if (may_work(w))
                work(w);
}

void worker_kick(Worker *w)
{
        if (may_work(w) && w->stage == WORKER_IDLE && w->s.done != w->s.doorbell)
                event_active(w->timer, EV_TIMEOUT, 1);
}

/* As if what is half done had not begun. What has been read in full stays, because the guest may have been told where the
 * result goes: to where the data came from. Writing all of a result twice does no harm. */
static void put_back(Worker *w)
{
        if (w->stage == WORKER_WRITES) {
                w->stage = WORKER_WAITS;
                w->delay_end_usec = w->s.delay_wait_usec = 0;
        } else if (w->stage != WORKER_WAITS) {
                w->stage = WORKER_IDLE;
        }
}

static void transfer_ended(DmaTransfer *t, int r)
{
        Worker *w = (Worker *) ((char *) t - offsetof(Worker, transfer));

        if (may_work(w)) {
                if (go_on(w, r))
                        work(w);
                return;
        }
        if (w->stage == WORKER_WRITES && r == 0)
                (void) complete(w, w->new_chain);
        put_back(w);
        if (worker_is_still(w))
                w->stopped(w->userdata);
}

/* ---- ticks --------------------------------------------------------------------------------------------------- */

static bool ticks_are_on(const Worker *w)
{
        return w->s.tick_usec > 0 && w->s.tick_pages > 0;
}

static int write_tick(Worker *w, uint64_t address, size_t n)
{
        w->tick_transfer.address = address;
        w->tick_transfer.data = (uint8_t *) w->tick;
        w->tick_transfer.n = n;
        w->tick_transfer.write = true;
        return dma_transfer(w->dma, &w->tick_transfer);
}

static int begin_tick(Worker *w)
{
        uint64_t k = w->s.ticks + 1;
        uint64_t page = worker_tick_address(w->s.tick_ring, w->s.tick_pages, k);

        w->tick[0] = k;
        w->tick[1] = worker_tick_sum(k, page);
        return write_tick(w, page + WORKER_TICK_AT, sizeof w->tick);
}

/* It is complete when its end is written. One that finds no memory is none. */
static void go_on_ticking(Worker *w, int r)
{
        if (r == 0 && w->tick_transfer.n == sizeof w->tick)
                r = write_tick(w, w->tick_transfer.address + WORKER_TICK_END_AT, sizeof w->tick[0]);
        if (r != 0)
                return;
        w->s.ticks = w->tick[0];
        irq_signal(w->irqs, WORKER_IRQ_INDEX, WORKER_IRQ_TICK);
}

static void tick_timer_over(evutil_socket_t fd, short what, void *userdata)
{
        Worker *w = userdata;

        if (!may_work(w) || !ticks_are_on(w))
                return;
        if (until(w->next_tick_usec) == 0) {
                if (!w->tick_transfer.active)
                        go_on_ticking(w, begin_tick(w));
                w->next_tick_usec = add(w->next_tick_usec, w->s.tick_usec);
                if (until(w->next_tick_usec) == 0) /* what was missed is not caught up */
                        w->next_tick_usec = add(history_now_usec(), w->s.tick_usec);
        }
        set_timer(w->tick_timer, w->next_tick_usec);
}

static void tick_transfer_ended(DmaTransfer *t, int r)
{
        Worker *w = (Worker *) ((char *) t - offsetof(Worker, tick_transfer));

        if (may_work(w) || t->n < sizeof w->tick)
                go_on_ticking(w, r);
        if (!may_work(w) && worker_is_still(w))
                w->stopped(w->userdata);
}

void worker_wind(Worker *w)
{
        w->s.tick_wait_usec = w->s.tick_usec;
        (void) evtimer_del(w->tick_timer);
        if (!may_work(w) || !ticks_are_on(w))
                return;
        w->next_tick_usec = add(history_now_usec(), w->s.tick_usec);
        set_timer(w->tick_timer, w->next_tick_usec);
}

/* ---- running and standing ------------------------------------------------------------------------------------ */

static void wake(Worker *w)
{
        uint64_t now = history_now_usec();

        w->delay_end_usec = add(now, w->s.delay_wait_usec);
        w->next_tick_usec = add(now, w->s.tick_wait_usec);
        set_timer(w->timer, now);
        if (ticks_are_on(w))
                set_timer(w->tick_timer, w->next_tick_usec);
}

/* What is waited for takes its time into the next run. */
static void stand(Worker *w)
{
        (void) evtimer_del(w->timer);
        (void) evtimer_del(w->tick_timer);
        w->s.tick_wait_usec = until(w->next_tick_usec);
        w->s.delay_wait_usec = until(w->delay_end_usec);
        if (!w->transfer.active)
                put_back(w);
}

void worker_start(Worker *w)
{
        bool worked = may_work(w);

        w->running = true;
        if (!worked && may_work(w))
                wake(w);
}

bool worker_is_still(const Worker *w)
{
        return !w->transfer.active && !w->tick_transfer.active;
}

bool worker_stop(Worker *w)
{
        bool worked = may_work(w);

        w->running = false;
        (void) dma_transfer_cut(w->dma, &w->transfer);
        (void) dma_transfer_cut(w->dma, &w->tick_transfer);
        if (worked)
                stand(w);
        return worker_is_still(w);
}

static void drop_transfers(Worker *w)
{
        dma_transfer_drop(w->dma, &w->transfer);
        dma_transfer_drop(w->dma, &w->tick_transfer);
}

void worker_halt(Worker *w)
{
        bool worked = may_work(w);

        drop_transfers(w);
        w->running = false;
        if (worked)
                stand(w);
}

void worker_forget(Worker *w)
{
        bool worked = may_work(w);

        drop_transfers(w);
        w->forgotten = true;
        if (worked)
                stand(w);
        put_back(w);
}

void worker_remember(Worker *w)
{
        bool worked = may_work(w);

        w->forgotten = false;
        if (!worked && may_work(w))
                wake(w);
}

void worker_reset(Worker *w)
{
        drop_transfers(w);
        (void) evtimer_del(w->timer);
        (void) evtimer_del(w->tick_timer);
        clear(w);
}

/* ---- saving and loading -------------------------------------------------------------------------------------- */

void worker_save(const Worker *w, uint8_t *to)
{
        WorkerState *s = (WorkerState *) (void *) to;
        uint32_t length = w->s.slot.length, window_length = w->s.slot.window_length;

        *s = w->s;
        s->has_command = w->stage == WORKER_WAITS;
        if (!s->has_command) {
                length = window_length = 0;
                s->slot = (WorkerSlot){.seq = 0};
                s->delay_wait_usec = 0;
        }
        /* What was there of older commands is nothing that the next host has to know. */
        memset(s->source + length, 0, sizeof s->source - length);
        memset(s->piece + window_length, 0, sizeof s->piece - window_length);
        memcpy(to + sizeof *s, w->window, WORKER_WINDOW_SIZE);
}

static bool is_possible(const WorkerState *s)
{
        if (s->doorbell - s->done > WORKER_SLOTS || !worker_tick_pages_are_good(s->tick_pages) ||
            !config_is_good(s->config))
                return false;
        if (!s->has_command)
                return true;
        return s->has_command == 1 && s->done < s->doorbell && worker_slot_is_good(&s->slot, s->done + 1) &&
               s->delay_wait_usec <= s->slot.delay_usec;
}

int worker_load(Worker *w, const uint8_t *from)
{
        const WorkerState *s = (const WorkerState *) (const void *) from;

        if (!is_possible(s))
                return -EINVAL;
        w->s = *s;
        memcpy(w->window, from + sizeof *s, WORKER_WINDOW_SIZE);
        w->stage = s->has_command ? WORKER_WAITS : WORKER_IDLE;
        return 0;
}
