/* Who may do what: viewers look, operators submit and steer their own jobs, admins steer
 * every job.
 *
 * A transport fills `struct access` when it knows who is at the other end, before the first
 * call; a connection that is nobody's (role ACCESS_NOBODY) may do nothing. */
#ifndef DAEMON_ACCESS_H
#define DAEMON_ACCESS_H

#include "base/err.h"

struct job;

enum { ACCESS_NAME_MAX = 64 };
enum access_role { ACCESS_NOBODY, ACCESS_VIEWER, ACCESS_OPERATOR, ACCESS_ADMIN };
enum access_need { ACCESS_VIEW, ACCESS_SUBMIT, ACCESS_STEER };

struct access {
    enum access_role role;
    char user[ACCESS_NAME_MAX]; /* owner of what is submitted */
};

/* The user this process runs as, as an admin: whom a Unix socket's peer turns out to be. */
void access_self(struct access *a);

/* May they? j: the job to steer, NULL: none in particular. ERR_DENIED says what is missing.
 */
int access_check(const struct access *a, enum access_need need, const struct job *j,
                 struct err *e);

#endif
