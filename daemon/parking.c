/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "parking.h"

#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/socket.h"

#define NAME       "agent"
#define NAME_INDEX "index"

/* systemd compares each descriptor with all that it has, and does nothing else meanwhile: few at a time, and the next when it
 * says that it has them. */
#define BATCH SOCKET_FDS_MAX

/* The store's queue is full, or it says nothing. */
#define AGAIN_USEC  (100 * USEC_PER_MSEC)
#define SETTLE_USEC (500 * USEC_PER_MSEC)

typedef struct Parked {
        char path[SOCKET_PATH_MAX + 1]; /* "": it is no connection to a path */
        int fd;                         /* -1: it was ended */
        bool taken;
} Parked;

struct Parking {
        Loop *loop;
        uint64_t number;
        int notify_fd;        /* -1: there is no store */
        ParkingIndex *index;  /* NULL: without it */
        ParkingIndex *before; /* that of the last daemon, until it is cleared; or NULL */
        Parked *came;         /* with the start, by path; until it is cleared */
        size_t n_came;
        int *waiting; /* to be given to the store */
        size_t n_waiting, n_room;
        int barrier_fd; /* ends when the store has what it was given; -1: it has */
        LoopIo *barrier_io;
        LoopTimer *timer;
};

static void give_more(void *userdata);

/* ---- to the store -------------------------------------------------------------------------------------------- */

/* NOTIFY_SOCKET: a path, or, with an @, an abstract name. */
static int connect_store(void)
{
        const char *name = getenv("NOTIFY_SOCKET");
        struct sockaddr_un sa = {.sun_family = AF_UNIX};
        size_t n = name ? strlen(name) : 0;
        _cleanup_(closep) int fd = -1;

        if (n < 2 || n >= sizeof sa.sun_path || (name[0] != '/' && name[0] != '@'))
                return -ENOTCONN;
        memcpy(sa.sun_path, name, n);
        if (name[0] == '@')
                sa.sun_path[0] = 0;
        fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0 || connect(fd, (struct sockaddr *) &sa,
                              (socklen_t) (offsetof(struct sockaddr_un, sun_path) + n)) < 0)
                return -errno;
        return TAKE_FD(fd);
}

static int say(Parking *parking, const char *text, const int *fds, size_t n)
{
        return socket_send(parking->notify_fd, text, strlen(text), fds, n);
}

static void end_barrier(Parking *parking)
{
        parking->barrier_io = loop_io_free(parking->barrier_io);
        if (parking->barrier_fd >= 0)
                (void) close(parking->barrier_fd);
        parking->barrier_fd = -1;
}

static void on_barrier(void *userdata)
{
        Parking *parking = userdata;

        end_barrier(parking);
        give_more(parking);
}

/* A pipe, whose other end the store closes when it has come so far. */
static int begin_barrier(Parking *parking)
{
        int fds[2], r;

        if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
                return -errno;
        r = say(parking, "BARRIER=1", &fds[1], 1);
        (void) close(fds[1]);
        if (r == 0)
                r = loop_io_new(parking->loop, fds[0], on_barrier, NULL, parking, &parking->barrier_io);
        if (r < 0) {
                (void) close(fds[0]);
                return r;
        }
        parking->barrier_fd = fds[0];
        return 0;
}

/* One store that does not take them is no worse than none. */
static void give_more(void *userdata)
{
        Parking *parking = userdata;
        size_t n = MIN(parking->n_waiting, (size_t) BATCH);
        int r;

        if (n == 0 || parking->barrier_fd >= 0)
                return;
        r = say(parking, "FDSTORE=1\nFDNAME=" NAME, parking->waiting, n);
        if (r == -EAGAIN) {
                loop_timer_set(parking->timer, AGAIN_USEC);
                return;
        }
        if (r < 0)
                log_warning(NULL, "connections to agents cannot be parked: %s; they are found without it",
                            strerror(-r));
        parking->n_waiting -= n;
        memmove(parking->waiting, parking->waiting + n, parking->n_waiting * sizeof *parking->waiting);
        if (begin_barrier(parking) < 0)
                loop_timer_set(parking->timer, AGAIN_USEC);
}

