/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A QEMU that says what it is told to, over a real socket, on the same loop: what it has written can be read at once, so
 * a few turns of the loop are enough and nothing is waited for but deadlines of a millisecond. */

#include "common/socket.h"
#include "daemon/vmm/qmp.h"
#include "scratch.h"

#define TURNS    64
#define GREETING "{\"QMP\":{\"version\":{},\"capabilities\":[\"oob\"]}}\n"
#define LONG     (60 * USEC_PER_SEC)

typedef enum Note { NOTE_READY, NOTE_EVENT, NOTE_ENDED, NOTE_ANSWER } Note;

typedef struct Rig {
        Scratch scratch;
        Loop *loop;
        LoopTimer *turn;
        Qmp *qmp;
        int listener, peer;
        /* What came, in order. */
        uint32_t n;
        struct {
                Note note;
                int id, status;
                char text[128];
        } notes[64];
        uint32_t wanted; /* the loop ends when so many have come */
        int free_in;     /* a Note: the connection is freed when it comes */
        int again_in;    /* a Note: one more command is given when it comes */
        size_t n_line;
        char line[4096]; /* what QEMU was asked and has not read yet */
} Rig;

/* A command: `id` is the test's. */
typedef struct Call {
        Rig *rig;
        int id;
} Call;

static Call calls[64];

static void on_answer(void *userdata, int status, json_object *result, const char *text);

static void rig_execute(Rig *rig, int id, uint64_t deadline_usec)
{
        calls[id] = (Call){rig, id};
        qmp_execute(rig->qmp, "query-status", NULL, -1, deadline_usec, on_answer, &calls[id]);
}

static void note(Rig *rig, Note what, int id, int status, const char *text)
{
        assert_true(rig->n < ARRAY_SIZE(rig->notes));
        rig->notes[rig->n].note = what;
        rig->notes[rig->n].id = id;
        rig->notes[rig->n].status = status;
        (void) snprintf(rig->notes[rig->n].text, sizeof rig->notes[0].text, "%s", text);
        rig->n++;
        if (rig->again_in == (int) what) {
                rig->again_in = -1;
                rig_execute(rig, 63, LONG);
        }
        if (rig->free_in == (int) what) {
                rig->free_in = -1;
                rig->qmp = qmp_free(rig->qmp);
        }
        if (rig->n >= rig->wanted)
                loop_quit(rig->loop);
}

static void on_answer(void *userdata, int status, json_object *result, const char *text)
{
        Call *call = userdata;

        if (status < 0)
                assert_null(result);
        note(call->rig, NOTE_ANSWER, call->id, status,
             status < 0 ? text : json_object_to_json_string_ext(result, JSON_C_TO_STRING_PLAIN));
}

static void on_ready(void *userdata)
{
        note(userdata, NOTE_READY, 0, 0, "");
}

static void on_event(void *userdata, const char *name, json_object *data)
{
        note(userdata, NOTE_EVENT, 0, 0, name);
}

static void on_ended(void *userdata, int status, const char *text)
{
        note(userdata, NOTE_ENDED, 0, status, text);
}

static void on_turn(void *userdata)
{
        loop_quit(((Rig *) userdata)->loop);
}

/* Until nothing more can happen by itself. */
static void rig_turn(Rig *rig)
{
        rig->wanted = UINT32_MAX;
        for (int i = 0; i < TURNS; i++) {
                loop_timer_soon(rig->turn);
                assert_int_equal(loop_run(rig->loop), 0);
        }
}

/* Until `n` things have come, by the clock. */
static void rig_await(Rig *rig, uint32_t n)
{
        rig->wanted = n;
        if (rig->n < n)
                assert_int_equal(loop_run(rig->loop), 0);
        assert_int_equal(rig->n, n);
}

