/* A private honed: see session.h. */
#include "launcher/session.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "launcher/backend/launch.h"
#include "proto/transport.h"

enum { OWNER_FD = 3 };

extern char **environ;

/* Its own session, so that a terminal's ctrl-C reaches us alone; no signal blocked. */
static int set_attributes(posix_spawnattr_t *attr)
{
    sigset_t none, all;
    int rc;

    sigemptyset(&none);
    sigfillset(&all);
    rc = posix_spawnattr_setsigmask(attr, &none);
    if (!rc)
        rc = posix_spawnattr_setsigdefault(attr, &all);
    if (!rc)
        rc = posix_spawnattr_setflags(attr, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK |
                                                POSIX_SPAWN_SETSIGDEF);
    return rc;
}

static int spawn(struct session *s, const char *program, const char *address, int fd,
                 struct err *e)
{
    char *argv[] = {(char *)"honed",
                    (char *)"--state",
                    s->folder,
                    (char *)"--listen",
                    (char *)(uintptr_t)address,
                    (char *)"--owner",
                    (char *)"3",
                    NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    int rc = posix_spawn_file_actions_init(&actions);

    if (rc)
        return err_errno(e, ERR_FAILED, rc, "start %s", program);
    rc = posix_spawnattr_init(&attr);
    if (rc) {
        posix_spawn_file_actions_destroy(&actions);
        return err_errno(e, ERR_FAILED, rc, "start %s", program);
    }
    rc = set_attributes(&attr);
    if (!rc)
        rc = posix_spawn_file_actions_adddup2(&actions, fd, OWNER_FD);
    if (!rc)
        rc = posix_spawn(&s->honed, program, &actions, &attr, argv, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&actions);
    if (rc)
        s->honed = 0;
    return rc ? err_errno(e, ERR_FAILED, rc, "start %s", program) : 0;
}

/* honed writes one line once it listens; end of file: it could not (and has said why). */
static int await_ready(struct session *s, struct err *e)
{
    char line[16];
    ssize_t n;

    do
        n = read(s->owner, line, sizeof line);
    while (n < 0 && errno == EINTR);
    return n > 0 ? 0 : session_lost(s, e);
}

int session_open(struct session *s, struct err *e)
{
    char program[FILE_PATH_MAX], address[128];
    int pair[2], rc;

    memset(s, 0, sizeof *s);
    s->owner = -1;
    rc = launch_find("honed", program, sizeof program, e);
    if (!rc && (rc = transport_private_dir(s->folder, sizeof s->folder, e)))
        s->folder[0] = '\0';
    if (rc)
        return rc;
    snprintf(address, sizeof address, "unix:%s/socket", s->folder);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) {
        rc = err_errno(e, ERR_FAILED, errno, "start honed");
        session_close(s);
        return rc;
    }
    s->owner = pair[0];
    rc = spawn(s, program, address, pair[1], e);
    close(pair[1]);
    if (!rc)
        rc = await_ready(s, e);
    if (!rc)
        rc = client_open(&s->client, address, "hone " HONE_VERSION, e);
    if (rc)
        session_close(s);
    return rc;
}

int session_lost(struct session *s, struct err *e)
{
    int status = 0;

    if (s->honed && waitpid(s->honed, &status, 0) == s->honed)
        s->honed = 0;
    if (WIFSIGNALED(status))
        return err_set(e, ERR_FAILED, "honed was ended by signal %d (%s)", WTERMSIG(status),
                       strsignal(WTERMSIG(status)));
    return err_set(e, ERR_FAILED, "honed ended with status %d", WEXITSTATUS(status));
}

void session_close(struct session *s)
{
    struct err e;

    client_close(s->client);
    s->client = NULL;
    if (s->owner >= 0)
        close(s->owner);
    s->owner = -1;
    if (s->honed)
        waitpid(s->honed, NULL, 0);
    s->honed = 0;
    if (s->folder[0]) /* honed has removed it, unless it was killed */
        file_remove_tree(s->folder, &e);
    s->folder[0] = '\0';
}
