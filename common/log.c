/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "log.h"

#include <stdarg.h>
#include <stdio.h>

static LogSink log_sink;
static LogLevel log_most = LOG_LEVEL_INFO;

void log_set_sink(LogSink sink)
{
        log_sink = sink;
}

void log_set_level(LogLevel most)
{
        log_most = most;
}

static void write_stderr(LogLevel level, const LogAbout *about, const char *text)
{
        bool journal = getenv("JOURNAL_STREAM") != NULL;

        if (journal)
                (void) fprintf(stderr, "<%d>", (int) level);
        if (about && about->vm)
                (void) fprintf(stderr, "%s%s%s: ", about->vm, about->device ? "/" : "",
                               about->device ? about->device : "");
        (void) fprintf(stderr, "%s%s%s\n", text, about && about->job ? " job=" : "",
                       about && about->job ? about->job : "");
}

void log_write(LogLevel level, const LogAbout *about, const char *format, ...)
{
        char text[1024];
        va_list ap;

        if (level > log_most)
                return;
        va_start(ap, format);
        (void) vsnprintf(text, sizeof text, format, ap);
        va_end(ap);
        (log_sink ? log_sink : write_stderr)(level, about, text);
}

void log_out_of_memory(const char *function)
{
        char text[128];

        (void) snprintf(text, sizeof text, "out of memory in %s(): %s ends", function,
                        program_invocation_short_name);
        write_stderr(LOG_LEVEL_ERROR, NULL, text);
        abort();
}

const char *log_printable(const char *text, char *ret, size_t size)
{
        size_t n = 0;

        for (; text[n] && n + 1 < size; n++)
                ret[n] = text[n] >= ' ' && text[n] <= '~' ? text[n] : '?';
        ret[n] = 0;
        return ret;
}
