/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What devices have written goes from the source's memory files to the destination's: exactly those pages, whole, and
 * nothing that is not mapped. The log's answers and the mappings are this test's own. */

#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "common/crc32c.h"
#include "daemon/agent/pages.h"
#include "daemon/peer/frame.h"
#include "test.h"

#define PAGE  UINT64_C(4096)
#define BASE  UINT64_C(0x100000)
#define PAGES 200

/* ---- what stands in for broker and device --------------------------------------------------------------------- */

struct Broker {
        BrokerMap maps[4];
        uint32_t n;
};

uint32_t broker_maps(const Broker *broker, const BrokerMap **ret)
{
        *ret = broker->maps;
        return broker->n;
}

/* What the log says of each mapping, by its address; and what was asked. */
static struct {
        uint64_t address;
        uint64_t words[(PAGES + 63) / 64];
        int status;
} answers[4];
static uint32_t n_asked;
static bool late; /* the answer is given by answer_late() */
static struct question {
        DeviceReported on_reported;
        void *userdata;
        int status;
        uint64_t words[(PAGES + 63) / 64];
} open_question;
static uint64_t asked_page_size;

static int log_report(AgentDevice *device, uint64_t address, uint64_t size, uint64_t page_size,
                      DeviceReported on_reported, void *userdata)
{
        uint64_t words[(PAGES + 63) / 64] = {};
        int status = 0;

        n_asked++;
        asked_page_size = page_size;
        for (size_t i = 0; i < ARRAY_SIZE(answers); i++)
                if (answers[i].address == address) {
                        memcpy(words, answers[i].words, sizeof words);
                        status = answers[i].status;
                }
        if (late) {
                open_question = (struct question){on_reported, userdata, status};
                memcpy(open_question.words, words, sizeof words);
                return 0;
        }
        on_reported(userdata, status, status == 0 ? words : NULL);
        return 0;
}

static const AgentDeviceOps device_ops = {.log_report = log_report};
static AgentDevice device = {.ops = &device_ops};

static void answer_late(int status)
{
        open_question.on_reported(open_question.userdata, status, status == 0 ? open_question.words : NULL);
}

/* ---- memory ----------------------------------------------------------------------------------------------------- */

typedef struct Memory {
        Broker broker;
        int fd;
        uint8_t *bytes;
} Memory;

/* One mapping in the middle of a file, so that an offset that is forgotten shows. */
static void memory_init(Memory *m, uint8_t fill)
{
        *m = (Memory){.fd = memfd_create("memory", MFD_CLOEXEC)};
        assert_int_equal(ftruncate(m->fd, (PAGES + 2) * PAGE), 0);
        m->bytes = mmap(NULL, (PAGES + 2) * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, m->fd, 0);
        assert_ptr_not_equal(m->bytes, MAP_FAILED);
        memset(m->bytes, fill, (PAGES + 2) * PAGE);
        m->broker.n = 1;
        m->broker.maps[0] = (BrokerMap){BASE, PAGES * PAGE, PAGE, 3, m->fd};
}

static void memory_deinit(Memory *m)
{
        (void) munmap(m->bytes, (PAGES + 2) * PAGE);
        (void) close(m->fd);
}

static uint8_t *page(const Memory *m, uint64_t i)
{
        return m->bytes + (i + 1) * PAGE;
}

static void say(uint32_t i, uint64_t address, uint64_t n, ...)
{
        va_list args;

        memset(&answers[i], 0, sizeof answers[i]);
        answers[i].address = address;
        va_start(args, n);
        for (uint64_t k = 0; k < n; k++) {
                uint64_t p = va_arg(args, uint64_t);

                answers[i].words[p / 64] |= UINT64_C(1) << (p % 64);
        }
        va_end(args);
}

static int read_status;
static DirtyOthers others; /* none, unless a test says so */

static void on_read(void *userdata, int status)
{
        read_status = status;
}

