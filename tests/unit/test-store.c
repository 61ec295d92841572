/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The worker: what is handed over is written in the right order and answered from the loop. What is written is
 * test-sql's. */

#include <fcntl.h>
#include <pthread.h>
#include <sqlite3.h>

#include "common/clock.h"
#include "common/log.h"
#include "daemon/store/store.h"
#include "scratch.h"

#define VM "0badcafe-0000-4000-8000-000000000001"

/* ---- a disk that can be held still ----------------------------------------------------------------------------- */

static struct {
        pthread_mutex_t lock;
        pthread_cond_t changed;
        bool hold; /* writes wait */
        bool hold_history;
        bool waiting; /* one does */
} disk = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER};
static bool is_history[256]; /* by descriptor */

/* A sync of history that takes for ever must not be waited for by anybody. */
static int on_open(const char *path, int flags, int mode)
{
        int fd = open(path, flags | O_CLOEXEC, mode);

        if (fd >= 0 && fd < (int) ARRAY_SIZE(is_history))
                is_history[fd] = strstr(path, "history.db") != NULL;
        return fd;
}

static ssize_t on_pwrite(int fd, const void *data, size_t size, off_t at)
{
        bool history = fd < (int) ARRAY_SIZE(is_history) && is_history[fd];

        (void) pthread_mutex_lock(&disk.lock);
        while (history ? disk.hold_history : disk.hold) {
                disk.waiting = true;
                (void) pthread_cond_broadcast(&disk.changed);
                (void) pthread_cond_wait(&disk.changed, &disk.lock);
        }
        (void) pthread_mutex_unlock(&disk.lock);
        return pwrite(fd, data, size, at);
}

static void disk_hold(bool hold)
{
        (void) pthread_mutex_lock(&disk.lock);
        disk.hold = hold;
        disk.waiting = false;
        (void) pthread_cond_broadcast(&disk.changed);
        (void) pthread_mutex_unlock(&disk.lock);
}

static void disk_await_writer(void)
{
        (void) pthread_mutex_lock(&disk.lock);
        while (!disk.waiting)
                (void) pthread_cond_wait(&disk.changed, &disk.lock);
        (void) pthread_mutex_unlock(&disk.lock);
}

static void silent(LogLevel level, const LogAbout *about, const char *text)
{
}

static int set_up_disk(void **state)
{
        sqlite3_vfs *vfs = sqlite3_vfs_find("unix");

        log_set_sink(silent);
        if (!vfs)
                return -1;
        (void) vfs->xSetSystemCall(vfs, "open", (sqlite3_syscall_ptr) on_open);
        (void) vfs->xSetSystemCall(vfs, "pwrite", (sqlite3_syscall_ptr) on_pwrite);
        (void) vfs->xSetSystemCall(vfs, "pwrite64", (sqlite3_syscall_ptr) on_pwrite);
        return 0;
}

/* ---- the rig ----------------------------------------------------------------------------------------------------- */

typedef struct Rig {
        Scratch scratch;
        Loop *loop;
        Store *store;
        uint32_t n_answers, n_wanted;
        struct Answer {
                int id, status;
                char text[256];
        } answers[16];
        uint32_t n_read;
        Owner owner;
        Presence presence;
} Rig;

/* What the answer is to: a pointer to one of these. */
typedef struct Call {
        Rig *rig;
        int id;
} Call;

static void on_done(void *userdata, int status, const char *text)
{
        Call *call = userdata;
        struct Answer *a = &call->rig->answers[call->rig->n_answers++];

        *a = (struct Answer){.id = call->id, .status = status};
        (void) snprintf(a->text, sizeof a->text, "%s", text);
        if (call->rig->n_answers == call->rig->n_wanted)
                loop_quit(call->rig->loop);
}

static const StoreLimits limits = {.days = 365, .jobs = 1000};

static void rig_open(Rig *rig)
{
        assert_int_equal(store_open(rig->loop, rig->scratch.dir, &limits, &rig->store), 0);
}

static void rig_init(Rig *rig)
{
        *rig = (Rig){};
        scratch_init(&rig->scratch);
        assert_int_equal(loop_new(&rig->loop), 0);
        rig_open(rig);
}

static void rig_deinit(Rig *rig)
{
        store_close(rig->store);
        loop_free(rig->loop);
        scratch_deinit(&rig->scratch);
}

/* Until that many answers have come. */
static void rig_await(Rig *rig, uint32_t n)
{
        rig->n_wanted = n;
        if (rig->n_answers < n)
                assert_int_equal(loop_run(rig->loop), 0);
        assert_int_equal(rig->n_answers, n);
}

static Record make(int job, Owner owner)
{
        Record record = {.side = SIDE_SOURCE, .owner = owner, .created_usec = (uint64_t) job};

        (void) snprintf(record.job, sizeof record.job, "%08x-0000-4000-8000-000000000000", (unsigned) job);
        memcpy(record.vm, VM, sizeof VM);
        return record;
}

