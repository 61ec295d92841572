/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store.h"

#include <fcntl.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <sys/eventfd.h>

#include "common/log.h"
#include "sql.h"

/* Of jobs that have ended and were acknowledged this many are kept. */
#define HISTORY_KEEP 1000

typedef struct Request Request;
struct Request {
        Request *next;
        int (*run)(Sql *sql, Request *request);
        bool urgent;
        Record record;
        Presence presence;
        uint64_t usec;
        char *text; /* definition, or JSON */
        int status;
        char error[SQL_TEXT_MAX];
        StoreDone done;
        void *userdata;
};

struct Store {
        Loop *loop;
        Sql *sql;
        char host_id[UUID_TEXT_MAX + 1];
        pthread_t worker;
        bool has_worker, stopping;
        pthread_mutex_t lock;
        pthread_cond_t wake;
        Request *first[2], **last[2]; /* urgent ones, others */
        Request *ended, **ended_last;
        int event_fd;
        LoopIo *io;
};

/* ---- the worker ---------------------------------------------------------------------------------------------- */

static int run_record(Sql *sql, Request *request)
{
        return sql_put_record(sql, &request->record, request->presence);
}

static int run_vm(Sql *sql, Request *request)
{
        return sql_put_vm(sql, request->record.vm, request->text, request->presence);
}

static int run_delete_vm(Sql *sql, Request *request)
{
        return sql_delete_vm(sql, request->record.vm);
}

static int run_ack(Sql *sql, Request *request)
{
        return sql_ack(sql, request->record.job, request->record.side);
}

static int run_history(Sql *sql, Request *request)
{
        int r = sql_put_history(sql, request->record.job, request->record.side, request->usec, request->text);

        /* A job has ended: nobody stands still just now. */
        if (r == 0)
                r = sql_tidy(sql, HISTORY_KEEP);
        return r;
}

static Request *take(Store *store)
{
        for (int i = 0; i < 2; i++) {
                Request *request = store->first[i];

                if (!request)
                        continue;
                store->first[i] = request->next;
                if (!store->first[i])
                        store->last[i] = &store->first[i];
                return request;
        }
        return NULL;
}

static void *work(void *userdata)
{
        Store *store = userdata;

        (void) pthread_mutex_lock(&store->lock);
        for (;;) {
                Request *request = take(store);

                if (!request && store->stopping)
                        break;
                if (!request) {
                        (void) pthread_cond_wait(&store->wake, &store->lock);
                        continue;
                }
                (void) pthread_mutex_unlock(&store->lock);
                request->status = request->run(store->sql, request);
                (void) snprintf(request->error, sizeof request->error, "%s",
                                request->status < 0 ? sql_error(store->sql) : "");
                (void) pthread_mutex_lock(&store->lock);
                request->next = NULL;
                *store->ended_last = request;
                store->ended_last = &request->next;
                (void) eventfd_write(store->event_fd, 1);
        }
        (void) pthread_mutex_unlock(&store->lock);
        return NULL;
}

/* ---- the loop's side ----------------------------------------------------------------------------------------- */

static void request_free(Request *request)
{
        free(request->text);
        free(request);
}

static void on_ended(void *userdata)
{
        Store *store = userdata;
        eventfd_t count;
        Request *list;

        (void) eventfd_read(store->event_fd, &count);
        (void) pthread_mutex_lock(&store->lock);
        list = store->ended;
        store->ended = NULL;
        store->ended_last = &store->ended;
        (void) pthread_mutex_unlock(&store->lock);
        while (list) {
                Request *request = list;

                list = request->next;
                if (request->done)
                        request->done(request->userdata, request->status, request->error);
                else if (request->status < 0)
                        log_warning(
                                LOG_ABOUT(.job = request->record.job),
                                "history and acknowledgements cannot be written: %s; make room in the state directory",
                                request->error);
                request_free(request);
        }
}

static Request *new_request(int (*run)(Sql *, Request *), StoreDone done, void *userdata)
{
        Request *request = calloc(1, sizeof *request);

        if (!request)
                abort(); /* a daemon that can't write its records must not go on */
        request->run = run;
        request->done = done;
        request->userdata = userdata;
        request->presence = PRESENCE_INVALID;
        return request;
}

