/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "log.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>

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

bool log_stderr_is_journal(void)
{
        const char *stream = getenv("JOURNAL_STREAM");
        char here[64];
        struct stat st;

        if (!stream || fstat(STDERR_FILENO, &st) < 0)
                return false;
        (void) snprintf(here, sizeof here, "%ju:%ju", (uintmax_t) st.st_dev, (uintmax_t) st.st_ino);
        return streq(stream, here);
}

static void write_stderr(LogLevel level, const LogAbout *about, const char *text)
{
        if (log_stderr_is_journal())
                (void) fprintf(stderr, "<%d>", (int) level);
        (void) fprintf(stderr, "%s\n", text);
}

/* Whose line it is comes first, for those who see nothing but the text. */
void log_write(LogLevel level, const LogAbout *about, const char *format, ...)
{
        const char *vm = about ? about->vm : NULL, *device = about ? about->device : NULL;
        const char *job = about ? about->job : NULL;
        char said[1024], text[1536];
        va_list ap;

        if (level > log_most)
                return;
        va_start(ap, format);
        (void) vsnprintf(said, sizeof said, format, ap);
        va_end(ap);
        (void) snprintf(text, sizeof text, "%s%s%s%s%s%s%s", vm ? vm : "", vm && device ? "/" : "",
                        vm && device ? device : "", vm ? ": " : "", said, job ? " job=" : "", job ? job : "");
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
