/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* One end of a connection is the link, the other end is the test and says what it likes. Both are on one loop, and what
 * was written can be read at once: a few turns are enough, and nothing is waited for. */

#include <endian.h>
#include <stdio.h>
#include <sys/socket.h>

#include "daemon/peer/link.h"
#include "test.h"

#define TURNS 64
#define HOST  "0badcafe-0000-4000-8000-000000000001"
#define BOOT  "0badcafe-0000-4000-8000-000000000002"
#define OTHER "0badcafe-0000-4000-8000-000000000003"
#define JOB   "0badcafe-0000-4000-8000-000000000004"
#define HELLO "{\"type\":\"HELLO\",\"version\":1,\"host\":\"" OTHER "\",\"boot\":\"" BOOT "\"}"

typedef enum Note { NOTE_UP, NOTE_MESSAGE, NOTE_DOWN } Note;

typedef struct Rig {
        Loop *loop;
        LoopTimer *turn;
        Link *link;
        int peer;
        uint32_t n;
        struct {
                Note note;
                int what; /* message, or status */
                char text[256];
        } notes[64];
        int free_in; /* a Note: the link is freed when it comes */
        bool answer; /* each message is answered by sending ASK */
} Rig;

static void note(Rig *rig, Note what, int value, const char *text)
{
        assert_true(rig->n < ARRAY_SIZE(rig->notes));
        rig->notes[rig->n].note = what;
        rig->notes[rig->n].what = value;
        (void) snprintf(rig->notes[rig->n].text, sizeof rig->notes[0].text, "%s", text);
        rig->n++;
        if (rig->free_in == (int) what)
                rig->link = link_free(rig->link);
}

static void on_up(void *userdata, Link *link)
{
        note(userdata, NOTE_UP, 0, link_host(link));
}

static void on_message(void *userdata, Link *link, Message type, const char *job, json_object *body)
{
        Rig *rig = userdata;

        assert_string_equal(job, JOB);
        note(rig, NOTE_MESSAGE, (int) type, json_object_to_json_string_ext(body, JSON_C_TO_STRING_PLAIN));
        if (rig->answer && rig->link)
                link_send(rig->link, link_message(MESSAGE_ASK, JOB));
}

static void on_down(void *userdata, Link *link, int status, const char *text)
{
        note(userdata, NOTE_DOWN, status, text);
}

static const LinkListener listener = {on_up, on_message, on_down};

static void on_turn(void *userdata)
{
        loop_quit(((Rig *) userdata)->loop);
}

/* Until nothing more can happen by itself. */
static void rig_turn(Rig *rig)
{
        for (int i = 0; i < TURNS; i++) {
                loop_timer_soon(rig->turn);
                assert_int_equal(loop_run(rig->loop), 0);
        }
}

static void rig_init(Rig *rig)
{
        int s[2];

        *rig = (Rig){.free_in = -1};
        assert_int_equal(loop_new(&rig->loop), 0);
        assert_int_equal(loop_timer_new(rig->loop, on_turn, rig, &rig->turn), 0);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s), 0);
        rig->peer = s[1];
        assert_int_equal(link_new(rig->loop, s[0], HOST, BOOT, &listener, rig, &rig->link), 0);
}

static void rig_cut(Rig *rig)
{
        (void) close(rig->peer);
        rig->peer = -1;
        rig_turn(rig);
}

static void rig_deinit(Rig *rig)
{
        rig->link = link_free(rig->link);
        if (rig->peer >= 0)
                (void) close(rig->peer);
        loop_timer_free(rig->turn);
        loop_free(rig->loop);
}

/* The peer says these bytes while the link reads. */
static void say_bytes(Rig *rig, const void *bytes, size_t size)
{
        const char *p = bytes;

        while (size > 0) {
                ssize_t n = send(rig->peer, p, size, MSG_NOSIGNAL | MSG_DONTWAIT);

                if (n < 0 && (errno == EPIPE || rig->n > 0))
                        return; /* nobody reads any more: the case says whether that is right */
                assert_true(n > 0);
                p += n;
                size -= (size_t) n;
                rig_turn(rig);
        }
}

