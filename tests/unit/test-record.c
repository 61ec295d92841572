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

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_only_the_agreed_changes_are_allowed),
                cmocka_unit_test(test_what_is_final_changes_no_more),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
