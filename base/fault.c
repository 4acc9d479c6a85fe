/* Fault injection: one armed fault, counted down by atomic decrement.
 *
 * Invariant: the fault fires once, at the n-th hit of its point from arming, whichever
 * thread makes it. A malformed HONE_FAULT aborts: a test that believes in a fault that is
 * not armed would prove nothing. */
#include "base/fault.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"

enum { ACTION_KILL = -1, ACTION_TERM = -2, ACTION_SEGV = -3 };

static const char *const point_names[FAULT_POINTS] = {"write", "fsync", "rename", "step"};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static atomic_int armed_point = -1;
static atomic_long remaining;
static atomic_int action;

static int parse_action(const char *s, int *out)
{
    static const struct {
        const char *name;
        int value;
    } known[] = {{"KILL", ACTION_KILL}, {"TERM", ACTION_TERM}, {"SEGV", ACTION_SEGV},
                 {"ENOSPC", ENOSPC},    {"EIO", EIO},          {"EACCES", EACCES},
                 {"EDQUOT", EDQUOT},    {"EROFS", EROFS}};

    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(s, known[i].name)) {
            *out = known[i].value;
            return 0;
        }
    return -1;
}

static int arm(const char *spec)
{
    char point[16], count[24], what[16];
    long n;
    int act;

    armed_point = -1;
    if (!spec)
        return 0;
    if (sscanf(spec, "%15[a-z]:%23[0-9]:%15[A-Z]", point, count, what) != 3 ||
        strlen(spec) != strlen(point) + strlen(count) + strlen(what) + 2 ||
        str_to_long(count, &n) || n < 1 || parse_action(what, &act))
        return -1;
    for (int i = 0; i < FAULT_POINTS; i++)
        if (!strcmp(point, point_names[i])) {
            remaining = n;
            action = act;
            armed_point = i;
            return 0;
        }
    return -1;
}

static void arm_from_environment(void)
{
    const char *spec = getenv("HONE_FAULT");

    if (spec && *spec && arm(spec)) {
        fprintf(stderr, "hone: HONE_FAULT=%s is not point:n:error\n", spec);
        abort();
    }
}

int fault_arm(const char *spec)
{
    pthread_once(&once, arm_from_environment);
    return arm(spec);
}

int fault_hit(enum fault_point point)
{
    pthread_once(&once, arm_from_environment);
    if (atomic_load_explicit(&armed_point, memory_order_relaxed) != (int)point)
        return 0;
    if (atomic_fetch_sub(&remaining, 1) != 1)
        return 0;
    if (action == ACTION_KILL)
        raise(SIGKILL);
    if (action == ACTION_SEGV)
        raise(SIGSEGV);
    if (action == ACTION_TERM) {
        raise(SIGTERM);
        return 0;
    }
    errno = action;
    return -1;
}
