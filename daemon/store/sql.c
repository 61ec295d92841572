/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sql.h"

#include <fcntl.h>
#include <stdio.h>

#include "common/log.h"
#include "db.h"
#include "history.h"

/* Held back from a disk that fills up: given free when a record does not fit, so that a VM in transit is not stuck for
 * want of a page. */
#define RESERVE_BYTES (1 * MIB)

/* The write-ahead log is emptied into the database when no VM is moving; when one always is, at this length. */
#define LOG_PAGES_MAX 4096

struct Sql {
        Db db;       /* what is read and written */
        Db old_file; /* while that is a copy in memory: the file, which has no room for this schema */
        bool synced; /* it is known that what is committed is */
        int log_pages;
        char dir[4001], reserve[4096];
};

/* Of version 0 there are files with tables, too: the version was written in a transaction of its own once. */
static const char version_1[] =
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

/* History has gone into a file of its own (history.c): nothing that is written there may keep a record waiting. */
static const char version_2[] = "DROP TABLE history";

/* The plan's hash was read by nobody. What it was a hash of is needed after a restart: the part of it that is policy. */
static const char version_3[] =
        "ALTER TABLE record RENAME COLUMN plan_hash TO policy; UPDATE record SET policy = ''";

static const char version_4[] =
        "CREATE TABLE quarantine (vm TEXT NOT NULL, device TEXT NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (vm, device))"
        " WITHOUT ROWID";

/* In which order records were begun, which no clock says for sure: that can be set back. */
static const char version_5[] =
        /* It said nothing for the source before: of a VM that the destination runs, too, it was kept. */
        "UPDATE record SET noway = 0 WHERE half = 'source' AND owner = 'done';"
        "ALTER TABLE record ADD COLUMN seq INTEGER NOT NULL DEFAULT 0;"
        "UPDATE record SET seq = o.n FROM (SELECT job, half, rank() OVER (ORDER BY created_usec) AS n FROM record) AS o"
        " WHERE o.job = record.job AND o.half = record.half";

static const DbStep steps[] = {{version_1, NULL},
                               {version_2, history_take_old},
                               {version_3, NULL},
                               {version_4, NULL},
                               {version_5, NULL}};

const char *sql_error(const Sql *sql)
{
        return sql->db.error;
}

/* ---- room on a full disk ------------------------------------------------------------------------------------- */

