/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "history.h"

#include <stdio.h>

#include "common/log.h"

#define LOG_PAGES_MAX 4096
#define USEC_PER_DAY  (24 * 3600 * USEC_PER_SEC)

struct HistoryDb {
        Db db;
        int log_pages;
};

static const char version_1[] =
        "CREATE TABLE job (job TEXT NOT NULL, half TEXT NOT NULL, vm TEXT NOT NULL, name TEXT NOT NULL,"
        " result TEXT NOT NULL, created_usec INTEGER NOT NULL, ended_usec INTEGER NOT NULL,"
        " summary TEXT NOT NULL, report TEXT NOT NULL, PRIMARY KEY (job, half));"
        "CREATE INDEX job_by_end ON job (ended_usec);"
        "CREATE TABLE step (job TEXT NOT NULL, half TEXT NOT NULL, usec INTEGER NOT NULL, json TEXT NOT NULL);"
        "CREATE INDEX step_by_job ON step (job);"
        "CREATE INDEX step_by_time ON step (usec);";

static const DbStep steps[] = {{version_1, NULL}};

const char *history_error(const HistoryDb *history)
{
        return history->db.error;
}

/* ---- writing ------------------------------------------------------------------------------------------------- */

int history_put_step(HistoryDb *history, const StoreStep *step)
{
        return db_run(&history->db, "INSERT INTO step (job, half, usec, json) VALUES (?, ?, ?, ?)", "ssis",
                      step->job, side_to_string(step->side), (int64_t) step->usec, step->json);
}

int history_put_job(HistoryDb *history, const StoreJob *job)
{
        return db_run(
                &history->db,
                "INSERT OR IGNORE INTO job (job, half, vm, name, result, created_usec, ended_usec, summary,"
                " report) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                "sssssiiss", job->job, side_to_string(job->side), job->vm, job->name, job->result,
                (int64_t) job->created_usec, (int64_t) job->ended_usec, job->summary, job->report);
}

typedef struct Prune {
        const StoreLimits *limits;
        uint64_t now_usec;
} Prune;

static int prune(Db *db, const void *userdata)
{
        const Prune *p = userdata;
        uint64_t age = p->limits->days * USEC_PER_DAY;
        int64_t since = p->limits->days > 0 && p->now_usec > age ? (int64_t) (p->now_usec - age) : 0;
        int r = db_run(db, "DELETE FROM job WHERE ended_usec < ?", "i", since);

        if (r >= 0 && p->limits->jobs > 0)
                r = db_run(db,
                           "DELETE FROM job WHERE rowid IN"
                           " (SELECT rowid FROM job ORDER BY rowid DESC LIMIT -1 OFFSET ?)",
                           "i", (int64_t) p->limits->jobs);
        /* Steps of a job that has not ended stay, for as long as one that has would. */
        if (r >= 0)
                r = db_run(db,
                           "DELETE FROM step WHERE (job, half) NOT IN (SELECT job, half FROM job) AND rowid <"
                           " (SELECT min(rowid) FROM step WHERE (job, half) IN (SELECT job, half FROM job))",
                           "");
        return r < 0 ? r : db_run(db, "DELETE FROM step WHERE usec < ?", "i", since);
}

int history_prune(HistoryDb *history, const StoreLimits *limits, uint64_t now_usec)
{
        return db_transact(&history->db, prune, &(Prune){limits, now_usec});
}

int history_checkpoint(HistoryDb *history, bool quiet)
{
        if (!quiet && history->log_pages < LOG_PAGES_MAX)
                return 0;
        return db_execute(&history->db, "PRAGMA wal_checkpoint(PASSIVE)");
}

/* ---- reading ------------------------------------------------------------------------------------------------- */

int history_each(HistoryDb *history, uint32_t max, StoreSummary callback, void *userdata)
{
        _cleanup_(db_finalizep) sqlite3_stmt *stmt = NULL;
        int code = SQLITE_OK, r;

        r = db_query(
                &history->db, &stmt,
                "SELECT job, summary, report FROM"
                " (SELECT job, summary, report, rowid AS n FROM job ORDER BY rowid DESC LIMIT ?) ORDER BY n",
                "i", (int64_t) max);
        while (r >= 0 && (code = sqlite3_step(stmt)) == SQLITE_ROW)
                r = callback(userdata, db_column(stmt, 0), db_column(stmt, 1), db_column(stmt, 2));
        return r < 0 ? r : code == SQLITE_DONE ? 0 : db_fail(&history->db, code);
}

/* The one text of `stmt`, or NULL when it gives no row. */
static int take_text(HistoryDb *history, sqlite3_stmt *stmt, char **ret)
{
        int code = sqlite3_step(stmt);

        *ret = NULL;
        if (code == SQLITE_DONE)
                return 0;
        if (code != SQLITE_ROW)
                return db_fail(&history->db, code);
        *ret = strdup(db_column(stmt, 0));
        return *ret ? 0 : -ENOMEM;
}

int history_list(HistoryDb *history, const StoreFilter *filter, char **ret)
{
        _cleanup_(db_finalizep) sqlite3_stmt *stmt = NULL;
        int r = db_query(&history->db, &stmt,
                         "SELECT json_group_array(json(summary)) FROM (SELECT summary FROM job"
                         " WHERE ended_usec >= ?1 AND (?2 = '' OR vm = ?2 OR name = ?2)"
                         " AND (?3 = '' OR result = ?3) AND json_valid(summary) ORDER BY rowid DESC)",
                         "iss", (int64_t) filter->since_usec, filter->vm, filter->result);

        return r < 0 ? r : take_text(history, stmt, ret);
}

