/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A good packet of each type, and everything that can be wrong with one: each length, each value past its end. Neither
 * side trusts the other, and these structs are used as they came. */

#include <fcntl.h>
#include <sys/socket.h>

#include "daemon/agent/agent-protocol.h"
#include "test.h"

#define UUID "01234567-89ab-cdef-0123-456789abcdef"

static const AgentPacketType types[] = {AGENT_OPEN,   AGENT_ATTACH,   AGENT_RUN,   AGENT_STOP,  AGENT_HELLO,
                                        AGENT_RESULT, AGENT_PROGRESS, AGENT_GONE,  AGENT_DIRTY, AGENT_BROKER,
                                        AGENT_WANTED, AGENT_IDENTITY, AGENT_FILES, AGENT_GREET};

static void make(AgentPacket *p, AgentPacketType type)
{
        memset(p, 0, sizeof *p);
        p->head.magic = AGENT_MAGIC;
        p->head.type = type;
        switch (type) {
        case AGENT_OPEN: p->open.seq = 7; break;
        case AGENT_ATTACH: memcpy(p->attach.job, UUID, sizeof UUID); break;
        case AGENT_RUN:
                memcpy(p->run.job, UUID, sizeof UUID);
                p->run.n_ops = DEVICE_PROGRAM_MAX;
                for (size_t i = 0; i < DEVICE_PROGRAM_MAX; i++)
                        p->run.ops[i] =
                                (AgentOp){DEVICE_OP_MAX - 1, DEVICE_STATE_MAX - 1, DEVICE_STATE_MAX - 1};
                break;
        case AGENT_STOP:
        case AGENT_WANTED:
        case AGENT_PROGRESS: break;
        case AGENT_BROKER: memset(p->broker.path, '/', SOCKET_PATH_MAX); break;
        case AGENT_HELLO:
                memcpy(p->hello.job, UUID, sizeof UUID);
                p->hello.state = DEVICE_STATE_MAX - 1;
                p->hello.identity.n_config = DEVICE_CONFIG_MAX;
                p->hello.identity.windows = DEVICE_WINDOWS_MAX - 1;
                break;
        case AGENT_GREET: p->greet.greeting = 1; break;
        case AGENT_RESULT:
                p->result.status = -EIO;
                p->result.from = p->result.to = p->result.state = DEVICE_STATE_MAX - 1;
                memset(p->result.text, 'x', AGENT_TEXT_MAX - 1);
                break;
        case AGENT_IDENTITY:
                p->identity.identity.n_config = DEVICE_CONFIG_MAX;
                p->identity.identity.windows = DEVICE_WINDOWS_MAX - 1;
                break;
        case AGENT_DIRTY: p->dirty = (AgentDirty){p->head, 4096, 4096, 1000}; break;
        case AGENT_FILES:
                p->files.first = 1;
                p->files.n = AGENT_FILES_MAX;
                break;
        case AGENT_GONE:
                p->gone.status = -EPIPE;
                memset(p->gone.text, 'x', AGENT_TEXT_MAX - 1);
                break;
        }
}

static void make_pair(int s[2])
{
        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, s), 0);
}

/* What the receiver says of `size` bytes. */
static int exchange(const void *bytes, size_t size, AgentPacket *got)
{
        int s[2], fd = 42, r;

        make_pair(s);
        assert_int_equal(send(s[0], bytes, size, 0), size);
        memset(got, 0, sizeof *got); /* what is read behind the packet would be in order */
        r = agent_packet_recv(s[1], got, &fd);
        assert_int_equal(fd, r == 1 ? -1 : 42);
        (void) close(s[0]);
        (void) close(s[1]);
        return r;
}

static int exchange_packet(const AgentPacket *p)
{
        AgentPacket got;

        return exchange(p, agent_packet_size(p->head.type), &got);
}

/* ---- what is right --------------------------------------------------------------------------------------------- */

