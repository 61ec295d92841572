/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The database on a disk of the test's own: SQLite lets its system calls be replaced, so the disk can be full, or full
 * until the reserve is given free, or read-only, whoever runs the test. */

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/syscall.h>

#include "common/file.h"
#include "common/log.h"
#include "daemon/store/history.h"
#include "daemon/store/sql.h"
#include "scratch.h"

#define VM "0badcafe-0000-4000-8000-000000000001"

/* ---- the disk -------------------------------------------------------------------------------------------------- */

static struct {
        bool full, read_only;
        int fail_reads;            /* so many */
        int syncs;                 /* so many were asked for */
        char full_until_gone[512]; /* a file; there is room when it is not there */
} disk;

static bool disk_is_full(void)
{
        return disk.full || (disk.full_until_gone[0] && access(disk.full_until_gone, F_OK) == 0);
}

static ssize_t on_write(int fd, const void *data, size_t size)
{
        if (disk_is_full()) {
                errno = ENOSPC;
                return -1;
        }
        return write(fd, data, size);
}

static ssize_t on_pwrite(int fd, const void *data, size_t size, off_t at)
{
        if (disk_is_full()) {
                errno = ENOSPC;
                return -1;
        }
        return pwrite(fd, data, size, at);
}

static ssize_t on_pread(int fd, void *data, size_t size, off_t at)
{
        if (disk.fail_reads > 0) {
                disk.fail_reads--;
                errno = EIO;
                return -1;
        }
        return pread(fd, data, size, at);
}

static int on_open(const char *path, int flags, int mode)
{
        if (disk.read_only && (flags & O_ACCMODE) != O_RDONLY) {
                errno = EACCES;
                return -1;
        }
        return open(path, flags | O_CLOEXEC, mode);
}

/* Not among the calls that SQLite lets be replaced, so these are found in the place of the C library's. */
__attribute__((visibility("default"))) int fsync(int fd)
{
        disk.syncs++;
        return (int) syscall(SYS_fsync, fd);
}

__attribute__((visibility("default"))) int fdatasync(int fd)
{
        disk.syncs++;
        return (int) syscall(SYS_fdatasync, fd);
}

/* SQLite tells of each database that is opened: here is that of records. */
static sqlite3 *opened;

static int on_opened(sqlite3 *db, const char **ret_error, const struct sqlite3_api_routines *routines)
{
        const char *path = sqlite3_db_filename(db, "main");

        if (path && strstr(path, "/migmgr.db"))
                opened = db;
        return SQLITE_OK;
}

static void silent(LogLevel level, const LogAbout *about, const char *text)
{
}

static int set_up_disk(void **state)
{
        sqlite3_vfs *vfs = sqlite3_vfs_find("unix");

        log_set_sink(silent);
        if (!vfs || sqlite3_auto_extension((void (*)(void)) on_opened) != SQLITE_OK)
                return -1;
        (void) vfs->xSetSystemCall(vfs, "open", (sqlite3_syscall_ptr) on_open);
        (void) vfs->xSetSystemCall(vfs, "pread", (sqlite3_syscall_ptr) on_pread);
        (void) vfs->xSetSystemCall(vfs, "pread64", (sqlite3_syscall_ptr) on_pread);
        (void) vfs->xSetSystemCall(vfs, "write", (sqlite3_syscall_ptr) on_write);
        (void) vfs->xSetSystemCall(vfs, "pwrite", (sqlite3_syscall_ptr) on_pwrite);
        (void) vfs->xSetSystemCall(vfs, "pwrite64", (sqlite3_syscall_ptr) on_pwrite);
        return 0;
}

/* ---- the rig --------------------------------------------------------------------------------------------------- */

typedef struct Rig {
        Scratch scratch;
        Sql *sql;
        HistoryDb *history;
        uint32_t n; /* of what was read last */
        Record records[64];
        char *policy; /* of the last one; owned */
        char text[64][256];
        Presence presence;
        int stop_at; /* callbacks end reading after so many */
} Rig;

static void rig_open(Rig *rig)
{
        if (!rig->history)
                assert_int_equal(history_open(rig->scratch.dir, &rig->history), 0);
        assert_int_equal(sql_open(rig->scratch.dir, &rig->sql), 0);
}

static void rig_init(Rig *rig)
{
        *rig = (Rig){};
        memset(&disk, 0, sizeof disk);
        scratch_init(&rig->scratch);
        rig_open(rig);
}

static void rig_deinit(Rig *rig)
{
        rig->sql = sql_close(rig->sql);
        rig->history = history_close(rig->history);
        free(rig->policy);
        memset(&disk, 0, sizeof disk);
        scratch_deinit(&rig->scratch);
}

static void rig_reopen(Rig *rig)
{
        rig->sql = sql_close(rig->sql);
        rig_open(rig);
}

static Record make(int job, Side side, Owner owner)
{
        Record record = {.side = side, .owner = owner, .policy = "", .created_usec = 1000 + (uint64_t) job};

        (void) snprintf(record.job, sizeof record.job, "%08x-0000-4000-8000-000000000000", (unsigned) job);
        memcpy(record.vm, VM, sizeof VM);
        return record;
}

static int put(Rig *rig, int job, Side side, Owner owner, bool noway)
{
        Record record = make(job, side, owner);

        record.noway = noway;
        return sql_put_record(rig->sql, &record, PRESENCE_INVALID);
}

static int on_record(void *userdata, const Record *record)
{
        Rig *rig = userdata;

        rig->records[rig->n++] = *record;
        free(rig->policy);
        rig->policy = strdup(record->policy);
        return rig->stop_at && (int) rig->n == rig->stop_at ? -ECANCELED : 0;
}

static int on_vm(void *userdata, const char *definition, Presence presence)
{
        Rig *rig = userdata;

        (void) snprintf(rig->text[rig->n++], sizeof rig->text[0], "%s", definition);
        rig->presence = presence;
        return rig->stop_at && (int) rig->n == rig->stop_at ? -ECANCELED : 0;
}

static int rig_read(Rig *rig)
{
        rig->n = 0;
        return sql_each_open_record(rig->sql, on_record, rig);
}

/* What the one open record of that job says; OWNER_UNRECORDED: there is none. */
static Owner owner_of(Rig *rig, int job)
{
        Record wanted = make(job, SIDE_SOURCE, OWNER_SOURCE);

        assert_int_equal(rig_read(rig), 0);
        for (uint32_t i = 0; i < rig->n; i++)
                if (streq(rig->records[i].job, wanted.job))
                        return rig->records[i].owner;
        return OWNER_UNRECORDED;
}

