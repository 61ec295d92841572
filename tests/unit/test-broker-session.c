/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a VMM has set up, and the commands that make a server agree with it, against a server of a few lines. */

#include <fcntl.h>
#include <sys/mman.h>

#include "daemon/agent/broker-session.h"
#include "test.h"

/* ---- messages -------------------------------------------------------------------------------------------------- */

static VfioUserMessage *message(VfioUserCommand command, const void *payload, size_t size, int fd,
                                uint32_t n_fds)
{
        VfioUserMessage *m = vfio_user_message_new(size);

        assert_non_null(m);
        m->header.command = (uint16_t) command;
        memcpy(m->payload, payload, size);
        for (uint32_t i = 0; i < n_fds; i++) {
                m->fds[m->n_fds++] = fcntl(fd, F_DUPFD_CLOEXEC, 0);
                assert_true(m->fds[i] >= 0);
        }
        return m;
}

static VfioUserMessage *map(uint64_t address, uint64_t size, int fd)
{
        VfioUserDmaMap wire = {sizeof wire, 3, address / 2, address, size};

        return message(VFIO_USER_DMA_MAP, &wire, sizeof wire, fd, fd >= 0 ? 1 : 0);
}

static VfioUserMessage *unmap(uint64_t address, uint64_t size, uint32_t flags)
{
        VfioUserDmaUnmap wire = {sizeof wire, flags, address, size};

        return message(VFIO_USER_DMA_UNMAP, &wire, sizeof wire, -1, 0);
}

static VfioUserMessage *irqs(uint32_t flags, uint32_t index, uint32_t start, uint32_t count, int fd)
{
        VfioUserSetIrqs wire = {sizeof wire, flags, index, start, count};

        return message(VFIO_USER_DEVICE_SET_IRQS, &wire, sizeof wire, fd, fd >= 0 ? count : 0);
}

#define EVENTFD (VFIO_USER_IRQ_DATA_EVENTFD | VFIO_USER_IRQ_ACTION_TRIGGER)
#define DISABLE (VFIO_USER_IRQ_DATA_NONE | VFIO_USER_IRQ_ACTION_TRIGGER)

static void accept_it(Session *session, VfioUserMessage *m, bool wanted)
{
        assert_int_equal(session_has_room(session, m), 0);
        assert_int_equal(session_accepted(session, m, wanted), 0);
        vfio_user_message_free(m);
}

/* Carries out what the session asks, as text; `refuse`: how many of the first are refused. */
static const char *carry_out(Session *session, uint32_t files_max, uint32_t refuse, bool give_up)
{
        static char text[4096];
        VfioUserMessage *m;
        size_t n = 0;

        text[0] = 0;
        for (int i = 0; i < 100; i++) {
                const VfioUserDmaMap *dma;
                const VfioUserDmaUnmap *un;
                const VfioUserSetIrqs *irq;

                assert_int_equal(session_next(session, files_max, &m), 0);
                if (!m)
                        return text;
                dma = (const void *) m->payload;
                un = (const void *) m->payload;
                irq = (const void *) m->payload;
                if (m->header.command == VFIO_USER_DMA_MAP)
                        n += (size_t) sprintf(text + n, "map %llx+%llx%s@%llx ",
                                              (unsigned long long) dma->address,
                                              (unsigned long long) dma->size, m->n_fds ? "" : "-",
                                              (unsigned long long) dma->offset);
                else if (m->header.command == VFIO_USER_DMA_UNMAP)
                        n += (size_t) sprintf(text + n, "unmap %llx+%llx ", (unsigned long long) un->address,
                                              (unsigned long long) un->size);
                else if (irq->flags == DISABLE)
                        n += (size_t) sprintf(text + n, "disable %u ", irq->index);
                else
                        n += (size_t) sprintf(text + n, "irq %u.%u*%u/%u ", irq->index, irq->start,
                                              irq->count, m->n_fds);
                assert_int_equal(session_next_done(session, m, refuse == 0 ? m : NULL, give_up), 0);
                vfio_user_message_free(m);
                if (refuse > 0 && !give_up)
                        return text;
                refuse -= refuse > 0;
        }
        fail_msg("no end: %s", text);
        return NULL;
}

