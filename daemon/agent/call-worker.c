/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "call-worker.h"

#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>

typedef struct Queue {
        WorkerCall *first, **last;
} Queue;

struct CallWorker {
        pthread_t thread;
        struct event *event;
        int event_fd;
        /* below: both threads', under the lock */
        pthread_mutex_t lock;
        pthread_cond_t wake;
        Queue todo, finished;
        bool busy; /* a call is under way */
        bool left; /* freed; the thread frees the rest */
        void (*end)(void *userdata);
        void *end_userdata;
};

static void push(Queue *queue, WorkerCall *call)
{
        call->next = NULL;
        *queue->last = call;
        queue->last = &call->next;
}

static WorkerCall *pop(Queue *queue)
{
        WorkerCall *call = queue->first;

        if (call && !(queue->first = call->next))
                queue->last = &queue->first;
        return call;
}

static void drop_all(Queue *queue)
{
        for (WorkerCall *call; (call = pop(queue));)
                call->drop(call);
}

static void destroy(CallWorker *worker)
{
        drop_all(&worker->todo);
        drop_all(&worker->finished);
        (void) close(worker->event_fd);
        (void) pthread_mutex_destroy(&worker->lock);
        (void) pthread_cond_destroy(&worker->wake);
        if (worker->end)
                worker->end(worker->end_userdata);
        free(worker);
}

/* Waits for the next call; NULL: the worker was freed. */
static WorkerCall *next(CallWorker *worker)
{
        WorkerCall *call;

        worker->busy = false;
        while (!worker->left && !worker->todo.first)
                (void) pthread_cond_wait(&worker->wake, &worker->lock);
        call = worker->left ? NULL : pop(&worker->todo);
        worker->busy = call != NULL;
        return call;
}

static void *work(void *userdata)
{
        CallWorker *worker = userdata;
        bool alone;

        (void) pthread_mutex_lock(&worker->lock);
        for (WorkerCall *call; (call = next(worker));) {
                (void) pthread_mutex_unlock(&worker->lock);
                call->run(call);
                (void) pthread_mutex_lock(&worker->lock);
                push(&worker->finished, call);
                (void) eventfd_write(worker->event_fd, 1);
        }
        /* Set while a call was under way: nobody joins this thread, and what is left is its own. */
        alone = worker->end != NULL;
        (void) pthread_mutex_unlock(&worker->lock);
        if (alone)
                destroy(worker);
        return NULL;
}

static void on_finished(evutil_socket_t fd, short what, void *userdata)
{
        CallWorker *worker = userdata;
        WorkerCall *call;
        eventfd_t count;

        (void) eventfd_read(worker->event_fd, &count);
        (void) pthread_mutex_lock(&worker->lock);
        call = pop(&worker->finished);
        /* One at a time, from the loop: whoever is told may free us. */
        if (worker->finished.first)
                (void) eventfd_write(worker->event_fd, 1);
        (void) pthread_mutex_unlock(&worker->lock);
        if (call)
                call->done(call);
}

/* Signals are for the loop's thread. */
static int start(CallWorker *worker)
{
        sigset_t all, before;
        int r;

        (void) sigfillset(&all);
        (void) pthread_sigmask(SIG_SETMASK, &all, &before);
        r = pthread_create(&worker->thread, NULL, work, worker);
        (void) pthread_sigmask(SIG_SETMASK, &before, NULL);
        return -r;
}

int call_worker_new(struct event_base *base, CallWorker **ret)
{
        CallWorker *worker = calloc(1, sizeof *worker);
        int r = -ENOMEM;

        if (!worker)
                return -ENOMEM;
        worker->todo.last = &worker->todo.first;
        worker->finished.last = &worker->finished.first;
        worker->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        (void) pthread_mutex_init(&worker->lock, NULL);
        (void) pthread_cond_init(&worker->wake, NULL);
        if (worker->event_fd >= 0)
                worker->event = event_new(base, worker->event_fd, EV_READ | EV_PERSIST, on_finished, worker);
        if (worker->event && event_add(worker->event, NULL) == 0)
                r = start(worker);
        if (r < 0) {
                if (worker->event)
                        event_free(worker->event);
                destroy(worker);
                return r;
        }
        *ret = worker;
        return 0;
}

CallWorker *call_worker_free(CallWorker *worker, void (*end)(void *userdata), void *userdata)
{
        bool busy;

        if (!worker)
                return NULL;
        event_free(worker->event);
        (void) pthread_mutex_lock(&worker->lock);
        worker->left = true;
        busy = worker->busy;
        if (busy) {
                worker->end = end;
                worker->end_userdata = userdata;
                (void) pthread_detach(worker->thread);
        }
        (void) pthread_cond_signal(&worker->wake);
        (void) pthread_mutex_unlock(&worker->lock);
        if (busy)
                return NULL;
        (void) pthread_join(worker->thread, NULL);
        worker->end = end;
        worker->end_userdata = userdata;
        destroy(worker);
        return NULL;
}

void call_worker_do(CallWorker *worker, WorkerCall *call)
{
        (void) pthread_mutex_lock(&worker->lock);
        push(&worker->todo, call);
        (void) pthread_cond_signal(&worker->wake);
        (void) pthread_mutex_unlock(&worker->lock);
}

bool call_worker_withdraw(CallWorker *worker, WorkerCall *call)
{
        bool found = false;

        (void) pthread_mutex_lock(&worker->lock);
        for (WorkerCall **p = &worker->todo.first; *p; p = &(*p)->next)
                if (*p == call) {
                        *p = call->next;
                        if (!*p)
                                worker->todo.last = p;
                        found = true;
                        break;
                }
        (void) pthread_mutex_unlock(&worker->lock);
        return found;
}
