/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A delegate that says what it is told to, and the bus besides, at the other end of a socket pair and on the same loop. */

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "common/clock.h"
#include "daemon/vmm/delegate.h"
#include "test.h"

#define UUID   "01234567-89ab-cdef-0123-456789abcdef"
#define JOB    "11111111-1111-4111-8111-111111111111"
#define OTHER  "22222222-2222-4222-8222-222222222222"
#define OWNER  ":1.7"
#define LONG   (60 * USEC_PER_SEC) /* nothing waits for its end */
#define FAILED "org.migmgr1.Delegate.Error.Failed"

typedef struct Dirty {
        uint64_t address, size, pages, word;
} Dirty;

typedef struct Rig {
        Loop *loop;
        LoopTimer *turn;
        uint32_t n_turns;
        sd_bus *client, *server;
        int server_fd;
        LoopIo *server_io;
        Definition definition;
        Vmm *vmm;
        pid_t pid; /* of the delegate */

        /* How it behaves. */
        const char *state, *job, *uuid;
        const char *hold, *fail; /* a method: not answered, refused */
        uint64_t stopped_usec;
        bool absent; /* nobody has its name */
        int more;    /* properties that it need not have: 0: none, 1: both, 2: of another type */
        /* What it was asked. */
        char asked[1024]; /* methods, each with a blank behind */
        char side[32], options[128];
        Dirty dirty[64];
        uint32_t n_dirty, n_held;
        sd_bus_message *held[64];
        int memory_fd;

        /* What its VM heard. */
        uint32_t n_answers, step, n_gone, n_resumed, n_progress;
        int status;
        char text[DELEGATE_TEXT_MAX];
        uint64_t halted_usec;
        VmmSight sight;
        bool seen;
} Rig;

/* ---- what the VM hears --------------------------------------------------------------------------------------- */

static void on_answered(void *userdata, uint32_t step, int status, const char *text)
{
        Rig *rig = userdata;

        rig->n_answers++;
        rig->step = step;
        rig->status = status;
        (void) snprintf(rig->text, sizeof rig->text, "%s", text);
        loop_quit(rig->loop);
}

static void on_gone(void *userdata)
{
        Rig *rig = userdata;

        rig->n_gone++;
        loop_quit(rig->loop);
}

static void on_halted(void *userdata, uint64_t usec)
{
        Rig *rig = userdata;

        rig->halted_usec = usec;
}

static void on_resumed(void *userdata)
{
        Rig *rig = userdata;

        rig->n_resumed++;
}

static void on_progress(void *userdata, uint64_t done_bytes, uint64_t total_bytes)
{
        Rig *rig = userdata;

        rig->n_progress++;
}

static void on_seen(void *userdata, const VmmSight *sight)
{
        Rig *rig = userdata;

        rig->seen = true;
        rig->sight = *sight;
        loop_quit(rig->loop);
}

static void on_found(void *userdata, int status, const char *text)
{
        on_answered(userdata, 0, status, text);
}

static const VmmListener listener = {on_answered, on_gone, on_halted, on_resumed, on_progress};

/* ---- the delegate -------------------------------------------------------------------------------------------- */

static void reply(sd_bus_message *m, const char *types, ...)
{
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *answer = NULL;
        va_list ap;

        assert_return_code(sd_bus_message_new_method_return(m, &answer), 0);
        va_start(ap, types);
        if (types[0])
                assert_return_code(sd_bus_message_appendv(answer, types, ap), 0);
        va_end(ap);
        assert_return_code(sd_bus_send(NULL, answer, NULL), 0);
}

static void answer_bus(Rig *rig, sd_bus_message *m)
{
        if (!streq(sd_bus_message_get_member(m), "GetNameOwner"))
                reply(m, "u", (uint32_t) rig->pid);
        else if (rig->absent)
                (void) sd_bus_reply_method_errorf(m, "org.freedesktop.DBus.Error.NameHasNoOwner", "no");
        else
                reply(m, "s", OWNER);
}

static void note_options(Rig *rig, sd_bus_message *m)
{
        const char *side, *key;
        uint64_t value;
        size_t n = 0;

        assert_return_code(sd_bus_message_read(m, "s", &side), 0);
        (void) snprintf(rig->side, sizeof rig->side, "%s", side);
        assert_return_code(sd_bus_message_enter_container(m, 'a', "{sv}"), 0);
        while (sd_bus_message_read(m, "{sv}", &key, "t", &value) > 0)
                n += (size_t) snprintf(rig->options + n, sizeof rig->options - n, "%s=%llu ", key,
                                       (unsigned long long) value);
}

static void note_dirty(Rig *rig, sd_bus_message *m)
{
        Dirty *dirty = &rig->dirty[rig->n_dirty++];
        int fd;

        assert_return_code(sd_bus_message_read(m, "ttth", &dirty->address, &dirty->size, &dirty->pages, &fd),
                           0);
        assert_int_equal(pread(fd, &dirty->word, sizeof dirty->word, 0), sizeof dirty->word);
}