static void test_every_packet_comes_as_it_was_sent(void **state)
{
        for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
                size_t size = agent_packet_size(types[i]);
                AgentPacket p, got;
                int s[2], fd = 42;

                assert_in_range(size, sizeof(AgentHead), AGENT_PACKET_MAX);
                make(&p, types[i]);
                p.head.magic = 0; /* filled in when sent */
                make_pair(s);
                assert_int_equal(agent_packet_recv(s[1], &got, &fd), -EAGAIN);
                assert_int_equal(agent_packet_send(s[0], &p, -1), 0);
                assert_int_equal(agent_packet_recv(s[1], &got, &fd), 1);
                assert_int_equal(fd, -1);
                assert_memory_equal(&got, &p, size);
                (void) close(s[0]);
                assert_int_equal(agent_packet_recv(s[1], &got, &fd), 0);
                (void) close(s[1]);
        }
}

static void test_there_are_fourteen_types(void **state)
{
        static const uint32_t outside[] = {0, AGENT_GREET + 1, 100, INT32_MAX, 0x80000000, UINT32_MAX};
        AgentPacket p, got;

        for (size_t i = 0; i < ARRAY_SIZE(outside); i++) {
                assert_int_equal(agent_packet_size((AgentPacketType) outside[i]), 0);
                make(&p, AGENT_RESULT);
                p.head.type = outside[i];
                for (size_t size = 1; size <= sizeof(AgentResultPacket); size++)
                        assert_int_equal(exchange(&p, size, &got), -EBADMSG);
        }
}

/* ---- sizes ----------------------------------------------------------------------------------------------------- */

static void test_a_packet_of_any_other_length_is_refused(void **state)
{
        for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
                size_t right = agent_packet_size(types[i]);
                AgentPacket p, got;

                make(&p, types[i]);
                for (size_t size = 1; size <= AGENT_PACKET_MAX; size++)
                        assert_int_equal(exchange(&p, size, &got), size == right ? 1 : -EBADMSG);
        }
}

static void test_a_packet_that_is_larger_than_any_is_refused(void **state)
{
        uint8_t bytes[2 * AGENT_PACKET_MAX] = {};
        AgentPacket got;

        make((AgentPacket *) (void *) bytes, AGENT_STOP);
        for (size_t size = AGENT_PACKET_MAX + 1; size <= sizeof bytes; size += 101)
                assert_int_equal(exchange(bytes, size, &got), -EMSGSIZE);
}

static void test_the_magic_is_as_written(void **state)
{
        for (int bit = 0; bit < 32; bit++) {
                AgentPacket p;

                make(&p, AGENT_STOP);
                assert_int_equal(exchange_packet(&p), 1);
                p.head.magic ^= 1u << bit;
                assert_int_equal(exchange_packet(&p), -EBADMSG);
        }
}

/* ---- values ---------------------------------------------------------------------------------------------------- */

#define AT(Type, member) offsetof(Type, member), sizeof(((Type *) NULL)->member)

