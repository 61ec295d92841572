/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Calls in a thread of their own: in order, one at a time back in the loop; and one that hangs is left. */

#include <poll.h>

#include "daemon/agent/call-worker.h"
#include "test.h"

/* A call that returns when there is something in its pipe. */
typedef struct Blocking {
        WorkerCall call;
        int number, pipe[2];
        int begun; /* atomic */
} Blocking;

static struct event_base *base;
static int done[8], n_done, n_dropped, ended;

static void run(WorkerCall *call)
{
        char byte;

        __atomic_store_n(&((Blocking *) call)->begun, 1, __ATOMIC_SEQ_CST);
        assert_int_equal(read(((Blocking *) call)->pipe[0], &byte, 1), 1);
}

static void close_pipe(Blocking *b)
{
        (void) close(b->pipe[0]);
        (void) close(b->pipe[1]);
        free(b);
}

static void on_done(WorkerCall *call)
{
        done[n_done++] = ((Blocking *) call)->number;
        close_pipe((Blocking *) call);
}

static void on_drop(WorkerCall *call)
{
        __atomic_add_fetch(&n_dropped, 1, __ATOMIC_SEQ_CST);
        close_pipe((Blocking *) call);
}

static void on_end(void *userdata)
{
        __atomic_store_n((int *) userdata, 1, __ATOMIC_SEQ_CST);
}

static Blocking *new_call(int number)
{
        Blocking *b = calloc(1, sizeof *b);

        assert_non_null(b);
        *b = (Blocking){.call = {.run = run, .done = on_done, .drop = on_drop}, .number = number};
        assert_int_equal(pipe(b->pipe), 0);
        return b;
}

static void let_go(const Blocking *b)
{
        assert_int_equal(write(b->pipe[1], "", 1), 1);
}

/* Until the thread is in this call: it can't be taken back then. */
static void wait_until_begun(Blocking *b)
{
        while (!__atomic_load_n(&b->begun, __ATOMIC_SEQ_CST))
                (void) poll(NULL, 0, 1);
}

static int set_up(void **state)
{
        base = event_base_new();
        n_done = n_dropped = ended = 0;
        return 0;
}

static int tear_down(void **state)
{
        event_base_free(base);
        return 0;
}

static void test_calls_come_back_in_order(void **state)
{
        CallWorker *worker;

        assert_int_equal(call_worker_new(base, &worker), 0);
        for (int i = 0; i < 8; i++) {
                Blocking *b = new_call(i);

                let_go(b);
                call_worker_do(worker, &b->call);
        }
        while (n_done < 8)
                assert_int_equal(event_base_loop(base, EVLOOP_ONCE), 0);
        for (int i = 0; i < 8; i++)
                assert_int_equal(done[i], i);
        call_worker_free(worker, on_end, &ended);
        assert_int_equal(ended, 1);
}

static void test_a_call_that_has_not_begun_can_be_taken_back(void **state)
{
        Blocking *first = new_call(1), *second = new_call(2), *third = new_call(3);
        CallWorker *worker;

        assert_int_equal(call_worker_new(base, &worker), 0);
        call_worker_do(worker, &first->call);
        call_worker_do(worker, &second->call);
        wait_until_begun(first);
        assert_true(call_worker_withdraw(worker, &second->call));
        assert_false(call_worker_withdraw(worker, &second->call));
        close_pipe(second);
        call_worker_do(worker, &third->call); /* the queue's end is where it was */
        let_go(first);
        let_go(third);
        while (n_done < 2)
                assert_int_equal(event_base_loop(base, EVLOOP_ONCE), 0);
        assert_int_equal(done[0], 1);
        assert_int_equal(done[1], 3);
        call_worker_free(worker, on_end, &ended);
}

static void test_who_leaves_does_not_wait_for_a_call_that_hangs(void **state)
{
        Blocking *hangs = new_call(1), *waits = new_call(2);
        CallWorker *worker;

        assert_int_equal(call_worker_new(base, &worker), 0);
        call_worker_do(worker, &hangs->call);
        call_worker_do(worker, &waits->call);
        wait_until_begun(hangs);
        call_worker_free(worker, on_end, &ended);
        assert_int_equal(__atomic_load_n(&ended, __ATOMIC_SEQ_CST), 0); /* what it holds is in use */
        let_go(hangs);
        while (!__atomic_load_n(&ended, __ATOMIC_SEQ_CST))
                (void) poll(NULL, 0, 1);
        assert_int_equal(__atomic_load_n(&n_dropped, __ATOMIC_SEQ_CST), 2);
        assert_int_equal(n_done, 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_calls_come_back_in_order, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_a_call_that_has_not_begun_can_be_taken_back, set_up,
                                                tear_down),
                cmocka_unit_test_setup_teardown(test_who_leaves_does_not_wait_for_a_call_that_hangs, set_up,
                                                tear_down),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
