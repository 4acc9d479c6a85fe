/* Files: whole reads, read-only maps, durable writes.
 *
 * Invariant: file_write_atomic() leaves either the old or the new content at `path`, also
 * over a crash (temporary file in the same folder, fsync, rename, fsync of the folder).
 * Every failure names the path. */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include <stddef.h>
#include <stdio.h>

#include "base/err.h"
#include "base/str.h"

enum { FILE_PATH_MAX = 4096 };

struct file_map {
    const unsigned char *bytes; /* valid also (non-NULL) for an empty file */
    size_t size;
    void *base; /* what munmap wants, or NULL */
};

/* Read at most `limit` bytes; longer files, directories and special files are refused with
 * a message that says so. The buffer is NUL-terminated; free with mem_free(). */
int file_read(const char *path, size_t limit, char **out, size_t *len, struct err *e);
int file_map_open(struct file_map *m, const char *path, struct err *e);
void file_map_close(struct file_map *m);
/* Pages before `upto` are not needed any more: they leave this process's memory (and come
 * back when they are touched after all). */
void file_map_forget(const struct file_map *m, size_t upto);

int file_write_atomic(const char *path, const void *p, size_t n, struct err *e);
/* The same in pieces: open, add, finish; `path` is borrowed. Until finish has returned 0
 * it holds what it held; abort (total, also after finish) removes what was written. */
struct file_out {
    const char *path;
    char tmp[FILE_PATH_MAX];
    int is_open, fd;
};
int file_out_open(struct file_out *o, const char *path, struct err *e);
int file_out_add(struct file_out *o, const void *p, size_t n, struct err *e);
int file_out_finish(struct file_out *o, struct err *e);
void file_out_abort(struct file_out *o);

int file_append(const char *path, const void *p, size_t n, struct err *e);
int file_copy(const char *from, const char *to, struct err *e); /* fsynced, not atomic */
int file_link_or_copy(const char *from, const char *to, struct err *e);

int file_make_dirs(const char *path, struct err *e);   /* mkdir -p, mode 0777 & ~umask */
int file_remove_tree(const char *path, struct err *e); /* does not follow links */
int file_sync_dir(const char *path, struct err *e);
int file_rename(const char *from, const char *to, struct err *e); /* fsyncs the parent */
int file_truncate(const char *path, size_t size, struct err *e);

int file_exists(const char *path);
int file_is_dir(const char *path);
long long file_size(const char *path);         /* -1 where there is none */
long long file_free_bytes(const char *folder); /* space for us on its file system, or -1 */

/* An empty file without a name, for large intermediate data: in $TMPDIR, else /var/tmp (a
 * disk, where /tmp may be memory), else /tmp. The folder is for messages. */
int file_temporary(int *fd, struct err *e);
const char *file_temporary_dir(void);

/* a + "/" + b (b alone when absolute); in `out` of n bytes. Too long: ERR_CONFIG. */
int file_join(char *out, size_t n, const char *a, const char *b, struct err *e);
void file_dirname(char *out, size_t n, const char *path); /* "." where there is none */
const char *file_basename(const char *path);

/* Names in a folder (without . and ..), sorted bytewise; free each and the array with
 * mem_free(). */
int file_list(const char *folder, char ***names, size_t *n, struct err *e);

/* The folder the running executable lies in, without a trailing slash. */
int file_self_dir(char *out, size_t n, struct err *e);

#endif
