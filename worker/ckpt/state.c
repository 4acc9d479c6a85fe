/* Atomic folders; see state.h. Fails with ERR_IO (the path in the message), ERR_CORRUPT
 * (a file does not agree with its manifest), ERR_NOMEM. */
#include "worker/ckpt/state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"

enum { MANIFEST_FORMAT = 1, MANIFEST_BYTES_MAX = 1 << 20 };
static const char manifest_name[] = "manifest.json";
static const char tmp_prefix[] = ".tmp-";
static const char checkpoint_prefix[] = "checkpoint-";

static void free_names(char **names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        mem_free(names[i]);
    mem_free(names);
}

int state_begin(const char *parent, const char *name, char tmp[FILE_PATH_MAX],
                struct err *e)
{
    int n = snprintf(tmp, FILE_PATH_MAX, "%s/%s%s", parent, tmp_prefix, name);
    int r;

    if (n >= FILE_PATH_MAX)
        return err_set(e, ERR_CONFIG, "path is too long: %s", parent);
    r = file_remove_tree(tmp, e);
    return r ? r : file_make_dirs(tmp, e);
}

static int sync_file(const char *path, struct err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC), r = 0;

    if (fd < 0 || fault_hit(FAULT_FSYNC) || fsync(fd))
        r = err_errno(e, ERR_IO, errno, "fsync %s", path);
    if (fd >= 0)
        close(fd);
    return r;
}

/* Add the files of dir/<sub> to the manifest's object, with their paths below `dir`. */
static int add_files(json_t *files, const char *dir, const char *sub, struct err *e)
{
    char folder[FILE_PATH_MAX], path[FILE_PATH_MAX], hex[33];
    char **names = NULL;
    size_t n = 0;
    int r = file_join(folder, sizeof folder, dir, sub, e);

    if (!r)
        r = file_list(*sub ? folder : dir, &names, &n, e);
    for (size_t i = 0; !r && i < n; i++) {
        struct str below = {0};
        json_t *item = NULL;

        str_addf(&below, "%s%s%s", sub, *sub ? "/" : "", names[i]);
        if (str_failed(&below))
            r = err_set(e, ERR_NOMEM, "manifest of %s: out of memory", dir);
        else
            r = file_join(path, sizeof path, dir, below.s, e);
        if (!r && file_is_dir(path)) {
            r = add_files(files, dir, below.s, e);
        } else if (!r && strcmp(below.s, manifest_name)) {
            r = sync_file(path, e);
            if (!r)
                r = hash_file(path, hex, e);
            if (!r)
                item = json_pack("{s:I, s:s}", "bytes", (json_int_t)file_size(path),
                                 "xxh3_128", hex);
            if (!r && json_object_set_new(files, below.s, item))
                r = err_set(e, ERR_NOMEM, "manifest of %s: out of memory", dir);
        }
        str_fini(&below);
    }
    if (!r)
        r = file_sync_dir(*sub ? folder : dir, e);
    free_names(names, n);
    return r;
}

/* Put `tmp` in the place of `path`, which exists. */
static int replace_dir(const char *tmp, const char *path, const char *parent, struct err *e)
{
    char old[FILE_PATH_MAX + 8];
    int r;

    if (fault_hit(FAULT_RENAME))
        return err_errno(e, ERR_IO, errno, "rename %s to %s", tmp, path);
    if (!renameat2(AT_FDCWD, tmp, AT_FDCWD, path, RENAME_EXCHANGE)) {
        r = file_sync_dir(parent, e);
        return r ? r : file_remove_tree(tmp, e);
    }
    /* A file system without exchange: the old one steps aside first. */
    snprintf(old, sizeof old, "%s.old", tmp);
    r = file_remove_tree(old, e);
    if (!r)
        r = file_rename(path, old, e);
    if (!r)
        r = file_rename(tmp, path, e);
    return r ? r : file_remove_tree(old, e);
}

int state_commit(const char *parent, const char *name, const char *tmp, struct err *e)
{
    char path[FILE_PATH_MAX], manifest[FILE_PATH_MAX];
    json_t *files = json_object(), *root = NULL;
    int r;

    if (!files)
        return err_set(e, ERR_NOMEM, "manifest of %s: out of memory", tmp);
    r = add_files(files, tmp, "", e);
    if (r)
        goto done;
    root = json_pack("{s:i, s:O}", "format", MANIFEST_FORMAT, "files", files);
    r = root ? file_join(manifest, sizeof manifest, tmp, manifest_name, e)
             : err_set(e, ERR_NOMEM, "manifest of %s: out of memory", tmp);
    if (!r)
        r = json_write(manifest, root, e);
    if (!r)
        r = file_join(path, sizeof path, parent, name, e);
    if (!r)
        r = file_exists(path) ? replace_dir(tmp, path, parent, e)
                              : file_rename(tmp, path, e);
done:
    json_decref(root);
    json_decref(files);
    return r;
}