/* Put there, little-endian, into a good packet: taken or not. */
static const struct {
        const char *what;
        AgentPacketType type;
        size_t at, size;
        uint64_t value;
        bool good;
} values[] = {
        {"no config space", AGENT_IDENTITY, AT(AgentIdentity, identity.n_config), 0, true},
        {"a config space that is too long", AGENT_IDENTITY, AT(AgentIdentity, identity.n_config),
         DEVICE_CONFIG_MAX + 1, false},
        {"no such windows", AGENT_IDENTITY, AT(AgentIdentity, identity.windows), DEVICE_WINDOWS_MAX, false},
        {"greeting without config space", AGENT_HELLO, AT(AgentHelloPacket, identity.n_config), 0, true},
        {"greeting with too much config space", AGENT_HELLO, AT(AgentHelloPacket, identity.n_config),
         DEVICE_CONFIG_MAX + 1, false},
        {"greeting with no such windows", AGENT_HELLO, AT(AgentHelloPacket, identity.windows),
         DEVICE_WINDOWS_MAX, false},
        {"asked for a greeting with no number", AGENT_GREET, AT(AgentGreet, greeting), 0, false},
        {"asked for a greeting", AGENT_GREET, AT(AgentGreet, greeting), UINT64_MAX, true},
        {"no operations", AGENT_RUN, AT(AgentRun, n_ops), 0, false},
        {"one operation", AGENT_RUN, AT(AgentRun, n_ops), 1, true},
        {"most operations", AGENT_RUN, AT(AgentRun, n_ops), DEVICE_PROGRAM_MAX, true},
        {"one operation more", AGENT_RUN, AT(AgentRun, n_ops), DEVICE_PROGRAM_MAX + 1, false},
        {"very many operations", AGENT_RUN, AT(AgentRun, n_ops), UINT32_MAX, false},
        {"unknown operation", AGENT_RUN, AT(AgentRun, ops[0].type), DEVICE_OP_MAX, false},
        {"unknown last operation", AGENT_RUN, AT(AgentRun, ops[DEVICE_PROGRAM_MAX - 1].type), 255, false},
        {"from nowhere", AGENT_RUN, AT(AgentRun, ops[0].from), DEVICE_STATE_MAX, false},
        {"to nowhere", AGENT_RUN, AT(AgentRun, ops[DEVICE_PROGRAM_MAX - 1].to), DEVICE_STATE_MAX, false},
        {"run without a job", AGENT_RUN, AT(AgentRun, job[0]), 0, false},
        {"job in upper case", AGENT_RUN, AT(AgentRun, job[9]), 'A', false},
        {"job without an end", AGENT_RUN, AT(AgentRun, job[36]), 'a', false},
        {"job that ends early", AGENT_RUN, AT(AgentRun, job[35]), 0, false},
        {"no deadline", AGENT_RUN, AT(AgentRun, deadline_usec), UINT64_MAX, true},
        {"attached to no job", AGENT_ATTACH, AT(AgentAttach, job[0]), 0, false},
        {"attached to no UUID", AGENT_ATTACH, AT(AgentAttach, job[8]), '_', false},
        {"attached without an end", AGENT_ATTACH, AT(AgentAttach, job[36]), 'a', false},
        {"greeting without a job", AGENT_HELLO, AT(AgentHelloPacket, job[0]), 0, true},
        {"greeting of no UUID", AGENT_HELLO, AT(AgentHelloPacket, job[1]), 'x', false},
        {"greeting without an end", AGENT_HELLO, AT(AgentHelloPacket, job[36]), '0', false},
        {"greeting from nowhere", AGENT_HELLO, AT(AgentHelloPacket, state), DEVICE_STATE_MAX, false},
        {"greeting from far off", AGENT_HELLO, AT(AgentHelloPacket, state), UINT32_MAX, false},
        {"done", AGENT_RESULT, AT(AgentResultPacket, status), 0, true},
        {"better than done", AGENT_RESULT, AT(AgentResultPacket, status), 1, false},
        {"the last errno", AGENT_RESULT, AT(AgentResultPacket, status), (uint32_t) -4095, true},
        {"no errno", AGENT_RESULT, AT(AgentResultPacket, status), (uint32_t) -4096, false},
        {"what has no negative", AGENT_RESULT, AT(AgentResultPacket, status), 0x80000000, false},
        {"all operations done", AGENT_RESULT, AT(AgentResultPacket, op), DEVICE_PROGRAM_MAX, true},
        {"more than all done", AGENT_RESULT, AT(AgentResultPacket, op), DEVICE_PROGRAM_MAX + 1, false},
        {"stands nowhere", AGENT_RESULT, AT(AgentResultPacket, state), DEVICE_STATE_MAX, false},
        {"came from nowhere", AGENT_RESULT, AT(AgentResultPacket, from), DEVICE_STATE_MAX, false},
        {"went nowhere", AGENT_RESULT, AT(AgentResultPacket, to), 0x80000000, false},
        {"text without an end", AGENT_RESULT, AT(AgentResultPacket, text[AGENT_TEXT_MAX - 1]), 'x', false},
        {"empty text", AGENT_RESULT, AT(AgentResultPacket, text[0]), 0, true},
        {"gone well", AGENT_GONE, AT(AgentGone, status), 0, true},
        {"gone better than well", AGENT_GONE, AT(AgentGone, status), INT32_MAX, false},
        {"gone by what has no negative", AGENT_GONE, AT(AgentGone, status), 0x80000000, false},
        {"no files", AGENT_FILES, AT(AgentFiles, n), 0, true},
        {"one file more", AGENT_FILES, AT(AgentFiles, n), AGENT_FILES_MAX + 1, false},
        {"very many files", AGENT_FILES, AT(AgentFiles, n), UINT32_MAX, false},
        {"more files", AGENT_FILES, AT(AgentFiles, first), 0, true},
        {"files that are firster", AGENT_FILES, AT(AgentFiles, first), 2, false},
        {"pages of a byte", AGENT_DIRTY, AT(AgentDirty, page_size), 1, false},
        {"pages of no power of two", AGENT_DIRTY, AT(AgentDirty, page_size), 12288, false},
        {"large pages", AGENT_DIRTY, AT(AgentDirty, page_size), 1 << 21, true},
        {"no pages", AGENT_DIRTY, AT(AgentDirty, n_pages), 0, false},
        {"most pages", AGENT_DIRTY, AT(AgentDirty, n_pages), AGENT_DIRTY_PAGES_MAX, true},
        {"more than most pages", AGENT_DIRTY, AT(AgentDirty, n_pages), AGENT_DIRTY_PAGES_MAX + 1, false},
        {"pages up to the end of all", AGENT_DIRTY, AT(AgentDirty, address), UINT64_MAX - 4096000, true},
        {"pages beyond it", AGENT_DIRTY, AT(AgentDirty, address), UINT64_MAX - 4095999, false},
        {"broker at a relative path", AGENT_BROKER, AT(AgentBroker, path[0]), 'x', false},
        {"broker nowhere", AGENT_BROKER, AT(AgentBroker, path[0]), 0, false},
        {"broker at a short path", AGENT_BROKER, AT(AgentBroker, path[1]), 0, true},
        {"broker at a path without an end", AGENT_BROKER, AT(AgentBroker, path[SOCKET_PATH_MAX]), 'x', false},
        {"gone without an end", AGENT_GONE, AT(AgentGone, text[AGENT_TEXT_MAX - 1]), 'x', false},
};