static Dirty *read_log(const Broker *broker)
{
        Dirty *dirty;
        int r;

        assert_int_equal(dirty_new(&device, broker, &dirty), 0);
        r = dirty_read(dirty, &device, broker, &others, on_read, NULL);
        assert_true(r != 0); /* answered at once: nothing to wait for */
        read_status = MIN(r, 0);
        return dirty;
}

static uint64_t count(const Dirty *dirty, uint64_t max, uint64_t *ret_runs)
{
        uint64_t bytes = 0;

        *ret_runs = 0;
        for (uint32_t i = 0; i < dirty->n; i++) {
                uint64_t at = 0, address, size;

                while (dirty_next(dirty, i, max, &at, &address, &size)) {
                        bytes += size;
                        ++*ret_runs;
                        assert_true(size <= max && size % dirty->page_size == 0);
                }
        }
        return bytes;
}

/* ---- the log ---------------------------------------------------------------------------------------------------- */

static void test_runs_are_what_was_answered(void **state)
{
        Memory m;
        Dirty *dirty;
        uint64_t runs;

        memory_init(&m, 0);
        say(0, BASE, 6, UINT64_C(0), UINT64_C(1), UINT64_C(63), UINT64_C(64), UINT64_C(130), UINT64_C(199));
        dirty = read_log(&m.broker);
        assert_int_equal(read_status, 0);
        assert_int_equal(asked_page_size, PAGE);
        assert_int_equal(count(dirty, 64 * PAGE, &runs), 6 * PAGE);
        assert_int_equal(runs, 4);
        assert_int_equal(count(dirty, PAGE, &runs), 6 * PAGE);
        assert_int_equal(runs, 6);
        dirty_free(dirty);
        memory_deinit(&m);
}

/* Bits behind the last page mean nothing, and a mapping without a file is the VMM's own business. */
static void test_nothing_beyond_what_is_mapped_with_a_file(void **state)
{
        Memory m;
        Dirty *dirty;
        uint64_t runs, last;
        int fd;

        memory_init(&m, 0);
        m.broker.maps[1] = (BrokerMap){BASE * 16, 64 * PAGE, 0, 3, -1};
        m.broker.n = 2;
        say(0, BASE, 1, UINT64_C(199));
        memset(answers[0].words + 3, 0xff, sizeof(uint64_t)); /* pages 192 to 255 of 200 */
        say(1, BASE * 16, 1, UINT64_C(5));
        n_asked = 0;
        dirty = read_log(&m.broker);
        assert_int_equal(n_asked, 1);
        assert_int_equal(count(dirty, 64 * PAGE, &runs), 8 * PAGE);
        assert_int_equal(runs, 1);
        fd = dirty_file(dirty, 0);
        assert_int_equal(pread(fd, &last, sizeof last, 3 * sizeof last), sizeof last);
        assert_int_equal(last, 0xff);
        (void) close(fd);
        dirty_free(dirty);
        memory_deinit(&m);
}

static void test_what_is_read_again_is_added(void **state)
{
        Memory m;
        Dirty *dirty;
        uint64_t runs;

        memory_init(&m, 0);
        say(0, BASE, 1, UINT64_C(3));
        dirty = read_log(&m.broker);
        say(0, BASE, 1, UINT64_C(100));
        assert_int_equal(dirty_read(dirty, &device, &m.broker, &others, on_read, NULL), 1);
        assert_int_equal(count(dirty, 64 * PAGE, &runs), 2 * PAGE);
        dirty_free(dirty);
        memory_deinit(&m);
}