static void rig_init(Rig *rig, uint64_t greeting_usec)
{
        static const QmpListener listener = {on_ready, on_event, on_ended};

        *rig = (Rig){.free_in = -1, .again_in = -1};
        scratch_init(&rig->scratch);
        assert_int_equal(loop_new(&rig->loop), 0);
        assert_int_equal(loop_timer_new(rig->loop, on_turn, rig, &rig->turn), 0);
        rig->listener = socket_listen(scratch_path(&rig->scratch, "qmp.sock"), SOCK_STREAM);
        assert_true(rig->listener >= 0);
        assert_int_equal(qmp_new(rig->loop, rig->scratch.path, greeting_usec, &listener, rig, &rig->qmp), 0);
        rig->peer = accept(rig->listener, NULL, NULL);
        assert_true(rig->peer >= 0);
        rig->n_line = 0;
}

static void rig_deinit(Rig *rig)
{
        rig->qmp = qmp_free(rig->qmp);
        if (rig->peer >= 0)
                (void) close(rig->peer);
        (void) close(rig->listener);
        loop_timer_free(rig->turn);
        loop_free(rig->loop);
        scratch_deinit(&rig->scratch);
}

/* QEMU says these bytes, as they are, while migmgr reads. */
static void say_bytes(Rig *rig, const char *bytes, size_t size)
{
        while (size > 0) {
                ssize_t n = send(rig->peer, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);

                if (n < 0 && errno == EPIPE)
                        return; /* given up: there is nobody left to tell */
                if (n < 0) {
                        assert_int_equal(errno, EAGAIN);
                        n = 0;
                }
                bytes += n;
                size -= (size_t) n;
                rig_turn(rig);
                if (n == 0 && rig->n > 0 && rig->notes[rig->n - 1].note == NOTE_ENDED)
                        return; /* nobody reads any more */
        }
}

static void say(Rig *rig, const char *text)
{
        say_bytes(rig, text, strlen(text));
}

/* The next command that QEMU reads; the caller's to put. */
static json_object *hear(Rig *rig)
{
        JsonReader reader = {.where = "command"};
        json_object *object;
        char *end;
        ssize_t n = recv(rig->peer, rig->line + rig->n_line, sizeof rig->line - rig->n_line, MSG_DONTWAIT);

        if (n > 0)
                rig->n_line += (size_t) n;
        end = memchr(rig->line, '\n', rig->n_line);
        assert_non_null(end);
        object = json_parse(&reader, rig->line, (size_t) (end - rig->line));
        assert_non_null(object);
        rig->n_line -= (size_t) (end + 1 - rig->line);
        memmove(rig->line, end + 1, rig->n_line);
        return object;
}

/* The id of the next command, which must be this one. */
static int hear_command(Rig *rig, const char *how, const char *command)
{
        json_object *object = hear(rig);
        int id = json_object_get_int(json_object_object_get(object, "id"));

        assert_string_equal(json_object_get_string(json_object_object_get(object, how)), command);
        json_object_put(object);
        return id;
}

static void say_return(Rig *rig, int id, const char *result)
{
        char text[256];

        (void) snprintf(text, sizeof text, "{\"return\":%s,\"id\":%d}\r\n", result, id);
        say(rig, text);
}

/* Greeted and ready; nothing noted. */
static void rig_init_ready(Rig *rig)
{
        rig_init(rig, LONG);
        say(rig, GREETING);
        say_return(rig, hear_command(rig, "execute", "qmp_capabilities"), "{}");
        assert_int_equal(rig->n, 1);
        assert_int_equal(rig->notes[0].note, NOTE_READY);
        rig->n = 0;
}

static void assert_note(const Rig *rig, uint32_t i, Note what, int id, int status)
{
        assert_true(i < rig->n);
        assert_int_equal(rig->notes[i].note, what);
        assert_int_equal(rig->notes[i].id, id);
        assert_int_equal(rig->notes[i].status, status);
}

/* ---- the beginning ----------------------------------------------------------------------------------------------- */

