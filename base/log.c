/* Log lines: formatted into one buffer, written by one write(2). Lines longer than the
 * buffer are cut; control characters become blanks so that a line stays a line. */
#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

enum { LINE_MAX_BYTES = 2048, PREFIX_MAX = 64 };

static atomic_int least_level = LOG_INFO;
static atomic_int out_fd = -1;
static char prefix[PREFIX_MAX];

void log_set_level(enum log_level least)
{
    least_level = (int)least;
}

void log_set_file(int fd)
{
    out_fd = fd;
}

void log_set_prefix(const char *text)
{
    snprintf(prefix, sizeof prefix, "%s", text);
}

void log_line(enum log_level level, const char *fmt, ...)
{
    static const char *const name[] = {"debug ", "info ", "warning ", "error "};
    char buf[LINE_MAX_BYTES], time[32];
    size_t used, n;
    ssize_t written;
    va_list ap;
    int fd = out_fd;

    if ((int)level < least_level)
        return;
    used =
        (size_t)snprintf(buf, sizeof buf, "%s %s%s",
                         clock_iso(time, sizeof time, clock_wall()), name[level], prefix);
    va_start(ap, fmt);
    vsnprintf(buf + used, sizeof buf - used - 1, fmt, ap);
    va_end(ap);
    n = used + strlen(buf + used);
    for (size_t i = used; i < n; i++)
        if ((unsigned char)buf[i] < 0x20 || buf[i] == 0x7f)
            buf[i] = ' ';
    buf[n++] = '\n';
    written = write(STDERR_FILENO, buf, n);
    if (fd >= 0)
        written = write(fd, buf, n);
    (void)written; /* nobody to tell */
}