/* Nor what the device has written into another one: that is told by the file, wherever it is mapped. */
static void test_memory_of_other_devices_is_left_out(void **state)
{
        AgentFile files[3] = {{1, 2}, {3, 4}, {5, 6}};
        struct stat st;
        Memory m;

        memory_init(&m, 0);
        say(0, BASE, 1, UINT64_C(3));
        assert_int_equal(fstat(m.fd, &st), 0);
        for (int i = 0; i < 4; i++) {
                bool same_dev = i & 1, same_ino = i & 2;

                files[2] = (AgentFile){st.st_dev + (same_dev ? 0 : 1), st.st_ino + (same_ino ? 0 : 1)};
                assert_int_equal(dirty_others_add(&others, files, 1), 0);
                assert_int_equal(dirty_others_add(&others, files + 1, 2), 0);
                assert_int_equal(others.n, 3);
                n_asked = 0;
                dirty_free(read_log(&m.broker));
                assert_int_equal(read_status, 0);
                assert_int_equal(n_asked, same_dev && same_ino ? 0 : 1);
                dirty_others_clear(&others);
        }
        memory_deinit(&m);
}

static void test_a_log_that_cannot_be_read_is_an_error(void **state)
{
        Memory m;

        memory_init(&m, 0);
        say(0, BASE, 1, UINT64_C(3));
        answers[0].status = -EINVAL;
        dirty_free(read_log(&m.broker));
        assert_int_equal(read_status, -EINVAL);
        memory_deinit(&m);
}

/* A mapping goes while the log runs: what was written there still counts, and who reads waits for that answer too. */
static void test_what_was_noted_of_a_mapping_that_went_is_not_forgotten(void **state)
{
        Memory m;
        Dirty *dirty;
        uint64_t runs;

        memory_init(&m, 0);
        assert_int_equal(dirty_new(&device, &m.broker, &dirty), 0);
        say(0, BASE, 1, UINT64_C(7));
        late = true;
        dirty_note(dirty, &device, &m.broker.maps[0], &others);
        late = false;
        m.broker.n = 0;
        read_status = 42;
        assert_int_equal(dirty_read(dirty, &device, &m.broker, &others, on_read, NULL), 0);
        assert_int_equal(read_status, 42);
        answer_late(0);
        assert_int_equal(read_status, 0);
        assert_int_equal(count(dirty, 64 * PAGE, &runs), PAGE);

        /* What could not be noted is lost, and that is said. */
        late = true;
        dirty_note(dirty, &device, &(BrokerMap){BASE, PAGES * PAGE, 0, 3, m.fd}, &others);
        late = false;
        answer_late(-EIO);
        assert_int_equal(dirty_read(dirty, &device, &m.broker, &others, on_read, NULL), -EIO);
        dirty_free(dirty);

        /* An answer that comes when nobody is there any more. */
        assert_int_equal(dirty_new(&device, &m.broker, &dirty), 0);
        late = true;
        dirty_note(dirty, &device, &(BrokerMap){BASE, PAGES * PAGE, 0, 3, m.fd}, &others);
        late = false;
        dirty_free(dirty);
        answer_late(0);
        memory_deinit(&m);
}

/* An address says which page is meant only where the same is mapped there still. */
static void test_what_was_written_must_be_mapped_as_it_was(void **state)
{
        Memory m, other;
        Dirty *dirty;
        BrokerMap good;

        memory_init(&m, 0);
        memory_init(&other, 0);
        good = m.broker.maps[0];
        say(0, BASE, 1, UINT64_C(7));
        dirty = read_log(&m.broker);
        assert_true(dirty_is_mapped(dirty, &m.broker));
        m.broker.maps[0].fd = dup(m.fd); /* unmapped, and mapped again: another descriptor of the same file */
        assert_true(dirty_is_mapped(dirty, &m.broker));
        (void) close(m.broker.maps[0].fd);
        for (int i = 0; i < 6; i++) {
                m.broker.maps[0] = good;
                m.broker.n = 1;
                switch (i) {
                case 0: m.broker.n = 0; break;
                case 1: m.broker.maps[0].address += PAGE; break;
                case 2: m.broker.maps[0].size -= PAGE; break;
                case 3: m.broker.maps[0].offset += PAGE; break;
                case 4: m.broker.maps[0].fd = other.fd; break;
                case 5: m.broker.maps[0].fd = -1; break;
                }
                assert_false(dirty_is_mapped(dirty, &m.broker));
        }
        dirty_free(dirty);

        /* where nothing was written nothing is missed */
        m.broker.maps[0] = good;
        say(0, BASE, 0);
        dirty = read_log(&m.broker);
        m.broker.n = 0;
        assert_true(dirty_is_mapped(dirty, &m.broker));
        dirty_free(dirty);
        memory_deinit(&m);
        memory_deinit(&other);
}

