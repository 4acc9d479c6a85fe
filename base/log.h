/* Log lines for people: to stderr, or to a file as well.
 *
 *     2026-11-21T10:59:20Z info sft: step 40 of 375
 *
 * Invariant: a line is written by one write(2), so lines of several processes never mix.
 * Never fails; a log that cannot be written is dropped. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

void log_set_level(enum log_level least);
void log_set_file(int fd);             /* beside stderr; -1: stderr alone (default) */
void log_set_prefix(const char *text); /* of every message; copied, "": none */
void log_line(enum log_level level, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#define log_debug(...) log_line(LOG_DEBUG, __VA_ARGS__)
#define log_info(...)  log_line(LOG_INFO, __VA_ARGS__)
#define log_warn(...)  log_line(LOG_WARN, __VA_ARGS__)
#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)

#endif