static void test_a_greeting_is_answered_with_what_it_offers(void **state)
{
        static const struct {
                const char *greeting, *enable;
        } cases[] = {
                {GREETING, "[\"oob\"]"},
                {"{\"QMP\":{\"capabilities\":[]}}\r\n", "[]"},
                {"{\"QMP\":{\"capabilities\":[\"new\",7,null,\"oob\"]},\"more\":1}\n", "[\"oob\"]"},
        };

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                json_object *command, *arguments;
                pid_t pid;
                Rig rig;

                rig_init(&rig, LONG);
                assert_false(qmp_is_ready(rig.qmp));
                say(&rig, cases[i].greeting);
                assert_int_equal(rig.n, 0);
                command = hear(&rig);
                arguments = json_object_object_get(command, "arguments");
                assert_string_equal(json_object_get_string(json_object_object_get(command, "execute")),
                                    "qmp_capabilities");
                assert_string_equal(
                        json_object_to_json_string_ext(json_object_object_get(arguments, "enable"),
                                                       JSON_C_TO_STRING_PLAIN),
                        cases[i].enable);
                say_return(&rig, json_object_get_int(json_object_object_get(command, "id")), "{}");
                json_object_put(command);
                assert_int_equal(rig.n, 1);
                assert_note(&rig, 0, NOTE_READY, 0, 0);
                assert_true(qmp_is_ready(rig.qmp));
                assert_int_equal(qmp_has_oob(rig.qmp), strlen(cases[i].enable) > 2);
                assert_int_equal(qmp_peer(rig.qmp, &pid), 0);
                assert_int_equal(pid, getpid());
                rig_deinit(&rig);
        }
}

static void test_who_does_not_greet_is_no_monitor(void **state)
{
        static const char *const texts[] = {
                "{}\n",
                "{\"QMP\":7}\n",
                "{\"QMP\":{}}\n",
                "{\"QMP\":{\"capabilities\":{}}}\n",
                "{\"event\":\"STOP\"}\n",
                "{\"return\":{},\"id\":1}\n",
                "HTTP/1.1 400 Bad Request\r\n",
                "[]\n",
                "null\n",
        };

        for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
                Rig rig;

                rig_init(&rig, LONG);
                say(&rig, texts[i]);
                assert_int_equal(rig.n, 1);
                assert_note(&rig, 0, NOTE_ENDED, 0, -EPROTO);
                rig_deinit(&rig);
        }
}

static void test_a_monitor_with_another_client_is_not_waited_for(void **state)
{
        for (int greets = 0; greets < 2; greets++) {
                Rig rig;

                rig_init(&rig, greets ? 20 * USEC_PER_MSEC : USEC_PER_MSEC);
                if (greets)
                        say(&rig, GREETING); /* and then says nothing to our first command */
                rig_await(&rig, 1);
                assert_note(&rig, 0, NOTE_ENDED, 0, -ETIMEDOUT);
                rig_deinit(&rig);
        }
}

static void test_where_nobody_listens_is_said_at_once(void **state)
{
        static const QmpListener listener = {on_ready, on_event, on_ended};
        Qmp *qmp = NULL;
        Rig rig;

        rig_init(&rig, LONG);
        assert_int_equal(qmp_new(rig.loop, "/nonexistent/qmp.sock", 1, &listener, &rig, &qmp), -ENOENT);
        assert_null(qmp);
        assert_int_equal(rig.n, 0);
        rig_deinit(&rig);
}

static void test_refused_capabilities_end_it(void **state)
{
        char text[128];
        Rig rig;

        rig_init(&rig, LONG);
        say(&rig, GREETING);
        (void) snprintf(text, sizeof text, "{\"error\":{\"desc\":\"no\"},\"id\":%d}\n",
                        hear_command(&rig, "execute", "qmp_capabilities"));
        say(&rig, text);
        assert_int_equal(rig.n, 1);
        assert_note(&rig, 0, NOTE_ENDED, 0, -EREMOTEIO);
        assert_string_equal(rig.notes[0].text, "no");
        rig_deinit(&rig);
}

/* ---- answers and events ------------------------------------------------------------------------------------------ */