static void say_length(Rig *rig, uint32_t length)
{
        uint32_t wire = htole32(length);

        say_bytes(rig, &wire, sizeof wire);
}

static void say(Rig *rig, const char *text)
{
        say_length(rig, (uint32_t) strlen(text));
        say_bytes(rig, text, strlen(text));
}

/* What the link has said since; `ret` has room for `size`. */
static void hear(Rig *rig, char *ret, size_t size)
{
        uint8_t head[4];
        ssize_t n = recv(rig->peer, head, sizeof head, MSG_DONTWAIT);
        size_t length = head[0] | (size_t) head[1] << 8 | (size_t) head[2] << 16 | (size_t) head[3] << 24;

        assert_int_equal(n, 4);
        assert_true(length < size);
        assert_int_equal(recv(rig->peer, ret, length, MSG_DONTWAIT), length);
        ret[length] = 0;
}

static void rig_init_up(Rig *rig)
{
        char text[512];

        rig_init(rig);
        hear(rig, text, sizeof text);
        say(rig, HELLO);
        assert_int_equal(rig->n, 1);
        assert_int_equal(rig->notes[0].note, NOTE_UP);
        rig->n = 0;
}

/* It has ended, so, and says that once. */
static void assert_down(Rig *rig, uint32_t i, int status)
{
        assert_int_equal(rig->n, i + 1);
        assert_int_equal(rig->notes[i].note, NOTE_DOWN);
        assert_int_equal(rig->notes[i].what, status);
        assert_true(rig->notes[i].text[0] != 0);
        assert_false(link_is_up(rig->link));
        rig_turn(rig);
        assert_int_equal(rig->n, i + 1);
}

/* ---- HELLO ------------------------------------------------------------------------------------------------------- */

static void test_hello_is_said_at_once_and_first(void **state)
{
        char text[512];
        Rig rig;

        rig_init(&rig);
        hear(&rig, text, sizeof text);
        assert_string_equal(text,
                            "{\"type\":\"HELLO\",\"version\":1,\"host\":\"" HOST "\",\"boot\":\"" BOOT "\"}");
        assert_false(link_is_up(rig.link));
        assert_string_equal(link_host(rig.link), "");
        say(&rig, HELLO);
        assert_int_equal(rig.n, 1);
        assert_int_equal(rig.notes[0].note, NOTE_UP);
        assert_string_equal(rig.notes[0].text, OTHER);
        assert_true(link_is_up(rig.link));
        assert_string_equal(link_host(rig.link), OTHER);
        rig_deinit(&rig);
}

static void test_who_does_not_say_hello_is_no_migmgrd(void **state)
{
        static const char *const texts[] = {
                "{}",
                "[]",
                "null ",
                "\"HELLO\"",
                "HELLO",
                "{\"type\":7}",
                "{\"type\":\"hello\"}",
                "{\"type\":\"CHECK\",\"job\":\"" JOB "\"}",
                "{\"type\":\"HELLO\"}",
                "{\"type\":\"HELLO\",\"version\":1}",
                "{\"type\":\"HELLO\",\"host\":\"" OTHER "\"}",
                "{\"type\":\"HELLO\",\"version\":0,\"host\":\"" OTHER "\"}",
                "{\"type\":\"HELLO\",\"version\":2,\"host\":\"" OTHER "\"}",
                "{\"type\":\"HELLO\",\"version\":\"1\",\"host\":\"" OTHER "\"}",
                "{\"type\":\"HELLO\",\"version\":1,\"host\":7}",
                "{\"type\":\"HELLO\",\"version\":1,\"host\":\"\"}",
                "{\"type\":\"HELLO\",\"version\":1,\"host\":\"" OTHER "0\"}",
        };

        for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
                Rig rig;

                rig_init(&rig);
                say(&rig, texts[i]);
                assert_down(&rig, 0, -EPROTO);
                rig_deinit(&rig);
        }
}

