/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What lies in the state directory, after somebody else has been at it. A good pair of databases, with a VM, records of jobs that
 * had not ended and history, is spoiled, and then a daemon starts with it, by the real store: it may refuse, it may leave out what
 * it can't read, and what it takes it can show. The first byte of an input says how they are spoiled:
 *
 *     's'   the rest is SQL for the records, up to a 0, and then for the history
 *     'b'   the rest are changes of bytes: 1 byte for the file (bit 0: history) and what is done (bit 1: it ends there; else the
 *           byte is put there), 3 for where, 1 for the byte
 */

#include <sqlite3.h>
#include <sys/stat.h>

#include "common/file.h"
#include "common/json.h"
#include "daemon/manager-internal.h"
#include "fuzz.h"
#include "rig.h"

#define VM        "0f0e0d0c-0b0a-4908-8706-050403020100"
#define VM_2      "0f0e0d0c-0b0a-4908-8706-050403020101"
#define JOB(n)    "c0000000-0000-4000-8000-00000000000" n
#define FILE_MAX  (1024 * 1024)
#define SQL_STEPS 100000 /* of SQLite's machine: no endless statements */

static const char *const names[] = {"migmgr.db", "history.db"};
static char *good[ARRAY_SIZE(names)];
static size_t n_good[ARRAY_SIZE(names)];
static char dir[128];

/* A daemon that ends leaves writes under way, and what waits for them, to the kernel. */
const char *__asan_default_options(void);
__attribute__((visibility("default"))) const char *__asan_default_options(void)
{
        return "detect_leaks=0";
}

/* ---- the good ones ------------------------------------------------------------------------------------------------ */

static const char definition[] =
        "{\"uuid\":\"" VM "\",\"name\":\"vm\",\"vmm\":{\"type\":\"none\"},"
        "\"devices\":[{\"id\":\"nic\",\"type\":\"vfio-user\",\"socket\":\"/nonexistent\"}]}";
static const char definition_2[] =
        "{\"uuid\":\"" VM_2 "\",\"name\":\"2\",\"vmm\":{\"type\":\"none\"},\"devices\":[]}";
static const char report[] = "{\"job\":\"" JOB(
        "3") "\",\"vm\":\"" VM "\",\"half\":\"source\",\"result\":\"done\",\"created_usec\":5,"
             "\"blackout_usec\":1000,\"blackout_start_usec\":10,\"devices\":[{\"id\":\"nic\",\"bytes\":4096}],"
             "\"timeline\":[{\"device\":\"nic\",\"start_usec\":20,\"end_usec\":30}]}";

static void on_done(void *userdata, int status, const char *text)
{
        MUST(status == 0);
}

static void put_records(Store *store)
{
        Record record = {.job = JOB("1"),
                         .vm = VM,
                         .peer = "unix:/nonexistent",
                         .policy = "{\"rules\":[{\"set\":{\"deadline-ms\":{\"drain\":5000}}}]}",
                         .owner = OWNER_SOURCE,
                         .created_usec = 1};

        store_put_record(store, &record, PRESENCE_HERE, on_done, NULL);
        record = (Record){.job = JOB("2"),
                          .vm = VM_2,
                          .side = SIDE_DESTINATION,
                          .peer = JOB("9"),
                          .policy = "",
                          .owner = OWNER_PREPARED,
                          .created_usec = 2};
        store_put_record(store, &record, PRESENCE_INVALID, on_done, NULL);
}

static void make_good(void)
{
        Rig rig;

        (void) snprintf(dir, sizeof dir, "%s/state", rig_dir());
        MUST(mkdir(dir, 0700) == 0);
        rig_begin(&rig, dir);
        MUST(rig.host.store);
        store_put_vm(rig.host.store, VM, definition, PRESENCE_HERE, on_done, NULL);
        store_put_vm(rig.host.store, VM_2, definition_2, PRESENCE_AWAY, on_done, NULL);
        store_put_quarantine(rig.host.store, VM, "nic", "it was left in ERROR");
        put_records(rig.host.store);
        store_put_step(rig.host.store, &(StoreStep){.job = JOB("3"), .usec = 7, .json = "{\"state\":\"x\"}"});
        store_put_job(rig.host.store, &(StoreJob){.job = JOB("3"),
                                                  .vm = VM,
                                                  .name = "vm",
                                                  .result = "done",
                                                  .created_usec = 5,
                                                  .ended_usec = UINT64_C(4000000000000000),
                                                  .summary = "{\"created_usec\":5}",
                                                  .report = report});
        rig_end(&rig);
        for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
                char path[256];

                (void) snprintf(path, sizeof path, "%s/%s", dir, names[i]);
                MUST(file_read(path, FILE_MAX, &good[i], &n_good[i]) == 0);
        }
}

/* ---- spoiled ------------------------------------------------------------------------------------------------------ */

