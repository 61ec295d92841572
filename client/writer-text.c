/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client.h"

#define COLUMNS_MAX 12

struct Table {
        const char *const *columns;
        size_t n_columns, n_rows;
        char **cells;
};

Table *table_new(const char *const *columns, size_t n_columns)
{
        Table *table = calloc(1, sizeof *table);

        if (!table || n_columns > COLUMNS_MAX)
                abort();
        table->columns = columns;
        table->n_columns = n_columns;
        return table;
}

void table_row(Table *table, const char *const *cells)
{
        size_t n = table->n_rows * table->n_columns;

        table->cells = realloc(table->cells, (n + table->n_columns) * sizeof *table->cells);
        if (!table->cells)
                abort();
        for (size_t i = 0; i < table->n_columns; i++) {
                table->cells[n + i] = strdup(cells[i][0] ? cells[i] : "-");
                if (!table->cells[n + i])
                        abort();
        }
        table->n_rows++;
}

static void print_row(const Table *table, const char *const *cells, const size_t *widths, FILE *f)
{
        for (size_t i = 0; i < table->n_columns; i++) {
                bool last = i + 1 == table->n_columns;

                fprintf(f, "%-*s%s", last ? 0 : (int) widths[i], cells[i], last ? "\n" : "  ");
        }
}

void table_print(Table *table, bool legend, FILE *f)
{
        size_t widths[COLUMNS_MAX] = {};

        for (size_t i = 0; i < table->n_columns; i++)
                widths[i] = legend ? strlen(table->columns[i]) : 0;
        for (size_t k = 0; k < table->n_rows * table->n_columns; k++)
                widths[k % table->n_columns] = MAX(widths[k % table->n_columns], strlen(table->cells[k]));
        if (legend)
                print_row(table, table->columns, widths, f);
        for (size_t k = 0; k < table->n_rows; k++)
                print_row(table, (const char *const *) table->cells + k * table->n_columns, widths, f);
        for (size_t k = 0; k < table->n_rows * table->n_columns; k++)
                free(table->cells[k]);
        free(table->cells);
        free(table);
}

const char *format_usec(uint64_t usec, char ret[32])
{
        if (usec < 10 * USEC_PER_MSEC)
                (void) snprintf(ret, 32, "%llu us", (unsigned long long) usec);
        else if (usec < 10 * USEC_PER_SEC)
                (void) snprintf(ret, 32, "%.1f ms", (double) usec / (double) USEC_PER_MSEC);
        else
                (void) snprintf(ret, 32, "%.1f s", (double) usec / (double) USEC_PER_SEC);
        return ret;
}

const char *format_bytes(uint64_t bytes, char ret[32])
{
        static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
        double value = (double) bytes;
        size_t unit = 0;

        while (value >= 1024 && unit + 1 < ARRAY_SIZE(units)) {
                value /= 1024;
                unit++;
        }
        (void) snprintf(ret, 32, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
        return ret;
}
