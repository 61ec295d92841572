/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The database of VMs and records: statements and nothing else. Used by one thread at a time: at start by the loop's, then by the
 * store's worker. Everything returns 0 or a negative errno; sql_error() then says what SQLite said. */

#include "store.h"

#define SQL_TEXT_MAX 256

typedef struct Sql Sql;

/* After history_open() of the same directory, where the history of an older database goes. A database of an older schema that the
 * disk has no room to bring to this one is only read, and each write fails, until there is room. */
int sql_open(const char *dir, Sql **ret) _must_check_;
Sql *sql_close(Sql *sql);
const char *sql_error(const Sql *sql);
int sql_host_id(Sql *sql, char ret[UUID_TEXT_MAX + 1]) _must_check_;

int sql_put_record(Sql *sql, const Record *record, Presence presence) _must_check_;
int sql_put_vm(Sql *sql, const char *uuid, const char *definition, Presence presence) _must_check_;
int sql_delete_vm(Sql *sql, const char *uuid) _must_check_;
int sql_ack(Sql *sql, const char *job, Side side) _must_check_;
int sql_put_quarantine(Sql *sql, const char *vm, const char *device, const char *reason) _must_check_;

/* Drops acknowledged jobs but for the newest `keep`, and empties the write-ahead log into the database: when no VM is
 * moving here, which is then `ret_quiet`, for that takes several syncs. Else it does nothing, or what can't wait. */
int sql_tidy(Sql *sql, uint32_t keep, bool *ret_quiet) _must_check_;

int sql_each_vm(Sql *sql, StoreVm callback, void *userdata) _must_check_;
int sql_each_quarantine(Sql *sql, StoreQuarantine callback, void *userdata) _must_check_;
int sql_each_open_record(Sql *sql, StoreRecord callback, void *userdata) _must_check_;