static void put_job(Rig *rig, const char *job, const char *report)
{
        store_put_job(rig->store, &(StoreJob){.job = job,
                                              .vm = VM,
                                              .name = "vm",
                                              .result = "done",
                                              .ended_usec = clock_realtime_usec(),
                                              .summary = "{}",
                                              .report = report});
}

static int on_record(void *userdata, const Record *record)
{
        Rig *rig = userdata;

        rig->n_read++;
        rig->owner = record->owner;
        return 0;
}

static int on_vm(void *userdata, const char *definition, Presence presence)
{
        Rig *rig = userdata;

        rig->n_read++;
        rig->presence = presence;
        return 0;
}

static int on_history(void *userdata, const char *job, const char *json, const char *report)
{
        Rig *rig = userdata;

        rig->n_read++;
        assert_string_equal(json, "{}");
        return 0;
}

/* ---- tests ------------------------------------------------------------------------------------------------------- */

static void test_a_write_is_answered_from_the_loop_when_it_is_durable(void **state)
{
        Record record = make(1, OWNER_SOURCE);
        Rig rig;

        rig_init(&rig);
        store_put_vm(rig.store, VM, "{}", PRESENCE_HERE, on_done, &(Call){&rig, 1});
        store_put_record(rig.store, &record, PRESENCE_AWAY, on_done, &(Call){&rig, 2});
        assert_int_equal(rig.n_answers, 0); /* nothing is answered before the caller has returned */
        rig_await(&rig, 2);
        for (int i = 0; i < 2; i++) {
                assert_int_equal(rig.answers[i].status, 0);
                assert_string_equal(rig.answers[i].text, "");
        }
        rig.store = store_close(rig.store);
        rig_open(&rig);
        assert_int_equal(store_each_open_record(rig.store, on_record, &rig), 0);
        assert_int_equal(rig.n_read, 1);
        assert_int_equal(rig.owner, OWNER_SOURCE);
        rig_deinit(&rig);
}

static void test_a_record_that_may_not_be_is_refused_with_words(void **state)
{
        Record record = make(1, OWNER_NOBODY);
        Rig rig;

        rig_init(&rig);
        store_put_record(rig.store, &record, PRESENCE_INVALID, on_done, &(Call){&rig, 1});
        rig_await(&rig, 1);
        assert_int_equal(rig.answers[0].status, -EPERM);
        assert_non_null(strstr(rig.answers[0].text, "unrecorded and must not become nobody"));
        rig_deinit(&rig);
}

/* A VM stands still for its record and for nothing else. */
static void test_records_go_before_everything_that_waits(void **state)
{
        Record first = make(1, OWNER_SOURCE), second = make(2, OWNER_SOURCE);
        Call calls[5];
        Rig rig;

        rig_init(&rig);
        for (int i = 0; i < 5; i++)
                calls[i] = (Call){&rig, i};
        disk_hold(true);
        store_put_vm(rig.store, VM, "0", PRESENCE_HERE, on_done, &calls[0]);
        disk_await_writer();
        store_put_vm(rig.store, VM, "1", PRESENCE_HERE, on_done, &calls[1]);
        store_delete_vm(rig.store, VM, on_done, &calls[2]);
        store_put_record(rig.store, &first, PRESENCE_INVALID, on_done, &calls[3]);
        store_put_record(rig.store, &second, PRESENCE_INVALID, on_done, &calls[4]);
        disk_hold(false);
        rig_await(&rig, 5);
        for (int i = 0; i < 5; i++)
                assert_int_equal(rig.answers[i].id, ((const int[]){0, 3, 4, 1, 2})[i]);
        rig_deinit(&rig);
}

/* Nobody answers any more, but what was handed over is not lost. */
static void test_closing_waits_for_what_was_handed_over(void **state)
{
        Rig rig;

        rig_init(&rig);
        disk_hold(true);
        for (int i = 0; i < 8; i++) {
                Record record = make(i, OWNER_SOURCE);

                store_put_record(rig.store, &record, PRESENCE_INVALID, on_done, NULL);
                if (i % 2)
                        put_job(&rig, record.job, "{}");
        }
        store_ack(rig.store, make(0, 0).job, SIDE_SOURCE);
        disk_hold(false);
        rig.store = store_close(rig.store);
        assert_int_equal(rig.n_answers, 0);
        rig_open(&rig);
        assert_int_equal(store_each_open_record(rig.store, on_record, &rig), 0);
        assert_int_equal(rig.n_read, 7);
        rig.n_read = 0;
        assert_int_equal(store_each_history(rig.store, 100, on_history, &rig), 0);
        assert_int_equal(rig.n_read, 4);
        rig_deinit(&rig);
}

static void on_read(void *userdata, int status, const char *text, const char *json, const char *steps)
{
        Call *call = userdata;
        struct Answer *a = &call->rig->answers[call->rig->n_answers++];

        *a = (struct Answer){.id = call->id, .status = status};
        (void) snprintf(a->text, sizeof a->text, "%s %s", json ? json : "-", steps ? steps : "-");
        if (call->rig->n_answers == call->rig->n_wanted)
                loop_quit(call->rig->loop);
}

