/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The database of what jobs did, for people: history.db. A file, a connection and a worker of its own, and it is not synced:
 * a VM that stands still waits for records, and for nothing that is written here. What a loss of power takes of it is the
 * newest, and decides nothing. Newer is what was written later: a clock may be set back. Used by one thread at a time, the
 * loop's at start, then its worker's. */

#include "db.h"
#include "store.h"

typedef struct HistoryDb HistoryDb;

/* Opens or makes it in `dir`. Nobody's VM depends on it: one that is damaged is put aside, and begun anew, and where none can
 * be used, the disk being full, there is one in memory. Both are logged. */
int history_open(const char *dir, HistoryDb **ret) _must_check_;
HistoryDb *history_close(HistoryDb *history);
const char *history_error(const HistoryDb *history);

int history_put_step(HistoryDb *history, const StoreStep *step) _must_check_;
/* The first that is written of a job and half stays: a daemon that was restarted before the other end knew of it ends the
 * job again, and knows less. */
int history_put_job(HistoryDb *history, const StoreJob *job) _must_check_;

/* Drops jobs that are too old at `now_usec` (CLOCK_REALTIME), or too many, and their steps. */
int history_prune(HistoryDb *history, const StoreLimits *limits, uint64_t now_usec) _must_check_;
/* Empties its write-ahead log. `quiet`: no VM is moving here; else only when it has grown long. */
int history_checkpoint(HistoryDb *history, bool quiet) _must_check_;

/* Summaries of the newest `max` ended jobs, oldest first. */
int history_each(HistoryDb *history, uint32_t max, StoreSummary callback, void *userdata) _must_check_;
/* As JSON, the caller's to free: an array of summaries, newest first. */
int history_list(HistoryDb *history, const StoreFilter *filter, char **ret) _must_check_;
/* The report of an ended job, or NULL, and an array of its steps. Both the caller's to free. */
int history_find(HistoryDb *history, const char *job, char **ret_report, char **ret_steps) _must_check_;

/* Takes over what the database of records had before there was this one; a DbStep. */
int history_take_old(Db *db, const char *dir) _must_check_;
