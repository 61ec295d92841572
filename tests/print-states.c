/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Prints docs/states.md from the tables in daemon/core. `make update-docs` writes it, a test compares. */

#include <stdio.h>

#include "daemon/core/half-table.h"

static const char *const when_names[] = {
        "check only",
        "VMM lives",
        "VMM gone",
        "seal seen",
        "not drained",
        "seen running",
        "nobody never tried",
        "a copy is kept",
        "no copy",
        "no way back",
        "nothing ran",
        "END has come",
        "linked",
        "all devices stand",
        "cancelled",
        "DMA is logged",
        "agents copy pages",
        "DONE has come",
        "push",
        "once handed over it stays",
        "a loss that holds the VM",
        "vCPUs held",
        "run here",
        "discard here",
        "not linked",
        "fence",
        "not seen to run again",
        "its record is durable",
};
_Static_assert(1 << ARRAY_SIZE(when_names) == WHEN_MAX, "a condition has no name");

static const char *const time_names[] = {
        [HALF_TIME_NONE] = "-",      [HALF_TIME_PHASE] = "phase", [HALF_TIME_DOUBT] = "doubt",
        [HALF_TIME_RETRY] = "retry", [HALF_TIME_FENCE] = "fence",
};

static const char *const patience_names[] = {
        [HALF_FIRST] = "",
        [HALF_ALL] = " (all)",
        [HALF_TOLERANT] = " (tolerant)",
        [HALF_LAST] = " (last)",
};

static void print_head(void)
{
        printf("<!-- Made by tests/print-states.c from daemon/core/half-*.c; do not edit. -->\n"
               "# States of a migration\n\n"
               "Each half is in one state. What a state asks of devices, VMM, record and the other half is asked on "
               "entry; the state\nis left when all have answered (`reached`), or as the rows below say. An event "
               "without a row changes nothing.\nWhat the columns mean is said in `daemon/core/half-table.h`, the rules "
               "behind the rows in [ownership.md](ownership.md).\n");
}

static void print_states(Side side, HalfState from, HalfState to)
{
        printf("\n## The %s: states\n\n", side_to_string(side));
        printf("| state | phase | job is | devices | VMM | record | says, awaits | time | says when asked | |\n");
        printf("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n");
        for (HalfState s = from; s < to; s++) {
                const HalfStateDesc *d = &half_states[s];

                printf("| `%s` | %s | %s | %s%s | %s | %s |", d->name, phase_to_string(d->phase),
                       job_state_to_string(d->job), device_act_to_string(d->device),
                       patience_names[d->patience], vmm_act_to_string(d->vmm),
                       d->record ? owner_to_string(d->record) : "-");
                if (d->connect || d->fence)
                        printf(" %s |", d->connect ? "makes data connections" : "fences the destination");
                else
                        printf(" %s%s%s |", d->send ? message_to_string(d->send) : "-", d->expect ? ", " : "",
                               d->expect ? message_to_string(d->expect) : "");
                printf(" %s | %s | %s%s |\n", time_names[d->time],
                       d->answer ? message_to_string(d->answer) : "-", d->doc,
                       d->skippable ? " Passed through when the plan has no such phase." : "");
        }
}

static void print_set(uint64_t set, HalfState from, HalfState to)
{
        uint32_t n = 0, all = 0;

        for (HalfState s = from; s < to; s++) {
                n += (set & IN(s)) != 0;
                all++;
        }
        if (n + 1 >= all) {
                printf("any");
                return;
        }
        n = 0;
        for (HalfState s = from; s < to; s++)
                if (set & IN(s))
                        printf("%s`%s`", n++ ? ", " : "", half_states[s].name);
}

static void print_row(const HalfRow *row, HalfState from, HalfState to)
{
        uint32_t n = 0;

        printf("| ");
        print_set(row->in, from, to);
        if (row->on == HALF_MESSAGE)
                printf(" | says %s%s%s%s |", message_to_string(row->message), row->phase ? "{" : "",
                       row->phase ? phase_to_string(row->phase) : "", row->phase ? "}" : "");
        else
                printf(" | %s |", half_event_to_string(row->on));
        for (uint32_t i = 0; i < ARRAY_SIZE(when_names); i++)
                if (row->when & (1u << i))
                        printf("%s %s", n++ ? "," : "", when_names[i]);
        printf(" | ");
        if (row->next == HALF_STAY)
                printf("stays");
        else
                printf("`%s`", half_states[row->next].name);
        printf(" |");
        if (row->send)
                printf(" says %s", message_to_string(row->send));
        if (row->answer)
                printf(" says how it stands");
        if (row->rearm)
                printf(" timer: %s", time_names[row->rearm]);
        if (row->acked)
                printf(" both know the end");
        if (row->noway)
                printf(" no way back");
        if (row->heard)
                printf(" heard");
        printf(" |\n");
}

static void print_rows(Side side, HalfState from, HalfState to)
{
        const HalfRows *rows = half_table.side[side];

        printf("\n## The %s: what follows what\n\nThe first row that fits is taken.\n\n",
               side_to_string(side));
        printf("| in | event | when | next | and |\n| --- | --- | --- | --- | --- |\n");
        for (uint32_t i = 0; i < rows->n; i++)
                print_row(&rows->rows[i], from, to);
}

static const char *column(int value)
{
        return value < 0 ? "" : value ? "yes" : "no";
}

static void print_restores(void)
{
        printf("\n## After a restart\n\nThe first row that fits is taken.\n\n");
        printf("| half | record | superseded | VMM lives | vCPUs run | copy complete | a device ran | goes on in |\n");
        printf("| --- | --- | --- | --- | --- | --- | --- | --- |\n");
        for (uint32_t i = 0; i < half_table.n_restores; i++) {
                const HalfRestore *r = &half_table.restores[i];

                printf("| %s | %s | %s | %s | %s | %s | %s | `%s` |\n", side_to_string(r->side),
                       owner_to_string(r->owner), column(r->superseded), column(r->vmm_lives),
                       column(r->vmm_runs), column(r->complete), column(r->device_ran),
                       half_states[r->to].name);
        }
}

int main(void)
{
        print_head();
        print_states(SIDE_SOURCE, 0, DESTINATION_RECORD);
        print_rows(SIDE_SOURCE, 0, DESTINATION_RECORD);
        print_states(SIDE_DESTINATION, DESTINATION_RECORD, HALF_STATE_MAX);
        print_rows(SIDE_DESTINATION, DESTINATION_RECORD, HALF_STATE_MAX);
        print_restores();
        return 0;
}
