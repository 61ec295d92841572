/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client.h"

#include <langinfo.h>
#include <sys/ioctl.h>

#define COLUMNS_MAX   12
#define WIDTH_DEFAULT 80
#define WIDTH_LEAST   6 /* of a column that gives way */
#define GAP           2

struct Table {
        const Column *columns;
        size_t n_columns, n_rows;
        char **cells;
};

void *client_need(void *p)
{
        if (!p) {
                (void) fputs("migctl: out of memory\n", stderr);
                abort();
        }
        return p;
}

Table *table_new(const Column *columns, size_t n_columns)
{
        Table *table = client_need(calloc(1, sizeof *table));

        if (n_columns > COLUMNS_MAX)
                abort();
        table->columns = columns;
        table->n_columns = n_columns;
        return table;
}

void table_row(Table *table, const char *const *cells)
{
        size_t n = table->n_rows * table->n_columns;

        table->cells = client_need(realloc(table->cells, (n + table->n_columns) * sizeof *table->cells));
        for (size_t i = 0; i < table->n_columns; i++)
                table->cells[n + i] = client_need(strdup(cells[i][0] ? cells[i] : "-"));
        table->n_rows++;
}

/* Characters, of which one may be several bytes. */
static size_t width_of(const char *text)
{
        size_t n = 0;

        for (; *text; text++)
                n += ((unsigned char) *text & 0xc0) != 0x80;
        return n;
}

/* Of the terminal; SIZE_MAX when `f` is none: what is read by a program, or kept, is whole. */
static size_t width_of_terminal(FILE *f)
{
        const char *columns = getenv("COLUMNS");
        struct winsize size;
        long n = columns ? strtol(columns, NULL, 10) : 0;

        if (!isatty(fileno(f)))
                return SIZE_MAX;
        if (n > 0)
                return (size_t) n;
        if (ioctl(fileno(f), TIOCGWINSZ, &size) >= 0 && size.ws_col > 0)
                return size.ws_col;
        return WIDTH_DEFAULT;
}

static size_t total_width(const Table *table, const size_t *widths)
{
        size_t total = (table->n_columns - 1) * GAP;

        for (size_t i = 0; i < table->n_columns; i++)
                total += widths[i];
        return total;
}

/* Headings stay whole. */
static void fit(const Table *table, size_t *widths, size_t most)
{
        for (;;) {
                size_t total = total_width(table, widths), least, i = table->n_columns;

                for (size_t k = 0; k < table->n_columns; k++) {
                        least = MAX((size_t) WIDTH_LEAST, strlen(table->columns[k].heading));
                        if (table->columns[k].give > 0 && widths[k] > least &&
                            (i == table->n_columns || table->columns[k].give > table->columns[i].give))
                                i = k;
                }
                if (total <= most || i == table->n_columns)
                        return;
                least = MAX((size_t) WIDTH_LEAST, strlen(table->columns[i].heading));
                widths[i] -= MIN(total - most, widths[i] - least);
        }
}

static void print_cut(const char *text, size_t width, FILE *f)
{
        const char *dots = streq(nl_langinfo(CODESET), "UTF-8") ? "\u2026" : "...";
        size_t keep = width - width_of(dots), n = 0;
        const char *p = text;

        /* Up to the first byte of the first character that goes. */
        for (; *p; p++)
                if (((unsigned char) *p & 0xc0) != 0x80 && n++ == keep)
                        break;
        fprintf(f, "%.*s%s", (int) (p - text), text, dots);
}

static void print_row(const Table *table, const char *const *cells, const size_t *widths, FILE *f)
{
        for (size_t i = 0; i < table->n_columns; i++) {
                bool last = i + 1 == table->n_columns;
                size_t n = width_of(cells[i]);

                if (n > widths[i])
                        print_cut(cells[i], widths[i], f);
                else
                        fprintf(f, "%s%*s", cells[i], last ? 0 : (int) (widths[i] - n), "");
                fprintf(f, "%*s", last ? 0 : GAP, "");
        }
        fputc('\n', f);
}

void table_print(Table *table, bool legend, FILE *f)
{
        const char *headings[COLUMNS_MAX] = {};
        size_t widths[COLUMNS_MAX] = {}, n = table->n_rows * table->n_columns;

        for (size_t i = 0; i < table->n_columns; i++) {
                headings[i] = table->columns[i].heading;
                widths[i] = legend ? strlen(headings[i]) : 0;
        }
        for (size_t k = 0; k < n; k++)
                widths[k % table->n_columns] = MAX(widths[k % table->n_columns], width_of(table->cells[k]));
        fit(table, widths, width_of_terminal(f));
        if (legend)
                print_row(table, headings, widths, f);
        for (size_t k = 0; k < n; k += table->n_columns)
                print_row(table, (const char *const *) table->cells + k, widths, f);
        for (size_t k = 0; k < n; k++)
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

const char *format_age(uint64_t usec, char ret[32])
{
        uint64_t seconds = usec / USEC_PER_SEC;

        if (seconds < 120)
                (void) snprintf(ret, 32, "%llu s", (unsigned long long) seconds);
        else if (seconds < 120 * 60)
                (void) snprintf(ret, 32, "%llu min", (unsigned long long) seconds / 60);
        else if (seconds < 48 * 3600)
                (void) snprintf(ret, 32, "%llu h", (unsigned long long) seconds / 3600);
        else
                (void) snprintf(ret, 32, "%llu days", (unsigned long long) seconds / 86400);
        return ret;
}

const char *format_time(int64_t usec, char ret[32])
{
        time_t seconds = (time_t) (usec / (int64_t) USEC_PER_SEC);
        struct tm tm;

        if (usec <= 0 || !localtime_r(&seconds, &tm) || strftime(ret, 32, "%F %T", &tm) == 0)
                (void) snprintf(ret, 32, "-");
        return ret;
}
