/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What outlives the daemon: VMs and ownership records in migmgr.db, history in history.db (SQLite), each written by a worker
 * thread of its own, so that no VM that stands still ever waits for history.
 *
 * Owned by main. Writes are handed over and answered later, from the loop; when the answer to a record or a VM says 0 it is
 * on disk (full sync). Records go before everything else that waits. VMs and records are read once, at start, before the
 * loop runs; history whenever somebody asks.
 */

#include "common/process-id.h"
#include "daemon/core/manifest.h"
#include "daemon/core/record.h"
#include "daemon/loop.h"
#include "limits.h"

typedef struct Store Store;

typedef struct Record {
        char job[UUID_TEXT_MAX + 1];
        char vm[UUID_TEXT_MAX + 1];
        Side side;
        char peer[128]; /* source: the address that it dials; destination: the source's host id */
        /* What the job took from policies (daemon/policy-kept.h), as long as whoever gives or has the record says; read,
         * it may be anything. "": an older migmgr wrote the record, which kept none. */
        const char *policy;
        Owner owner;
        bool noway;
        ProcessId vmm;                     /* pid 0: none, or not known yet */
        uint64_t created_usec, ended_usec; /* CLOCK_REALTIME; 0: not ended */
        bool peer_acked;
        char reason[256]; /* why it ended so */
        /* Only read: a job of the VM was recorded after this one, whatever the clock said; and where it is, if it is registered. */
        bool has_newer;
        Presence presence;
} Record;

/* `status`: 0, or a negative errno: then it may be on disk, or not. `text` for people. */
typedef void (*StoreDone)(void *userdata, int status, const char *text);

/* Opens or makes the databases in `dir`. -errno; the reason is logged. */
int store_open(Loop *loop, const char *dir, const StoreLimits *limits, Store **ret) _must_check_;
/* Waits for what was handed over. */
Store *store_close(Store *store);

/* A name for this daemon that never changes: made when the database was. */
const char *store_host_id(const Store *store);

/* Reading, before the loop runs. Negative results of callbacks end it. */
typedef int (*StoreVm)(void *userdata, const char *definition, Presence presence);
typedef int (*StoreQuarantine)(void *userdata, const char *vm, const char *device, const char *reason);
typedef int (*StoreRecord)(void *userdata, const Record *record);
typedef int (*StoreSummary)(void *userdata, const char *job, const char *summary, const char *report);
int store_each_vm(Store *store, StoreVm callback, void *userdata) _must_check_;
int store_each_quarantine(Store *store, StoreQuarantine callback, void *userdata) _must_check_;
/* Records whose end was not acknowledged yet. */
int store_each_open_record(Store *store, StoreRecord callback, void *userdata) _must_check_;
/* The newest `max` ended jobs, oldest first. */
int store_each_history(Store *store, uint32_t max, StoreSummary callback, void *userdata) _must_check_;

/* Writes a record, if it may say that now (owner_may_become()): -EPERM else. `presence`: what the VM's is from this
 * moment on, in the same transaction; PRESENCE_INVALID leaves it. */
void store_put_record(Store *store, const Record *record, Presence presence, StoreDone done, void *userdata);
/* The VM and its definition; they replace what there was. */
void store_put_vm(Store *store, const char *uuid, const char *definition, Presence presence, StoreDone done,
                  void *userdata);
void store_delete_vm(Store *store, const char *uuid, StoreDone done, void *userdata);
/* Both ends know how the job ended. Nobody waits for this one. */
void store_ack(Store *store, const char *job, Side side);

/* Why no job may use a device of that VM; empty: one may. Nobody waits for this one either. */
void store_put_quarantine(Store *store, const char *vm, const char *device, const char *reason);

/* ---- history: nobody waits for it, and of what is handed over last a death may take some ------------------------- */

typedef struct StoreStep {
        const char *job;
        Side side;
        uint64_t usec; /* CLOCK_REALTIME */
        const char *json;
} StoreStep;

/* A job has entered another state. Written a little later, when there is more of it. */
void store_put_step(Store *store, const StoreStep *step);

typedef struct StoreJob {
        const char *job, *vm, *name, *result;
        Side side;
        uint64_t created_usec, ended_usec;
        const char *summary, *report; /* JSON: a line of it, and all */
} StoreJob;

/* A job has ended. The first that is written stays: a daemon that was restarted before the other end knew of it ends the
 * job again, and knows less. */
void store_put_job(Store *store, const StoreJob *job);

typedef struct StoreFilter {
        char vm[256];        /* UUID or name; empty: any */
        char result[32];     /* empty: any */
        uint64_t since_usec; /* CLOCK_REALTIME: ended then, or later */
} StoreFilter;

/* `text`: what is wrong when `status` is negative. `json`, `steps`: as history_list() and history_find() give them; they live
 * until the callback returns. */
typedef void (*StoreRead)(void *userdata, int status, const char *text, const char *json, const char *steps);
void store_list_jobs(Store *store, const StoreFilter *filter, StoreRead done, void *userdata);
void store_find_job(Store *store, const char *job, StoreRead done, void *userdata);