static void test_answers_find_their_commands_whatever_comes_between(void **state)
{
        int ids[3];
        Rig rig;

        rig_init_ready(&rig);
        for (int i = 0; i < 3; i++) {
                rig_execute(&rig, i, LONG);
                ids[i] = hear_command(&rig, "execute", "query-status");
        }
        assert_true(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
        say_return(&rig, ids[2], "{\"c\":1}");
        say(&rig, "{\"event\":\"STOP\",\"timestamp\":{}}\n\n\r\n");
        say_return(&rig, ids[0], "[]");
        say(&rig, "{\"event\":\"RESUME\",\"data\":{\"a\":1}}\n");
        say_return(&rig, ids[1], "7");
        assert_int_equal(rig.n, 5);
        assert_note(&rig, 0, NOTE_ANSWER, 2, 0);
        assert_string_equal(rig.notes[0].text, "{\"c\":1}");
        assert_note(&rig, 1, NOTE_EVENT, 0, 0);
        assert_string_equal(rig.notes[1].text, "STOP");
        assert_note(&rig, 2, NOTE_ANSWER, 0, 0);
        assert_string_equal(rig.notes[3].text, "RESUME");
        assert_note(&rig, 4, NOTE_ANSWER, 1, 0);
        rig_deinit(&rig);
}

static void test_a_refusal_is_told_in_qemus_words(void **state)
{
        static const struct {
                const char *error, *text;
        } cases[] = {
                {"{\"class\":\"GenericError\",\"desc\":\"Not now\"}", "Not now"},
                {"{\"class\":\"GenericError\"}", "QEMU refused, without a reason"},
                {"{\"desc\":7}", "QEMU refused, without a reason"},
                {"\"no\"", "QEMU refused, without a reason"},
                {"null", "QEMU refused, without a reason"},
        };
        Rig rig;

        rig_init_ready(&rig);
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                char text[256];

                rig_execute(&rig, (int) i, LONG);
                (void) snprintf(text, sizeof text, "{\"id\":%d,\"error\":%s}\n",
                                hear_command(&rig, "execute", "query-status"), cases[i].error);
                say(&rig, text);
                assert_int_equal(rig.n, i + 1);
                assert_note(&rig, (uint32_t) i, NOTE_ANSWER, (int) i, -EREMOTEIO);
                assert_string_equal(rig.notes[i].text, cases[i].text);
        }
        rig_deinit(&rig);
}

static void test_answers_to_nobody_are_dropped(void **state)
{
        static const char *const texts[] = {
                "{\"return\":{},\"id\":0}\n",           "{\"return\":{},\"id\":-1}\n",
                "{\"return\":{},\"id\":1}\n", /* of qmp_capabilities: answered already */
                "{\"return\":{},\"id\":99999999999}\n", "{\"return\":{}}\n",
                "{\"return\":{},\"id\":null}\n",        "{\"return\":{},\"id\":\"two\"}\n",
                "{\"error\":{\"desc\":\"x\"}}\n",       "{\"event\":7}\n",
        };
        Rig rig;

        rig_init_ready(&rig);
        rig_execute(&rig, 1, LONG);
        for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
                say(&rig, texts[i]);
        assert_int_equal(rig.n, 0);
        say_return(&rig, hear_command(&rig, "execute", "query-status"), "{}");
        assert_int_equal(rig.n, 1);
        assert_note(&rig, 0, NOTE_ANSWER, 1, 0);
        rig_deinit(&rig);
}

/* A number is what we sent, and what comes back. */
static void test_an_id_of_another_type_is_nobodys(void **state)
{
        static const struct {
                const char *before, *after;
        } forms[] = {{"\"", "\""}, {"", ".0"}, {"[", "]"}, {"{\"id\":", "}"}, {"true,\"x\":", ""}};
        Rig rig;
        int id;

        rig_init_ready(&rig);
        rig_execute(&rig, 1, LONG);
        id = hear_command(&rig, "execute", "query-status");
        for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
                char text[128];

                (void) snprintf(text, sizeof text, "{\"return\":{},\"id\":%s%d%s}\n", forms[i].before, id,
                                forms[i].after);
                say(&rig, text);
        }
        assert_int_equal(rig.n, 0);
        say_return(&rig, id, "{}");
        assert_int_equal(rig.n, 1);
        rig_deinit(&rig);
}