static Presence presence_of(Rig *rig)
{
        rig->n = 0;
        rig->presence = PRESENCE_INVALID;
        assert_int_equal(sql_each_vm(rig->sql, on_vm, rig), 0);
        return rig->presence;
}

/* ---- records --------------------------------------------------------------------------------------------------- */

/* Ways through the agreed list; at each stop everything that is not allowed next is tried, and must change nothing. */
static void test_a_record_goes_only_where_it_may(void **state)
{
        static const struct {
                Side side;
                Owner stops[5];
        } ways[] = {
                {SIDE_SOURCE, {OWNER_SOURCE, OWNER_NOBODY, OWNER_DONE}},
                {SIDE_SOURCE, {OWNER_SOURCE, OWNER_NOBODY, OWNER_ABORTED}},
                {SIDE_SOURCE, {OWNER_SOURCE, OWNER_ABORTED}},
                {SIDE_SOURCE, {OWNER_ABORTED}},
                {SIDE_DESTINATION, {OWNER_PREPARED, OWNER_DESTINATION, OWNER_DONE}},
                {SIDE_DESTINATION, {OWNER_PREPARED, OWNER_DESTINATION, OWNER_PROMISED, OWNER_DISCARDED}},
                {SIDE_DESTINATION, {OWNER_PREPARED, OWNER_PROMISED, OWNER_DESTINATION, OWNER_DONE}},
                {SIDE_DESTINATION, {OWNER_PREPARED, OWNER_DISCARDED}},
                {SIDE_DESTINATION, {OWNER_DISCARDED}},
        };
        Rig rig;

        rig_init(&rig);
        for (int w = 0; w < (int) ARRAY_SIZE(ways); w++)
                for (size_t i = 0, at = OWNER_UNRECORDED; at == 0 || ways[w].stops[i]; i++) {
                        for (Owner to = 0; to < OWNER_MAX; to++)
                                if (!owner_may_become(ways[w].side, (Owner) at, to, false)) {
                                        assert_int_equal(put(&rig, w, ways[w].side, to, false), -EPERM);
                                        assert_non_null(strstr(sql_error(rig.sql), "must not become"));
                                }
                        assert_int_equal(owner_of(&rig, w), at);
                        if (i == ARRAY_SIZE(ways[w].stops) || !ways[w].stops[i])
                                break;
                        at = ways[w].stops[i];
                        assert_int_equal(put(&rig, w, ways[w].side, (Owner) at, true), 0);
                        assert_int_equal(owner_of(&rig, w), at);
                }
        rig_deinit(&rig);
}

static void test_a_promise_is_broken_only_for_a_source_that_is_lost(void **state)
{
        Rig rig;

        rig_init(&rig);
        assert_int_equal(put(&rig, 1, SIDE_DESTINATION, OWNER_PREPARED, false), 0);
        assert_int_equal(put(&rig, 1, SIDE_DESTINATION, OWNER_PROMISED, false), 0);
        rig_reopen(&rig);
        assert_int_equal(put(&rig, 1, SIDE_DESTINATION, OWNER_DESTINATION, false), -EPERM);
        assert_int_equal(owner_of(&rig, 1), OWNER_PROMISED);
        assert_int_equal(put(&rig, 1, SIDE_DESTINATION, OWNER_DESTINATION, true), 0);
        rig_deinit(&rig);
}

/* Both halves of one job may be here: a move within one host. */
static void test_the_halves_of_a_job_are_two_records(void **state)
{
        Rig rig;

        rig_init(&rig);
        assert_int_equal(put(&rig, 1, SIDE_SOURCE, OWNER_SOURCE, false), 0);
        assert_int_equal(put(&rig, 1, SIDE_DESTINATION, OWNER_PREPARED, false), 0);
        assert_int_equal(put(&rig, 1, SIDE_SOURCE, OWNER_NOBODY, false), 0);
        assert_int_equal(rig_read(&rig), 0);
        assert_int_equal(rig.n, 2);
        for (uint32_t i = 0; i < 2; i++)
                assert_int_equal(rig.records[i].owner,
                                 rig.records[i].side == SIDE_SOURCE ? OWNER_NOBODY : OWNER_PREPARED);
        rig_deinit(&rig);
}

static void test_a_record_is_the_same_after_a_restart(void **state)
{
        Record r = make(7, SIDE_SOURCE, OWNER_SOURCE), *got;
        Rig rig;

        rig_init(&rig);
        memset(r.peer, 'p', sizeof r.peer - 1);
        r.policy = "{\"rules\":[{\"set\":{\"retry\":1}}]}";
        memset(r.reason, '\'', sizeof r.reason - 1);
        r.noway = true;
        r.vmm = (ProcessId){.pid = INT32_MAX, .start = INT64_MAX, .boot = VM};
        r.created_usec = INT64_MAX;
        r.ended_usec = INT64_MAX - 1;
        assert_int_equal(sql_put_record(rig.sql, &r, PRESENCE_INVALID), 0);
        rig_reopen(&rig);
        assert_int_equal(rig_read(&rig), 0);
        assert_int_equal(rig.n, 1);
        got = &rig.records[0];
        assert_string_equal(got->job, r.job);
        assert_string_equal(got->vm, r.vm);
        assert_string_equal(got->peer, r.peer);
        assert_string_equal(rig.policy, r.policy);
        assert_string_equal(got->reason, r.reason);
        assert_int_equal(got->side, SIDE_SOURCE);
        assert_int_equal(got->owner, OWNER_SOURCE);
        assert_true(got->noway && !got->peer_acked);
        assert_true(got->vmm.pid == r.vmm.pid && got->vmm.start == r.vmm.start);
        assert_string_equal(got->vmm.boot, VM);
        assert_true(got->created_usec == r.created_usec && got->ended_usec == r.ended_usec);
        rig_deinit(&rig);
}

