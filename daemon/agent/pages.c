/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pages.h"

#include <sys/socket.h>

#include "common/crc32c.h"
#include "common/socket.h"
#include "daemon/peer/frame.h"

#define RUN_MAX UINT64_C(262144) /* bytes of memory in one frame */
/* Frames until whoever else is in the loop has his turn, however fast the other side is: the commander may want it to
 * end. */
#define FRAMES_AT_ONCE 16

struct Pages {
        int fd;
        const Dirty *dirty;
        const Broker *broker;
        uint32_t range; /* out: where in `dirty`, */
        uint64_t at;
        uint64_t run, left; /* ... and what is left of the run of pages in hand */
        uint8_t *buffer;    /* header and payload of the frame in hand */
        size_t size, done;  /* out: of it; in: what must come, and what has */
        Frame frame;        /* in */
        bool ending;        /* out: the end frame is in hand */
        uint64_t bytes;
        struct event *ready, *kick;
        int status;
        const char *text;
        StreamEnd on_end;
        void *userdata;
        void (*pump)(Pages *pages);
};

/* ---- life ---------------------------------------------------------------------------------------------------- */

static void on_ready(evutil_socket_t fd, short what, void *userdata)
{
        Pages *pages = userdata;

        if (pages->status == 0)
                pages->pump(pages);
}

static void on_kick(evutil_socket_t fd, short what, void *userdata)
{
        Pages *pages = userdata;

        if (pages->status == 0)
                pages->pump(pages);
        else
                pages->on_end(pages->userdata, MIN(pages->status, 0), pages->text);
}

/* Told from the loop: whoever is told may free the pages. */
static void end(Pages *pages, int status, const char *text)
{
        if (pages->status != 0)
                return;
        pages->status = status < 0 ? status : 1;
        pages->text = text;
        (void) event_del(pages->ready);
        event_active(pages->kick, EV_TIMEOUT, 0);
}

Pages *pages_free(Pages *pages)
{
        if (!pages)
                return NULL;
        if (pages->ready)
                event_free(pages->ready);
        if (pages->kick)
                event_free(pages->kick);
        free(pages->buffer);
        free(pages);
        return NULL;
}

DEFINE_CLEANUP(Pages *, pages_free);

uint64_t pages_bytes(const Pages *pages)
{
        return pages->bytes;
}

static int pages_new(struct event_base *base, int fd, short what, void (*pump)(Pages *), const Broker *broker,
                     StreamEnd on_end, void *userdata, Pages **ret)
{
        _cleanup_(pages_freep) Pages *pages = calloc(1, sizeof *pages);

        if (!pages)
                return -ENOMEM;
        *pages = (Pages){
                .fd = fd, .broker = broker, .text = "", .on_end = on_end, .userdata = userdata, .pump = pump};
        pages->buffer = malloc(FRAME_HEADER_SIZE + FRAME_PAYLOAD_MAX);
        pages->ready = event_new(base, fd, what, on_ready, pages);
        pages->kick = event_new(base, -1, 0, on_kick, pages);
        if (!pages->buffer || !pages->ready || !pages->kick || evutil_make_socket_nonblocking(fd) < 0)
                return -ENOMEM;
        event_active(pages->kick, EV_TIMEOUT, 0);
        *ret = TAKE_PTR(pages);
        return 0;
}

/* ---- memory -------------------------------------------------------------------------------------------------- */

/* The mapping with a file that holds all of it, or NULL. */
static const BrokerMap *find_map(const Pages *pages, uint64_t address, uint64_t size)
{
        const BrokerMap *maps;
        uint32_t n_maps = broker_maps(pages->broker, &maps);

        for (uint32_t i = 0; i < n_maps; i++) {
                const BrokerMap *map = &maps[i];

                if (map->fd >= 0 && address >= map->address && address - map->address < map->size &&
                    size <= map->size - (address - map->address))
                        return map;
        }
        return NULL;
}

/* All of it, in a file of shared memory. */
static int copy(const BrokerMap *map, uint64_t address, uint8_t *data, size_t size, bool out)
{
        off_t offset = (off_t) (map->offset + (address - map->address));

        for (size_t done = 0; done < size;) {
                ssize_t n = out ? pread(map->fd, data + done, size - done, offset + (off_t) done)
                                : pwrite(map->fd, data + done, size - done, offset + (off_t) done);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return n < 0 ? -errno : -ENXIO;
                done += (size_t) n;
        }
        return 0;
}

/* ---- out ----------------------------------------------------------------------------------------------------- */

/* What is left of the run into the buffer, as far as one mapping goes: it may have been mapped otherwise since. */
static void take_run(Pages *pages)
{
        const BrokerMap *map = find_map(pages, pages->run, 1);
        Frame frame = {.type = FRAME_PAGES, .offset = pages->run};
        int r;

        if (!map) {
                /* It was taken away while the VM ran: the guest does not give it to the device any more, but what was
                 * written is still the guest's. */
                end(pages, -ENXIO, "memory that the device wrote is not mapped any more");
                return;
        }
        frame.length = (uint32_t) MIN(pages->left, map->size - (pages->run - map->address));
        r = copy(map, pages->run, pages->buffer + FRAME_HEADER_SIZE, frame.length, true);
        if (r < 0) {
                end(pages, r, "the VM's memory cannot be read");
                return;
        }
        frame.crc = crc32c(pages->buffer + FRAME_HEADER_SIZE, frame.length);
        frame_encode(&frame, pages->buffer);
        pages->size = FRAME_HEADER_SIZE + frame.length;
        pages->done = 0;
        pages->bytes += frame.length;
        pages->run += frame.length;
        pages->left -= frame.length;
}

