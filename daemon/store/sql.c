/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sql.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

#include "common/log.h"

#define SCHEMA_VERSION 1
/* Held back from a disk that fills up: given free when a record does not fit, so that a VM in transit is not stuck for
 * want of a page. */
#define RESERVE_BYTES (1 * MIB)

struct Sql {
        sqlite3 *db;
        char reserve[4096];
        char error[SQL_TEXT_MAX];
};

static const char schema[] =
        "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;"
        "CREATE TABLE IF NOT EXISTS vm (uuid TEXT PRIMARY KEY, definition TEXT NOT NULL, presence TEXT NOT NULL)"
        " WITHOUT ROWID;"
        "CREATE TABLE IF NOT EXISTS record (job TEXT NOT NULL, half TEXT NOT NULL, vm TEXT NOT NULL, peer TEXT NOT NULL,"
        " plan_hash TEXT NOT NULL, owner TEXT NOT NULL, noway INTEGER NOT NULL, vmm_pid INTEGER NOT NULL,"
        " vmm_start INTEGER NOT NULL, boot_id TEXT NOT NULL, created_usec INTEGER NOT NULL,"
        " ended_usec INTEGER NOT NULL, peer_acked INTEGER NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (job, half))"
        " WITHOUT ROWID;"
        "CREATE TABLE IF NOT EXISTS history (job TEXT NOT NULL, half TEXT NOT NULL, ended_usec INTEGER NOT NULL,"
        " json TEXT NOT NULL, PRIMARY KEY (job, half)) WITHOUT ROWID;";

/* ---- errors and statements ----------------------------------------------------------------------------------- */

const char *sql_error(const Sql *sql)
{
        return sql->error;
}