void parking_put(Parking *parking, int fd)
{
        if (parking->notify_fd < 0)
                return;
        if (parking->n_waiting == parking->n_room) {
                size_t room = MAX(parking->n_room * 2, (size_t) BATCH);
                int *waiting = reallocarray(parking->waiting, room, sizeof *waiting);

                if (!waiting)
                        return;
                parking->waiting = waiting;
                parking->n_room = room;
        }
        parking->waiting[parking->n_waiting++] = fd;
        if (parking->n_waiting == 1 && parking->barrier_fd < 0)
                loop_timer_soon(parking->timer);
}

void parking_leave(Parking *parking, int fd)
{
        for (size_t i = 0; i < parking->n_waiting; i++)
                if (parking->waiting[i] == fd)
                        parking->waiting[i--] = parking->waiting[--parking->n_waiting];
        for (size_t i = 0; i < parking->n_came; i++)
                if (parking->came[i].fd == fd)
                        parking->came[i].fd = -1;
        (void) close(fd);
}

void parking_end(Parking *parking, int fd)
{
        parking_forget(parking, fd);
        (void) shutdown(fd, SHUT_RDWR);
        parking_leave(parking, fd);
}

void parking_settle(Parking *parking)
{
        uint64_t until = clock_monotonic_usec() + SETTLE_USEC, now;

        give_more(parking);
        while (parking->barrier_fd >= 0 && (now = clock_monotonic_usec()) < until) {
                struct pollfd poll_fd = {.fd = parking->barrier_fd, .events = POLLIN};

                if (poll(&poll_fd, 1, (int) ((until - now) / USEC_PER_MSEC) + 1) > 0)
                        on_barrier(parking);
        }
}

/* ---- from the store ------------------------------------------------------------------------------------------ */

static int by_path(const void *a, const void *b)
{
        return strcmp(((const Parked *) a)->path, ((const Parked *) b)->path);
}

/* Several of one path lie side by side, and any of them will do. */
int parking_take(Parking *parking, const char *path)
{
        Parked key = {}, *found;

        if (parking->n_came == 0 || !socket_path_fits(path))
                return -1;
        memcpy(key.path, path, strlen(path));
        found = bsearch(&key, parking->came, parking->n_came, sizeof key, by_path);
        if (!found || found->taken)
                return -1;
        found->taken = true;
        return found->fd;
}

