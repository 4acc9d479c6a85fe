/* Files: reads and durable writes over plain system calls.
 *
 * A write of new content goes to `<path>.tmp-<pid>-<n>`, is fsynced, renamed over `path`,
 * and the folder is fsynced: a crash leaves the old or the new content. Missing files,
 * folders in the place of files and missing permission are the user's input (ERR_CONFIG);
 * everything else is ERR_IO. */
#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/mem.h"

static int code_of(int errno_value)
{
    switch (errno_value) {
    case ENOENT:
    case ENOTDIR:
    case EISDIR:
    case EACCES:
    case EPERM:
    case EROFS:
    case ELOOP:
    case ENAMETOOLONG:
    case EEXIST:
        return ERR_CONFIG;
    default:
        return ERR_IO;
    }
}

static int fail(struct err *e, const char *what, const char *path)
{
    int saved = errno;

    return err_errno(e, code_of(saved), saved, "%s %s", what, path);
}

/* Open for reading and refuse everything that is not a regular file. O_NONBLOCK: opening a
 * FIFO must not wait for a writer. */
static int open_regular(const char *path, int *fd, struct stat *st, struct err *e)
{
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0)
        return fail(e, "read", path);
    if (fstat(*fd, st)) {
        fail(e, "read", path);
    } else if (S_ISDIR(st->st_mode)) {
        err_set(e, ERR_CONFIG, "read %s: is a directory, a file is needed", path);
    } else if (!S_ISREG(st->st_mode)) {
        err_set(e, ERR_CONFIG, "read %s: is not a regular file", path);
    } else {
        return 0;
    }
    close(*fd);
    *fd = -1;
    return e->code;
}

int file_read(const char *path, size_t limit, char **out, size_t *len, struct err *e)
{
    struct stat st;
    char *buf = NULL;
    size_t used = 0, size;
    int fd, rc = open_regular(path, &fd, &st, e);

    *out = NULL;
    *len = 0;
    if (rc)
        return rc;
    if ((uintmax_t)st.st_size > limit) {
        rc = err_set(e, ERR_CONFIG, "read %s: %lld bytes, at most %zu are allowed", path,
                     (long long)st.st_size, limit);
        goto done;
    }
    size = (size_t)st.st_size;
    buf = mem_alloc(size + 1);
    if (!buf) {
        rc = err_set(e, ERR_NOMEM, "read %s: out of memory", path);
        goto done;
    }
    while (used < size) {
        ssize_t n = read(fd, buf + used, size - used);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            rc = fail(e, "read", path);
            goto done;
        }
        if (n == 0)
            break; /* cut while we read it */
        used += (size_t)n;
    }
    buf[used] = '\0';
    *out = buf;
    *len = used;
    buf = NULL;
done:
    mem_free(buf);
    close(fd);
    return rc;
}

int file_map_open(struct file_map *m, const char *path, struct err *e)
{
    struct stat st;
    int fd, rc;

    memset(m, 0, sizeof *m);
    rc = open_regular(path, &fd, &st, e);
    if (rc)
        return rc;
    m->bytes = (const unsigned char *)"";
    if (st.st_size > 0) {
        m->base = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (m->base == MAP_FAILED) {
            m->base = NULL;
            m->bytes = NULL;
            rc = fail(e, "map", path);
        } else {
            m->bytes = m->base;
            m->size = (size_t)st.st_size;
        }
    }
    close(fd);
    return rc;
}

void file_map_close(struct file_map *m)
{
    if (m->base)
        munmap(m->base, m->size);
    memset(m, 0, sizeof *m);
}

void file_map_forget(const struct file_map *m, size_t upto)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);

    upto = (upto < m->size ? upto : m->size) / page * page;
    if (m->base && upto)
        madvise(m->base, upto, MADV_DONTNEED); /* a hint: nothing depends on it */
}

const char *file_temporary_dir(void)
{
    const char *folder = getenv("TMPDIR");

    if (folder && *folder)
        return folder;
    return access("/var/tmp", W_OK | X_OK) ? "/tmp" : "/var/tmp";
}

int file_temporary(int *fd, struct err *e)
{
    char name[FILE_PATH_MAX];
    int rc = file_join(name, sizeof name, file_temporary_dir(), "hone-data-XXXXXX", e);

    *fd = -1;
    if (rc)
        return rc;
    *fd = mkostemp(name, O_CLOEXEC);
    if (*fd < 0) {
        err_errno(e, ERR_IO, errno, "make a temporary file in %s", file_temporary_dir());
        return err_mend(e, "set TMPDIR to a folder that can be written to");
    }
    if (unlink(name)) {
        rc = err_errno(e, ERR_IO, errno, "remove %s", name);
        close(*fd);
        *fd = -1;
    }
    return rc;
}