static void take(Rig *rig, sd_bus_message *m, const char *member)
{
        const char *job;
        int fd;

        assert_return_code(sd_bus_message_read(m, "s", &job), 0);
        assert_string_equal(job, JOB);
        if (streq(member, "Prepare"))
                note_options(rig, m);
        if (streq(member, "TakeDirtyPages"))
                note_dirty(rig, m);
        if (streq(member, "Save") || streq(member, "Load")) {
                assert_return_code(sd_bus_message_read(m, "h", &fd), 0);
                rig->memory_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        }
}

static void answer_delegate(Rig *rig, sd_bus_message *m, const char *member)
{
        if (streq(member, "GetState"))
                reply(m, "ss", rig->state, rig->job);
        else if (streq(member, "GetAll") && rig->more == 1)
                reply(m, "a{sv}", 6, "IsolatedDevices", "as", 2, "/run/nic.sock", "gpu", "Version", "u",
                      (uint32_t) 1, "Uuid", "s", rig->uuid, "VIommu", "b", 1, "Vmm", "s", "test",
                      "TakesDirtyPages", "b", 0);
        else if (streq(member, "GetAll") && rig->more == 2)
                reply(m, "a{sv}", 5, "IsolatedDevices", "s", "gpu", "Version", "u", (uint32_t) 1, "Uuid", "s",
                      rig->uuid, "Vmm", "s", "test", "TakesDirtyPages", "b", 0);
        else if (streq(member, "GetAll"))
                reply(m, "a{sv}", 4, "Version", "u", (uint32_t) 1, "Uuid", "s", rig->uuid, "Vmm", "s", "test",
                      "TakesDirtyPages", "b", 1);
        else if (streq(member, "Pause"))
                reply(m, "t", rig->stopped_usec);
        else
                reply(m, "");
}

static int on_call(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
        Rig *rig = userdata;
        const char *member = sd_bus_message_get_member(m);
        size_t n = strlen(rig->asked);

        if (streq(sd_bus_message_get_destination(m), "org.freedesktop.DBus")) {
                answer_bus(rig, m);
                return 1;
        }
        assert_string_equal(sd_bus_message_get_destination(m), OWNER);
        assert_string_equal(sd_bus_message_get_path(m), rig->definition.object_path);
        (void) snprintf(rig->asked + n, sizeof rig->asked - n, "%s ", member);
        if (!streq(member, "GetState") && !streq(member, "GetAll"))
                take(rig, m, member);
        if (rig->hold && streq(rig->hold, member))
                rig->held[rig->n_held++] = sd_bus_message_ref(m);
        else if (rig->fail && streq(rig->fail, member))
                (void) sd_bus_reply_method_errorf(m, FAILED, "no\x1b[1m");
        else
                answer_delegate(rig, m, member);
        return 1;
}

static void serve(void *userdata)
{
        Rig *rig = userdata;

        while (sd_bus_process(rig->server, NULL) > 0)
                continue;
        (void) sd_bus_flush(rig->server);
}

/* Answers the oldest call that was held. */
static void let_go(Rig *rig, const char *error)
{
        sd_bus_message *m = rig->held[0];

        assert_true(rig->n_held > 0);
        memmove(rig->held, rig->held + 1, --rig->n_held * sizeof m);
        if (error)
                (void) sd_bus_reply_method_errorf(m, error, "no");
        else
                answer_delegate(rig, m, sd_bus_message_get_member(m));
        sd_bus_message_unref(m);
        (void) sd_bus_flush(rig->server);
}

static void say(Rig *rig, const char *sender, const char *member, const char *types, ...)
{
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
        va_list ap;

        assert_return_code(sd_bus_message_new_signal(rig->server, &m, rig->definition.object_path,
                                                     DELEGATE_INTERFACE, member),
                           0);
        assert_return_code(sd_bus_message_set_sender(m, sender), 0);
        va_start(ap, types);
        assert_return_code(sd_bus_message_appendv(m, types, ap), 0);
        va_end(ap);
        assert_return_code(sd_bus_send(rig->server, m, NULL), 0);
        (void) sd_bus_flush(rig->server);
}

/* ---- the rig ------------------------------------------------------------------------------------------------- */

static void on_turn(void *userdata)
{
        Rig *rig = userdata;

        if (rig->n_turns > 0 && --rig->n_turns > 0)
                loop_timer_set(rig->turn, USEC_PER_MSEC);
        else
                loop_quit(rig->loop);
}

static void on_bus_end(void *userdata)
{
        fail_msg("the connection has ended");
}

/* Until something is heard, or for so long. */
static void run(Rig *rig, uint64_t usec)
{
        loop_timer_set(rig->turn, usec);
        assert_int_equal(loop_run(rig->loop), 0);
        loop_timer_set(rig->turn, 0);
}

/* For so many turns of the loop that nothing more can come, however busy the machine is. */
static void settle(Rig *rig)
{
        rig->n_turns = 12;
        run(rig, USEC_PER_MSEC);
        rig->n_turns = 0;
}