/* Whoever has said something since may have said what is not noted. */
bool parking_noted(Parking *parking, int fd, void *ret_note, size_t size)
{
        char byte;

        return parking->before && parking_index_find(parking->before, fd, ret_note, size) &&
               recv(fd, &byte, sizeof byte, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

void parking_note(Parking *parking, int fd, const void *note, size_t size)
{
        if (parking->index)
                parking_index_put(parking->index, fd, note, size);
}

void parking_forget(Parking *parking, int fd)
{
        if (parking->index)
                parking_index_remove(parking->index, fd);
}

/* One can be removed only with all that have its name, so those that are needed are parked anew. */
void parking_clear(Parking *parking)
{
        size_t n = 0;

        for (size_t i = 0; i < parking->n_came; i++)
                n += !parking->came[i].taken;
        if (n > 0) {
                log_info(NULL,
                         "%zu parked connections lead to no agent of a VM that is known, and are closed", n);
                if (say(parking, "FDSTOREREMOVE=1\nFDNAME=" NAME, NULL, 0) < 0)
                        log_warning(NULL, "they stay in the store until the next start");
        }
        for (size_t i = 0; i < parking->n_came && n > 0; i++)
                if (!parking->came[i].taken)
                        (void) close(parking->came[i].fd);
                else if (parking->came[i].fd >= 0)
                        parking_put(parking, parking->came[i].fd);
        free(parking->came);
        parking->came = NULL;
        parking->n_came = 0;
        parking->before = parking_index_free(parking->before);
}

static void take_agent(Parking *parking, int fd)
{
        Parked *parked = &parking->came[parking->n_came++];

        *parked = (Parked){.fd = fd};
        if (socket_peer_path(fd, parked->path) < 0)
                parked->path[0] = 0;
}

/* One that can't be read is none: all agents are asked. */
static void take_index(Parking *parking, int fd)
{
        parking->before = parking_index_free(parking->before);
        if (parking_index_open(fd, &parking->before) < 0)
                log_warning(NULL, "the index of parked connections can't be read; all agents are asked");
}

/* What has another name is none of ours, whoever put it there. */
static void take_one(Parking *parking, int fd, const char *name)
{
        char text[300];

        if (streq(name, NAME)) {
                take_agent(parking, fd);
                return;
        }
        if (streq(name, NAME_INDEX)) {
                take_index(parking, fd);
                return;
        }
        log_warning(NULL, "a descriptor \"%.100s\" was parked, which is none of ours", name);
        (void) snprintf(text, sizeof text, "FDSTOREREMOVE=1\nFDNAME=%.255s", name);
        if (parking->notify_fd >= 0)
                (void) say(parking, text, NULL, 0);
        (void) close(fd);
}

static int take_all(Parking *parking)
{
        char **names = NULL;
        int n = sd_listen_fds_with_names(true, &names);

        if (n > 0)
                parking->came = calloc((size_t) n, sizeof *parking->came);
        for (int i = 0; i < n && parking->came; i++)
                take_one(parking, SD_LISTEN_FDS_START + i, names[i]);
        for (int i = 0; i < n; i++)
                free(names[i]);
        free(names);
        if (n > 0 && !parking->came)
                return -ENOMEM;
        if (parking->n_came > 0)
                qsort(parking->came, parking->n_came, sizeof *parking->came, by_path);
        return MIN(n, 0);
}

/* Its notes hold for what is in the store with it: where there is no store, there is none. What a daemon has noted is of no
 * use to the one after next. */
static void park_index(Parking *parking)
{
        int fd, r;

        if (parking->notify_fd < 0)
                return;
        r = parking_index_new(&parking->index);
        if (r >= 0)
                r = say(parking, "FDSTOREREMOVE=1\nFDNAME=" NAME_INDEX, NULL, 0);
        if (r >= 0) {
                fd = parking_index_fd(parking->index);
                r = say(parking, "FDSTORE=1\nFDNAME=" NAME_INDEX, &fd, 1);
        }
        if (r < 0) {
                log_warning(NULL,
                            "there is no index of parked connections: %s; the next start asks all agents",
                            strerror(-r));
                parking->index = parking_index_free(parking->index);
        }
}

uint64_t parking_number(Parking *parking)
{
        if (++parking->number == 0)
                parking->number++;
        return parking->number;
}

/* ---- life ---------------------------------------------------------------------------------------------------- */

Parking *parking_free(Parking *parking)
{
        if (!parking)
                return NULL;
        end_barrier(parking);
        loop_timer_free(parking->timer);
        if (parking->notify_fd >= 0)
                (void) close(parking->notify_fd);
        parking_index_free(parking->index);
        parking_index_free(parking->before);
        free(parking->came);
        free(parking->waiting);
        free(parking);
        return NULL;
}

int parking_new(Loop *loop, Parking **ret)
{
        _cleanup_(parking_freep) Parking *parking = calloc(1, sizeof *parking);
        int r;

        if (!parking)
                return -ENOMEM;
        *parking = (Parking){.loop = loop, .notify_fd = connect_store(), .barrier_fd = -1};
        if (getrandom(&parking->number, sizeof parking->number, 0) != sizeof parking->number)
                return -EIO;
        r = loop_timer_new(loop, give_more, parking, &parking->timer);
        if (r >= 0)
                r = take_all(parking);
        if (r < 0)
                return r;
        park_index(parking);
        *ret = TAKE_PTR(parking);
        return 0;
}
