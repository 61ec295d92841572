/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* How fast device state can go over a link at best: the same four processes, three socket hops and two checksums that a
 * move has (device server, agent, agent, device server), each in a plain blocking loop with nothing else to do. Prints
 * one JSON object with the bytes per second of all streams together. The benchmarks compare migmgr with that.
 *
 *   hops [--devices] STREAMS BYTES_OF_EACH
 *
 * With --devices the two at the ends do what the emulated device does with each page of its memory: at the source it is
 * copied and summed, at the destination summed and copied.
 */

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/crc32c.h"
#include "daemon/peer/frame.h"
#include "tests/device/checksum.h"

#define PIECE       FRAME_PAYLOAD_MAX
#define PAGE        4096u
#define STREAMS_MAX 64
#define MEMORY_MAX  (64u << 20)

typedef struct Piece {
        uint64_t length;
        uint32_t crc;
} Piece;

static bool arg_devices;

static uint8_t *memory_or_exit(size_t size)
{
        uint8_t *p = malloc(size);

        if (!p)
                _exit(1);
        memset(p, 0xa5, size);
        return p;
}

/* What a stage is connected to; `go` ends when all are ready, `told` takes a byte when this one is ready and one from
 * the last when it is through. */
typedef struct Place {
        int in, out, go, told;
} Place;

static void move_or_exit(int fd, void *data, size_t size, bool out)
{
        uint8_t *p = data;

        while (size > 0) {
                ssize_t n = out ? write(fd, p, size) : read(fd, p, size);

                if (n <= 0)
                        _exit(1);
                p += n;
                size -= (size_t) n;
        }
}

/* Keeps the compiler from leaving out sums that nobody looks at. */
static volatile uint32_t sums;

static void copy_and_sum(uint8_t *to, const uint8_t *from, size_t size)
{
        for (size_t at = 0; at < size; at += PAGE) {
                size_t n = MIN((size_t) PAGE, size - at);

                memcpy(to + at, from + at, n);
                sums ^= checksum_add(0, to + at, n);
        }
}

static void sum_and_copy(uint8_t *to, const uint8_t *from, size_t size)
{
        for (size_t at = 0; at < size; at += PAGE) {
                size_t n = MIN((size_t) PAGE, size - at);

                sums ^= checksum_add(0, from + at, n);
                memcpy(to + at, from + at, n);
        }
}

static void tell(const Place *place)
{
        uint8_t byte = 0;

        move_or_exit(place->told, &byte, 1, true);
}

/* The device at the source: from its memory. */
static void run_generator(const Place *place, uint64_t bytes)
{
        uint64_t size = MIN(bytes, (uint64_t) MEMORY_MAX);
        uint8_t *memory = memory_or_exit(size), *buffer = memory_or_exit(PIECE), byte;

        tell(place);
        if (read(place->go, &byte, 1) != 0)
                _exit(1);
        for (uint64_t done = 0; done < bytes;) {
                uint64_t n = MIN(MIN((uint64_t) PIECE, bytes - done), size - done % size);

                if (arg_devices)
                        copy_and_sum(buffer, memory + done % size, n);
                move_or_exit(place->out, arg_devices ? buffer : memory + done % size, n, true);
                done += n;
        }
}

static void run_sender(const Place *place, uint64_t bytes)
{
        uint8_t *buffer = memory_or_exit(PIECE);

        tell(place);
        for (uint64_t done = 0; done < bytes;) {
                Piece piece = {.length = MIN((uint64_t) PIECE, bytes - done)};

                move_or_exit(place->in, buffer, piece.length, false);
                piece.crc = crc32c(buffer, piece.length);
                move_or_exit(place->out, &piece, sizeof piece, true);
                move_or_exit(place->out, buffer, piece.length, true);
                done += piece.length;
        }
}

static void run_receiver(const Place *place, uint64_t bytes)
{
        uint8_t *buffer = memory_or_exit(PIECE);

        tell(place);
        for (uint64_t done = 0; done < bytes;) {
                Piece piece;

                move_or_exit(place->in, &piece, sizeof piece, false);
                move_or_exit(place->in, buffer, piece.length, false);
                if (crc32c(buffer, piece.length) != piece.crc)
                        _exit(1);
                move_or_exit(place->out, buffer, piece.length, true);
                done += piece.length;
        }
}

/* The device at the destination: into its memory. */
static void run_sink(const Place *place, uint64_t bytes)
{
        uint64_t size = MIN(bytes, (uint64_t) MEMORY_MAX);
        uint8_t *memory = memory_or_exit(size), *buffer = memory_or_exit(PIECE);

        tell(place);
        for (uint64_t done = 0; done < bytes;) {
                uint64_t n = MIN(MIN((uint64_t) PIECE, bytes - done), size - done % size);

                move_or_exit(place->in, arg_devices ? buffer : memory + done % size, n, false);
                if (arg_devices)
                        sum_and_copy(memory + done % size, buffer, n);
                done += n;
        }
        tell(place);
}

typedef void (*Stage)(const Place *place, uint64_t bytes);

static const Stage stages[] = {run_generator, run_sender, run_receiver, run_sink};

static int start_stream(const int go[2], int told, uint64_t bytes)
{
        Place place = {.in = -1, .go = go[0], .told = told};

        for (size_t i = 0; i < ARRAY_SIZE(stages); i++) {
                int pair[2] = {-1, -1};

                if (i + 1 < ARRAY_SIZE(stages) && socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
                        return -errno;
                place.out = pair[1];
                pid_t pid = fork();
                if (pid < 0)
                        return -errno;
                if (pid == 0) {
                        (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
                        (void) close(go[1]);
                        stages[i](&place, bytes);
                        _exit(0);
                }
                (void) close(place.in);
                (void) close(place.out);
                place.in = pair[0];
        }
        return 0;
}

/* Waits for so many bytes. */
static bool await(int fd, unsigned long n)
{
        uint8_t byte;

        while (n > 0 && read(fd, &byte, 1) == 1)
                n--;
        return n == 0;
}

static double seconds(void)
{
        struct timespec now;

        (void) clock_gettime(CLOCK_MONOTONIC, &now);
        return (double) now.tv_sec + (double) now.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
        unsigned long streams;
        uint64_t bytes;
        int go[2], told[2];
        double start, took;

        if (argc > 1 && streq(argv[1], "--devices")) {
                arg_devices = true;
                argc--;
                argv++;
        }
        streams = argc == 3 ? strtoul(argv[1], NULL, 10) : 0;
        bytes = argc == 3 ? strtoull(argv[2], NULL, 10) : 0;
        if (streams < 1 || streams > STREAMS_MAX || bytes < 1) {
                fprintf(stderr, "usage: hops [--devices] STREAMS BYTES_OF_EACH\n");
                return 2;
        }
        if (pipe(go) < 0 || pipe(told) < 0)
                return 1;
        for (unsigned long i = 0; i < streams; i++)
                if (start_stream(go, told[1], bytes) < 0)
                        return 1;
        (void) close(told[1]);
        if (!await(told[0], streams * ARRAY_SIZE(stages)))
                return 1;
        start = seconds();
        (void) close(go[1]);
        if (!await(told[0], streams))
                return 1;
        took = seconds() - start;
        printf("{\"streams\": %lu, \"bytes\": %llu, \"seconds\": %.6f, \"bytes_per_second\": %.0f}\n",
               streams, (unsigned long long) (streams * bytes), took, (double) (streams * bytes) / took);
        return 0;
}
