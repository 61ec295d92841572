/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "store.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/stat.h>

#include "common/clock.h"
#include "common/log.h"
#include "history.h"
#include "sql.h"

/* Of records that were acknowledged this many are kept. */
#define RECORDS_KEEP 1000
/* Steps of jobs are written when so much time has passed, or with something that can't wait. */
#define LINGER_USEC (1 * USEC_PER_SEC)

typedef struct Request Request;
struct Request {
        Request *next;
        int (*run)(Store *store, Request *request);
        bool urgent, lazy;
        uint64_t due_usec; /* of a lazy one: CLOCK_MONOTONIC */
        Record record;
        Presence presence;
        uint64_t created_usec, usec;
        StoreFilter filter;
        char *text, *summary, *name, *result; /* definition, a record's policy, or JSON */
        char *answer, *steps;
        int status;
        char error[SQL_TEXT_MAX];
        StoreDone done;
        StoreRead read;
        void *userdata;
};

/* A thread and what waits for it. */
typedef struct Worker {
        Store *store;
        pthread_t thread;
        bool is_running;
        pthread_cond_t wake;
        uint32_t n_eager;             /* of what waits: not lazy */
        Request *first[2], **last[2]; /* urgent ones, others */
        void (*idle)(Store *store);   /* nothing waits any more */
} Worker;

struct Store {
        Loop *loop;
        Sql *sql;           /* the records' worker's */
        HistoryDb *history; /* the other one's */
        StoreLimits limits;
        char host_id[UUID_TEXT_MAX + 1];
        Worker records, annals;
        bool stopping;
        bool quiet;  /* no VM is moving here */
        bool untidy; /* the records' worker's: a job has ended */
        pthread_mutex_t lock;
        Request *ended, **ended_last;
        int event_fd;
        LoopIo *io;
};

/* ---- the workers: records ------------------------------------------------------------------------------------ */

static int run_record(Store *store, Request *request)
{
        store->untidy |= owner_is_final(request->record.owner);
        return sql_put_record(store->sql, &request->record, request->presence);
}

static int run_vm(Store *store, Request *request)
{
        return sql_put_vm(store->sql, request->record.vm, request->text, request->presence);
}

static int run_delete_vm(Store *store, Request *request)
{
        return sql_delete_vm(store->sql, request->record.vm);
}

static int run_ack(Store *store, Request *request)
{
        store->untidy = true;
        return sql_ack(store->sql, request->record.job, request->record.side);
}

static int run_quarantine(Store *store, Request *request)
{
        return sql_put_quarantine(store->sql, request->record.vm, request->name, request->text);
}

/* ---- the workers: history ------------------------------------------------------------------------------------ */

static int run_step(Store *store, Request *request)
{
        return history_put_step(store->history, &(StoreStep){.job = request->record.job,
                                                             .side = request->record.side,
                                                             .usec = request->usec,
                                                             .json = request->text});
}

static int run_job(Store *store, Request *request)
{
        int r = history_put_job(store->history, &(StoreJob){.job = request->record.job,
                                                            .side = request->record.side,
                                                            .vm = request->record.vm,
                                                            .name = request->name,
                                                            .result = request->result,
                                                            .created_usec = request->created_usec,
                                                            .ended_usec = request->usec,
                                                            .summary = request->summary,
                                                            .report = request->text});

        if (r >= 0)
                r = history_prune(store->history, &store->limits, clock_realtime_usec());
        return r < 0 ? r : history_checkpoint(store->history, false);
}

static int run_checkpoint(Store *store, Request *request)
{
        bool quiet;

        (void) pthread_mutex_lock(&store->lock);
        quiet = store->quiet;
        (void) pthread_mutex_unlock(&store->lock);
        return history_checkpoint(store->history, quiet);
}

static int run_list(Store *store, Request *request)
{
        return history_list(store->history, &request->filter, &request->answer);
}

static int run_find(Store *store, Request *request)
{
        return history_find(store->history, request->record.job, &request->answer, &request->steps);
}

/* ---- handing over --------------------------------------------------------------------------------------------- */

static Request *new_request(int (*run)(Store *, Request *), StoreDone done, void *userdata)
{
        Request *request = calloc(1, sizeof *request);

        if (!request)
                out_of_memory(); /* a daemon that can't write its records must not go on */
        request->run = run;
        request->done = done;
        request->userdata = userdata;
        request->presence = PRESENCE_INVALID;
        return request;
}

static void hand_over(Worker *worker, Request *request)
{
        Store *store = worker->store;
        int i = request->urgent ? 0 : 1;

        (void) pthread_mutex_lock(&store->lock);
        *worker->last[i] = request;
        worker->last[i] = &request->next;
        worker->n_eager += !request->lazy;
        if (worker == &store->records && request->urgent)
                store->quiet = false;
        (void) pthread_cond_signal(&worker->wake);
        (void) pthread_mutex_unlock(&store->lock);
}

/* ---- the workers: their thread ------------------------------------------------------------------------------- */