static void test_lines_are_put_together_from_whatever_pieces_come(void **state)
{
        char text[256];
        Rig rig;

        rig_init_ready(&rig);
        rig_execute(&rig, 1, LONG);
        (void) snprintf(text, sizeof text,
                        "{\"event\":\"A\"}\n{\"return\":{},\"id\":%d}\n{\"event\":\"B\"}\n",
                        hear_command(&rig, "execute", "query-status"));
        for (const char *p = text; *p; p++)
                say_bytes(&rig, p, 1);
        assert_int_equal(rig.n, 3);
        assert_note(&rig, 1, NOTE_ANSWER, 1, 0);
        rig_deinit(&rig);
}

static void test_arguments_a_file_and_out_of_band_travel(void **state)
{
        json_object *arguments = json_new_object(), *object;
        JsonReader reader = {.where = "command"};
        char line[256];
        size_t n_fds;
        int fd = -1;
        ssize_t n;
        Rig rig;

        rig_init_ready(&rig);
        calls[1] = (Call){&rig, 1};
        json_add_string(arguments, "fdname", "f");
        qmp_execute(rig.qmp, "getfd", arguments, rig.listener, LONG, on_answer, &calls[1]);
        n = socket_recv(rig.peer, line, sizeof line, &fd, 1, &n_fds);
        assert_true(n > 0 && fd >= 0 && line[n - 1] == '\n');
        (void) close(fd);
        object = json_parse(&reader, line, (size_t) n);
        assert_string_equal(json_object_to_json_string_ext(json_object_object_get(object, "arguments"),
                                                           JSON_C_TO_STRING_PLAIN),
                            "{\"fdname\":\"f\"}");
        json_object_put(object);
        qmp_execute_oob(rig.qmp, "yank", NULL, LONG, on_answer, &calls[1]);
        (void) hear_command(&rig, "exec-oob", "yank");
        rig_deinit(&rig);
}

/* ---- deadlines --------------------------------------------------------------------------------------------------- */

static void test_a_command_that_is_not_answered_in_time_fails_alone(void **state)
{
        int slow, late;
        Rig rig;

        rig_init_ready(&rig);
        rig_execute(&rig, 1, LONG);
        rig_execute(&rig, 2, USEC_PER_MSEC);
        rig_execute(&rig, 3, LONG);
        slow = hear_command(&rig, "execute", "query-status");
        late = hear_command(&rig, "execute", "query-status");
        rig_await(&rig, 1);
        assert_note(&rig, 0, NOTE_ANSWER, 2, -ETIMEDOUT);
        say_return(&rig, late, "{}"); /* too late: nobody is told twice */
        say_return(&rig, slow, "{}");
        assert_int_equal(rig.n, 2);
        assert_note(&rig, 1, NOTE_ANSWER, 1, 0);
        assert_true(qmp_is_ready(rig.qmp));
        rig_deinit(&rig);
}

static void test_all_that_are_late_are_told_so(void **state)
{
        Rig rig;

        rig_init_ready(&rig);
        for (int i = 0; i < 3; i++)
                rig_execute(&rig, i, USEC_PER_MSEC);
        rig_await(&rig, 3);
        for (uint32_t i = 0; i < 3; i++)
                assert_note(&rig, i, NOTE_ANSWER, (int) i, -ETIMEDOUT);
        rig_deinit(&rig);
}

/* ---- the end ----------------------------------------------------------------------------------------------------- */

