/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "move.h"

#include <pthread.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "common/clock.h"
#include "stream.h"

#define BLACKOUT_USEC (300 * USEC_PER_MSEC)
#define REST_USEC     (10 * USEC_PER_MSEC) /* between two passes when little is left */
#define LITTLE_PAGES  64                   /* is always little enough */
#define TEXT_MAX      256

struct Move {
        Vm *vm;
        int fd, notify_fd;
        MoveLimits limits;
        pthread_t thread;
        bool has_thread;
        uint8_t *pages; /* STREAM_PAGES_MAX of them, on their way out */
        bool *came;     /* in: which pages have come */
        uint64_t n_pages, sending_usec;

        pthread_mutex_t lock; /* what follows */
        pthread_cond_t changed;
        MoveState state;
        char text[TEXT_MAX];
        bool hurries, seals, ends, never_converges;
        uint64_t done; /* bytes */
};

/* ---- between the threads ------------------------------------------------------------------------------------- */

static void set_state(Move *m, MoveState state)
{
        (void) pthread_mutex_lock(&m->lock);
        m->state = state;
        (void) pthread_mutex_unlock(&m->lock);
        (void) eventfd_write(m->notify_fd, 1);
}

static int fail(Move *m, int r, const char *what)
{
        (void) pthread_mutex_lock(&m->lock);
        (void) snprintf(m->text, sizeof m->text, "%s: %s", what, strerror(-r));
        (void) pthread_mutex_unlock(&m->lock);
        return r;
}

static void raise_flag(Move *m, bool *flag)
{
        (void) pthread_mutex_lock(&m->lock);
        *flag = true;
        (void) pthread_cond_broadcast(&m->changed);
        (void) pthread_mutex_unlock(&m->lock);
}

static bool look(Move *m, const bool *flag)
{
        bool value;

        (void) pthread_mutex_lock(&m->lock);
        value = *flag;
        (void) pthread_mutex_unlock(&m->lock);
        return value;
}

/* Until then, unless there is something to hurry for. */
static void rest_until(Move *m, uint64_t usec)
{
        struct timespec ts = {(time_t) (usec / USEC_PER_SEC), (long) (usec % USEC_PER_SEC * 1000)};
        int r = 0;

        (void) pthread_mutex_lock(&m->lock);
        while (r == 0 && !m->hurries && !m->seals && !m->ends)
                r = pthread_cond_timedwait(&m->changed, &m->lock, &ts);
        (void) pthread_mutex_unlock(&m->lock);
}

/* ---- out ----------------------------------------------------------------------------------------------------- */

static bool is_zero(const uint8_t *page)
{
        return page[0] == 0 && memcmp(page, page + 1, RAM_PAGE - 1) == 0;
}

static uint64_t bytes_left(const Move *m)
{
        return ram_count_dirty(m->vm->ram) * RAM_PAGE;
}

/* Sends the pages that were copied out. The bandwidth is kept by resting after each record. */
static int send_pages(Move *m, StreamType type, uint64_t first, unsigned n)
{
        StreamRecord record = {.type = type, .count = n, .page = first};
        size_t size = type == STREAM_PAGES ? n * RAM_PAGE : 0;
        uint64_t start = clock_monotonic_usec();
        int r = stream_send_record(m->fd, &record, m->pages, size);

        if (r < 0)
                return fail(m, r, "sending memory");
        m->n_pages += n;
        m->sending_usec += clock_monotonic_usec() - start;
        (void) pthread_mutex_lock(&m->lock);
        m->done += n * RAM_PAGE;
        (void) pthread_mutex_unlock(&m->lock);
        if (m->limits.bandwidth > 0)
                rest_until(m, start + size * USEC_PER_SEC / m->limits.bandwidth);
        return 0;
}

/* The run of pages from `page` on that are marked and alike, at most as many as fit a record. They are copied first: the
 * guest may write them at any time, and the sum must be of what is sent. */
static unsigned take_run(Move *m, uint64_t page, StreamType *ret_type)
{
        const Ram *ram = m->vm->ram;
        unsigned n = 0;
        bool zero = false;

        while (n < STREAM_PAGES_MAX && page + n < ram->pages && ram_take(m->vm->ram, page + n)) {
                uint8_t *copy = m->pages + n * RAM_PAGE;

                memcpy(copy, ram->base + (page + n) * RAM_PAGE, RAM_PAGE);
                if (n == 0)
                        zero = is_zero(copy);
                else if (is_zero(copy) != zero) {
                        /* The first of the next run. */
                        ram_mark(m->vm->ram, (page + n) * RAM_PAGE, RAM_PAGE);
                        break;
                }
                n++;
        }
        *ret_type = zero ? STREAM_ZEROES : STREAM_PAGES;
        return n;
}

/* Once over all pages that are marked. */
static int send_pass(Move *m)
{
        uint64_t page = 0;

        while (page < m->vm->ram->pages) {
                StreamType type;
                unsigned n = take_run(m, page, &type);
                int r = n > 0 ? send_pages(m, type, page, n) : 0;

                if (r < 0)
                        return r;
                page += MAX(n, 1);
        }
        return 0;
}