static int open_fds(void)
{
        int n = 0;

        for (int fd = 0; fd < 1024; fd++)
                n += fcntl(fd, F_GETFD) >= 0;
        return n;
}

typedef struct Fixture {
        Session *session;
        int fd, before;
} Fixture;

static void begin(Fixture *f)
{
        f->before = open_fds();
        f->fd = memfd_create("memory", MFD_CLOEXEC);
        assert_true(f->fd >= 0);
        assert_int_equal(session_new(&f->session), 0);
}

static void end(Fixture *f)
{
        session_free(f->session);
        (void) close(f->fd);
        assert_int_equal(open_fds(), f->before);
}

static uint32_t n_maps(Session *session)
{
        const BrokerMap *maps;

        return session_maps(session, &maps);
}

/* ---- claims ---------------------------------------------------------------------------------------------------- */

static void test_what_was_accepted_needs_nothing(void **state)
{
        Fixture f;

        begin(&f);
        accept_it(f.session, map(0x1000, 0x1000, f.fd), true);
        accept_it(f.session, irqs(EVENTFD, 2, 0, 4, f.fd), true);
        assert_string_equal(carry_out(f.session, 8, 0, false), "");
        end(&f);
}

static void test_all_of_it_is_given_again_in_order_of_address(void **state)
{
        Fixture f;

        begin(&f);
        accept_it(f.session, irqs(EVENTFD, 2, 3, 6, f.fd), true);
        accept_it(f.session, irqs(EVENTFD, 0, 0, 1, f.fd), true);
        accept_it(f.session, irqs(EVENTFD, 2, 0, 2, f.fd), true);
        accept_it(f.session, map(0x9000, 0x1000, -1), true);
        accept_it(f.session, map(0x1000, 0x1000, f.fd), true);
        accept_it(f.session, map(0x5000, 0x2000, f.fd), true);
        session_lose(f.session);
        assert_string_equal(carry_out(f.session, 4, 0, false),
                            "map 1000+1000@800 map 5000+2000@2800 map 9000+1000-@4800 "
                            "irq 0.0*1/1 irq 2.0*2/2 irq 2.3*4/4 irq 2.7*2/2 ");
        assert_string_equal(carry_out(f.session, 4, 0, false), "");
        session_lose(f.session);
        assert_non_null(strstr(carry_out(f.session, 0, 0, false), "irq 2.3*1/1 irq 2.4*1/1 "));
        end(&f);
}

static void test_what_the_vmm_has_undone_is_forgotten(void **state)
{
        Fixture f;

        begin(&f);
        for (uint64_t i = 0; i < 8; i++)
                accept_it(f.session, map(i * 0x1000, 0x1000, f.fd), true);
        accept_it(f.session, irqs(EVENTFD, 2, 0, 8, f.fd), true);
        accept_it(f.session, irqs(EVENTFD, 1, 0, 1, f.fd), true);
        accept_it(f.session, unmap(0x2000, 0x1000, 0), true);
        accept_it(f.session, unmap(0x5000, 0x3000, 0), true);   /* three */
        accept_it(f.session, unmap(0x0, 0xfff, 0), true);       /* none wholly */
        accept_it(f.session, irqs(EVENTFD, 2, 1, 2, -1), true); /* de-assign */
        accept_it(f.session, irqs(DISABLE, 1, 0, 0, -1), true);
        session_lose(f.session);
        assert_string_equal(carry_out(f.session, 8, 0, false),
                            "map 0+1000@0 map 1000+1000@800 map 3000+1000@1800 map 4000+1000@2000 "
                            "irq 2.0*1/1 irq 2.3*5/5 ");
        accept_it(f.session, unmap(0, 0, VFIO_USER_UNMAP_ALL), true);
        assert_int_equal(n_maps(f.session), 0);
        end(&f);
}