static int fail(Sql *sql, int code)
{
        (void) snprintf(sql->error, sizeof sql->error, "%s", sqlite3_errmsg(sql->db));
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

static int execute(Sql *sql, const char *text)
{
        int code = sqlite3_exec(sql->db, text, NULL, NULL, NULL);

        return code == SQLITE_OK ? 0 : fail(sql, code);
}

static void finalizep(sqlite3_stmt **stmt)
{
        (void) sqlite3_finalize(*stmt);
}

/* Values by `types`: s text, i int64. */
static int prepare(Sql *sql, sqlite3_stmt **ret, const char *text, const char *types, va_list ap)
{
        int code = sqlite3_prepare_v2(sql->db, text, -1, ret, NULL);

        for (int i = 0; code == SQLITE_OK && types[i]; i++)
                if (types[i] == 's')
                        code = sqlite3_bind_text(*ret, i + 1, va_arg(ap, const char *), -1, SQLITE_TRANSIENT);
                else
                        code = sqlite3_bind_int64(*ret, i + 1, va_arg(ap, int64_t));
        return code == SQLITE_OK ? 0 : fail(sql, code);
}

static int run(Sql *sql, const char *text, const char *types, ...)
{
        _cleanup_(finalizep) sqlite3_stmt *stmt = NULL;
        va_list ap;
        int r;

        va_start(ap, types);
        r = prepare(sql, &stmt, text, types, ap);
        va_end(ap);
        if (r < 0)
                return r;
        r = sqlite3_step(stmt);
        return r == SQLITE_DONE || r == SQLITE_ROW ? 0 : fail(sql, r);
}

static int query(Sql *sql, sqlite3_stmt **ret, const char *text, const char *types, ...)
{
        va_list ap;
        int r;

        va_start(ap, types);
        r = prepare(sql, ret, text, types, ap);
        va_end(ap);
        return r;
}

static const char *column(sqlite3_stmt *stmt, int i)
{
        const char *text = (const char *) sqlite3_column_text(stmt, i);

        return text ? text : "";
}

/* ---- room on a full disk ------------------------------------------------------------------------------------- */

static void fill_reserve(Sql *sql)
{
        _cleanup_(closep) int fd = open(sql->reserve, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

        if (fd >= 0 && posix_fallocate(fd, 0, RESERVE_BYTES) != 0)
                (void) unlink(sql->reserve);
}

/* Runs `write` in a transaction, a second time with the reserve given free when the disk was full. */
typedef struct Write {
        int (*write)(Sql *sql, const struct Write *w);
        const Record *record;
        const char *uuid, *text;
        Presence presence;
        Side side;
        uint64_t usec;
} Write;

static int transact_once(Sql *sql, const Write *w)
{
        int r = execute(sql, "BEGIN IMMEDIATE");

        if (r < 0)
                return r;
        r = w->write(sql, w);
        if (r == 0)
                r = execute(sql, "COMMIT");
        if (r < 0) {
                char error[SQL_TEXT_MAX];

                memcpy(error, sql->error, sizeof error);
                (void) execute(sql, "ROLLBACK");
                memcpy(sql->error, error, sizeof error);
        }
        return r;
}

static int transact(Sql *sql, const Write *w)
{
        int r = transact_once(sql, w);

        /* A disk that is full may say so as an I/O error of the log. */
        if ((r == -ENOSPC || r == -EIO) && unlink(sql->reserve) == 0) {
                log_error(NULL, "the state directory's disk is full; a reserve was used up: make room");
                r = transact_once(sql, w);
        }
        return r;
}

/* ---- writing ------------------------------------------------------------------------------------------------- */

static int read_owner(Sql *sql, const Record *record, Owner *ret, bool *ret_acked)
{
        _cleanup_(finalizep) sqlite3_stmt *stmt = NULL;
        int r = query(sql, &stmt, "SELECT owner, peer_acked FROM record WHERE job = ? AND half = ?", "ss",
                      record->job, side_to_string(record->side));

        if (r < 0)
                return r;
        *ret = OWNER_UNRECORDED;
        *ret_acked = false;
        r = sqlite3_step(stmt);
        if (r == SQLITE_DONE)
                return 0;
        if (r != SQLITE_ROW)
                return fail(sql, r);
        *ret = owner_from_string(column(stmt, 0));
        *ret_acked = sqlite3_column_int(stmt, 1);
        return 0;
}

static int write_record(Sql *sql, const Write *w)
{
        const Record *rec = w->record;
        bool acked = false;
        Owner was;
        int r = read_owner(sql, rec, &was, &acked);

        if (r < 0)
                return r;
        if (!owner_may_become(rec->side, was, rec->owner, rec->noway)) {
                (void) snprintf(sql->error, sizeof sql->error, "the record says %s and must not become %s",
                                owner_to_string(was), owner_to_string(rec->owner));
                return -EPERM;
        }
        r = run(sql,
                "INSERT OR REPLACE INTO record (job, half, vm, peer, plan_hash, owner, noway, vmm_pid, vmm_start, boot_id,"
                " created_usec, ended_usec, peer_acked, reason) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                "ssssssiiisiiis", rec->job, side_to_string(rec->side), rec->vm, rec->peer, rec->plan_hash,
                owner_to_string(rec->owner), (int64_t) rec->noway, (int64_t) rec->vmm.pid,
                (int64_t) rec->vmm.start, rec->vmm.boot, (int64_t) rec->created_usec,
                (int64_t) rec->ended_usec, (int64_t) (rec->peer_acked || acked), rec->reason);
        if (r < 0 || (int) w->presence < 0)
                return r;
        return run(sql, "UPDATE vm SET presence = ? WHERE uuid = ?", "ss", presence_to_string(w->presence),
                   rec->vm);
}

int sql_put_record(Sql *sql, const Record *record, Presence presence)
{
        return transact(sql, &(Write){.write = write_record, .record = record, .presence = presence});
}

static int write_vm(Sql *sql, const Write *w)
{
        return run(sql, "INSERT OR REPLACE INTO vm (uuid, definition, presence) VALUES (?, ?, ?)", "sss",
                   w->uuid, w->text, presence_to_string(w->presence));
}

int sql_put_vm(Sql *sql, const char *uuid, const char *definition, Presence presence)
{
        return transact(sql,
                        &(Write){.write = write_vm, .uuid = uuid, .text = definition, .presence = presence});
}

static int write_delete_vm(Sql *sql, const Write *w)
{
        return run(sql, "DELETE FROM vm WHERE uuid = ?", "s", w->uuid);
}

int sql_delete_vm(Sql *sql, const char *uuid)
{
        return transact(sql, &(Write){.write = write_delete_vm, .uuid = uuid});
}

static int write_ack(Sql *sql, const Write *w)
{
        return run(sql, "UPDATE record SET peer_acked = 1 WHERE job = ? AND half = ?", "ss", w->uuid,
                   side_to_string(w->side));
}

int sql_ack(Sql *sql, const char *job, Side side)
{
        return transact(sql, &(Write){.write = write_ack, .uuid = job, .side = side});
}

static int write_history(Sql *sql, const Write *w)
{
        return run(sql, "INSERT OR IGNORE INTO history (job, half, ended_usec, json) VALUES (?, ?, ?, ?)",
                   "ssis", w->uuid, side_to_string(w->side), (int64_t) w->usec, w->text);
}

int sql_put_history(Sql *sql, const char *job, Side side, uint64_t ended_usec, const char *json)
{
        return transact(
                sql,
                &(Write){
                        .write = write_history, .uuid = job, .side = side, .usec = ended_usec, .text = json});
}

static int write_tidy(Sql *sql, const Write *w)
{
        int r = run(sql,
                    "DELETE FROM record WHERE peer_acked = 1 AND (job, half) NOT IN"
                    " (SELECT job, half FROM record WHERE peer_acked = 1 ORDER BY created_usec DESC LIMIT ?)",
                    "i", (int64_t) w->usec);

        if (r < 0)
                return r;
        return run(sql,
                   "DELETE FROM history WHERE (job, half) NOT IN"
                   " (SELECT job, half FROM history ORDER BY ended_usec DESC LIMIT ?)",
                   "i", (int64_t) w->usec);
}

int sql_tidy(Sql *sql, uint32_t keep)
{
        int r = transact(sql, &(Write){.write = write_tidy, .usec = keep});

        if (r < 0)
                return r;
        if (access(sql->reserve, F_OK) < 0)
                fill_reserve(sql);
        return execute(sql, "PRAGMA wal_checkpoint(PASSIVE)");
}

/* ---- reading ------------------------------------------------------------------------------------------------- */

int sql_each_vm(Sql *sql, StoreVm callback, void *userdata)
{
        _cleanup_(finalizep) sqlite3_stmt *stmt = NULL;
        int r = query(sql, &stmt, "SELECT definition, presence FROM vm ORDER BY uuid", ""), code = SQLITE_OK;

        while (r >= 0 && (code = sqlite3_step(stmt)) == SQLITE_ROW)
                r = callback(userdata, column(stmt, 0), presence_from_string(column(stmt, 1)));
        return r < 0 ? r : code == SQLITE_DONE ? 0 : fail(sql, code);
}

static void copy(char *to, size_t size, const char *from)
{
        (void) snprintf(to, size, "%s", from);
}

static void read_record(sqlite3_stmt *stmt, Record *rec)
{
        *rec = (Record){.side = side_from_string(column(stmt, 1)),
                        .owner = owner_from_string(column(stmt, 5)),
                        .noway = sqlite3_column_int64(stmt, 6) != 0,
                        .vmm.pid = (pid_t) sqlite3_column_int64(stmt, 7),
                        .vmm.start = (uint64_t) sqlite3_column_int64(stmt, 8),
                        .created_usec = (uint64_t) sqlite3_column_int64(stmt, 10),
                        .ended_usec = (uint64_t) sqlite3_column_int64(stmt, 11),
                        .peer_acked = sqlite3_column_int64(stmt, 12) != 0};
        copy(rec->job, sizeof rec->job, column(stmt, 0));
        copy(rec->vm, sizeof rec->vm, column(stmt, 2));
        copy(rec->peer, sizeof rec->peer, column(stmt, 3));
        copy(rec->plan_hash, sizeof rec->plan_hash, column(stmt, 4));
        copy(rec->vmm.boot, sizeof rec->vmm.boot, column(stmt, 9));
        copy(rec->reason, sizeof rec->reason, column(stmt, 13));
}

int sql_each_open_record(Sql *sql, StoreRecord callback, void *userdata)
{
        _cleanup_(finalizep) sqlite3_stmt *stmt = NULL;
        int code = SQLITE_OK, r;
        Record rec;

        r = query(
                sql, &stmt,
                "SELECT job, half, vm, peer, plan_hash, owner, noway, vmm_pid, vmm_start, boot_id, created_usec,"
                " ended_usec, peer_acked, reason FROM record WHERE peer_acked = 0 ORDER BY created_usec",
                "");
        while (r >= 0 && (code = sqlite3_step(stmt)) == SQLITE_ROW) {
                read_record(stmt, &rec);
                r = callback(userdata, &rec);
        }
        return r < 0 ? r : code == SQLITE_DONE ? 0 : fail(sql, code);
}

int sql_each_history(Sql *sql, uint32_t max, StoreHistory callback, void *userdata)
{
        _cleanup_(finalizep) sqlite3_stmt *stmt = NULL;
        int code = SQLITE_OK, r;

        r = query(
                sql, &stmt,
                "SELECT job, json FROM (SELECT job, json, ended_usec FROM history ORDER BY ended_usec DESC LIMIT ?)"
                " ORDER BY ended_usec",
                "i", (int64_t) max);
        while (r >= 0 && (code = sqlite3_step(stmt)) == SQLITE_ROW)
                r = callback(userdata, column(stmt, 0), column(stmt, 1));
        return r < 0 ? r : code == SQLITE_DONE ? 0 : fail(sql, code);
}

/* ---- opening ------------------------------------------------------------------------------------------------- */

static int check_version(Sql *sql)
{
        _cleanup_(finalizep) sqlite3_stmt *stmt = NULL;
        int r = query(sql, &stmt, "PRAGMA user_version", ""), version;

        if (r < 0)
                return r;
        r = sqlite3_step(stmt);
        if (r != SQLITE_ROW)
                return fail(sql, r);
        version = sqlite3_column_int(stmt, 0);
        if (version > SCHEMA_VERSION) {
                (void) snprintf(sql->error, sizeof sql->error,
                                "it was written by a newer migmgr (version %d, this one knows %d)", version,
                                SCHEMA_VERSION);
                return -EPROTONOSUPPORT;
        }
        return 0;
}

static int set_up(Sql *sql)
{
        char text[64];
        int r = check_version(sql);

        /* Nothing is checkpointed behind our back: that would be done by the write that happens to come next, and
         * that may be one for which a VM stands still. */
        if (r >= 0)
                r = execute(
                        sql,
                        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0;"
                        "PRAGMA busy_timeout = 2000; PRAGMA locking_mode = EXCLUSIVE");
        if (r >= 0)
                r = execute(sql, schema);
        (void) snprintf(text, sizeof text, "PRAGMA user_version = %d", SCHEMA_VERSION);
        if (r >= 0)
                r = execute(sql, text);
        if (r >= 0)
                r = execute(sql, "PRAGMA wal_checkpoint(TRUNCATE)");
        return r;
}

int sql_host_id(Sql *sql, char ret[UUID_TEXT_MAX + 1])
{
        _cleanup_(finalizep) sqlite3_stmt *stmt = NULL;
        int r = query(sql, &stmt, "SELECT value FROM meta WHERE key = 'host-id'", "");

        if (r < 0)
                return r;
        r = sqlite3_step(stmt);
        if (r == SQLITE_ROW && uuid_is_valid(column(stmt, 0))) {
                memcpy(ret, column(stmt, 0), UUID_TEXT_MAX + 1);
                return 0;
        }
        /* One that cannot be read just now must not be replaced: peers know this daemon by it. */
        if (r != SQLITE_ROW && r != SQLITE_DONE)
                return fail(sql, r);
        r = uuid_generate(ret);
        if (r < 0)
                return r;
        return run(sql, "INSERT OR REPLACE INTO meta (key, value) VALUES ('host-id', ?)", "s", ret);
}

Sql *sql_close(Sql *sql)
{
        if (!sql)
                return NULL;
        (void) sqlite3_close(sql->db);
        free(sql);
        return NULL;
}

DEFINE_CLEANUP(Sql *, sql_close);

int sql_open(const char *dir, Sql **ret)
{
        _cleanup_(sql_closep) Sql *sql = calloc(1, sizeof *sql);
        char path[4096];
        int r;

        if (!sql)
                return -ENOMEM;
        if (mkdir(dir, 0700) < 0 && errno != EEXIST)
                return -errno;
        (void) snprintf(path, sizeof path, "%s/migmgr.db", dir);
        (void) snprintf(sql->reserve, sizeof sql->reserve, "%.4000s/reserve", dir);
        r = sqlite3_open_v2(path, &sql->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
                            NULL);
        r = r == SQLITE_OK ? set_up(sql) : fail(sql, r);
        if (r < 0) {
                log_error(NULL, "%s cannot be used: %s", path, sql->error);
                return r;
        }
        fill_reserve(sql);
        *ret = TAKE_PTR(sql);
        return 0;
}