static void test_what_was_acknowledged_stays_so_and_is_not_open(void **state)
{
        Rig rig;

        rig_init(&rig);
        assert_int_equal(put(&rig, 1, SIDE_SOURCE, OWNER_SOURCE, false), 0);
        assert_int_equal(put(&rig, 1, SIDE_SOURCE, OWNER_ABORTED, false), 0);
        assert_int_equal(put(&rig, 2, SIDE_SOURCE, OWNER_SOURCE, false), 0);
        assert_int_equal(sql_ack(rig.sql, make(1, 0, 0).job, SIDE_DESTINATION), 0); /* the other half's */
        assert_int_equal(owner_of(&rig, 1), OWNER_ABORTED);
        assert_int_equal(sql_ack(rig.sql, make(1, 0, 0).job, SIDE_SOURCE), 0);
        assert_int_equal(owner_of(&rig, 1), OWNER_UNRECORDED);
        assert_int_equal(put(&rig, 1, SIDE_SOURCE, OWNER_ABORTED, false), 0); /* said again, late */
        assert_int_equal(owner_of(&rig, 1), OWNER_UNRECORDED);
        assert_int_equal(owner_of(&rig, 2), OWNER_SOURCE);
        rig_deinit(&rig);
}

/* Whoever asks for syncs is turned away. */
static int allow_no_syncs(void *userdata, int action, const char *pragma, const char *value, const char *name,
                          const char *trigger)
{
        return action == SQLITE_PRAGMA && streq(pragma, "synchronous") && value && streq(value, "FULL")
                       ? SQLITE_DENY
                       : SQLITE_OK;
}

/* An acknowledgement is not synced; should it be impossible to go back from that, no record is said to be durable. */
static void test_no_record_is_written_unsynced(void **state)
{
        Rig rig;

        rig_init(&rig);
        assert_int_equal(put(&rig, 1, SIDE_SOURCE, OWNER_SOURCE, false), 0);
        disk.syncs = 0;
        assert_int_equal(put(&rig, 1, SIDE_SOURCE, OWNER_NOBODY, false), 0);
        assert_int_equal(disk.syncs, 1);
        assert_int_equal(sqlite3_set_authorizer(opened, allow_no_syncs, NULL), SQLITE_OK);
        (void) !sql_ack(rig.sql, make(2, 0, 0).job, SIDE_SOURCE);
        assert_int_equal(disk.syncs, 1);
        for (int i = 0; i < 2; i++) {
                assert_int_equal(put(&rig, 1, SIDE_SOURCE, OWNER_ABORTED, false), -EIO);
                assert_true(sql_error(rig.sql)[0] != 0);
                assert_int_equal(owner_of(&rig, 1), OWNER_NOBODY);
        }
        assert_int_equal(sqlite3_set_authorizer(opened, NULL, NULL), SQLITE_OK);
        assert_int_equal(put(&rig, 1, SIDE_SOURCE, OWNER_ABORTED, false), 0);
        assert_int_equal(disk.syncs, 2);
        rig_deinit(&rig);
}

/* ---- VMs --------------------------------------------------------------------------------------------------------- */

static void test_presence_changes_with_the_record_or_not_at_all(void **state)
{
        Record done = make(1, SIDE_SOURCE, OWNER_DONE);
        Rig rig;

        rig_init(&rig);
        assert_int_equal(sql_put_vm(rig.sql, VM, "{\"a\":1}", PRESENCE_HERE), 0);
        assert_int_equal(put(&rig, 1, SIDE_SOURCE, OWNER_SOURCE, false), 0);
        assert_int_equal(presence_of(&rig), PRESENCE_HERE);
        assert_int_equal(sql_put_record(rig.sql, &done, PRESENCE_AWAY), -EPERM);
        assert_int_equal(presence_of(&rig), PRESENCE_HERE);
        assert_int_equal(put(&rig, 1, SIDE_SOURCE, OWNER_NOBODY, false), 0);
        assert_int_equal(sql_put_record(rig.sql, &done, PRESENCE_AWAY), 0);
        rig_reopen(&rig);
        assert_int_equal(presence_of(&rig), PRESENCE_AWAY);
        assert_string_equal(rig.text[0], "{\"a\":1}");
        rig_deinit(&rig);
}

static void test_a_vm_is_replaced_and_forgotten(void **state)
{
        Rig rig;

        rig_init(&rig);
        assert_int_equal(sql_put_vm(rig.sql, VM, "one", PRESENCE_HERE), 0);
        assert_int_equal(sql_put_vm(rig.sql, VM, "two", PRESENCE_AWAY), 0);
        assert_int_equal(presence_of(&rig), PRESENCE_AWAY);
        assert_int_equal(rig.n, 1);
        assert_string_equal(rig.text[0], "two");
        assert_int_equal(sql_delete_vm(rig.sql, VM), 0);
        assert_int_equal(sql_delete_vm(rig.sql, VM), 0);
        assert_int_equal(presence_of(&rig), PRESENCE_INVALID);
        rig_deinit(&rig);
}

static int see_quarantine(void *userdata, const char *vm, const char *device, const char *reason)
{
        char *seen = userdata;
        size_t n = strlen(seen);

        assert_string_equal(vm, VM);
        (void) snprintf(seen + n, 256 - n, "%s=%s;", device, reason);
        return 0;
}

static void check_quarantine(Rig *rig, const char *expected)
{
        char seen[256] = "";

        assert_int_equal(sql_each_quarantine(rig->sql, see_quarantine, seen), 0);
        assert_string_equal(seen, expected);
}

static void test_a_quarantine_outlives_a_restart_and_ends_with_the_vm(void **state)
{
        Rig rig;

        rig_init(&rig);
        assert_int_equal(sql_put_vm(rig.sql, VM, "one", PRESENCE_HERE), 0);
        assert_int_equal(sql_put_quarantine(rig.sql, VM, "a", "late"), 0);
        assert_int_equal(sql_put_quarantine(rig.sql, VM, "a", "lies"), 0);
        assert_int_equal(sql_put_quarantine(rig.sql, VM, "b", "dead"), 0);
        rig_reopen(&rig);
        check_quarantine(&rig, "a=lies;b=dead;");
        assert_int_equal(sql_put_quarantine(rig.sql, VM, "a", ""), 0);
        assert_int_equal(sql_put_quarantine(rig.sql, VM, "a", ""), 0);
        check_quarantine(&rig, "b=dead;");
        assert_int_equal(sql_delete_vm(rig.sql, VM), 0);
        check_quarantine(&rig, "");
        rig_deinit(&rig);
}

/* ---- tidying ----------------------------------------------------------------------------------------------------- */

static bool tidy(Rig *rig, uint32_t keep)
{
        bool quiet;

        assert_int_equal(sql_tidy(rig->sql, keep, &quiet), 0);
        return quiet;
}

static off_t size_of(Rig *rig, const char *name)
{
        struct stat st;

        assert_int_equal(stat(scratch_path(&rig->scratch, name), &st), 0);
        return st.st_size;
}