/* As at the end of the address space, where sums overflow. */
static void test_an_unmap_at_the_end_of_the_address_space(void **state)
{
        Fixture f;

        begin(&f);
        accept_it(f.session, map(0x1000, 0x1000, f.fd), true);
        accept_it(f.session, map(UINT64_MAX - 0xfff, 0x1000, f.fd), true);
        accept_it(f.session, unmap(UINT64_MAX - 0xfff, UINT64_MAX, 0), true);
        assert_int_equal(n_maps(f.session), 1);
        accept_it(f.session, unmap(0, UINT64_MAX, 0), true);
        assert_int_equal(n_maps(f.session), 0);
        end(&f);
}

static void test_a_map_that_is_given_twice_counts_once_with_its_last_file(void **state)
{
        int other = memfd_create("other", MFD_CLOEXEC);
        const BrokerMap *maps;
        char byte = 7;
        Fixture f;

        assert_int_equal(pwrite(other, &byte, 1, 0), 1);
        begin(&f);
        accept_it(f.session, map(0x1000, 0x1000, f.fd), true);
        accept_it(f.session, map(0x1000, 0x1000, other), true);
        assert_int_equal(session_maps(f.session, &maps), 1);
        byte = 0;
        assert_int_equal(pread(maps[0].fd, &byte, 1, 0), 1);
        assert_int_equal(byte, 7);
        assert_int_equal(maps[0].flags, 3);
        assert_int_equal(maps[0].offset, 0x800);
        end(&f);
        (void) close(other);
}

static void test_maps_of_one_file_share_a_descriptor(void **state)
{
        Fixture f;
        int one;

        begin(&f);
        accept_it(f.session, map(0, 0x1000, f.fd), true);
        one = open_fds();
        for (uint64_t i = 1; i < 100; i++)
                accept_it(f.session, map(i * 0x1000, 0x1000, f.fd), true);
        assert_int_equal(open_fds(), one);
        for (uint64_t i = 0; i < 100; i++)
                accept_it(f.session, unmap(i * 0x1000, 0x1000, 0), true);
        assert_int_equal(open_fds(), one - 1);
        end(&f);
}

static void test_without_a_vmm_the_server_is_cleaned(void **state)
{
        Fixture f;

        begin(&f);
        accept_it(f.session, map(0x1000, 0x1000, f.fd), true);
        accept_it(f.session, irqs(EVENTFD, 2, 0, 4, f.fd), true);
        accept_it(f.session, irqs(EVENTFD, 0, 0, 1, f.fd), true);
        session_unwant(f.session);
        assert_int_equal(n_maps(f.session), 0);
        assert_int_equal(open_fds(), f.before + 1);
        assert_string_equal(carry_out(f.session, 8, 0, false), "disable 0 disable 2 unmap 1000+1000 ");
        assert_string_equal(carry_out(f.session, 8, 0, false), "");
        /* Neither is there anything to be given again. */
        session_lose(f.session);
        assert_string_equal(carry_out(f.session, 8, 0, false), "");
        end(&f);
}

static void test_a_lost_server_and_a_lost_vmm_leave_nothing(void **state)
{
        for (int order = 0; order < 2; order++) {
                Fixture f;

                begin(&f);
                accept_it(f.session, map(0x1000, 0x1000, f.fd), true);
                accept_it(f.session, irqs(EVENTFD, 2, 0, 4, f.fd), true);
                (order ? session_lose : session_unwant)(f.session);
                (order ? session_unwant : session_lose)(f.session);
                assert_string_equal(carry_out(f.session, 8, 0, false), "");
                end(&f);
        }
}