static void next_run(Pages *pages)
{
        for (; pages->left == 0 && pages->dirty && pages->range < pages->dirty->n;
             pages->range++, pages->at = 0)
                if (dirty_next(pages->dirty, pages->range, RUN_MAX, &pages->at, &pages->run, &pages->left))
                        break;
        if (pages->left > 0) {
                take_run(pages);
                return;
        }
        frame_encode(&(Frame){.type = FRAME_END, .offset = pages->bytes}, pages->buffer);
        pages->size = FRAME_HEADER_SIZE;
        pages->done = 0;
        pages->ending = true;
}

static void pump_out(Pages *pages)
{
        for (int n_frames = 0; pages->status == 0;) {
                ssize_t n;

                if (pages->done == pages->size) {
                        if (pages->ending) {
                                end(pages, 0, "");
                                return;
                        }
                        if (n_frames++ == FRAMES_AT_ONCE) {
                                (void) event_add(pages->ready, NULL);
                                return;
                        }
                        next_run(pages);
                        continue;
                }
                n = send(pages->fd, pages->buffer + pages->done, pages->size - pages->done,
                         MSG_NOSIGNAL | MSG_DONTWAIT);
                if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
                        (void) event_add(pages->ready, NULL);
                        return;
                }
                if (n < 0) {
                        end(pages, device_cut_status(errno), "the data connection broke");
                        return;
                }
                pages->done += (size_t) n;
        }
}

int pages_out_new(struct event_base *base, int fd, const Dirty *dirty, const Broker *broker, StreamEnd on_end,
                  void *userdata, Pages **ret)
{
        int r = pages_new(base, fd, EV_WRITE, pump_out, broker, on_end, userdata, ret);

        if (r >= 0)
                (*ret)->dirty = dirty;
        return r;
}

/* ---- in ------------------------------------------------------------------------------------------------------ */

static const char not_mapped[] = "memory came that the VMM here has not mapped for the device";

static void take_header(Pages *pages)
{
        Frame *frame = &pages->frame;

        if (frame_decode(pages->buffer, frame) < 0 ||
            (frame->type != FRAME_PAGES && frame->type != FRAME_END && frame->type != FRAME_ERROR)) {
                end(pages, -EBADMSG, "the other side sent a frame that makes no sense where memory was due");
                return;
        }
        if (frame->type == FRAME_ERROR) {
                end(pages, -ECANCELED, "the other side gave up");
                return;
        }
        if (frame->type == FRAME_END) {
                if (frame->offset == pages->bytes)
                        end(pages, 0, "");
                else
                        end(pages, -EBADMSG, "less memory came than the other side has sent");
                return;
        }
        if (!find_map(pages, frame->offset, frame->length)) {
                end(pages, -ENXIO, not_mapped);
                return;
        }
        pages->size = FRAME_HEADER_SIZE + frame->length;
}

static void take_payload(Pages *pages)
{
        Frame *frame = &pages->frame;
        uint8_t *payload = pages->buffer + FRAME_HEADER_SIZE;
        const BrokerMap *map = find_map(pages, frame->offset, frame->length);
        int r;

        if (!map) { /* the VMM has taken it away since the header came */
                end(pages, -ENXIO, not_mapped);
                return;
        }
        if (crc32c(payload, frame->length) != frame->crc) {
                end(pages, -EBADMSG, "a frame's checksum is wrong: memory was damaged on the way");
                return;
        }
        r = copy(map, frame->offset, payload, frame->length, false);
        if (r < 0) {
                end(pages, r, "the VM's memory cannot be written");
                return;
        }
        pages->bytes += frame->length;
        pages->size = FRAME_HEADER_SIZE;
        pages->done = 0;
}

static void pump_in(Pages *pages)
{
        for (int n_frames = 0; pages->status == 0;) {
                ssize_t n =
                        recv(pages->fd, pages->buffer + pages->done, pages->size - pages->done, MSG_DONTWAIT);

                if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
                        (void) event_add(pages->ready, NULL);
                        return;
                }
                if (n <= 0) {
                        end(pages, n < 0 ? device_cut_status(errno) : -DEVICE_E_CUT,
                            "the data connection ended before the end frame");
                        return;
                }
                pages->done += (size_t) n;
                if (pages->done < pages->size)
                        continue;
                if (pages->size == FRAME_HEADER_SIZE) {
                        take_header(pages);
                        continue;
                }
                take_payload(pages);
                if (++n_frames == FRAMES_AT_ONCE && pages->status == 0) {
                        (void) event_add(pages->ready, NULL);
                        return;
                }
        }
}

int pages_in_new(struct event_base *base, int fd, const Broker *broker, StreamEnd on_end, void *userdata,
                 Pages **ret)
{
        int r = pages_new(base, fd, EV_READ, pump_in, broker, on_end, userdata, ret);

        if (r >= 0)
                (*ret)->size = FRAME_HEADER_SIZE;
        return r;
}