static int write_all(int fd, const char *path, const void *p, size_t n, struct err *e)
{
    const char *s = p;

    while (n) {
        ssize_t k = fault_hit(FAULT_WRITE) ? -1 : write(fd, s, n);

        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0)
            return fail(e, "write", path);
        s += k;
        n -= (size_t)k;
    }
    return 0;
}

static int sync_fd(int fd, const char *path, struct err *e)
{
    if (fault_hit(FAULT_FSYNC) || fsync(fd))
        return fail(e, "fsync", path);
    return 0;
}

int file_out_open(struct file_out *o, const char *path, struct err *e)
{
    static atomic_uint serial;

    o->path = path;
    o->is_open = 0;
    if (snprintf(o->tmp, sizeof o->tmp, "%s.tmp-%ld-%u", path, (long)getpid(), serial++) >=
        (int)sizeof o->tmp)
        return err_set(e, ERR_CONFIG, "write %.100s...: the path is too long", path);
    o->fd = open(o->tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (o->fd < 0)
        return fail(e, "create", o->tmp);
    o->is_open = 1;
    return 0;
}

int file_out_add(struct file_out *o, const void *p, size_t n, struct err *e)
{
    return write_all(o->fd, o->path, p, n, e);
}

int file_out_finish(struct file_out *o, struct err *e)
{
    int rc = sync_fd(o->fd, o->path, e);

    o->is_open = 0;
    if (close(o->fd) && !rc)
        rc = fail(e, "write", o->path);
    if (!rc)
        rc = file_rename(o->tmp, o->path, e);
    if (rc)
        unlink(o->tmp);
    return rc;
}

void file_out_abort(struct file_out *o)
{
    if (!o->is_open)
        return;
    close(o->fd);
    unlink(o->tmp);
    o->is_open = 0;
}

int file_write_atomic(const char *path, const void *p, size_t n, struct err *e)
{
    struct file_out o = {0};
    int rc = file_out_open(&o, path, e);

    if (!rc)
        rc = file_out_add(&o, p, n, e);
    if (!rc)
        rc = file_out_finish(&o, e);
    file_out_abort(&o);
    return rc;
}

int file_append(const char *path, const void *p, size_t n, struct err *e)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    int rc;

    if (fd < 0)
        return fail(e, "open", path);
    rc = write_all(fd, path, p, n, e);
    if (close(fd) && !rc)
        rc = fail(e, "write", path);
    return rc;
}

int file_copy(const char *from, const char *to, struct err *e)
{
    struct file_map m = {0};
    int fd = -1, rc = file_map_open(&m, from, e);

    if (rc)
        return rc;
    fd = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        rc = fail(e, "create", to);
        goto done;
    }
    rc = write_all(fd, to, m.bytes, m.size, e);
    if (!rc)
        rc = sync_fd(fd, to, e);
    if (close(fd) && !rc)
        rc = fail(e, "write", to);
    if (rc)
        unlink(to);
done:
    file_map_close(&m);
    return rc;
}

int file_link_or_copy(const char *from, const char *to, struct err *e)
{
    if (unlink(to) && errno != ENOENT)
        return fail(e, "replace", to);
    return link(from, to) ? file_copy(from, to, e) : 0;
}

int file_make_dirs(const char *path, struct err *e)
{
    char buf[FILE_PATH_MAX];
    size_t n = strlen(path);

    if (n == 0 || n >= sizeof buf)
        return err_set(e, ERR_CONFIG, "create folder: the path is %s",
                       n ? "too long" : "empty");
    if (!mkdir(path, 0777) || (errno == EEXIST && file_is_dir(path)))
        return 0; /* as nearly always */
    memcpy(buf, path, n + 1);
    for (size_t i = 1; i <= n; i++) {
        if (buf[i] != '/' && buf[i] != '\0')
            continue;
        buf[i] = '\0';
        if (mkdir(buf, 0777) && !(errno == EEXIST && file_is_dir(buf)))
            return fail(e, "create folder", buf);
        buf[i] = path[i];
    }
    return 0;
}

static int remove_at(int parent, const char *name, const char *path, int depth,
                     struct err *e)
{
    struct dirent *d;
    DIR *dir;
    int fd, rc = 0;