/* What it takes several syncs to tidy waits until no VM can stand still for it; but not for ever. */
static void test_nothing_is_tidied_while_a_vm_moves(void **state)
{
        Rig rig;
        off_t before;

        rig_init(&rig);
        assert_int_equal(put(&rig, 1, SIDE_DESTINATION, OWNER_PREPARED, false), 0);
        assert_int_equal(sql_put_vm(rig.sql, VM, "x", PRESENCE_HERE), 0);
        before = size_of(&rig, "migmgr.db");
        assert_false(tidy(&rig, 1));
        assert_int_equal(size_of(&rig, "migmgr.db"), before);
        for (int i = 0; i < 2000 && size_of(&rig, "migmgr.db") == before; i++) {
                char text[32768];

                memset(text, 'a' + i % 26, sizeof text - 1);
                text[sizeof text - 1] = 0;
                assert_int_equal(sql_put_vm(rig.sql, VM, text, PRESENCE_HERE), 0);
                assert_false(tidy(&rig, 1));
        }
        assert_true(size_of(&rig, "migmgr.db") > before);
        assert_int_equal(put(&rig, 1, SIDE_DESTINATION, OWNER_DISCARDED, false), 0);
        assert_true(tidy(&rig, 1));
        rig_deinit(&rig);
}

/* A record is dropped when both ends know how it ended, and only then: else it would be "can't tell" for ever. */
static void test_tidying_keeps_what_is_not_acknowledged(void **state)
{
        Rig rig;

        rig_init(&rig);
        for (int job = 0; job < 6; job++) {
                assert_int_equal(put(&rig, job, SIDE_SOURCE, OWNER_SOURCE, false), 0);
                assert_int_equal(put(&rig, job, SIDE_SOURCE, OWNER_ABORTED, false), 0);
                if (job % 2)
                        assert_int_equal(sql_ack(rig.sql, make(job, 0, 0).job, SIDE_SOURCE), 0);
        }
        assert_true(tidy(&rig, 1));
        for (int job = 0; job < 6; job += 2)
                assert_int_equal(owner_of(&rig, job), OWNER_ABORTED);
        /* Of the acknowledged ones the newest is kept, and still knows that it has ended; the others begin anew. */
        assert_int_equal(put(&rig, 5, SIDE_SOURCE, OWNER_SOURCE, false), -EPERM);
        assert_int_equal(put(&rig, 3, SIDE_SOURCE, OWNER_SOURCE, false), 0);
        rig_deinit(&rig);
}

static void test_a_reader_that_has_had_enough_ends_it(void **state)
{
        Rig rig;

        rig_init(&rig);
        for (int job = 0; job < 3; job++) {
                assert_int_equal(put(&rig, job, SIDE_SOURCE, OWNER_SOURCE, false), 0);
                assert_int_equal(sql_put_vm(rig.sql, make(job, 0, 0).job, "x", PRESENCE_HERE), 0);
        }
        rig.stop_at = 2;
        assert_int_equal(rig_read(&rig), -ECANCELED);
        assert_int_equal(rig.n, 2);
        rig.n = 0;
        assert_int_equal(sql_each_vm(rig.sql, on_vm, &rig), -ECANCELED);
        assert_int_equal(rig.n, 2);
        rig_deinit(&rig);
}

static void test_the_host_has_one_name_for_ever(void **state)
{
        char first[UUID_TEXT_MAX + 1], again[UUID_TEXT_MAX + 1];
        Rig rig;

        rig_init(&rig);
        assert_int_equal(sql_host_id(rig.sql, first), 0);
        assert_true(uuid_is_valid(first));
        rig_reopen(&rig);
        assert_int_equal(sql_host_id(rig.sql, again), 0);
        assert_string_equal(again, first);
        rig_deinit(&rig);
}

/* A read that fails once must not end in a new name under which no peer knows this host. */
static void test_a_name_that_cannot_be_read_is_not_replaced(void **state)
{
        char first[UUID_TEXT_MAX + 1], again[UUID_TEXT_MAX + 1];
        int failed = 0;
        Rig rig;

        rig_init(&rig);
        assert_int_equal(sql_host_id(rig.sql, first), 0);
        for (int n = 1; n < 4; n++) {
                rig_reopen(&rig);
                disk.fail_reads = n;
                failed += sql_host_id(rig.sql, again) < 0;
                disk.fail_reads = 0;
                rig_reopen(&rig);
                assert_int_equal(sql_host_id(rig.sql, again), 0);
                assert_string_equal(again, first);
        }
        assert_true(failed > 0);
        rig_deinit(&rig);
}

/* ---- bad disks ----------------------------------------------------------------------------------------------------- */

static void test_on_a_full_disk_a_record_takes_the_reserve(void **state)
{
        Rig rig;

        rig_init(&rig);
        assert_int_equal(put(&rig, 1, SIDE_SOURCE, OWNER_SOURCE, false), 0);
        (void) snprintf(disk.full_until_gone, sizeof disk.full_until_gone, "%s",
                        scratch_path(&rig.scratch, "reserve"));
        assert_int_equal(access(disk.full_until_gone, F_OK), 0);
        assert_int_equal(put(&rig, 1, SIDE_SOURCE, OWNER_NOBODY, false), 0);
        assert_int_not_equal(access(disk.full_until_gone, F_OK), 0);
        assert_int_equal(owner_of(&rig, 1), OWNER_NOBODY);
        disk.full_until_gone[0] = 0;
        assert_int_equal(put(&rig, 1, SIDE_SOURCE, OWNER_DONE, false), 0);
        assert_true(tidy(&rig, 10)); /* there is room again: it is made anew */
        assert_int_equal(access(scratch_path(&rig.scratch, "reserve"), F_OK), 0);
        rig_reopen(&rig);
        assert_int_equal(owner_of(&rig, 1), OWNER_DONE);
        rig_deinit(&rig);
}

