/* Paths of the cache; see cache.h. ERR_CONFIG where no folder is known. */
#include "worker/train/cache.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/hash.h"

int cache_path(char out[FILE_PATH_MAX], const char *kind, const char *key, int make,
               struct err *e)
{
    const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char dir[FILE_PATH_MAX], name[64];
    int n;

    if (base && *base == '/')
        n = snprintf(dir, sizeof dir, "%s/hone", base);
    else if (home && *home == '/')
        n = snprintf(dir, sizeof dir, "%s/.cache/hone", home);
    else
        return err_set(e, ERR_CONFIG, "neither XDG_CACHE_HOME nor HOME is a folder");
    if (n >= (int)sizeof dir)
        return err_set(e, ERR_CONFIG, "path is too long: %s", dir);
    snprintf(name, sizeof name, "%.24s-%016llx.json", kind,
             (unsigned long long)hash_bytes(key, strlen(key)));
    if (make && !file_is_dir(dir)) {
        if (file_make_dirs(dir, e))
            return e->code;
        chmod(dir, 0700);
    }
    return file_join(out, FILE_PATH_MAX, dir, name, e);
}
