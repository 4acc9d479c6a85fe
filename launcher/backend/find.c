/* Our own programs: siblings first, so that a build tree and an installation never mix. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "launcher/backend/launch.h"

int launch_find_in_path(const char *program, char *out, size_t n)
{
    const char *path = getenv("PATH");

    for (size_t len; path && *path; path += len + (path[len] == ':')) {
        len = strcspn(path, ":");
        if (len && snprintf(out, n, "%.*s/%s", (int)len, path, program) < (int)n &&
            !access(out, X_OK))
            return 0;
    }
    return ERR_FAILED;
}

int launch_find(const char *program, char *out, size_t n, struct err *e)
{
    char dir[FILE_PATH_MAX];
    int rc = file_self_dir(dir, sizeof dir, e);

    if (rc)
        return rc;
    rc = file_join(out, n, dir, program, e);
    if (rc || !access(out, X_OK))
        return rc;
    if (!launch_find_in_path(program, out, n))
        return 0;
    err_set(e, ERR_FAILED, "%s is neither in %s nor in PATH", program, dir);
    return err_mend(e, "install Hone's programs into one folder");
}