static void connect_both(Rig *rig)
{
        int fds[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
        assert_return_code(sd_bus_new(&rig->client), 0);
        assert_return_code(sd_bus_set_fd(rig->client, fds[0], fds[0]), 0);
        assert_return_code(sd_bus_start(rig->client), 0);
        assert_return_code(sd_bus_new(&rig->server), 0);
        assert_return_code(sd_bus_set_fd(rig->server, fds[1], fds[1]), 0);
        assert_return_code(sd_bus_set_server(rig->server, 1,
                                             SD_ID128_MAKE(01, 02, 03, 04, 05, 06, 07, 08, 09, 0a, 0b, 0c, 0d,
                                                           0e, 0f, 10)),
                           0);
        assert_return_code(sd_bus_start(rig->server), 0);
        assert_return_code(sd_bus_add_filter(rig->server, NULL, on_call, rig), 0);
        rig->server_fd = fds[1];
        serve(rig); /* it has read who comes, and answers when it can write */
}

static void rig_init(Rig *rig)
{
        *rig = (Rig){.pid = getpid(), .state = "running", .job = JOB, .uuid = UUID, .memory_fd = -1};
        rig->definition = (Definition){.vmm = VMM_TYPE_DELEGATE,
                                       .uuid = UUID,
                                       .name = "vm",
                                       .bus_name = "org.example.vmm1",
                                       .object_path = "/vm"};
        assert_int_equal(loop_new(&rig->loop), 0);
        assert_int_equal(loop_timer_new(rig->loop, on_turn, rig, &rig->turn), 0);
        connect_both(rig);
        assert_int_equal(loop_io_new(rig->loop, rig->server_fd, serve, NULL, rig, &rig->server_io), 0);
        assert_int_equal(loop_attach_bus(rig->loop, rig->client, on_bus_end, rig), 0);
        assert_int_equal(vmm_delegate_new(rig->loop, &rig->vmm), 0);
        rig->vmm->loop = rig->loop;
        rig->vmm->definition = &rig->definition;
        rig->vmm->listener = &listener;
        rig->vmm->userdata = rig;
        vmm_set_job(rig->vmm, JOB);
}

static void rig_deinit(Rig *rig)
{
        vmm_free(rig->vmm);
        while (rig->n_held > 0)
                sd_bus_message_unref(rig->held[--rig->n_held]);
        if (rig->memory_fd >= 0)
                (void) close(rig->memory_fd);
        loop_io_free(rig->server_io);
        loop_timer_free(rig->turn);
        sd_bus_close_unref(rig->server);
        sd_bus_close_unref(rig->client);
        loop_free(rig->loop);
}

/* An act to its end. */
static void act(Rig *rig, VmmAct what, uint64_t deadline_usec)
{
        uint32_t n = rig->n_answers;
        static uint32_t step;

        rig->asked[0] = 0;
        vmm_act(rig->vmm, what, ++step, deadline_usec);
        if (rig->n_answers == n)
                run(rig, LONG);
        assert_int_equal(rig->n_answers, n + 1);
        assert_int_equal(rig->step, step);
}

static void assert_done(Rig *rig, VmmAct what, const char *state, const char *asked)
{
        rig->state = state;
        act(rig, what, LONG);
        if (rig->status != 0)
                print_error("%s: %s\n", vmm_act_to_string(what), rig->text);
        assert_int_equal(rig->status, 0);
        assert_string_equal(rig->asked, asked);
}

static void assert_says(const Rig *rig, const char *text)
{
        if (!strstr(rig->text, text))
                print_error("wanted \"%s\", got \"%s\"\n", text, rig->text);
        assert_non_null(strstr(rig->text, text));
}

static void give_memory(Rig *rig, int *ret_peer)
{
        int fds[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        /* Whoever waits for its end in vain fails, and does not hang. */
        assert_int_equal(
                setsockopt(fds[1], SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){2, 0}, sizeof(struct timeval)),
                0);
        vmm_give_memory(rig->vmm, fds[0]);
        *ret_peer = fds[1];
}

/* ---- acts ---------------------------------------------------------------------------------------------------- */

static void test_acts_are_methods_and_their_ends_are_read_back(void **state)
{
        Rig rig;
        int peer;
        char c;

        rig_init(&rig);
        assert_done(&rig, VMM_ACT_LOOK, "running", "GetAll GetState ");
        assert_string_equal(rig.vmm->facts.run_state, "running");
        assert_true(rig.vmm->facts.takes_dirty_pages);
        assert_done(&rig, VMM_ACT_PREPARE, "running", "Prepare GetState ");
        assert_string_equal(rig.side, "source");
        assert_string_equal(rig.options, "");
        give_memory(&rig, &peer);
        assert_done(&rig, VMM_ACT_MIGRATE, "running", "Save GetState ");
        assert_int_equal(write(rig.memory_fd, "x", 1), 1);
        assert_int_equal(read(peer, &c, 1), 1);
        assert_done(&rig, VMM_ACT_HALT, "paused", "Pause GetState ");
        assert_done(&rig, VMM_ACT_SEAL, "sealed", "Seal GetState ");
        assert_done(&rig, VMM_ACT_RESUME, "running", "Resume GetState ");
        assert_int_equal(read(peer, &c, 1), 0); /* both ends are shut down, whoever has duplicates */
        assert_done(&rig, VMM_ACT_START, "incoming", "Prepare GetState ");
        assert_string_equal(rig.side, "destination");
        assert_done(&rig, VMM_ACT_VERIFY, "complete", "GetState ");
        assert_done(&rig, VMM_ACT_RUN, "running", "Start GetState ");
        assert_done(&rig, VMM_ACT_END, "none", "Discard GetState ");
        assert_int_equal(rig.vmm->process.pid, 0);
        (void) close(peer);
        rig_deinit(&rig);
}

static void test_limits_go_with_the_job(void **state)
{
        static const struct {
                VmmLimits limits;
                const char *options;
        } cases[] = {{{}, ""},
                     {{.bandwidth = 1000000}, "bandwidth=1000000 "},
                     {{.blackout_usec = 7}, "max-blackout-usec=7 "},
                     {{UINT64_MAX, 1}, "bandwidth=18446744073709551615 max-blackout-usec=1 "}};

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
                for (int source = 0; source < 2; source++) {
                        Rig rig;

                        rig_init(&rig);
                        vmm_set_limits(rig.vmm, &cases[i].limits);
                        assert_done(&rig, source ? VMM_ACT_PREPARE : VMM_ACT_START,
                                    source ? "running" : "incoming", "Prepare GetState ");
                        assert_string_equal(rig.options, cases[i].options);
                        rig_deinit(&rig);
                }
}

static void test_a_good_answer_without_the_state_is_a_failure(void **state)
{
        static const VmmAct acts[] = {VMM_ACT_PREPARE, VMM_ACT_MIGRATE, VMM_ACT_HALT,  VMM_ACT_SEAL,
                                      VMM_ACT_RESUME,  VMM_ACT_END,     VMM_ACT_START, VMM_ACT_TAKE_IN,
                                      VMM_ACT_VERIFY,  VMM_ACT_RUN};
        static const char *const right[] = {"running", "running",  "paused",   "sealed",   "running",
                                            "none",    "incoming", "complete", "complete", "running"};

        for (size_t i = 0; i < ARRAY_SIZE(acts); i++)
                for (DelegateState s = 0; s < DELEGATE_STATE_MAX; s++)
                        for (int ours = 0; ours < 2; ours++) {
                                bool good = streq(delegate_state_to_string(s), right[i]) &&
                                            (ours || acts[i] == VMM_ACT_RESUME || acts[i] == VMM_ACT_END);
                                Rig rig;
                                int peer;

                                rig_init(&rig);
                                give_memory(&rig, &peer);
                                rig.state = delegate_state_to_string(s);
                                rig.job = ours ? JOB : OTHER;
                                act(&rig, acts[i], LONG);
                                assert_int_equal(rig.status, good ? 0 : -ESTALE);
                                if (!good)
                                        assert_says(&rig, "it should be ");
                                (void) close(peer);
                                rig_deinit(&rig);
                        }
}

static void test_what_is_said_of_a_time_is_weighed(void **state)
{
        for (int i = 0; i < 4; i++) {
                Rig rig;
                uint64_t before;

                rig_init(&rig);
                assert_done(&rig, VMM_ACT_PREPARE, "running", "Prepare GetState ");
                before = clock_monotonic_usec();
                rig.stopped_usec = (const uint64_t[]){0, before - 1, before + 10 * LONG, UINT64_MAX}[i];
                assert_done(&rig, VMM_ACT_HALT, "paused", "Pause GetState ");
                assert_in_range(rig.halted_usec, before, clock_monotonic_usec());
                rig_deinit(&rig);
        }
        assert_int_equal(delegate_stopped(10, 10, 20), 10);
        assert_int_equal(delegate_stopped(20, 10, 20), 20);
        assert_int_equal(delegate_stopped(15, 10, 20), 15);
        assert_int_equal(delegate_stopped(9, 10, 20), 10);
        assert_int_equal(delegate_stopped(21, 10, 20), 10);
}

static void test_a_pause_without_an_answer_counts_from_the_question(void **state)
{
        uint64_t before;
        Rig rig;

        rig_init(&rig);
        assert_done(&rig, VMM_ACT_PREPARE, "running", "Prepare GetState ");
        rig.hold = "Pause";
        before = clock_monotonic_usec();
        act(&rig, VMM_ACT_HALT, 20 * USEC_PER_MSEC);
        assert_int_equal(rig.status, -ETIMEDOUT);
        assert_says(&rig, "Pause: no answer in time");
        assert_in_range(rig.halted_usec, before, clock_monotonic_usec() - 20 * USEC_PER_MSEC);
        rig_deinit(&rig);
}

static void test_memory_may_come_before_or_after(void **state)
{
        for (int after = 0; after < 2; after++) {
                Rig rig;
                int peer;

                rig_init(&rig);
                assert_done(&rig, VMM_ACT_START, "incoming", "Prepare GetState ");
                rig.asked[0] = 0;
                rig.state = "complete";
                if (!after)
                        give_memory(&rig, &peer);
                vmm_act(rig.vmm, VMM_ACT_TAKE_IN, 99, 0);
                if (after) {
                        settle(&rig);
                        assert_string_equal(rig.asked, "");
                        give_memory(&rig, &peer);
                }
                run(&rig, LONG);
                assert_string_equal(rig.asked, "Load GetState ");
                assert_int_equal(rig.step, 99);
                assert_int_equal(rig.status, 0);
                (void) close(peer);
                rig_deinit(&rig);
        }
}

static void test_there_is_no_saving_without_memory(void **state)
{
        Rig rig;

        rig_init(&rig);
        act(&rig, VMM_ACT_MIGRATE, LONG);
        assert_int_equal(rig.status, -ENOTCONN);
        assert_string_equal(rig.asked, "");
        rig_deinit(&rig);
}

static void test_a_newer_act_displaces_an_older_one(void **state)
{
        Rig rig;
        int peer;

        rig_init(&rig);
        give_memory(&rig, &peer);
        rig.hold = "Save";
        vmm_act(rig.vmm, VMM_ACT_MIGRATE, 1000, LONG);
        settle(&rig);
        assert_int_equal(rig.n_held, 1);
        assert_done(&rig, VMM_ACT_RESUME, "running", "Resume GetState ");
        let_go(&rig, FAILED);
        settle(&rig);
        assert_int_equal(rig.n_answers, 1);
        (void) close(peer);
        rig_deinit(&rig);
}

static void test_what_decides_is_read_when_an_answer_is_lost(void **state)
{
        static const struct {
                VmmAct act;
                const char *method, *state;
        } cases[] = {{VMM_ACT_RUN, "Start", "running"},
                     {VMM_ACT_RESUME, "Resume", "running"},
                     {VMM_ACT_END, "Discard", "none"}};

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
                for (int good = 0; good < 2; good++)
                        for (int held = 0; held < 2; held++) {
                                Rig rig;

                                rig_init(&rig);
                                *(held ? &rig.hold : &rig.fail) = cases[i].method;
                                rig.state = good ? cases[i].state : "paused";
                                vmm_act(rig.vmm, cases[i].act, 1, LONG);
                                if (held) /* of half a minute; an answer that is late must not look like none */
                                        ((Delegate *) rig.vmm)->patience_usec = USEC_PER_MSEC;
                                run(&rig, LONG);
                                assert_int_equal(rig.n_answers, 1);
                                assert_int_equal(rig.status, good ? 0 : held ? -ETIMEDOUT : -EREMOTEIO);
                                if (!good)
                                        assert_says(&rig, cases[i].method);
                                rig_deinit(&rig);
                        }
}

static void test_an_error_is_shown_and_what_to_do(void **state)
{
        Rig rig;

        rig_init(&rig);
        rig.fail = "Prepare";
        act(&rig, VMM_ACT_PREPARE, LONG);
        assert_int_equal(rig.status, -EREMOTEIO);
        assert_string_equal(rig.text, "Prepare: " FAILED ": no?[1m; see its log");
        assert_string_equal(rig.asked, "Prepare ");
        rig_deinit(&rig);
}

static void test_errors_have_a_remedy_and_their_end(void **state)
{
        static const struct {
                const char *name;
                int status;
        } cases[] = {{"org.migmgr1.Delegate.Error.Job", -EREMOTEIO},
                     {"org.freedesktop.DBus.Error.NoReply", -ECONNRESET},
                     {"org.freedesktop.DBus.Error.ServiceUnknown", -ECONNRESET},
                     {"org.freedesktop.DBus.Error.UnknownObject", -EREMOTEIO},
                     {"x", -EREMOTEIO},
                     {"", -EREMOTEIO}};
        char huge[4096], text[DELEGATE_TEXT_MAX];

        memset(huge, '\n', sizeof huge - 1);
        huge[sizeof huge - 1] = 0;
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                assert_int_equal(delegate_error("Seal", cases[i].name, huge, text, sizeof text),
                                 cases[i].status);
                assert_memory_equal(text, "Seal: ", 6);
                assert_null(strchr(text, '\n'));
                assert_non_null(strstr(text, "; "));
                assert_true(strlen(text) < 400);
        }
        assert_int_equal(delegate_error(huge, huge, huge, text, sizeof text), -EREMOTEIO);
}

