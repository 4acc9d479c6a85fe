/* Locks: the file's content is the holder's process id, for messages alone. */
#include "daemon/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/str.h"

static long read_pid(int fd)
{
    char text[32] = "";
    ssize_t n = pread(fd, text, sizeof text - 1, 0);
    long pid;

    if (n <= 0)
        return 0;
    text[strcspn(text, "\n")] = '\0';
    return str_to_long(text, &pid) ? 0 : pid;
}

int lock_try(const char *path, int *fd, long *holder, struct err *e)
{
    char text[32];
    int n;

    *holder = 0;
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (*fd < 0)
        return err_errno(e, errno == EACCES ? ERR_CONFIG : ERR_IO, errno, "lock %s", path);
    if (flock(*fd, LOCK_EX | LOCK_NB)) {
        int taken = errno == EWOULDBLOCK;

        if (taken)
            *holder = read_pid(*fd);
        else
            err_errno(e, ERR_IO, errno, "lock %s", path);
        close(*fd);
        *fd = -1;
        return taken ? 1 : e->code;
    }
    n = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    if (ftruncate(*fd, 0) || pwrite(*fd, text, (size_t)n, 0) != n) {
        err_errno(e, ERR_IO, errno, "write %s", path);
        close(*fd);
        *fd = -1;
        return e->code;
    }
    return 0;
}