static void fill_reserve(Sql *sql)
{
        _cleanup_(closep) int fd = open(sql->reserve, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

        if (fd >= 0 && posix_fallocate(fd, 0, RESERVE_BYTES) != 0)
                (void) unlink(sql->reserve);
}

/* One that is full may say so as an I/O error of the log. */
static bool is_full(int r)
{
        return r == -ENOSPC || r == -EIO;
}

/* Whether `r` says that the disk is full, and there is room now. */
static bool give_reserve(const Sql *sql, int r)
{
        if (!is_full(r) || unlink(sql->reserve) < 0)
                return false;
        log_error(NULL, "the state directory's disk is full; a reserve was used up: make room");
        return true;
}

/* ---- older schemas on a full disk ---------------------------------------------------------------------------- */

static int upgrade(Sql *sql, Db *file)
{
        int r = db_upgrade(file, sql->dir, steps, ARRAY_SIZE(steps));

        return give_reserve(sql, r) ? db_upgrade(file, sql->dir, steps, ARRAY_SIZE(steps)) : r;
}

/* There is no room for this schema. What the file says can be read all the same, and must be: VMs and jobs are in it. Nothing
 * is written, for it would be written nowhere, until there is room. */
static int go_to_memory(Sql *sql)
{
        Db copy = {};
        int r = db_copy(&sql->db, &copy);

        if (r >= 0)
                r = db_upgrade(&copy, NULL, steps, ARRAY_SIZE(steps));
        if (r < 0) {
                db_close(&copy);
                return r;
        }
        log_error(
                NULL,
                "%s/migmgr.db was written by an older migmgr, and cannot be brought to the form of this one: %s; it is only "
                "read, and no job begins, until there is room in the state directory",
                sql->dir, sql->db.error);
        sql->old_file = sql->db;
        sql->db = copy;
        return 0;
}

/* Before anything is written: the file is used as soon as there is room. */
static int leave_memory(Sql *sql)
{
        int r;

        if (!sql->old_file.db)
                return 0;
        r = upgrade(sql, &sql->old_file);
        if (r < 0) {
                (void) snprintf(
                        sql->db.error, sizeof sql->db.error,
                        "it was written by an older migmgr, and cannot be brought to the form of this one: %.150s",
                        sql->old_file.error);
                return r;
        }
        db_close(&sql->db);
        sql->db = sql->old_file;
        sql->old_file = (Db){};
        log_info(NULL, "%s/migmgr.db has the form of this migmgr now, and is written", sql->dir);
        return 0;
}

/* ---- transactions -------------------------------------------------------------------------------------------- */

/* Runs `write` in a transaction, a second time with the reserve given free when the disk was full. */
typedef struct Write {
        int (*write)(Db *db, const void *userdata);
        const Record *record;
        const char *uuid, *device, *text;
        Presence presence;
        Side side;
        uint64_t usec;
} Write;

static int transact_now(Sql *sql, const Write *w)
{
        int r = db_transact(&sql->db, w->write, w);

        return give_reserve(sql, r) ? db_transact(&sql->db, w->write, w) : r;
}

/* Synced, or it fails. */
static int transact(Sql *sql, const Write *w)
{
        int r = leave_memory(sql);

        if (r >= 0 && !sql->synced)
                r = db_execute(&sql->db, "PRAGMA synchronous = FULL");
        sql->synced = r >= 0;
        return r < 0 ? r : transact_now(sql, w);
}

/* Not synced by itself: a record that is written for a VM that stands still does not wait for it, nor for its sync. */
static int transact_unsynced(Sql *sql, const Write *w)
{
        int r = leave_memory(sql);

        if (r >= 0)
                r = db_execute(&sql->db, "PRAGMA synchronous = NORMAL");
        sql->synced = false;
        return r < 0 ? r : transact_now(sql, w);
}

/* ---- writing ------------------------------------------------------------------------------------------------- */

static int read_owner(Db *db, const Record *record, Owner *ret, bool *ret_acked)
{
        _cleanup_(db_finalizep) sqlite3_stmt *stmt = NULL;
        int r = db_query(db, &stmt, "SELECT owner, peer_acked FROM record WHERE job = ? AND half = ?", "ss",
                         record->job, side_to_string(record->side));

        if (r < 0)
                return r;
        *ret = OWNER_UNRECORDED;
        *ret_acked = false;
        r = sqlite3_step(stmt);
        if (r == SQLITE_DONE)
                return 0;
        if (r != SQLITE_ROW)
                return db_fail(db, r);
        *ret = owner_from_string(db_column(stmt, 0));
        *ret_acked = sqlite3_column_int(stmt, 1);
        return 0;
}

static int write_record(Db *db, const void *userdata)
{
        const Write *w = userdata;
        const Record *rec = w->record;
        bool acked = false;
        Owner was;
        int r = read_owner(db, rec, &was, &acked);

        if (r < 0)
                return r;
        if (!owner_may_become(rec->side, was, rec->owner, rec->noway)) {
                (void) snprintf(db->error, sizeof db->error, "the record says %s and must not become %s",
                                owner_to_string(was), owner_to_string(rec->owner));
                return -EPERM;
        }
        /* One that was not written before its job was over is no newer than any other: the VM was free long since. */
        r = db_run(
                db,
                "INSERT OR REPLACE INTO record (job, half, vm, peer, policy, owner, noway, vmm_pid, vmm_start, boot_id,"
                " created_usec, ended_usec, peer_acked, reason, seq) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,"
                " ifnull((SELECT seq FROM record WHERE job = ?1 AND half = ?2),"
                " CASE WHEN ?15 THEN 0 ELSE (SELECT ifnull(max(seq), 0) + 1 FROM record) END))",
                "ssssssiiisiiisi", rec->job, side_to_string(rec->side), rec->vm, rec->peer, rec->policy,
                owner_to_string(rec->owner), (int64_t) rec->noway, (int64_t) rec->vmm.pid,
                (int64_t) rec->vmm.start, rec->vmm.boot, (int64_t) rec->created_usec,
                (int64_t) rec->ended_usec, (int64_t) (rec->peer_acked || acked), rec->reason,
                (int64_t) owner_is_final(rec->owner));
        if (r < 0 || (int) w->presence < 0)
                return r;
        return db_run(db, "UPDATE vm SET presence = ? WHERE uuid = ?", "ss", presence_to_string(w->presence),
                      rec->vm);
}

int sql_put_record(Sql *sql, const Record *record, Presence presence)
{
        return transact(sql, &(Write){.write = write_record, .record = record, .presence = presence});
}

static int write_vm(Db *db, const void *userdata)
{
        const Write *w = userdata;

        return db_run(db, "INSERT OR REPLACE INTO vm (uuid, definition, presence) VALUES (?, ?, ?)", "sss",
                      w->uuid, w->text, presence_to_string(w->presence));
}

int sql_put_vm(Sql *sql, const char *uuid, const char *definition, Presence presence)
{
        return transact(sql,
                        &(Write){.write = write_vm, .uuid = uuid, .text = definition, .presence = presence});
}

static int write_delete_vm(Db *db, const void *userdata)
{
        const Write *w = userdata;
        int r = db_run(db, "DELETE FROM quarantine WHERE vm = ?", "s", w->uuid);

        return r < 0 ? r : db_run(db, "DELETE FROM vm WHERE uuid = ?", "s", w->uuid);
}

int sql_delete_vm(Sql *sql, const char *uuid)
{
        return transact(sql, &(Write){.write = write_delete_vm, .uuid = uuid});
}

static int write_ack(Db *db, const void *userdata)
{
        const Write *w = userdata;

        return db_run(db, "UPDATE record SET peer_acked = 1 WHERE job = ? AND half = ?", "ss", w->uuid,
                      side_to_string(w->side));
}

/* Should it be lost with the power, the other half is told once more. */
int sql_ack(Sql *sql, const char *job, Side side)
{
        return transact_unsynced(sql, &(Write){.write = write_ack, .uuid = job, .side = side});
}

static int write_quarantine(Db *db, const void *userdata)
{
        const Write *w = userdata;

        if (!w->text[0])
                return db_run(db, "DELETE FROM quarantine WHERE vm = ? AND device = ?", "ss", w->uuid,
                              w->device);
        return db_run(db, "INSERT OR REPLACE INTO quarantine (vm, device, reason) VALUES (?, ?, ?)", "sss",
                      w->uuid, w->device, w->text);
}

/* When the power goes the device loses what it holds, too. */
int sql_put_quarantine(Sql *sql, const char *vm, const char *device, const char *reason)
{
        return transact_unsynced(
                sql, &(Write){.write = write_quarantine, .uuid = vm, .device = device, .text = reason});
}

static int write_tidy(Db *db, const void *userdata)
{
        const Write *w = userdata;

        return db_run(db,
                      /* the VM's last stays, too, as long as there is an open one that was before it */
                      "DELETE FROM record WHERE peer_acked = 1 AND (job, half) NOT IN"
                      " (SELECT job, half FROM record WHERE peer_acked = 1 ORDER BY seq DESC LIMIT ?) AND"
                      " (NOT EXISTS (SELECT 1 FROM record o WHERE o.vm = record.vm AND o.peer_acked = 0) OR"
                      " EXISTS (SELECT 1 FROM record n WHERE n.vm = record.vm AND n.seq > record.seq))",
                      "i", (int64_t) w->usec);
}

/* Whether some VM may stand still here now, or soon: the next write may be one that it waits for. */
static int is_moving(Sql *sql, bool *ret)
{
        int64_t n;
        int r = db_number(&sql->db,
                          "SELECT EXISTS (SELECT 1 FROM record WHERE peer_acked = 0 AND"
                          " owner IN ('source', 'nobody', 'prepared', 'destination', 'promised'))",
                          &n);

        *ret = r < 0 || n != 0;
        return r;
}

int sql_tidy(Sql *sql, uint32_t keep, bool *ret_quiet)
{
        bool moving;
        int r = is_moving(sql, &moving);

        *ret_quiet = !moving;
        if (r < 0 || (moving && sql->log_pages < LOG_PAGES_MAX))
                return r;
        r = transact(sql, &(Write){.write = write_tidy, .usec = keep});
        if (r < 0)
                return r;
        if (access(sql->reserve, F_OK) < 0)
                fill_reserve(sql);
        return db_execute(&sql->db, "PRAGMA wal_checkpoint(PASSIVE)");
}

/* ---- reading ------------------------------------------------------------------------------------------------- */

int sql_each_vm(Sql *sql, StoreVm callback, void *userdata)
{
        _cleanup_(db_finalizep) sqlite3_stmt *stmt = NULL;
        int r = db_query(&sql->db, &stmt, "SELECT definition, presence FROM vm ORDER BY uuid", ""),
            code = SQLITE_OK;

        while (r >= 0 && (code = sqlite3_step(stmt)) == SQLITE_ROW)
                r = callback(userdata, db_column(stmt, 0), presence_from_string(db_column(stmt, 1)));
        return r < 0 ? r : code == SQLITE_DONE ? 0 : db_fail(&sql->db, code);
}

int sql_each_quarantine(Sql *sql, StoreQuarantine callback, void *userdata)
{
        _cleanup_(db_finalizep) sqlite3_stmt *stmt = NULL;
        int r = db_query(&sql->db, &stmt, "SELECT vm, device, reason FROM quarantine", ""), code = SQLITE_OK;

        while (r >= 0 && (code = sqlite3_step(stmt)) == SQLITE_ROW)
                r = callback(userdata, db_column(stmt, 0), db_column(stmt, 1), db_column(stmt, 2));
        return r < 0 ? r : code == SQLITE_DONE ? 0 : db_fail(&sql->db, code);
}

static void copy(char *to, size_t size, const char *from)
{
        (void) snprintf(to, size, "%s", from);
}

static void read_record(sqlite3_stmt *stmt, Record *rec)
{
        *rec = (Record){.side = side_from_string(db_column(stmt, 1)),
                        .owner = owner_from_string(db_column(stmt, 5)),
                        .noway = sqlite3_column_int64(stmt, 6) != 0,
                        .policy = db_column(stmt, 4),
                        .vmm.pid = (pid_t) sqlite3_column_int64(stmt, 7),
                        .vmm.start = (uint64_t) sqlite3_column_int64(stmt, 8),
                        .created_usec = (uint64_t) sqlite3_column_int64(stmt, 10),
                        .ended_usec = (uint64_t) sqlite3_column_int64(stmt, 11),
                        .peer_acked = sqlite3_column_int64(stmt, 12) != 0,
                        .has_newer = sqlite3_column_int64(stmt, 14) != 0,
                        .presence = presence_from_string(db_column(stmt, 15))};
        copy(rec->job, sizeof rec->job, db_column(stmt, 0));
        copy(rec->vm, sizeof rec->vm, db_column(stmt, 2));
        copy(rec->peer, sizeof rec->peer, db_column(stmt, 3));
        copy(rec->vmm.boot, sizeof rec->vmm.boot, db_column(stmt, 9));
        copy(rec->reason, sizeof rec->reason, db_column(stmt, 13));
}

int sql_each_open_record(Sql *sql, StoreRecord callback, void *userdata)
{
        _cleanup_(db_finalizep) sqlite3_stmt *stmt = NULL;
        int code = SQLITE_OK, r;
        Record rec;

        r = db_query(
                &sql->db, &stmt,
                "SELECT job, half, vm, peer, substr(policy, 1, ?), owner, noway, vmm_pid, vmm_start, boot_id, created_usec,"
                " ended_usec, peer_acked, reason, EXISTS (SELECT 1 FROM record n WHERE n.vm = record.vm AND n.job <> record.job AND"
                " n.seq > record.seq), (SELECT presence FROM vm WHERE uuid = record.vm) FROM record"
                " WHERE peer_acked = 0 ORDER BY seq",
                "i", (int64_t) RECORD_POLICY_MAX + 1);
        while (r >= 0 && (code = sqlite3_step(stmt)) == SQLITE_ROW) {
                read_record(stmt, &rec);
                r = callback(userdata, &rec);
        }
        return r < 0 ? r : code == SQLITE_DONE ? 0 : db_fail(&sql->db, code);
}

/* ---- opening ------------------------------------------------------------------------------------------------- */

static int on_commit(void *userdata, sqlite3 *db, const char *name, int pages)
{
        ((Sql *) userdata)->log_pages = pages;
        return SQLITE_OK;
}

/* What is in the log is read from there as well: a disk without room for it in the database keeps nobody from his VM. */
static int empty_log(Sql *sql)
{
        static const char checkpoint[] = "PRAGMA wal_checkpoint(TRUNCATE)";
        int r = db_execute(&sql->db, checkpoint);

        if (give_reserve(sql, r))
                r = db_execute(&sql->db, checkpoint);
        if (!is_full(r))
                return r;
        log_error(
                NULL,
                "the log of the database of records cannot be emptied: %s; make room in the state directory",
                sql->db.error);
        return 0;
}

static int set_up(Sql *sql)
{
        /* Locked before anything is read: then the log's index is in memory, and needs no file, for which a full disk
         * has no room. Nothing is checkpointed behind our back: that would be done by the write that happens to come
         * next, and that may be one for which a VM stands still. */
        int r = db_execute(
                &sql->db,
                "PRAGMA busy_timeout = 2000; PRAGMA main.locking_mode = EXCLUSIVE;"
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 0");

        (void) sqlite3_wal_hook(sql->db.db, on_commit, sql);
        /* What could be read only, because somebody else writes, is of no use. */
        if (r >= 0)
                r = db_execute(&sql->db, "BEGIN IMMEDIATE; COMMIT");
        if (r < 0)
                return r;
        r = upgrade(sql, &sql->db);
        if (is_full(r))
                return go_to_memory(sql);
        return r < 0 ? r : empty_log(sql);
}

int sql_host_id(Sql *sql, char ret[UUID_TEXT_MAX + 1])
{
        _cleanup_(db_finalizep) sqlite3_stmt *stmt = NULL;
        int r = db_query(&sql->db, &stmt, "SELECT value FROM meta WHERE key = 'host-id'", "");

        if (r < 0)
                return r;
        r = sqlite3_step(stmt);
        if (r == SQLITE_ROW && uuid_is_valid(db_column(stmt, 0))) {
                memcpy(ret, db_column(stmt, 0), UUID_TEXT_MAX + 1);
                return 0;
        }
        /* One that cannot be read just now must not be replaced: peers know this daemon by it. */
        if (r != SQLITE_ROW && r != SQLITE_DONE)
                return db_fail(&sql->db, r);
        (void) sqlite3_finalize(TAKE_PTR(stmt)); /* what it reads may be closed now */
        r = uuid_generate(ret);
        if (r >= 0)
                r = leave_memory(sql);
        if (r < 0)
                return r;
        return db_run(&sql->db, "INSERT OR REPLACE INTO meta (key, value) VALUES ('host-id', ?)", "s", ret);
}

Sql *sql_close(Sql *sql)
{
        if (!sql)
                return NULL;
        db_close(&sql->db);
        db_close(&sql->old_file);
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
        (void) snprintf(sql->dir, sizeof sql->dir, "%s", dir);
        (void) snprintf(path, sizeof path, "%.4000s/migmgr.db", dir);
        (void) snprintf(sql->reserve, sizeof sql->reserve, "%.4000s/reserve", dir);
        r = db_open(&sql->db, path);
        if (r >= 0 && sqlite3_db_readonly(sql->db.db, "main") == 1) {
                /* Its lock would be an I/O error. */
                (void) snprintf(sql->db.error, sizeof sql->db.error,
                                "it is readonly: migmgrd may not write to it");
                r = -EROFS;
        }
        if (r >= 0)
                r = set_up(sql);
        if (r < 0) {
                log_error(NULL, "%s cannot be used: %s", path, sql->db.error);
                return r;
        }
        fill_reserve(sql);
        *ret = TAKE_PTR(sql);
        return 0;
}