/* ---- pages that devices wrote -------------------------------------------------------------------------------- */

static void give_dirty(Rig *rig, uint32_t n)
{
        for (uint32_t i = 0; i < n; i++) {
                uint64_t word = 0x100 + i;
                int fd = memfd_create("dirty", MFD_CLOEXEC);

                assert_true(fd >= 0);
                assert_int_equal(write(fd, &word, sizeof word), sizeof word);
                vmm_take_dirty(rig->vmm, i * 0x100000, 4096, 64 + i, fd);
        }
}

static void test_the_seal_waits_for_all_dirty_pages(void **state)
{
        Rig rig;

        rig_init(&rig);
        assert_done(&rig, VMM_ACT_HALT, "paused", "Pause GetState ");
        rig.hold = "TakeDirtyPages";
        rig.asked[0] = 0;
        give_dirty(&rig, 20);
        rig.state = "sealed";
        vmm_act(rig.vmm, VMM_ACT_SEAL, 7, LONG);
        for (uint32_t taken = 0; taken < 20; taken++) {
                settle(&rig);
                assert_in_range(rig.n_held, 1, 8); /* many at a time, but not all */
                assert_int_equal(rig.n_held, MIN(8, 20 - taken));
                assert_null(strstr(rig.asked, "Seal"));
                assert_int_equal(rig.n_answers, 1);
                let_go(&rig, NULL);
        }
        run(&rig, LONG);
        assert_int_equal(rig.n_answers, 2);
        assert_int_equal(rig.status, 0);
        assert_non_null(strstr(rig.asked, "TakeDirtyPages Seal GetState "));
        assert_int_equal(rig.n_dirty, 20);
        for (uint32_t i = 0; i < 20; i++) {
                assert_int_equal(rig.dirty[i].address, i * 0x100000);
                assert_int_equal(rig.dirty[i].size, 4096);
                assert_int_equal(rig.dirty[i].pages, 64 + i);
                assert_int_equal(rig.dirty[i].word, 0x100 + i);
        }
        rig_deinit(&rig);
}

