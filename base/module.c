/* Modules: see module.h. */
#include "base/module.h"

#include <dlfcn.h>
#include <stdio.h>

#include "base/file.h"

int module_find(const char *name, const char *symbol, const struct module *want,
                const void **out, struct err *e)
{
    char dir[FILE_PATH_MAX], path[FILE_PATH_MAX];
    const struct module *found;
    void *file;
    int rc = file_self_dir(dir, sizeof dir, e);

    *out = NULL;
    if (rc)
        return rc;
    if (snprintf(path, sizeof path, "%s/../lib/hone/%s.so", dir, name) >= (int)sizeof path)
        return err_set(e, ERR_CONFIG, "the program's path is too long: %s", dir);
    file = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!file) {
        const char *why = dlerror();

        err_set(e, ERR_UNSUPPORTED, "load %s: %s", name, why ? why : path);
        return err_mend(e, "install Hone whole: bin/ and lib/hone/ go together");
    }
    found = dlsym(file, symbol);
    if (!found || found->abi != want->abi || found->size != want->size) {
        err_set(e, ERR_UNSUPPORTED, "%s is of another version of Hone", path);
        return err_mend(e, "build and install all of Hone from the same sources");
    }
    *out = found;
    return 0;
}