static void test_hello_comes_once(void **state)
{
        Rig rig;

        rig_init_up(&rig);
        say(&rig, HELLO);
        assert_down(&rig, 0, -EPROTO);
        rig_deinit(&rig);
}

/* ---- messages ---------------------------------------------------------------------------------------------------- */

static void test_every_message_comes_through_as_it_is(void **state)
{
        Rig rig;

        rig_init_up(&rig);
        for (Message m = MESSAGE_HELLO + 1; m < MESSAGE_MAX; m++) {
                char text[256];

                (void) snprintf(text, sizeof text, "{\"type\":\"%s\",\"job\":\"" JOB "\",\"more\":[1,{}]}",
                                message_to_string(m));
                say(&rig, text);
                assert_int_equal(rig.n, 1);
                assert_int_equal(rig.notes[0].note, NOTE_MESSAGE);
                assert_int_equal(rig.notes[0].what, m);
                assert_string_equal(rig.notes[0].text, text);
                rig.n = 0;
        }
        rig_deinit(&rig);
}

static void test_what_is_no_message_ends_it(void **state)
{
        static const char *const texts[] = {
                "",
                " ",
                "{",
                "garbage",
                "[]",
                "7",
                "null ",
                "\xff\xfe",
                "{\"job\":\"" JOB "\"}",
                "{\"type\":null,\"job\":\"" JOB "\"}",
                "{\"type\":\"\",\"job\":\"" JOB "\"}",
                "{\"type\":\"NONE\",\"job\":\"" JOB "\"}",
                "{\"type\":\"check\",\"job\":\"" JOB "\"}",
                "{\"type\":\"GO\"}",
                "{\"type\":\"GO\",\"job\":7}",
                "{\"type\":\"GO\",\"job\":\"\"}",
                "{\"type\":\"GO\",\"job\":\"../" JOB "\"}",
                "{\"type\":\"GO\",\"job\":\"" JOB "\"}{}",
                "{\"type\":\"GO\",\"job\":\"" JOB "\\u0000\"}",
                "{\"type\":\"GO\",\"a\":[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]}",
        };

        for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
                Rig rig;

                rig_init_up(&rig);
                say(&rig, texts[i]);
                assert_down(&rig, 0, -EPROTO);
                rig_deinit(&rig);
        }
}

static void test_nothing_is_taken_from_a_peer_that_has_said_garbage(void **state)
{
        static const char go[] = "{\"type\":\"GO\",\"job\":\"" JOB "\"}";
        char bytes[256];
        size_t n = 0;
        Rig rig;

        rig_init_up(&rig);
        for (int i = 0; i < 3; i++) { /* in one piece */
                uint32_t length = htole32(sizeof go - 1);

                memcpy(bytes + n, &length, 4);
                memcpy(bytes + n + 4, go, sizeof go - 1);
                if (i == 1)
                        bytes[n + 4] = 'x';
                n += 4 + sizeof go - 1;
        }
        say_bytes(&rig, bytes, n);
        assert_int_equal(rig.notes[0].note, NOTE_MESSAGE);
        assert_down(&rig, 1, -EPROTO);
        rig_deinit(&rig);
}

static void test_messages_are_put_together_from_whatever_pieces_come(void **state)
{
        static const char go[] = "{\"type\":\"GO\",\"job\":\"" JOB "\"}";
        Rig rig;

        rig_init_up(&rig);
        for (int i = 0; i < 2; i++) {
                uint32_t length = htole32(sizeof go - 1);

                for (size_t b = 0; b < 4; b++)
                        say_bytes(&rig, (uint8_t *) &length + b, 1);
                for (size_t b = 0; b < sizeof go - 1; b++) {
                        assert_int_equal(rig.n, i);
                        say_bytes(&rig, go + b, 1);
                }
                assert_int_equal(rig.n, i + 1);
        }
        rig_deinit(&rig);
}

/* ---- lengths ----------------------------------------------------------------------------------------------------- */