/* One answer has 1 MiB: a mapping of 64 GiB takes larger pages. */
static void test_large_memory_has_large_pages(void **state)
{
        Broker broker = {.n = 1, .maps = {{0, UINT64_C(64) << 30, 0, 3, -1}}};
        Dirty *dirty;

        assert_int_equal(dirty_new(&device, &broker, &dirty), 0);
        assert_int_equal(dirty->page_size, 8192);
        dirty_free(dirty);
}

static void test_the_file_holds_the_words(void **state)
{
        Memory m;
        Dirty *dirty;
        uint64_t words[(PAGES + 63) / 64];
        int fd;

        memory_init(&m, 0);
        say(0, BASE, 3, UINT64_C(0), UINT64_C(65), UINT64_C(199));
        dirty = read_log(&m.broker);
        fd = dirty_file(dirty, 0);
        assert_true(fd >= 0);
        assert_int_equal(pread(fd, words, sizeof words, 0), sizeof words);
        assert_memory_equal(words, answers[0].words, sizeof words);
        assert_int_equal(pwrite(fd, words, 1, 0), -1); /* nobody changes it under the reader */
        (void) close(fd);
        dirty_free(dirty);
        memory_deinit(&m);
}

/* ---- on their way ----------------------------------------------------------------------------------------------- */

typedef struct End {
        bool told;
        int status;
        char text[128];
} End;

static void on_end(void *userdata, int status, const char *text)
{
        End *end = userdata;

        assert_false(end->told);
        end->told = true;
        end->status = status;
        (void) snprintf(end->text, sizeof end->text, "%s", text);
}

static void run(struct event_base *base, const End *a, const End *b)
{
        for (int i = 0; i < 100000 && (!a->told || (b && !b->told)); i++)
                assert_true(event_base_loop(base, EVLOOP_NONBLOCK) >= 0);
        assert_true(a->told && (!b || b->told));
}

/* Two memories and a connection between them. */
typedef struct Transfer {
        struct event_base *base;
        Memory source, destination;
        Dirty *dirty;
        int s[2];
        Pages *sender, *taker;
        End out, in;
} Transfer;

static void transfer_init(Transfer *t)
{
        *t = (Transfer){.base = event_base_new()};
        memory_init(&t->source, 's');
        memory_init(&t->destination, 'd');
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, t->s), 0);
}

static void transfer_begin(Transfer *t)
{
        assert_int_equal(
                pages_out_new(t->base, t->s[0], t->dirty, &t->source.broker, on_end, &t->out, &t->sender), 0);
        assert_int_equal(pages_in_new(t->base, t->s[1], &t->destination.broker, on_end, &t->in, &t->taker),
                         0);
}

static void transfer_deinit(Transfer *t)
{
        pages_free(t->sender);
        pages_free(t->taker);
        dirty_free(t->dirty);
        memory_deinit(&t->source);
        memory_deinit(&t->destination);
        (void) close(t->s[0]);
        (void) close(t->s[1]);
        event_base_free(t->base);
}

