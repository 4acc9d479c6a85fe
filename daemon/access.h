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
    char credential[65];        /* hash of the credential (daemon/auth.h); "": local */
};

/* "viewer", "operator", "admin" (and "nobody"). Parsing knows the first three: -1 else. */
const char *access_role_name(enum access_role role);
int access_role_parse(const char *name, enum access_role *role);

/* The user this process runs as, as an admin: whom a Unix socket's peer turns out to be. */
void access_self(struct access *a);

/* What a method of the service takes: 0 and *need, or -1: no rule, nobody may. */
int access_of_method(const char *method, enum access_need *need);

/* May they? j: the job to steer, NULL: none in particular. ERR_DENIED says what is missing.
 */
int access_check(const struct access *a, enum access_need need, const struct job *j,
                 struct err *e);

#endif