static void test_a_message_has_at_most_a_mebibyte(void **state)
{
        static const char go[] = "{\"type\":\"GO\",\"job\":\"" JOB "\"}";
        char *text = malloc(MIB);
        Rig rig;

        assert_non_null(text);
        memset(text, ' ', MIB);
        memcpy(text, go, sizeof go - 1);
        rig_init_up(&rig);
        for (int i = 0; i < 3; i++) {
                say_length(&rig, MIB);
                say_bytes(&rig, text, MIB);
                assert_int_equal(rig.n, i + 1);
                assert_int_equal(rig.notes[i].note, NOTE_MESSAGE);
        }
        rig_deinit(&rig);
        free(text);
}

/* Ended as soon as it is announced: nobody waits for it, and no room is made. */
static void test_a_longer_one_is_refused_when_it_is_announced(void **state)
{
        static const uint32_t lengths[] = {MIB + 1,    0x3148474d /* "MGH1" */, 0x7fffffff,
                                           0x80000000, UINT32_MAX - 3,          UINT32_MAX};

        for (size_t i = 0; i < ARRAY_SIZE(lengths); i++)
                for (int up = 0; up < 2; up++) {
                        Rig rig;

                        if (up)
                                rig_init_up(&rig);
                        else
                                rig_init(&rig);
                        say_length(&rig, lengths[i]);
                        assert_down(&rig, 0, -EMSGSIZE);
                        rig_deinit(&rig);
                }
}

/* ---- the end ----------------------------------------------------------------------------------------------------- */

static void test_a_cut_anywhere_is_one_end(void **state)
{
        static const char bytes[] = "\x34\x00\x00\x00{\"type\":\"GO\",";

        for (size_t n = 0; n < sizeof bytes; n++)
                for (int up = 0; up < 2; up++) {
                        Rig rig;

                        if (up)
                                rig_init_up(&rig);
                        else
                                rig_init(&rig);
                        say_bytes(&rig, bytes, n);
                        assert_int_equal(rig.n, 0);
                        rig_cut(&rig);
                        assert_down(&rig, 0, -ECONNRESET);
                        link_send(rig.link, link_message(MESSAGE_GO, JOB)); /* goes nowhere, hurts nobody */
                        rig_turn(&rig);
                        assert_int_equal(rig.n, 1);
                        rig_deinit(&rig);
                }
}

static void test_it_may_be_freed_in_any_callback(void **state)
{
        static const char two[] = "{\"type\":\"GO\",\"job\":\"" JOB "\"}";

        for (int what = NOTE_UP; what <= NOTE_DOWN; what++) {
                Rig rig;

                rig_init(&rig);
                rig.free_in = what;
                say(&rig, HELLO);
                for (int i = 0; i < 2 && rig.link; i++)
                        say(&rig, two);
                if (rig.link)
                        rig_cut(&rig);
                rig_turn(&rig);
                assert_null(rig.link);
                assert_int_equal(rig.notes[rig.n - 1].note, what);
                rig_deinit(&rig);
        }
}

/* ---- sending ----------------------------------------------------------------------------------------------------- */

static void test_messages_go_out_in_order_with_their_members(void **state)
{
        char text[512];
        Rig rig;

        rig_init_up(&rig);
        for (Message m = MESSAGE_CHECK; m < MESSAGE_MAX; m++) {
                json_object *message = link_message(m, JOB);

                json_add_number(message, "n", m);
                link_send(rig.link, message);
        }
        for (Message m = MESSAGE_CHECK; m < MESSAGE_MAX; m++) {
                char expect[256];

                (void) snprintf(expect, sizeof expect, "{\"type\":\"%s\",\"job\":\"" JOB "\",\"n\":%d}",
                                message_to_string(m), (int) m);
                hear(&rig, text, sizeof text);
                assert_string_equal(text, expect);
        }
        rig_deinit(&rig);
}

static json_object *long_message(size_t size)
{
        json_object *message = link_message(MESSAGE_CHECK, JOB);
        char *text = calloc(1, size + 1);

        assert_non_null(text);
        memset(text, 'x', size);
        json_add_string(message, "text", text);
        free(text);
        return message;
}

