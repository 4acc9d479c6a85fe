/* Processes of an earlier daemon: see proc.h. A process is looked at again once a pidfd
 * holds it, so that a number used twice fools nobody. */
#include "daemon/proc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"

enum { ENVIRON_MAX = 1 << 20, KEPT_FD = 3 };

/* Read a small file of /proc whole; n bytes, NUL-terminated. -1: gone, or not ours. */
static ssize_t read_proc(pid_t pid, const char *name, char *out, size_t max)
{
    char path[64];
    size_t n = 0;
    ssize_t got;
    int fd;

    snprintf(path, sizeof path, "/proc/%ld/%s", (long)pid, name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    while (n < max - 1 && (got = read(fd, out + n, max - 1 - n)) > 0)
        n += (size_t)got;
    close(fd);
    out[n] = '\0';
    return (ssize_t)n;
}

static int has_mark(pid_t pid, const char *mark, char *buf)
{
    ssize_t n = read_proc(pid, "environ", buf, ENVIRON_MAX);

    for (ssize_t i = 0; i < n; i += (ssize_t)strlen(buf + i) + 1)
        if (!strcmp(buf + i, mark))
            return 1;
    return 0;
}

static int leads_session(pid_t pid)
{
    char stat[1024], *end;
    int session = 0;

    if (read_proc(pid, "stat", stat, sizeof stat) < 0 || !(end = strrchr(stat, ')')))
        return 0;
    return sscanf(end + 1, " %*c %*d %*d %d", &session) == 1 && session == (int)pid;
}

static int pid_open(pid_t pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

/* A process that is there, by number; 0: it is no process, or not one of these. */
static pid_t marked(const char *name, const char *mark, char *buf)
{
    long id;

    return str_to_long(name, &id) || id <= 0 || id == (long)getpid() ||
                   !has_mark((pid_t)id, mark, buf)
               ? 0
               : (pid_t)id;
}

int proc_find(const char *mark, pid_t *pid, int *pidfd, int *kept, struct err *e)
{
    char *buf = mem_alloc(ENVIRON_MAX);
    DIR *proc = buf ? opendir("/proc") : NULL;
    struct dirent *entry;
    int strays = 0;

    *pid = 0;
    *pidfd = *kept = -1;
    if (!proc) {
        if (buf)
            err_errno(e, ERR_IO, errno, "/proc");
        else
            err_set(e, ERR_NOMEM, "out of memory");
        mem_free(buf);
        return e->code;
    }
    while (!*pid && (entry = readdir(proc))) {
        pid_t id = marked(entry->d_name, mark, buf);

        strays |= id && !leads_session(id);
        if (!id || !leads_session(id))
            continue;
        *pidfd = pid_open(id);
        if (*pidfd >= 0 && has_mark(id, mark, buf))
            *pid = id;
        else if (*pidfd >= 0)
            close(*pidfd);
    }
    closedir(proc);
    mem_free(buf);
    if (*pid)
        *kept = (int)syscall(SYS_pidfd_getfd, *pidfd, KEPT_FD, 0);
    else if (strays)
        proc_sweep(mark);
    return 0;
}

void proc_sweep(const char *mark)
{
    enum { MOST = 256 };
    double until = clock_now() + 0.5, left;
    char *buf = mem_alloc(ENVIRON_MAX);
    DIR *proc = buf ? opendir("/proc") : NULL;
    struct dirent *entry;
    struct pollfd fd[MOST];
    nfds_t n = 0;

    while (proc && n < MOST && (entry = readdir(proc))) {
        pid_t pid = marked(entry->d_name, mark, buf);
        int held = pid ? pid_open(pid) : -1;

        if (held >= 0 && has_mark(pid, mark, buf) &&
            !syscall(SYS_pidfd_send_signal, held, SIGKILL, NULL, 0))
            fd[n++] = (struct pollfd){.fd = held, .events = POLLIN};
        else if (held >= 0)
            close(held);
    }
    for (nfds_t i = 0; i < n; i++) {
        left = until - clock_now();
        poll(&fd[i], 1, left > 0 ? (int)(left * 1000) + 1 : 0);
        close(fd[i].fd);
    }
    if (proc)
        closedir(proc);
    mem_free(buf);
}
