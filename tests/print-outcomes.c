/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Prints docs/outcomes.md from the table in common/outcome.c. `make update-docs` writes it, a test compares; the man page of
 * migctl is compared with it, too. */

#include <stdio.h>

#include "common/outcome.h"

static const struct {
        int exit;
        const char *doc;
} only_exits[] = {
        {EXIT_USAGE, "migctl was called wrongly, or an argument makes no sense"},
        {EXIT_DENIED, "the caller may not do this"},
        {EXIT_NOT_FOUND, "no such VM, device, job or file"},
        {EXIT_BUSY,
         "nothing was begun: the VM has a job already, which says where it is, or is in hand otherwise"},
        {EXIT_UNREACHABLE, "migmgrd can't be reached"},
        {EXIT_INTERRUPTED, "migrate was interrupted, and the job goes on without it"},
};

static const char *doc_of_exit(int status)
{
        for (size_t i = 0; outcome_result(i); i++)
                if (outcome_result(i)->exit == status)
                        return outcome_result(i)->doc;
        for (size_t i = 0; i < ARRAY_SIZE(only_exits); i++)
                if (only_exits[i].exit == status)
                        return only_exits[i].doc;
        return NULL;
}

/* Every verb ends with 0 or 1; what else these say, migrate does. */
static const char *before_doc(int status)
{
        return status == EXIT_DONE     ? "what was asked for was done; migrate: "
               : status == EXIT_FAILED ? "it failed; migrate: "
                                       : "";
}

static void print_exits(void)
{
        printf("\n## Exit statuses of migctl\n\n| status | |\n| --: | --- |\n");
        for (int status = 0; status <= EXIT_INTERRUPTED; status++)
                if (doc_of_exit(status))
                        printf("| %d | %s%s |\n", status, before_doc(status), doc_of_exit(status));
}

static void print_results(void)
{
        printf("\n## Results of jobs\n\nThe property `Result` of a job, and the status with which `migctl migrate` "
               "exits.\n\n| result | status | |\n| --- | --: | --- |\n");
        for (size_t i = 0; outcome_result(i); i++)
                printf("| `%s` | %d | %s |\n", outcome_result(i)->name, outcome_result(i)->exit,
                       outcome_result(i)->doc);
}

static void print_errors(void)
{
        printf("\n## Errors\n\nOf calls on the bus, and in a job's property `Error`; each begins with `%s`. The status is "
               "that of\nmigctl when a call ends so.\n\n| error | status | |\n| --- | --: | --- |\n",
               OUTCOME_BUS_PREFIX);
        for (Outcome i = 0; i < OUTCOME_MAX; i++)
                if (outcome_info(i)->name)
                        printf("| `%s` | %d | %s |\n", outcome_info(i)->name, outcome_info(i)->exit,
                               outcome_info(i)->doc);
}

int main(void)
{
        printf("<!-- Made by tests/print-outcomes.c from common/outcome.c; do not edit. -->\n"
               "# What can come of it\n");
        print_results();
        print_errors();
        print_exits();
        return 0;
}
