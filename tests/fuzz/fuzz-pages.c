/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Pages of the VM's memory from the other agent, while the VMM here maps and unmaps as it likes. An input is a list of steps of 8
 * bytes: what (STEP_*), a number, an address (2, in units of 64 bytes), a length (2), two more. Whatever comes, nothing is written
 * that is not mapped at that moment. */

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "common/crc32c.h"
#include "daemon/agent/pages.h"
#include "daemon/peer/frame.h"
#include "fuzz.h"

#define MEMORY_SIZE (256 * 1024) /* the file; the first and the last quarter are never mapped */
#define MAPS_MAX    4
#define TURNS       8

#define MUST(condition)                                             \
        do {                                                        \
                if (!(condition)) {                                 \
                        fprintf(stderr, "pages: %s\n", #condition); \
                        abort();                                    \
                }                                                   \
        } while (0)

enum {
        STEP_PAGES,   /* so many bytes for there, as they should be */
        STEP_DAMAGED, /* ... but for the CRC */
        STEP_HALF,    /* ... but that the last byte comes only with the next step */
        STEP_MAP,     /* that mapping is another one now, or (length 0) none */
        STEP_NO_FILE, /* that mapping has no file any more */
        STEP_END,     /* the end frame, with the number of bytes that were sent */
        STEP_FRAME,   /* a frame of any type with nothing behind it */
        STEP_RAW,     /* bytes */
        STEP_MAX,
};

struct Broker {
        BrokerMap maps[MAPS_MAX];
};

uint32_t broker_maps(const Broker *broker, const BrokerMap **ret)
{
        *ret = broker->maps;
        return MAPS_MAX;
}

typedef struct World {
        struct event_base *base;
        Broker broker;
        Pages *pages;
        int s[2], file;
        bool ended, owes; /* owes: the last byte of a frame */
        uint8_t owed;
        uint64_t sent;
} World;

static void on_end(void *userdata, int status, const char *text)
{
        World *w = userdata;

        MUST(!w->ended && status <= 0 && text);
        w->ended = true;
}

static void say(World *w, const void *data, size_t size)
{
        (void) send(w->s[0], data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        for (int i = 0; i < TURNS && !w->ended; i++)
                (void) event_base_loop(w->base, EVLOOP_NONBLOCK);
}

static void say_pages(World *w, unsigned int what, uint64_t address, uint32_t length, uint8_t with)
{
        static uint8_t bytes[FRAME_HEADER_SIZE + 65536];
        uint8_t *payload = bytes + FRAME_HEADER_SIZE;
        Frame frame = {.type = FRAME_PAGES, .offset = address, .length = length};

        memset(payload, with | 1, length);
        frame.crc = crc32c(payload, length) ^ (what == STEP_DAMAGED);
        frame_encode(&frame, bytes);
        w->sent += length;
        w->owes = what == STEP_HALF && length > 0;
        if (w->owes)
                w->owed = payload[length - 1];
        say(w, bytes, FRAME_HEADER_SIZE + length - w->owes);
}

/* Within the middle of the file. */
static void map(World *w, uint8_t n, uint64_t address, uint32_t length)
{
        BrokerMap *m = &w->broker.maps[n % MAPS_MAX];
        uint64_t offset = MEMORY_SIZE / 4 + address % (MEMORY_SIZE / 4);

        *m = (BrokerMap){
                .address = address, .size = length, .offset = offset, .fd = length > 0 ? w->file : -1};
        m->size = MIN(m->size, MEMORY_SIZE * UINT64_C(3) / 4 - offset);
}

static void step(World *w, const uint8_t b[8])
{
        uint64_t address = (b[2] | (uint64_t) b[3] << 8) * 64;
        uint32_t length = b[4] | (uint32_t) b[5] << 8;
        unsigned int what = b[0] % STEP_MAX;
        uint8_t bytes[FRAME_HEADER_SIZE];

        if (w->owes && what != STEP_MAP && what != STEP_NO_FILE) {
                w->owes = false;
                say(w, &w->owed, 1);
        }
        if (what <= STEP_HALF)
                say_pages(w, what, address, length, b[1]);
        else if (what == STEP_MAP)
                map(w, b[1], address, length);
        else if (what == STEP_NO_FILE)
                w->broker.maps[b[1] % MAPS_MAX].fd = -1;
        else if (what == STEP_RAW)
                say(w, b + 1, 7);
        else {
                frame_encode(&(Frame){.type = what == STEP_END ? FRAME_END : b[1] % 9,
                                      .offset = what == STEP_END ? w->sent : address,
                                      .length = what == STEP_END ? 0 : length},
                             bytes);
                say(w, bytes, sizeof bytes);
        }
}

static void check_memory(const World *w)
{
        static uint8_t bytes[MEMORY_SIZE];

        MUST(pread(w->file, bytes, sizeof bytes, 0) == sizeof bytes);
        for (size_t i = 0; i < MEMORY_SIZE / 4; i++)
                MUST(bytes[i] == 0 && bytes[MEMORY_SIZE * 3 / 4 + i] == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        World w = {.base = event_base_new(), .file = memfd_create("memory", MFD_CLOEXEC)};

        MUST(w.base && w.file >= 0 && ftruncate(w.file, MEMORY_SIZE) == 0);
        MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, w.s) == 0);
        for (uint8_t i = 0; i < MAPS_MAX; i++)
                map(&w, i, 0, 0);
        MUST(pages_in_new(w.base, w.s[1], &w.broker, on_end, &w, &w.pages) == 0);
        for (; size >= 8 && !w.ended; data += 8, size -= 8)
                step(&w, data);
        check_memory(&w);
        pages_free(w.pages);
        for (int i = 0; i < 2; i++)
                (void) close(w.s[i]);
        (void) close(w.file);
        event_base_free(w.base);
        return 0;
}
