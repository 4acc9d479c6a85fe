/* Who may do what: see access.h. */
#include "daemon/access.h"

#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon/job.h"

static const char *const roles[] = {"nobody", "viewer", "operator", "admin"};

const char *access_role_name(enum access_role role)
{
    return roles[role];
}

int access_role_parse(const char *name, enum access_role *role)
{
    for (int i = ACCESS_VIEWER; i <= ACCESS_ADMIN; i++)
        if (!strcmp(name, roles[i])) {
            *role = (enum access_role)i;
            return 0;
        }
    return -1;
}

/* The least that each method takes. Steering needs the job's owner or an admin as well,
 * which only the handler can tell (rpc_find_job). */
static const char *const view[] = {"List",    "GetJob", "Watch", "Logs",
                                   "Metrics", "Status", "Nodes", NULL};
static const char *const submit[] = {"Submit", "Attach", NULL};
static const char *const steer[] = {"Pause", "Resume",      "Cancel", "Checkpoint", "Skip",
                                    "Retry", "SetPriority", "Remove", NULL};

static int is_in(const char *name, const char *const *list)
{
    while (*list && strcmp(*list, name) != 0)
        list++;
    return *list != NULL;
}

int access_of_method(const char *method, enum access_need *need)
{
    if (is_in(method, view))
        *need = ACCESS_VIEW;
    else if (is_in(method, submit))
        *need = ACCESS_SUBMIT;
    else if (is_in(method, steer))
        *need = ACCESS_STEER;
    else
        return -1;
    return 0;
}

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
    if (a->role == ACCESS_VIEWER) {
        err_set(e, ERR_DENIED, "%s may look, but not change anything", a->user);
        return err_mend(
            e, "a credential of an operator: honed token add NAME --role operator");
    }
    if (need == ACCESS_STEER && j && (!j->owner || strcmp(j->owner, a->user) != 0)) {
        err_set(e, ERR_DENIED, "job %llu belongs to %s", (unsigned long long)j->id,
                j->owner ? j->owner : "somebody else");
        return err_mend(e, "ask them, or an admin");
    }
    return 0;
}
