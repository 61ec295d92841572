/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a record may say next, restated from the agreed list (docs/ownership.md). */

#include "daemon/core/record.h"
#include "test.h"

static const struct {
        Side side;
        const char *from, *to;
        bool needs_noway;
} allowed[] = {
        {SIDE_SOURCE, "unrecorded", "source"},
        {SIDE_SOURCE, "source", "nobody"},
        {SIDE_SOURCE, "nobody", "done"},
        {SIDE_SOURCE, "source", "aborted"},
        {SIDE_SOURCE, "nobody", "aborted"},
        {SIDE_SOURCE, "unrecorded", "aborted"},
        {SIDE_SOURCE, "aborted", "nobody", true},
        {SIDE_DESTINATION, "unrecorded", "prepared"},
        {SIDE_DESTINATION, "prepared", "destination"},
        {SIDE_DESTINATION, "destination", "done"},
        {SIDE_DESTINATION, "prepared", "promised"},
        {SIDE_DESTINATION, "destination", "promised"},
        {SIDE_DESTINATION, "promised", "destination", true},
        {SIDE_DESTINATION, "prepared", "discarded"},
        {SIDE_DESTINATION, "promised", "discarded"},
        {SIDE_DESTINATION, "unrecorded", "discarded"},
};

static bool is_allowed(Side side, Owner from, Owner to, bool noway)
{
        for (size_t i = 0; i < sizeof allowed / sizeof allowed[0]; i++) {
                if (allowed[i].side != side)
                        continue;
                if (from == to && owner_from_string(allowed[i].to) == to)
                        return true;
                if (owner_from_string(allowed[i].from) == from && owner_from_string(allowed[i].to) == to)
                        return noway || !allowed[i].needs_noway;
        }
        return false;
}

static void test_only_the_agreed_changes_are_allowed(void **state)
{
        for (Side side = 0; side < SIDE_MAX; side++)
                for (int from = -1; from <= OWNER_MAX; from++)
                        for (int to = -1; to <= OWNER_MAX; to++)
                                for (int noway = 0; noway < 2; noway++)
                                        assert_int_equal(owner_may_become(side, from, to, noway),
                                                         is_allowed(side, from, to, noway));
}

static void test_what_is_final_changes_no_more(void **state)
{
        for (Side side = 0; side < SIDE_MAX; side++)
                for (Owner from = 0; from < OWNER_MAX; from++)
                        for (Owner to = 0; to < OWNER_MAX; to++)
                                if (owner_is_final(from) && from != to) {
                                        /* But by a person who gives the source's side up. */
                                        bool given_up = from == OWNER_ABORTED && to == OWNER_NOBODY;

                                        assert_false(owner_may_become(side, from, to, false));
                                        assert_int_equal(owner_may_become(side, from, to, true),
                                                         given_up && side == SIDE_SOURCE);
                                }
}

/* In words of docs/ownership.md: one that has ended yields to whatever came after it, one that may have the VM in hand never. */
static void test_which_record_has_a_newer_one(void **state)
{
        static const Presence presences[] = {PRESENCE_HERE, PRESENCE_AWAY, (Presence) -EINVAL};

        for (Side side = 0; side < SIDE_MAX; side++)
                for (Owner owner = OWNER_SOURCE; owner < OWNER_MAX; owner++)
                        for (int bits = 0; bits < 4; bits++)
                                for (size_t i = 0; i < ARRAY_SIZE(presences); i++) {
                                        RecordOthers others = {bits & 1, bits & 2, presences[i]};
                                        bool moved = side == SIDE_SOURCE && i < 2 &&
                                                     (owner == OWNER_ABORTED ? i == 1 : i == 0);
                                        bool expect = false;

                                        if (owner == OWNER_DONE || owner == OWNER_ABORTED ||
                                            owner == OWNER_DISCARDED)
                                                expect = bits != 0 || moved;
                                        else if (owner == OWNER_SOURCE)
                                                expect = bits & 1;
                                        assert_int_equal(owner_is_superseded(side, owner, &others), expect);
                                }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_only_the_agreed_changes_are_allowed),
                cmocka_unit_test(test_what_is_final_changes_no_more),
                cmocka_unit_test(test_which_record_has_a_newer_one),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
