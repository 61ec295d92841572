/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "db.h"

#include <stdarg.h>
#include <stdio.h>

int db_fail(Db *db, int code)
{
        (void) snprintf(db->error, sizeof db->error, "%s", sqlite3_errmsg(db->db));
        switch (code & 0xff) {
        case SQLITE_FULL: return -ENOSPC;
        case SQLITE_NOMEM: return -ENOMEM;
        case SQLITE_READONLY:
        case SQLITE_PERM: return -EROFS;
        case SQLITE_CORRUPT:
        case SQLITE_NOTADB: return -EUCLEAN;
        case SQLITE_BUSY:
        case SQLITE_LOCKED: return -EBUSY;
        default: return -EIO;
        }
}

int db_open(Db *db, const char *path)
{
        int code = sqlite3_open_v2(path, &db->db,
                                   SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);

        return code == SQLITE_OK ? 0 : db_fail(db, code);
}

void db_close(Db *db)
{
        (void) sqlite3_close(db->db);
        db->db = NULL;
}

int db_execute(Db *db, const char *text)
{
        int code = sqlite3_exec(db->db, text, NULL, NULL, NULL);

        return code == SQLITE_OK ? 0 : db_fail(db, code);
}

void db_finalizep(sqlite3_stmt **stmt)
{
        (void) sqlite3_finalize(*stmt);
}

static int prepare(Db *db, sqlite3_stmt **ret, const char *text, const char *types, va_list ap)
{
        int code = sqlite3_prepare_v2(db->db, text, -1, ret, NULL);

        for (int i = 0; code == SQLITE_OK && types[i]; i++)
                if (types[i] == 's')
                        code = sqlite3_bind_text(*ret, i + 1, va_arg(ap, const char *), -1, SQLITE_TRANSIENT);
                else
                        code = sqlite3_bind_int64(*ret, i + 1, va_arg(ap, int64_t));
        return code == SQLITE_OK ? 0 : db_fail(db, code);
}

int db_run(Db *db, const char *text, const char *types, ...)
{
        _cleanup_(db_finalizep) sqlite3_stmt *stmt = NULL;
        va_list ap;
        int r;

        va_start(ap, types);
        r = prepare(db, &stmt, text, types, ap);
        va_end(ap);
        if (r < 0)
                return r;
        r = sqlite3_step(stmt);
        return r == SQLITE_DONE || r == SQLITE_ROW ? 0 : db_fail(db, r);
}

int db_query(Db *db, sqlite3_stmt **ret, const char *text, const char *types, ...)
{
        va_list ap;
        int r;

        va_start(ap, types);
        r = prepare(db, ret, text, types, ap);
        va_end(ap);
        return r;
}

const char *db_column(sqlite3_stmt *stmt, int i)
{
        const char *text = (const char *) sqlite3_column_text(stmt, i);

        return text ? text : "";
}

int db_number(Db *db, const char *text, int64_t *ret)
{
        _cleanup_(db_finalizep) sqlite3_stmt *stmt = NULL;
        int r = db_query(db, &stmt, text, "");

        if (r < 0)
                return r;
        r = sqlite3_step(stmt);
        if (r != SQLITE_ROW)
                return db_fail(db, r);
        *ret = sqlite3_column_int64(stmt, 0);
        return 0;
}

int db_transact(Db *db, int (*write)(Db *db, const void *userdata), const void *userdata)
{
        char error[DB_TEXT_MAX];
        int r = db_execute(db, "BEGIN IMMEDIATE");

        if (r < 0)
                return r;
        r = write(db, userdata);
        if (r == 0)
                r = db_execute(db, "COMMIT");
        if (r == 0)
                return 0;
        memcpy(error, db->error, sizeof error);
        (void) sqlite3_exec(db->db, "ROLLBACK", NULL, NULL, NULL); /* it may have been already */
        memcpy(db->error, error, sizeof error);
        return r;
}

int db_copy(Db *from, Db *ret)
{
        sqlite3_backup *backup;
        int r = db_open(ret, ":memory:"), code;

        if (r < 0)
                return r;
        backup = sqlite3_backup_init(ret->db, "main", from->db, "main");
        if (!backup)
                return db_fail(ret, sqlite3_errcode(ret->db));
        (void) sqlite3_backup_step(backup, -1);
        code = sqlite3_backup_finish(backup);
        return code == SQLITE_OK ? 0 : db_fail(ret, code);
}

typedef struct Upgrade {
        const DbStep *step;
        int to;
} Upgrade;

static int take_step(Db *db, const void *userdata)
{
        const Upgrade *upgrade = userdata;
        char text[64];
        int r = db_execute(db, upgrade->step->text);

        (void) snprintf(text, sizeof text, "PRAGMA user_version = %d", upgrade->to);
        return r < 0 ? r : db_execute(db, text);
}

int db_upgrade(Db *db, const char *dir, const DbStep *steps, int n)
{
        int64_t version;
        int r = db_number(db, "PRAGMA user_version", &version);

        if (r >= 0 && version > n) {
                (void) snprintf(db->error, sizeof db->error,
                                "it was written by a newer migmgr (version %d, this one knows %d)",
                                (int) version, n);
                return -EPROTONOSUPPORT;
        }
        if (r >= 0 && version < 0) {
                (void) snprintf(db->error, sizeof db->error, "its version is %d: it is damaged",
                                (int) version);
                return -EUCLEAN;
        }
        for (int v = (int) version; r >= 0 && v < n; v++) {
                if (steps[v].before && dir)
                        r = steps[v].before(db, dir);
                if (r >= 0)
                        r = db_transact(db, take_step, &(Upgrade){&steps[v], v + 1});
        }
        return r;
}