int history_find(HistoryDb *history, const char *job, char **ret_report, char **ret_steps)
{
        _cleanup_(db_finalizep) sqlite3_stmt *report = NULL, *list = NULL;
        _cleanup_(freep) char *text = NULL;
        /* Both halves are here when a VM moved within the host: the source's tells more. */
        int r = db_query(&history->db, &report,
                         "SELECT report FROM job WHERE job = ? ORDER BY half DESC LIMIT 1", "s", job);

        if (r >= 0)
                r = take_text(history, report, &text);
        if (r >= 0)
                r = db_query(&history->db, &list,
                             "SELECT json_group_array(json(json)) FROM"
                             " (SELECT json FROM step WHERE job = ? AND json_valid(json) ORDER BY rowid)",
                             "s", job);
        if (r >= 0)
                r = take_text(history, list, ret_steps);
        if (r >= 0)
                *ret_report = TAKE_PTR(text);
        return r;
}

/* ---- opening ------------------------------------------------------------------------------------------------- */

static int on_commit(void *userdata, sqlite3 *db, const char *name, int pages)
{
        ((HistoryDb *) userdata)->log_pages = pages;
        return SQLITE_OK;
}

HistoryDb *history_close(HistoryDb *history)
{
        if (!history)
                return NULL;
        db_close(&history->db);
        free(history);
        return NULL;
}

DEFINE_CLEANUP(HistoryDb *, history_close);

static int open_path(const char *dir, const char *path, HistoryDb *history)
{
        int64_t n;
        int r;

        r = db_open(&history->db, path);
        if (r >= 0)
                r = db_execute(&history->db, "PRAGMA busy_timeout = 2000; PRAGMA journal_mode = WAL;"
                                             "PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0");
        if (history->db.db) /* none where there was no memory for it */
                (void) sqlite3_wal_hook(history->db.db, on_commit, history);
        if (r >= 0)
                r = db_upgrade(&history->db, dir, steps, ARRAY_SIZE(steps));
        /* What is damaged may show only when it is looked at. */
        if (r >= 0)
                r = db_number(&history->db, "SELECT count(*) FROM (SELECT ended_usec FROM job LIMIT 100)",
                              &n);
        return r;
}

/* Not locked for us alone: whoever wants may look at it with other programs. */
static int open_file(const char *dir, HistoryDb *history)
{
        char path[4096];

        (void) snprintf(path, sizeof path, "%s/history.db", dir);
        return open_path(dir, path, history);
}

/* Under a name that says what it is; the one that was there before makes room. */
static void put_aside(const char *dir)
{
        static const char *const ends[] = {"", "-wal", "-shm"};
        char from[4096], to[4096];

        for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
                (void) snprintf(from, sizeof from, "%.4000s/history.db%s", dir, ends[i]);
                (void) snprintf(to, sizeof to, "%.4000s/history.db.damaged%s", dir, ends[i]);
                (void) rename(from, to);
        }
}

int history_open(const char *dir, HistoryDb **ret)
{
        _cleanup_(history_closep) HistoryDb *history = calloc(1, sizeof *history);
        int r;

        if (!history)
                return -ENOMEM;
        r = open_file(dir, history);
        if (r == -EUCLEAN) {
                log_error(NULL,
                          "%s/history.db is damaged: %s; it is kept as history.db.damaged, and begun anew",
                          dir, history->db.error);
                db_close(&history->db);
                put_aside(dir);
                r = open_file(dir, history);
        }
        if (r < 0) {
                log_error(
                        NULL,
                        "%s/history.db cannot be used: %s; what jobs do is kept in memory until migmgrd ends: make "
                        "room in %s, see that migmgrd may write there, and start it again",
                        dir, history->db.error, dir);
                db_close(&history->db);
                r = open_path(dir, ":memory:", history);
        }
        if (r < 0)
                return r;
        *ret = TAKE_PTR(history);
        return 0;
}

/* ---- what was before ------------------------------------------------------------------------------------------- */

int history_take_old(Db *db, const char *dir)
{
        HistoryDb history = {};
        char path[4096];
        int r;

        /* It may not be there yet: when it was to be made, the disk was full. */
        r = open_file(dir, &history);
        if (r < 0)
                memcpy(db->error, history.db.error, sizeof db->error);
        db_close(&history.db);
        (void) snprintf(path, sizeof path, "%s/history.db", dir);
        if (r >= 0)
                r = db_run(db, "ATTACH ? AS new", "s", path);
        if (r < 0)
                return r;
        /* The summary is what job_summary() makes. */
        r = db_execute(
                db,
                "INSERT OR IGNORE INTO new.job (job, half, vm, name, result, created_usec, ended_usec, summary, report)"
                " SELECT job, half, ifnull(json ->> 'vm', ''), ifnull(json ->> 'name', ''),"
                " ifnull(json ->> 'result', ''), ifnull(json ->> 'created_usec', 0), ended_usec,"
                " json_object('job', json -> 'job', 'vm', json -> 'vm', 'name', json -> 'name', 'half',"
                " json -> 'half', 'peer', json -> 'peer', 'state', json -> 'state', 'result', json -> 'result',"
                " 'phase', json -> 'phase', 'owner', json -> 'owner', 'created_usec', json -> 'created_usec',"
                " 'ended_usec', json -> 'ended_usec', 'blackout_usec', json -> 'blackout_usec'), json"
                " FROM main.history WHERE json_valid(json) ORDER BY ended_usec");
        if (r >= 0)
                r = db_execute(db, "DETACH new");
        else
                (void) sqlite3_exec(db->db, "DETACH new", NULL, NULL, NULL);
        return r;
}
