/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Logging. Callees return errors, the edge that handles one logs it, once.
 *
 *   info     one line per state change
 *   warning  degraded, but going on
 *   error    an operator must act, and the text says on what
 *
 * Text from outside (a peer, a device server, a VMM) is passed through log_printable() first. Without a sink, lines
 * go to stderr, with systemd's <N> prefix where stderr is the journal.
 */

#include "macros.h"

typedef enum LogLevel {
        LOG_LEVEL_ERROR = 3, /* numbers of syslog */
        LOG_LEVEL_WARNING = 4,
        LOG_LEVEL_INFO = 6,
        LOG_LEVEL_DEBUG = 7,
} LogLevel;

/* What a line is about; any member may be NULL. */
typedef struct LogAbout {
        const char *job, *vm, *device, *phase;
} LogAbout;

/* LOG_ABOUT(.vm = ..., .device = ...) */
#define LOG_ABOUT(...) (&(LogAbout){__VA_ARGS__})

/* Where lines go instead of stderr. `text` has no newline, and says whose it is: VM and device before, the job behind. */
typedef void (*LogSink)(LogLevel level, const LogAbout *about, const char *text);

void log_set_sink(LogSink sink);
void log_set_level(LogLevel most);

/* Whether stderr is the journal: not whenever JOURNAL_STREAM is there, which what runs in a service passes on to all that it
 * starts, but when it names this very file, "device:inode" (systemd.exec(5)). */
bool log_stderr_is_journal(void);

void log_write(LogLevel level, const LogAbout *about, const char *format, ...) _printf_(3, 4);

#define log_error(about, ...)   log_write(LOG_LEVEL_ERROR, (about), __VA_ARGS__)
#define log_warning(about, ...) log_write(LOG_LEVEL_WARNING, (about), __VA_ARGS__)
#define log_info(about, ...)    log_write(LOG_LEVEL_INFO, (about), __VA_ARGS__)
#define log_debug(about, ...)   log_write(LOG_LEVEL_DEBUG, (about), __VA_ARGS__)

/* Ends the process where memory has run out and nothing that is half done may go on. Says so on stderr, for which none is
 * needed, and in which function. */
#define out_of_memory() log_out_of_memory(__func__)
_Noreturn void log_out_of_memory(const char *function);

/* Copies foreign text with everything but printable ASCII replaced by '?', cut to fit. Returns `ret`. */
const char *log_printable(const char *text, char *ret, size_t size);