static void test_exactly_these_pages_arrive(void **state)
{
        Transfer t;

        transfer_init(&t);
        t.destination.broker.maps[0].address = BASE - 2 * PAGE; /* mapped otherwise, at the same addresses */
        t.destination.broker.maps[0].size += 2 * PAGE;
        t.destination.broker.maps[0].offset = 0;
        assert_int_equal(ftruncate(t.destination.fd, (PAGES + 4) * PAGE), 0);
        say(0, BASE, 5, UINT64_C(1), UINT64_C(2), UINT64_C(3), UINT64_C(70), UINT64_C(199));
        t.dirty = read_log(&t.source.broker);
        transfer_begin(&t);
        run(t.base, &t.out, &t.in);
        assert_int_equal(t.out.status, 0);
        assert_int_equal(t.in.status, 0);
        assert_int_equal(pages_bytes(t.sender), 5 * PAGE);
        assert_int_equal(pages_bytes(t.taker), 5 * PAGE);
        for (uint64_t i = 0; i < PAGES; i++) {
                bool sent = (i >= 1 && i <= 3) || i == 70 || i == 199;
                uint8_t byte;

                for (uint64_t k = 0; k < PAGE; k += 4095) {
                        assert_int_equal(pread(t.destination.fd, &byte, 1, (off_t) ((i + 2) * PAGE + k)), 1);
                        assert_int_equal(byte, sent ? 's' : i + 2 < PAGES + 2 ? 'd' : 0);
                }
        }
        transfer_deinit(&t);
}

/* The memory is mapped otherwise by now, in pieces: a run goes on in the next one, and where there is none it fails. */
static void test_a_run_goes_on_in_the_next_mapping(void **state)
{
        for (int hole = 0; hole < 2; hole++) {
                Transfer t;

                transfer_init(&t);
                say(0, BASE, 6, UINT64_C(1), UINT64_C(2), UINT64_C(3), UINT64_C(4), UINT64_C(5), UINT64_C(6));
                t.dirty = read_log(&t.source.broker);
                t.source.broker.maps[0] = (BrokerMap){BASE, 3 * PAGE, PAGE, 3, t.source.fd};
                t.source.broker.maps[1] =
                        (BrokerMap){BASE + (3 + (uint64_t) hole) * PAGE, 10 * PAGE, 4 * PAGE, 3, t.source.fd};
                t.source.broker.n = 2;
                transfer_begin(&t);
                run(t.base, &t.out, hole ? NULL : &t.in);
                assert_int_equal(t.out.status, hole ? -ENXIO : 0);
                for (uint64_t i = 0; i < 8 && !hole; i++)
                        assert_int_equal(page(&t.destination, i)[0], i >= 1 && i <= 6 ? 's' : 'd');
                transfer_deinit(&t);
        }
}

/* Not every mapping is a whole number of pages. */
static void test_the_last_page_ends_with_its_mapping(void **state)
{
        Transfer t;

        transfer_init(&t);
        t.source.broker.maps[0].size -= 100;
        say(0, BASE, 2, UINT64_C(198), UINT64_C(199));
        t.dirty = read_log(&t.source.broker);
        transfer_begin(&t);
        run(t.base, &t.out, &t.in);
        assert_int_equal(t.out.status, 0);
        assert_int_equal(t.in.status, 0);
        assert_int_equal(page(&t.destination, 199)[PAGE - 101], 's');
        assert_int_equal(page(&t.destination, 199)[PAGE - 100], 'd');
        transfer_deinit(&t);
}

static size_t put(uint8_t *to, FrameType type, uint64_t offset, const void *payload, uint32_t length)
{
        frame_encode(&(Frame){type, offset, length, length > 0 ? crc32c(payload, length) : 0}, to);
        if (length > 0)
                memcpy(to + FRAME_HEADER_SIZE, payload, length);
        return FRAME_HEADER_SIZE + length;
}

/* The other side is not trusted: however much it has sent, whoever else is in the loop has his turn. */
static void test_a_flood_of_pages_leaves_room_for_others(void **state)
{
        enum { N = 1000, SIZE = 16 };
        static uint8_t frames[N * (FRAME_HEADER_SIZE + SIZE)];
        static const uint8_t payload[SIZE];
        struct event_base *base = event_base_new();
        Memory m;
        End in = {};
        Pages *taker;
        size_t n = 0;
        int s[2];

        memory_init(&m, 'd');
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
        for (int i = 0; i < N; i++)
                n += put(frames + n, FRAME_PAGES, BASE, payload, SIZE);
        assert_int_equal(send(s[0], frames, n, MSG_DONTWAIT), n);
        assert_int_equal(pages_in_new(base, s[1], &m.broker, on_end, &in, &taker), 0);
        for (uint64_t last = 0, now; last < (uint64_t) N * SIZE; last = now) {
                assert_int_equal(event_base_loop(base, EVLOOP_ONCE), 0);
                now = pages_bytes(taker);
                assert_true(now > last && now <= last + N * SIZE / 10);
        }
        pages_free(taker);
        (void) close(s[0]);
        (void) close(s[1]);
        memory_deinit(&m);
        event_base_free(base);
}

