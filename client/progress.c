/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "progress.h"

#include <stdarg.h>
#include <sys/ioctl.h>
#include <time.h>

#include "daemon/core/phase.h"

#define ROWS_DEFAULT    24
#define COLUMNS_DEFAULT 80

struct Progress {
        char vm[128], phase[32], state[32];
        bool terminal;
        int lines; /* that are drawn */
        struct timespec start;
};

Progress *progress_new(const char *vm)
{
        Progress *p = client_need(calloc(1, sizeof *p));

        (void) snprintf(p->vm, sizeof p->vm, "%s", vm);
        p->terminal = isatty(STDERR_FILENO) && getenv("TERM") && !streq(getenv("TERM"), "dumb");
        (void) clock_gettime(CLOCK_MONOTONIC, &p->start);
        return p;
}

Progress *progress_free(Progress *progress)
{
        free(progress);
        return NULL;
}

static double elapsed(const Progress *p)
{
        struct timespec now;

        (void) clock_gettime(CLOCK_MONOTONIC, &now);
        return (double) (now.tv_sec - p->start.tv_sec) + (double) (now.tv_nsec - p->start.tv_nsec) / 1e9;
}

static struct winsize terminal_size(void)
{
        struct winsize size;

        if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_row == 0 || size.ws_col == 0)
                size = (struct winsize){.ws_row = ROWS_DEFAULT, .ws_col = COLUMNS_DEFAULT};
        return size;
}

void progress_end(Progress *p)
{
        if (p->lines > 0)
                fprintf(stderr, "\033[%dA\033[J", p->lines);
        p->lines = 0;
        (void) fflush(stderr);
}

/* The id is the last part of the device's path, as sd_bus_path_decode() would have it. */
static void device_name(const char *path, char *ret, size_t size)
{
        const char *p = strrchr(path, '/');
        size_t n = 0;

        for (p = p ? p + 1 : path; *p && n + 1 < size; p++) {
                unsigned int c;

                if (*p == '_' && sscanf(p + 1, "%2x", &c) == 1) {
                        ret[n++] = (char) c;
                        p += 2;
                } else {
                        ret[n++] = *p;
                }
        }
        ret[n] = 0;
}

/* One line and no more, however narrow the terminal: the lines are counted, to be drawn over. */
__attribute__((format(printf, 2, 3))) static void put_line(const struct winsize *size, const char *format,
                                                           ...)
{
        char text[512];
        va_list ap;

        va_start(ap, format);
        (void) vsnprintf(text, sizeof text, format, ap);
        va_end(ap);
        fprintf(stderr, "%.*s\n", size->ws_col > 1 ? size->ws_col - 1 : 1, text);
}

static int draw_devices(json_object *job, const struct winsize *size)
{
        json_object *devices = NULL;
        size_t n, most = size->ws_row > 6 ? size->ws_row - 5u : 1;

        (void) json_object_object_get_ex(job, "Devices", &devices);
        n = json_object_is_type(devices, json_type_array) ? json_object_array_length(devices) : 0;
        for (size_t i = 0; i < n && i < most; i++) {
                json_object *device = json_object_array_get_idx(devices, i);
                char name[65];

                device_name(json_object_get_string(json_object_array_get_idx(device, 0)), name, sizeof name);
                put_line(size, "  %-24.24s %s", name,
                         json_object_get_string(json_object_array_get_idx(device, 2)));
        }
        if (n > most)
                put_line(size, "  and %zu more", n - most);
        return (int) (MIN(n, most) + (n > most));
}

static void draw(Progress *p, json_object *job)
{
        struct winsize size = terminal_size();
        const char *phase = client_text(job, "Phase");
        Phase at = phase_from_string(phase);
        json_object *progress = NULL;
        char moved[32], memory[32], bar[PHASE_MAX + 1];

        (void) json_object_object_get_ex(job, "Progress", &progress);
        for (Phase i = 0; i < PHASE_MAX; i++)
                bar[i] = i < at ? '#' : i == at ? '>' : '.';
        bar[PHASE_MAX] = 0;
        progress_end(p);
        put_line(&size, "%.40s  [%s] %s, %s  %.1f s", p->vm, bar, phase, client_text(job, "State"),
                 elapsed(p));
        put_line(&size, "  devices %s, memory %s",
                 format_bytes((uint64_t) client_number(progress, "device-bytes"), moved),
                 format_bytes((uint64_t) client_number(progress, "memory-bytes"), memory));
        p->lines = 2 + draw_devices(job, &size);
        (void) fflush(stderr);
}

void progress_show(Progress *p, json_object *job)
{
        const char *phase = client_text(job, "Phase"), *state = client_text(job, "State");

        if (p->terminal)
                draw(p, job);
        else if (!streq(phase, p->phase) || !streq(state, p->state))
                fprintf(stderr, "%8.3f s  %s: %s, %s\n", elapsed(p), p->vm, phase, state);
        (void) snprintf(p->phase, sizeof p->phase, "%s", phase);
        (void) snprintf(p->state, sizeof p->state, "%s", state);
}