int state_clean(const char *parent, struct err *e)
{
    char path[FILE_PATH_MAX];
    char **names;
    size_t n;
    int r = file_list(parent, &names, &n, e);

    if (r)
        return r;
    for (size_t i = 0; !r && i < n; i++) {
        if (!str_starts(names[i], tmp_prefix))
            continue;
        r = file_join(path, sizeof path, parent, names[i], e);
        if (!r)
            r = file_remove_tree(path, e);
    }
    free_names(names, n);
    return r;
}

static int verify_file(const char *dir, const char *name, const json_t *item, struct err *e)
{
    char path[FILE_PATH_MAX], hex[33];
    const char *want = NULL;
    long bytes = 0;
    int r = json_get_string(item, "xxh3_128", 1, &want, e);

    if (!r)
        r = json_get_long(item, "bytes", 1, &bytes, e);
    if (!r)
        r = file_join(path, sizeof path, dir, name, e);
    if (r)
        return r;
    if (file_size(path) != bytes)
        return err_set(e, ERR_CORRUPT, "%s: %lld bytes, the manifest says %ld", path,
                       file_size(path), bytes);
    r = hash_file(path, hex, e);
    if (!r && strcmp(hex, want))
        r = err_set(e, ERR_CORRUPT, "%s: its hash is not the manifest's", path);
    return r;
}

int state_verify(const char *dir, struct err *e)
{
    char path[FILE_PATH_MAX];
    json_t *root = NULL, *files, *item;
    const char *name;
    int r = file_join(path, sizeof path, dir, manifest_name, e);

    if (!r)
        r = json_read(path, MANIFEST_BYTES_MAX, &root, e);
    if (r)
        return r;
    files = json_object_get(root, "files");
    if (!json_is_object(files))
        r = err_set(e, ERR_CORRUPT, "%s: \"files\" is missing", path);
    json_object_foreach(files, name, item)
    {
        if (r)
            break;
        r = verify_file(dir, name, item, e);
    }
    json_decref(root);
    return r;
}

static int compare_long(const void *a, const void *b)
{
    long x = *(const long *)a, y = *(const long *)b;

    return x < y ? -1 : x > y;
}

int state_list(const char *parent, long **steps, size_t *n, struct err *e)
{
    char **names;
    size_t count;
    int r;

    *steps = NULL;
    *n = 0;
    if (!file_is_dir(parent))
        return 0;
    r = file_list(parent, &names, &count, e);
    if (r)
        return r;
    *steps = mem_array(count + 1, sizeof **steps);
    if (!*steps)
        r = err_set(e, ERR_NOMEM, "list %s: out of memory", parent);
    for (size_t i = 0; !r && i < count; i++) {
        long step;

        if (str_starts(names[i], checkpoint_prefix) &&
            !str_to_long(names[i] + sizeof checkpoint_prefix - 1, &step) && step >= 0)
            (*steps)[(*n)++] = step;
    }
    if (*n)
        qsort(*steps, *n, sizeof **steps, compare_long);
    free_names(names, count);
    return r;
}

void state_path(char out[FILE_PATH_MAX], const char *parent, long step)
{
    snprintf(out, FILE_PATH_MAX, "%.*s/%s%ld", FILE_PATH_MAX - 64, parent,
             checkpoint_prefix, step);
}

int state_newest(const char *parent, long *step, struct err *e)
{
    char path[FILE_PATH_MAX];
    struct err damage;
    long *steps;
    size_t n;
    int r = state_list(parent, &steps, &n, e);

    *step = -1;
    for (size_t i = n; !r && i > 0; i--) {
        state_path(path, parent, steps[i - 1]);
        if (!state_verify(path, &damage)) {
            *step = steps[i - 1];
            break;
        }
        if (damage.code == ERR_NOMEM)
            r = err_set(e, ERR_NOMEM, "%s", damage.msg);
        else
            log_warn("damaged checkpoint passed over: %s", damage.msg);
    }
    mem_free(steps);
    return r;
}

int state_prune(const char *parent, size_t keep, struct err *e)
{
    char path[FILE_PATH_MAX], aside[FILE_PATH_MAX];
    long *steps;
    size_t n;
    int r = state_list(parent, &steps, &n, e);

    for (size_t i = 0; !r && i + keep < n; i++) {
        state_path(path, parent, steps[i]);
        /* Under another name first: half a checkpoint must not keep its name. */
        r = state_begin(parent, "old", aside, e);
        if (!r)
            r = file_rename(path, aside, e);
        if (!r)
            r = file_remove_tree(aside, e);
    }
    mem_free(steps);
    return r;
}

int state_link_files(const char *from, const char *to, struct err *e)
{
    char a[FILE_PATH_MAX], b[FILE_PATH_MAX];
    char **names;
    size_t n;
    int r = file_list(from, &names, &n, e);

    if (r)
        return r;
    for (size_t i = 0; !r && i < n; i++) {
        r = file_join(a, sizeof a, from, names[i], e);
        if (!r)
            r = file_join(b, sizeof b, to, names[i], e);
        if (!r && !file_is_dir(a) && strcmp(names[i], manifest_name))
            r = file_link_or_copy(a, b, e);
    }
    free_names(names, n);
    return r;
}