/* What comes over a connection, into a memory of PAGES pages. */
static End take(const void *bytes, size_t size, Memory *m)
{
        struct event_base *base = event_base_new();
        End in = {};
        Pages *taker;
        int s[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
        assert_int_equal(send(s[0], bytes, size, 0), (ssize_t) size);
        (void) close(s[0]);
        assert_int_equal(pages_in_new(base, s[1], &m->broker, on_end, &in, &taker), 0);
        run(base, &in, NULL);
        pages_free(taker);
        (void) close(s[1]);
        event_base_free(base);
        return in;
}

static void test_what_is_not_mapped_is_not_written(void **state)
{
        static const struct {
                uint64_t address;
                uint32_t length;
                int status;
        } places[] = {
                {BASE, 1, 0},
                {BASE + PAGES * PAGE - 4096, 4096, 0},
                {BASE + PAGES * PAGE - 4096, 4097, -ENXIO},
                {BASE - 1, 1, -ENXIO},
                {BASE - 1, 2, -ENXIO},
                {BASE + PAGES * PAGE, 1, -ENXIO},
                {0, 4096, -ENXIO},
                {UINT64_MAX, 1, -ENXIO},
                {UINT64_MAX - 100, 4096, -ENXIO},
        };
        static const uint8_t payload[8192] = {1, 1, 1, 1};

        for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
                uint8_t bytes[16384];
                Memory m;
                size_t n = put(bytes, FRAME_PAGES, places[i].address, payload, places[i].length);

                n += put(bytes + n, FRAME_END, places[i].length, NULL, 0);
                memory_init(&m, 'd');
                assert_int_equal(take(bytes, n, &m).status, places[i].status);
                assert_int_equal(m.bytes[PAGE - 1], 'd');
                assert_int_equal(page(&m, PAGES)[0], 'd');
                memory_deinit(&m);
        }
}

static void test_a_damaged_or_short_connection_is_an_error(void **state)
{
        uint8_t payload[4096] = {7}, good[16384], bytes[16384];
        size_t n, size;
        Memory m;

        memory_init(&m, 'd');
        n = put(good, FRAME_PAGES, BASE, payload, sizeof payload);
        size = n + put(good + n, FRAME_END, sizeof payload, NULL, 0);
        assert_int_equal(take(good, size, &m).status, 0);
        assert_int_equal(page(&m, 0)[0], 7);

        for (size_t cut = 0; cut < size; cut += cut < 64 || cut > size - 64 ? 1 : 97)
                assert_int_equal(take(good, cut, &m).status, -DEVICE_E_CUT);
        memcpy(bytes, good, size);
        bytes[FRAME_HEADER_SIZE + 100] ^= 1;
        assert_int_equal(take(bytes, size, &m).status, -EBADMSG);
        n = put(bytes, FRAME_DATA, BASE, payload, sizeof payload); /* state where memory is due */
        assert_int_equal(take(bytes, n, &m).status, -EBADMSG);
        for (FrameType type = FRAME_MEMORY; type <= FRAME_SLOT; type++) { /* what belongs to state, too */
                frame_encode(&(Frame){.type = type, .offset = BASE, .length = type == FRAME_SLOT ? 1 : 0},
                             bytes);
                assert_int_equal(take(bytes, FRAME_HEADER_SIZE + 4, &m).status, -EBADMSG);
        }
        n = put(bytes, FRAME_END, 1, NULL, 0); /* a page is missing */
        assert_int_equal(take(bytes, n, &m).status, -EBADMSG);
        n = put(bytes, FRAME_ERROR, 0, NULL, 0);
        assert_int_equal(take(bytes, n, &m).status, -ECANCELED);
        memset(bytes, 0xa5, sizeof bytes);
        assert_int_equal(take(bytes, sizeof bytes, &m).status, -EBADMSG);
        memory_deinit(&m);
}

