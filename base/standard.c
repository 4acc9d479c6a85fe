#include "base/standard.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"

void standard_open(void)
{
    for (int fd = 0; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
            /* The lowest free descriptor is this one. Nothing to say it on if it fails. */
            (void)!open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
}

int standard_close(const char *program, int status)
{
    struct err e;
    int failed;

    errno = 0;
    failed = ferror(stdout);
    if (fflush(stdout))
        failed = 1;
    if (!failed || status)
        return status;
    err_set(&e, ERR_IO, "write standard output: %s",
            errno ? strerror(errno) : "not all of it was written");
    err_print(&e, program);
    return err_exit_status(e.code);
}