static void test_without_any_room_nothing_is_written_and_nothing_lost(void **state)
{
        Rig rig;

        rig_init(&rig);
        assert_int_equal(sql_put_vm(rig.sql, VM, "x", PRESENCE_HERE), 0);
        assert_int_equal(put(&rig, 1, SIDE_SOURCE, OWNER_SOURCE, false), 0);
        disk.full = true;
        for (int i = 0; i < 3; i++) {
                assert_int_equal(put(&rig, 1, SIDE_SOURCE, OWNER_NOBODY, false), -ENOSPC);
                assert_true(sql_error(rig.sql)[0] != 0);
        }
        assert_int_equal(sql_delete_vm(rig.sql, VM), -ENOSPC);
        assert_int_equal(owner_of(&rig, 1), OWNER_SOURCE);
        assert_int_equal(put(&rig, 1, SIDE_SOURCE, OWNER_DONE, false), -EPERM); /* it is still asked first */
        disk.full = false;
        assert_int_equal(put(&rig, 1, SIDE_SOURCE, OWNER_NOBODY, false), 0);
        rig_reopen(&rig);
        assert_int_equal(owner_of(&rig, 1), OWNER_NOBODY);
        assert_int_equal(presence_of(&rig), PRESENCE_HERE);
        rig_deinit(&rig);
}

/* What a daemon that was killed leaves: records in the log, and no room to bring them into the database. */
static void test_on_a_full_disk_the_records_are_there_at_start(void **state)
{
        char reserve[512];

        for (int room = 0; room < 2; room++) {
                Rig rig;

                rig_init(&rig);
                (void) snprintf(reserve, sizeof reserve, "%s", scratch_path(&rig.scratch, "reserve"));
                assert_int_equal(put(&rig, 1, SIDE_SOURCE, OWNER_SOURCE, false), 0);
                assert_int_equal(put(&rig, 1, SIDE_SOURCE, OWNER_NOBODY, false), 0);
                assert_int_equal(sqlite3_db_config(opened, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL),
                                 SQLITE_OK);
                rig.sql = sql_close(rig.sql);
                rig.history = history_close(rig.history);
                assert_int_equal(access(scratch_path(&rig.scratch, "migmgr.db-shm"), F_OK), -1);
                disk.full = room == 0;
                memcpy(disk.full_until_gone, reserve, sizeof reserve);
                rig_open(&rig);
                assert_int_equal(owner_of(&rig, 1), OWNER_NOBODY);
                disk.full_until_gone[0] = 0;
                assert_int_equal(put(&rig, 1, SIDE_SOURCE, OWNER_ABORTED, false), room ? 0 : -ENOSPC);
                rig_deinit(&rig);
        }
}

static void test_on_a_full_disk_history_is_kept_in_memory(void **state)
{
        _cleanup_(freep) char *list = NULL, *later = NULL;
        StoreJob job = {
                .job = "a", .vm = "", .name = "", .result = "", .summary = "{\"n\":1}", .report = "{}"};
        Rig rig;

        rig_init(&rig);
        rig.history = history_close(rig.history);
        disk.full = true;
        assert_int_equal(history_open(rig.scratch.dir, &rig.history), 0);
        assert_int_equal(history_put_job(rig.history, &job), 0);
        assert_int_equal(history_prune(rig.history, &(StoreLimits){.jobs = 10}, 0), 0);
        assert_int_equal(history_checkpoint(rig.history, true), 0);
        assert_int_equal(history_list(rig.history, &(StoreFilter){}, &list), 0);
        assert_string_equal(list, "[{\"n\":1}]");
        disk.full = false;
        rig.history = history_close(rig.history);
        assert_int_equal(history_open(rig.scratch.dir, &rig.history), 0);
        assert_int_equal(history_list(rig.history, &(StoreFilter){}, &later), 0);
        assert_string_equal(later, "[]");
        rig_deinit(&rig);
}

static void test_a_disk_that_cannot_be_written_is_said_at_start(void **state)
{
        Rig rig;

        rig_init(&rig);
        assert_int_equal(put(&rig, 1, SIDE_SOURCE, OWNER_SOURCE, false), 0);
        rig.sql = sql_close(rig.sql);
        disk.read_only = true;
        assert_int_equal(sql_open(rig.scratch.dir, &rig.sql), -EROFS);
        assert_null(rig.sql);
        disk.read_only = false;
        rig_open(&rig);
        assert_int_equal(owner_of(&rig, 1), OWNER_SOURCE);
        rig_deinit(&rig);
}

static void test_a_file_that_is_no_database_is_said_to_be_damaged(void **state)
{
        char garbage[8192];
        Rig rig;

        memset(garbage, 0xa5, sizeof garbage);
        rig_init(&rig);
        rig.sql = sql_close(rig.sql);
        scratch_write(&rig.scratch, "migmgr.db", garbage, sizeof garbage);
        assert_int_equal(sql_open(rig.scratch.dir, &rig.sql), -EUCLEAN);
        assert_null(rig.sql);
        rig_deinit(&rig);
}

/* Wherever the damage is: it is said, or what is read is right. Never a record that is silently gone. */
static void test_a_damaged_page_is_never_read_as_something_else(void **state)
{
        for (int i = 0; i < 16; i++) {
                char garbage[4096];
                Rig rig;
                FILE *file;

                memset(garbage, i % 2 ? 0xff : 0, sizeof garbage);
                rig_init(&rig);
                assert_int_equal(put(&rig, 1, SIDE_SOURCE, OWNER_ABORTED, false), 0);
                assert_true(tidy(&rig, 1));
                rig.sql = sql_close(rig.sql);
                file = fopen(scratch_path(&rig.scratch, "migmgr.db"), "r+e");
                assert_non_null(file);
                assert_int_equal(fseek(file, i / 2 * 4096L, SEEK_SET), 0);
                assert_int_equal(fwrite(garbage, sizeof garbage, 1, file), 1);
                assert_int_equal(fclose(file), 0);
                if (sql_open(rig.scratch.dir, &rig.sql) == 0) {
                        int r = rig_read(&rig);

                        assert_int_equal(r, r < 0 ? -EUCLEAN : 0);
                        if (r == 0)
                                assert_int_equal(rig.n, 1);
                }
                rig_deinit(&rig);
        }
}

static void test_a_second_daemon_on_the_same_records_is_turned_away(void **state)
{
        Sql *second = NULL;
        Rig rig;

        rig_init(&rig);
        assert_int_equal(sql_open(rig.scratch.dir, &second), -EBUSY);
        assert_null(second);
        assert_int_equal(put(&rig, 1, SIDE_SOURCE, OWNER_SOURCE, false), 0);
        rig_deinit(&rig);
}

