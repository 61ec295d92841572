/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A store that keeps nothing and says yes to everything, from the loop: with it a fuzzer does the same with the same input, and
 * thousands of them in a second. */

#include <stdlib.h>

#include "rig.h"

typedef struct Answer Answer;
struct Answer {
        Answer *next;
        StoreDone done;
        StoreRead read;
        void *userdata;
};

struct Store {
        Loop *loop;
        LoopTimer *timer;
        Answer *first;
};

static void on_timer(void *userdata)
{
        Store *store = userdata;
        Answer *list = store->first;

        store->first = NULL;
        while (list) {
                Answer *answer = list;

                list = answer->next;
                if (answer->done)
                        answer->done(answer->userdata, 0, "");
                else
                        answer->read(answer->userdata, 0, "", NULL, "[]");
                free(answer);
        }
}

static void answer_later(Store *store, StoreDone done, StoreRead read, void *userdata)
{
        Answer *answer = malloc(sizeof *answer), **last = &store->first;

        MUST(answer);
        *answer = (Answer){NULL, done, read, userdata};
        while (*last)
                last = &(*last)->next;
        *last = answer;
        loop_timer_soon(store->timer);
}

int store_open(Loop *loop, const char *dir, const StoreLimits *limits, Store **ret)
{
        Store *store = malloc(sizeof *store);

        MUST(store);
        *store = (Store){.loop = loop};
        MUST(loop_timer_new(loop, on_timer, store, &store->timer) == 0);
        *ret = store;
        return 0;
}

Store *store_close(Store *store)
{
        if (!store)
                return NULL;
        while (store->first) {
                Answer *answer = store->first;

                store->first = answer->next;
                free(answer);
        }
        loop_timer_free(store->timer);
        free(store);
        return NULL;
}

const char *store_host_id(const Store *store)
{
        return "a0000000-0000-4000-8000-000000000001";
}

int store_each_vm(Store *store, StoreVm callback, void *userdata)
{
        return 0;
}

int store_each_quarantine(Store *store, StoreQuarantine callback, void *userdata)
{
        return 0;
}

int store_each_open_record(Store *store, StoreRecord callback, void *userdata)
{
        return 0;
}

int store_each_history(Store *store, uint32_t max, StoreSummary callback, void *userdata)
{
        return 0;
}

void store_put_record(Store *store, const Record *record, Presence presence, StoreDone done, void *userdata)
{
        MUST(strlen(record->policy) <= RECORD_POLICY_MAX);
        answer_later(store, done, NULL, userdata);
}

void store_put_vm(Store *store, const char *uuid, const char *definition, Presence presence, StoreDone done,
                  void *userdata)
{
        answer_later(store, done, NULL, userdata);
}

void store_delete_vm(Store *store, const char *uuid, StoreDone done, void *userdata)
{
        answer_later(store, done, NULL, userdata);
}

void store_ack(Store *store, const char *job, Side side)
{
}

void store_put_quarantine(Store *store, const char *vm, const char *device, const char *reason)
{
}

void store_put_step(Store *store, const StoreStep *step)
{
}

void store_put_job(Store *store, const StoreJob *job)
{
}

void store_list_jobs(Store *store, const StoreFilter *filter, StoreRead done, void *userdata)
{
        answer_later(store, NULL, done, userdata);
}

void store_find_job(Store *store, const char *job, StoreRead done, void *userdata)
{
        answer_later(store, NULL, done, userdata);
}