/* The records of a VM that stands still are written while history waits for its disk. */
static void test_a_record_does_not_wait_for_history(void **state)
{
        Record record = make(1, OWNER_SOURCE);
        Rig rig;

        rig_init(&rig);
        (void) pthread_mutex_lock(&disk.lock);
        disk.hold_history = true;
        (void) pthread_mutex_unlock(&disk.lock);
        put_job(&rig, record.job, "{}");
        disk_await_writer();
        store_put_record(rig.store, &record, PRESENCE_INVALID, on_done, &(Call){&rig, 1});
        rig_await(&rig, 1);
        assert_int_equal(rig.answers[0].status, 0);
        (void) pthread_mutex_lock(&disk.lock);
        disk.hold_history = false;
        (void) pthread_cond_broadcast(&disk.changed);
        (void) pthread_mutex_unlock(&disk.lock);
        rig_deinit(&rig);
}

/* Steps linger, but nobody who asks sees less than what was handed over. */
static void test_what_is_read_is_all_that_was_handed_over(void **state)
{
        const char *job = "00000001-0000-4000-8000-000000000000";
        Rig rig;

        rig_init(&rig);
        for (uint64_t i = 1; i < 4; i++) {
                char json[16];

                (void) snprintf(json, sizeof json, "{\"n\":%d}", (int) i);
                store_put_step(rig.store,
                               &(StoreStep){.job = job, .usec = clock_realtime_usec(), .json = json});
        }
        store_find_job(rig.store, job, on_read, &(Call){&rig, 1});
        rig_await(&rig, 1);
        assert_string_equal(rig.answers[0].text, "- [{\"n\":1},{\"n\":2},{\"n\":3}]");
        put_job(&rig, job, "{\"all\":1}");
        store_find_job(rig.store, job, on_read, &(Call){&rig, 2});
        store_list_jobs(rig.store, &(StoreFilter){.vm = "vm"}, on_read, &(Call){&rig, 3});
        store_list_jobs(rig.store, &(StoreFilter){.vm = "other"}, on_read, &(Call){&rig, 4});
        rig_await(&rig, 4);
        assert_string_equal(rig.answers[1].text, "{\"all\":1} [{\"n\":1},{\"n\":2},{\"n\":3}]");
        assert_string_equal(rig.answers[2].text, "[{}] -");
        assert_string_equal(rig.answers[3].text, "[] -");
        rig_deinit(&rig);
}

static void test_vms_come_and_go(void **state)
{
        Rig rig;

        rig_init(&rig);
        store_put_vm(rig.store, VM, "{}", PRESENCE_AWAY, on_done, &(Call){&rig, 1});
        rig_await(&rig, 1);
        rig.store = store_close(rig.store);
        rig_open(&rig);
        assert_int_equal(store_each_vm(rig.store, on_vm, &rig), 0);
        assert_int_equal(rig.n_read, 1);
        assert_int_equal(rig.presence, PRESENCE_AWAY);
        store_delete_vm(rig.store, VM, on_done, &(Call){&rig, 2});
        rig_await(&rig, 2);
        rig.store = store_close(rig.store);
        rig_open(&rig);
        rig.n_read = 0;
        assert_int_equal(store_each_vm(rig.store, on_vm, &rig), 0);
        assert_int_equal(rig.n_read, 0);
        rig_deinit(&rig);
}

static void test_the_host_has_a_name(void **state)
{
        char first[UUID_TEXT_MAX + 1];
        Rig rig;

        rig_init(&rig);
        assert_true(uuid_is_valid(store_host_id(rig.store)));
        memcpy(first, store_host_id(rig.store), sizeof first);
        rig.store = store_close(rig.store);
        rig_open(&rig);
        assert_string_equal(store_host_id(rig.store), first);
        rig_deinit(&rig);
}

static void test_where_no_records_can_be_there_is_no_store(void **state)
{
        Store *store = NULL;
        Rig rig;

        rig_init(&rig);
        scratch_write(&rig.scratch, "file", "", 0);
        assert_true(store_open(rig.loop, rig.scratch.path, &limits, &store) < 0);
        assert_true(store_open(rig.loop, "/dev/null/state", &limits, &store) < 0);
        assert_null(store);
        assert_null(store_close(NULL));
        rig_deinit(&rig);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_write_is_answered_from_the_loop_when_it_is_durable),
                cmocka_unit_test(test_a_record_that_may_not_be_is_refused_with_words),
                cmocka_unit_test(test_records_go_before_everything_that_waits),
                cmocka_unit_test(test_closing_waits_for_what_was_handed_over),
                cmocka_unit_test(test_a_record_does_not_wait_for_history),
                cmocka_unit_test(test_what_is_read_is_all_that_was_handed_over),
                cmocka_unit_test(test_vms_come_and_go),
                cmocka_unit_test(test_the_host_has_a_name),
                cmocka_unit_test(test_where_no_records_can_be_there_is_no_store),
        };
        return cmocka_run_group_tests(tests, set_up_disk, NULL);
}