static void hand_over(Store *store, Request *request)
{
        int i = request->urgent ? 0 : 1;

        (void) pthread_mutex_lock(&store->lock);
        *store->last[i] = request;
        store->last[i] = &request->next;
        (void) pthread_cond_signal(&store->wake);
        (void) pthread_mutex_unlock(&store->lock);
}

static char *copy(const char *text)
{
        char *c = strdup(text);

        if (!c)
                abort();
        return c;
}

void store_put_record(Store *store, const Record *record, Presence presence, StoreDone done, void *userdata)
{
        Request *request = new_request(run_record, done, userdata);

        request->urgent = true;
        request->record = *record;
        request->presence = presence;
        hand_over(store, request);
}

void store_put_vm(Store *store, const char *uuid, const char *definition, Presence presence, StoreDone done,
                  void *userdata)
{
        Request *request = new_request(run_vm, done, userdata);

        memcpy(request->record.vm, uuid, sizeof request->record.vm);
        request->text = copy(definition);
        request->presence = presence;
        hand_over(store, request);
}

void store_delete_vm(Store *store, const char *uuid, StoreDone done, void *userdata)
{
        Request *request = new_request(run_delete_vm, done, userdata);

        memcpy(request->record.vm, uuid, sizeof request->record.vm);
        hand_over(store, request);
}

void store_ack(Store *store, const char *job, Side side)
{
        Request *request = new_request(run_ack, NULL, NULL);

        memcpy(request->record.job, job, sizeof request->record.job);
        request->record.side = side;
        hand_over(store, request);
}

void store_put_history(Store *store, const char *job, Side side, uint64_t ended_usec, const char *json)
{
        Request *request = new_request(run_history, NULL, NULL);

        memcpy(request->record.job, job, sizeof request->record.job);
        request->record.side = side;
        request->usec = ended_usec;
        request->text = copy(json);
        hand_over(store, request);
}

/* ---- reading at start ---------------------------------------------------------------------------------------- */

const char *store_host_id(const Store *store)
{
        return store->host_id;
}

int store_each_vm(Store *store, StoreVm callback, void *userdata)
{
        return sql_each_vm(store->sql, callback, userdata);
}

int store_each_open_record(Store *store, StoreRecord callback, void *userdata)
{
        return sql_each_open_record(store->sql, callback, userdata);
}

int store_each_history(Store *store, uint32_t max, StoreHistory callback, void *userdata)
{
        return sql_each_history(store->sql, max, callback, userdata);
}

/* ---- life ---------------------------------------------------------------------------------------------------- */

Store *store_close(Store *store)
{
        if (!store)
                return NULL;
        if (store->has_worker) {
                (void) pthread_mutex_lock(&store->lock);
                store->stopping = true;
                (void) pthread_cond_signal(&store->wake);
                (void) pthread_mutex_unlock(&store->lock);
                (void) pthread_join(store->worker, NULL);
        }
        while (store->ended) {
                Request *request = store->ended;

                store->ended = request->next;
                request_free(request);
        }
        loop_io_free(store->io);
        if (store->event_fd >= 0)
                (void) close(store->event_fd);
        sql_close(store->sql);
        (void) pthread_mutex_destroy(&store->lock);
        (void) pthread_cond_destroy(&store->wake);
        free(store);
        return NULL;
}

DEFINE_CLEANUP(Store *, store_close);

int store_open(Loop *loop, const char *dir, Store **ret)
{
        _cleanup_(store_closep) Store *store = calloc(1, sizeof *store);
        int r;

        if (!store)
                return -ENOMEM;
        store->loop = loop;
        store->event_fd = -1;
        for (int i = 0; i < 2; i++)
                store->last[i] = &store->first[i];
        store->ended_last = &store->ended;
        (void) pthread_mutex_init(&store->lock, NULL);
        (void) pthread_cond_init(&store->wake, NULL);
        r = sql_open(dir, &store->sql);
        if (r < 0)
                return r;
        r = sql_host_id(store->sql, store->host_id);
        if (r < 0)
                return r;
        store->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (store->event_fd < 0)
                return -errno;
        r = loop_io_new(loop, store->event_fd, on_ended, NULL, store, &store->io);
        if (r < 0)
                return r;
        r = pthread_create(&store->worker, NULL, work, store);
        if (r != 0)
                return -r;
        store->has_worker = true;
        *ret = TAKE_PTR(store);
        return 0;
}