static void test_a_database_of_a_newer_migmgr_is_left_alone(void **state)
{
        sqlite3 *db;
        Rig rig;

        rig_init(&rig);
        assert_int_equal(put(&rig, 1, SIDE_SOURCE, OWNER_SOURCE, false), 0);
        for (int newer = 1; newer >= 0; newer--) {
                rig.sql = sql_close(rig.sql);
                assert_int_equal(sqlite3_open(scratch_path(&rig.scratch, "migmgr.db"), &db), SQLITE_OK);
                assert_int_equal(sqlite3_exec(db,
                                              newer ? "PRAGMA user_version = 6" : "PRAGMA user_version = 5",
                                              NULL, NULL, NULL),
                                 SQLITE_OK);
                assert_int_equal(sqlite3_close(db), SQLITE_OK);
                assert_int_equal(sql_open(rig.scratch.dir, &rig.sql), newer ? -EPROTONOSUPPORT : 0);
        }
        assert_int_equal(owner_of(&rig, 1), OWNER_SOURCE);
        rig_deinit(&rig);
}

/* It would be the number of the first step that is due. */
static void test_a_version_that_cannot_be_is_damage(void **state)
{
        static const char *const pragmas[] = {"PRAGMA user_version = -1",
                                              "PRAGMA user_version = -2147483648"};
        sqlite3 *db;
        Rig rig;

        rig_init(&rig);
        rig.sql = sql_close(rig.sql);
        for (size_t i = 0; i < ARRAY_SIZE(pragmas); i++) {
                assert_int_equal(sqlite3_open(scratch_path(&rig.scratch, "migmgr.db"), &db), SQLITE_OK);
                assert_int_equal(sqlite3_exec(db, pragmas[i], NULL, NULL, NULL), SQLITE_OK);
                assert_int_equal(sqlite3_close(db), SQLITE_OK);
                assert_int_equal(sql_open(rig.scratch.dir, &rig.sql), -EUCLEAN);
        }
        rig_deinit(&rig);
}

/* A VM's last job, which nobody asks about any more, says that an open one was before it, however long that stays open. */
static void test_an_open_record_knows_of_a_newer_job(void **state)
{
        Rig rig;

        rig_init(&rig);
        assert_int_equal(sql_put_vm(rig.sql, VM, "{}", PRESENCE_HERE), 0);
        assert_int_equal(put(&rig, 1, SIDE_SOURCE, OWNER_SOURCE, false), 0);
        assert_int_equal(rig_read(&rig), 0);
        assert_false(rig.records[0].has_newer);
        assert_int_equal(put(&rig, 2, SIDE_SOURCE, OWNER_SOURCE, false), 0);
        assert_int_equal(rig_read(&rig), 0);
        assert_true(rig.records[0].has_newer);
        assert_false(rig.records[1].has_newer);
        assert_int_equal(rig.records[1].presence, PRESENCE_HERE);
        assert_int_equal(put(&rig, 2, SIDE_SOURCE, OWNER_ABORTED, false), 0);
        assert_int_equal(sql_ack(rig.sql, make(2, 0, 0).job, SIDE_SOURCE), 0);
        assert_int_equal(put(&rig, 1, SIDE_SOURCE, OWNER_ABORTED, false), 0);
        tidy(&rig, 0);
        rig_reopen(&rig);
        assert_int_equal(rig_read(&rig), 0);
        assert_int_equal(rig.n, 1);
        assert_true(rig.records[0].has_newer);
        assert_int_equal(sql_delete_vm(rig.sql, VM), 0);
        assert_int_equal(rig_read(&rig), 0);
        assert_int_equal(rig.records[0].presence, PRESENCE_INVALID);
        rig_deinit(&rig);
}

/* A clock that was set back between two jobs: the VM's newest is the one that was begun last. */
static void test_which_job_is_newer_no_clock_says(void **state)
{
        Rig rig;

        rig_init(&rig);
        assert_int_equal(put(&rig, 9, SIDE_SOURCE, OWNER_SOURCE, false), 0);
        assert_int_equal(put(&rig, 9, SIDE_SOURCE, OWNER_ABORTED, false), 0);
        assert_int_equal(put(&rig, 3, SIDE_SOURCE, OWNER_SOURCE, false), 0);
        assert_int_equal(put(&rig, 9, SIDE_SOURCE, OWNER_ABORTED, false), 0); /* said again */
        rig_reopen(&rig);
        assert_int_equal(rig_read(&rig), 0);
        assert_int_equal(rig.n, 2);
        assert_string_equal(rig.records[0].job, make(9, 0, 0).job);
        assert_true(rig.records[0].has_newer);
        assert_false(rig.records[1].has_newer);
        assert_int_equal(put(&rig, 3, SIDE_SOURCE, OWNER_ABORTED, false), 0);
        assert_int_equal(sql_ack(rig.sql, make(3, 0, 0).job, SIDE_SOURCE), 0);
        tidy(&rig, 0);
        assert_int_equal(rig_read(&rig), 0);
        assert_int_equal(rig.n, 1);
        assert_true(rig.records[0].has_newer);
        /* ... and the ones that are kept are those that were begun last. */
        for (int job = 8; job > 4; job--) {
                assert_int_equal(put(&rig, job, SIDE_DESTINATION, OWNER_PREPARED, false), 0);
                assert_int_equal(put(&rig, job, SIDE_DESTINATION, OWNER_DISCARDED, false), 0);
                assert_int_equal(sql_ack(rig.sql, make(job, 0, 0).job, SIDE_DESTINATION), 0);
        }
        tidy(&rig, 1);
        assert_int_equal(put(&rig, 8, SIDE_DESTINATION, OWNER_PREPARED, false), 0);
        assert_int_equal(put(&rig, 5, SIDE_DESTINATION, OWNER_PREPARED, false), -EPERM);
        rig_deinit(&rig);
}

/* A job whose first record could not be written before it was over, and the VM free for the next. */
static void test_a_record_that_came_too_late_is_no_newer(void **state)
{
        Rig rig;

        rig_init(&rig);
        assert_int_equal(put(&rig, 3, SIDE_SOURCE, OWNER_SOURCE, false), 0);
        assert_int_equal(put(&rig, 2, SIDE_SOURCE, OWNER_ABORTED, false), 0);
        assert_int_equal(put(&rig, 2, SIDE_SOURCE, OWNER_ABORTED, false), 0);
        assert_int_equal(rig_read(&rig), 0);
        assert_int_equal(rig.n, 2);
        for (uint32_t i = 0; i < 2; i++)
                assert_int_equal(rig.records[i].has_newer, rig.records[i].owner == OWNER_ABORTED);
        rig_deinit(&rig);
}

/* ---- older schemas ----------------------------------------------------------------------------------------------- */

