/* Who may do what: see access.h. */
#include "daemon/access.h"

#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon/job.h"

void access_self(struct access *a)
{
    const struct passwd *p = getpwuid(geteuid());

    a->role = ACCESS_ADMIN;
    if (p)
        snprintf(a->user, sizeof a->user, "%s", p->pw_name);
    else
        snprintf(a->user, sizeof a->user, "uid-%ld", (long)geteuid());
}

int access_check(const struct access *a, enum access_need need, const struct job *j,
                 struct err *e)
{
    if (a->role == ACCESS_NOBODY)
        return err_set(e, ERR_DENIED, "not authenticated");
    if (need == ACCESS_VIEW || a->role == ACCESS_ADMIN)
        return 0;
    if (a->role == ACCESS_VIEWER)
        return err_set(e, ERR_DENIED, "%s may look, but not change anything", a->user);
    if (need == ACCESS_STEER && j && (!j->owner || strcmp(j->owner, a->user) != 0))
        return err_set(e, ERR_DENIED, "job %llu belongs to %s", (unsigned long long)j->id,
                       j->owner ? j->owner : "somebody else");
    return 0;
}
