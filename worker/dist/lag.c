/* Stragglers: see lag.h. */
#include "worker/dist/lag.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "worker/dist/comm.h"

int lag_open(struct lag *l, int ranks, int window)
{
    *l = (struct lag){.ranks = ranks, .window = window, .said = -1};
    l->alone = mem_array((size_t)ranks, sizeof *l->alone);
    return l->alone ? 0 : -1;
}

void lag_close(struct lag *l)
{
    mem_free(l->alone);
    l->alone = NULL;
}

int lag_look(struct lag *l, int who, double *share)
{
    int worst = 0, named;

    if (!l->alone)
        return -1;
    if (who >= 0 && who < l->ranks)
        l->alone[who]++;
    if (++l->looks < l->window)
        return -1;
    for (int i = 1; i < l->ranks; i++)
        if (l->alone[i] > l->alone[worst])
            worst = i;
    *share = (double)l->alone[worst] / l->looks;
    named = *share >= LAG_SHARE ? worst : -1;
    memset(l->alone, 0, (size_t)l->ranks * sizeof *l->alone);
    l->looks = 0;
    worst = named == l->said ? -1 : named;
    l->said = named;
    return worst;
}

void lag_say(char *buf, unsigned n, int rank, const char *host, int pid, double share,
             long step, int phase)
{
    snprintf(
        buf, n,
        "rank %d on %s (pid %d) lags: the others waited for it %.0f %% of %d s, last at "
        "step %ld, %s",
        rank, host, pid, 100 * share, LAG_SECONDS, step + 1, comm_phase_name(phase));
}