static void test_garbage_ends_it_and_every_open_command(void **state)
{
        static const char *const texts[] = {"{\"event\":\n", "garbage\n",    "[]\n",
                                            "7\n",           "\"x\"\n",      "null\n",
                                            "{}{}\n",        "\xff\n",       "{\"return\":{},\"id\":1}x\n",
                                            "{}\n",          "{\"id\":2}\n", "{\"result\":{},\"id\":2}\n"};

        for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
                Rig rig;

                rig_init_ready(&rig);
                rig_execute(&rig, 1, LONG);
                rig_execute(&rig, 2, LONG);
                say(&rig, texts[i]);
                assert_int_equal(rig.n, 3);
                assert_note(&rig, 0, NOTE_ANSWER, 1, -EPROTO);
                assert_note(&rig, 1, NOTE_ANSWER, 2, -EPROTO);
                assert_note(&rig, 2, NOTE_ENDED, 0, -EPROTO);
                assert_false(qmp_is_ready(rig.qmp));
                rig_deinit(&rig);
        }
}

static void test_nothing_is_taken_from_a_monitor_that_has_said_garbage(void **state)
{
        char text[128];
        Rig rig;

        rig_init_ready(&rig);
        rig_execute(&rig, 1, LONG);
        (void) snprintf(text, sizeof text, "{\"event\":\"A\"}\ngarbage\n{\"return\":{},\"id\":%d}\n",
                        hear_command(&rig, "execute", "query-status"));
        say(&rig, text);
        assert_int_equal(rig.n, 3);
        assert_string_equal(rig.notes[0].text, "A");
        assert_note(&rig, 1, NOTE_ANSWER, 1, -EPROTO);
        assert_note(&rig, 2, NOTE_ENDED, 0, -EPROTO);
        rig_deinit(&rig);
}

static void test_a_monitor_that_closes_answers_nothing_more(void **state)
{
        for (int half = 0; half < 2; half++) {
                Rig rig;

                rig_init_ready(&rig);
                rig_execute(&rig, 1, LONG);
                if (half)
                        say(&rig, "{\"return\":{},\"id\":2"); /* and the rest never comes */
                (void) close(rig.peer);
                rig.peer = -1;
                rig_turn(&rig);
                assert_int_equal(rig.n, 2);
                assert_int_equal(rig.notes[0].note, NOTE_ANSWER);
                assert_true(rig.notes[0].status < 0);
                assert_int_equal(rig.notes[1].note, NOTE_ENDED);
                assert_int_equal(rig.notes[1].status, rig.notes[0].status);
                rig_deinit(&rig);
        }
}

static void test_a_line_without_an_end_ends_it(void **state)
{
        char *text = malloc(4 * MIB);
        Rig rig;

        assert_non_null(text);
        memset(text, ' ', 4 * MIB);
        rig_init_ready(&rig);
        say_bytes(&rig, text, 4 * MIB);
        assert_int_equal(rig.n, 1);
        assert_note(&rig, 0, NOTE_ENDED, 0, -EMSGSIZE);
        rig_deinit(&rig);
        free(text);
}

/* A mebibyte, wherever its end is and however the pieces come. */
static void test_a_line_of_more_than_a_mebibyte_ends_it(void **state)
{
        char *text = malloc(2 * MIB);

        assert_non_null(text);
        for (size_t over = 0; over < 3; over++) {
                static const size_t sizes[] = {MIB, MIB + 1, MIB + MIB / 2};
                static const char event[] = "{\"event\":\"A\"}";
                size_t size = sizes[over];
                Rig rig;

                memset(text, ' ', size);
                memcpy(text, event, sizeof event - 1);
                text[size] = '\n';
                rig_init_ready(&rig);
                say_bytes(&rig, text, size + 1);
                assert_int_equal(rig.n, 1);
                assert_note(&rig, 0, over ? NOTE_ENDED : NOTE_EVENT, 0, over ? -EMSGSIZE : 0);
                rig_deinit(&rig);
        }
        free(text);
}

