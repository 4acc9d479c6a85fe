/* The Slurm back end: the ranks of a stage as one srun, which asks for an allocation, waits
 * for it in Slurm's queue, starts hone-worker on its nodes and ends when the last rank has
 * (run within an allocation, it is a step of that).
 *
 * The daemon watches the srun process as it watches mpirun: its exit status is the worst of
 * the ranks', SIGTERM cancels the job even while it waits, and Slurm ends the ranks of an
 * srun that was killed; an attempt waits until the last of an earlier one has gone (they
 * have one name, and it is a singleton). One rank that fails ends the others. Options come
 * from resources.slurm, whose names and values the job's check has limited
 * (worker/spec/slurm.c): none runs a program, changes a user or writes a file. Fails with
 * ERR_CONFIG where there is no srun. */
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "launcher/backend/launch.h"

enum { OWN_WORDS = 8 };

static int slurm_command(const struct launch_request *r, struct arena *a,
                         struct launch_command *out, struct err *e)
{
    const char **before = arena_array(a, OWN_WORDS + r->n_slurm, sizeof *before);
    char path[FILE_PATH_MAX];
    size_t n = 0;

    if (launch_find_in_path("srun", path, sizeof path)) {
        err_set(e, ERR_CONFIG, "launcher slurm: srun is not in PATH");
        return err_mend(e, "start honed where Slurm's commands are, or leave out "
                           "resources.launcher");
    }
    if (!before)
        return err_set(e, ERR_NOMEM, "start a worker: out of memory");
    before[n++] = arena_strdup(a, path);
    before[n++] = arena_printf(a, "--ntasks=%d", r->workers);
    before[n++] = r->workers > 1 ? "--mpi=pmix" : "--mpi=none";
    before[n++] = "--kill-on-bad-exit=1";
    before[n++] = "--export=ALL";
    before[n++] = "--input=none";
    before[n++] = "--dependency=singleton";
    before[n++] =
        arena_printf(a, "--job-name=hone-%llu-%s-%06x", r->job, r->stage ? r->stage : "job",
                     (unsigned)(hash_bytes(r->run, strlen(r->run)) & 0xffffff));
    for (size_t i = 0; i < r->n_slurm; i++)
        before[n++] = r->slurm[i];
    return launch_worker(r, before, n, NULL, 0, a, out, e);
}

const struct launch_backend launch_slurm = {"slurm", slurm_command};