static void put_files(void)
{
        static const char *const ends[] = {"", "-wal", "-shm", "-journal", ".damaged", ".damaged-wal"};
        char path[256];

        for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
                FILE *file;

                for (size_t k = 0; k < ARRAY_SIZE(ends); k++) {
                        (void) snprintf(path, sizeof path, "%s/%s%s", dir, names[i], ends[k]);
                        (void) unlink(path);
                }
                (void) snprintf(path, sizeof path, "%s/%s", dir, names[i]);
                file = fopen(path, "we");
                MUST(file && fwrite(good[i], 1, n_good[i], file) == n_good[i] && fclose(file) == 0);
        }
}

static void change_bytes(const uint8_t *data, size_t size)
{
        for (; size >= 5; data += 5, size -= 5) {
                size_t file = data[0] & 1, at = (data[1] | (size_t) data[2] << 8 | (size_t) data[3] << 16);
                char path[256];
                FILE *f;

                at %= n_good[file];
                (void) snprintf(path, sizeof path, "%s/%s", dir, names[file]);
                if (data[0] & 2) {
                        MUST(truncate(path, (off_t) at) == 0);
                        continue;
                }
                f = fopen(path, "r+e");
                MUST(f && fseek(f, (long) at, SEEK_SET) == 0 && fputc(data[4], f) == data[4] &&
                     fclose(f) == 0);
        }
}

/* Nothing outside of that one file. */
static int authorise(void *userdata, int action, const char *a, const char *b, const char *c, const char *d)
{
        static const char *const pragmas[] = {"user_version", "writable_schema", "page_size", "encoding",
                                              "auto_vacuum"};

        if (action == SQLITE_ATTACH || action == SQLITE_DETACH || action == SQLITE_CREATE_VTABLE)
                return SQLITE_DENY;
        if (action == SQLITE_FUNCTION && (streq(b, "load_extension") || streq(b, "zeroblob") ||
                                          streq(b, "randomblob") || streq(b, "printf") || streq(b, "format")))
                return SQLITE_DENY; /* the last ones make what is larger than the input */
        if (action != SQLITE_PRAGMA)
                return SQLITE_OK;
        for (size_t i = 0; i < ARRAY_SIZE(pragmas); i++)
                if (streq(a, pragmas[i]))
                        return SQLITE_OK;
        return SQLITE_DENY;
}

static int on_steps(void *userdata)
{
        return 1;
}

static void run_sql(const char *name, const char *sql)
{
        char path[256];
        sqlite3 *db;

        (void) snprintf(path, sizeof path, "%s/%s", dir, name);
        MUST(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL) == SQLITE_OK);
        (void) sqlite3_set_authorizer(db, authorise, NULL);
        sqlite3_progress_handler(db, SQL_STEPS, on_steps, NULL);
        (void) sqlite3_limit(db, SQLITE_LIMIT_LENGTH, 4 * 1024 * 1024);
        (void) sqlite3_exec(db, sql, NULL, NULL, NULL);
        (void) sqlite3_close(db);
}

static void change_rows(const uint8_t *data, size_t size)
{
        char *text = malloc(size + 2);
        size_t n;

        MUST(text);
        memcpy(text, data, size);
        memset(text + size, 0, 2);
        run_sql(names[0], text);
        n = strlen(text) + 1;
        if (n < size)
                run_sql(names[1], text + n);
        free(text);
}

/* ---- a daemon that starts with them ---------------------------------------------------------------------------------- */

static void on_read(void *userdata, int status, const char *text, const char *json, const char *steps)
{
        MUST(status <= 0 && text);
        (*(int *) userdata)--;
        if (status < 0 || !json)
                return;
        if (steps)
                json_object_put(job_of_history(json, steps));
}

static void ask_history(Rig *rig)
{
        StoreFilter filter = {.result = "done"};
        int left = 2;

        store_list_jobs(rig->host.store, &filter, on_read, &left);
        store_find_job(rig->host.store, JOB("3"), on_read, &left);
        while (left > 0)
                rig_turn(rig); /* the store has a thread */
}

static void look_at(Manager *manager)
{
        char text[1024];

        for (Job *job = manager->jobs; job; job = job->next) {
                MUST(uuid_is_valid(job->id));
                json_object_put(job_to_json(job));
                (void) job_error(job, text, sizeof text);
                MUST(job_state_to_string(job_state(job)) && phase_to_string(job_phase(job)));
        }
        for (Vm *vm = manager->vms; vm; vm = vm->next) {
                MUST(manager_find_uuid(manager, vm->definition->uuid) == vm);
                MUST(presence_to_string(vm->presence));
        }
        json_object_put(manager_list_jobs(manager));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        Manager *manager;
        Rig rig;

        if (size == 0)
                return 0;
        if (!good[0])
                make_good();
        put_files();
        if (data[0] == 's')
                change_rows(data + 1, size - 1);
        else if (data[0] == 'b')
                change_bytes(data + 1, size - 1);
        rig_begin(&rig, dir);
        if (rig.host.store) {
                MUST(uuid_is_valid(rig.host.host_id));
                MUST(manager_new(&rig.host, &manager) == 0);
                if (manager_start(manager) == 0) {
                        do
                                rig_turn(&rig);
                        while (!manager_knows_all(manager));
                        look_at(manager);
                        ask_history(&rig);
                }
                manager_free(manager);
        }
        rig_end(&rig);
        return 0;
}