/* Before the seal is asked for, and after. */
static void test_dirty_pages_that_are_not_taken_fail_the_seal(void **state)
{
        for (int after = 0; after < 2; after++) {
                Rig rig;

                rig_init(&rig);
                assert_done(&rig, VMM_ACT_HALT, "paused", "Pause GetState ");
                rig.hold = "TakeDirtyPages";
                give_dirty(&rig, 20);
                rig.asked[0] = 0;
                if (after)
                        vmm_act(rig.vmm, VMM_ACT_SEAL, 7, LONG);
                settle(&rig);
                let_go(&rig, NULL);
                let_go(&rig, FAILED);
                settle(&rig);
                settle(&rig); /* the first ends with the answer to the seal */
                if (!after)
                        act(&rig, VMM_ACT_SEAL, LONG);
                assert_int_equal(rig.status, -EREMOTEIO);
                assert_says(&rig, "65 pages at 0x100000 that a device has written: TakeDirtyPages: " FAILED);
                assert_null(strstr(rig.asked, "Seal"));
                /* What comes after it is of no use, and closed. */
                give_dirty(&rig, 1);
                act(&rig, VMM_ACT_SEAL, LONG);
                assert_int_equal(rig.status, -EREMOTEIO);
                /* Nor does it matter when the job was turned back. */
                rig.hold = NULL;
                assert_done(&rig, VMM_ACT_RESUME, "running", "Resume GetState ");
                assert_done(&rig, VMM_ACT_HALT, "paused", "Pause GetState ");
                assert_done(&rig, VMM_ACT_SEAL, "sealed", "Seal GetState ");
                rig_deinit(&rig);
        }
}