/* The VMM here says at any time what is mapped: also between a page's header and the page. */
static void test_memory_that_goes_while_it_comes_is_an_error(void **state)
{
        struct event_base *base = event_base_new();
        uint8_t payload[4096] = {7}, bytes[8192];
        size_t n = put(bytes, FRAME_PAGES, BASE, payload, sizeof payload);
        Pages *taker;
        End in = {};
        Memory m;
        int s[2];

        memory_init(&m, 'd');
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
        assert_int_equal(pages_in_new(base, s[1], &m.broker, on_end, &in, &taker), 0);
        assert_int_equal(send(s[0], bytes, n - 1, 0), n - 1);
        for (int i = 0; i < 10; i++)
                assert_true(event_base_loop(base, EVLOOP_NONBLOCK) >= 0);
        assert_false(in.told);
        m.broker.n = 0;
        assert_int_equal(send(s[0], bytes + n - 1, 1, 0), 1);
        run(base, &in, NULL);
        assert_int_equal(in.status, -ENXIO);
        assert_int_equal(page(&m, 0)[0], 'd');
        pages_free(taker);
        (void) close(s[0]);
        (void) close(s[1]);
        memory_deinit(&m);
        event_base_free(base);
}

static void test_memory_that_is_gone_is_an_error(void **state)
{
        struct event_base *base = event_base_new();
        Memory m;
        End out = {};
        Pages *sender;
        Dirty *dirty;
        int s[2];

        memory_init(&m, 's');
        say(0, BASE, 1, UINT64_C(150));
        dirty = read_log(&m.broker);
        assert_int_equal(ftruncate(m.fd, 10 * PAGE), 0);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
        assert_int_equal(pages_out_new(base, s[0], dirty, &m.broker, on_end, &out, &sender), 0);
        run(base, &out, NULL);
        assert_int_equal(out.status, -ENXIO);
        pages_free(sender);

        out = (End){};
        m.broker.n = 0;
        assert_int_equal(pages_out_new(base, s[0], dirty, &m.broker, on_end, &out, &sender), 0);
        run(base, &out, NULL);
        assert_int_equal(out.status, -ENXIO);
        pages_free(sender);
        dirty_free(dirty);
        memory_deinit(&m);
        (void) close(s[0]);
        (void) close(s[1]);
        event_base_free(base);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_runs_are_what_was_answered),
                cmocka_unit_test(test_nothing_beyond_what_is_mapped_with_a_file),
                cmocka_unit_test(test_what_is_read_again_is_added),
                cmocka_unit_test(test_memory_of_other_devices_is_left_out),
                cmocka_unit_test(test_a_log_that_cannot_be_read_is_an_error),
                cmocka_unit_test(test_what_was_noted_of_a_mapping_that_went_is_not_forgotten),
                cmocka_unit_test(test_what_was_written_must_be_mapped_as_it_was),
                cmocka_unit_test(test_large_memory_has_large_pages),
                cmocka_unit_test(test_the_file_holds_the_words),
                cmocka_unit_test(test_exactly_these_pages_arrive),
                cmocka_unit_test(test_a_run_goes_on_in_the_next_mapping),
                cmocka_unit_test(test_the_last_page_ends_with_its_mapping),
                cmocka_unit_test(test_a_flood_of_pages_leaves_room_for_others),
                cmocka_unit_test(test_what_is_not_mapped_is_not_written),
                cmocka_unit_test(test_a_damaged_or_short_connection_is_an_error),
                cmocka_unit_test(test_memory_that_goes_while_it_comes_is_an_error),
                cmocka_unit_test(test_memory_that_is_gone_is_an_error),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