static void test_values_that_make_no_sense_are_refused(void **state)
{
        for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
                AgentPacket p;
                int r;

                make(&p, values[i].type);
                assert_int_equal(exchange_packet(&p), 1);
                for (size_t b = 0; b < values[i].size; b++)
                        p.bytes[values[i].at + b] = (uint8_t) (values[i].value >> 8 * b);
                r = exchange_packet(&p);
                if (r != (values[i].good ? 1 : -EBADMSG))
                        print_error("%s: %d\n", values[i].what, r);
                assert_int_equal(r, values[i].good ? 1 : -EBADMSG);
        }
}

/* Behind the last one that is meant there may be anything: it is not looked at. */
static void test_operations_that_are_not_meant_do_not_count(void **state)
{
        AgentPacket p;

        make(&p, AGENT_RUN);
        p.run.n_ops = 1;
        memset(p.run.ops + 1, 0xff, sizeof p.run.ops - sizeof p.run.ops[0]);
        assert_int_equal(exchange_packet(&p), 1);
}

/* ---- files ----------------------------------------------------------------------------------------------------- */

static void test_a_file_comes_with_its_packet_and_is_closed_with_a_bad_one(void **state)
{
        for (int good = 0; good < 2; good++) {
                int s[2], p[2], fd = -1;
                AgentPacket packet, got;
                char byte;

                make_pair(s);
                assert_int_equal(pipe2(p, O_NONBLOCK | O_CLOEXEC), 0);
                make(&packet, AGENT_ATTACH);
                if (!good)
                        packet.attach.job[0] = 0;
                assert_int_equal(agent_packet_send(s[0], &packet, p[1]), 0);
                (void) close(p[1]);
                assert_int_equal(agent_packet_recv(s[1], &got, &fd), good ? 1 : -EBADMSG);
                assert_int_equal(fd >= 0, good);
                assert_int_equal(read(p[0], &byte, 1), good ? -1 : 0); /* 0: nobody has it any more */
                if (fd >= 0)
                        (void) close(fd);
                assert_int_equal(read(p[0], &byte, 1), 0);
                (void) close(p[0]);
                (void) close(s[0]);
                (void) close(s[1]);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_every_packet_comes_as_it_was_sent),
                cmocka_unit_test(test_there_are_fourteen_types),
                cmocka_unit_test(test_a_packet_of_any_other_length_is_refused),
                cmocka_unit_test(test_a_packet_that_is_larger_than_any_is_refused),
                cmocka_unit_test(test_the_magic_is_as_written),
                cmocka_unit_test(test_values_that_make_no_sense_are_refused),
                cmocka_unit_test(test_operations_that_are_not_meant_do_not_count),
                cmocka_unit_test(test_a_file_comes_with_its_packet_and_is_closed_with_a_bad_one),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