    if (!unlinkat(parent, name, 0) || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return fail(e, "remove", path);
    if (depth > 100)
        return err_set(e, ERR_IO, "remove %s: nested too deeply", path);
    fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return fail(e, "remove", path);
    dir = fdopendir(fd);
    if (!dir) {
        rc = fail(e, "remove", path);
        close(fd);
        return rc;
    }
    while (!rc && (d = readdir(dir)))
        if (strcmp(d->d_name, ".") && strcmp(d->d_name, ".."))
            rc = remove_at(dirfd(dir), d->d_name, path, depth + 1, e);
    closedir(dir);
    if (!rc && unlinkat(parent, name, AT_REMOVEDIR) && errno != ENOENT)
        rc = fail(e, "remove", path);
    return rc;
}

int file_remove_tree(const char *path, struct err *e)
{
    return remove_at(AT_FDCWD, path, path, 0, e);
}

int file_sync_dir(const char *path, struct err *e)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = 0;

    if (fd < 0)
        return fail(e, "open folder", path);
    /* EINVAL: this file system cannot fsync folders, and there is nothing else to do. */
    if (fault_hit(FAULT_FSYNC) || (fsync(fd) && errno != EINVAL))
        rc = fail(e, "fsync", path);
    close(fd);
    return rc;
}

int file_rename(const char *from, const char *to, struct err *e)
{
    char parent[FILE_PATH_MAX];

    if (fault_hit(FAULT_RENAME) || rename(from, to)) {
        int saved = errno;

        return err_errno(e, code_of(saved), saved, "rename %s to %s", from, to);
    }
    file_dirname(parent, sizeof parent, to);
    return file_sync_dir(parent, e);
}

int file_truncate(const char *path, size_t size, struct err *e)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    int rc = 0;

    if (fd < 0)
        return fail(e, "open", path);
    if (ftruncate(fd, (off_t)size))
        rc = fail(e, "truncate", path);
    if (!rc)
        rc = sync_fd(fd, path, e);
    close(fd);
    return rc;
}

int file_exists(const char *path)
{
    struct stat st;

    return !stat(path, &st);
}

int file_is_dir(const char *path)
{
    struct stat st;

    return !stat(path, &st) && S_ISDIR(st.st_mode);
}

long long file_size(const char *path)
{
    struct stat st;

    return stat(path, &st) ? -1 : (long long)st.st_size;
}

long long file_free_bytes(const char *folder)
{
    struct statvfs v;

    if (statvfs(folder, &v))
        return -1;
    return (long long)v.f_bavail * (long long)v.f_frsize;
}

int file_join(char *out, size_t n, const char *a, const char *b, struct err *e)
{
    size_t la = strlen(a);
    const char *slash = la && a[la - 1] != '/' ? "/" : "";
    int absolute = *b == '/';

    if (snprintf(out, n, "%s%s%s", absolute ? "" : a, absolute ? "" : slash, b) >= (int)n)
        return err_set(e, ERR_CONFIG, "path is too long: %.100s...", b);
    return 0;
}

void file_dirname(char *out, size_t n, const char *path)
{
    size_t end = strlen(path);

    while (end > 1 && path[end - 1] == '/')
        end--;
    while (end > 0 && path[end - 1] != '/')
        end--;
    while (end > 1 && path[end - 1] == '/')
        end--;
    if (end == 0)
        snprintf(out, n, ".");
    else
        snprintf(out, n, "%.*s", (int)end, path);
}

const char *file_basename(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int file_list(const char *folder, char ***names, size_t *n, struct err *e)
{
    struct dirent *d;
    char **list = NULL;
    size_t count = 0, cap = 0;
    DIR *dir = opendir(folder);
    int rc = 0;

    *names = NULL;
    *n = 0;
    if (!dir)
        return fail(e, "list", folder);
    while (!rc && (errno = 0, d = readdir(dir))) {
        if (!strcmp(d->d_name, ".") || !strcmp(d->d_name, ".."))
            continue;
        if (count == cap) {
            char **grown = mem_resize(list, cap ? cap * 2 : 16, sizeof *list);

            if (!grown) {
                rc = err_set(e, ERR_NOMEM, "list %s: out of memory", folder);
                break;
            }
            list = grown;
            cap = cap ? cap * 2 : 16;
        }
        list[count] = mem_strdup(d->d_name);
        if (!list[count])
            rc = err_set(e, ERR_NOMEM, "list %s: out of memory", folder);
        else
            count++;
    }
    if (!rc && errno)
        rc = fail(e, "list", folder);
    closedir(dir);
    if (rc) {
        while (count)
            mem_free(list[--count]);
        mem_free(list);
        return rc;
    }
    if (count)
        qsort(list, count, sizeof *list, by_bytes);
    *names = list;
    *n = count;
    return 0;
}

int file_self_dir(char *out, size_t n, struct err *e)
{
    char path[FILE_PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", path, sizeof path - 1);

    if (len < 0)
        return fail(e, "read", "/proc/self/exe");
    path[len] = '\0';
    file_dirname(out, n, path);
    return 0;
}