/* Also when the command was given because it ended. */
static void test_a_command_after_the_end_is_answered_and_the_end_told_once(void **state)
{
        for (int what = NOTE_ENDED; what <= NOTE_ANSWER; what++) {
                Rig rig;

                rig_init_ready(&rig);
                rig_execute(&rig, 1, LONG);
                rig.again_in = what;
                say(&rig, "garbage\n");
                rig_execute(&rig, 2, LONG);
                rig_turn(&rig);
                assert_int_equal(rig.n, 4);
                assert_note(&rig, 0, NOTE_ANSWER, 1, -EPROTO);
                assert_note(&rig, 3, NOTE_ANSWER, 2, -EPROTO);
                for (uint32_t i = 1; i < 3; i++)
                        if (rig.notes[i].note == NOTE_ANSWER)
                                assert_note(&rig, i, NOTE_ANSWER, 63, -EPROTO);
                        else
                                assert_note(&rig, i, NOTE_ENDED, 0, -EPROTO);
                rig_deinit(&rig);
        }
}

static void test_open_commands_are_cancelled_when_it_is_given_up(void **state)
{
        Rig rig;

        rig_init_ready(&rig);
        rig_execute(&rig, 1, LONG);
        rig_execute(&rig, 2, LONG);
        rig.qmp = qmp_free(rig.qmp);
        assert_int_equal(rig.n, 2);
        assert_note(&rig, 0, NOTE_ANSWER, 1, -ECANCELED);
        assert_note(&rig, 1, NOTE_ANSWER, 2, -ECANCELED);
        rig_turn(&rig);
        assert_int_equal(rig.n, 2);
        rig_deinit(&rig);
}

static void test_it_may_be_freed_in_any_callback(void **state)
{
        for (int what = NOTE_READY; what <= NOTE_ANSWER; what++)
                for (int lines = 0; lines < 2; lines++) {
                        Rig rig;

                        rig_init(&rig, LONG);
                        rig.free_in = what;
                        say(&rig, GREETING);
                        say_return(&rig, hear_command(&rig, "execute", "qmp_capabilities"), "{}");
                        if (rig.qmp)
                                rig_execute(&rig, 1, LONG);
                        if (rig.qmp && what == NOTE_ANSWER)
                                say_return(&rig, hear_command(&rig, "execute", "query-status"), "{}");
                        if (rig.qmp)
                                say(&rig, lines ? "{\"event\":\"A\"}\n{\"event\":\"B\"}\ngarbage\n{}\n"
                                                : "{\"event\":\"A\"}\n");
                        if (rig.qmp)
                                say(&rig, "garbage\n");
                        rig_turn(&rig);
                        assert_null(rig.qmp);
                        rig_deinit(&rig);
                }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_greeting_is_answered_with_what_it_offers),
                cmocka_unit_test(test_who_does_not_greet_is_no_monitor),
                cmocka_unit_test(test_a_monitor_with_another_client_is_not_waited_for),
                cmocka_unit_test(test_where_nobody_listens_is_said_at_once),
                cmocka_unit_test(test_refused_capabilities_end_it),
                cmocka_unit_test(test_answers_find_their_commands_whatever_comes_between),
                cmocka_unit_test(test_a_refusal_is_told_in_qemus_words),
                cmocka_unit_test(test_answers_to_nobody_are_dropped),
                cmocka_unit_test(test_an_id_of_another_type_is_nobodys),
                cmocka_unit_test(test_lines_are_put_together_from_whatever_pieces_come),
                cmocka_unit_test(test_arguments_a_file_and_out_of_band_travel),
                cmocka_unit_test(test_a_command_that_is_not_answered_in_time_fails_alone),
                cmocka_unit_test(test_all_that_are_late_are_told_so),
                cmocka_unit_test(test_garbage_ends_it_and_every_open_command),
                cmocka_unit_test(test_nothing_is_taken_from_a_monitor_that_has_said_garbage),
                cmocka_unit_test(test_a_monitor_that_closes_answers_nothing_more),
                cmocka_unit_test(test_a_line_without_an_end_ends_it),
                cmocka_unit_test(test_a_line_of_more_than_a_mebibyte_ends_it),
                cmocka_unit_test(test_a_command_after_the_end_is_answered_and_the_end_told_once),
                cmocka_unit_test(test_open_commands_are_cancelled_when_it_is_given_up),
                cmocka_unit_test(test_it_may_be_freed_in_any_callback),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