/* What does not fit into the connection waits, whole and in order, until there is room. */
static void test_what_the_peer_does_not_read_yet_waits(void **state)
{
        const size_t size = 700000, whole = 3;
        size_t got = 0;
        char *room = malloc(MIB);
        Rig rig;

        assert_non_null(room);
        rig_init_up(&rig);
        for (size_t i = 0; i < whole; i++)
                link_send(rig.link, long_message(size));
        for (int idle = 0; idle < 3;) {
                ssize_t n = recv(rig.peer, room, MIB, MSG_DONTWAIT);

                idle = n > 0 ? 0 : idle + 1;
                got += n > 0 ? (size_t) n : 0;
                rig_turn(&rig);
        }
        assert_int_equal(
                got, whole * (4 + size + strlen("{\"type\":\"CHECK\",\"job\":\"" JOB "\",\"text\":\"\"}")));
        assert_int_equal(rig.n, 0);
        rig_deinit(&rig);
        free(room);
}

static void test_a_peer_that_never_reads_is_given_up(void **state)
{
        Rig rig;
        int n = 0;

        rig_init_up(&rig);
        while (link_is_up(rig.link) && n < 64) {
                link_send(rig.link, long_message(900000));
                n++;
        }
        assert_in_range(n, 4, 10); /* at most 4 MiB are held, and what the socket holds */
        rig_turn(&rig);
        assert_down(&rig, 0, -ENOBUFS);
        rig_deinit(&rig);
}

static void test_a_message_that_is_too_long_is_not_sent(void **state)
{
        Rig rig;

        rig_init_up(&rig);
        link_send(rig.link, long_message(MIB));
        rig_turn(&rig);
        assert_down(&rig, 0, -ENOBUFS);
        rig_deinit(&rig);
}

static void test_two_links_understand_each_other(void **state)
{
        char bytes[4096];
        Rig a, b;

        rig_init(&a);
        rig_init(&b);
        b.answer = true;
        link_send(a.link, link_message(MESSAGE_GO, JOB)); /* behind its HELLO */
        for (int i = 0; i < 4; i++) {
                ssize_t n = recv(a.peer, bytes, sizeof bytes, MSG_DONTWAIT);

                if (n > 0)
                        say_bytes(&b, bytes, (size_t) n);
                n = recv(b.peer, bytes, sizeof bytes, MSG_DONTWAIT);
                if (n > 0)
                        say_bytes(&a, bytes, (size_t) n);
        }
        assert_int_equal(b.n, 2);
        assert_int_equal(b.notes[1].what, MESSAGE_GO);
        assert_int_equal(a.n, 2);
        assert_int_equal(a.notes[0].note, NOTE_UP);
        assert_int_equal(a.notes[1].what, MESSAGE_ASK);
        rig_deinit(&a);
        rig_deinit(&b);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_hello_is_said_at_once_and_first),
                cmocka_unit_test(test_who_does_not_say_hello_is_no_migmgrd),
                cmocka_unit_test(test_hello_comes_once),
                cmocka_unit_test(test_every_message_comes_through_as_it_is),
                cmocka_unit_test(test_what_is_no_message_ends_it),
                cmocka_unit_test(test_nothing_is_taken_from_a_peer_that_has_said_garbage),
                cmocka_unit_test(test_messages_are_put_together_from_whatever_pieces_come),
                cmocka_unit_test(test_a_message_has_at_most_a_mebibyte),
                cmocka_unit_test(test_a_longer_one_is_refused_when_it_is_announced),
                cmocka_unit_test(test_a_cut_anywhere_is_one_end),
                cmocka_unit_test(test_it_may_be_freed_in_any_callback),
                cmocka_unit_test(test_messages_go_out_in_order_with_their_members),
                cmocka_unit_test(test_what_the_peer_does_not_read_yet_waits),
                cmocka_unit_test(test_a_peer_that_never_reads_is_given_up),
                cmocka_unit_test(test_a_message_that_is_too_long_is_not_sent),
                cmocka_unit_test(test_two_links_understand_each_other),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
