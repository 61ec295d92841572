/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* One SQLite database: statements, transactions, and how it comes from an older schema to this one. Below sql.c (records)
 * and history.c. Used by one thread at a time. Everything returns 0 or a negative errno; `error` then says what SQLite
 * said. */

#include <sqlite3.h>

#include "common/macros.h"

#define DB_TEXT_MAX 256

typedef struct Db {
        sqlite3 *db;
        char error[DB_TEXT_MAX];
} Db;

/* -ENOSPC, -EROFS, -EUCLEAN (corrupt), -EBUSY, -ENOMEM or -EIO of an SQLite result, whose text is noted. */
int db_fail(Db *db, int code) _must_check_;

int db_open(Db *db, const char *path) _must_check_;
void db_close(Db *db);

int db_execute(Db *db, const char *text) _must_check_;

void db_finalizep(sqlite3_stmt **stmt);
/* One statement with values by `types`: s text, i int64_t. */
int db_run(Db *db, const char *text, const char *types, ...) _must_check_;
/* The same, not run yet: rows are the caller's to step through, and the statement to finalize. */
int db_query(Db *db, sqlite3_stmt **ret, const char *text, const char *types, ...) _must_check_;
/* Never NULL. */
const char *db_column(sqlite3_stmt *stmt, int i);
/* The one number that a statement without values gives. */
int db_number(Db *db, const char *text, int64_t *ret) _must_check_;

/* Calls `write` in a transaction, which is rolled back when that fails; the error's text is kept. */
int db_transact(Db *db, int (*write)(Db *db, const void *userdata), const void *userdata) _must_check_;

/* All of `from`, in memory. `ret` is to be closed whatever it returns. */
int db_copy(Db *from, Db *ret) _must_check_;

/* What makes version N + 1 of version N, which is 0 in a new file. `before` is called outside of the transaction, and may
 * be called again when the daemon died in between. */
typedef struct DbStep {
        const char *text;
        int (*before)(Db *db, const char *dir); /* or NULL */
} DbStep;

/* Takes the steps that are missing, each with its number in one transaction. `dir` NULL: of a copy, so `before` has no part in
 * it. -EPROTONOSUPPORT: a newer migmgr made it. */
int db_upgrade(Db *db, const char *dir, const DbStep *steps, int n) _must_check_;
