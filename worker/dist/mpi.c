/* Was this process started by MPI, and loading the module; see mpi.h. */
#include "worker/dist/mpi.h"

#include <stdlib.h>

static int number(const char *name)
{
    const char *s = getenv(name);

    return s ? atoi(s) : 0;
}

int mpi_launched(void)
{
    if (number("OMPI_COMM_WORLD_SIZE"))
        return number("OMPI_COMM_WORLD_SIZE") > 1;
    if (number("PMI_SIZE"))
        return number("PMI_SIZE") > 1;
    /* srun --mpi=pmix: it says the number of tasks of the step, not of the job. */
    return getenv("PMIX_RANK") && number("SLURM_STEP_NUM_TASKS") != 1;
}

int mpi_load(const struct mpi_ops **out, struct err *e)
{
    static const struct module want = {HONE_MPI_ABI, sizeof(struct mpi_ops)};
    const void *found;
    int r = module_find("hone-mpi", "hone_mpi", &want, &found, e);

    *out = found;
    if (!r)
        return 0;
    err_wrap(e, "started by MPI");
    return err_mend(e, "install libopenmpi-dev, build Hone again and install all of it");
}
