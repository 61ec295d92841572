/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What outlives the daemon: VMs, ownership records, history. SQLite, in one file, written by one worker thread.
 *
 * Owned by main. Writes are handed over and answered later, from the loop; when the answer says 0 it is on disk (full
 * sync). Records go before everything else that waits. Reading is done once, at start, before the loop runs.
 */

#include "common/process-id.h"
#include "daemon/core/manifest.h"
#include "daemon/core/record.h"
#include "daemon/loop.h"

typedef struct Store Store;

typedef struct Record {
        char job[UUID_TEXT_MAX + 1];
        char vm[UUID_TEXT_MAX + 1];
        Side side;
        char peer[128];     /* source: the address that it dials; destination: the source's host id */
        char plan_hash[65]; /* of the plan as text */
        Owner owner;
        bool noway;
        ProcessId vmm;                     /* pid 0: none, or not known yet */
        uint64_t created_usec, ended_usec; /* CLOCK_REALTIME; 0: not ended */
        bool peer_acked;
        char reason[256]; /* why it ended so */
} Record;

/* `status`: 0, or a negative errno: then it may be on disk, or not. `text` for people. */
typedef void (*StoreDone)(void *userdata, int status, const char *text);

/* Opens or makes the database in `dir`. -errno; the reason is logged. */
int store_open(Loop *loop, const char *dir, Store **ret) _must_check_;
/* Waits for what was handed over. */
Store *store_close(Store *store);

/* A name for this daemon that never changes: made when the database was. */
const char *store_host_id(const Store *store);

/* Reading, before the loop runs. Negative results of callbacks end it. */
typedef int (*StoreVm)(void *userdata, const char *definition, Presence presence);
typedef int (*StoreRecord)(void *userdata, const Record *record);
typedef int (*StoreHistory)(void *userdata, const char *job, const char *json);
int store_each_vm(Store *store, StoreVm callback, void *userdata) _must_check_;
/* Records whose end was not acknowledged yet. */
int store_each_open_record(Store *store, StoreRecord callback, void *userdata) _must_check_;
/* The newest `max` ended jobs, oldest first. */
int store_each_history(Store *store, uint32_t max, StoreHistory callback, void *userdata) _must_check_;

/* Writes a record, if it may say that now (owner_may_become()): -EPERM else. `presence`: what the VM's is from this
 * moment on, in the same transaction; PRESENCE_INVALID leaves it. */
void store_put_record(Store *store, const Record *record, Presence presence, StoreDone done, void *userdata);
/* The VM and its definition; they replace what there was. */
void store_put_vm(Store *store, const char *uuid, const char *definition, Presence presence, StoreDone done,
                  void *userdata);
void store_delete_vm(Store *store, const char *uuid, StoreDone done, void *userdata);
/* Both ends know how the job ended. Nobody waits for this one. */
void store_ack(Store *store, const char *job, Side side);
/* What to show of a job that has ended, as JSON. Nobody waits for this one. The first that is written stays: a daemon
 * that was restarted before the other end knew of it ends the job again, and knows less. */
void store_put_history(Store *store, const char *job, Side side, uint64_t ended_usec, const char *json);