/* Whether what is left would go out while the guest may stand. */
static bool is_little(Move *m)
{
        uint64_t left = bytes_left(m), rate;

        if (left <= LITTLE_PAGES * RAM_PAGE)
                return true;
        rate = m->n_pages * RAM_PAGE * USEC_PER_SEC / MAX(m->sending_usec, 1);
        if (m->limits.bandwidth > 0)
                rate = MIN(rate, m->limits.bandwidth);
        return left / MAX(rate / USEC_PER_SEC, 1) <= m->limits.max_blackout_usec;
}

/* Nothing is written any more but what devices send by message until they stand. */
static void wait_for_seal(Move *m)
{
        (void) pthread_mutex_lock(&m->lock);
        while (!m->seals && !m->ends)
                (void) pthread_cond_wait(&m->changed, &m->lock);
        (void) pthread_mutex_unlock(&m->lock);
}

/* Until the VM is sealed. */
static int send_live(Move *m)
{
        while (!look(m, &m->seals)) {
                int r = send_pass(m);
                bool converges = is_little(m) && !look(m, &m->never_converges);

                if (r < 0)
                        return r;
                if (converges && move_state(m) == MOVE_GOING)
                        set_state(m, MOVE_CONVERGED);
                if (look(m, &m->hurries) && bytes_left(m) == 0)
                        wait_for_seal(m);
                else if (converges)
                        rest_until(m, clock_monotonic_usec() + REST_USEC);
                if (look(m, &m->ends))
                        return fail(m, -ECANCELED, "sending memory");
        }
        return 0;
}

static int send_devices(Move *m)
{
        StreamDevice devices[VM_DEVICES_MAX] = {};
        StreamRecord record = {.type = STREAM_DEVICES, .count = m->vm->n_devices};
        int r;

        for (unsigned i = 0; i < m->vm->n_devices; i++) {
                (void) snprintf(devices[i].id, sizeof devices[i].id, "%s", device_id(m->vm->devices[i]));
                for (unsigned v = 0; v < DEVICE_VECTORS_MAX; v++)
                        devices[i].interrupts[v] = device_pending_interrupts(m->vm->devices[i], v);
        }
        r = stream_send_record(m->fd, &record, devices, m->vm->n_devices * sizeof *devices);
        return r < 0 ? fail(m, r, "sending the state of the VM") : 0;
}

static int send_vm(Move *m)
{
        StreamRecord end = {.type = STREAM_END};
        StreamHeader header;
        int r;

        stream_header(m->vm, &header);
        r = stream_send(m->fd, &header, sizeof header);
        if (r < 0)
                return fail(m, r, "sending memory");
        ram_mark(m->vm->ram, 0, m->vm->ram->size);
        r = send_live(m);
        if (r == 0)
                r = send_pass(m);
        if (r == 0)
                r = send_devices(m);
        if (r < 0)
                return r;
        end.page = m->n_pages;
        r = stream_send_record(m->fd, &end, NULL, 0);
        return r < 0 ? fail(m, r, "sending memory") : 0;
}

/* ---- in ------------------------------------------------------------------------------------------------------ */

static int receive_pages(Move *m, const StreamRecord *record)
{
        Ram *ram = m->vm->ram;
        uint8_t *to;
        int r = 0;

        if (record->count == 0 || record->count > STREAM_PAGES_MAX || record->page >= ram->pages ||
            record->count > ram->pages - record->page)
                return fail(m, -EBADMSG, "memory that is not there");
        to = ram->base + record->page * RAM_PAGE;
        if (record->type == STREAM_PAGES)
                r = stream_receive_payload(m->fd, record, to, record->count * RAM_PAGE);
        else
                memset(to, 0, record->count * RAM_PAGE);
        if (r < 0)
                return fail(m, r, "receiving memory");
        memset(m->came + record->page, true, record->count);
        m->n_pages += record->count;
        (void) pthread_mutex_lock(&m->lock);
        m->done += record->count * RAM_PAGE;
        (void) pthread_mutex_unlock(&m->lock);
        return 0;
}

static int receive_devices(Move *m, const StreamRecord *record, StreamDevice devices[VM_DEVICES_MAX])
{
        Vm *vm = m->vm;
        int r;

        if (record->count != vm->n_devices)
                return fail(m, -EBADMSG, "number of devices");
        r = stream_receive_payload(m->fd, record, devices, vm->n_devices * sizeof *devices);
        if (r < 0)
                return fail(m, r, "receiving the state of the VM");
        for (unsigned i = 0; i < vm->n_devices; i++)
                if (strncmp(devices[i].id, device_id(vm->devices[i]), sizeof devices[i].id) != 0)
                        return fail(m, -EBADMSG, "devices in another order");
        return 0;
}

/* All of it must have come. What it brings that can't be brought twice is given to the VM only now. */
static int receive_end(Move *m, const StreamRecord *record, const StreamDevice *devices)
{
        Vm *vm = m->vm;

        if (record->page != m->n_pages)
                return fail(m, -EBADMSG, "end of memory");
        if (memchr(m->came, false, vm->ram->pages))
                return fail(m, -ENODATA, "a page never came");
        for (unsigned i = 0; i < vm->n_devices; i++)
                for (unsigned v = 0; v < DEVICE_VECTORS_MAX; v++)
                        device_add_interrupts(vm->devices[i], v, devices[i].interrupts[v]);
        return 0;
}

