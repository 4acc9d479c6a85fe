#include "base/problems.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void problems_init(struct problems *p, const char *file)
{
    memset(p, 0, sizeof *p);
    p->file = file;
}

void problems_fini(struct problems *p)
{
    arena_fini(&p->arena);
    memset(p, 0, sizeof *p);
}

static void add(struct problems *p, const char *where, const char *mend, int warning,
                const char *fmt, va_list ap)
{
    char message[ERR_MSG_MAX];
    struct problem *q;

    vsnprintf(message, sizeof message, fmt, ap);
    for (int i = 0; i < p->n; i++) /* one file may be read for several splits */
        if (!strcmp(p->item[i].message, message) &&
            !strcmp(p->item[i].where, where ? where : ""))
            return;
    if (!warning)
        p->errors++;
    if (p->n == PROBLEMS_MAX) {
        p->dropped++;
        return;
    }
    q = &p->item[p->n];
    q->where = arena_strdup(&p->arena, where ? where : "");
    q->message = arena_strdup(&p->arena, message);
    q->mend = arena_strdup(&p->arena, mend ? mend : "");
    q->warning = warning;
    /* Without memory for its text the problem still counts. */
    if (!q->where || !q->message)
        q->where = "", q->message = "out of memory while collecting problems";
    if (!q->mend)
        q->mend = "";
    p->n++;
}

void problems_add(struct problems *p, const struct node *at, const char *mend,
                  const char *fmt, ...)
{
    const char *file = p->file ? p->file : "";
    struct str where = {0};
    va_list ap;

    if (at && at->line > 0) {
        str_addf(&where, "%s:%d:%d", file, at->line, at->column);
    } else if (at && at->parent) { /* from --set */
        str_addf(&where, "%s%s", file, *file ? ": " : "");
        node_path(at, &where);
    } else {
        str_add(&where, file);
    }
    va_start(ap, fmt);
    add(p, str_get(&where), mend, 0, fmt, ap);
    va_end(ap);
    str_fini(&where);
}

void problems_add_at(struct problems *p, const char *where, const char *mend,
                     const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    add(p, where, mend, 0, fmt, ap);
    va_end(ap);
}

void problems_warn(struct problems *p, const char *where, const char *mend, const char *fmt,
                   ...)
{
    va_list ap;

    va_start(ap, fmt);
    add(p, where, mend, 1, fmt, ap);
    va_end(ap);
}

void problems_print(const struct problems *p, const char *program)
{
    for (int i = 0; i < p->n; i++) {
        const struct problem *q = &p->item[i];

        fprintf(stderr, "%s: %s%s%s%s\n", program, q->where, *q->where ? ": " : "",
                q->warning ? "warning: " : "", q->message);
        if (*q->mend)
            fprintf(stderr, "  try: %s\n", q->mend);
    }
    if (p->dropped)
        fprintf(stderr, "%s: and %d more\n", program, p->dropped);
}

void problems_write_json(const struct problems *p, struct str *out)
{
    str_add_char(out, '[');
    for (int i = 0; i < p->n; i++) {
        const struct problem *q = &p->item[i];

        str_add(out, i ? ", {\"where\": " : "{\"where\": ");
        str_add_json(out, q->where, strlen(q->where));
        str_add(out, ", \"message\": ");
        str_add_json(out, q->message, strlen(q->message));
        str_add(out, ", \"mend\": ");
        str_add_json(out, q->mend, strlen(q->mend));
        str_addf(out, ", \"warning\": %s}", q->warning ? "true" : "false");
    }
    str_add_char(out, ']');
}

int problems_result(const struct problems *p, struct err *e)
{
    if (!p->errors)
        return 0;
    for (int i = 0; i < p->n; i++) {
        const struct problem *q = &p->item[i];

        if (q->warning)
            continue;
        err_set(e, ERR_CONFIG, "%s%s%s", q->where, *q->where ? ": " : "", q->message);
        if (p->errors > 1) {
            size_t used = strlen(e->msg);

            snprintf(e->msg + used, sizeof e->msg - used, " (and %d more)", p->errors - 1);
        }
        if (*q->mend)
            err_mend(e, "%s", q->mend);
        return ERR_CONFIG;
    }
    return err_set(e, ERR_CONFIG, "%d problems", p->errors);
}
