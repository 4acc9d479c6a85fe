/* See lines.h. */
#include "worker/data/lines.h"

#include <errno.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"

enum { LINE_MAX_BYTES = 16 << 20 };

int lines_open(struct lines *l, const char *path, struct err *e)
{
    memset(l, 0, sizeof *l);
    if (!path || !strcmp(path, "-")) {
        l->f = stdin;
        l->name = "standard input";
        return 0;
    }
    l->name = path;
    if (file_is_dir(path))
        return err_set(e, ERR_CONFIG, "%s is a folder", path);
    l->f = fopen(path, "r");
    l->owned = 1;
    return l->f ? 0 : err_errno(e, ERR_CONFIG, errno, "read %s", path);
}

static int grow(struct lines *l, struct err *e)
{
    size_t cap = l->cap ? l->cap * 2 : 4096;
    char *p = mem_resize(l->s, cap, 1);

    if (!p)
        return err_set(e, ERR_NOMEM, "%s: out of memory", l->name);
    l->s = p;
    l->cap = cap;
    return 0;
}

int lines_next(struct lines *l, struct err *e)
{
    int c = 0, too_long = 0, any = 0;

    l->n = 0;
    while ((c = getc_unlocked(l->f)) != EOF && c != '\n') {
        any = 1;
        if (l->n >= LINE_MAX_BYTES) {
            too_long = 1;
            continue;
        }
        if (l->n + 2 > l->cap && grow(l, e))
            return e->code;
        l->s[l->n++] = (char)c;
    }
    if (c == EOF && ferror(l->f))
        return err_errno(e, ERR_IO, errno, "read %s", l->name);
    if (c == EOF && !any)
        return LINES_END;
    if (!l->cap && grow(l, e))
        return e->code;
    l->number++;
    if (l->n && l->s[l->n - 1] == '\r')
        l->n--;
    l->s[l->n] = 0;
    return too_long ? LINES_TOO_LONG : LINES_OK;
}

void lines_close(struct lines *l)
{
    if (l->owned && l->f)
        fclose(l->f);
    mem_free(l->s);
    memset(l, 0, sizeof *l);
}
