/* Verbs that hone-worker carries out: this process becomes hone-worker. */
#include <errno.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "launcher/backend/launch.h"
#include "launcher/verb.h"

int verb_exec_worker(int argc, char **argv)
{
    char worker[FILE_PATH_MAX];
    char **args = mem_array((size_t)argc + 2, sizeof *args);
    struct err e;
    int rc = launch_find("hone-worker", worker, sizeof worker, &e);

    if (!rc && !args)
        rc = err_set(&e, ERR_NOMEM, "out of memory");
    if (!rc) {
        args[0] = worker;
        for (int i = 0; i < argc; i++)
            args[i + 1] = argv[i];
        execv(worker, args);
        rc = err_errno(&e, ERR_FAILED, errno, "start %s", worker);
    }
    mem_free(args);
    err_print(&e, "hone");
    return err_exit_status(rc);
}
