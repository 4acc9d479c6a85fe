/* Allowed folders: see roots.h. */
#include "daemon/roots.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

int roots_open(const struct arg_list *folders, struct str *out, struct err *e)
{
    for (int i = 0; i < folders->n; i++) {
        char path[PATH_MAX];

        if (!realpath(folders->item[i], path))
            return err_errno(e, ERR_CONFIG, errno, "--root %s", folders->item[i]);
        if (!file_is_dir(path) || strchr(path, ':'))
            return err_set(e, ERR_CONFIG, "--root %s: %s", path,
                           strchr(path, ':') ? "a name with a colon will not do"
                                             : "not a folder");
        str_addf(out, "%s%s", i ? ":" : "", path);
    }
    if (str_failed(out) || (out->len && setenv("HONE_CONFINE", out->s, 1)))
        return err_set(e, ERR_NOMEM, "--root: out of memory");
    return 0;
}

/* The real path of what exists of `path`, and the rest as it stands: which must not climb.
 */
static int resolve(const char *path, char out[PATH_MAX])
{
    char part[PATH_MAX];

    if (snprintf(part, sizeof part, "%s", path) >= (int)sizeof part || path[0] != '/')
        return -1;
    while (!realpath(part, out)) {
        char *slash = strrchr(part, '/');

        if (errno != ENOENT || !strcmp(slash, "/..") || !strcmp(slash, "/."))
            return -1;
        *slash = '\0';
        if (!part[0])
            snprintf(part, sizeof part, "/");
    }
    return 0;
}

int roots_check(const char *roots, const char *path, struct err *e)
{
    char real[PATH_MAX];
    const char *p = roots;

    if (!roots || !*roots)
        return 0;
    if (!resolve(path, real))
        for (size_t n; *p; p += n + (p[n] == ':')) {
            n = strcspn(p, ":");
            if (!strncmp(real, p, n) &&
                (real[n] == '/' || !real[n] || (n == 1 && p[0] == '/')))
                return 0;
        }
    err_set(e, ERR_DENIED, "%.300s is outside the folders that jobs may use", path);
    return err_mend(e, "%.280s", roots);
}