static void test_a_hang_over_dirty_pages_is_named(void **state)
{
        Rig rig;

        rig_init(&rig);
        assert_done(&rig, VMM_ACT_HALT, "paused", "Pause GetState ");
        rig.hold = "TakeDirtyPages";
        give_dirty(&rig, 1);
        act(&rig, VMM_ACT_SEAL, 20 * USEC_PER_MSEC);
        assert_int_equal(rig.status, -ETIMEDOUT);
        assert_says(&rig, "TakeDirtyPages: no answer in time");
        rig_deinit(&rig);
}

static void test_dirty_pages_of_nobody_fail_the_seal(void **state)
{
        Rig rig;

        rig_init(&rig);
        give_dirty(&rig, 2);
        act(&rig, VMM_ACT_SEAL, LONG);
        assert_int_equal(rig.status, -ECONNRESET);
        rig_deinit(&rig);
}

/* ---- signals ------------------------------------------------------------------------------------------------- */

static void test_only_its_own_connection_is_believed(void **state)
{
        Rig rig;

        rig_init(&rig);
        say(&rig, OWNER, "Resumed", "s", JOB); /* who it is is not known yet */
        assert_done(&rig, VMM_ACT_PREPARE, "running", "Prepare GetState ");
        say(&rig, ":1.8", "Resumed", "s", JOB);
        say(&rig, OWNER, "Resumed", "s", OTHER);
        say(&rig, OWNER, "Resumed", "u", 1);
        say(&rig, OWNER, "Resumed", "ss", JOB, "more");
        say(&rig, OWNER, "Progress", "stt", OTHER, UINT64_C(1), UINT64_C(2));
        say(&rig, OWNER, "Progress", "sxx", JOB, INT64_C(1), INT64_C(2));
        say(&rig, ":1.8", "Progress", "stt", JOB, UINT64_C(1), UINT64_C(2));
        say(&rig, OWNER, "Else", "s", JOB);
        settle(&rig);
        assert_int_equal(rig.n_resumed + rig.n_progress, 0);
        say(&rig, OWNER, "Resumed", "s", JOB);
        say(&rig, OWNER, "Progress", "stt", JOB, UINT64_C(1), UINT64_C(2));
        settle(&rig);
        assert_int_equal(rig.n_resumed, 1);
        assert_int_equal(rig.n_progress, 1);
        rig_deinit(&rig);
}

static void test_who_was_asked_to_resume_needs_not_say_so(void **state)
{
        Rig rig;

        rig_init(&rig);
        rig.hold = "Resume";
        vmm_act(rig.vmm, VMM_ACT_RESUME, 1, LONG);
        settle(&rig);
        say(&rig, OWNER, "Resumed", "s", JOB);
        settle(&rig);
        assert_int_equal(rig.n_resumed, 0);
        rig_deinit(&rig);
}

/* ---- its process --------------------------------------------------------------------------------------------- */

