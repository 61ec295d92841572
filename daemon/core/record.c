/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "record.h"

static const char *const side_names[SIDE_MAX] = {
        [SIDE_SOURCE] = "source",
        [SIDE_DESTINATION] = "destination",
};

static const char *const owner_names[OWNER_MAX] = {
        [OWNER_UNRECORDED] = "unrecorded",   [OWNER_SOURCE] = "source",
        [OWNER_NOBODY] = "nobody",           [OWNER_DONE] = "done",
        [OWNER_ABORTED] = "aborted",         [OWNER_PREPARED] = "prepared",
        [OWNER_DESTINATION] = "destination", [OWNER_PROMISED] = "promised",
        [OWNER_DISCARDED] = "discarded",
};

DEFINE_STRING_TABLE(Side, side, side_names);
DEFINE_STRING_TABLE(Owner, owner, owner_names);

typedef struct Change {
        Side side;
        Owner from, to;
        bool only_noway;
} Change;

static const Change changes[] = {
        {SIDE_SOURCE, OWNER_UNRECORDED, OWNER_SOURCE},
        {SIDE_SOURCE, OWNER_SOURCE, OWNER_NOBODY},
        {SIDE_SOURCE, OWNER_NOBODY, OWNER_DONE},
        {SIDE_SOURCE, OWNER_SOURCE, OWNER_ABORTED},
        {SIDE_SOURCE, OWNER_NOBODY, OWNER_ABORTED},
        /* nobody saw whether it ran again, and a person says that it did not, or the destination that it runs it */
        {SIDE_SOURCE, OWNER_ABORTED, OWNER_NOBODY, .only_noway = true},
        {SIDE_SOURCE, OWNER_UNRECORDED, OWNER_ABORTED}, /* the first write failed, or so it seemed */
        {SIDE_DESTINATION, OWNER_UNRECORDED, OWNER_PREPARED},
        {SIDE_DESTINATION, OWNER_PREPARED, OWNER_DESTINATION},
        {SIDE_DESTINATION, OWNER_DESTINATION, OWNER_DONE},
        {SIDE_DESTINATION, OWNER_PREPARED, OWNER_PROMISED},
        {SIDE_DESTINATION, OWNER_DESTINATION, OWNER_PROMISED},
        {SIDE_DESTINATION, OWNER_PROMISED, OWNER_DESTINATION, .only_noway = true},
        {SIDE_DESTINATION, OWNER_PREPARED, OWNER_DISCARDED},
        {SIDE_DESTINATION, OWNER_PROMISED, OWNER_DISCARDED},
        {SIDE_DESTINATION, OWNER_UNRECORDED, OWNER_DISCARDED},
};

bool owner_may_become(Side side, Owner from, Owner to, bool noway)
{
        for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
                const Change *c = &changes[i];

                if (c->side != side)
                        continue;
                if (from == to && c->to == to)
                        return true;
                if (c->from == from && c->to == to && (noway || !c->only_noway))
                        return true;
        }
        return false;
}

bool owner_is_final(Owner owner)
{
        return owner == OWNER_DONE || owner == OWNER_ABORTED || owner == OWNER_DISCARDED;
}

bool owner_is_superseded(Side side, Owner owner, const RecordOthers *others)
{
        Presence left = owner == OWNER_ABORTED ? PRESENCE_HERE : PRESENCE_AWAY;

        /* It was taken back, or nothing newer could have begun; and then its disk was full. */
        if (owner == OWNER_SOURCE)
                return others->has_newer;
        if (!owner_is_final(owner))
                return false;
        return others->has_unended || others->has_newer ||
               (side == SIDE_SOURCE && (int) others->presence >= 0 && others->presence != left);
}