static void test_what_goes_goes_before_what_comes(void **state)
{
        Fixture f;

        begin(&f);
        accept_it(f.session, map(0x1000, 0x1000, f.fd), true);
        accept_it(f.session, irqs(EVENTFD, 2, 0, 1, f.fd), true);
        session_unwant(f.session);
        accept_it(f.session, irqs(EVENTFD, 2, 1, 1, f.fd), true); /* of the next VMM */
        assert_string_equal(carry_out(f.session, 8, 0, false), "disable 2 unmap 1000+1000 irq 2.1*1/1 ");
        end(&f);
}

static void test_what_was_refused_for_now_is_asked_again_and_for_good_is_not(void **state)
{
        Fixture f;

        begin(&f);
        accept_it(f.session, map(0x1000, 0x1000, f.fd), true);
        accept_it(f.session, irqs(EVENTFD, 2, 0, 2, f.fd), true);
        session_lose(f.session);
        assert_string_equal(carry_out(f.session, 8, 1, false), "map 1000+1000@800 ");
        assert_string_equal(carry_out(f.session, 8, 0, false), "map 1000+1000@800 irq 2.0*2/2 ");
        session_lose(f.session);
        assert_string_equal(carry_out(f.session, 8, 2, true), "map 1000+1000@800 irq 2.0*2/2 ");
        assert_string_equal(carry_out(f.session, 8, 0, false), "");
        assert_int_equal(n_maps(f.session), 1); /* the VMM believes so */
        session_lose(f.session);
        assert_string_equal(carry_out(f.session, 8, 0, false), "map 1000+1000@800 irq 2.0*2/2 ");
        session_unwant(f.session);
        assert_string_equal(carry_out(f.session, 8, 2, true), "disable 2 unmap 1000+1000 ");
        assert_string_equal(carry_out(f.session, 8, 0, false), "");
        end(&f);
}

/* The VMM was told that it failed. */
static void test_what_nobody_knows_of_is_taken_back(void **state)
{
        Fixture f;

        begin(&f);
        accept_it(f.session, map(0x1000, 0x1000, f.fd), false);
        accept_it(f.session, irqs(EVENTFD, 2, 5, 1, f.fd), false);
        assert_int_equal(n_maps(f.session), 0);
        assert_string_equal(carry_out(f.session, 8, 0, false), "disable 2 unmap 1000+1000 ");
        /* It has tried again meanwhile. */
        accept_it(f.session, map(0x1000, 0x1000, f.fd), true);
        accept_it(f.session, map(0x1000, 0x1000, f.fd), false);
        assert_string_equal(carry_out(f.session, 8, 0, false), "");
        end(&f);
}

/* A file of the server's stands behind a region that the VMM has mapped. */
static void test_a_region_whose_file_is_another_one_is_stale(void **state)
{
        static const struct {
                int n_fds; /* of the first, or of another file, negative */
                int r;
        } rows[] = {{1, 0}, {-1, -ESTALE}, {0, -ESTALE}, {2, -ESTALE}};
        int other = memfd_create("other", MFD_CLOEXEC);
        VfioUserRegionInfo info = {.argsz = 64, .index = 3};

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                VfioUserMessage *command, *reply;
                Fixture f;

                begin(&f);
                command = message(VFIO_USER_DEVICE_GET_REGION_INFO, &info, sizeof info, -1, 0);
                reply = message(VFIO_USER_DEVICE_GET_REGION_INFO, &info, sizeof info, f.fd, 1);
                session_gives_region(f.session, command, reply);
                vfio_user_message_free(command);
                vfio_user_message_free(reply);
                assert_string_equal(carry_out(f.session, 8, 0, false), "");
                session_lose(f.session);
                assert_int_equal(session_next(f.session, 8, &command), 0);
                assert_non_null(command);
                assert_int_equal(((const VfioUserRegionInfo *) (const void *) command->payload)->index, 3);
                reply = message(VFIO_USER_DEVICE_GET_REGION_INFO, &info, sizeof info,
                                rows[i].n_fds < 0 ? other : f.fd, (uint32_t) abs(rows[i].n_fds));
                assert_int_equal(session_next_done(f.session, command, NULL, false), 0); /* it stands */
                assert_int_equal(session_next_done(f.session, command, reply, false), rows[i].r);
                vfio_user_message_free(command);
                vfio_user_message_free(reply);
                assert_string_equal(carry_out(f.session, 8, 0, false), "");
                /* The next VMM has mapped nothing yet. */
                session_unwant(f.session);
                session_lose(f.session);
                assert_string_equal(carry_out(f.session, 8, 0, false), "");
                end(&f);
        }
        (void) close(other);
}