/* A job whose first record comes now waits for the end of this, long before its VM stands still. */
static void tidy_records(Store *store)
{
        bool quiet;

        if (!store->untidy)
                return;
        store->untidy = false;
        if (sql_tidy(store->sql, RECORDS_KEEP, &quiet) < 0)
                log_warning(NULL, "the database of records cannot be tidied: %s", sql_error(store->sql));
        (void) pthread_mutex_lock(&store->lock);
        quiet &= !store->records.first[0];
        store->quiet = quiet;
        (void) pthread_mutex_unlock(&store->lock);
        if (quiet)
                hand_over(&store->annals, new_request(run_checkpoint, NULL, NULL));
}

static Request *take(Worker *worker)
{
        for (int i = 0; i < 2; i++) {
                Request *request = worker->first[i];

                if (!request)
                        continue;
                worker->first[i] = request->next;
                if (!worker->first[i])
                        worker->last[i] = &worker->first[i];
                worker->n_eager -= !request->lazy;
                return request;
        }
        return NULL;
}

/* Waits until something is due, and takes it. NULL: the store is to be closed, and nothing is left. */
static Request *await(Worker *worker)
{
        Store *store = worker->store;

        for (;;) {
                const Request *lazy = worker->first[1];
                uint64_t now = clock_monotonic_usec();

                if (worker->n_eager > 0 || store->stopping || (lazy && lazy->due_usec <= now))
                        return take(worker);
                if (lazy) {
                        struct timespec until = {.tv_sec = (time_t) (lazy->due_usec / USEC_PER_SEC),
                                                 .tv_nsec = (long) (lazy->due_usec % USEC_PER_SEC) * 1000};

                        (void) pthread_cond_timedwait(&worker->wake, &store->lock, &until);
                } else {
                        (void) pthread_cond_wait(&worker->wake, &store->lock);
                }
        }
}

static void finish(Store *store, Request *request)
{
        request->next = NULL;
        *store->ended_last = request;
        store->ended_last = &request->next;
        (void) eventfd_write(store->event_fd, 1);
}

static void *work(void *userdata)
{
        Worker *worker = userdata;
        Store *store = worker->store;
        Request *request;

        (void) pthread_mutex_lock(&store->lock);
        while ((request = await(worker))) {
                bool idle;

                (void) pthread_mutex_unlock(&store->lock);
                request->status = request->run(store, request);
                (void) snprintf(request->error, sizeof request->error, "%s",
                                request->status >= 0        ? ""
                                : worker == &store->records ? sql_error(store->sql)
                                                            : history_error(store->history));
                (void) pthread_mutex_lock(&store->lock);
                finish(store, request);
                idle = !worker->first[0] && !worker->first[1];
                if (idle && worker->idle) {
                        (void) pthread_mutex_unlock(&store->lock);
                        worker->idle(store);
                        (void) pthread_mutex_lock(&store->lock);
                }
        }
        (void) pthread_mutex_unlock(&store->lock);
        return NULL;
}

/* ---- the loop's side ----------------------------------------------------------------------------------------- */

static void request_free(Request *request)
{
        free(request->text);
        free(request->summary);
        free(request->name);
        free(request->result);
        free(request->answer);
        free(request->steps);
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
                if (request->read)
                        request->read(request->userdata, request->status, request->error, request->answer,
                                      request->steps);
                else if (request->done)
                        request->done(request->userdata, request->status, request->error);
                else if (request->status < 0)
                        log_warning(
                                LOG_ABOUT(.job = request->record.job),
                                "history, acknowledgements and quarantines cannot be written: %s; make room in the state directory",
                                request->error);
                request_free(request);
        }
}

static char *copy(const char *text)
{
        char *c = strdup(text);

        if (!c)
                out_of_memory();
        return c;
}

void store_put_record(Store *store, const Record *record, Presence presence, StoreDone done, void *userdata)
{
        Request *request = new_request(run_record, done, userdata);

        request->urgent = true;
        request->record = *record;
        request->record.policy = request->text = copy(record->policy);
        request->presence = presence;
        hand_over(&store->records, request);
}

void store_put_vm(Store *store, const char *uuid, const char *definition, Presence presence, StoreDone done,
                  void *userdata)
{
        Request *request = new_request(run_vm, done, userdata);

        memcpy(request->record.vm, uuid, sizeof request->record.vm);
        request->text = copy(definition);
        request->presence = presence;
        hand_over(&store->records, request);
}

void store_delete_vm(Store *store, const char *uuid, StoreDone done, void *userdata)
{
        Request *request = new_request(run_delete_vm, done, userdata);

        memcpy(request->record.vm, uuid, sizeof request->record.vm);
        hand_over(&store->records, request);
}

void store_ack(Store *store, const char *job, Side side)
{
        Request *request = new_request(run_ack, NULL, NULL);

        memcpy(request->record.job, job, sizeof request->record.job);
        request->record.side = side;
        hand_over(&store->records, request);
}

void store_put_quarantine(Store *store, const char *vm, const char *device, const char *reason)
{
        Request *request = new_request(run_quarantine, NULL, NULL);

        memcpy(request->record.vm, vm, sizeof request->record.vm);
        request->name = copy(device);
        request->text = copy(reason);
        hand_over(&store->records, request);
}