/* A database that a migmgrd of the time wrote; `also` is done to it. */
static void rig_init_old(Rig *rig, const char *name, const char *also)
{
        _cleanup_(freep) char *text = NULL;
        char path[512];
        sqlite3 *db;
        size_t size;

        rig_init(rig);
        rig->sql = sql_close(rig->sql);
        rig->history = history_close(rig->history);
        assert_int_equal(unlink(scratch_path(&rig->scratch, "migmgr.db")), 0);
        assert_int_equal(unlink(scratch_path(&rig->scratch, "history.db")), 0);
        (void) snprintf(path, sizeof path, TEST_DATA_DIR "/%s", name);
        assert_int_equal(file_read(path, MIB, &text, &size), 0);
        assert_int_equal(sqlite3_open(scratch_path(&rig->scratch, "migmgr.db"), &db), SQLITE_OK);
        assert_int_equal(sqlite3_exec(db, text, NULL, NULL, NULL), SQLITE_OK);
        assert_int_equal(sqlite3_exec(db, also, NULL, NULL, NULL), SQLITE_OK);
        assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void check_upgraded(Rig *rig)
{
        _cleanup_(freep) char *list = NULL, *report = NULL, *steps = NULL;
        char host[UUID_TEXT_MAX + 1];

        assert_int_equal(rig_read(rig), 0);
        assert_int_equal(rig->n, 1);
        assert_int_equal(rig->records[0].owner, OWNER_NOBODY);
        assert_int_equal(rig->records[0].vmm.pid, 4711);
        assert_int_equal(presence_of(rig), PRESENCE_HERE);
        assert_int_equal(sql_host_id(rig->sql, host), 0);
        assert_string_equal(host, "ea6c70d4-333b-4556-9a08-6b2934c8b209");
        assert_int_equal(history_list(rig->history, &(StoreFilter){.vm = "web1", .result = "done"}, &list),
                         0);
        assert_non_null(strstr(list, "\"job\":\"c8128790-89ac-434a-97e8-aadc1e5be12f\""));
        assert_non_null(strstr(list, "\"blackout_usec\":48164"));
        assert_null(strstr(list, "7dd28d73-8ca0-4618-bc93-d9aea3515919")); /* that one failed */
        assert_int_equal(history_find(rig->history, "7dd28d73-8ca0-4618-bc93-d9aea3515919", &report, &steps),
                         0);
        assert_non_null(strstr(report, "\"result\":\"failed\""));
        assert_string_equal(steps, "[]");
}

/* Version 0 is the same one, of a daemon that died between the tables and the version. */
static void test_the_first_schema_becomes_this_one(void **state)
{
        for (int version = 0; version < 2; version++) {
                Rig rig;

                rig_init_old(&rig, "records-1.sql",
                             version ? "PRAGMA user_version = 1" : "PRAGMA user_version = 0");
                rig_open(&rig);
                check_upgraded(&rig);
                rig_reopen(&rig);
                check_upgraded(&rig);
                rig_deinit(&rig);
        }
}

/* A record had the plan's hash where it has the job's policy now. */
static void test_the_second_schema_becomes_this_one(void **state)
{
        Rig rig;

        rig_init_old(&rig, "records-2.sql", "");
        for (int i = 0; i < 2; i++) {
                rig_reopen(&rig);
                assert_int_equal(rig_read(&rig), 0);
                assert_int_equal(rig.n, 1);
                assert_string_equal(rig.records[0].job, "c7b1c316-4835-4208-b2ab-8cfb3f51705d");
                assert_int_equal(rig.records[0].owner, OWNER_ABORTED);
                assert_int_equal(rig.records[0].vmm.pid, 26708);
                assert_string_equal(rig.policy, "");
                assert_int_equal(presence_of(&rig), PRESENCE_HERE);
        }
        rig_deinit(&rig);
}

/* It knew no quarantine. */
static void test_the_third_schema_becomes_this_one(void **state)
{
        static const char vm[] = "5f6d7a52-5d4e-4a39-9a3c-0c1f6b3f1c11";
        char seen[256] = "";
        Rig rig;

        rig_init_old(&rig, "records-3.sql", "");
        rig_open(&rig);
        assert_int_equal(rig_read(&rig), 0);
        assert_int_equal(rig.n, 0);
        assert_int_equal(presence_of(&rig), PRESENCE_HERE);
        assert_int_equal(sql_each_quarantine(rig.sql, see_quarantine, seen), 0);
        assert_string_equal(seen, "");
        assert_int_equal(sql_put_quarantine(rig.sql, vm, "nic", "late"), 0);
        assert_int_equal(sql_delete_vm(rig.sql, vm), 0);
        rig_deinit(&rig);
}

/* Of a text that a damaged database makes long no more is read than shows that it is too long. */
static void test_a_records_policy_is_bounded_when_it_is_read(void **state)
{
        _cleanup_(freep) char *text = calloc(1, 2 * RECORD_POLICY_MAX);
        Record r = make(1, SIDE_SOURCE, OWNER_SOURCE);
        Rig rig;

        assert_non_null(text);
        memset(text, 'x', 2 * RECORD_POLICY_MAX - 1);
        r.policy = text;
        rig_init(&rig);
        assert_int_equal(sql_put_record(rig.sql, &r, PRESENCE_INVALID), 0);
        assert_int_equal(rig_read(&rig), 0);
        assert_int_equal(strlen(rig.policy), RECORD_POLICY_MAX + 1);
        rig_deinit(&rig);
}

static void test_an_upgrade_that_was_cut_off_is_made_again(void **state)
{
        Rig rig;

        rig_init_old(&rig, "records-1.sql", "");
        assert_int_equal(history_open(rig.scratch.dir, &rig.history), 0);
        /* What has gone over is there twice for a moment. */
        assert_int_equal(
                history_put_job(rig.history,
                                &(StoreJob){.job = "c8128790-89ac-434a-97e8-aadc1e5be12f",
                                            .vm = "",
                                            .name = "web1",
                                            .result = "done",
                                            .ended_usec = 1,
                                            .summary = "{\"job\":\"c8128790-89ac-434a-97e8-aadc1e5be12f\","
                                                       "\"blackout_usec\":48164}",
                                            .report = "{}"}),
                0);
        disk.full = true;
        assert_int_equal(sql_open(rig.scratch.dir, &rig.sql), -ENOSPC);
        disk.full = false;
        rig_open(&rig);
        check_upgraded(&rig);
        rig_deinit(&rig);
}

/* Of each old schema: VMs and records are read without room for the new form, and nothing is written; with room, be it the
 * reserve's, all goes on. A file that a migmgrd wrote has a log. */
static void test_on_a_full_disk_an_older_schema_is_read(void **state)
{
        static const struct {
                const char *file, *also;
                Owner owner;
        } olds[] = {
                {"records-1.sql", "PRAGMA user_version = 0; PRAGMA journal_mode = WAL", OWNER_NOBODY},
                {"records-1.sql", "PRAGMA journal_mode = WAL", OWNER_NOBODY},
                {"records-2.sql", "PRAGMA journal_mode = WAL", OWNER_ABORTED},
                {"records-3.sql",
                 "PRAGMA journal_mode = WAL; INSERT INTO record SELECT 'c0000000-0000-4000-8000-000000000001', half, vm, peer,"
                 " policy, 'prepared', noway, vmm_pid, vmm_start, boot_id, created_usec, 0, 0, reason FROM record",
                 OWNER_PREPARED},
        };

        for (int i = 0; i < 2 * (int) ARRAY_SIZE(olds); i++) {
                bool reserve = i % 2;
                char host[UUID_TEXT_MAX + 1], again[UUID_TEXT_MAX + 1];
                Record wanted;
                Rig rig;

                rig_init_old(&rig, olds[i / 2].file, olds[i / 2].also);
                disk.full = !reserve;
                if (reserve)
                        (void) snprintf(disk.full_until_gone, sizeof disk.full_until_gone, "%s",
                                        scratch_path(&rig.scratch, "reserve"));
                rig_open(&rig);
                assert_int_equal(sql_host_id(rig.sql, host), 0);
                assert_int_equal(rig_read(&rig), 0);
                assert_int_equal(rig.n, 1);
                assert_int_equal(rig.records[0].owner, olds[i / 2].owner);
                assert_int_equal(presence_of(&rig), PRESENCE_HERE);
                assert_int_equal(put(&rig, 1, SIDE_SOURCE, OWNER_SOURCE, false), reserve ? 0 : -ENOSPC);
                if (!reserve) {
                        assert_non_null(strstr(sql_error(rig.sql), "older migmgr"));
                        assert_non_null(strstr(sql_error(rig.sql), "full"));
                        assert_int_equal(owner_of(&rig, 1), OWNER_UNRECORDED);
                }
                disk.full = false;
                assert_int_equal(put(&rig, 1, SIDE_SOURCE, OWNER_SOURCE, false), 0);
                rig.history = history_close(rig.history);
                rig_reopen(&rig);
                assert_int_equal(sql_host_id(rig.sql, again), 0);
                assert_string_equal(again, host);
                assert_int_equal(owner_of(&rig, 1), OWNER_SOURCE);
                wanted = make(1, 0, 0);
                assert_int_equal(sql_ack(rig.sql, wanted.job, SIDE_SOURCE), 0);
                if (i / 2 < 2)
                        check_upgraded(&rig);
                rig_deinit(&rig);
        }
}

/* A name that is made up in memory would be forgotten, and peers would know this host by it. */
static void test_a_name_is_not_made_up_on_a_full_disk(void **state)
{
        char host[UUID_TEXT_MAX + 1];
        Rig rig;

        rig_init_old(&rig, "records-1.sql", "DELETE FROM meta; PRAGMA journal_mode = WAL");
        disk.full = true;
        rig_open(&rig);
        assert_int_equal(sql_host_id(rig.sql, host), -ENOSPC);
        rig_deinit(&rig);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_record_goes_only_where_it_may),
                cmocka_unit_test(test_a_promise_is_broken_only_for_a_source_that_is_lost),
                cmocka_unit_test(test_the_halves_of_a_job_are_two_records),
                cmocka_unit_test(test_a_record_is_the_same_after_a_restart),
                cmocka_unit_test(test_what_was_acknowledged_stays_so_and_is_not_open),
                cmocka_unit_test(test_no_record_is_written_unsynced),
                cmocka_unit_test(test_presence_changes_with_the_record_or_not_at_all),
                cmocka_unit_test(test_a_vm_is_replaced_and_forgotten),
                cmocka_unit_test(test_a_quarantine_outlives_a_restart_and_ends_with_the_vm),
                cmocka_unit_test(test_nothing_is_tidied_while_a_vm_moves),
                cmocka_unit_test(test_tidying_keeps_what_is_not_acknowledged),
                cmocka_unit_test(test_a_reader_that_has_had_enough_ends_it),
                cmocka_unit_test(test_the_host_has_one_name_for_ever),
                cmocka_unit_test(test_a_name_that_cannot_be_read_is_not_replaced),
                cmocka_unit_test(test_on_a_full_disk_a_record_takes_the_reserve),
                cmocka_unit_test(test_without_any_room_nothing_is_written_and_nothing_lost),
                cmocka_unit_test(test_on_a_full_disk_the_records_are_there_at_start),
                cmocka_unit_test(test_on_a_full_disk_history_is_kept_in_memory),
                cmocka_unit_test(test_a_disk_that_cannot_be_written_is_said_at_start),
                cmocka_unit_test(test_a_file_that_is_no_database_is_said_to_be_damaged),
                cmocka_unit_test(test_a_damaged_page_is_never_read_as_something_else),
                cmocka_unit_test(test_a_second_daemon_on_the_same_records_is_turned_away),
                cmocka_unit_test(test_a_database_of_a_newer_migmgr_is_left_alone),
                cmocka_unit_test(test_a_version_that_cannot_be_is_damage),
                cmocka_unit_test(test_an_open_record_knows_of_a_newer_job),
                cmocka_unit_test(test_a_record_that_came_too_late_is_no_newer),
                cmocka_unit_test(test_which_job_is_newer_no_clock_says),
                cmocka_unit_test(test_the_first_schema_becomes_this_one),
                cmocka_unit_test(test_the_second_schema_becomes_this_one),
                cmocka_unit_test(test_the_third_schema_becomes_this_one),
                cmocka_unit_test(test_a_records_policy_is_bounded_when_it_is_read),
                cmocka_unit_test(test_an_upgrade_that_was_cut_off_is_made_again),
                cmocka_unit_test(test_on_a_full_disk_an_older_schema_is_read),
                cmocka_unit_test(test_a_name_is_not_made_up_on_a_full_disk),
        };
        return cmocka_run_group_tests(tests, set_up_disk, NULL);
}