static void test_there_is_room_for_so_much(void **state)
{
        static const struct {
                uint32_t index, start, count;
                int r;
        } rows[] = {
                {0, 0, 0, 0},
                {0, 0, SESSION_VECTORS_MAX, 0},
                {SESSION_INDEXES_MAX - 1, SESSION_VECTORS_MAX - 1, 1, 0},
                {SESSION_INDEXES_MAX, 0, 1, -ENOSPC},
                {UINT32_MAX, 0, 1, -ENOSPC},
                {0, 0, SESSION_VECTORS_MAX + 1, -ENOSPC},
                {0, 1, SESSION_VECTORS_MAX, -ENOSPC},
                {0, SESSION_VECTORS_MAX, 1, -ENOSPC},
                {0, UINT32_MAX, 2, -ENOSPC},
                {0, 2, UINT32_MAX, -ENOSPC},
        };
        VfioUserMessage *m;
        Fixture f;

        begin(&f);
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                m = irqs(EVENTFD, rows[i].index, rows[i].start, rows[i].count, -1);
                assert_int_equal(session_has_room(f.session, m), rows[i].r);
                vfio_user_message_free(m);
        }
        for (uint64_t i = 0; i < SESSION_MAPS_MAX; i++)
                accept_it(f.session, map(i, 1, -1), true);
        m = map(SESSION_MAPS_MAX, 1, -1);
        assert_int_equal(session_has_room(f.session, m), -ENOSPC);
        vfio_user_message_free(m);
        assert_int_equal(n_maps(f.session), SESSION_MAPS_MAX);
        /* So many are given again in no time. */
        session_lose(f.session);
        for (uint64_t i = 0; i < SESSION_MAPS_MAX; i++) {
                assert_int_equal(session_next(f.session, 8, &m), 0);
                assert_non_null(m);
                assert_int_equal(((const VfioUserDmaMap *) (const void *) m->payload)->address, i);
                assert_int_equal(session_next_done(f.session, m, m, false), 0);
                vfio_user_message_free(m);
        }
        assert_string_equal(carry_out(f.session, 8, 0, false), "");
        accept_it(f.session, unmap(0, 0, VFIO_USER_UNMAP_ALL), true);
        end(&f);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_what_was_accepted_needs_nothing),
                cmocka_unit_test(test_all_of_it_is_given_again_in_order_of_address),
                cmocka_unit_test(test_what_the_vmm_has_undone_is_forgotten),
                cmocka_unit_test(test_an_unmap_at_the_end_of_the_address_space),
                cmocka_unit_test(test_a_map_that_is_given_twice_counts_once_with_its_last_file),
                cmocka_unit_test(test_maps_of_one_file_share_a_descriptor),
                cmocka_unit_test(test_without_a_vmm_the_server_is_cleaned),
                cmocka_unit_test(test_a_lost_server_and_a_lost_vmm_leave_nothing),
                cmocka_unit_test(test_what_goes_goes_before_what_comes),
                cmocka_unit_test(test_what_was_refused_for_now_is_asked_again_and_for_good_is_not),
                cmocka_unit_test(test_what_nobody_knows_of_is_taken_back),
                cmocka_unit_test(test_a_region_whose_file_is_another_one_is_stale),
                cmocka_unit_test(test_there_is_room_for_so_much),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