static Request *new_history(int (*run)(Store *, Request *), const char *job, Side side)
{
        Request *request = new_request(run, NULL, NULL);

        (void) snprintf(request->record.job, sizeof request->record.job, "%s", job);
        request->record.side = side;
        return request;
}

void store_put_step(Store *store, const StoreStep *step)
{
        Request *request = new_history(run_step, step->job, step->side);

        request->usec = step->usec;
        request->text = copy(step->json);
        request->lazy = true;
        request->due_usec = clock_monotonic_usec() + LINGER_USEC;
        hand_over(&store->annals, request);
}

void store_put_job(Store *store, const StoreJob *job)
{
        Request *request = new_history(run_job, job->job, job->side);

        (void) snprintf(request->record.vm, sizeof request->record.vm, "%s", job->vm);
        request->created_usec = job->created_usec;
        request->usec = job->ended_usec;
        request->name = copy(job->name);
        request->result = copy(job->result);
        request->summary = copy(job->summary);
        request->text = copy(job->report);
        hand_over(&store->annals, request);
}

static void hand_over_read(Store *store, Request *request, StoreRead done, void *userdata)
{
        request->read = done;
        request->userdata = userdata;
        hand_over(&store->annals, request);
}

void store_list_jobs(Store *store, const StoreFilter *filter, StoreRead done, void *userdata)
{
        Request *request = new_history(run_list, "", SIDE_SOURCE);

        request->filter = *filter;
        hand_over_read(store, request, done, userdata);
}

void store_find_job(Store *store, const char *job, StoreRead done, void *userdata)
{
        hand_over_read(store, new_history(run_find, job, SIDE_SOURCE), done, userdata);
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

int store_each_quarantine(Store *store, StoreQuarantine callback, void *userdata)
{
        return sql_each_quarantine(store->sql, callback, userdata);
}

int store_each_open_record(Store *store, StoreRecord callback, void *userdata)
{
        return sql_each_open_record(store->sql, callback, userdata);
}

int store_each_history(Store *store, uint32_t max, StoreSummary callback, void *userdata)
{
        return history_each(store->history, max, callback, userdata);
}

/* ---- life ---------------------------------------------------------------------------------------------------- */

static void worker_init(Worker *worker, Store *store, void (*idle)(Store *store))
{
        pthread_condattr_t attr;

        worker->store = store;
        worker->idle = idle;
        for (int i = 0; i < 2; i++)
                worker->last[i] = &worker->first[i];
        (void) pthread_condattr_init(&attr);
        (void) pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        (void) pthread_cond_init(&worker->wake, &attr);
        (void) pthread_condattr_destroy(&attr);
}

static int worker_start(Worker *worker)
{
        int r = pthread_create(&worker->thread, NULL, work, worker);

        worker->is_running = r == 0;
        return -r;
}

/* When it has done all that waits. */
static void worker_deinit(Worker *worker)
{
        if (worker->is_running) {
                (void) pthread_mutex_lock(&worker->store->lock);
                worker->store->stopping = true;
                (void) pthread_cond_signal(&worker->wake);
                (void) pthread_mutex_unlock(&worker->store->lock);
                (void) pthread_join(worker->thread, NULL);
        }
        (void) pthread_cond_destroy(&worker->wake);
}

Store *store_close(Store *store)
{
        if (!store)
                return NULL;
        worker_deinit(&store->records);
        worker_deinit(&store->annals);
        while (store->ended) {
                Request *request = store->ended;

                store->ended = request->next;
                request_free(request);
        }
        loop_io_free(store->io);
        if (store->event_fd >= 0)
                (void) close(store->event_fd);
        sql_close(store->sql);
        history_close(store->history);
        (void) pthread_mutex_destroy(&store->lock);
        free(store);
        return NULL;
}

DEFINE_CLEANUP(Store *, store_close);

static int open_databases(Store *store, const char *dir)
{
        int r;

        if (mkdir(dir, 0700) < 0 && errno != EEXIST)
                return -errno;
        r = history_open(dir, &store->history); /* first: what older records have of it is moved there */
        if (r >= 0)
                r = sql_open(dir, &store->sql);
        return r < 0 ? r : sql_host_id(store->sql, store->host_id);
}

int store_open(Loop *loop, const char *dir, const StoreLimits *limits, Store **ret)
{
        _cleanup_(store_closep) Store *store = calloc(1, sizeof *store);
        int r;

        if (!store)
                return -ENOMEM;
        store->loop = loop;
        store->limits = *limits;
        store->event_fd = -1;
        store->ended_last = &store->ended;
        (void) pthread_mutex_init(&store->lock, NULL);
        worker_init(&store->records, store, tidy_records);
        worker_init(&store->annals, store, NULL);
        r = open_databases(store, dir);
        if (r < 0)
                return r;
        store->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (store->event_fd < 0)
                return -errno;
        r = loop_io_new(loop, store->event_fd, on_ended, NULL, store, &store->io);
        if (r >= 0)
                r = worker_start(&store->records);
        if (r >= 0)
                r = worker_start(&store->annals);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(store);
        return 0;
}
