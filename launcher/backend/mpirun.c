/* The mpirun back end: several ranks of hone-worker, where Open MPI's mpirun puts them: on
 * this machine, or over the hosts of the Slurm allocation that it runs in.
 *
 * Ranks share the cores among themselves (hone-worker divides what it may use), so mpirun
 * does not bind them and may start more of them than there are cores. Root is allowed: in a
 * container there is nobody else. Fails with ERR_CONFIG where there is no mpirun. */
#include <stdlib.h>
#include <unistd.h>

#include "base/file.h"
#include "launcher/backend/launch.h"

/* Variables that ranks on other hosts need; mpirun passes their values on by itself. The
 * first OURS are set for every worker. */
enum { OWN_WORDS = 6, OURS = 7 };
static const char *const passed[] = {
    "HONE_UPLINK",         "HONE_UPLINK_FAR",    "HONE_UPLINK_TOKEN",     "HONE_UPLINK_JOB",
    "HONE_UPLINK_ATTEMPT", "HONE_UPLINK_STATUS", "HONE_UPLINK_AUTHORITY", "HONE_CONFINE"};

static int mpirun_command(const struct launch_request *r, struct arena *a,
                          struct launch_command *out, struct err *e)
{
    static const char *const extra[] = {"OMPI_MCA_rmaps_base_oversubscribe=1",
                                        "OMPI_ALLOW_RUN_AS_ROOT=1",
                                        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"};
    size_t n_extra = sizeof extra / sizeof *extra - (geteuid() ? 2 : 0);
    char path[FILE_PATH_MAX];

    if (launch_find_in_path("mpirun", path, sizeof path)) {
        err_set(e, ERR_CONFIG, "%d workers are started by mpirun, which is not in PATH",
                r->workers);
        return err_mend(e, "install openmpi-bin, or set resources.workers to 1");
    }
    {
        const char *before[OWN_WORDS + 2 * sizeof passed / sizeof *passed] = {
            arena_strdup(a, path), "-n",   arena_printf(a, "%d", r->workers),
            "--bind-to",           "none", "--quiet"};
        size_t n = OWN_WORDS;

        for (size_t i = 0; i < sizeof passed / sizeof *passed; i++) {
            if (i < OURS ? !r->far : !getenv(passed[i]))
                continue;
            before[n++] = "-x";
            before[n++] = passed[i];
        }
        return launch_worker(r, before, n, extra, n_extra, a, out, e);
    }
}

const struct launch_backend launch_mpirun = {"mpirun", mpirun_command};
