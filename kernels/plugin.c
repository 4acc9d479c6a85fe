/* Loading a back end at run time (plugin.h). Fails with NULL and one line for people: the
 * file is absent, cannot be loaded, is no plug-in, or was built for another version. */
#include "kernels/plugin.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What a machine with a CUDA driver has: without it nothing is loaded. */
static int has_driver(void)
{
    return !access("/dev/nvidiactl", F_OK) || !access("/dev/dxg", F_OK);
}

static int is_complete(const struct backend *b)
{
#define X(op) &&b->op
    return b->name && b->devices && b->describe && b->bf16 && b->f16 && b->set_threads &&
           b->threads && b->alloc && b->release && b->copy_in && b->copy_out &&
           b->fill_zero && b->memory && b->reserve && b->step && b->pack_free &&
           b->error HONE_OPS(X);
#undef X
}

const struct backend *plugin_load(const char *path, char *why, size_t n)
{
    const struct backend *b = NULL;
    plugin_function *get;
    void *file;

    *why = 0;
    if (access(path, R_OK)) {
        snprintf(why, n, "the plug-in %s is absent: build with -DHONE_CUDA=ON", path);
        return NULL;
    }
    file = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!file) {
        const char *reason = dlerror();

        snprintf(why, n, "the plug-in %s cannot be loaded: %s", path,
                 reason ? reason : "no reason given");
        return NULL;
    }
    *(void **)&get = dlsym(file, PLUGIN_SYMBOL);
    if (get)
        b = get();
    if (!b) {
        snprintf(why, n, "%s is not a plug-in of Hone (it has no %s)", path, PLUGIN_SYMBOL);
        return NULL;
    }
    if (b->abi != HONE_BACKEND_ABI || b->size != sizeof *b) {
        snprintf(why, n,
                 "the plug-in %s was built for another version of Hone (interface %u of %u "
                 "bytes, not %u of %zu): build both from the same sources",
                 path, b->abi, b->size, HONE_BACKEND_ABI, sizeof *b);
        return NULL;
    }
    if (!is_complete(b)) {
        snprintf(why, n, "the plug-in %s lacks operators: build it again", path);
        return NULL;
    }
    return b;
}

const struct backend *plugin_find(const char *file, const char *variable, char *why,
                                  size_t n)
{
    const char *asked = getenv(variable);
    char path[PATH_MAX + 64];
    ssize_t len;
    char *slash;

    if (asked && *asked)
        return plugin_load(asked, why, n);
    if (!has_driver()) {
        snprintf(why, n, "this machine has no NVIDIA driver (/dev/nvidiactl is absent)");
        return NULL;
    }
    len = readlink("/proc/self/exe", path, PATH_MAX);
    slash = len > 0 ? memrchr(path, '/', (size_t)len) : NULL;
    if (!slash) {
        snprintf(why, n, "the folder of this program cannot be found");
        return NULL;
    }
    snprintf(slash, sizeof path - (size_t)(slash - path), "/../lib/hone/%s", file);
    return plugin_load(path, why, n);
}