static pid_t start_process(void)
{
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0) {
                (void) prctl(PR_SET_PDEATHSIG, SIGKILL); /* when a test fails in between */
                (void) pause();
                _exit(0);
        }
        return pid;
}

static void end_process(pid_t pid)
{
        (void) kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void test_it_is_gone_with_its_process(void **state)
{
        Rig rig;
        int peer;
        char c;

        rig_init(&rig);
        rig.pid = start_process();
        assert_done(&rig, VMM_ACT_PREPARE, "running", "Prepare GetState ");
        give_memory(&rig, &peer);
        rig.hold = "Save";
        vmm_act(rig.vmm, VMM_ACT_MIGRATE, 7, LONG);
        settle(&rig);
        end_process(rig.pid);
        run(&rig, LONG);
        assert_int_equal(rig.n_gone, 1);
        assert_int_equal(rig.n_answers, 1); /* that of Prepare */
        (void) close(TAKE_FD(rig.memory_fd));
        assert_int_equal(read(peer, &c, 1), 0);
        (void) close(peer);
        rig_deinit(&rig);
}

static void test_who_dies_while_it_is_ended_has_ended(void **state)
{
        Rig rig;

        rig_init(&rig);
        rig.pid = start_process();
        assert_done(&rig, VMM_ACT_PREPARE, "running", "Prepare GetState ");
        rig.hold = "Discard";
        vmm_act(rig.vmm, VMM_ACT_END, 7, LONG);
        settle(&rig);
        end_process(rig.pid);
        run(&rig, LONG);
        assert_int_equal(rig.n_answers, 2);
        assert_int_equal(rig.status, 0);
        rig_deinit(&rig);
}

/* What an error of the bus means is only known a moment later. */
static void test_a_lost_connection_is_not_a_death(void **state)
{
        for (int dies = 0; dies < 2; dies++) {
                Rig rig;

                rig_init(&rig);
                rig.pid = start_process();
                rig.hold = "Prepare";
                vmm_act(rig.vmm, VMM_ACT_PREPARE, 7, LONG);
                settle(&rig);
                let_go(&rig, "org.freedesktop.DBus.Error.NoReply");
                settle(&rig);
                assert_int_equal(rig.n_answers + rig.n_gone, 0);
                if (dies)
                        end_process(rig.pid);
                run(&rig, LONG);
                assert_int_equal(rig.n_gone, dies);
                assert_int_equal(rig.n_answers, !dies);
                if (!dies) {
                        assert_int_equal(rig.status, -ECONNRESET);
                        end_process(rig.pid);
                }
                rig_deinit(&rig);
        }
}

static void test_another_process_is_not_called(void **state)
{
        Rig rig;
        pid_t was = start_process();

        rig_init(&rig);
        rig.pid = was;
        rig.fail = "Prepare";
        act(&rig, VMM_ACT_PREPARE, LONG);
        ((Delegate *) rig.vmm)->owner[0] = 0; /* as NameOwnerChanged does */
        rig.pid = getpid();
        act(&rig, VMM_ACT_PREPARE, LONG);
        assert_int_equal(rig.status, -EADDRINUSE);
        assert_says(&rig, "belongs to process");
        assert_string_equal(rig.asked, "");
        end_process(was);
        run(&rig, LONG);
        assert_int_equal(rig.n_gone, 1);
        act(&rig, VMM_ACT_LOOK, LONG); /* the VM's own is gone: whoever is there now may be looked at */
        assert_int_equal(rig.status, 0);
        rig_deinit(&rig);
}

/* ---- find, see ----------------------------------------------------------------------------------------------- */

static void test_find_says_who_is_there(void **state)
{
        static const int expect[] = {0, -ENOENT, -ESTALE, 0};

        for (int i = 0; i < 4; i++) {
                Rig rig;

                rig_init(&rig);
                rig.absent = i == 1;
                rig.uuid = i == 2 ? OTHER : UUID;
                rig.state = i == 3 ? "none" : "running";
                vmm_find(rig.vmm, on_found, &rig);
                run(&rig, LONG);
                assert_int_equal(rig.status, expect[i]);
                assert_false(rig.vmm->asked);
                /* A delegate without a VM is not the VM's process. */
                assert_int_equal(rig.vmm->process.pid, i == 0 || i == 2 ? getpid() : 0);
                rig_deinit(&rig);
        }
}

/* Who says nothing has confirmed nothing; what makes no sense is no answer at all. */
static void test_what_it_need_not_say_is_heard(void **state)
{
        static const DeviceDefinition nic = {.type = DEVICE_TYPE_VFIO_USER, .broker = "/run/nic.sock"},
                                      disk = {.type = DEVICE_TYPE_VFIO_USER, .broker = "/run/disk.sock"},
                                      gpu = {.type = DEVICE_TYPE_VFIO, .vmm_device = "gpu"};

        for (int more = 0; more < 3; more++) {
                Rig rig;

                rig_init(&rig);
                rig.more = more;
                vmm_find(rig.vmm, on_found, &rig);
                run(&rig, LONG);
                assert_int_equal(rig.status, more == 2 ? -EPROTO : 0);
                assert_int_equal(rig.vmm->facts.viommu, more == 1);
                assert_int_equal(vmm_isolation(rig.vmm, &nic),
                                 more == 1 ? DEVICE_ISOLATION_FULL : DEVICE_ISOLATION_UNKNOWN);
                assert_int_equal(vmm_isolation(rig.vmm, &gpu),
                                 more == 1 ? DEVICE_ISOLATION_FULL : DEVICE_ISOLATION_UNKNOWN);
                assert_int_equal(vmm_isolation(rig.vmm, &disk),
                                 more == 1 ? DEVICE_ISOLATION_NONE : DEVICE_ISOLATION_UNKNOWN);
                /* It may say something else the next time. */
                rig.more = 0;
                vmm_find(rig.vmm, on_found, &rig);
                run(&rig, LONG);
                assert_int_equal(rig.status, 0);
                assert_false(rig.vmm->facts.viommu);
                assert_int_equal(vmm_isolation(rig.vmm, &gpu), DEVICE_ISOLATION_UNKNOWN);
                rig_deinit(&rig);
        }
}

static void test_a_restarted_daemon_sees_how_it_stands(void **state)
{
        static const struct {
                const char *state;
                VmmSight sight, other; /* for this job, for another */
        } cases[] = {
                {"none", {}, {}},
                {"running", {true, true, false}, {true, true, false}},
                {"paused", {true, false, false}, {true, false, false}},
                {"sealed", {true, false, false}, {true, false, false}},
                {"incoming", {true, false, false}, {true, false, false}},
                {"complete", {true, false, true}, {true, false, false}},
                {"flying", {true, false, false}, {true, false, false}}, /* its process is there */
        };
        ProcessId own;

        assert_int_equal(process_id_read(getpid(), &own), 0);
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
                for (int other = 0; other < 2; other++)
                        for (int known = 0; known < 2; known++) {
                                const VmmSight *expect = other ? &cases[i].other : &cases[i].sight;
                                Rig rig;

                                rig_init(&rig);
                                rig.state = cases[i].state;
                                rig.job = other ? OTHER : JOB;
                                vmm_see(rig.vmm, known ? &own : &(ProcessId){}, on_seen, &rig);
                                run(&rig, LONG);
                                assert_true(rig.seen);
                                assert_int_equal(rig.sight.lives, expect->lives);
                                assert_int_equal(rig.sight.runs, expect->runs);
                                assert_int_equal(rig.sight.complete, expect->complete);
                                rig_deinit(&rig);
                        }
}

static void test_the_process_of_the_record_is_the_only_one(void **state)
{
        ProcessId was;
        Rig rig;

        rig_init(&rig);
        rig.pid = start_process();
        assert_int_equal(process_id_read(rig.pid, &was), 0);
        /* It is there, but not on the bus. */
        rig.absent = true;
        vmm_see(rig.vmm, &was, on_seen, &rig);
        run(&rig, LONG);
        assert_true(rig.seen && rig.sight.lives && !rig.sight.runs);
        end_process(rig.pid);
        run(&rig, LONG);
        assert_int_equal(rig.n_gone, 1);
        /* It is gone, and another has its name. */
        rig.absent = rig.seen = false;
        rig.pid = getpid();
        vmm_see(rig.vmm, &was, on_seen, &rig);
        assert_true(rig.seen && !rig.sight.lives);
        rig_deinit(&rig);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_acts_are_methods_and_their_ends_are_read_back),
                cmocka_unit_test(test_limits_go_with_the_job),
                cmocka_unit_test(test_a_good_answer_without_the_state_is_a_failure),
                cmocka_unit_test(test_what_is_said_of_a_time_is_weighed),
                cmocka_unit_test(test_a_pause_without_an_answer_counts_from_the_question),
                cmocka_unit_test(test_memory_may_come_before_or_after),
                cmocka_unit_test(test_there_is_no_saving_without_memory),
                cmocka_unit_test(test_a_newer_act_displaces_an_older_one),
                cmocka_unit_test(test_what_decides_is_read_when_an_answer_is_lost),
                cmocka_unit_test(test_an_error_is_shown_and_what_to_do),
                cmocka_unit_test(test_errors_have_a_remedy_and_their_end),
                cmocka_unit_test(test_the_seal_waits_for_all_dirty_pages),
                cmocka_unit_test(test_dirty_pages_that_are_not_taken_fail_the_seal),
                cmocka_unit_test(test_a_hang_over_dirty_pages_is_named),
                cmocka_unit_test(test_dirty_pages_of_nobody_fail_the_seal),
                cmocka_unit_test(test_only_its_own_connection_is_believed),
                cmocka_unit_test(test_who_was_asked_to_resume_needs_not_say_so),
                cmocka_unit_test(test_it_is_gone_with_its_process),
                cmocka_unit_test(test_who_dies_while_it_is_ended_has_ended),
                cmocka_unit_test(test_a_lost_connection_is_not_a_death),
                cmocka_unit_test(test_another_process_is_not_called),
                cmocka_unit_test(test_find_says_who_is_there),
                cmocka_unit_test(test_what_it_need_not_say_is_heard),
                cmocka_unit_test(test_a_restarted_daemon_sees_how_it_stands),
                cmocka_unit_test(test_the_process_of_the_record_is_the_only_one),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