static int receive_header(Move *m)
{
        StreamHeader header, expected;
        int r = stream_receive(m->fd, &header, sizeof header);

        if (r < 0)
                return fail(m, r, "receiving memory");
        stream_header(m->vm, &expected);
        if (memcmp(&header, &expected, sizeof header) != 0)
                return fail(m, -EBADMSG, "memory of another VM, or of another kind");
        return 0;
}

static int receive_vm(Move *m)
{
        StreamDevice devices[VM_DEVICES_MAX];
        bool has_devices = false;
        int r = receive_header(m);

        while (r == 0) {
                StreamRecord record;

                r = stream_receive_record(m->fd, &record);
                if (r < 0)
                        return fail(m, r, "receiving memory");
                switch (record.type) {
                case STREAM_PAGES:
                case STREAM_ZEROES: r = receive_pages(m, &record); break;
                case STREAM_DEVICES:
                        r = receive_devices(m, &record, devices);
                        has_devices = true;
                        break;
                case STREAM_END:
                        return has_devices ? receive_end(m, &record, devices)
                                           : fail(m, -EBADMSG, "end of memory");
                default: r = fail(m, -EBADMSG, "a record of no known type");
                }
        }
        return r;
}

/* ---- life ---------------------------------------------------------------------------------------------------- */

static void *move_main(void *userdata)
{
        Move *m = userdata;
        int r = m->came ? receive_vm(m) : send_vm(m);

        /* The other end need not wait for what does not come. */
        if (r < 0)
                (void) shutdown(m->fd, SHUT_RDWR);
        set_state(m, r < 0 ? MOVE_FAILED : MOVE_COMPLETE);
        return NULL;
}

DEFINE_CLEANUP(Move *, move_free);

static int move_new(Vm *vm, int fd, const MoveLimits *limits, int notify_fd, bool in, Move **ret)
{
        _cleanup_(move_freep) Move *m = calloc(1, sizeof *m);
        pthread_condattr_t attributes;
        int r;

        if (!m) {
                (void) close(fd);
                return -ENOMEM;
        }
        m->vm = vm;
        m->fd = fd;
        m->notify_fd = notify_fd;
        m->limits = *limits;
        if (m->limits.max_blackout_usec == 0)
                m->limits.max_blackout_usec = BLACKOUT_USEC;
        (void) pthread_mutex_init(&m->lock, NULL);
        (void) pthread_condattr_init(&attributes);
        (void) pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        (void) pthread_cond_init(&m->changed, &attributes);
        (void) pthread_condattr_destroy(&attributes);
        if (in)
                m->came = calloc(vm->ram->pages, sizeof *m->came);
        else
                m->pages = malloc(STREAM_PAGES_MAX * RAM_PAGE);
        if (!m->came && !m->pages)
                return -ENOMEM;
        r = pthread_create(&m->thread, NULL, move_main, m);
        if (r != 0)
                return -r;
        m->has_thread = true;
        *ret = TAKE_PTR(m);
        return 0;
}

int move_out(Vm *vm, int fd, const MoveLimits *limits, int notify_fd, Move **ret)
{
        return move_new(vm, fd, limits, notify_fd, false, ret);
}

int move_in(Vm *vm, int fd, int notify_fd, Move **ret)
{
        return move_new(vm, fd, &(MoveLimits){}, notify_fd, true, ret);
}

Move *move_free(Move *m)
{
        if (!m)
                return NULL;
        raise_flag(m, &m->ends);
        /* Whoever reads or writes it wakes up; what is sent already stays sent. */
        if (move_state(m) != MOVE_COMPLETE)
                (void) shutdown(m->fd, SHUT_RDWR);
        if (m->has_thread)
                (void) pthread_join(m->thread, NULL);
        (void) close(m->fd);
        (void) pthread_cond_destroy(&m->changed);
        (void) pthread_mutex_destroy(&m->lock);
        free(m->pages);
        free(m->came);
        free(m);
        return NULL;
}

void move_hurry(Move *m)
{
        raise_flag(m, &m->hurries);
}

void move_seal(Move *m)
{
        raise_flag(m, &m->seals);
}

void move_never_converge(Move *m, bool never)
{
        (void) pthread_mutex_lock(&m->lock);
        m->never_converges = never;
        (void) pthread_mutex_unlock(&m->lock);
}

MoveState move_state(Move *m)
{
        MoveState state;

        (void) pthread_mutex_lock(&m->lock);
        state = m->state;
        (void) pthread_mutex_unlock(&m->lock);
        return state;
}

const char *move_text(const Move *m)
{
        return m->text;
}

void move_progress(Move *m, uint64_t *ret_done, uint64_t *ret_total)
{
        (void) pthread_mutex_lock(&m->lock);
        *ret_done = m->done;
        *ret_total = m->vm->ram->size;
        (void) pthread_mutex_unlock(&m->lock);
}
